"""What a worker reports about a job it was granted: completed, failed, given back. Every report is fenced by its token.

A stale token is refused with `lease_lost`: the job is, or was, in other hands. The right token of a job that has ended
is refused with `wrong_state`: this very delivery has been reported before.
"""

from __future__ import annotations

from typing import Final

from quorker.core.jobs.commands import CompleteJob, FailJob, ReleaseJob
from quorker.core.jobs.leases import free, give_back, revoke
from quorker.core.jobs.lifecycle import DELETED, ENQUEUED, FAILED, SCHEDULED, SUCCEEDED
from quorker.core.jobs.outcome import OK, Reply, done, rejected
from quorker.core.jobs.records import Job, Lease, StateRecord
from quorker.core.jobs.retry import DEFAULT_POLICY, retry_delay_ms
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import add_record, enter

REASON_MESSAGE_CHARS: Final = 100


def complete_job(tables: Tables, command: CompleteJob) -> Reply:
    """Result, counters, expiry, continuations, lease and slot: all in this one step."""
    lease = tables.leases.get(command.token)
    if lease is None or lease.job_id != command.job_id or not _holds(tables, lease):
        return _stale(tables, command.job_id, command.token)
    free(tables, lease)
    job = tables.jobs[command.job_id]
    data = (
        ("latency_ms", lease.since_wt - job.created_wt),
        ("duration_ms", tables.wt - lease.since_wt),
        ("token", lease.token),
    )
    enter(tables, job, SUCCEEDED, "", data, result=command.result)
    return OK


def fail_job(tables: Tables, command: FailJob) -> Reply:
    """Value: the state that the job's policy puts it in."""
    lease = tables.leases.get(command.token)
    if lease is None or lease.job_id != command.job_id or not _holds(tables, lease):
        return _stale(tables, command.job_id, command.token)
    free(tables, lease)
    failure = (
        ("error_type", command.error_type),
        ("message", command.message),
        ("trace", command.trace),
        ("token", lease.token),
    )
    return done(fail(tables, tables.jobs[command.job_id], failure, command.message, command.final).state)


def release_job(tables: Tables, command: ReleaseJob) -> Reply:
    lease = tables.leases.get(command.token)
    if lease is None or lease.job_id != command.job_id or not _holds(tables, lease):
        return _stale(tables, command.job_id, command.token)
    give_back(tables, lease, "released by its worker")
    return OK


def _holds(tables: Tables, lease: Lease) -> bool:
    """A job fetched by contract is reported through contract operations only."""
    job = tables.jobs.get(lease.job_id)
    return job is not None and job.token == lease.token


def _stale(tables: Tables, job_id: str, token: int) -> Reply:
    job = tables.jobs.get(job_id)
    if job is None:
        return rejected("not_found", f"there is no job {job_id}")
    if job.current is not None and ("token", token) in job.current.data:
        return rejected("wrong_state", job.state)
    return rejected("lease_lost", job.state)


def fail(
    tables: Tables, job: Job, failure: tuple[tuple[str, str | int | None], ...], message: str, final: bool
) -> Job:
    """One attempt is spent; the lease is gone already. Retry, or end as the policy says."""
    failures = job.failures + 1
    failure = (*failure, ("attempt", failures))
    policy = job.spec.retry or DEFAULT_POLICY
    delay = None if final else retry_delay_ms(policy, job.id, failures)
    if delay is None and policy.on_exceed == "fail":
        return enter(tables, job, FAILED, "", failure, failures=failures)
    job = add_record(tables, job, StateRecord(FAILED, "", tables.wt, failure))
    if delay is None:
        return enter(tables, job, DELETED, "no attempt is left", failures=failures)
    reason = f"retry {failures} of {policy.attempts}: {message[:REASON_MESSAGE_CHARS]}"
    if delay:
        due_wt = tables.wt + delay
        return enter(tables, job, SCHEDULED, reason, (("due_wt", due_wt),), due_wt=due_wt, failures=failures)
    job = enter(tables, job, ENQUEUED, reason, failures=failures)
    tables.append_to_queue(job.spec.queue, job.spec.priority, job.id)
    return job


def time_out(tables: Tables, token: int) -> None:
    """The worker did not report in time, although its session lives: the attempt has failed, and it must stop."""
    lease = tables.leases[token]
    job = tables.jobs[lease.job_id]
    revoke(tables, job, "timeout")
    message = f"not reported within its timeout of {job.spec.timeout_ms} ms"
    failure = (("error_type", "TimeoutError"), ("message", message), ("trace", ""), ("token", token))
    fail(tables, tables.jobs[job.id], failure, message, final=False)
