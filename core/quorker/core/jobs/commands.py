"""Everything that can be asked of the job store, as a closed union of frozen records with a number each.

The wire form is `[OP, *fields]`, fields in the order of the record; trailing fields that equal their default are left
out, so that fields can be added later. `decode` is the only way in and lets nothing out of bounds pass: the state
machine relies on it. Contract operations keep the numbers 1 to 34 of the storage contract, compound ones start at 64
(89 to 95 are kept for batches of jobs and concurrency limits). What a command does must not live here.

Units: `*_ms` is a duration in milliseconds, `*_wt` an instant in milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Final, TypeAlias, cast, get_args

from quorker.core.frozen import record
from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import BadCommand, checked
from quorker.core.jobs.contract_commands import (
    AckFetched,
    AddJobState,
    AddRangeToSet,
    AddToQueue,
    AddToSet,
    AnnounceServer,
    CollectionCommand,
    ContractCommand,
    CreateJob,
    ExpireHash,
    ExpireJob,
    ExpireList,
    ExpireSet,
    FetchNext,
    HashFieldIs,
    Heartbeat,
    IncrementCounter,
    InsertToList,
    JobCommand,
    JobInState,
    JobMissing,
    LeaseHeld,
    LockHeld,
    Maintain,
    PersistHash,
    PersistJob,
    PersistList,
    PersistSet,
    Precondition,
    RemoveFromList,
    RemoveFromSet,
    RemoveHash,
    RemoveServer,
    RemoveSet,
    RemoveTimedOutServers,
    RenewFetched,
    RequeueFetched,
    SetHolds,
    SetJobParameter,
    SetJobState,
    SetRangeInHash,
    TrimList,
    TryLock,
    Unlock,
)
from quorker.core.jobs.new_job import (
    Headers,
    JobGrant,
    NewJob,
    RetryPolicy,
    StartRules,
    grant_from_wire,
    grant_to_wire,
    new_job_from_wire,
    plain_job,
    plain_to_wire,
)
from quorker.core.jobs.recurring_commands import (
    AdvanceRecurring,
    PauseRecurring,
    RecurringCommand,
    RemoveRecurring,
    SetRecurring,
    Step,
    TriggerRecurring,
)
from quorker.core.jobs.wire_form import Wire, from_wire, to_wire

__all__ = [
    "COMMAND_TYPES",
    "AckFetched",
    "AcquireLock",
    "AddJobState",
    "AddRangeToSet",
    "AddToQueue",
    "AddToSet",
    "AdvanceRecurring",
    "AnnounceServer",
    "BadCommand",
    "Batch",
    "CancelBatch",
    "ClaimDigest",
    "CloseSession",
    "CollectionCommand",
    "Command",
    "CompleteJob",
    "CompoundCommand",
    "ContractCommand",
    "CreateJob",
    "DeleteJob",
    "EnqueueBatch",
    "EnqueueJobs",
    "ExpireHash",
    "ExpireJob",
    "ExpireList",
    "ExpireRecords",
    "ExpireSessions",
    "ExpireSet",
    "FailJob",
    "FetchJobs",
    "FetchNext",
    "HashFieldIs",
    "Headers",
    "Heartbeat",
    "IncrementCounter",
    "InsertToList",
    "JobCommand",
    "JobGrant",
    "JobInState",
    "JobMissing",
    "KeepAlive",
    "LeaseHeld",
    "LockHeld",
    "Maintain",
    "NewJob",
    "OpenSession",
    "PauseRecurring",
    "PersistHash",
    "PersistJob",
    "PersistList",
    "PersistSet",
    "Precondition",
    "RecurringCommand",
    "ReleaseDue",
    "ReleaseJob",
    "ReleaseLock",
    "RemoveFromList",
    "RemoveFromSet",
    "RemoveHash",
    "RemoveRecurring",
    "RemoveServer",
    "RemoveSet",
    "RemoveTimedOutServers",
    "RenewFetched",
    "ReplaceSessions",
    "RequeueFetched",
    "RequeueJob",
    "RescheduleJob",
    "RetryPolicy",
    "SetHolds",
    "SetJobParameter",
    "SetJobState",
    "SetLimits",
    "SetQueuePaused",
    "SetRangeInHash",
    "SetRecurring",
    "StartRules",
    "Step",
    "Subscribe",
    "TriggerRecurring",
    "TrimList",
    "TryLock",
    "Unlock",
    "Wire",
    "decode",
    "encode",
    "grant_from_wire",
    "grant_to_wire",
]

_DURATION = checked(bounds.DURATION)
_TOKEN = checked(bounds.TOKEN)
_QUEUE = checked(bounds.QUEUE)
_QUEUES = checked(bounds.QUEUES)
_SOME_QUEUES = checked(bounds.SOME_QUEUES)
_JOB_ID = checked(bounds.JOB_ID)
_KEY = checked(bounds.KEY)
_NAME = checked(bounds.NAME)
_REASON = checked(bounds.REASON)
_STATES = checked(bounds.STATES)
_FLAG = checked(bounds.flag("flag"))
_SLOTS = checked(bounds.whole("slots", 0, bounds.SESSION_SLOTS_MAX))

SESSION_TTL_MIN_MS: Final = 1000
SESSION_TTL_MAX_MS: Final = 24 * 3600 * 1000

_BY_KIND: Final[dict[int, type[Any]]] = {each.KIND: each for each in get_args(Precondition)}
_IN_BATCH: Final[dict[int, type[Any]]] = {
    each.OP: each for each in (*get_args(JobCommand), *get_args(CollectionCommand)) if each is not Maintain
}


def _numbered(what: str, wire: Any, known: Mapping[int, type[Any]]) -> Any:
    items = bounds.array(what, wire)
    number = items[0] if items else None
    found = known.get(number) if type(number) is int else None
    if found is None:
        bounds.refuse(what, "its number is not known here")
    return from_wire(found, items[1:])


def _precondition(wire: Any) -> Precondition:
    return cast("Precondition", _numbered("precondition", wire, _BY_KIND))


def _contract_op(wire: Any) -> ContractCommand:
    return cast("ContractCommand", _numbered("operation of a batch", wire, _IN_BATCH))


def _member(wire: Any) -> NewJob:
    job = new_job_from_wire(wire)
    if job.batch_id:
        bounds.refuse("member of a batch", "must not name a batch: it belongs to the new one")
    return job


def _callback(wire: Any) -> NewJob:
    job = new_job_from_wire(wire)
    if job.parent_id or job.batch_id or job.on == "deleted":
        bounds.refuse(
            "callback of a batch", "waits for success, failure or any end of this batch, and no other"
        )
    return job


@record
class OpenSession:
    """Value: the session id. Sent in session 0 with a random sequence, which makes a retry find the same session.

    A copy that comes late, when that session has ended, opens one that nobody uses; so it must not touch any other.
    """

    OP: ClassVar[int] = 64
    name: str = field(metadata=_NAME)
    ttl_ms: int = field(metadata=checked(bounds.whole("ttl", SESSION_TTL_MIN_MS, SESSION_TTL_MAX_MS)))


@record
class CloseSession:
    """End the own session: its jobs go back to the head of their queues, its locks to the next waiter."""

    OP: ClassVar[int] = 65


@record
class KeepAlive:
    OP: ClassVar[int] = 66


@record
class ExpireSessions:
    """End those of the sessions that are past their time. Value: how many ended."""

    OP: ClassVar[int] = 67
    session_ids: tuple[int, ...] = field(metadata=checked(bounds.many("sessions", bounds.TOKEN, 0, 1000)))


@record
class Subscribe:
    """Declare what this session takes: up to `slots` jobs at a time from these queues, the first most urgent."""

    OP: ClassVar[int] = 68
    queues: tuple[str, ...] = field(metadata=_QUEUES)
    slots: int = field(metadata=_SLOTS)


@record
class FetchJobs:
    """Take up to `limit` jobs now. Value: a tuple of grants in the wire form of `grant_to_wire`."""

    OP: ClassVar[int] = 69
    queues: tuple[str, ...] = field(metadata=_SOME_QUEUES)
    limit: int = field(metadata=checked(bounds.whole("limit", 1, bounds.FETCH_MAX)))


@record
class EnqueueJobs:
    """Make jobs, all or none. Value: their ids, in order."""

    OP: ClassVar[int] = 70
    jobs: tuple[NewJob, ...] = field(
        metadata=checked(bounds.many("jobs", new_job_from_wire, 1, bounds.JOBS_PER_COMMAND_MAX))
    )


@record
class CompleteJob:
    OP: ClassVar[int] = 71
    job_id: str = field(metadata=_JOB_ID)
    token: int = field(metadata=_TOKEN)
    result: bytes = field(default=b"", metadata=checked(bounds.RESULT))


@record
class FailJob:
    """Report a failure; the job's policy decides what follows. Value: the name of the new state.

    `final`: the error is of a kind that must not be retried.
    """

    OP: ClassVar[int] = 72
    job_id: str = field(metadata=_JOB_ID)
    token: int = field(metadata=_TOKEN)
    error_type: str = field(metadata=checked(bounds.text("error type", 0, bounds.ERROR_TYPE_CHARS_MAX)))
    message: str = field(metadata=checked(bounds.text("error message", 0, bounds.MESSAGE_CHARS_MAX)))
    trace: str = field(metadata=checked(bounds.text("trace", 0, bounds.TRACE_CHARS_MAX)))
    final: bool = field(default=False, metadata=_FLAG)


@record
class ReleaseJob:
    """Give the job back to the head of its queue; no attempt is spent."""

    OP: ClassVar[int] = 73
    job_id: str = field(metadata=_JOB_ID)
    token: int = field(metadata=_TOKEN)


@record
class DeleteJob:
    """Value: did it change. `expected_states`: refuse in any other state; empty means any."""

    OP: ClassVar[int] = 74
    job_id: str = field(metadata=_JOB_ID)
    expected_states: tuple[str, ...] = field(default=(), metadata=_STATES)


@record
class RequeueJob:
    """Put the job at the tail of its queue with all attempts before it. Value: did it change."""

    OP: ClassVar[int] = 75
    job_id: str = field(metadata=_JOB_ID)
    expected_states: tuple[str, ...] = field(default=(), metadata=_STATES)


@record
class RescheduleJob:
    """Run it not before `at_wt`, or after `delay_ms` when that is None. Value: did it change."""

    OP: ClassVar[int] = 76
    job_id: str = field(metadata=_JOB_ID)
    at_wt: int | None = field(default=None, metadata=checked(bounds.maybe(bounds.INSTANT)))
    delay_ms: int = field(default=0, metadata=_DURATION)
    expected_states: tuple[str, ...] = field(default=(), metadata=_STATES)


@record
class AcquireLock:
    """Take a lock, or a place in the line for it. Value: ("granted", token) or ("waiting", ticket).

    `ttl_ms`: how long it is held at most, whatever happens to the session; 0 binds it to the session. A granted waiter
    gets a "lock" notice (resource, token, ticket). A lock is never re-entrant.
    """

    OP: ClassVar[int] = 77
    resource: str = field(metadata=_KEY)
    ttl_ms: int = field(default=0, metadata=_DURATION)
    wait: bool = field(default=False, metadata=_FLAG)


@record
class ReleaseLock:
    """Release by token; or leave the line by ticket, and release if the ticket was granted meanwhile."""

    OP: ClassVar[int] = 78
    resource: str = field(metadata=_KEY)
    token: int = field(metadata=_TOKEN)


@record
class ReleaseDue:
    """Enqueue scheduled jobs that are due, delete those that are too late, go on with continuations left over; in
    pieces. Value: how many."""

    OP: ClassVar[int] = 79


@record
class ExpireRecords:
    """Evict jobs, unique keys, collections and locks past their time; in pieces. Value: how many."""

    OP: ClassVar[int] = 80


@record
class Batch:
    """Contract operations (not `Maintain`), all or none. Value: the value of each.

    A precondition that fails refuses the batch with `precondition_failed` and its position (from 0).
    """

    OP: ClassVar[int] = 81
    preconditions: tuple[Precondition, ...] = field(
        metadata=checked(bounds.many("preconditions", _precondition, 0, 256))
    )
    ops: tuple[ContractCommand, ...] = field(
        metadata=checked(bounds.many("operations", _contract_op, 0, 1000))
    )


@record
class SetQueuePaused:
    """While paused, nothing is taken from the queue; running jobs go on."""

    OP: ClassVar[int] = 82
    queue: str = field(metadata=_QUEUE)
    paused: bool = field(metadata=_FLAG)
    reason: str = field(default="", metadata=_REASON)
    author: str = field(default="", metadata=checked(bounds.text("author", 0, bounds.NAME_CHARS_MAX)))


@record
class SetLimits:
    """Replace the limits of the store, in the order of `limits.Limits`; they are part of the replicated state."""

    OP: ClassVar[int] = 83
    values: tuple[int, ...] = field(metadata=checked(bounds.many("limits", bounds.TOKEN, 1, 64)))


@record
class EnqueueBatch:
    """Make a batch: members, and callbacks that wait for its end as their `on` says, all or none.

    Value: (batch id, ids of the members, ids of the callbacks). A batch without members has succeeded. More members may
    join by `EnqueueJobs` until it has ended. `retention_ms`: how long to keep it after its end; 0 means as long as jobs.
    """

    OP: ClassVar[int] = 89
    name: str = field(metadata=_NAME)
    jobs: tuple[NewJob, ...] = field(
        metadata=checked(bounds.many("members of a batch", _member, 0, bounds.JOBS_PER_COMMAND_MAX))
    )
    callbacks: tuple[NewJob, ...] = field(
        default=(), metadata=checked(bounds.many("callbacks of a batch", _callback, 0, bounds.CALLBACKS_MAX))
    )
    retention_ms: int = field(default=0, metadata=_DURATION)


@record
class CancelBatch:
    """Delete the members that have not ended, in pieces, in the order in which they were made.

    `after`: 0 at first, then what the last piece said. Value: (how many were deleted, `after` of the next piece, or None).
    """

    OP: ClassVar[int] = 90
    batch_id: str = field(metadata=checked(bounds.BATCH_ID))
    after: int = field(default=0, metadata=_TOKEN)


@record
class ReplaceSessions:
    """The sessions of the own name that were opened before the own one belong to a process that is gone: they end now,
    their jobs were lost. Value: how many.

    It is said in the new session, so that a copy that comes late ends with it and cannot end a newer one.
    """

    OP: ClassVar[int] = 96


@record
class ClaimDigest:
    """What the chain of this member was when it had applied `index`. The leader says it with every so many entries, the
    others when they differ from somebody. It changes nothing; all members compare it with their own."""

    OP: ClassVar[int] = 97
    index: int = field(metadata=_TOKEN)
    node: int = field(metadata=_TOKEN)
    digest: bytes = field(metadata=checked(bounds.binary("digest", 16)))


CompoundCommand: TypeAlias = (
    OpenSession
    | CloseSession
    | KeepAlive
    | ExpireSessions
    | Subscribe
    | FetchJobs
    | EnqueueJobs
    | CompleteJob
    | FailJob
    | ReleaseJob
    | DeleteJob
    | RequeueJob
    | RescheduleJob
    | AcquireLock
    | ReleaseLock
    | ReleaseDue
    | ExpireRecords
    | Batch
    | SetQueuePaused
    | SetLimits
    | ReplaceSessions
    | ClaimDigest
    | EnqueueBatch
    | CancelBatch
)
Command: TypeAlias = ContractCommand | CompoundCommand | RecurringCommand

COMMAND_TYPES: Final[tuple[type[Any], ...]] = (
    *get_args(JobCommand),
    *get_args(CollectionCommand),
    *get_args(CompoundCommand),
    *get_args(RecurringCommand),
)
_BY_OP: Final[dict[int, type[Any]]] = {each.OP: each for each in COMMAND_TYPES}


def encode(command: Command) -> Wire:
    """The wire form of a command: `[OP, *fields]` of plain values that msgpack can pack."""
    if type(command) is EnqueueJobs and len(command.jobs) == 1:
        job = plain_to_wire(command.jobs[0])
        if job is not None:
            return [EnqueueJobs.OP, [job]]
    elif type(command) is CompleteJob and command.result:
        return [CompleteJob.OP, command.job_id, command.token, command.result]
    return to_wire(command)


def decode(wire: Any) -> Command:
    """The command of a wire form. Raises `BadCommand` with the reason, and nothing else, for any other value."""
    job = _only_job(wire)
    if job is not None:
        return EnqueueJobs((job,))
    command: Command = _numbered("command", wire, _BY_OP)
    return command


def _only_job(wire: Any) -> NewJob | None:
    """The job of an `EnqueueJobs` with a single one that has nothing special, the commonest command by far."""
    if type(wire) is not list or len(wire) != 2 or wire[0] != EnqueueJobs.OP or type(wire[0]) is not int:  # pyright: ignore[reportUnknownArgumentType]  # any list
        return None
    jobs: Any = wire[1]  # pyright: ignore[reportUnknownVariableType]
    return plain_job(jobs[0]) if type(jobs) is list and len(jobs) == 1 else None  # pyright: ignore[reportUnknownArgumentType]
