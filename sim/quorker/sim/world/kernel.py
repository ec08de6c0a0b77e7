"""The event queue of a simulated world: simpy's, with events that cost a fraction of a simpy timeout.

Time is an integer, nanoseconds of true time. Whatever happens often (a delivery, a timer, a finished fsync) is one
slotted `Call`; simpy processes are for what is rare and reads better as a story (clients, workers, scripts).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

import simpy

US: Final = 1_000
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000


class Call:
    """Something that happens at one instant: `function(call)` is called with this event, which carries `payload`."""

    __slots__ = ("callbacks", "payload")

    _ok: Final = True  # what simpy looks for in an event that it has processed

    def __init__(self, function: Callable[[Any], None], payload: object) -> None:
        self.callbacks = (function,)
        self.payload: Any = payload


class Kernel(simpy.Environment):
    """True time and what is still to happen. Two events of one instant run in the order of `rank`, then of arrival."""

    _now: int  # simpy allows floats; only integers are ever scheduled here
    _queue: list[Any]  # of (when, rank, serial number, event), as simpy keeps it

    def __init__(self) -> None:
        super().__init__(0)
        self._stopped = False

    @property
    def now(self) -> int:
        return self._now

    def after(
        self, delay_ns: int, function: Callable[[Call], None], payload: object = None, rank: int = 1
    ) -> None:
        heappush(self._queue, (self._now + delay_ns, rank, next(self._eid), Call(function, payload)))

    def run_until_stopped(self, events_max: int) -> bool:
        """Run events until one of them calls `stop`. False if that many were not enough."""
        self._stopped = False
        queue = self._queue
        for _ in range(events_max):
            if type(queue[0][3]) is Call:
                self._now, _, _, call = heappop(queue)
                call.callbacks[0](call)
            else:
                self.step()
            if self._stopped:
                return True
        return False

    def stop(self) -> None:
        """Let `run_until_stopped` return after this event."""
        self._stopped = True
