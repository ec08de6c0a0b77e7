"""The storage contract as an async API over any connection: a member, a client of one, or a store in memory.

Reads and single writes stand here; `storage_transaction` batches writes, `storage_handles` holds fetched jobs and locks,
`storage_monitoring` serves a dashboard. Wrong arguments raise `InvalidInput` before anything is sent. Unlike the
compound commands, the contract leaves states, retries and continuations to its caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, runtime_checkable

import trio

from quorker.core.errors import Rejected
from quorker.core.jobs import queries
from quorker.core.jobs.commands import (
    AcquireLock,
    AnnounceServer,
    Command,
    CreateJob,
    FetchNext,
    Heartbeat,
    KeepAlive,
    Maintain,
    RemoveServer,
    RemoveTimedOutServers,
    SetJobParameter,
    SetRangeInHash,
    TryLock,
    Unlock,
)
from quorker.transport.connection import Connection, Consistency
from quorker.transport.storage_handles import DistributedLock, FetchedJob, give_back_lock
from quorker.transport.storage_monitoring import MonitoringApi
from quorker.transport.storage_records import (
    DistributedLockTimeout,
    Invocation,
    JobData,
    ServerContext,
    ServerGone,
    State,
    StateFields,
)
from quorker.transport.storage_transaction import WriteTransaction
from quorker.transport.storage_validation import checked, pairs, require

POLL_S: Final = 0.05  # how often a connection that cannot wake us is asked again
WOKEN_POLL_S: Final = 1.0
MAINTENANCE_COUNTS: Final = ("jobs", "orphans", "leases", "locks", "collections", "queues")


@runtime_checkable
class WakesOnApply(Protocol):
    """A connection that knows when its replica changes; others are polled."""

    async def wait_applied(self, index: int) -> None:
        """Return once everything up to `index` is applied."""
        ...


class StorageConnection:
    """The storage contract. Safe to share between tasks of one trio loop.

    `consistency` holds for every read. Times to live and clocks are those of the last applied entry.
    """

    def __init__(self, connection: Connection, consistency: Consistency = "local") -> None:
        self.connection = connection
        self.monitoring = MonitoringApi(self._read)
        self._consistency: Consistency = consistency

    # ------------------------------------------------------------------ jobs

    async def create_expired_job(
        self, invocation: Invocation, parameters: Mapping[str, str | None], expire_in_ms: int
    ) -> str:
        """Store a job without a state that vanishes after `expire_in_ms` unless it is persisted. Returns its id."""
        command = CreateJob(
            "",
            invocation.task,
            invocation.args,
            invocation.queue,
            pairs("parameters", parameters),
            expire_in_ms,
        )
        return str(await self._submit(command))

    async def set_job_parameter(self, job_id: str, name: str, value: str | None) -> None:
        """Upsert, outside any transaction. Nothing for an unknown job."""
        await self._submit(SetJobParameter(job_id, name, value))

    async def get_job_parameter(self, job_id: str, name: str) -> str | None:
        """None for a missing job, a missing name and a null value alike."""
        value: str | None = await self._read("job_parameter", job_id=job_id, name=name)
        return value

    async def get_job_data(self, job_id: str) -> JobData | None:
        """The job with a snapshot of its parameters, or None. `state` is None before the first one."""
        row = await self._read("job", job_id=job_id)
        if row is None:
            return None
        invocation = Invocation(row["task"], row["args"], row["queue"])
        return JobData(job_id, invocation, row["state"], row["created_wt"], row["parameters"])

    async def get_state_data(self, job_id: str) -> State | None:
        """The current state; None when the job is missing or has none. Its data ignores case."""
        row = await self._read("state", job_id=job_id)
        return None if row is None else State(row["name"], row["reason"], StateFields(row["data"]))

    # ------------------------------------------------------------------ fetching

    async def fetch_next_job(self, queues: Sequence[str]) -> FetchedJob:
        """Wait for a job of the first queue that has one (strict priority, first in first out), and lease it.

        Cancellation gives back what was just taken.
        """
        command = checked(FetchNext(tuple(queues)))
        while True:
            await trio.lowlevel.checkpoint()
            answer = await self.connection.query("has_waiting", {"queues": list(queues)})
            fetched = await self._fetch(command) if answer.value else None
            if fetched is not None:
                return fetched
            await self._wait_change(answer.applied_index)

    async def try_fetch_next_job(self, queues: Sequence[str]) -> FetchedJob | None:
        """Take a job if one is there now."""
        return await self._fetch(checked(FetchNext(tuple(queues))))

    async def _fetch(self, command: FetchNext) -> FetchedJob | None:
        taken = await self._submit_shielded(command)
        fetched = None if taken is None else FetchedJob(self.connection, *taken)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            if fetched is not None:
                await fetched.dispose()
            raise
        return fetched

    # ------------------------------------------------------------------ locks

    async def acquire_distributed_lock(self, resource: str, timeout: float) -> DistributedLock:
        """Stand in line for the lock for `timeout` seconds (0: try once), else raise `DistributedLockTimeout`.

        Bound to the session of the connection, first come first served, and not re-entrant.
        """
        require(timeout >= 0, "timeout: must not be negative (0 tries once)")
        command = checked(AcquireLock(resource, 0, timeout > 0))
        deadline = trio.current_time() + timeout
        kind, number = await self._join_line(command)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            token = number if kind == "granted" else await self._wait_lock(resource, number, deadline)
        except trio.Cancelled:
            await give_back_lock(self.connection, resource, number)
            raise
        return DistributedLock(self.connection, resource, token)

    async def _join_line(self, command: AcquireLock) -> tuple[str, int]:
        try:
            kind, number = await self._submit_shielded(command)
        except Rejected as refusal:
            if refusal.reason == "lock_held":
                raise DistributedLockTimeout(command.resource) from None
            raise
        return kind, number

    async def _wait_lock(self, resource: str, ticket: int, deadline: float) -> int:
        with trio.CancelScope(deadline=deadline):
            while ticket:
                answer = await self.connection.query("lock_ticket", {"resource": resource, "ticket": ticket})
                if answer.value["token"]:
                    return int(answer.value["token"])
                if not answer.value["waiting"]:
                    break
                await self._wait_change(answer.applied_index)
        if ticket:
            await give_back_lock(self.connection, resource, ticket)
        raise DistributedLockTimeout(resource)

    async def try_lock(self, resource: str, owner: str, lease_ms: int) -> int:
        """Take or renew the leased lock of a named owner; returns its token, or 0 when another one holds it."""
        return int(await self._submit(TryLock(resource, owner, lease_ms)))

    async def unlock(self, resource: str, owner: str) -> bool:
        """End the leased lock of `owner`; False when it was not held by it."""
        return bool(await self._submit(Unlock(resource, owner)))

    # ------------------------------------------------------------------ servers

    async def announce_server(self, server_id: str, context: ServerContext) -> None:
        """Put a server in, replacing all that was known of it; it starts and beats now."""
        await self._submit(AnnounceServer(server_id, context.worker_count, context.queues))

    async def remove_server(self, server_id: str) -> None:
        """Nothing for an unknown one."""
        await self._submit(RemoveServer(server_id))

    async def heartbeat(self, server_id: str) -> None:
        """Raises `ServerGone` for an unknown one."""
        if not await self._submit(Heartbeat(server_id)):
            raise ServerGone(server_id)

    async def remove_timed_out_servers(self, timeout_ms: int) -> int:
        """Remove servers whose heartbeat is strictly older; returns how many."""
        return int(await self._submit(RemoveTimedOutServers(timeout_ms)))

    # ------------------------------------------------------------------ sets

    async def get_all_items_from_set(self, key: str) -> set[str]:
        return set(await self._read("set_items", key=key))

    async def get_first_by_lowest_score_from_set(self, key: str, low: float, high: float) -> str | None:
        """The value with the lowest score in [low, high], or None."""
        found = await self.get_lowest_scores_from_set(key, low, high, 1)
        return found[0] if found else None

    async def get_lowest_scores_from_set(self, key: str, low: float, high: float, limit: int) -> list[str]:
        """Up to `limit` values with a score in [low, high], by score, then by value."""
        require(low <= high, "low: must not be above high")
        require(limit > 0, "limit: must be above 0")
        return list(await self._read("set_lowest", key=key, low=low, high=high, limit=limit))

    async def get_set_count(self, key: str) -> int:
        return int(await self._read("set_count", key=key))

    async def get_set_count_limited(self, keys: Iterable[str], limit: int) -> int:
        """The sum of the sizes, at most `limit`."""
        require(limit >= 0, "limit: must not be negative")
        return int(await self._read("set_count_limited", keys=list(keys), limit=limit))

    async def get_set_contains(self, key: str, value: str) -> bool:
        return bool(await self._read("set_contains", key=key, value=value))

    async def get_range_from_set(self, key: str, first: int, last: int) -> list[str]:
        """Ranks `first` to `last`, both inclusive, in order of score."""
        return list(await self._read("set_range", key=key, first=first, last=last))

    async def get_set_ttl(self, key: str) -> int:
        """Milliseconds; negative when the key is missing or does not expire."""
        return int(await self._read("set_ttl", key=key))

    # ------------------------------------------------------------------ hashes

    async def set_range_in_hash(self, key: str, fields: Mapping[str, str | None]) -> None:
        """Merge fields in, outside any transaction. The expiry stays."""
        await self._submit(SetRangeInHash(key, pairs("fields", fields)))

    async def get_all_entries_from_hash(self, key: str) -> dict[str, str | None] | None:
        """None when the key is missing."""
        entries = await self._read("hash_entries", key=key)
        return None if entries is None else dict(entries)

    async def get_value_from_hash(self, key: str, field: str) -> str | None:
        value: str | None = await self._read("hash_value", key=key, field=field)
        return value

    async def get_hash_count(self, key: str) -> int:
        return int(await self._read("hash_count", key=key))

    async def get_hash_ttl(self, key: str) -> int:
        """As for a set."""
        return int(await self._read("hash_ttl", key=key))

    # ------------------------------------------------------------------ lists

    async def get_all_items_from_list(self, key: str) -> list[str]:
        """Newest first."""
        return list(await self._read("list_items", key=key))

    async def get_range_from_list(self, key: str, first: int, last: int) -> list[str]:
        """Newest first, both ends inclusive; a negative first is 0."""
        return list(await self._read("list_range", key=key, first=first, last=last))

    async def get_list_count(self, key: str) -> int:
        return int(await self._read("list_count", key=key))

    async def get_list_ttl(self, key: str) -> int:
        """As for a set."""
        return int(await self._read("list_ttl", key=key))

    # ------------------------------------------------------------------ counters, clock, the rest

    async def get_counter(self, key: str) -> int:
        """0 when missing."""
        return int(await self._read("counter", key=key))

    async def get_utc_datetime(self) -> datetime:
        """The wall clock of the store (its leader's, never going back), by way of one entry."""
        await self.connection.submit(KeepAlive())
        clock = await self._read("clock")
        return datetime.fromtimestamp(clock["wt"] / 1000, UTC)

    def create_write_transaction(self) -> WriteTransaction:
        return WriteTransaction(self.connection, self.acquire_distributed_lock)

    async def maintain(self, invisibility_ms: int) -> dict[str, int]:
        """Evict what has expired and reclaim fetched jobs that were not renewed for `invisibility_ms`, in pieces."""
        counts = await self._submit(Maintain(invisibility_ms))
        return dict(zip(MAINTENANCE_COUNTS, counts, strict=True))

    # ------------------------------------------------------------------ inside

    async def _submit(self, command: Command) -> Any:
        return await self.connection.submit(checked(command))

    async def _submit_shielded(self, command: Command) -> Any:
        """What this takes must not get lost in a cancellation."""
        with trio.CancelScope(shield=True):
            return await self.connection.submit(command)

    async def _read(self, query: str, /, **args: Any) -> Any:
        queries.check(query, args)
        return (await self.connection.query(query, args, consistency=self._consistency)).value

    async def _wait_change(self, seen_index: int) -> None:
        """Wait until the replica may have changed since `seen_index`."""
        if not isinstance(self.connection, WakesOnApply):
            await trio.sleep(POLL_S)
            return
        with trio.move_on_after(WOKEN_POLL_S):
            await self.connection.wait_applied(seen_index + 1)
