"""How a call gets from user code to the store: from the same trio loop, from another loop, or from a plain thread.

What is asked for is data (`Ask`), so that a worker process can send the same requests through its pipe. What must not
live here: what tasks and jobs are, and the opening of connections.
"""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import trio

from quorker.app.errors import BlockingCall, JobPending, NotConnected
from quorker.app.lock_line import Held, Hold, LockWish, hold_lock, take_lock, why_lost
from quorker.core.errors import Unknown
from quorker.core.frozen import record
from quorker.core.jobs.commands import Command
from quorker.transport.connection import Connection, Consistency

T = TypeVar("T")


@record
class Submit:
    """Apply a command exactly once; answers its value. `timeout` in seconds, None for the connection's default."""

    command: Command
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Answers the value of a read."""

    name: str
    args: dict[str, Any]
    consistency: Consistency = "local"


@dataclass(frozen=True, slots=True)
class WaitFinished:
    """Answers None once the job has ended; raises `JobPending` after `timeout` seconds."""

    job_id: str
    timeout: float


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Answers the `Status` of the member on the other side."""


@dataclass(frozen=True, slots=True)
class TakeLock:
    """Answers `Held` once the lock is granted; raises `LockTimeout`."""

    wish: LockWish


@dataclass(frozen=True, slots=True)
class HoldLock:
    """Takes the lock and keeps it; answers when it was released ("") or why it was lost. Only on a loop of this process."""

    hold: Hold


Ask: TypeAlias = Submit | Query | WaitFinished | AskStatus | TakeLock | HoldLock


class Gateway(Protocol):
    """A way into the store for user code of any kind."""

    def request(self, ask: Ask) -> Coroutine[Any, Any, Any]:
        """For async code, on trio or asyncio."""
        ...

    def request_blocking(self, ask: Ask) -> Any:
        """For plain code; the caller has made sure that no event loop runs in this thread."""
        ...

    def why_lost(self, resource: str, held: Held) -> str:
        """Why a lock that was taken this way is not surely held any more; "" while it is."""
        ...


async def perform(connection: Connection, ask: Ask) -> Any:
    """Carry out `ask` on the connection's own loop."""
    match ask:
        case Submit(command, timeout):
            return await connection.submit(command, timeout=timeout)
        case Query(name, args, consistency):
            return (await connection.query(name, args, consistency=consistency)).value
        case WaitFinished(job_id, timeout):
            try:
                return await connection.wait_finished(job_id, timeout)
            except trio.TooSlowError:
                raise JobPending(f"job {job_id} has not ended within {timeout:g} s; it goes on") from None
        case AskStatus():
            return await connection.status()
        case TakeLock(wish):
            return await take_lock(connection, wish)
        case HoldLock(hold):
            return await hold_lock(connection, hold)


_inherited: list[Gateway] = []


def inherit_gateway(gateway: Gateway) -> None:
    """From now on this is a worker process: whatever its tasks ask for goes through the node that started it."""
    _inherited[:] = [gateway]


def inherited_gateway() -> Gateway | None:
    """The way in of a worker process; None in every other process."""
    return _inherited[0] if _inherited else None


_is_plain: ContextVar[bool] = ContextVar("quorker_plain_code", default=False)


@contextmanager
def plain_code() -> Generator[None]:
    """What runs inside may block the event loop of this thread, as if there were none: nothing else waits for it."""
    before = _is_plain.set(True)
    try:
        yield
    finally:
        _is_plain.reset(before)


def async_library() -> str | None:
    """Which event loop runs in this thread: "trio", "asyncio" or None."""
    if _is_plain.get():
        return None
    if trio.lowlevel.in_trio_run():
        return "trio"
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return "asyncio"
    return None


def refuse_blocking(instead: str) -> None:
    """Raise `BlockingCall` inside a running event loop; `instead` is what to write there."""
    library = async_library()
    if library is not None:
        raise BlockingCall(f"you are in {library} code, which a blocking call would stop: write `{instead}`")


class LoopGateway:
    """The way in of a connection that lives on this trio loop. Make it inside that loop."""

    def __init__(self, connection: Connection, nursery: trio.Nursery) -> None:
        self.connection = connection
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()

    def request(self, ask: Ask) -> Coroutine[Any, Any, Any]:
        if not self._is_loop_of_caller():
            return self._cross(ask)
        if type(ask) is Submit:  # each coroutine in between would cost as much as the encoding of the command
            return self.connection.submit(ask.command, timeout=ask.timeout)
        return perform(self.connection, ask)

    def _is_loop_of_caller(self) -> bool:
        return trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token

    async def _cross(self, ask: Ask) -> Any:
        if async_library() == "asyncio":
            import asyncio

            return await asyncio.wrap_future(self.start(ask).future)
        return await _wait_on_trio(self.start(ask))

    def request_blocking(self, ask: Ask) -> Any:
        crossing = self.start(ask)
        try:
            return crossing.future.result()
        finally:
            crossing.future.cancel()

    def why_lost(self, resource: str, held: Held) -> str:
        return why_lost(self.connection, held)

    def start(self, ask: Ask) -> Crossing:
        """Begin it on the loop of the connection, whichever code this is. Cancel its future to give it up."""
        crossing = Crossing(self.connection, ask, self._token)
        _run_in_loop(self._token, crossing.start, self._nursery)
        return crossing


class Crossing:
    """One request that is carried out on another loop. Cancelling its future cancels it there."""

    def __init__(self, connection: Connection, ask: Ask, token: trio.lowlevel.TrioToken) -> None:
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._connection = connection
        self._ask = ask
        self._token = token
        self._scope = trio.CancelScope()
        self.future.add_done_callback(self._on_done)

    def start(self, nursery: trio.Nursery) -> None:
        """Runs on the connection's loop. A closed nursery must not raise here: that would crash the whole loop."""
        try:
            nursery.start_soon(self._answer)
        except RuntimeError:
            self._settle(None, NotConnected("the connection was closed before the request was sent"))

    def run_there(self, act: Callable[[], object]) -> None:
        """On the loop of the connection; not at all when that has ended, and the request with it."""
        _run_in_loop_if_any(self._token, act)

    async def _answer(self) -> None:
        value: Any = None
        error: Exception | None = None
        try:
            with self._scope:
                value = await perform(self._connection, self._ask)
            if self._scope.cancelled_caught:
                error = Unknown("the caller gave up before the answer arrived")
        except Exception as raised:  # noqa: BLE001  # raised again where the caller waits
            error = raised
        except trio.Cancelled:
            self._settle(None, Unknown("the connection was closed before the answer arrived"))
            raise
        self._settle(value, error)

    def _settle(self, value: Any, error: Exception | None) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)

    def _on_done(self, future: concurrent.futures.Future[Any]) -> None:
        if future.cancelled():
            _run_in_loop_if_any(self._token, self._scope.cancel)


async def _wait_on_trio(crossing: Crossing) -> Any:
    try:
        return await wait_for(crossing.future)
    except trio.Cancelled:
        crossing.future.cancel()
        raise


async def wait_for(future: concurrent.futures.Future[T]) -> T:
    """The result of a future that another thread or loop settles, in async code of any kind."""
    if async_library() == "asyncio":
        import asyncio

        return await asyncio.wrap_future(future)
    done = trio.Event()
    here = trio.lowlevel.current_trio_token()
    future.add_done_callback(lambda _: _run_in_loop_if_any(here, done.set))
    await done.wait()
    return future.result()


def _run_in_loop(token: trio.lowlevel.TrioToken, act: Callable[..., object], *args: object) -> None:
    try:
        token.run_sync_soon(act, *args)
    except trio.RunFinishedError:
        raise NotConnected("the loop of this connection has ended: its node or client was closed") from None


def _run_in_loop_if_any(token: trio.lowlevel.TrioToken, act: Callable[[], object]) -> None:
    try:
        token.run_sync_soon(act)
    except trio.RunFinishedError:
        return
