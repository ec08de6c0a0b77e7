"""Jobs that wait for another job, or for a batch of jobs: released when its end meets their condition, deleted when that cannot happen any more.

The state machine does it on every terminal transition, in bounded pieces: what is left over stays in `unresolved`, and
`ReleaseDue` goes on with it. So no crash or failover can orphan a continuation.
"""

from __future__ import annotations

from itertools import islice

from quorker.core.jobs.lifecycle import DELETED, ENQUEUED, SCHEDULED, is_hopeless, is_met
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.records import Job
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import await_start, enter


def resolve(tables: Tables, budget: int) -> int:
    """Deal with up to `budget` continuations of ended parents, the parent that ended first first. Returns how many."""
    spent = 0
    while tables.unresolved and spent < budget:
        parent_id = next(iter(tables.unresolved))
        state = tables.state_of_parent(parent_id) or ""
        decided = _decided(tables, parent_id, state, budget - spent)
        for child in decided:
            _decide(tables, child, parent_id, state)
        spent += len(decided)
        if spent < budget:
            tables.unresolved.pop(parent_id, None)
    return spent


def _decided(tables: Tables, parent_id: str, parent_state: str, limit: int) -> list[Job]:
    """Children that this end of their parent decides."""
    children = (tables.jobs[child_id] for child_id in tables.index.children.get(parent_id, ()))
    decided = (
        child
        for child in children
        if is_met(child.spec.on, parent_state) or is_hopeless(child.spec.on, parent_state)
    )
    return list(islice(decided, limit))


def _decide(tables: Tables, child: Job, parent_id: str, parent_state: str) -> None:
    if is_met(child.spec.on, parent_state):
        make_available(tables, child, f"{parent_id} is {parent_state}")
    else:
        enter(tables, child, DELETED, f"waited for {child.spec.on} of {parent_id}, which is {parent_state}")


def forsake(tables: Tables, parent_id: str, budget: int) -> int:
    """The parent is about to be evicted: delete up to `budget` of those that still wait for it. Returns how many."""
    waiting = list(islice(tables.index.children.get(parent_id, ()), budget))
    for child_id in waiting:
        enter(tables, tables.jobs[child_id], DELETED, f"{parent_id} was evicted")
    return len(waiting)


def make_available(tables: Tables, job: Job, reason: str) -> Job:
    """Enqueue a released job now, or schedule it if it was asked to start later."""
    spec = job.spec
    due_wt = start_of(tables, spec)
    await_start(tables, job, due_wt or tables.wt)
    if due_wt:
        return enter(tables, job, SCHEDULED, reason, (("due_wt", due_wt),), due_wt=due_wt)
    job = enter(tables, job, ENQUEUED, reason)
    tables.append_to_queue(spec.queue, spec.priority, job.id)
    return job


def start_of(tables: Tables, spec: NewJob) -> int:
    """The wall time (ms) that a job was asked to wait for, or 0 when it may start now."""
    due_wt = tables.wt + spec.delay_ms if spec.at_wt is None else spec.at_wt
    return due_wt if due_wt > tables.wt else 0
