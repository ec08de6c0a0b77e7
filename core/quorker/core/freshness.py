"""How old what a member answers may be: measured from reads that a leader has confirmed, never from mere contact.

Whoever hears a leader may hear one that was deposed, hear it late, or lack what it has. A confirmed read proves more:
everything that was acknowledged anywhere before it was asked for stands at or below its index. So the age of an answer
is the time since then, on this member's own clock. Asking is the driver's: nothing here knows Raft.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

UNKNOWN: Final = -1
UNDER_WAY_MAX: Final = 64


@dataclass(slots=True)
class Freshness:
    """`refresh_ms`: how old a proof gets before the next answer that rests on it asks for another.

    `_proven_ms`, `_index`: the newest proof, and up to where the state must reach for it to count.
    """

    refresh_ms: int
    _proven_ms: int | None = None
    _index: int = 0
    _older_ms: int | None = None  # the proof before it, which counts while the state is behind the newest
    _older_index: int = 0
    _asked: dict[int, int] = field(default_factory=dict[int, int])  # context -> when the read was asked for
    _last_asked_ms: int | None = None

    def on_asked(self, context: int, now_ms: int) -> None:
        """A read is asked of Raft now. Of reads that nobody confirms, the oldest are forgotten."""
        if len(self._asked) >= UNDER_WAY_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[context] = self._last_asked_ms = now_ms

    def on_confirmed(self, context: int, index: int, reached: int) -> None:
        """What had been acknowledged when it was asked for stands up to `index`; the state is at `reached`."""
        asked_ms = self._asked.pop(context, None)
        if asked_ms is None or (self._proven_ms is not None and asked_ms <= self._proven_ms):
            return
        if self._index <= reached:
            self._older_ms, self._older_index = self._proven_ms, self._index
        self._proven_ms, self._index = asked_ms, index

    def on_failed(self, context: int) -> None:
        self._asked.pop(context, None)

    def age_ms(self, reached: int, now_ms: int) -> int:
        """The state at index `reached` holds everything acknowledged more than so long ago; UNKNOWN if nothing says so."""
        if self._proven_ms is not None and self._index <= reached:
            return max(0, now_ms - self._proven_ms)
        if self._older_ms is not None and self._older_index <= reached:
            return max(0, now_ms - self._older_ms)
        return UNKNOWN

    def is_stale(self, now_ms: int) -> bool:
        """Whether another read should be asked for: the last one, whatever became of it, is long ago."""
        return self._last_asked_ms is None or now_ms - self._last_asked_ms >= self.refresh_ms
