"""How clocks are set wrong: wall clocks that step, strobe, slew and stand still, monotonic ones that run too fast or slow.

Only wall clocks jump, and every rate of a monotonic clock stays within what the guarantees allow.
"""

from __future__ import annotations

from collections.abc import Callable

from quorker.sim.cases.case import Fault, FaultKind
from quorker.sim.faults.network import End, Strike
from quorker.sim.world.clock import STOPPED_PPM, NodeClock
from quorker.sim.world.host import Host
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.randomness import Stream
from quorker.sim.world.world import World

STROBE_MS_MAX = 40  # between two jumps


class ClockFaults:
    """`is_over`: the calm has begun, and whoever owns the clocks has set them right."""

    def __init__(self, world: World, is_over: Callable[[], bool]) -> None:
        self._world = world
        self._is_over = is_over

    def strikes(self) -> dict[FaultKind, Strike]:
        return {
            FaultKind.WALL_JUMP: lambda node, fault: node.clock.jump_wall(fault.amount),
            FaultKind.WALL_STEP: lambda node, fault: node.clock.jump_wall(fault.amount),
            FaultKind.WALL_STROBE: self._strobe,
            FaultKind.WALL_SLEW: lambda node, fault: self._slew(node.clock, fault.amount),
            FaultKind.WALL_FREEZE: lambda node, _: self._slew(node.clock, STOPPED_PPM),
            FaultKind.CLOCK_RATE: lambda node, fault: self.set_rate(node.clock, fault),
        }

    def set_rate(self, clock: NodeClock, fault: Fault) -> None:
        clock.set_rate(self._world.kernel.now, fault.amount)

    def _slew(self, clock: NodeClock, ppm: int) -> End:
        clock.set_wall_rate(self._world.kernel.now, ppm)
        return lambda: clock.set_wall_rate(self._world.kernel.now, 0)

    def _strobe(self, node: Host, fault: Fault) -> End:
        """Forth and back by `amount` ms, at random moments."""
        draw = Stream(self._world.case.seed, "strobe", fault.at_ns, fault.amount)
        ahead: list[int] = []
        ended: list[bool] = []

        def flip(_: Call | None = None) -> None:
            if ended or self._is_over():
                return
            if ahead:
                node.clock.jump_wall(-ahead.pop())
            else:
                ahead.append(fault.amount)
                node.clock.jump_wall(fault.amount)
            self._world.kernel.after(draw.between(1, STROBE_MS_MAX) * MS, flip)

        def end() -> None:
            ended.append(True)
            for by_ms in ahead:
                node.clock.jump_wall(-by_ms)

        flip()
        return end
