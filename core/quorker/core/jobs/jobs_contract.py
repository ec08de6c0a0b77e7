"""The storage contract's operations on jobs, queues, fetched jobs and locks, one handler each.

They return plain values and never refuse: a job that is not there makes them do nothing, as the contract wants it. So a
batch of them cannot fail half way. They are building blocks for someone else's lifecycle and follow no transition table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from quorker.core.jobs import commands
from quorker.core.jobs.bounds import Pairs
from quorker.core.jobs.leases import free, give_back, revoke
from quorker.core.jobs.lifecycle import PROCESSING
from quorker.core.jobs.locks import try_lock, unlock
from quorker.core.jobs.maintenance import maintain
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.outcome import Value
from quorker.core.jobs.records import Job, Lease, LeaseKind, StateRecord
from quorker.core.jobs.retention import evict
from quorker.core.jobs.start_rules import may_start, started_under
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import add_record, born, set_state

ContractHandler: TypeAlias = Callable[[Tables, Any], Value]
PARAMETER_BYTES: Final = 150
PARAMETERS_MAX: Final = 256


def create_job(tables: Tables, command: commands.CreateJob) -> str:
    """Value: the id. Without a state, and with an expiry, so that a job whose creation stops here vanishes."""
    job_id = command.job_id or tables.new_job_id()
    old = tables.jobs.get(job_id)
    if old is not None:
        revoke(tables, old, "replaced")
        evict(tables, tables.jobs[job_id])
    job = born(tables, job_id, NewJob(command.task, command.args, command.queue))
    parameters = tuple(dict(command.parameters).items())
    size = job.size + sum(_parameter_bytes(name, value) for name, value in parameters)
    expires_lt = max(1, tables.lt + command.expire_in_ms)
    tables.change_job(job, job._replace(parameters=parameters, size=size, expires_lt=expires_lt))
    return job_id


def _parameter_bytes(name: str, value: str | None) -> int:
    return PARAMETER_BYTES + len(name) + len(value or "")


def set_job_parameter(tables: Tables, command: commands.SetJobParameter) -> bool:
    """Value: is there such a job, with room for it (256 parameters)."""
    job = tables.jobs.get(command.job_id)
    if job is None:
        return False
    parameters = dict(job.parameters)
    size = job.size
    if command.name in parameters:
        size -= _parameter_bytes(command.name, parameters[command.name])
    elif len(parameters) >= PARAMETERS_MAX:
        return False
    parameters[command.name] = command.value
    size += _parameter_bytes(command.name, command.value)
    tables.change_job(job, job._replace(parameters=tuple(parameters.items()), size=size))
    return True


def set_job_state(tables: Tables, command: commands.SetJobState) -> bool:
    """Value: is there such a job. A dispatched job that leaves Processing this way is taken from its worker."""
    job = tables.jobs.get(command.job_id)
    if job is None:
        return False
    if command.state != PROCESSING:
        revoke(tables, job, f"now {command.state}")
        job = tables.jobs[job.id]
    record = StateRecord(command.state, command.reason, tables.wt, _last_wins(command.data))
    set_state(tables, job, record)
    return True


def add_job_state(tables: Tables, command: commands.AddJobState) -> bool:
    """Value: is there such a job."""
    job = tables.jobs.get(command.job_id)
    if job is None:
        return False
    add_record(tables, job, StateRecord(command.state, command.reason, tables.wt, _last_wins(command.data)))
    return True


def _last_wins(data: Pairs) -> Pairs:
    """Keys that differ by case alone are one key; the last value counts."""
    return tuple({name.lower(): (name, value) for name, value in data}.values())


def expire_job(tables: Tables, command: commands.ExpireJob) -> bool:
    """Value: is there such a job."""
    return _set_expiry(tables, command.job_id, max(1, tables.lt + command.expire_in_ms))


def persist_job(tables: Tables, command: commands.PersistJob) -> bool:
    """Value: is there such a job."""
    return _set_expiry(tables, command.job_id, 0)


def _set_expiry(tables: Tables, job_id: str, expires_lt: int) -> bool:
    job = tables.jobs.get(job_id)
    if job is None:
        return False
    tables.change_job(job, job._replace(expires_lt=expires_lt))
    return True


def add_to_queue(tables: Tables, command: commands.AddToQueue) -> None:
    job = tables.jobs.get(command.job_id)
    tables.append_to_queue(command.queue, job.spec.priority if job else 0, command.job_id)


def fetch_next(tables: Tables, command: commands.FetchNext) -> tuple[str, str, int] | None:
    """Value: (job id, queue, token), or None. The job's state is left alone; ids without a job are dropped."""
    session = tables.session
    if session is not None and len(session.leases) >= tables.limits.max_session_leases:
        return None
    for name in command.queues:
        queue = tables.queues.get(name)
        while queue is not None and queue.has_next and not queue.paused and tables.tokens_left:
            job = tables.jobs.get(tables.pop_from_queue(queue))
            rules = job.spec.start if job is not None else None
            if job is not None and (rules is None or may_start(tables, queue, job, rules)):
                return _fetch(tables, name, job)
    return None


def _fetch(tables: Tables, queue: str, job: Job) -> tuple[str, str, int]:
    token = tables.next_token()
    holder = tables.session.id if tables.session else 0
    key = started_under(tables, job) if job.spec.start is not None else ""
    tables.add_lease(Lease(token, job.id, queue, holder, LeaseKind.FETCHED, tables.lt, tables.wt, 0, key))
    return job.id, queue, token


def _fetched(tables: Tables, token: int) -> Lease | None:
    """Dispatched jobs are reported by compound operations only."""
    lease = tables.leases.get(token)
    return lease if lease is not None and lease.kind == LeaseKind.FETCHED else None


def ack_fetched(tables: Tables, command: commands.AckFetched) -> bool:
    """Value: was the lease still there."""
    lease = _fetched(tables, command.token)
    if lease is None:
        return False
    free(tables, lease)
    return True


def requeue_fetched(tables: Tables, command: commands.RequeueFetched) -> bool:
    """Value: was the lease still there. Back to the head; a job that has ended keeps its expiry and is not queued."""
    lease = _fetched(tables, command.token)
    if lease is None:
        return False
    give_back(tables, lease, "requeued")
    return True


def renew_fetched(tables: Tables, command: commands.RenewFetched) -> bool:
    """Value: is the lease still there."""
    lease = _fetched(tables, command.token)
    if lease is None:
        return False
    tables.renew_lease(lease, tables.lt)
    return True


CONTRACT_HANDLERS: Final[dict[int, ContractHandler]] = {
    commands.CreateJob.OP: create_job,
    commands.SetJobParameter.OP: set_job_parameter,
    commands.SetJobState.OP: set_job_state,
    commands.AddJobState.OP: add_job_state,
    commands.ExpireJob.OP: expire_job,
    commands.PersistJob.OP: persist_job,
    commands.AddToQueue.OP: add_to_queue,
    commands.FetchNext.OP: fetch_next,
    commands.AckFetched.OP: ack_fetched,
    commands.RequeueFetched.OP: requeue_fetched,
    commands.RenewFetched.OP: renew_fetched,
    commands.TryLock.OP: try_lock,
    commands.Unlock.OP: unlock,
    commands.Maintain.OP: maintain,
}
"""By operation number."""
