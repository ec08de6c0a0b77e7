"""What happened in a run: a rolling digest of every event, and, on request, the story of the run.

The digest is how runs are compared: the same case gives the same digest in every process. The story costs nothing
unless it is asked for.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import Final

from quorker.sim.story import RUN, Kind, Story

_RECORD: Final = Struct("<qiiqq")
CHECKPOINT_EVENTS: Final = 1_000


class What(IntEnum):
    """The kinds of records. The numbers are part of the digest."""

    DELIVERED = 1
    LOST = 2
    DURABLE = 3
    TIMER = 4
    FAULT = 5
    CRASHED = 6
    STARTED = 7
    ROLE = 8
    APPLIED = 9
    OPERATION = 10
    INSTALLED = 11
    CLIENT = 12
    PHASE = 13


class Trace:
    """One run's record. `story` is told everything, if there is one; checkpoints tell where two runs first differ."""

    __slots__ = ("_hash", "checkpoints", "events", "story")

    def __init__(self, story: Story | None = None) -> None:
        self._hash = blake2b(digest_size=16)
        self.events = 0
        self.checkpoints: list[str] = []
        self.story = story

    def record(self, at_ns: int, what: int, node: int, a: int = 0, b: int = 0) -> None:
        self._hash.update(_RECORD.pack(at_ns, what, node, a, b))
        self.events += 1
        if not self.events % CHECKPOINT_EVENTS:
            self.checkpoints.append(self.digest())

    def note(self, text: str) -> None:
        """Something about the run as a whole; callers ask for `story` first, so that no text is made for nobody."""
        if self.story is not None:
            self.story.add(RUN, Kind.NOTE, text)

    def digest(self) -> str:
        return self._hash.hexdigest()


def first_difference(one: Trace, other: Trace) -> int | None:
    """The number of the first stretch of `CHECKPOINT_EVENTS` events in which two runs differ, or None."""
    for number, (here, there) in enumerate(zip(one.checkpoints, other.checkpoints, strict=False)):
        if here != there:
            return number
    if one.digest() == other.digest():
        return None
    return min(len(one.checkpoints), len(other.checkpoints))
