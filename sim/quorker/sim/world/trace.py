"""What happened in a run: a rolling digest of every event, and, on request, the story of the run.

The digest is how runs are compared: the same case gives the same digest in every process. The story costs nothing
unless it is asked for.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import Final

from quorker.sim.stories.story import RUN, Kind, Story

_pack: Final = Struct("<qiiqq").pack
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

    __slots__ = ("_hash", "_unhashed", "checkpoints", "story")

    def __init__(self, story: Story | None = None) -> None:
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[bytes] = []  # hashed a thousand at a time
        self.checkpoints: list[str] = []
        self.story = story

    @property
    def events(self) -> int:
        return CHECKPOINT_EVENTS * len(self.checkpoints) + len(self._unhashed)

    def record(self, at_ns: int, what: int, node: int, a: int = 0, b: int = 0) -> None:
        unhashed = self._unhashed
        unhashed.append(_pack(at_ns, what, node, a, b))
        if len(unhashed) == CHECKPOINT_EVENTS:
            self._hash.update(b"".join(unhashed))
            unhashed.clear()
            self.checkpoints.append(self._hash.hexdigest())

    def note(self, text: str) -> None:
        """Something about the run as a whole; callers ask for `story` first, so that no text is made for nobody."""
        if self.story is not None:
            self.story.add(RUN, Kind.NOTE, text)

    def digest(self) -> str:
        complete = self._hash.copy()
        complete.update(b"".join(self._unhashed))
        return complete.hexdigest()


def first_difference(one: Trace, other: Trace) -> int | None:
    """The number of the first stretch of `CHECKPOINT_EVENTS` events in which two runs differ, or None."""
    for number, (here, there) in enumerate(zip(one.checkpoints, other.checkpoints, strict=False)):
        if here != there:
            return number
    if one.digest() == other.digest():
        return None
    return min(len(one.checkpoints), len(other.checkpoints))
