"""Waiting for what a cluster will reach, with a deadline and a name: no test and no nemesis sleeps and hopes.

Whoever runs outside of a member can only ask again and again; that happens here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")

PATIENCE_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.01


class NotReached(AssertionError):
    """What was waited for did not come true in time. Names it."""


async def wait_until(reached: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as `reached()` is true. Raises `NotReached` with `what` after `seconds`."""

    async def ask() -> object:
        await trio.lowlevel.checkpoint()
        return reached() or None

    await poll(ask, what, seconds)


async def poll(ask: Callable[[], Awaitable[T | None]], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """The first answer that is not None. Raises `NotReached` with `what` after `seconds`."""
    with trio.move_on_after(seconds):
        while True:
            answer = await ask()
            if answer is not None:
                return answer
            await trio.sleep(POLL_SECONDS)
    raise NotReached(f"{what}: not within {seconds} s")
