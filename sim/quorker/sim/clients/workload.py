"""What is asked of a cluster of bare Raft members: proposals, reads and membership changes, and the probes at the end.

Every payload begins with a number of its own, so that the oracles can tell what was promised about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quorker.core.raft.messages import NodeId
from quorker.sim.cases.case import Op, OpKind
from quorker.sim.runs.membership import CHANGES
from quorker.sim.runs.node import Node
from quorker.sim.stories.story import Kind
from quorker.sim.world.host import leader_of
from quorker.sim.world.kernel import Call
from quorker.sim.world.randomness import Stream
from quorker.sim.world.trace import What
from quorker.sim.world.world import World

MARK: Final = b"op"  # no configuration entry begins so
SIZES: Final = (8, 8, 20, 100, 400)  # bytes of a payload


class Workload:
    """Performs a case's operations, and remembers what became of each payload."""

    def __init__(self, world: World, nodes: Mapping[NodeId, Node]) -> None:
        self._world = world
        self._nodes = nodes
        self._sizes = Stream(world.case.seed, "sizes")
        self._contexts = 0
        self._payloads = 0
        self._proposed: dict[int, tuple[NodeId, list[bytes]]] = {}
        for node in nodes.values():
            node.on_dropped = self._on_dropped

    def start(self) -> None:
        for op in self._world.case.ops:
            self._world.kernel.after(op.at_ns, self._perform, op)

    def propose(self, node: Node, count: int = 1) -> bytes | None:
        """Propose entries through `node`. Returns the name of the last payload, None if nobody is there."""
        items = [self._payload() for _ in range(count)]
        names = [item[:8] for item in items]
        self._contexts += 1
        self._proposed[self._contexts] = (node.id, names)
        self._note(OpKind.PROPOSE, node.id, count)
        self._tell(node.id, f"is asked to propose {count}, proposal {self._contexts}")
        return names[-1] if node.propose(items, self._contexts) else None

    def read(self, node: Node) -> int:
        """Ask for a linearizable read through `node`; returns its context."""
        self._contexts += 1
        self._note(OpKind.READ, node.id, self._contexts)
        self._tell(node.id, f"is asked for read {self._contexts}")
        node.read(self._contexts)
        return self._contexts

    def _perform(self, call: Call) -> None:
        op: Op = call.payload
        node = self._nodes[op.node] if op.node else leader_of(self._nodes)
        if node is None:
            return
        if op.kind is OpKind.PROPOSE:
            self.propose(node, op.amount)
        elif op.kind is OpKind.READ:
            self.read(node)
        else:
            self._change(op)

    def _change(self, op: Op) -> None:
        """Membership changes go to whoever leads: others would only drop them."""
        leader = leader_of(self._nodes)
        if leader is None:
            return
        self._contexts += 1
        self._note(op.kind, op.node, op.amount)
        change = CHANGES[op.kind](op)
        self._tell(leader.id, f"is asked for {change}")
        leader.propose_config(change, self._contexts)

    def _payload(self) -> bytes:
        self._payloads += 1
        name = MARK + self._payloads.to_bytes(6, "big")
        return name.ljust(self._sizes.choice(SIZES), b".")

    def _on_dropped(self, context: int) -> None:
        node_id, names = self._proposed.pop(context, (0, []))
        for name in names:
            self._world.oracles.refused[name] = f"which n{node_id} had refused"

    def _tell(self, node_id: NodeId, text: str) -> None:
        if self._world.trace.story is not None:
            self._world.trace.story.enter(f"n{node_id}", Kind.OPERATION, text)

    def _note(self, kind: OpKind, node_id: NodeId, amount: int) -> None:
        self._world.trace.record(self._world.kernel.now, What.OPERATION, node_id, len(kind), amount)
