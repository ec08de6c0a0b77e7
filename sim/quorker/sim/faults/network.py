"""How the network is broken: which links each kind of fault lies on, and for how long.

What a broken link does to messages is `network`; when a fault strikes and whom is `faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from quorker.core.raft.messages import NodeId
from quorker.sim.cases.case import Fault, FaultKind, Target
from quorker.sim.cases.options import MESSAGE_KINDS
from quorker.sim.world.host import Host, leader_of
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.randomness import Stream
from quorker.sim.world.world import World

Pairs: TypeAlias = list[tuple[NodeId, NodeId]]
End: TypeAlias = Callable[[], None]
Strike: TypeAlias = Callable[[Host, Fault], End | None]
"""How a fault begins; what it returns ends it."""


def missed() -> None:
    """What a strike returns that found nothing to break: it is not counted as a fault."""


CONNECT_MS: Final = 1  # until a member knows that its connection is gone


class NetworkFaults:
    """`is_over`: the calm has begun, and the network was healed by its owner."""

    def __init__(self, world: World, nodes: Mapping[NodeId, Host], is_over: Callable[[], bool]) -> None:
        self._world = world
        self._network = world.network
        self._nodes = nodes
        self._is_over = is_over

    def strikes(self) -> dict[FaultKind, Strike]:
        return {
            FaultKind.ISOLATE: self._isolate,
            FaultKind.DEAF: lambda node, _: self._cut(self._to(node)),
            FaultKind.MUTE: lambda node, _: self._cut(self._from(node)),
            FaultKind.SPLIT: lambda _, fault: self._cut(self._across(fault, ())),
            FaultKind.BRIDGE: lambda node, fault: self._cut(self._across(fault, (node.id,))),
            FaultKind.LINK: self._link,
            FaultKind.RING: lambda _, fault: self._cut(unseen(self._shuffled(fault))),
            FaultKind.FLAPPING: self._flapping,
            FaultKind.CLOG: self._clog,
            FaultKind.SWIZZLE: self._swizzle,
            FaultKind.FILTER: self._filter,
            FaultKind.THROTTLE: self._throttle,
            FaultKind.SLOW_PAIR: self._slow_pair,
            FaultKind.CONNECTION_RESET: self._reset,
        }

    # ------------------------------------------------------------------ cuts

    def _isolate(self, node: Host, _: Fault) -> End:
        return self._cut(self._around(node))

    def _link(self, node: Host, fault: Fault) -> End:
        other = self._other(fault)
        return missed if other == node.id else self._cut([(node.id, other)])

    def _cut(self, pairs: Pairs) -> End:
        self._network.cut(pairs)
        return lambda: self._network.cut(pairs, by=-1)

    def _flapping(self, node: Host, fault: Fault) -> End:
        """Cut off and back, every `amount` ms; if the target is the leader, whoever leads by then."""
        cuts: list[End] = []
        ended: list[bool] = []

        def heal() -> None:
            for end in cuts:
                end()
            cuts.clear()

        def flip(_: Call | None = None) -> None:
            if ended or self._is_over():
                return
            if cuts:
                heal()
            else:
                leader = leader_of(self._nodes) if fault.target is Target.LEADER else None
                cuts.append(self._isolate(leader or node, fault))
            self._world.kernel.after(max(fault.amount, 1) * MS, flip)

        def end() -> None:
            ended.append(True)
            heal()

        flip()
        return end

    # ------------------------------------------------------------------ what is held

    def _clog(self, node: Host, _: Fault) -> End:
        pairs = self._around(node)
        self._network.clog(pairs)
        return lambda: self._network.unclog(pairs)

    def _swizzle(self, _: Host, fault: Fault) -> None:
        """Of half of the members each is clogged at a moment of its own, and unclogged in another order."""
        draw = self._draw(fault)
        half = max(1, fault.for_ns // 2)
        for node_id in self._shuffled(fault)[: (len(self._nodes) + 1) // 2]:
            pairs = self._around(self._nodes[node_id])
            begin, end = draw.below(min(half, 1 << 32)), half + draw.below(min(half, 1 << 32))
            self._world.kernel.after(begin, self._unless_over, partial(self._network.clog, pairs))
            self._world.kernel.after(end, self._unless_over, partial(self._network.unclog, pairs))

    def _unless_over(self, call: Call) -> None:
        if not self._is_over():
            call.payload()

    # ------------------------------------------------------------------ hardships

    def _filter(self, node: Host, fault: Fault) -> End:
        """One kind of message is lost, on all links of the target."""
        kind = MESSAGE_KINDS[fault.amount % len(MESSAGE_KINDS)]
        hardships = self._network.hardships(self._around(node))
        for hardship in hardships:
            hardship.swallowed[kind] = hardship.swallowed.get(kind, 0) + 1

        def end() -> None:
            for hardship in hardships:
                hardship.swallowed[kind] -= 1

        return end

    def _throttle(self, node: Host, fault: Fault) -> End:
        """The links of the target carry `amount` bytes a second."""
        hardships = self._network.hardships(self._around(node))
        for hardship in hardships:
            hardship.widths.append(max(1, fault.amount))

        def end() -> None:
            for hardship in hardships:
                hardship.widths.remove(max(1, fault.amount))

        return end

    def _slow_pair(self, node: Host, fault: Fault) -> End:
        """Between two members everything takes `amount` us longer."""
        other = self._other(fault)
        if other == node.id:
            return missed
        hardships = self._network.hardships([(node.id, other), (other, node.id)])
        for hardship in hardships:
            hardship.slow_ns += fault.amount * 1_000

        def end() -> None:
            for hardship in hardships:
                hardship.slow_ns -= fault.amount * 1_000

        return end

    def _reset(self, node: Host, _: Fault) -> None:
        """Both directions break, even within a message; the senders learn of it."""
        self._network.reset(self._around(node))
        for other in self._nodes.values():
            if other is not node:
                self._tell(node, other)
                self._tell(other, node)

    def _tell(self, node: Host, other: Host) -> None:
        if node.raft is not None:
            node.later(CONNECT_MS * MS, lambda raft: raft.peer_unreachable(other.id))

    # ------------------------------------------------------------------ links

    def _to(self, node: Host) -> Pairs:
        return [(other, node.id) for other in self._nodes if other != node.id]

    def _from(self, node: Host) -> Pairs:
        return [(node.id, other) for other in self._nodes if other != node.id]

    def _around(self, node: Host) -> Pairs:
        return self._to(node) + self._from(node)

    def _across(self, fault: Fault, spared: tuple[NodeId, ...]) -> Pairs:
        """Both directions between two groups; bit i of `amount` tells the group of node i."""
        return [
            (one, other)
            for one in self._nodes
            for other in self._nodes
            if (fault.amount >> one ^ fault.amount >> other) & 1 and one not in spared and other not in spared
        ]

    def _other(self, fault: Fault) -> NodeId:
        """Whom a fault between two members is about, beside its target."""
        return fault.peer or fault.amount % len(self._nodes) + 1

    def _draw(self, fault: Fault) -> Stream:
        return Stream(self._world.case.seed, "fault", fault.kind, fault.at_ns, fault.amount)

    def _shuffled(self, fault: Fault) -> list[NodeId]:
        order = list(self._nodes)
        self._draw(fault).shuffle(order)
        return order


def unseen(ring: Sequence[NodeId]) -> Pairs:
    """Links to cut so that each member of the ring hears a majority, and no two of them the same one."""
    count = len(ring)
    majority = count // 2 + 1
    heard = {
        (ring[(place + step) % count], ring[place])
        for place in range(count)
        for step in range(-((majority - 1) // 2), majority // 2 + 1)
    }
    return [(one, other) for one in ring for other in ring if one != other and (one, other) not in heard]
