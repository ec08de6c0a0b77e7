"""What is true of every job store after every entry; a broken one is a bug of the state machine itself.

Everything is recomputed from the records and compared with what the store keeps, so a missed index, a leaked lease or a
slot that is never freed shows at the entry that caused it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from quorker.core.jobs.index import JobIndex
from quorker.core.jobs.lifecycle import (
    DELETED,
    ENDED,
    FAILED,
    PROCESSING,
    QUARANTINED,
    SCHEDULED,
    SUCCEEDED,
    is_hopeless,
    is_met,
)
from quorker.core.jobs.records import JOB_BYTES, Job, LeaseKind, weigh
from quorker.core.jobs.tables import (
    BATCH_BYTES,
    LOCK_BYTES,
    PLACE_BYTES,
    QUEUE_BYTES,
    START_BY_BYTES,
    UNIQUE_KEY_BYTES,
    Tables,
)
from quorker.core.jobs.timeline import Timeline
from quorker.sim.oracles.limit_invariants import limit_bytes, limit_problems

HISTORY_MAX: Final = 50  # limits may have been lowered since


def check_store(store: Tables) -> None:
    """Raises AssertionError with all that is wrong."""
    problems = [
        *_jobs(store),
        *_queues(store),
        *_leases(store),
        *_sessions(store),
        *_locks(store),
        *_index(store),
        *_recurring(store),
        *_batches(store),
        *_sizes(store),
        *limit_problems(store),
    ]
    assert not problems, "; ".join(problems[:10])


def check_successors(old: Tables, new: Tables) -> None:
    """What may not happen between two states in a row."""
    assert new.lt >= old.lt, "log time went back"
    assert new.wt >= old.wt, "wall time went back"
    assert new.order >= old.order, "the running order went back"
    assert new.applied_index >= old.applied_index, "the applied index went back"


def _jobs(store: Tables) -> Iterator[str]:
    for job in store.jobs.values():
        state = job.state
        if bool(job.token) and (state != PROCESSING or job.token not in store.leases):
            yield f"{job.id} has token {job.token}, is {state}, and the lease is not there"
        if bool(job.due_wt) and state != SCHEDULED:
            yield f"{job.id} is due but {state}"
        if len(job.history) > HISTORY_MAX:
            yield f"{job.id} has too long a history"
        parent_id = job.spec.parent_id
        parent_state = store.state_of_parent(parent_id) if parent_id else None
        if parent_state is not None and _overdue(store, job, parent_state):
            yield f"{job.id} still waits for {parent_id}, which is {parent_state}"


def _overdue(store: Tables, job: Job, parent_state: str) -> bool:
    """A continuation of an ended parent, decided, and nobody is going to do it."""
    parent_id, on = job.spec.parent_id, job.spec.on
    if job.id not in store.index.children.get(parent_id, ()) or parent_id in store.unresolved:
        return False
    return parent_state in ENDED and (is_met(on, parent_state) or is_hopeless(on, parent_state))


def _batches(store: Tables) -> Iterator[str]:
    """Counts are what the members say; of those that are gone, more may have ended, and none is pending."""
    members: dict[str, list[str]] = {}
    for job in store.jobs.values():
        members.setdefault(job.spec.batch_id, []).append(job.state)
    for batch in store.batches.values():
        states = members.get(batch.id, [])
        pending = sum(state not in ENDED for state in states)
        if batch.pending != pending:
            yield f"batch {batch.id} says that {batch.pending} are pending, {pending} are"
        kept = (batch.succeeded, batch.failed, batch.deleted, batch.quarantined)
        for state, count in zip((SUCCEEDED, FAILED, DELETED, QUARANTINED), kept, strict=True):
            if count < states.count(state):
                yield f"batch {batch.id} says that {count} are {state}, {states.count(state)} are"
        if bool(batch.pending) == bool(batch.completed_wt and batch.expires_lt):
            yield f"batch {batch.id} with {batch.pending} pending says that it ended at {batch.completed_wt}"
    expiry = sorted((batch.expires_lt, batch.id) for batch in store.batches.values() if batch.expires_lt)
    if expiry != list(store.batch_expiry):
        yield "the expiry of batches differs"
    if list(store.batch_line) != [(batch.created, batch.id) for batch in store.batches.values()]:
        yield "the order of batches differs"


def _queues(store: Tables) -> Iterator[str]:
    places = {
        (queue.name, priority, position, ""): job_id
        for queue in store.queues.values()
        for priority, lane in queue.lanes.items()
        for position, job_id in [*lane.front.items(), *lane.back]
    } | {
        (line.queue.name, -negative, position, key): line.entries[position][0]
        for key, limiter in store.limiters.by_key.items()
        for line in limiter.lines.values()
        for negative, position in line.rows
    }
    kept = {tuple(place): job_id for job_id, each in store.places.items() for place in each}
    if places != kept:
        yield "places and queues differ"
    for queue in store.queues.values():
        if queue.length != queue.lined + sum(len(lane) for lane in queue.lanes.values()):
            yield f"queue {queue.name} says {queue.length}"
        if queue.priorities != sorted(queue.lanes, reverse=True):
            yield f"queue {queue.name} has other priorities than lanes"
        if queue.has_next and queue.ready and not queue.paused and store.tokens_left:
            yield f"queue {queue.name} has both jobs and ready sessions"
        turns = [store.sessions[session_id].turn for session_id in queue.ready]
        if turns != sorted(turns) or 0 in turns:
            yield f"queue {queue.name} has its sessions out of turn"


def _leases(store: Tables) -> Iterator[str]:
    held: dict[str, int] = {}
    for token, lease in store.leases.items():
        held[lease.job_id] = held.get(lease.job_id, 0) + 1
        job = store.jobs.get(lease.job_id)
        if lease.kind != LeaseKind.FETCHED and (job is None or job.token != token):
            yield f"lease {token} of {lease.job_id}, which knows nothing of it"
        if lease.session and token not in store.sessions[lease.session].leases:
            yield f"lease {token} is not known to its session"
        if store.queues[lease.queue].fetched.get(token) != lease.job_id:
            yield f"lease {token} is not known to its queue"
    if held != store.index.held:
        yield "held jobs differ"
    fetched = [token for token, lease in store.leases.items() if lease.kind == LeaseKind.FETCHED]
    if fetched != list(store.fetched):
        yield "fetched leases differ"
    since = [store.leases[token].since_lt for token in fetched]
    if since != sorted(since):
        yield "fetched leases are out of order"
    deadlines = sorted(
        (lease.deadline_lt, token) for token, lease in store.leases.items() if lease.deadline_lt
    )
    if deadlines != list(store.deadlines):
        yield "deadlines differ"


def _sessions(store: Tables) -> Iterator[str]:
    for session in store.sessions.values():
        mine = [lease for lease in store.leases.values() if lease.session == session.id]
        if sorted(lease.token for lease in mine) != list(session.leases):
            yield f"session {session.id} has other leases than there are"
        if session.busy != sum(lease.kind == LeaseKind.DISPATCHED for lease in mine):
            yield f"session {session.id} says it is busy with {session.busy}"
        if bool(session.turn) != (session.busy < session.slots and bool(session.queues)):
            yield f"session {session.id} should{' not' if session.turn else ''} stand in line"
        for name in session.queues if session.turn else ():
            if session.id not in store.queues[name].ready:
                yield f"session {session.id} is not in the line of {name}"
        if store.by_nonce.get(session.nonce) != session.id or session.id not in store.by_name[session.name]:
            yield f"session {session.id} cannot be found by its nonce or name"
        if any(seq < session.acked_below for seq in session.replies):
            yield f"session {session.id} keeps replies nobody will ask for"


def _locks(store: Tables) -> Iterator[str]:
    for resource, lock in store.locks.items():
        session = store.sessions.get(lock.session)
        if lock.session and not lock.expires_lt and (session is None or lock.token not in session.locks):
            yield f"lock {resource} is bound to a session that does not know it"
        for ticket, waiter in lock.waiters.items():
            if store.sessions[waiter.session].waits.get(ticket) != resource:
                yield f"ticket {ticket} for {resource} is not known to its session"
    for session in store.sessions.values():
        for token, resource in session.locks.items():
            if store.locks[resource].token != token:
                yield f"session {session.id} believes it has {resource}"
        for ticket, resource in session.waits.items():
            if ticket not in store.locks[resource].waiters:
                yield f"session {session.id} believes it waits for {resource}"
    expiry = sorted((lock.expires_lt, lock.resource) for lock in store.locks.values() if lock.expires_lt)
    if expiry != list(store.lock_expiry):
        yield "the expiry of locks differs"


def _index(store: Tables) -> Iterator[str]:
    fresh = JobIndex()
    fresh.rebuild(store.jobs.values())
    for lease in store.leases.values():
        fresh.hold(lease.job_id, store.jobs.get(lease.job_id))
    for what, kept, made in (
        ("states", store.index.states, fresh.states),
        ("tasks", store.index.tasks, fresh.tasks),
        ("tags", store.index.tags, fresh.tags),
        ("batches", store.index.batches, fresh.batches),
    ):
        if _listed(kept) != _listed(made):
            yield f"the index of {what} differs"
    for what, rows, made_rows in (
        ("schedule", store.index.schedule, fresh.schedule),
        ("retries", store.index.retries, fresh.retries),
        ("retention", store.index.retention, fresh.retention),
    ):
        if list(rows) != list(made_rows):
            yield f"the {what} differs"
    if _ordered(store.index.children) != _ordered(fresh.children):
        yield "the index of continuations differs"


def _recurring(store: Tables) -> Iterator[str]:
    for recurring_id, entry in store.recurring.items():
        if entry.id != recurring_id or bool(entry.cron) == bool(entry.every_ms):
            yield f"recurring job {recurring_id} has another id, or not one schedule"
        if entry.next_wt and (entry.paused or entry.error or entry.next_wt <= entry.plan_wt):
            yield f"recurring job {recurring_id} has a plan that cannot be"
        if entry.last_slot_wt > store.wt or entry.last_fired_wt > store.wt:
            yield f"recurring job {recurring_id} has fired in the future"
        if (entry.reason or entry.author or entry.paused_wt) and not entry.paused:
            yield f"recurring job {recurring_id} is not paused, but somebody has paused it"
    if [recurring_id for (recurring_id,) in store.recurring_ids] != sorted(store.recurring):
        yield "the ids of recurring jobs differ"
    live = [entry for entry in store.recurring.values() if not entry.paused and not entry.error]
    if list(store.recurring_plan) != sorted((entry.next_wt, entry.id) for entry in live):
        yield "the plan of recurring jobs differs"


def _listed(timelines: dict[str, Timeline]) -> dict[str, list[tuple[int, str]]]:
    return {key: list(timeline) for key, timeline in timelines.items() if timeline.size}


def _ordered(children: dict[str, dict[str, None]]) -> dict[str, list[str]]:
    return {parent: list(ids) for parent, ids in children.items()}


def _sizes(store: Tables) -> Iterator[str]:
    total = 0
    for job in store.jobs.values():
        if job.size < JOB_BYTES + sum(weigh(record) for record in job.history):
            yield f"{job.id} says it has {job.size} bytes"
        total += job.size
    total += QUEUE_BYTES * len(store.queues)
    total += PLACE_BYTES * sum(queue.length for queue in store.queues.values())
    total += sum(LOCK_BYTES + len(resource) for resource in store.locks)
    total += sum(UNIQUE_KEY_BYTES + len(key) for key in store.unique_keys)
    total += sum(entry.size for entry in store.recurring.values())
    total += sum(BATCH_BYTES + len(batch.name) for batch in store.batches.values())
    total += START_BY_BYTES * len(store.start_by)
    if limit_bytes(store) != store.limiters.bytes:
        yield f"the keys say they have {store.limiters.bytes} bytes, their records {limit_bytes(store)}"
    if total != store.bytes:
        yield f"the store says it has {store.bytes} bytes, its records {total}"
