"""Whether answers are as new as they say [C4]: the age of each, by its member's clock, is held against true time.

Whatever any member had applied when so much time ago was, at the slowest rate of the run's clocks, somebody may have been
told of by then: it must be in the answer.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from quorker.core.freshness import UNKNOWN
from quorker.sim.oracles.checks import Violation
from quorker.sim.world.kernel import MS

PPM: Final = 1_000_000


class Ages:
    """`slow_ppm`: how much too slow a clock of the run ever is, at most."""

    def __init__(self, slow_ppm: int) -> None:
        self._rate = PPM - slow_ppm
        self._when_ns: list[int] = []  # true times at which the applied log had grown, for the first member
        self._newest: list[int] = []  # and how far it went
        self.told = 0

    def on_applied(self, index: int, now_ns: int) -> None:
        """A member has applied the entry at `index`; if it is the first, its outcome is known from now on."""
        if not self._newest or index > self._newest[-1]:
            self._when_ns.append(now_ns)
            self._newest.append(index)

    def on_answer(self, node_id: int, index: int, age_ms: int, now_ns: int) -> None:
        """A member answers as of `index`, and says how old that may be."""
        if age_ms == UNKNOWN:
            return
        self.told += 1
        if age_ms < 0:
            raise Violation("as new as it says [C4]", f"n{node_id} says that its state is {age_ms} ms old")
        since_ns = now_ns - (age_ms + 1) * MS * PPM // self._rate - 1
        place = bisect_right(self._when_ns, since_ns)
        if place and self._newest[place - 1] > index:
            late_ms = (now_ns - self._when_ns[place - 1]) // MS
            raise Violation(
                "as new as it says [C4]",
                f"n{node_id} answers as of {index}, {age_ms} ms old by its clock; {self._newest[place - 1]} was "
                f"applied {late_ms} ms ago",
            )
