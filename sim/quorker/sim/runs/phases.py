"""The course of every run: build the world, let it suffer, heal it, demand progress, cut the power and scan the disks.

What the members replicate, and what is asked of them, is for the subclasses: `cluster` and `jobs_cluster`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Generic, Protocol

from quorker.core.raft.messages import ConfState, HardState, NodeId, SnapshotMeta
from quorker.sim.cases.case import Case, ClockKnobs, FaultKind
from quorker.sim.disks.disk import DiskKnobs, DurableLog, LogDisk
from quorker.sim.disks.file_disk import FileDisk
from quorker.sim.faults.files import FileFaults
from quorker.sim.faults.network import Strike
from quorker.sim.faults.plan import Nemesis
from quorker.sim.oracles.checks import FIRST, Oracles, Violation
from quorker.sim.oracles.steady import Steadiness, obstacle
from quorker.sim.stories.story import NEMESIS, RUN, Kind
from quorker.sim.stories.storyteller import kernel_for, network_for
from quorker.sim.world.clock import NodeClock
from quorker.sim.world.host import HostT
from quorker.sim.world.kernel import US, Call
from quorker.sim.world.network import NetworkKnobs
from quorker.sim.world.randomness import Stream
from quorker.sim.world.trace import Trace, What
from quorker.sim.world.world import Traps, World

CALM_NETWORK: Final = NetworkKnobs(latency="uniform", median_ns=300 * US)
CALM_DISK: Final = DiskKnobs(latency="uniform", median_ns=100 * US)


class Recovery(Protocol):
    """Watches the last phase: stops it, and is `done`, when everything works again."""

    done: bool

    def start(self) -> None: ...

    def verdict(self) -> Violation:
        """Why it is not done yet, for when its time is over."""
        ...


class Phases(ABC, Generic[HostT]):
    """The nodes of one case. `run` may be called once."""

    empty_state: Any  # what the replicated machine is before anything was applied

    def __init__(self, case: Case, trace: Trace) -> None:
        self.case = case
        self._phases = 0
        kernel = kernel_for(trace.story)
        self._first = ConfState(voters=tuple(range(1, case.voters + 1)))
        durables = {node_id: self._formatted(node_id) for node_id in case.nodes}
        network = network_for(trace.story, kernel, case.seed, case.network, self._deliver)
        self.world = World(case, kernel, trace, network, Oracles(durables), Traps.of(case))
        self.prepare()
        self.nodes: dict[NodeId, HostT] = {
            node_id: self._build(node_id, durables[node_id]) for node_id in case.nodes
        }
        self.damage = FileFaults(self.world)
        self.nemesis = Nemesis(self.world, self.nodes, {**self.damage.strikes(), **self.strikes()})

    # ------------------------------------------------------------------ what is replicated, and asked

    @abstractmethod
    def prepare(self) -> None:
        """Make what the nodes need."""

    @abstractmethod
    def node(self, node_id: NodeId, clock: NodeClock, disk: LogDisk) -> HostT: ...

    @abstractmethod
    def strikes(self) -> Mapping[FaultKind, Strike]:
        """How to strike what is not a member."""

    @abstractmethod
    def begin(self) -> None:
        """Start asking things of the members."""

    @abstractmethod
    def recovery(self, core: list[NodeId]) -> Recovery:
        """The last phase begins, with these members."""

    @abstractmethod
    def scan(self) -> None:
        """The power is cut: look at what the disks would give back."""

    # ------------------------------------------------------------------ the course

    def run(self) -> None:
        """Both phases and the scan. Raises Violation."""
        self.suffer()
        calm = self._begin_calm()
        calm.start()
        self.phase("calm", self.case.calm_ns, calm)
        self._demand_steadiness()
        for node in self.nodes.values():
            node.crash(None)
            node.disk.scan()
        self.damage.scan(self.nodes)
        self.world.oracles.scan()
        self.scan()

    def _demand_steadiness(self) -> None:
        """Everything works again: demand more of it, if the case says so."""
        if self.case.steady and not obstacle(self.case):
            steadiness = Steadiness(self.world, self.nodes)
            steadiness.start()
            self.phase("steady", steadiness.longest_ns, steadiness)

    def suffer(self) -> None:
        """The first phase alone. Raises Violation."""
        for node in self.nodes.values():
            node.start()
        self.begin()
        self.nemesis.start()
        self.phase("chaos", self.case.chaos_ns)

    def _formatted(self, node_id: NodeId) -> DurableLog:
        """A disk as it is before the first start: founders know each other, spares know nobody."""
        if node_id > self.case.voters:
            return DurableLog(HardState(), SnapshotMeta(), self.empty_state)
        first = SnapshotMeta(FIRST, 1, self._first)
        return DurableLog(HardState(1, 0, FIRST), first, self.empty_state)

    def _build(self, node_id: NodeId, durable: DurableLog) -> HostT:
        case = self.case
        clock = case.clocks[node_id - 1] if case.clocks else ClockKnobs()
        kind = FileDisk if case.disk.files else LogDisk
        disk = kind(self.world.kernel, case.seed, node_id, case.disk, durable)
        return self.node(node_id, NodeClock(clock.rate_ppm, clock.wall_offset_ms), disk)

    def _deliver(self, call: Call) -> None:
        source, target, item = call.payload
        node = self.nodes.get(target)
        if node is not None:
            world = self.world
            world.trace.record(world.kernel.now, What.DELIVERED, target, source)
            node.deliver(item)

    def phase(self, name: str, length_ns: int, calm: Recovery | None = None) -> None:
        """Run events for so long, or until the calm is done. Too many events are a livelock."""
        world, budget = self.world, self.case.events_max
        kernel = world.kernel
        world.trace.record(kernel.now, What.PHASE, 0, length_ns)
        self._phases += 1
        kernel.after(length_ns, self._end_phase, self._phases)
        if not kernel.run_until_stopped(budget):
            raise Violation("event budget", f"{budget} events in the {name} phase at {kernel.now} ns")
        if calm is not None and not calm.done:
            raise calm.verdict()

    def _end_phase(self, call: Call) -> None:
        if call.payload == self._phases:  # a phase that was done early leaves its end behind
            self.world.kernel.stop()

    def _begin_calm(self) -> Recovery:
        """Heal everything; but some members may be gone for good, in one of three ways."""
        world, case = self.world, self.case
        if world.trace.story is not None:
            world.trace.story.enter(RUN, Kind.PHASE, "all faults end")
        world.traps.armed.clear()
        world.network.heal(replace(CALM_NETWORK, wire_bytes=case.network.wire_bytes))
        for node in self.nodes.values():
            node.disk.knobs = replace(CALM_DISK)
        self.nemesis.end_all()
        draw = Stream(case.seed, "calm")
        lost = draw.sample(list(self.nodes), case.dead_in_calm)
        for node_id in lost:
            self._lose(node_id, draw)
        return self.recovery([node_id for node_id in self.nodes if node_id not in lost])

    def _lose(self, node_id: NodeId, draw: Stream) -> None:
        """Dead, deaf or mute from now on. Without PreVote and CheckQuorum, deaf and mute members may disturb: §9.6."""
        network, knobs = self.world.network, self.case.raft
        way = draw.below(3) if knobs.pre_vote and knobs.check_quorum else 0
        story = self.world.trace.story
        if story is not None:
            state = ("dead", "deaf", "mute")[way]
            story.begin(NEMESIS, Kind.FAULT, f"n{node_id} stays {state}", fault=state, node=node_id, for_ns=0)
        if way == 0:
            self.nodes[node_id].crash(None)
        elif way == 1:
            network.cut([(other, node_id) for other in self.nodes])
        else:
            network.cut([(node_id, other) for other in self.nodes])
