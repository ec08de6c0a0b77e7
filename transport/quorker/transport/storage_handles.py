"""What a caller of the storage contract holds: a fetched job, and a distributed lock.

Both are fenced by a token and given back when their block ends. Giving back is shielded from cancellation, so that a
cancelled task leaves nothing behind; it is bounded by the deadline of the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

import trio

from quorker.core.errors import OperationError
from quorker.core.jobs.commands import (
    AckFetched,
    ReleaseLock,
    RenewFetched,
    RequeueFetched,
)
from quorker.transport.connection import Connection


class FetchedJob:
    """A job id taken from a queue. Leaving its block without `remove_from_queue` or `requeue` gives it back."""

    __slots__ = ("_connection", "_settled", "job_id", "queue", "token")

    def __init__(self, connection: Connection, job_id: str, queue: str, token: int) -> None:
        self._connection = connection
        self._settled = False
        self.job_id = job_id
        self.queue = queue
        self.token = token

    async def remove_from_queue(self) -> bool:
        """Acknowledge. False when the lease was not ours any more; again: nothing happens, False."""
        return await self._settle(AckFetched(self.token))

    async def requeue(self) -> bool:
        """Make it visible again at once, at the head of its queue. False as for `remove_from_queue`."""
        return await self._settle(RequeueFetched(self.token))

    async def renew(self) -> bool:
        """Keep the lease for another invisibility timeout. False: it is lost, and the job may run elsewhere."""
        return bool(await self._connection.submit(RenewFetched(self.token)))

    def settled(self) -> None:
        """The job was acknowledged by other means (a transaction): leaving the block gives nothing back."""
        self._settled = True

    async def dispose(self) -> None:
        """Give the job back unless it is settled. Fails silently: its lease ends by itself."""
        with trio.CancelScope(shield=True):
            try:
                await self.requeue()
            except OperationError:
                self._settled = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.dispose()

    async def _settle(self, command: AckFetched | RequeueFetched) -> bool:
        if self._settled:
            return False
        held = bool(await self._connection.submit(command))
        self._settled = True
        return held


class DistributedLock:
    """A lock on `resource`, bound to the session of its connection. `token` is its fencing token."""

    __slots__ = ("_connection", "_released", "resource", "token")

    def __init__(self, connection: Connection, resource: str, token: int) -> None:
        self._connection = connection
        self._released = False
        self.resource = resource
        self.token = token

    async def release(self) -> None:
        """Let the next one have it. Again: nothing happens."""
        if self._released:
            return
        self._released = True
        await give_back_lock(self._connection, self.resource, self.token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()


Acquire: TypeAlias = Callable[[str, float], Awaitable[DistributedLock]]
"""Takes the lock on a resource within a number of seconds, or raises `DistributedLockTimeout`."""


async def give_back_lock(connection: Connection, resource: str, token: int) -> None:
    """Release a lock or leave the line for it, whatever happens around. Fails silently: both end with the session."""
    with trio.CancelScope(shield=True):
        try:
            await connection.submit(ReleaseLock(resource, token))
        except OperationError:
            return
