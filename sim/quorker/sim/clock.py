"""A node's clocks over the true time of the simulated world: twin of `quorker.transport.clock`.

The monotonic clock runs at a wrong rate but never jumps, and it counts pauses of the process. The wall clock has an
offset and jumps, also backwards. Nothing of the core sees the true time.
"""

from __future__ import annotations

from typing import Final

NS_PER_MS: Final = 1_000_000
EPOCH_MS: Final = 1_700_000_000_000  # the wall-clock ms at which every simulated world begins


class NodeClock:
    """One machine's two clocks. `rate_ppm`: how much too fast its monotonic clock runs (negative: too slow)."""

    __slots__ = ("_anchor_local_ns", "_anchor_true_ns", "_rate", "wall_offset_ms")

    def __init__(self, rate_ppm: int = 0, wall_offset_ms: int = 0) -> None:
        self._rate = 1_000_000 + rate_ppm
        self._anchor_true_ns = 0
        self._anchor_local_ns = 0
        self.wall_offset_ms = wall_offset_ms

    def monotonic_ms(self, true_ns: int) -> int:
        elapsed = true_ns - self._anchor_true_ns
        return (self._anchor_local_ns + elapsed * self._rate // 1_000_000) // NS_PER_MS

    def true_ns(self, monotonic_ms: int) -> int:
        """The first true time at which `monotonic_ms()` has reached the given reading, at the present rate."""
        ahead_ns = monotonic_ms * NS_PER_MS - self._anchor_local_ns
        return self._anchor_true_ns - (-ahead_ns * 1_000_000 // self._rate)

    def wall_ms(self, true_ns: int) -> int:
        """Milliseconds since the Unix epoch as this machine believes."""
        return EPOCH_MS + true_ns // NS_PER_MS + self.wall_offset_ms

    def jump_wall(self, by_ms: int) -> None:
        self.wall_offset_ms += by_ms

    def set_rate(self, true_ns: int, rate_ppm: int) -> None:
        """From now on the monotonic clock runs at another rate; its reading does not jump."""
        elapsed = true_ns - self._anchor_true_ns
        self._anchor_local_ns += elapsed * self._rate // 1_000_000
        self._anchor_true_ns = true_ns
        self._rate = 1_000_000 + rate_ppm
