"""A node's clocks over the true time of the simulated world: twin of `quorker.transport.clock`.

The monotonic clock runs at a wrong rate but never jumps, and it counts pauses of the process. The wall clock has an
offset and jumps, also backwards; it can be slewed and stand still. Nothing of the core sees the true time.
"""

from __future__ import annotations

from typing import Final

NS_PER_MS: Final = 1_000_000
EPOCH_MS: Final = 1_700_000_000_000  # the wall-clock ms at which every simulated world begins
STOPPED_PPM: Final = -1_000_000  # the rate of a wall clock that stands still


class NodeClock:
    """One machine's two clocks. `rate_ppm`: how much too fast its monotonic clock runs (negative: too slow)."""

    __slots__ = (
        "_anchor_local_ns",
        "_anchor_true_ns",
        "_rate",
        "_slewed_ppm",
        "_slewed_since_ns",
        "wall_offset_ms",
    )

    def __init__(self, rate_ppm: int = 0, wall_offset_ms: int = 0) -> None:
        self._rate = 1_000_000 + rate_ppm
        self._anchor_true_ns = 0
        self._anchor_local_ns = 0
        self._slewed_ppm = 0
        self._slewed_since_ns = 0
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
        wall_ms = EPOCH_MS + true_ns // NS_PER_MS + self.wall_offset_ms
        return wall_ms + self._slewed_ms(true_ns) if self._slewed_ppm else wall_ms

    def jump_wall(self, by_ms: int) -> None:
        self.wall_offset_ms += by_ms

    def set_wall_rate(self, true_ns: int, ppm: int) -> None:
        """From now on the wall clock gains so much, or loses it; its reading does not jump."""
        self.wall_offset_ms += self._slewed_ms(true_ns)
        self._slewed_ppm, self._slewed_since_ns = ppm, true_ns

    def _slewed_ms(self, true_ns: int) -> int:
        return (true_ns - self._slewed_since_ns) * self._slewed_ppm // 1_000_000 // NS_PER_MS

    def set_rate(self, true_ns: int, rate_ppm: int) -> None:
        """From now on the monotonic clock runs at another rate; its reading does not jump."""
        elapsed = true_ns - self._anchor_true_ns
        self._anchor_local_ns += elapsed * self._rate // 1_000_000
        self._anchor_true_ns = true_ns
        self._rate = 1_000_000 + rate_ppm
