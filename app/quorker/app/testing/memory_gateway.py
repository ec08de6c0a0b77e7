"""The way into a store in memory, for code of any kind: every call is carried out where it is made. What must not live
here: the running of jobs, which a call that waits for one asks `Drains` for."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from quorker.app.context import current_job
from quorker.app.errors import JobPending, LockTimeout
from quorker.app.gateway import (
    Ask,
    AskStatus,
    HoldLock,
    Query,
    Submit,
    TakeLock,
    WaitFinished,
    async_library,
    perform,
)
from quorker.app.lock_line import NO_SESSION, OVER, Held, LockWish
from quorker.core.errors import Rejected
from quorker.core.jobs.commands import AcquireLock, ReleaseLock
from quorker.transport.memory import MemoryConnection, MemoryStore


class Drains(Protocol):
    """What a call needs that waits for a job to end."""

    @property
    def is_draining(self) -> bool: ...
    def drain(self) -> int: ...
    async def adrain(self) -> int: ...


class MemoryGateway:
    """A `Gateway`. While jobs run, those of them that are async wait for each other on the loop they run in."""

    def __init__(self, memory: MemoryStore, connection: MemoryConnection, drains: Drains) -> None:
        self._memory = memory
        self._connection = connection
        self._drains = drains

    async def request(self, ask: Ask) -> Any:
        if async_library() == "trio":
            await trio.lowlevel.checkpoint()
            if self._drains.is_draining:
                return await self._request_among_jobs(ask)
        if isinstance(ask, WaitFinished):
            await self._drains.adrain()
            return self._require_finished(ask)
        return self._answer(ask)

    async def _request_among_jobs(self, ask: Ask) -> Any:
        if isinstance(ask, TakeLock):
            return await self._wait_for_lock(ask.wish)
        return await perform(self._connection, ask)

    def request_blocking(self, ask: Ask) -> Any:
        if not isinstance(ask, WaitFinished):
            return self._answer(ask)
        if not self._drains.is_draining:
            self._drains.drain()
        return self._require_finished(ask)

    def why_lost(self, resource: str, held: Held) -> str:
        found = self._connection.query_now("lock", {"resource": resource})
        return "" if found is not None and found["token"] == held.token else OVER

    def _answer(self, ask: Submit | Query | AskStatus | TakeLock | HoldLock) -> Any:
        match ask:
            case Submit(command):
                return self._connection.submit_now(command)
            case Query(name, args):
                return self._connection.query_now(name, args)
            case AskStatus():
                return self._connection.status_now()
            case TakeLock(wish):
                return self._take_lock(wish)
            case HoldLock(hold):
                raise AssertionError(f"nothing here holds {hold.wish.resource}: `Lock` takes it instead")

    def _require_finished(self, ask: WaitFinished) -> None:
        if self._memory.has_ended(ask.job_id):
            return
        if current_job.get() is not None:
            raise JobPending(
                f"job {ask.job_id} has not ended, and in a test nothing else runs while a plain task does: "
                f"it cannot wait for another job there"
            )
        raise JobPending(
            f"job {ask.job_id} has not ended, and nothing more runs unless time passes: advance(...) and drain()"
        )

    def _take_lock(self, wish: LockWish) -> Held:
        try:
            _, token = self._connection.submit_now(AcquireLock(wish.resource, wish.ttl_ms, wait=False))
        except Rejected as refused:
            if refused.reason != "lock_held":
                raise
            raise LockTimeout(f"{refused.detail}; in a test nothing else runs that could free it") from None
        return Held(token, NO_SESSION)

    async def _wait_for_lock(self, wish: LockWish) -> Held:
        """Jobs wait in line for each other. Leaving it, for whatever reason, leaves nothing behind."""
        if wish.timeout == 0:
            return self._take_lock(wish)
        kind, number = self._connection.submit_now(AcquireLock(wish.resource, wish.ttl_ms, wait=True))
        try:
            with trio.move_on_after(float("inf") if wish.timeout is None else wish.timeout):
                token = number if kind == "granted" else await self._turn(wish.resource, number)
                return Held(token, NO_SESSION)
        except trio.Cancelled:
            self._connection.submit_now(ReleaseLock(wish.resource, number))
            raise
        self._connection.submit_now(ReleaseLock(wish.resource, number))
        raise LockTimeout(f"{wish.resource} did not become free within {wish.timeout:g} s")

    async def _turn(self, resource: str, ticket: int) -> int:
        args = {"resource": resource, "ticket": ticket}
        while not (token := self._connection.query_now("lock_ticket", args)["token"]):
            await self._memory.wait_applied(self._memory.store.applied_index + 1)
        return int(token)
