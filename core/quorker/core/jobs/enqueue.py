"""Making jobs: ids, idempotency keys, continuations, the first state. All jobs of a command or none."""

from __future__ import annotations

from dataclasses import replace

from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.core.jobs.continuations import make_available
from quorker.core.jobs.lifecycle import AWAITING, DELETED, is_hopeless, is_met
from quorker.core.jobs.outcome import Reply, done, rejected
from quorker.core.jobs.records import JOB_BYTES, Job, UniqueKey
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import enter


def enqueue_jobs(tables: Tables, command: EnqueueJobs) -> Reply:
    """Value: the ids, in order; for a unique key that is taken, the id of the job that has it."""
    refusal = no_room(tables, len(command.jobs)) or _no_queue(tables, command) or _no_parent(tables, command)
    if refusal is not None:
        return refusal
    made: list[str] = []
    for spec in command.jobs:
        made.append(_holder(tables, spec) or _make(tables, spec, made))
    return done(tuple(made))


def no_room(tables: Tables, jobs: int) -> Reply | None:
    """New jobs are what a full store refuses first; everything that finishes work goes on."""
    limits = tables.limits
    if len(tables.jobs) + jobs > limits.max_jobs:
        return rejected("store_full", f"the store holds {len(tables.jobs)} jobs of {limits.max_jobs}")
    if tables.state_bytes >= limits.max_state_bytes:
        return rejected(
            "store_full", f"the store holds {tables.state_bytes} of {limits.max_state_bytes} bytes"
        )
    return None


def no_queue_room(tables: Tables, names: dict[str, None]) -> Reply | None:
    """May these queues come into being."""
    fresh = sum(name not in tables.queues for name in names)
    if fresh and len(tables.queues) + fresh > tables.limits.max_queues:
        return rejected("store_full", f"there are {len(tables.queues)} queues of {tables.limits.max_queues}")
    return None


def _no_queue(tables: Tables, command: EnqueueJobs) -> Reply | None:
    if all(spec.queue in tables.queues for spec in command.jobs):
        return None
    return no_queue_room(tables, dict.fromkeys(spec.queue for spec in command.jobs))


def _no_parent(tables: Tables, command: EnqueueJobs) -> Reply | None:
    for position, spec in enumerate(command.jobs):
        parent_id = spec.parent_id
        if not parent_id or parent_id in tables.jobs:
            continue
        if not _is_earlier(parent_id, position):
            return rejected("not_found", f"there is no job {parent_id} to wait for")
    return None


def _is_earlier(parent_id: str, position: int) -> bool:
    """Is it `#k`, the k-th job of the same command, and k before this one."""
    digits = parent_id[1:]
    return parent_id[0] == "#" and digits.isdigit() and digits.isascii() and int(digits) < position


def _holder(tables: Tables, spec: NewJob) -> str | None:
    if not spec.unique_key:
        return None
    unique = tables.unique_keys.get(spec.unique_key)
    if unique is None:
        return None
    if unique.expires_lt and unique.expires_lt <= tables.lt:
        tables.remove_unique_key(unique)
        return None
    return unique.job_id


def _make(tables: Tables, spec: NewJob, made: list[str]) -> str:
    parent_id = spec.parent_id
    if parent_id and parent_id[0] == "#":
        parent_id = made[int(parent_id[1:])]
        spec = replace(spec, parent_id=parent_id)
    job = new_job(tables, tables.new_job_id(), spec)
    if spec.unique_key:
        expires = tables.lt + spec.unique_ms if spec.unique_ms else 0
        tables.add_unique_key(UniqueKey(spec.unique_key, job.id, expires))
    if parent_id:
        _follow(tables, job, parent_id)
    else:
        make_available(tables, job)
    return job.id


def new_job(tables: Tables, job_id: str, spec: NewJob) -> Job:
    """A job without a state."""
    size = JOB_BYTES + len(spec.args) + len(spec.unique_key)
    if spec.headers or spec.tags:
        size += sum(len(name) + len(value) + 100 for name, value in spec.headers)
        size += sum(len(tag) + 100 for tag in spec.tags)
    order = tables.next_order()
    job = Job(job_id, spec, order, tables.wt, None, (), order, size=size)
    tables.add_job(job)
    return job


def _follow(tables: Tables, job: Job, parent_id: str) -> None:
    """Wait for the parent; or do at once what its end has decided already."""
    on, parent = job.spec.on, tables.jobs.get(parent_id)
    job = enter(tables, job, AWAITING, "", (("parent_id", parent_id), ("on", on)))
    if parent is None:  # it stands for a unique key whose job has been evicted
        enter(tables, job, DELETED, f"waits for {parent_id}, which was evicted")
    elif is_met(on, parent.state):
        make_available(tables, job, f"{parent_id} is {parent.state}")
    elif is_hopeless(on, parent.state):
        enter(tables, job, DELETED, f"waits for {on} of {parent_id}, which is {parent.state}")
