"""Who gets which job: the state machine grants jobs to sessions with free slots, in turn, at the end of every apply.

A session takes from the first of its queues that has something; a queue gives its most urgent job, oldest first.
Sessions with a free slot stand in the `ready` line of each of their queues in the order of their `turn`; a queue with
jobs and a ready session never outlives an apply (except when the entry has run out of tokens).
"""

from __future__ import annotations

from quorker.core.jobs.lifecycle import PROCESSING, TAKEABLE
from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Notice
from quorker.core.jobs.records import Job, Lease, LeaseKind, Queue, Session
from quorker.core.jobs.start_rules import may_start, started_under
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import enter


def offer_slots(tables: Tables, session: Session) -> None:
    """The session has a free slot: it joins the end of the lines it is not in."""
    if session.turn or session.busy >= session.slots:
        return
    _take_turn(tables, session)
    for name in session.queues:
        if tables.queues[name].length:
            tables.stirred[name] = None


def withdraw_slots(tables: Tables, session: Session) -> None:
    """The session takes nothing more."""
    if session.turn:
        session.turn = 0
        for name in session.queues:
            tables.queues[name].ready.pop(session.id, None)


def _take_turn(tables: Tables, session: Session) -> None:
    """To the end of all its lines."""
    session.turn = tables.next_order()
    for name in session.queues:
        ready = tables.queue(name).ready
        ready.pop(session.id, None)
        ready[session.id] = None


def settle(tables: Tables) -> None:
    """Grant until no stirred queue has both a job and a ready session."""
    stirred, queues = tables.stirred, tables.queues
    while stirred:
        lines = [queues[name] for name in stirred if name in queues and _can_give(queues[name])]
        if not lines:
            break
        if not tables.tokens_left:
            return  # what is left is stirred still: the next apply goes on
        if len(lines) == 1:
            _drain(tables, lines[0])
        else:
            _give_once(tables, lines)
    stirred.clear()


def _can_give(queue: Queue) -> bool:
    return bool(queue.ready and not queue.paused and queue.has_next)


def _drain(tables: Tables, queue: Queue) -> None:
    """Only this queue has something for a ready session, so none of them prefers another."""
    sessions, ready = tables.sessions, queue.ready
    while ready and queue.has_next and tables.tokens_left:
        _give(tables, sessions[next(iter(ready))], queue)


def _give_once(tables: Tables, lines: list[Queue]) -> None:
    """One grant, to the session whose turn it is, out of the first of its queues that has something."""
    first_in_line = [tables.sessions[next(iter(queue.ready))] for queue in lines]
    session = min(first_in_line, key=lambda each: each.turn)
    _give(
        tables,
        session,
        next(tables.queues[name] for name in session.queues if _can_give(tables.queues[name])),
    )


def _give(tables: Tables, session: Session, queue: Queue) -> None:
    job = take_next(tables, queue)
    if job is None:
        return
    session.busy += 1
    granted = grant(tables, session, queue.name, job, LeaseKind.DISPATCHED)
    tables.outcome.notices.append(Notice(session.id, "job", granted))
    if session.busy < session.slots:
        _take_turn(tables, session)
    else:
        withdraw_slots(tables, session)


def take_next(tables: Tables, queue: Queue) -> Job | None:
    """Take the next job that can run out of the queue; entries that lead nowhere are dropped on the way."""
    while queue.has_next and tables.tokens_left:
        job = tables.jobs.get(tables.pop_from_queue(queue))
        if job is None or job.token or job.state not in TAKEABLE:
            continue
        if job.spec.start is None or may_start(tables, queue, job, job.spec.start):
            return job
    return None


def grant(tables: Tables, session: Session, queue_name: str, job: Job, kind: LeaseKind) -> JobGrant:
    """Put a job into the hands of a session: Processing, a new token, a lease."""
    token = tables.next_token()
    spec = job.spec
    job = enter(tables, job, PROCESSING, "", (("worker", session.name), ("token", token)), token=token)
    deadline = tables.lt + spec.timeout_ms + tables.limits.timeout_grace_ms if spec.timeout_ms else 0
    key = started_under(tables, job) if spec.start is not None else ""
    tables.add_lease(Lease(token, job.id, queue_name, session.id, kind, tables.lt, tables.wt, deadline, key))
    return _granted(job, token, queue_name)


def held_grants(tables: Tables, session: Session) -> list[JobGrant]:
    """What was dispatched to this session and is still in its hands, oldest first: for one that may have missed it."""
    leases = [tables.leases[token] for token in sorted(session.leases)]
    return [
        _granted(tables.jobs[lease.job_id], lease.token, lease.queue)
        for lease in leases
        if lease.kind is LeaseKind.DISPATCHED
    ]


def _granted(job: Job, token: int, queue_name: str) -> JobGrant:
    spec = job.spec
    return JobGrant(
        job.id,
        token,
        queue_name,
        spec.task,
        spec.args,
        job.failures + 1,
        spec.timeout_ms,
        job.created_wt,
        job.deliveries,
        spec.headers,
        spec.batch_id,
    )
