"""`app.lock(...)`: a lock of the whole cluster around a block of plain, trio or asyncio code. What must not live here: how
it is taken and watched on the loop of its connection (`lock_line.py`)."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol

from quorker.app.errors import LockLost
from quorker.app.gateway import (
    Crossing,
    Gateway,
    HoldLock,
    LoopGateway,
    Submit,
    TakeLock,
    refuse_blocking,
    wait_for,
)
from quorker.app.lock_line import Held, Hold, LockWish
from quorker.core.errors import InvalidInput, QuorkerError, Rejected
from quorker.core.jobs.commands import ReleaseLock

BLOCK_IN_ASYNC: Final = "async with app.lock(...):"


class LockHost(Protocol):
    """What a lock needs of its app."""

    def gateway(self) -> Gateway: ...


class HeldLock:
    """What `with app.lock(...)` gives.

    `fence` is greater than that of every earlier holder. Hand it to what the block writes to, and let that refuse
    smaller ones: a process that was frozen may not know yet that its lock is lost.
    """

    def __init__(self, name: str, fence: int, ask_lost: Callable[[], str]) -> None:
        self.name = name
        self.fence = fence
        self._ask_lost = ask_lost
        self._lost = ""

    def __repr__(self) -> str:
        return f"HeldLock({self.name!r}, fence={self.fence}{', lost' if self.is_lost else ''})"

    @property
    def is_lost(self) -> bool:
        """Can somebody else have the lock by now. Asks nobody; once true it stays true."""
        self._lost = self._lost or self._ask_lost()
        return bool(self._lost)

    def check(self) -> None:
        """Raise `LockLost` if the lock is lost: call it before what must not be done without."""
        if self.is_lost:
            raise LockLost(self.name, self._lost)

    def end(self, reason: str, error: BaseException | None) -> None:
        """The block has ended, perhaps with an error. Raises `LockLost` for a reason, unless that would hide the error."""
        self._lost = self._lost or reason
        if reason and error is None:
            raise LockLost(self.name, reason)


class Lock:
    """Made by `app.lock(...)`; for one block at a time."""

    def __init__(self, host: LockHost, wish: LockWish, on_lost: Callable[[str], object] | None) -> None:
        self._host = host
        self._wish = wish
        self._on_lost = on_lost
        self._held: HeldLock | None = None
        self._hold: Hold | None = None
        self._crossing: Crossing | None = None
        self._direct: Gateway | None = None

    def __enter__(self) -> HeldLock:
        refuse_blocking(BLOCK_IN_ASYNC)
        gateway = self._host.gateway()
        if not isinstance(gateway, LoopGateway):
            return self._taken(gateway, gateway.request_blocking(self._taking()))
        granted = self._start(gateway)
        try:
            return self._entered(gateway, granted.result())
        except BaseException:
            self._abandon()
            raise

    async def __aenter__(self) -> HeldLock:
        gateway = self._host.gateway()
        if not isinstance(gateway, LoopGateway):
            return self._taken(gateway, await gateway.request(self._taking()))
        granted = self._start(gateway)
        try:
            return self._entered(gateway, await wait_for(granted))
        except BaseException:
            self._abandon()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._crossing is None:
            gateway, release = self._releasing()
            reason = ""
            try:
                gateway.request_blocking(release)
            except Rejected as refused:
                reason = refused.detail
            self._given_back(reason, error)
            return
        released = self._release()
        concurrent.futures.wait([released])
        self._exited(released, error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._crossing is None:
            gateway, release = self._releasing()
            reason = ""
            try:
                await gateway.request(release)
            except Rejected as refused:
                reason = refused.detail
            self._given_back(reason, error)
            return
        released = self._release()
        with suppress(QuorkerError):  # told below
            await wait_for(released)
        self._exited(released, error)

    # ------------------------------------------------------------------ on the loop of a connection in this process

    def _start(self, gateway: LoopGateway) -> concurrent.futures.Future[Held]:
        self._refuse_second_use()
        hold = self._hold = Hold(self._wish, self._on_lost)
        self._crossing = gateway.start(HoldLock(hold))
        self._crossing.future.add_done_callback(hold.on_ended)
        return hold.granted

    def _refuse_second_use(self) -> None:
        if self._held is not None:
            raise InvalidInput(
                f"this lock of {self._wish.resource} is in use: make another one with app.lock(...)"
            )

    def _entered(self, gateway: LoopGateway, held: Held) -> HeldLock:
        hold = self._hold
        assert hold is not None

        def ask_lost() -> str:
            return (
                "nothing keeps it any more" if hold.is_ended else gateway.why_lost(hold.wish.resource, held)
            )

        self._held = HeldLock(self._wish.resource, held.token, ask_lost)
        return self._held

    def _abandon(self) -> None:
        assert self._crossing is not None
        self._crossing.future.cancel()
        self._crossing = None

    def _release(self) -> concurrent.futures.Future[Any]:
        assert self._crossing is not None
        assert self._hold is not None
        self._crossing.run_there(self._hold.release.set)
        return self._crossing.future

    def _exited(self, released: concurrent.futures.Future[str], error: BaseException | None) -> None:
        """A block that ended well must not look as if it had been protected to its end."""
        assert self._held is not None
        held, self._held, self._crossing = self._held, None, None
        failure = released.exception()
        held.end(released.result() if failure is None else str(failure), error)

    # ------------------------------------------------------------------ where nothing in this process watches the lock

    def _taking(self) -> TakeLock:
        self._refuse_second_use()
        return TakeLock(self._wish)

    def _taken(self, gateway: Gateway, answer: Sequence[int]) -> HeldLock:
        held = Held(*answer)
        self._direct = gateway
        self._held = HeldLock(
            self._wish.resource, held.token, lambda: gateway.why_lost(self._wish.resource, held)
        )
        return self._held

    def _releasing(self) -> tuple[Gateway, Submit]:
        assert self._held is not None
        assert self._direct is not None
        return self._direct, Submit(ReleaseLock(self._held.name, self._held.fence))

    def _given_back(self, reason: str, error: BaseException | None) -> None:
        assert self._held is not None
        held, self._held = self._held, None
        held.end(reason, error)
