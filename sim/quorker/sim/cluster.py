"""One simulated run from its case to its verdict: build the world, let it suffer, heal it, demand progress, scan disks."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from quorker.core.raft.messages import ConfState, HardState, NodeId, SnapshotMeta
from quorker.sim.calm import Calm
from quorker.sim.case import Case, ClockKnobs
from quorker.sim.checks import FIRST, Oracles, Violation
from quorker.sim.clock import NodeClock
from quorker.sim.disk import DiskKnobs, DurableLog, LogDisk
from quorker.sim.faults import Nemesis
from quorker.sim.kernel import US, Call, Kernel
from quorker.sim.network import Network, NetworkKnobs
from quorker.sim.node import Node
from quorker.sim.randomness import Stream
from quorker.sim.trace import Trace, What
from quorker.sim.workload import Workload
from quorker.sim.world import Traps, World

if TYPE_CHECKING:
    from collections.abc import Generator

CALM_NETWORK: Final = NetworkKnobs(latency="uniform", median_ns=300 * US)
CALM_DISK: Final = DiskKnobs(latency="uniform", median_ns=100 * US)

# The core never raises, whatever it is fed: any of these is a bug, of the core or of the simulator.
BUGS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one run. `digest` is equal for equal cases, in every process."""

    case: Case
    digest: str
    violation: Violation | None
    events: int
    true_ns: int
    committed: int
    sometimes: dict[str, int] = field(default_factory=dict[str, int])


class Cluster:
    """The nodes of one case. `run` may be called once."""

    def __init__(self, case: Case, trace: Trace) -> None:
        self.case = case
        kernel = Kernel()
        self._first = ConfState(voters=tuple(range(1, case.voters + 1)))
        durables = {node_id: self._formatted(node_id) for node_id in case.nodes}
        network = Network(kernel, case.seed, case.network, self._deliver)
        self.world = World(case, kernel, trace, network, Oracles(durables), Traps.of(case))
        self.nodes = {node_id: self._build(node_id, durables[node_id]) for node_id in case.nodes}
        self.workload = Workload(self.world, self.nodes)
        self.nemesis = Nemesis(self.world, self.nodes, self.workload)
        self._over = False

    def run(self) -> None:
        """Both phases and the scan. Raises Violation."""
        for node in self.nodes.values():
            node.start()
        self.workload.start()
        self.nemesis.start()
        self._phase("chaos", self.case.chaos_ns)
        calm = self._begin_calm()
        calm.start()
        self._phase("calm", self.case.calm_ns, calm)
        self._scan()

    def _formatted(self, node_id: NodeId) -> DurableLog:
        """A disk as it is before the first start: founders know each other, spares know nobody."""
        if node_id > self.case.voters:
            return DurableLog(HardState(), SnapshotMeta(), 0)
        return DurableLog(HardState(1, 0, FIRST), SnapshotMeta(FIRST, 1, self._first), 0)

    def _build(self, node_id: NodeId, durable: DurableLog) -> Node:
        case = self.case
        clock = case.clocks[node_id - 1] if case.clocks else ClockKnobs()
        disk = LogDisk(self.world.kernel, case.seed, node_id, case.disk, durable)
        return Node(self.world, node_id, NodeClock(clock.rate_ppm, clock.wall_offset_ms), disk)

    def _deliver(self, call: Call) -> None:
        source, target, item = call.payload
        node = self.nodes.get(target)
        if node is not None:
            world = self.world
            world.trace.record(world.kernel.now, What.DELIVERED, target, source)
            node.deliver(item)

    def _phase(self, name: str, length_ns: int, calm: Calm | None = None) -> None:
        """Run events for so long, or until the calm is done. Too many events are a livelock."""
        world, budget = self.world, self.case.events_max
        world.trace.record(world.kernel.now, What.PHASE, 0, length_ns)
        self._over = False
        world.kernel.after(length_ns, self._end_phase)
        step = world.kernel.step
        for _ in range(budget):
            step()
            if self._over or (calm is not None and calm.done):
                break
        else:
            raise Violation("event budget", f"{budget} events in the {name} phase at {world.kernel.now} ns")
        if calm is not None and not calm.done:
            raise calm.verdict()

    def _end_phase(self, _: Call) -> None:
        self._over = True

    def _begin_calm(self) -> Calm:
        """Heal everything; but some members may be gone for good, in one of three ways."""
        world, case = self.world, self.case
        if world.trace.sink:
            world.say("all faults end")
        world.traps.armed.clear()
        world.network.heal(CALM_NETWORK)
        for node in self.nodes.values():
            node.disk.knobs = replace(CALM_DISK)
        self.nemesis.end_all()
        draw = Stream(case.seed, "calm")
        lost = draw.sample(list(self.nodes), case.dead_in_calm)
        for node_id in lost:
            self._lose(node_id, draw)
        core = [node_id for node_id in self.nodes if node_id not in lost]
        return Calm(world, self.nodes, core, self.workload)

    def _lose(self, node_id: NodeId, draw: Stream) -> None:
        """Dead, deaf or mute from now on. Without PreVote and CheckQuorum, deaf and mute members may disturb: §9.6."""
        network, knobs = self.world.network, self.case.raft
        way = draw.below(3) if knobs.pre_vote and knobs.check_quorum else 0
        if self.world.trace.sink:
            self.world.say(f"n{node_id} stays {('dead', 'deaf', 'mute')[way]}")
        if way == 0:
            self.nodes[node_id].crash(None)
        elif way == 1:
            network.cut([(other, node_id) for other in self.nodes])
        else:
            network.cut([(node_id, other) for other in self.nodes])

    def _scan(self) -> None:
        """Cut the power of all, and look at what the disks would give back."""
        for node in self.nodes.values():
            node.crash(None)
        self.world.oracles.scan()


def run_case(case: Case, sink: Callable[[str], None] | None = None) -> Report:
    """Run one case to its end or to its first violation."""
    trace = Trace(sink)
    with collection_paused():
        cluster = Cluster(case, trace)
        violation = None
        try:
            cluster.run()
        except Violation as found:
            violation = found
        except BUGS as error:
            violation = Violation("exception", f"{type(error).__name__}: {error}")
            violation.__cause__ = error
    world = cluster.world
    trace.record(world.kernel.now, What.PHASE, world.oracles.commit_index, world.oracles.states[-1])
    return Report(
        case,
        trace.digest(),
        violation,
        trace.events,
        world.kernel.now,
        world.oracles.commit_index - FIRST,
        dict(sorted(world.sometimes.items())),
    )


@contextmanager
def collection_paused() -> Generator[None]:
    """No garbage collection inside a short run: it costs a sixth of the time, and everything dies at the end anyway."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
