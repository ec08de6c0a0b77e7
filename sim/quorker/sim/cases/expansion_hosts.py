"""What a seed adds to a case's machines: wall clocks that misbehave, members that are slow, clients' clocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from quorker.sim.cases.case import Case, FaultKind
from quorker.sim.cases.expansion_network import draw_faults, merged
from quorker.sim.world.randomness import Stream

FAULTS_PPM: Final = 300_000

OF_MEMBERS: Final[dict[FaultKind, tuple[int, int]]] = {
    FaultKind.WALL_STEP: (-5_000, 5_000),
    FaultKind.WALL_STROBE: (1, 3_600_000),
    FaultKind.WALL_SLEW: (-300_000, 300_000),
    FaultKind.WALL_FREEZE: (0, 0),
    FaultKind.SLOW_NODE: (100, 20_000),
}
OF_CLIENTS: Final[dict[FaultKind, tuple[int, int]]] = {
    FaultKind.CLIENT_CLOCK_RATE: (-90_000, 90_000),
    FaultKind.CLIENT_WALL_JUMP: (-3_600_000, 3_600_000),
}
"""With the bounds of their amounts."""


def worsen_hosts(case: Case, faults_max: int) -> Case:
    """The case with more that is wrong with its machines, in a share of the runs."""
    draw = Stream(case.seed, "hosts, further")
    if not draw.chance(FAULTS_PPM):
        return case
    kinds = OF_MEMBERS if case.jobs is None else OF_MEMBERS | OF_CLIENTS
    return replace(case, plan=merged(case.plan, draw_faults(draw, case, kinds, max(1, faults_max // 3))))
