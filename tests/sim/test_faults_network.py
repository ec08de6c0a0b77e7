"""Each kind of network fault lies on the links that it says, for as long as it says."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from quorker.sim.cases.case import Case, Fault, FaultKind, Target
from quorker.sim.cases.expansion import SHORT, expand
from quorker.sim.cases.expansion_network import KINDS
from quorker.sim.cases.options import MESSAGE_KINDS
from quorker.sim.faults.network import unseen
from quorker.sim.runs.cluster import Cluster
from quorker.sim.runs.node import Node
from quorker.sim.world.host import leader_of
from quorker.sim.world.kernel import MS
from quorker.sim.world.network import Link
from quorker.sim.world.trace import Trace


class Struck:
    """A calm cluster that one fault strikes after 500 ms, for 200 ms."""

    def __init__(
        self, kind: FaultKind, amount: int = 0, target: Target = Target.ANY, voters: int = 5
    ) -> None:
        fault = Fault(500 * MS, kind, 200 * MS, target, 2, amount)
        self.cluster = Cluster(Case(seed=3, voters=voters, plan=(fault,)), Trace())
        for node in self.cluster.nodes.values():
            node.start()
        self.cluster.nemesis.start()

    def at(self, at_ms: int) -> None:
        self.cluster.world.kernel.run(until=at_ms * MS)

    def links(self) -> dict[tuple[int, int], Link]:
        ids = list(self.cluster.nodes)
        return {
            (one, other): self.cluster.world.network.link(one, other)
            for one in ids
            for other in ids
            if one != other
        }

    def cut(self) -> set[tuple[int, int]]:
        return {pair for pair, link in self.links().items() if link.cuts}

    def clogged(self) -> set[int]:
        ids = list(self.cluster.nodes)
        return {node for node in ids if all(self.links()[node, o].clogs for o in ids if o != node)}


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_in_a_ring_everybody_hears_a_majority_and_no_two_the_same(count: int) -> None:
    ring = list(range(1, count + 1))
    cut = unseen(ring)
    heard = [frozenset(one for one in ring if (one, node) not in cut) for node in ring]
    assert {len(each) for each in heard} == {count // 2 + 1}
    assert all(one != other for one, other in combinations(heard, 2))


def test_a_ring_cut_ends() -> None:
    struck = Struck(FaultKind.RING, amount=7)
    struck.at(600)
    assert len(struck.cut()) == 10  # of 20, each of five members misses two others
    struck.at(750)
    assert struck.cut() == set()


def test_a_flapping_member_comes_and_goes() -> None:
    struck = Struck(FaultKind.FLAPPING, amount=30)
    seen: list[int] = []
    for at_ms in range(505, 800, 10):
        struck.at(at_ms)
        seen.append(len(struck.cut()))
    assert set(seen) == {0, 8}
    changes = sum(one != other for one, other in pairwise(seen))
    assert changes in (5, 6, 7)  # 200 ms of 30 ms each
    assert seen[-8:] == [0] * 8


def test_flapping_follows_the_leader() -> None:
    struck = Struck(FaultKind.FLAPPING, amount=190, target=Target.LEADER)
    struck.at(499)
    leader = leader_of(struck.cluster.nodes)
    struck.at(505)
    assert leader is not None
    assert {one for one, other in struck.cut() if other != leader.id} == {leader.id}


def test_swizzle_clogs_half_of_the_members_one_after_the_other() -> None:
    struck = Struck(FaultKind.SWIZZLE, amount=11)
    stages: list[frozenset[int]] = []
    for at_ms in range(500, 720):
        struck.at(at_ms)
        stage = frozenset(struck.clogged())
        if not stages or stages[-1] != stage:
            stages.append(stage)
    sizes = [len(stage) for stage in stages]
    assert max(sizes) == 3
    assert sizes == [0, 1, 2, 3, 2, 1, 0]


@pytest.mark.parametrize("place", range(len(MESSAGE_KINDS)))
def test_a_filter_lies_on_the_links_of_its_target(place: int) -> None:
    struck = Struck(FaultKind.FILTER, amount=place)
    struck.at(600)
    for (one, other), link in struck.links().items():
        swallowed = link.hardship.swallowed if link.hardship is not None else {}
        assert swallowed == ({MESSAGE_KINDS[place]: 1} if 2 in (one, other) else {})
    struck.at(750)
    assert not any(
        link.hardship and any(link.hardship.swallowed.values()) for link in struck.links().values()
    )


def test_a_throttle_and_a_slow_pair_lie_where_they_should_and_end() -> None:
    throttled, slow = Struck(FaultKind.THROTTLE, amount=5_000), Struck(FaultKind.SLOW_PAIR, amount=3)
    for struck in (throttled, slow):
        struck.at(600)
    narrow = {pair for pair, link in throttled.links().items() if link.hardship and link.hardship.widths}
    assert narrow == {pair for pair in throttled.links() if 2 in pair}
    late = {pair for pair, link in slow.links().items() if link.hardship and link.hardship.slow_ns == 3_000}
    assert late == {(2, 4), (4, 2)}
    for struck in (throttled, slow):
        struck.at(750)
        worse = [link.hardship for link in struck.links().values() if link.hardship is not None]
        assert not any(hardship.widths or hardship.slow_ns for hardship in worse)


def test_a_reset_is_heard_of_by_the_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []

    def later(node: Node, _delay_ns: int, _question: object) -> None:
        heard.append(node.id)

    monkeypatch.setattr(Node, "later", later)
    Struck(FaultKind.CONNECTION_RESET).at(501)
    assert sorted(heard) == [1, 2, 2, 2, 2, 3, 4, 5]


def test_seeds_draw_every_kind_and_every_knob() -> None:
    cases = [expand(seed, SHORT) for seed in range(300)]
    assert set(KINDS) <= {fault.kind for case in cases for fault in case.plan}
    assert any(case.network.bytes_per_s for case in cases)
    assert any(case.network.wire_bytes for case in cases)
    for case in cases:
        resets = any(fault.kind is FaultKind.CONNECTION_RESET for fault in case.plan)
        assert case.network.connections is resets
        assert list(case.plan) == sorted(case.plan, key=lambda fault: fault.at_ns)
