"""Making jobs: ids, idempotency keys, continuations, members of batches, the first state. All of a command or none."""

from __future__ import annotations

from collections.abc import Sequence

from quorker.core.jobs.batch_members import join
from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.core.jobs.continuations import make_available, start_of
from quorker.core.jobs.lifecycle import AWAITING, DELETED, ENQUEUED, SCHEDULED, is_hopeless, is_met
from quorker.core.jobs.outcome import Reply, rejected
from quorker.core.jobs.records import UniqueKey
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import born, enter


def enqueue_jobs(tables: Tables, command: EnqueueJobs) -> Reply:
    """Value: the ids, in order; for a unique key that is taken, the id of the job that has it."""
    jobs, queues = command.jobs, tables.queues
    refusal = no_room(tables, len(jobs))
    for spec in jobs:
        if spec.parent_id or spec.batch_id or spec.queue not in queues:
            refusal = refusal or no_place(tables, jobs) or _no_batch(tables, jobs)
            break
    if refusal is not None:
        return refusal
    return (0, make_jobs(tables, jobs))


def make_jobs(tables: Tables, jobs: tuple[NewJob, ...]) -> tuple[str, ...]:
    """The ids, in order. There is room and a place for each (the caller knows)."""
    made: list[str] = []
    for spec in jobs:
        made.append(make(tables, spec, made))
    return tuple(made)


def no_place(tables: Tables, jobs: tuple[NewJob, ...]) -> Reply | None:
    """May their queues come into being, and is there what they wait for."""
    return no_queue_room(tables, dict.fromkeys(spec.queue for spec in jobs)) or _no_parent(tables, jobs)


def held_key(tables: Tables, jobs: tuple[NewJob, ...]) -> Reply | None:
    """A new batch waits for jobs of its own only, so none of its members may be stood for by another job."""
    taken: dict[str, None] = {}
    for spec in jobs:
        key = spec.unique_key
        if not key:
            continue
        if key in taken or is_taken(tables, key):
            return rejected("key_held", f"the unique key {key} of a member of a batch stands for another job")
        taken[key] = None
    return None


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


def _no_parent(tables: Tables, jobs: tuple[NewJob, ...]) -> Reply | None:
    for position, spec in enumerate(jobs):
        parent_id = spec.parent_id
        if not parent_id or parent_id in tables.jobs or _is_earlier(parent_id, position):
            continue
        if tables.state_of_parent(parent_id) is None:
            return rejected("not_found", f"there is no job {parent_id} to wait for")
        if spec.on == "deleted":
            return rejected("wrong_condition", f"{parent_id} ends as success or failure, it is never deleted")
    return None


def _foreign_key(tables: Tables, members: tuple[NewJob, ...]) -> Reply | None:
    """Who joins a batch may be stood for by a member of it, so that a member which is tried again adds nothing twice."""
    taken: dict[str, str] = {}
    for spec in members:
        key = spec.unique_key
        if not key:
            continue
        holder = tables.jobs.get(tables.unique_keys[key].job_id) if is_taken(tables, key) else None
        held_by = taken.setdefault(key, holder.spec.batch_id if holder is not None else spec.batch_id)
        if held_by != spec.batch_id:
            return rejected("key_held", f"the unique key {key} of a member of a batch stands for another job")
    return None


def _no_batch(tables: Tables, jobs: tuple[NewJob, ...]) -> Reply | None:
    """A batch takes further members as long as it has not ended."""
    members = tuple([spec for spec in jobs if spec.batch_id])
    for spec in members:
        batch = tables.batches.get(spec.batch_id)
        if batch is None:
            return rejected("not_found", f"there is no batch {spec.batch_id}")
        if not batch.pending:
            return rejected("batch_ended", f"batch {spec.batch_id} is {batch.state}")
        if spec.parent_id == batch.reference:
            return rejected("waits_for_itself", f"a member of batch {spec.batch_id} cannot wait for its end")
    return _foreign_key(tables, members)


def _is_earlier(parent_id: str, position: int) -> bool:
    """Is it `#k`, the k-th job of the same command, and k before this one."""
    digits = parent_id[1:]
    return parent_id[0] == "#" and digits.isdigit() and digits.isascii() and int(digits) < position


def is_taken(tables: Tables, key: str) -> bool:
    """Whether a job stands for an idempotency key now."""
    unique = tables.unique_keys.get(key)
    return unique is not None and not 0 < unique.expires_lt <= tables.lt


def _holder(tables: Tables, spec: NewJob) -> str | None:
    unique = tables.unique_keys.get(spec.unique_key)
    if unique is None:
        return None
    if not is_taken(tables, unique.key):
        tables.remove_unique_key(unique)
        return None
    return unique.job_id


def make(tables: Tables, spec: NewJob, made: Sequence[str] = ()) -> str:
    """The id of a new job, or of the one that holds its unique key. There is room for it (the caller knows).

    `made`: the earlier jobs of the same command, which it may wait for.
    """
    holder = _holder(tables, spec) if spec.unique_key else None
    if holder is not None:
        return holder
    job_id = tables.new_job_id()
    if spec.unique_key:
        expires = tables.lt + spec.unique_ms if spec.unique_ms else 0
        tables.add_unique_key(UniqueKey(spec.unique_key, job_id, expires))
    if spec.batch_id:
        join(tables, spec.batch_id)
    if spec.parent_id:
        _follow(tables, job_id, spec, made)
    elif (spec.delay_ms or spec.at_wt is not None) and (due_wt := start_of(tables, spec)):
        born(tables, job_id, spec, SCHEDULED, (("due_wt", due_wt),), due_wt)
    else:
        born(tables, job_id, spec, ENQUEUED)
        tables.append_to_queue(spec.queue, spec.priority, job_id)
    return job_id


def _follow(tables: Tables, job_id: str, spec: NewJob, made: Sequence[str]) -> None:
    """Wait for the parent; or do at once what its end has decided already."""
    parent_id, on = spec.parent_id, spec.on
    if parent_id[0] == "#":
        parent_id = made[int(parent_id[1:])]
        spec = spec._replace(parent_id=parent_id)
    state = tables.state_of_parent(parent_id)
    job = born(tables, job_id, spec, AWAITING, (("parent_id", parent_id), ("on", on)))
    if state is None:  # it stands for a unique key whose job has been evicted
        enter(tables, job, DELETED, f"waits for {parent_id}, which was evicted")
    elif is_met(on, state):
        make_available(tables, job, f"{parent_id} is {state}")
    elif is_hopeless(on, state):
        enter(tables, job, DELETED, f"waits for {on} of {parent_id}, which is {state}")
