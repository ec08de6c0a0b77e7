"""What a healthy cluster owes its leader, and its members a leader: looked at when a run has recovered, if its case says so.

One follower is cut off, deaf or mute for several election timeouts, and comes back: the same member must still lead in the
same term. Then the leader's disk stalls, then the leader is deaf, then it dies: each time another one must lead in time. Everything
else works here; what a cluster owes under several faults at once is for the phases before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from quorker.core.raft.messages import NodeId
from quorker.sim.cases.case import Case, FaultKind
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.membership import CHANGES
from quorker.sim.stories.story import NEMESIS, Kind
from quorker.sim.world.host import Host, leader_of
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.network import NetworkKnobs
from quorker.sim.world.randomness import Stream
from quorker.sim.world.world import World

AWAY: Final = 4  # upper election timeouts
SETTLES: Final = 3
HANDOVER: Final = 3  # the limit of the disk, and two upper election timeouts
SUCCESSION: Final = 12  # votes may split a few times, but not again and again
EVEN: Final = NetworkKnobs(
    latency="constant", median_ns=3 * MS
)  # members learn everything at the same moment
VOTERS_MIN: Final = 3
UNNOTICED: Final = (FaultKind.FILE_ROT, FaultKind.FILE_STALE, FaultKind.FILE_MISDIRECTED)
WRITE: Final = 1 << 43  # the context of a proposal that no workload has


def obstacle(case: Case) -> str:
    """Why these promises do not hold in such a run; empty if they do. Two voters need each other, for example."""
    if case.voters < VOTERS_MIN or case.spares or any(op.kind in CHANGES for op in case.ops):
        return f"needs {VOTERS_MIN} voters or more that stay the same"
    if case.dead_in_calm:
        return "needs all members; leave dead_in_calm out"
    if any(fault.kind in UNNOTICED for fault in case.plan):
        return "needs disks without damage that shows only when they are read: a leader dies here, and nobody else may be missing"
    if not (case.raft.pre_vote and case.raft.check_quorum):
        return "needs raft.pre_vote and raft.check_quorum: without them one member may unseat a leader (§9.6)"
    return ""


@dataclass(frozen=True, slots=True)
class Reign:
    """Who leads, since which term."""

    leader: NodeId
    term: int


class Steadiness:
    """One step after the other; `done` after the last. A step looks at what the one before it has led to."""

    def __init__(self, world: World, nodes: Mapping[NodeId, Host]) -> None:
        self._world = world
        self._nodes = nodes
        self._upper_ns = 2 * world.case.raft.election_ms * MS * 11 // 10  # clocks may be that slow
        self._reign = Reign(0, 0)
        self.done = False

    @property
    def longest_ns(self) -> int:
        """All steps take less than this."""
        return self._upper_ns * (AWAY + 4 * SETTLES + HANDOVER + 2 * SUCCESSION + 1)

    def start(self) -> None:
        self._world.network.set_knobs(EVEN)
        self._after(SETTLES, self._isolate)

    def verdict(self) -> Violation:
        return Violation(
            "liveness", f"the steps of a steady cluster were not finished in {self.longest_ns} ns"
        )

    # ------------------------------------------------------------------ one member is cut off

    def _isolate(self) -> None:
        self._reign = self._look()
        draw = Stream(self._world.case.seed, "steady")
        others = [node_id for node_id in self._nodes if node_id != self._reign.leader]
        victim, way = draw.choice(others), draw.below(3)
        hears = [(other, victim) for other in self._nodes] if way != 1 else []
        speaks = [(victim, other) for other in self._nodes] if way != 0 else []
        self._tell(f"n{victim} is {('deaf', 'mute', 'cut off')[way]}")
        network = self._world.network
        network.cut(hears + speaks)

        def heal() -> None:
            network.cut(hears + speaks, by=-1)
            self._after(SETTLES, self._expect_the_same)

        self._after(AWAY, heal)

    def _expect_the_same(self) -> None:
        reign = self._look()
        if reign != self._reign:
            raise Violation("stable leader [A2]", f"{self._reign} was ended by one follower: {reign}")
        self._world.note("stable leader kept")
        self._stall()

    # ------------------------------------------------------------------ the leader has to go

    def _stall(self) -> None:
        leader = self._nodes[self._reign.leader]
        self._tell(f"the disk of n{leader.id} stalls")
        leader.disk.stall()
        leader.ask(lambda raft: raft.propose([b""], WRITE))
        self._until_succeeded(HANDOVER, self._expect_another)

    def _expect_another(self) -> None:
        if not self._is_succeeded():
            raise Violation("stalled leader hands over [A1]", f"its disk stalled, and now: {self._look()}")
        self._world.note("stalled leader handed over")
        self._nodes[self._reign.leader].disk.resume()
        self._after(SETTLES, self._deafen)

    def _deafen(self) -> None:
        """Whoever hears it would elect nobody else, so it has to doubt itself."""
        self._reign = self._look()
        leader = self._reign.leader
        self._tell(f"n{leader} is deaf")
        self._world.network.cut((other, leader) for other in self._nodes)
        self._until_succeeded(SUCCESSION, self._expect_it_to_doubt_itself)

    def _expect_it_to_doubt_itself(self) -> None:
        self._expect_a_successor()
        self._world.network.cut(((other, self._reign.leader) for other in self._nodes), by=-1)
        self._after(SETTLES, self._kill)

    def _kill(self) -> None:
        self._reign = self._look()
        self._tell(f"n{self._reign.leader} dies")
        self._nodes[self._reign.leader].crash(None)
        self._until_succeeded(SUCCESSION, self._end)

    def _end(self) -> None:
        self._expect_a_successor()
        self.done = True
        self._world.kernel.stop()

    def _expect_a_successor(self) -> None:
        if not self._is_succeeded():
            raise Violation("succession [A1]", f"nobody follows {self._reign} after {SUCCESSION} timeouts")
        self._world.note("leader succeeded in a steady cluster")

    # ------------------------------------------------------------------ how

    def _look(self) -> Reign:
        """The leader now, in the latest term that anybody knows."""
        leader = leader_of(self._nodes)
        terms = [node.raft.term for node in self._nodes.values() if node.raft is not None]
        return Reign(leader.id if leader is not None else 0, max(terms))

    def _is_succeeded(self) -> bool:
        return self._look().leader not in (self._reign.leader, 0)

    def _until_succeeded(self, timeouts: int, step: Callable[[], None]) -> None:
        """`step` judges: as soon as another one leads, or when the time for that is over."""
        if timeouts == 0 or self._is_succeeded():
            step()
        else:
            self._after(1, lambda: self._until_succeeded(timeouts - 1, step))

    def _after(self, timeouts: int, step: Callable[[], None]) -> None:
        def take(_: Call) -> None:
            step()

        self._world.kernel.after(timeouts * self._upper_ns, take)

    def _tell(self, what: str) -> None:
        if self._world.trace.story is not None:
            self._world.trace.story.enter(NEMESIS, Kind.PHASE, what)
