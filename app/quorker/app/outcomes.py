"""How an attempt can end for the store, as an election decides it, and the command that says so. Every one of them carries
the token of the attempt, so that the store refuses it when the job is in other hands. What must not live here: the
decision (`elections.py`)."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from quorker.app.failure import Failure
from quorker.app.payload import decode_result
from quorker.core.frozen import record
from quorker.core.jobs.commands import (
    AddJobState,
    Batch,
    Command,
    CompleteJob,
    ContractCommand,
    ExpireJob,
    FailJob,
    JobGrant,
    LeaseHeld,
    ReleaseJob,
    SetJobState,
)
from quorker.core.jobs.lifecycle import DELETED, FAILED
from quorker.core.jobs.limits import DEFAULT_LIMITS

REASON_CHARS_MAX: Final = 1000


@record
class Succeed:
    """The job succeeds with this result, which is encoded already."""

    packed: bytes

    @property
    def result(self) -> Any:
        return decode_result(self.packed)


@record
class Fail:
    """The attempt has failed. `may_retry`: as the job's `Retry` says, if an attempt is left; otherwise it fails for good."""

    failure: Failure
    may_retry: bool = True


@record
class Delete:
    """The job is deleted. `after`: the failure that the attempt ended with, which is kept in the job's history."""

    reason: str
    after: Failure | None = None


@record
class GiveBack:
    """The job goes back to the head of its queue, to be run again at once; no attempt is spent."""


Outcome: TypeAlias = Succeed | Fail | Delete | GiveBack


def command_of(outcome: Outcome, grant: JobGrant) -> Command:
    match outcome:
        case Succeed(packed):
            return CompleteJob(grant.job_id, grant.token, packed)
        case Fail(failure, may_retry):
            return FailJob(
                grant.job_id, grant.token, failure.kind, failure.message, failure.trace, final=not may_retry
            )
        case Delete(reason, after):
            return _deletion(grant, reason, after)
        case GiveBack():
            return ReleaseJob(grant.job_id, grant.token)


def _deletion(grant: JobGrant, reason: str, after: Failure | None) -> Batch:
    job_id, ops = grant.job_id, list[ContractCommand]()
    if after is not None:
        ops.append(AddJobState(job_id, FAILED, "", _as_data(after)))
    ops.append(SetJobState(job_id, DELETED, reason[:REASON_CHARS_MAX], (("token", str(grant.token)),)))
    ops.append(ExpireJob(job_id, DEFAULT_LIMITS.deleted_ttl_ms))
    return Batch((LeaseHeld(grant.token),), tuple(ops))


def _as_data(failure: Failure) -> tuple[tuple[str, str], ...]:
    return ("error_type", failure.kind), ("message", failure.message), ("trace", failure.trace)
