"""The hostile network: what it does to messages, and that its draws depend on nothing but what a message is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from quorker.sim.world.kernel import MS, SECOND, Call, Kernel
from quorker.sim.world.network import (
    BURST_BYTES,
    KIND_SHIFT,
    LATENCIES,
    Network,
    NetworkKnobs,
    latency_ns,
    no_size,
)
from quorker.sim.world.randomness import MILLION


@dataclass
class Post:
    """A network whose deliveries are written down as (ns, item)."""

    knobs: NetworkKnobs
    seed: int = 1
    kernel: Kernel = field(default_factory=Kernel)
    arrived: list[tuple[int, object]] = field(default_factory=list[tuple[int, object]])
    size_of: Callable[[object], int] = no_size

    def __post_init__(self) -> None:
        self.network = Network(self.kernel, self.seed, self.knobs, self._deliver, self.size_of)

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


def test_what_a_connection_carries_is_not_repeated() -> None:
    post = Post(NetworkKnobs(duplicate_ppm=MILLION))
    post.network.send(1, 2, 7, "Raft's own")
    post.network.send(1, 2, 8, "a refusal", once=True)
    assert sorted(map(str, post.items_until(SECOND))) == ["Raft's own", "Raft's own", "a refusal"]


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


def size_is_value(item: object) -> int:
    return int(str(item))


def test_a_filter_swallows_one_kind_only() -> None:
    post = Post(NetworkKnobs())
    (hardship,) = post.network.hardships([(1, 2)])
    hardship.swallowed[3] = 1
    assert not post.network.send(1, 2, 3 << KIND_SHIFT | 9, "heartbeat")
    assert post.network.send(1, 2, 4 << KIND_SHIFT | 9, "another kind")
    assert post.network.send(2, 1, 3 << KIND_SHIFT | 9, "another way")
    hardship.swallowed[3] -= 1
    assert post.network.send(1, 2, 3 << KIND_SHIFT | 9, "after it")
    assert sorted(map(str, post.items_until(SECOND))) == ["after it", "another kind", "another way"]


def test_a_narrow_link_takes_a_burst_and_then_lets_messages_wait_for_each_other() -> None:
    knobs = NetworkKnobs(latency="constant", median_ns=0, bytes_per_s=100_000)
    post = Post(knobs, size_of=size_is_value)
    post.items_until(SECOND)
    for name in range(3):
        assert post.network.send(1, 2, name, BURST_BYTES)
    post.items_until(10 * SECOND)
    step = BURST_BYTES * SECOND // 100_000
    assert [at - SECOND for at, _ in post.arrived] == [0, step, 2 * step]


def test_a_narrow_link_drops_what_finds_its_queue_full() -> None:
    post = Post(NetworkKnobs(bytes_per_s=1_000, queue_bytes=50_000), size_of=size_is_value)
    taken = [post.network.send(1, 2, name, 10_000) for name in range(10)]
    assert taken == [True] * 6 + [False] * 4  # the sixth finds the queue exactly full
    assert post.network.send(2, 1, 1, 10_000)


def test_a_slow_link_delays_its_own_direction() -> None:
    post = Post(NetworkKnobs(latency="constant", median_ns=MS))
    post.network.hardships([(1, 2)])[0].slow_ns = 50 * MS
    post.network.send(1, 2, 7, "slow")
    post.network.send(2, 1, 7, "fast")
    post.items_until(SECOND)
    assert post.arrived == [(MS, "fast"), (51 * MS, "slow")]


def test_a_reset_loses_what_is_under_way_and_what_was_held() -> None:
    post = Post(NetworkKnobs(connections=True))
    post.network.send(1, 2, 1, "under way")
    post.network.send(2, 1, 1, "other way")
    post.network.clog([(1, 2)])
    post.network.send(1, 2, 2, "held")
    post.network.reset([(1, 2)])
    post.network.unclog([(1, 2)])
    post.network.send(1, 2, 3, "over a new connection")
    assert post.items_until(SECOND) == ["other way", "over a new connection"]
    assert post.network.lost == 1


def test_healing_takes_hardships_away() -> None:
    post = Post(NetworkKnobs(bytes_per_s=1, queue_bytes=0), size_of=size_is_value)
    post.network.send(1, 2, 1, BURST_BYTES)
    assert not post.network.send(1, 2, 2, BURST_BYTES) or not post.network.send(1, 2, 3, BURST_BYTES)
    post.network.heal(NetworkKnobs())
    assert post.network.send(1, 2, 4, BURST_BYTES)
