"""The event queue of a simulated world: simpy's, with events that cost a fraction of a simpy timeout.

Time is an integer, nanoseconds of true time. Whatever happens often (a delivery, a timer, a finished fsync) is one
slotted `Call`; simpy processes are for what is rare and reads better as a story (clients, workers, scripts).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import simpy
from simpy.events import Event, EventPriority

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

    def __init__(self) -> None:
        super().__init__(0)

    @property
    def now(self) -> int:
        return self._now

    def after(
        self, delay_ns: int, function: Callable[[Call], None], payload: object = None, rank: int = 1
    ) -> None:
        self.schedule(cast("Event", Call(function, payload)), cast("EventPriority", rank), delay_ns)
