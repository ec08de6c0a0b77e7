"""A named lock on the loop of its connection: standing in line for it, watching that it is still held, giving it back.

A lock without a time to live belongs to the session and is lost with it, on this process's own clock before anybody else
can get it (guarantee T3). One with a time to live ends by that alone. What must not live here: how other loops and
threads wait for it (`locks.py`).
"""

from __future__ import annotations

import concurrent.futures
import logging
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import trio

from quorker.app.errors import LockTimeout
from quorker.core.errors import NotApplied, QuorkerError, Rejected
from quorker.core.jobs.commands import AcquireLock, ReleaseLock
from quorker.core.session import LEASE_SHARE
from quorker.transport.clock import monotonic_ms
from quorker.transport.connection import Connection, Consistency

log = logging.getLogger("quorker.app.lock_line")

JOIN_SECONDS: Final = 30.0  # for an answer of the store, however short the wish is to wait in line
POLL_SECONDS: Final = 0.05
WATCH_SECONDS: Final = 0.2
GOODBYE_SECONDS: Final = 1.0
NO_SESSION: Final = 0
OVER: Final = "its time to live is over"


class LockWish(NamedTuple):
    """What is wanted. `ttl_ms`: 0 binds the lock to the session. `timeout` in seconds: 0 does not wait, None for ever."""

    resource: str
    ttl_ms: int
    timeout: float | None


class Held(NamedTuple):
    """`session_id`: whose end loses the lock, or 0; `until_ms`: after this instant of `monotonic_ms` it may be lost."""

    token: int
    session_id: int
    until_ms: int = 0

    @property
    def is_of_session(self) -> bool:
        return self.session_id != NO_SESSION


class Hold:
    """A wish with the two signals between whoever holds the lock and the loop that keeps it."""

    def __init__(self, wish: LockWish, on_lost: Callable[[str], object] | None) -> None:
        self.wish = wish
        self.granted: concurrent.futures.Future[Held] = concurrent.futures.Future()
        self.release = trio.Event()
        self._on_lost = on_lost
        self.is_ended = False

    def on_ended(self, ended: concurrent.futures.Future[str]) -> None:
        """Nothing keeps the lock any more; whoever still waits for it hears why."""
        self.is_ended = True
        if self.granted.done() or ended.cancelled():
            self.granted.cancel()
        elif (error := ended.exception()) is not None:
            self.granted.set_exception(error)

    def tell_lost(self, reason: str) -> None:
        if self._on_lost is None:
            return
        try:
            self._on_lost(reason)
        except Exception:
            log.exception("on_lost of lock %s raised", self.wish.resource)


async def hold_lock(connection: Connection, hold: Hold) -> str:
    """Take the lock, and keep it until `hold.release` is set or it is lost: then returns why. Cancelling gives it back."""
    resource = hold.wish.resource
    held = await take_lock(connection, hold.wish)
    try:
        if hold.granted.set_running_or_notify_cancel():
            hold.granted.set_result(held)
            reason = await _until_lost(connection, held, hold.release)
            if reason:
                hold.tell_lost(reason)
                return reason
    except trio.Cancelled:
        await give_back(connection, resource, held.token, GOODBYE_SECONDS)
        raise
    return await give_back(connection, resource, held.token, JOIN_SECONDS)


async def take_lock(connection: Connection, wish: LockWish) -> Held:
    """Raises `LockTimeout` when it was not free in time; then, as when cancelled, nothing is left in the line."""
    sent_ms = monotonic_ms()
    kind, number = await _Joining(connection, wish).answer()
    try:
        if kind == "granted":
            return await _held(connection, wish, number, sent_ms)
        token, since_ms = await _wait_turn(connection, wish, number)
        return await _held(connection, wish, token, since_ms)
    except BaseException:
        await give_back(connection, wish.resource, number, GOODBYE_SECONDS)
        raise


class _Joining:
    """The request for a lock. If nobody waits for its answer any more, what it grants is given back as it comes."""

    def __init__(self, connection: Connection, wish: LockWish) -> None:
        self._connection = connection
        self._wish = wish
        self._loop = trio.lowlevel.current_trio_token()
        self._answered = trio.Event()
        self._value: Any = None
        self._error: QuorkerError | None = None
        self._is_abandoned = False

    async def answer(self) -> tuple[str, int]:
        """("granted", token) or ("waiting", ticket)."""
        wish = self._wish
        command = AcquireLock(wish.resource, wish.ttl_ms, wish.timeout != 0)
        self._connection.submit_nowait(command, self._resolve)
        seconds = math.inf if wish.timeout is None else max(wish.timeout, JOIN_SECONDS)
        try:
            with trio.move_on_after(seconds):
                await self._answered.wait()
        finally:
            self._is_abandoned = not self._answered.is_set()
        if self._is_abandoned:
            raise LockTimeout(
                f"the cluster did not answer the request for {wish.resource} within {seconds:g} s"
            )
        if self._error is None:
            kind, number = self._value
            return kind, number
        if isinstance(self._error, Rejected) and self._error.reason == "lock_held":
            raise LockTimeout(self._error.detail)
        raise self._error

    def _resolve(self, value: Any, error: QuorkerError | None) -> None:
        self._value, self._error = value, error
        self._answered.set()
        if self._is_abandoned and error is None:
            # Not from within the session, which is in the middle of handing out answers.
            self._loop.run_sync_soon(submit_release, self._connection, self._wish.resource, value[1])


async def _wait_turn(connection: Connection, wish: LockWish, ticket: int) -> tuple[int, int]:
    """The token, and an instant before which it cannot have been granted: when a read said that it was not."""
    # What a local read says may be old, and a time to live must not be counted from too late.
    consistency: Consistency = "linearizable" if wish.ttl_ms else "local"
    args = {"resource": wish.resource, "ticket": ticket}
    since_ms = monotonic_ms()
    with trio.move_on_after(math.inf if wish.timeout is None else wish.timeout):
        while True:
            asked_ms = monotonic_ms()
            found = await _ask(connection, args, consistency)
            if found["token"]:
                return found["token"], since_ms
            if not found["waiting"]:
                raise NotApplied(f"the session ended while it stood in line for {wish.resource}: ask again")
            since_ms = asked_ms
            await trio.sleep(POLL_SECONDS)
    raise LockTimeout(f"{wish.resource} did not become free within {wish.timeout:g} s")


async def _ask(connection: Connection, args: dict[str, Any], consistency: Consistency) -> dict[str, Any]:
    """Without a majority nothing can be granted, so the line goes on as soon as there is one."""
    while True:
        try:
            answer = await connection.query("lock_ticket", args, consistency=consistency)
        except NotApplied:
            await trio.sleep(POLL_SECONDS)
        else:
            found: dict[str, Any] = answer.value
            return found


async def _held(connection: Connection, wish: LockWish, token: int, since_ms: int) -> Held:
    """The store says whose it is: the own session may be another one by now."""
    if wish.ttl_ms:
        return Held(token, NO_SESSION, since_ms + int(wish.ttl_ms * LEASE_SHARE))
    found = (await connection.query("lock", {"resource": wish.resource})).value
    if found is None or found["token"] != token:
        raise NotApplied(f"{wish.resource} was granted and lost again with its session: ask again")
    return Held(token, found["session"])


def why_lost(connection: Connection, held: Held) -> str:
    """Why the lock is not surely held any more; "" while it is. Only reads numbers, so any thread may ask."""
    if not held.is_of_session:
        return why_over(held)
    if connection.session_id != held.session_id:
        return "the session that held it has ended"
    return "" if connection.lease_seconds > 0 else "its session could not be renewed in time"


def why_over(held: Held) -> str:
    """The same for a lock with a time to live, which needs no connection."""
    return OVER if monotonic_ms() >= held.until_ms else ""


async def _until_lost(connection: Connection, held: Held, release: trio.Event) -> str:
    """Why it was lost, or "" when it shall be released."""
    while not (reason := why_lost(connection, held)):
        left = connection.lease_seconds if held.is_of_session else (held.until_ms - monotonic_ms()) / 1000
        with trio.move_on_after(max(0.001, min(left, WATCH_SECONDS))):
            await release.wait()
            return why_lost(connection, held)
    return reason


async def give_back(connection: Connection, resource: str, number: int, seconds: float) -> str:
    """Release by token, or leave the line by ticket. Returns why there was nothing to release, or "".

    It waits for the answer for so long; after that the session goes on asking by itself.
    """
    answered = trio.Event()
    refused: list[str] = []

    def resolve(_: Any, error: QuorkerError | None) -> None:
        if isinstance(error, Rejected):
            refused.append(error.detail)
        answered.set()

    connection.submit_nowait(ReleaseLock(resource, number), resolve)
    with trio.move_on_after(seconds, shield=True):
        await answered.wait()
    return "".join(refused)


def submit_release(connection: Connection, resource: str, number: int) -> None:
    """Whatever becomes of it: a lock that is lost needs no release."""
    connection.submit_nowait(ReleaseLock(resource, number), lambda value, error: None)
