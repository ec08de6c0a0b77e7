"""What a disk may lose for good although it was synced: the end of a log, a snapshot, everything, or the time since an
image of it was taken.

The member that comes back knows that it may have forgotten something: the real disk layer notices damage at its start
(`quorker.core.wire`), and an operator says that a disk was replaced or put back. There is a budget, as there is in life:
those who may have forgotten anything at the same time are fewer than half of each set of voters that any member goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quorker.core.raft.messages import Forgotten, HardState, NodeId, SnapshotMeta
from quorker.sim.cases.case import Fault, FaultKind
from quorker.sim.disks.disk import DurableLog
from quorker.sim.faults.network import End, Strike, missed
from quorker.sim.oracles.checks import majorities_of
from quorker.sim.world.host import Host
from quorker.sim.world.world import World

UNNOTICED = 1  # the `amount` of a roll-back of which nobody is told


class DiskDamage:
    """`first_state`: of a replicated machine to which nothing was applied, as the disk has it before the first start."""

    def __init__(self, world: World, nodes: Mapping[NodeId, Host]) -> None:
        self._world = world
        self._nodes = nodes
        self._first_state = next(iter(nodes.values())).disk.durable.state if nodes else None

    def ways(self) -> dict[FaultKind, Strike]:
        return {
            FaultKind.LOSE_SUFFIX: self._at_once(self._lose_suffix),
            FaultKind.SPOIL_SNAPSHOT: self._at_once(self._spoil_snapshot),
            FaultKind.WIPE: self._at_once(self._wipe),
            FaultKind.ROLL_BACK: self._roll_back,
        }

    def _at_once(self, spoil: Callable[[DurableLog, Fault], None]) -> Strike:
        def strike(node: Host, fault: Fault) -> End | None:
            return None if self._damage(node, fault, lambda durable: spoil(durable, fault)) else missed

        return strike

    def _damage(self, node: Host, fault: Fault, spoil: Callable[[DurableLog], None]) -> bool:
        """The process ends first: what damage does to data that a running process holds is another fault.

        False when that would be too much.
        """
        if not self._within_budget(node):
            return False
        node.crash(fault.for_ns)
        spoil(node.disk.durable)
        self._world.note(f"damage {fault.kind}")
        return True

    def _within_budget(self, node: Host) -> bool:
        others = [other for other in self._nodes.values() if other is not node and _may_have_forgotten(other)]
        return 2 * (len(others) + 1) < self._smallest_set()

    def _smallest_set(self) -> int:
        """How many voters the smallest set has that decides anything for any member, also for one that is down."""
        if not self._world.case.spares:
            return self._world.case.voters
        known = [seen.conf_state for seen in self._world.oracles.seen.values()]
        return min((len(voters) for each in known for voters in majorities_of(each) if voters), default=0)

    def _lose_suffix(self, durable: DurableLog, fault: Fault) -> None:
        durable.lose_from(durable.last + 1 - fault.amount)
        durable.forget(Forgotten.ENTRIES)

    def _spoil_snapshot(self, durable: DurableLog, _: Fault) -> None:
        promised = durable.hard_state
        durable.put_back(
            DurableLog(HardState(promised.term, promised.voted_for), SnapshotMeta(), self._first_state)
        )
        durable.forget(max(promised.forgotten, Forgotten.ENTRIES))

    def _wipe(self, durable: DurableLog, _: Fault) -> None:
        durable.put_back(DurableLog(HardState(), SnapshotMeta(), self._first_state))
        durable.forget(Forgotten.PROMISES)

    def _roll_back(self, node: Host, fault: Fault) -> End:
        image = node.disk.durable.image()

        def put_back(durable: DurableLog) -> None:
            durable.put_back(image)
            if fault.amount != UNNOTICED:
                durable.forget(Forgotten.PROMISES)

        def end() -> None:
            if self._damage(node, fault, put_back):
                self._world.note(f"fault {fault.kind}")

        return end


def _may_have_forgotten(node: Host) -> bool:
    is_marked = node.disk.durable.hard_state.forgotten is not Forgotten.NOTHING
    return is_marked or (node.raft is not None and node.raft.rejoining is not None)
