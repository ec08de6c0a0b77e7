"""The clocks of a real node. The core never reads one: it is handed these numbers with each input."""

from __future__ import annotations

import time
from typing import Final

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic_ms() -> int:
    """Milliseconds that never jump and keep counting while the machine is suspended (guarantee T3)."""
    return time.clock_gettime_ns(_BOOTTIME) // 1_000_000


def wall_ms() -> int:
    """Milliseconds since the epoch, for schedules and for people; it may jump."""
    return time.time_ns() // 1_000_000
