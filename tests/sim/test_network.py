"""The hostile network: what it does to messages, and that its draws depend on nothing but what a message is."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorker.sim.kernel import MS, SECOND, Call, Kernel
from quorker.sim.network import LATENCIES, Network, NetworkKnobs, latency_ns
from quorker.sim.randomness import MILLION


@dataclass
class Post:
    """A network whose deliveries are written down as (ns, item)."""

    knobs: NetworkKnobs
    seed: int = 1
    kernel: Kernel = field(default_factory=Kernel)
    arrived: list[tuple[int, object]] = field(default_factory=list[tuple[int, object]])

    def __post_init__(self) -> None:
        self.network = Network(self.kernel, self.seed, self.knobs, self._deliver)

    def _deliver(self, call: Call) -> None:
        self.arrived.append((self.kernel.now, call.payload[2]))

    def items_until(self, until_ns: int) -> list[object]:
        self.kernel.run(until=until_ns)
        return [item for _, item in self.arrived]


def test_latency_tables_rise_and_have_their_median_in_the_middle() -> None:
    for name, table in LATENCIES.items():
        delays = [latency_ns(table, 1_000_000, draw) for draw in range(0, 1 << 16, 97)]
        assert delays == sorted(delays), name
        assert latency_ns(table, 1_000_000, 1 << 15) == 1_000_000, name


def test_a_cut_is_one_way() -> None:
    post = Post(NetworkKnobs())
    post.network.cut([(1, 2)])
    assert not post.network.send(1, 2, 7, "to 2")
    assert post.network.send(2, 1, 7, "to 1")
    assert post.items_until(SECOND) == ["to 1"]


def test_cuts_are_counted() -> None:
    post = Post(NetworkKnobs())
    post.network.cut([(1, 2)])
    post.network.cut([(1, 2)])
    post.network.cut([(1, 2)], by=-1)
    assert not post.network.send(1, 2, 7, "one cut remains")


def test_what_is_under_way_outlives_a_cut() -> None:
    post = Post(NetworkKnobs())
    post.network.send(1, 2, 7, "under way")
    post.network.cut([(1, 2)])
    assert post.items_until(SECOND) == ["under way"]


def test_a_clog_holds_and_then_releases_everything() -> None:
    post = Post(NetworkKnobs())
    post.network.clog([(1, 2)])
    post.network.send(1, 2, 7, "held")
    assert post.items_until(SECOND) == []
    post.network.unclog([(1, 2)])
    assert post.items_until(2 * SECOND) == ["held"]


def test_healing_releases_and_reconnects() -> None:
    post = Post(NetworkKnobs(loss_ppm=MILLION))
    post.network.clog([(1, 2)])
    post.network.cut([(2, 1)])
    post.network.heal(NetworkKnobs())
    assert post.network.send(2, 1, 7, "again")
    assert post.items_until(SECOND) == ["again"]


def test_total_loss_and_certain_duplication() -> None:
    lossy = Post(NetworkKnobs(loss_ppm=MILLION))
    assert not any(lossy.network.send(1, 2, name, name) for name in range(50))
    doubling = Post(NetworkKnobs(duplicate_ppm=MILLION))
    doubling.network.send(1, 2, 7, "twice")
    assert doubling.items_until(SECOND) == ["twice", "twice"]


def test_messages_overtake_each_other_unless_in_order() -> None:
    for in_order in (False, True):
        post = Post(NetworkKnobs(latency="heavy", in_order=in_order))
        for name in range(100):
            post.network.send(1, 2, name, name)
        order = post.items_until(10 * SECOND)
        assert sorted(order, key=str) == sorted(range(100), key=str)
        assert (order == list(range(100))) is in_order


def test_late_messages_arrive_long_after() -> None:
    post = Post(NetworkKnobs(median_ns=MS, late_ppm=MILLION, late_max_ns=SECOND))
    for name in range(20):
        post.network.send(1, 2, name, name)
    assert len(post.items_until(2 * SECOND)) == 20
    assert post.arrived[-1][0] > 500 * MS


def test_a_message_is_dealt_the_same_fate_whatever_else_is_sent() -> None:
    """So that taking one fault out of a plan does not change every latency after it."""
    quiet, busy = (Post(NetworkKnobs(latency="exponential")) for _ in range(2))
    for other in range(100, 150):
        busy.network.send(1, 2, other, "other")
        busy.network.send(2, 1, 7, "other")
    quiet.network.send(1, 2, 7, "same")
    busy.network.send(1, 2, 7, "same")
    quiet.items_until(SECOND)
    busy.items_until(SECOND)
    assert quiet.arrived[0] in busy.arrived


def test_a_repeated_message_is_dealt_a_new_fate() -> None:
    post = Post(NetworkKnobs(latency="exponential"))
    for _ in range(5):
        post.network.send(1, 2, 7, "same")
    post.items_until(SECOND)
    assert len({at for at, _ in post.arrived}) == 5
