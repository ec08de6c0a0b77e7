"""The liveness phase: when every fault has ended, the cluster must serve every member again and its replicas agree.

Looking converged is not enough, because a leader that cannot commit looks so too. First reads are asked through each
member until all came back, so that nothing new can help what is old to commit; then probes are proposed through each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.messages import NodeId
from quorker.sim.clients.workload import Workload
from quorker.sim.oracles.checks import FIRST, Violation
from quorker.sim.runs.node import Node
from quorker.sim.world.host import leader_of
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.world import World


@dataclass(slots=True)
class Probe:
    """What a member still owes: a payload that it must see committed, and a read that it must answer."""

    payload: bytes | None = None
    committed: bool = False
    read_answered: bool = False
    age: int = 0


class Calm:
    """Watches the last phase of a run. `done` when every member of `core` that takes part has recovered."""

    def __init__(
        self, world: World, nodes: Mapping[NodeId, Node], core: list[NodeId], workload: Workload
    ) -> None:
        self._world = world
        self._nodes = {node_id: nodes[node_id] for node_id in core}
        self._workload = workload
        self._probes = {node_id: Probe() for node_id in core}
        self._interval_ns = world.case.raft.election_ms * MS // 2
        self._scanned = world.oracles.commit_index
        self.done = False
        for node in self._nodes.values():
            node.on_read = self._on_read

    def start(self) -> None:
        self._world.kernel.after(self._interval_ns, self._look)

    def verdict(self) -> Violation:
        """Why the run is not done yet, for when its time is over."""
        shown = ", ".join(
            f"n{node.id} {node.raft.role.value if node.raft else 'down'} term {node.raft.term if node.raft else 0} "
            f"applied {node.applied_index} probe {self._probes[node.id]}"
            for node in self._nodes.values()
        )
        return Violation("liveness", f"no recovery after all faults ended: {shown}")

    def _on_read(self, node_id: NodeId, _: int) -> None:
        self._probes[node_id].read_answered = True

    def _look(self, _: Call) -> None:
        self._see_commits()
        leader = leader_of(self._nodes)
        if leader is not None and leader.id in self._nodes and leader.raft is not None:
            conf_state = leader.raft.conf_state
            if conf_state.voters_outgoing and not conf_state.auto_leave:
                leader.propose_config(ConfigChange(), 0)
            named = {*conf_state.voters, *conf_state.learners, *conf_state.voters_outgoing}
            members = [node for node in self._nodes.values() if node.id in named]
            self.done = self._all_read(members) and self._all_committed(members) and self._converged(members)
        if self.done:
            self._world.kernel.stop()
        else:
            self._world.kernel.after(self._interval_ns, self._look)

    def _all_read(self, members: list[Node]) -> bool:
        owed = [node for node in members if not self._probes[node.id].read_answered]
        for node in owed:
            self._workload.read(node)
        return not owed

    def _all_committed(self, members: list[Node]) -> bool:
        owed = [node for node in members if not self._probes[node.id].committed]
        for node in owed:
            probe = self._probes[node.id]
            probe.age += 1
            if probe.age % 4 == 1:
                probe.payload = self._workload.propose(self._proposer(node))
        return not owed

    def _see_commits(self) -> None:
        committed = self._world.oracles.committed
        waiting = {probe.payload: probe for probe in self._probes.values() if not probe.committed}
        for entry in committed[self._scanned - FIRST :]:
            probe = waiting.get(entry.data[:8])
            if probe is not None:
                probe.committed = True
        self._scanned = self._world.oracles.commit_index

    def _proposer(self, node: Node) -> Node:
        """The member itself, where proposals are forwarded; else the leader, as a client would find it."""
        leader = leader_of(self._nodes)
        forwards = self._world.case.raft.forwarding
        return node if forwards or leader is None else leader

    def _converged(self, members: list[Node]) -> bool:
        commit_index = self._world.oracles.commit_index
        return all(
            node.applied_index == commit_index and node.raft is not None and node.raft.rejoining is None
            for node in members
        )
