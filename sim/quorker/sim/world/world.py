"""What the nodes of one simulated run share: true time, the network, the oracles, the record and the traps."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorker.sim.cases.case import Case, Point, Trap
from quorker.sim.oracles.checks import Oracles
from quorker.sim.oracles.elections import Elections
from quorker.sim.world.kernel import Kernel
from quorker.sim.world.naming import kind_of
from quorker.sim.world.network import Network
from quorker.sim.world.trace import Trace


@dataclass(slots=True)
class Traps:
    """The crashes that wait at points of a driver's work. Each springs once."""

    armed: dict[Point, list[Trap]] = field(default_factory=dict[Point, list[Trap]])
    reached: dict[Point, int] = field(default_factory=dict[Point, int])

    @classmethod
    def of(cls, case: Case) -> Traps:
        traps = cls()
        for trap in case.traps:
            traps.armed.setdefault(trap.point, []).append(trap)
        return traps

    def reach(self, point: Point) -> Trap | None:
        """Count this visit; the trap that it springs, if any."""
        count = self.reached.get(point, 0) + 1
        self.reached[point] = count
        waiting = self.armed.get(point, [])
        for trap in waiting:
            if trap.nth == count:
                waiting.remove(trap)
                return trap
        return None


@dataclass(slots=True)
class World:
    case: Case
    kernel: Kernel
    trace: Trace
    network: Network
    oracles: Oracles
    traps: Traps
    elections: Elections = field(init=False)
    sometimes: dict[str, int] = field(
        default_factory=dict[str, int]
    )  # how often something worth testing happened

    def __post_init__(self) -> None:
        self.elections = Elections(self.oracles.leaders, self.note)
        self.oracles.note = self.note
        self.network.on_duplicated = self._note_duplicate

    def _note_duplicate(self, name: int) -> None:
        self.note(f"duplicate of {kind_of(name)}")

    def note(self, what: str) -> None:
        """Something that a good campaign should have seen happened."""
        self.sometimes[what] = self.sometimes.get(what, 0) + 1

    def note_installed(self) -> None:
        """A member took over a snapshot of its leader's."""
        self.note("snapshot installed")
        if self.network.is_cut:
            self.note("snapshot installed during a partition")

    def say(self, text: str) -> None:
        self.trace.note(text)
