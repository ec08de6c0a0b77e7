"""The operations of the storage contract, numbers 1 to 34, and the preconditions that a batch of them may have.

Each is a frozen record whose fields stand in wire order. Compound operations, bytes and effects must not live here.
Units: `*_ms` is a duration in milliseconds of log time, counted from the moment the operation is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import Pairs, checked

_DURATION = checked(bounds.DURATION)
_MAYBE_DURATION = checked(bounds.maybe(bounds.DURATION))
_TOKEN = checked(bounds.TOKEN)
_TASK = checked(bounds.TASK)
_QUEUE = checked(bounds.QUEUE)
_QUEUES = checked(bounds.QUEUES)
_SOME_QUEUES = checked(bounds.SOME_QUEUES)
_JOB_ID = checked(bounds.JOB_ID)
_MAYBE_JOB_ID = checked(bounds.MAYBE_JOB_ID)
_ARGS = checked(bounds.ARGS)
_KEY = checked(bounds.KEY)
_MEMBER = checked(bounds.MEMBER)
_MEMBERS = checked(bounds.MEMBERS)
_NAME = checked(bounds.NAME)
_REASON = checked(bounds.REASON)
_STATE = checked(bounds.STATE)
_STATES = checked(bounds.STATES)
_PAIRS = checked(bounds.PAIRS)
_FLAG = checked(bounds.flag("flag"))
_INT64 = checked(bounds.whole("number", -(2**63), bounds.INT64_MAX))


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Store a job without a state. Value: its id. An existing job of that id is replaced."""

    OP: ClassVar[int] = 1
    job_id: str = field(metadata=_MAYBE_JOB_ID)  # "" lets the store make one
    task: str = field(metadata=_TASK)
    args: bytes = field(metadata=_ARGS)
    queue: str = field(metadata=_QUEUE)
    parameters: Pairs = field(metadata=_PAIRS)
    expire_in_ms: int = field(metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class SetJobParameter:
    """Upsert; nothing for an unknown job."""

    OP: ClassVar[int] = 2
    job_id: str = field(metadata=_JOB_ID)
    name: str = field(metadata=_NAME)
    value: str | None = field(metadata=checked(bounds.MAYBE_MEMBER))


@dataclass(frozen=True, slots=True)
class SetJobState:
    """Append to the history and make current. `data` keys differ by more than case; the last one wins."""

    OP: ClassVar[int] = 3
    job_id: str = field(metadata=_JOB_ID)
    state: str = field(metadata=_STATE)
    reason: str = field(metadata=_REASON)
    data: Pairs = field(metadata=_PAIRS)


@dataclass(frozen=True, slots=True)
class AddJobState:
    """Append to the history only."""

    OP: ClassVar[int] = 4
    job_id: str = field(metadata=_JOB_ID)
    state: str = field(metadata=_STATE)
    reason: str = field(metadata=_REASON)
    data: Pairs = field(metadata=_PAIRS)


@dataclass(frozen=True, slots=True)
class ExpireJob:
    OP: ClassVar[int] = 5
    job_id: str = field(metadata=_JOB_ID)
    expire_in_ms: int = field(metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class PersistJob:
    OP: ClassVar[int] = 6
    job_id: str = field(metadata=_JOB_ID)


@dataclass(frozen=True, slots=True)
class AddToQueue:
    """Append a job id at the tail; no existence check, duplicates allowed."""

    OP: ClassVar[int] = 7
    queue: str = field(metadata=_QUEUE)
    job_id: str = field(metadata=_JOB_ID)


@dataclass(frozen=True, slots=True)
class FetchNext:
    """Take the next job id of the first queue that has one. Value: (job id, queue, token), or None."""

    OP: ClassVar[int] = 8
    queues: tuple[str, ...] = field(metadata=_SOME_QUEUES)


@dataclass(frozen=True, slots=True)
class AckFetched:
    """The fetched job is done with. Value: was the lease still there."""

    OP: ClassVar[int] = 9
    token: int = field(metadata=_TOKEN)


@dataclass(frozen=True, slots=True)
class RequeueFetched:
    """Back to the head of its queue, unless the job has ended. Value: was the lease still there."""

    OP: ClassVar[int] = 10
    token: int = field(metadata=_TOKEN)


@dataclass(frozen=True, slots=True)
class RenewFetched:
    """Value: is the lease still there."""

    OP: ClassVar[int] = 11
    token: int = field(metadata=_TOKEN)


@dataclass(frozen=True, slots=True)
class IncrementCounter:
    OP: ClassVar[int] = 12
    key: str = field(metadata=_KEY)
    delta: int = field(metadata=_INT64)
    expire_in_ms: int | None = field(default=None, metadata=_MAYBE_DURATION)


@dataclass(frozen=True, slots=True)
class AddToSet:
    OP: ClassVar[int] = 13
    key: str = field(metadata=_KEY)
    value: str = field(metadata=_MEMBER)
    score: float = field(default=0.0, metadata=checked(bounds.real("score")))


@dataclass(frozen=True, slots=True)
class AddRangeToSet:
    """All values get score 0, also those that had another."""

    OP: ClassVar[int] = 14
    key: str = field(metadata=_KEY)
    values: tuple[str, ...] = field(metadata=_MEMBERS)


@dataclass(frozen=True, slots=True)
class RemoveFromSet:
    OP: ClassVar[int] = 15
    key: str = field(metadata=_KEY)
    value: str = field(metadata=_MEMBER)


@dataclass(frozen=True, slots=True)
class RemoveSet:
    OP: ClassVar[int] = 16
    key: str = field(metadata=_KEY)


@dataclass(frozen=True, slots=True)
class ExpireSet:
    OP: ClassVar[int] = 17
    key: str = field(metadata=_KEY)
    expire_in_ms: int = field(metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class PersistSet:
    OP: ClassVar[int] = 18
    key: str = field(metadata=_KEY)


@dataclass(frozen=True, slots=True)
class InsertToList:
    """Insert as the newest."""

    OP: ClassVar[int] = 19
    key: str = field(metadata=_KEY)
    value: str = field(metadata=_MEMBER)


@dataclass(frozen=True, slots=True)
class RemoveFromList:
    """Remove all occurrences."""

    OP: ClassVar[int] = 20
    key: str = field(metadata=_KEY)
    value: str = field(metadata=_MEMBER)


@dataclass(frozen=True, slots=True)
class TrimList:
    """Keep the inclusive range of the newest-first view."""

    OP: ClassVar[int] = 21
    key: str = field(metadata=_KEY)
    keep_from: int = field(metadata=_INT64)
    keep_to: int = field(metadata=_INT64)


@dataclass(frozen=True, slots=True)
class ExpireList:
    OP: ClassVar[int] = 22
    key: str = field(metadata=_KEY)
    expire_in_ms: int = field(metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class PersistList:
    OP: ClassVar[int] = 23
    key: str = field(metadata=_KEY)


@dataclass(frozen=True, slots=True)
class SetRangeInHash:
    OP: ClassVar[int] = 24
    key: str = field(metadata=_KEY)
    fields: Pairs = field(metadata=checked(bounds.FIELDS))


@dataclass(frozen=True, slots=True)
class RemoveHash:
    OP: ClassVar[int] = 25
    key: str = field(metadata=_KEY)


@dataclass(frozen=True, slots=True)
class ExpireHash:
    OP: ClassVar[int] = 26
    key: str = field(metadata=_KEY)
    expire_in_ms: int = field(metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class PersistHash:
    OP: ClassVar[int] = 27
    key: str = field(metadata=_KEY)


@dataclass(frozen=True, slots=True)
class AnnounceServer:
    """Put a server in, replacing all that was known of it."""

    OP: ClassVar[int] = 28
    server_id: str = field(metadata=_NAME)
    worker_count: int = field(metadata=checked(bounds.whole("workers", 0, 2**31)))
    queues: tuple[str, ...] = field(metadata=_QUEUES)


@dataclass(frozen=True, slots=True)
class RemoveServer:
    OP: ClassVar[int] = 29
    server_id: str = field(metadata=_NAME)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Value: is the server known."""

    OP: ClassVar[int] = 30
    server_id: str = field(metadata=_NAME)


@dataclass(frozen=True, slots=True)
class RemoveTimedOutServers:
    """Remove servers whose last heartbeat is strictly older than `timeout_ms`. Value: how many."""

    OP: ClassVar[int] = 31
    timeout_ms: int = field(metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class TryLock:
    """Take or renew the lock of a named owner. Value: its token, or 0 when another holds it."""

    OP: ClassVar[int] = 32
    resource: str = field(metadata=_KEY)
    owner: str = field(metadata=_NAME)
    lease_ms: int = field(metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class Unlock:
    """Value: was it this owner's lock."""

    OP: ClassVar[int] = 33
    resource: str = field(metadata=_KEY)
    owner: str = field(metadata=_NAME)


@dataclass(frozen=True, slots=True)
class Maintain:
    """Evict what has expired, reclaim fetched jobs not renewed for `invisibility_ms`, drop empty queues; in pieces.

    Value: (jobs evicted, orphans, leases reclaimed, locks, collections, queues dropped).
    """

    OP: ClassVar[int] = 34
    invisibility_ms: int = field(metadata=_DURATION)


JobCommand: TypeAlias = (
    CreateJob
    | SetJobParameter
    | SetJobState
    | AddJobState
    | ExpireJob
    | PersistJob
    | AddToQueue
    | FetchNext
    | AckFetched
    | RequeueFetched
    | RenewFetched
    | TryLock
    | Unlock
    | Maintain
)
CollectionCommand: TypeAlias = (
    IncrementCounter
    | AddToSet
    | AddRangeToSet
    | RemoveFromSet
    | RemoveSet
    | ExpireSet
    | PersistSet
    | InsertToList
    | RemoveFromList
    | TrimList
    | ExpireList
    | PersistList
    | SetRangeInHash
    | RemoveHash
    | ExpireHash
    | PersistHash
    | AnnounceServer
    | RemoveServer
    | Heartbeat
    | RemoveTimedOutServers
)
ContractCommand: TypeAlias = JobCommand | CollectionCommand


@dataclass(frozen=True, slots=True)
class JobInState:
    """Holds when the job exists and is in one of the states ("" means: none yet)."""

    KIND: ClassVar[int] = 1
    job_id: str = field(metadata=_JOB_ID)
    states: tuple[str, ...] = field(metadata=_STATES)


@dataclass(frozen=True, slots=True)
class JobMissing:
    KIND: ClassVar[int] = 2
    job_id: str = field(metadata=_JOB_ID)


@dataclass(frozen=True, slots=True)
class LockHeld:
    """Holds when the lock on `resource` is held under exactly this token."""

    KIND: ClassVar[int] = 3
    resource: str = field(metadata=_KEY)
    token: int = field(metadata=_TOKEN)


@dataclass(frozen=True, slots=True)
class LeaseHeld:
    """Holds when a fetched job is still held under this token."""

    KIND: ClassVar[int] = 4
    token: int = field(metadata=_TOKEN)


@dataclass(frozen=True, slots=True)
class HashFieldIs:
    """Holds when the field has this value; None means that it is absent or null."""

    KIND: ClassVar[int] = 5
    key: str = field(metadata=_KEY)
    field_name: str = field(metadata=_KEY)
    value: str | None = field(metadata=checked(bounds.MAYBE_MEMBER))


@dataclass(frozen=True, slots=True)
class SetHolds:
    """Holds when the set contains the value (`present`), or does not."""

    KIND: ClassVar[int] = 6
    key: str = field(metadata=_KEY)
    value: str = field(metadata=_MEMBER)
    present: bool = field(default=True, metadata=_FLAG)


Precondition: TypeAlias = JobInState | JobMissing | LockHeld | LeaseHeld | HashFieldIs | SetHolds
