"""Carrying out a change of a job's state, with everything that follows from it inside the store.

Entering and leaving states keeps expiry, statistics, unique keys, batches and waiting continuations right, so that no caller can
forget one of them. Whether a change is wanted, and what becomes of the job's lease and queue entries, is the caller's.
"""

from __future__ import annotations

from typing import Final

from quorker.core.frozen import new_tuple
from quorker.core.jobs.batch_members import recount
from quorker.core.jobs.lifecycle import (
    AWAITING,
    DELETED,
    ENDED,
    ENQUEUED,
    FAILED,
    FINAL,
    PROCESSING,
    SCHEDULED,
    SUCCEEDED,
    UNBORN,
    is_legal,
)
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.records import JOB_BYTES, Job, StateData, StateRecord, UniqueKey, weigh
from quorker.core.jobs.tables import Tables

KEEP: Final = -1


def born(
    tables: Tables, job_id: str, spec: NewJob, name: str = UNBORN, data: StateData = (), due_wt: int = 0
) -> Job:
    """A new job, in its first state, or in none."""
    size = JOB_BYTES + len(spec.args) + len(spec.unique_key)
    if spec.headers or spec.tags:
        size += sum(len(header) + len(value) + 100 for header, value in spec.headers)
        size += sum(len(tag) + 100 for tag in spec.tags)
    order, wt = tables.next_order(), tables.wt
    record: StateRecord | None = None
    history: tuple[StateRecord, ...] = ()
    if name:
        history = _first_history(tables, name, data)
        first = record = history[0]
        size += weigh(first)
    fields = (job_id, spec, order, wt, record, history, order, 0, 0, 0, 0, due_wt, 0, None, (), size)
    job: Job = new_tuple(Job, fields)
    tables.add_job(job)
    if spec.start is not None:
        tables.set_start_by(job_id, spec.start.by_wt)
        if name != AWAITING:
            await_start(tables, job, due_wt or wt)
    return job


def await_start(tables: Tables, job: Job, from_wt: int) -> None:
    """The job may start from now on: see to it that it does not start too late, unless it has started before."""
    rules = job.spec.start
    if rules is None or not rules.within_ms or job.deliveries:
        return
    start_by_wt = from_wt + rules.within_ms
    tables.set_start_by(job.id, min(tables.start_by.get(job.id, start_by_wt), start_by_wt))


def _first_history(tables: Tables, name: str, data: StateData) -> tuple[StateRecord, ...]:
    """Jobs of one entry that begin alike share it: it is one object less to make and to keep for each of them."""
    history = tables.first_history
    if data or not history or history[0].at_wt != tables.wt or history[0].name != name:
        history = (StateRecord(name, "", tables.wt, data),)
        if not data:
            tables.first_history = history
    return history


def enter(
    tables: Tables,
    job: Job,
    name: str,
    reason: str = "",
    data: StateData = (),
    *,
    token: int = 0,
    due_wt: int = 0,
    failures: int = KEEP,
    lost: int = KEEP,
    result: bytes | None = None,
) -> Job:
    """Take a job to a state by a legal transition. A grant (`token`) counts as a delivery."""
    before = job.current.name if job.current else UNBORN
    assert is_legal(before, name), f"{before} to {name} is not in the table"
    record: StateRecord = new_tuple(StateRecord, (name, reason, tables.wt, data))
    history, size = with_record(tables, job, record)
    if job.result is not None:
        size -= len(job.result)
    tables.order = order = tables.order + 1
    new: Job = new_tuple(
        Job,
        (
            job.id,
            job.spec,
            job.created,
            job.created_wt,
            record,
            history,
            order,
            job.failures if failures == KEEP else failures,
            job.deliveries + 1 if token else job.deliveries,
            job.lost if lost == KEEP else lost,
            token,
            due_wt,
            expiry_of(tables, job, name) if name in ENDED else 0,
            result,
            job.parameters,
            size if result is None else size + len(result),
        ),
    )
    tables.change_job(job, new)
    if tables.start_by and name not in (ENQUEUED, SCHEDULED):
        tables.set_start_by(job.id, 0)
    if before in ENDED or name in ENDED:
        _count(tables, before, name)
        after_change(tables, job, new)
    return new


def with_record(tables: Tables, job: Job, record: StateRecord) -> tuple[tuple[StateRecord, ...], int]:
    """The history with one more record, cut to its limit, and the size of the job with it."""
    size = job.size + weigh(record)
    history = (*job.history, record)
    surplus = len(history) - tables.limits.history_max
    if surplus > 0:
        size -= sum(weigh(old) for old in history[:surplus])
        history = history[surplus:]
    return history, size


def expiry_of(tables: Tables, job: Job, name: str) -> int:
    """When a job that ends now is evicted (log time), 0 for never: quarantined jobs stay until someone decides."""
    limits, own = tables.limits, job.spec.retention_ms
    if name == SUCCEEDED:
        ttl = own or limits.succeeded_ttl_ms
    elif name == DELETED:
        ttl = own or limits.deleted_ttl_ms
    elif name == FAILED:
        ttl = limits.failed_ttl_ms
    else:
        return 0
    return max(1, tables.lt + ttl)


def _count(tables: Tables, before: str, name: str) -> None:
    if name in ENDED:
        tables.ended_counts[name] = tables.ended_counts.get(name, 0) + 1
    if before in FINAL:
        tables.left_counts[before] = tables.left_counts.get(before, 0) + 1


def set_state(tables: Tables, job: Job, record: StateRecord) -> Job:
    """The contract's plain change of state: any name, no rules, expiry and statistics are its caller's business.

    The job's lease has been revoked unless the new state is Processing.
    """
    history, size = with_record(tables, job, record)
    new = job._replace(
        current=record,
        history=history,
        order=tables.next_order(),
        token=job.token if record.name == PROCESSING else 0,
        due_wt=0,
        size=size,
    )
    tables.change_job(job, new)
    tables.set_start_by(job.id, 0)
    after_change(tables, job, new)
    parent_id = new.spec.parent_id
    if record.name == AWAITING and parent_id and tables.state_of_parent(parent_id) in ENDED:
        tables.unresolved[parent_id] = None  # a continuation put back into the line: decided like the others
    return new


def add_record(tables: Tables, job: Job, record: StateRecord) -> Job:
    """History only: the current state stays what it is."""
    history, size = with_record(tables, job, record)
    new = job._replace(history=history, size=size)
    tables.change_job(job, new)
    return new


def after_change(tables: Tables, old: Job, new: Job) -> None:
    """What follows from leaving one state and being in another."""
    if old.state in ENDED:
        _revived(tables, old)
    if new.state in ENDED:
        _ended(tables, new)
    if new.spec.batch_id:
        recount(tables, new.spec.batch_id, old.state, new.state)


def _ended(tables: Tables, job: Job) -> None:
    tables.outcome.finished.append(job.id)
    key = job.spec.unique_key
    if key and not job.spec.unique_ms:
        unique = tables.unique_keys.get(key)
        if unique is not None and unique.job_id == job.id:
            tables.remove_unique_key(unique)
    if job.id in tables.index.children:
        tables.unresolved[job.id] = None


def _revived(tables: Tables, job: Job) -> None:
    tables.unresolved.pop(job.id, None)
    key = job.spec.unique_key
    if key and not job.spec.unique_ms and key not in tables.unique_keys:
        tables.add_unique_key(UniqueKey(key, job.id, 0))
