"""Where one process spends its CPU time: what was running at each tick of its own CPU clock, counted by part.

A sample costs microseconds, so that unlike under cProfile the shares are those of an unobserved run.
"""

from __future__ import annotations

import signal
from collections import Counter
from types import FrameType

TICK_SECONDS = 0.002  # the kernel may round it up to its own tick
PARTS = (
    ("/core/raft/", "core: raft"),
    ("/core/jobs/", "core: job store"),
    ("/core/wire/", "core: wire and log format"),
    ("/core/", "core: replica, session, worker"),
    ("/transport/stream", "transport: sockets"),
    ("/transport/disk", "transport: disk (pwrite, fdatasync)"),
    ("/transport/", "transport: the rest"),
    ("/quorker/app/", "app"),
    ("/trio/", "trio: scheduler, epoll, timers"),
    ("/outcome/", "trio: scheduler, epoll, timers"),
    ("/bench/", "the load itself"),
)


class Sampler:
    """`start` it, let the process work, and `stop` it: samples by part, and by line."""

    def __init__(self) -> None:
        self.parts: Counter[str] = Counter()
        self.places: Counter[str] = Counter()

    def start(self) -> None:
        self.parts.clear()
        self.places.clear()
        signal.signal(signal.SIGPROF, self._on_tick)
        signal.setitimer(signal.ITIMER_PROF, TICK_SECONDS, TICK_SECONDS)

    def stop(self) -> dict[str, dict[str, int]]:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return {"parts": dict(self.parts), "places": dict(self.places.most_common(60))}

    def _on_tick(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        code = frame.f_code
        self.places[f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_qualname}"] += 1
        self.parts[part_of(frame)] += 1


def part_of(frame: FrameType) -> str:
    """The innermost caller that belongs to a part; the standard library works for whoever called it."""
    caller: FrameType | None = frame
    while caller is not None:
        path = caller.f_code.co_filename
        for mark, part in PARTS:
            if mark in path:
                return part
        caller = caller.f_back
    return "the rest"
