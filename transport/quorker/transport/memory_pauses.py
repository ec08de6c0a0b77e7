"""Keeps Python's cyclic garbage collector from stopping the loop: for processes whose main business is to be a member.

A full collection walks every record of the job store: 100 ms and more with some 100,000 jobs, which delays heartbeats.
The store makes no cycles, so its records can be taken out of the collector's sight. That is a decision about the whole
process, with a price: cyclic garbage that lives long enough to be frozen is never freed. So `quorker node` does it, and
an application that embeds a node may.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

YOUNG_THRESHOLD: Final = 5_000  # all members pass at the same entry: their callers wait for it twice
MIDDLE_THRESHOLD: Final = 500  # so rare that `freeze_store` nearly always comes first
CHUNKS_BETWEEN_FREEZES: Final = 16  # about 3,000 jobs
TURN_SECONDS: Final = 0.0005
OLD_THRESHOLD: Final = 1_000_000  # so rare that `freeze_store` always comes first


def calm_collector() -> None:
    """Collect once, freeze what is there, and from now on collect only young objects by themselves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, MIDDLE_THRESHOLD, OLD_THRESHOLD)
    _State.calm = True


def freeze_store() -> None:
    """Called after each snapshot: what is there now is frozen too. Nothing when `calm_collector` was not called.

    Only the youngest are looked through before: all that came since the last time would be a pause of its own.
    """
    if _State.calm:
        gc.collect(0)
        gc.freeze()


def freeze_along(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of a snapshot that is being loaded; the records made out of them are frozen as they come, because a
    collection in the thread that loads stops the loop as well."""
    for number, chunk in enumerate(chunks, 1):
        yield chunk
        if _State.calm and number % CHUNKS_BETWEEN_FREEZES == 0:
            gc.freeze()


@contextmanager
def short_turns() -> Generator[None]:
    """While a thread computes, let the loop have its turn sooner: it asks for it after every system call."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class _State:
    """Whether this process asked for it."""

    calm = False
