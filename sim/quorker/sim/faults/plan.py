"""Performs a case's plan of faults on nodes and disks, and ends all of them when the calm begins.

What is done to the network is `faults_network`, to clocks `faults_clocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from quorker.core.raft.messages import NodeId
from quorker.sim.cases.case import Fault, FaultKind, Target
from quorker.sim.disks.damage import DiskDamage
from quorker.sim.faults.clocks import ClockFaults
from quorker.sim.faults.network import End, NetworkFaults, Strike, missed
from quorker.sim.stories.story import NEMESIS, Kind
from quorker.sim.world.host import Host, leader_of
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.trace import What
from quorker.sim.world.world import World

OF_NO_MEMBER: Final = frozenset(
    {
        FaultKind.POWER_CUT,
        FaultKind.SPLIT,
        FaultKind.RING,
        FaultKind.SWIZZLE,
        FaultKind.CLIENT_CRASH,
        FaultKind.CLIENT_PAUSE,
        FaultKind.CLIENT_CLOCK_RATE,
        FaultKind.CLIENT_WALL_JUMP,
    }
)
"""Faults that strike all members, or none: whatever member the plan names."""
STRIKE_LATE: Final = frozenset({FaultKind.ROLL_BACK})
"""Faults that break something when they end, or never: they are noted where they do."""


class Nemesis:
    """Whoever breaks things. Until the calm, every fault ends after its time; the calm ends all at once."""

    def __init__(
        self, world: World, nodes: Mapping[NodeId, Host], others: Mapping[FaultKind, Strike] | None = None
    ) -> None:
        """`others`: how to strike what is not a member."""
        self._world = world
        self._nodes = nodes
        self._calm = False
        network = NetworkFaults(world, nodes, lambda: self._calm)
        clocks = ClockFaults(world, lambda: self._calm)
        damage = DiskDamage(world, nodes).ways()
        self._strikes = {**network.strikes(), **clocks.strikes(), **self._ways(), **damage, **(others or {})}

    def start(self) -> None:
        for fault in self._world.case.plan:
            self._world.kernel.after(fault.at_ns, self._strike, fault)

    def end_all(self) -> None:
        """Heal the disks, wake the frozen, restart the dead. The network is healed by its owner."""
        self._calm = True
        for node in self._nodes.values():
            node.disk.heal()
            node.apply_ns = 0
            node.clock.set_wall_rate(self._world.kernel.now, 0)
            node.resume()
            if node.raft is None:
                node.start()

    def _ways(self) -> dict[FaultKind, Strike]:
        return {
            FaultKind.CRASH: self._crash,
            FaultKind.POWER_CUT: self._power_cut,
            FaultKind.PAUSE: self._pause,
            FaultKind.DISK_STALL: self._disk_stall,
            FaultKind.DISK_SLOW: self._disk_slow,
            FaultKind.FSYNC_ERROR: self._fsync_error,
            FaultKind.SLOW_NODE: self._slow_node,
            FaultKind.SLOW_APPLIER: self._slow_applier,
            FaultKind.TRANSFER: self._transfer,
            FaultKind.CAMPAIGN: self._campaign,
            FaultKind.SNAPSHOT: self._snapshot,
        }

    def _strike(self, call: Call) -> None:
        fault: Fault = call.payload
        node = self._target(fault)
        world = self._world
        world.trace.record(world.kernel.now, What.FAULT, node.id, len(fault.kind), fault.for_ns)
        story = world.trace.story
        if story is not None:
            amount = f", amount {fault.amount}" if fault.amount else ""
            whom = "" if fault.kind in OF_NO_MEMBER else f" on n{node.id}"
            text = f"{fault.kind}{whom} for {fault.for_ns / 1e6:.3f} ms{amount}"
            about = {"fault": str(fault.kind), "node": node.id if whom else 0, "for_ns": fault.for_ns}
            story.enter(NEMESIS, Kind.FAULT, text, **about)
        strike = self._strikes.get(fault.kind)
        end = strike(node, fault) if strike is not None else missed
        if end is missed:
            return
        if fault.kind not in STRIKE_LATE:
            world.note(f"fault {fault.kind}")
        if end is not None:
            self._world.kernel.after(fault.for_ns, self._end, end)

    def _end(self, call: Call) -> None:
        if self._calm:
            return
        if self._world.trace.story is not None:
            self._world.trace.story.fault_ends()
        call.payload()

    def _target(self, fault: Fault) -> Host:
        leader = leader_of(self._nodes)
        named = self._nodes[fault.node]
        if fault.target is Target.LEADER and leader is not None:
            return leader
        if fault.target is Target.FOLLOWER and named is leader:
            return self._nodes[fault.node % len(self._nodes) + 1]
        return named

    # ------------------------------------------------------------------ kinds of faults

    def _crash(self, node: Host, fault: Fault) -> End | None:
        if node.raft is None:
            return missed
        node.crash(fault.for_ns)
        return None

    def _power_cut(self, _: Host, fault: Fault) -> None:
        for node in self._nodes.values():
            node.crash(fault.for_ns)

    def _pause(self, node: Host, _: Fault) -> Callable[[], None]:
        node.pause()
        return node.resume

    def _disk_stall(self, node: Host, _: Fault) -> Callable[[], None]:
        node.disk.stall()
        return node.disk.resume

    def _disk_slow(self, node: Host, fault: Fault) -> Callable[[], None]:
        node.disk.slowness = fault.amount
        return lambda: setattr(node.disk, "slowness", 1)

    def _fsync_error(self, node: Host, _: Fault) -> None:
        node.disk.failing = True

    def _slow_node(self, node: Host, fault: Fault) -> Callable[[], None]:
        """The process gets on by slots: what came in waits for its turn, and one event takes `amount` us."""
        event_ns = max(1, fault.amount) * 1_000
        slot_ns = max(event_ns, MS)
        ended: list[bool] = []

        def slot(_: Call | None = None) -> None:
            if ended or self._calm:
                return
            node.crawl(slot_ns // event_ns)
            self._world.kernel.after(slot_ns, slot)

        def end() -> None:
            ended.append(True)
            node.resume()

        slot()
        return end

    def _slow_applier(self, node: Host, fault: Fault) -> Callable[[], None]:
        node.apply_ns = fault.amount
        return lambda: setattr(node, "apply_ns", self._world.case.machine.apply_ns)

    def _transfer(self, node: Host, _: Fault) -> None:
        leader = leader_of(self._nodes)
        if leader is not None:
            leader.ask(lambda raft: raft.transfer(node.id))

    def _campaign(self, node: Host, _: Fault) -> None:
        node.ask(lambda raft: raft.campaign())

    def _snapshot(self, node: Host, _: Fault) -> None:
        node.ask(lambda _: node.save_snapshot())
