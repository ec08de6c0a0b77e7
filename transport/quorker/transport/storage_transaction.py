"""The write transaction of the storage contract: operations are collected and applied by `commit`, all or none.

It keeps the order of calls, returns the value of every operation, and can carry preconditions. Durations start when the
commit is applied, not when the operation is queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

from quorker.core.errors import NotApplied
from quorker.core.jobs.commands import (
    AckFetched,
    AddJobState,
    AddRangeToSet,
    AddToQueue,
    AddToSet,
    Batch,
    ContractCommand,
    CreateJob,
    ExpireHash,
    ExpireJob,
    ExpireList,
    ExpireSet,
    IncrementCounter,
    InsertToList,
    LeaseHeld,
    LockHeld,
    PersistHash,
    PersistJob,
    PersistList,
    PersistSet,
    Precondition,
    RemoveFromList,
    RemoveFromSet,
    RemoveHash,
    RemoveSet,
    SetJobParameter,
    SetJobState,
    SetRangeInHash,
    TrimList,
)
from quorker.transport.connection import Connection
from quorker.transport.storage_handles import Acquire, DistributedLock, FetchedJob
from quorker.transport.storage_records import Invocation, State, TransactionClosed
from quorker.transport.storage_validation import checked, pairs


class WriteTransaction:
    """Nothing is visible before `commit`. Usable as a block, which releases the locks it took; it does not commit."""

    def __init__(self, connection: Connection, acquire: Acquire) -> None:
        self._connection = connection
        self._acquire = acquire
        self._ops: list[ContractCommand] = []
        self._preconditions: list[Precondition] = []
        self._locks: list[DistributedLock] = []
        self._fetched: list[FetchedJob] = []
        self._closed = False

    # ------------------------------------------------------------------ jobs

    def create_job(
        self, invocation: Invocation, parameters: Mapping[str, str | None], expire_in_ms: int
    ) -> str:
        """The id is known at once, the job exists after the commit."""
        job_id = token_hex(16)
        self._add(
            CreateJob(
                job_id,
                invocation.task,
                invocation.args,
                invocation.queue,
                pairs("parameters", parameters),
                expire_in_ms,
            )
        )
        return job_id

    def set_job_parameter(self, job_id: str, name: str, value: str | None) -> None:
        self._add(SetJobParameter(job_id, name, value))

    def expire_job(self, job_id: str, expire_in_ms: int) -> None:
        self._add(ExpireJob(job_id, expire_in_ms))

    def persist_job(self, job_id: str) -> None:
        self._add(PersistJob(job_id))

    def set_job_state(self, job_id: str, state: State) -> None:
        """Append to the history and make current."""
        self._add(SetJobState(job_id, state.name, state.reason, pairs("state data", state.data)))

    def add_job_state(self, job_id: str, state: State) -> None:
        """Append to the history only."""
        self._add(AddJobState(job_id, state.name, state.reason, pairs("state data", state.data)))

    def add_to_queue(self, queue: str, job_id: str) -> None:
        self._add(AddToQueue(queue, job_id))

    def remove_from_queue(self, fetched: FetchedJob) -> None:
        """Acknowledge together with the rest: if the lease is lost, nothing at all is applied."""
        self._add(AckFetched(fetched.token))
        self._preconditions.append(LeaseHeld(fetched.token))
        self._fetched.append(fetched)

    # ------------------------------------------------------------------ counters

    def increment_counter(self, key: str, expire_in_ms: int | None = None) -> None:
        self._add(IncrementCounter(key, 1, expire_in_ms))

    def decrement_counter(self, key: str, expire_in_ms: int | None = None) -> None:
        self._add(IncrementCounter(key, -1, expire_in_ms))

    # ------------------------------------------------------------------ sets

    def add_to_set(self, key: str, value: str, score: float = 0.0) -> None:
        self._add(AddToSet(key, value, score))

    def add_range_to_set(self, key: str, values: Iterable[str]) -> None:
        self._add(AddRangeToSet(key, tuple(values)))

    def remove_from_set(self, key: str, value: str) -> None:
        self._add(RemoveFromSet(key, value))

    def remove_set(self, key: str) -> None:
        self._add(RemoveSet(key))

    def expire_set(self, key: str, expire_in_ms: int) -> None:
        self._add(ExpireSet(key, expire_in_ms))

    def persist_set(self, key: str) -> None:
        self._add(PersistSet(key))

    # ------------------------------------------------------------------ lists

    def insert_to_list(self, key: str, value: str) -> None:
        self._add(InsertToList(key, value))

    def remove_from_list(self, key: str, value: str) -> None:
        self._add(RemoveFromList(key, value))

    def trim_list(self, key: str, keep_from: int, keep_to: int) -> None:
        """Keep an inclusive range of the newest-first view."""
        self._add(TrimList(key, keep_from, keep_to))

    def expire_list(self, key: str, expire_in_ms: int) -> None:
        self._add(ExpireList(key, expire_in_ms))

    def persist_list(self, key: str) -> None:
        self._add(PersistList(key))

    # ------------------------------------------------------------------ hashes

    def set_range_in_hash(self, key: str, fields: Mapping[str, str | None]) -> None:
        self._add(SetRangeInHash(key, pairs("fields", fields)))

    def remove_hash(self, key: str) -> None:
        self._add(RemoveHash(key))

    def expire_hash(self, key: str, expire_in_ms: int) -> None:
        self._add(ExpireHash(key, expire_in_ms))

    def persist_hash(self, key: str) -> None:
        self._add(PersistHash(key))

    # ------------------------------------------------------------------ conditions and the end

    def require(self, precondition: Precondition) -> None:
        """Commit only while this holds; else `Rejected("precondition_failed")` and no effect."""
        self._check_open()
        self._preconditions.append(precondition)

    async def acquire_distributed_lock(self, resource: str, timeout: float) -> None:
        """Take a lock now, and commit only while it is held. Released by `commit` or at the end of the block."""
        self._check_open()
        lock = await self._acquire(resource, timeout)
        self._locks.append(lock)
        self._preconditions.append(LockHeld(resource, lock.token))

    async def commit(self) -> list[Any]:
        """Apply everything in order; returns the value of each operation. Without operations, no round is made.

        After `NotApplied` it may be called again; after anything else it raises `TransactionClosed`.
        """
        self._check_open()
        self._closed = True
        try:
            values = await self._apply() if self._ops else []
        except NotApplied:
            self._closed = False
            raise
        await self._release_locks()
        return values

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await self._release_locks()

    async def _apply(self) -> list[Any]:
        batch = checked(Batch(tuple(self._preconditions), tuple(self._ops)))
        values = list(await self._connection.submit(batch))
        for fetched in self._fetched:
            fetched.settled()
        return values

    async def _release_locks(self) -> None:
        while self._locks:
            await self._locks.pop().release()

    def _add(self, command: ContractCommand) -> None:
        self._check_open()
        self._ops.append(checked(command))

    def _check_open(self) -> None:
        if self._closed:
            raise TransactionClosed("this transaction is committed or left: begin a new one")
