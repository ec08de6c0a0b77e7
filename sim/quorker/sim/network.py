"""The hostile network between simulated nodes: twin of `quorker.transport.peers`.

Messages are delayed, lost, duplicated, overtaken and held; they outlive the restarts of both ends. Links are directed,
so a node can be deaf without being mute. What a message means is not known here: callers name it by a few integers,
and every draw is keyed by that name, so that no draw depends on what else is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from quorker.sim.kernel import Call, Kernel
from quorker.sim.randomness import MILLION, key, mix

# Quantiles in thousandths of the median, at 0/32 .. 32/32: integers, because logarithms differ between platforms.
LATENCIES: Final[dict[str, tuple[int, ...]]] = {
    "constant": (1000,) * 33,
    "uniform": tuple(1000 * step // 16 for step in range(33)),
    "normal": (
        357, 475, 541, 590, 631, 668, 701, 733, 764, 793, 822, 851, 880, 909, 939, 969, 1000,
        1032, 1065, 1100, 1136, 1175, 1216, 1261, 1310, 1364, 1426, 1498, 1584, 1694, 1847, 2107, 2802,
    ),
    "exponential": (
        7, 46, 93, 142, 193, 245, 300, 356, 415, 476, 541, 608, 678, 752, 830, 913, 1000,
        1093, 1193, 1300, 1415, 1541, 1678, 1830, 2000, 2193, 2415, 2678, 3000, 3415, 4000, 5000, 8966,
    ),
    "heavy": (
        76, 155, 216, 268, 317, 364, 412, 460, 509, 560, 613, 669, 727, 789, 854, 925, 1000,
        1082, 1170, 1268, 1375, 1495, 1630, 1784, 1963, 2174, 2428, 2746, 3159, 3736, 4637, 9000, 40000,
    ),
}  # fmt: skip


def latency_ns(table: tuple[int, ...], median_ns: int, draw16: int) -> int:
    """The delay at quantile `draw16` / 65536 of the distribution."""
    cell, rest = draw16 >> 11, draw16 & 2047
    low = table[cell]
    return median_ns * (low + ((table[cell + 1] - low) * rest >> 11)) // 1000


@dataclass(frozen=True, slots=True)
class NetworkKnobs:
    """How bad the network is while the run is in its chaotic phase. Chances are per million messages."""

    latency: str = "uniform"
    median_ns: int = 1_000_000
    loss_ppm: int = 0
    duplicate_ppm: int = 0
    late_ppm: int = 0  # held back, and delivered up to `late_max_ns` later
    late_max_ns: int = 0
    in_order: bool = False  # as over one TCP connection: a message never overtakes an earlier one of its link


@dataclass(slots=True)
class Link:
    """One direction between two nodes. `cuts` and `clogs` count the faults that lie on it now."""

    key: int
    cuts: int = 0
    clogs: int = 0
    last_arrival_ns: int = 0
    held: list[tuple[int, object]] = field(default_factory=list[tuple[int, object]])
    repeats: dict[int, int] = field(default_factory=dict[int, int])


class Network:
    """Moves payloads between nodes. `deliver(call)` is called with payload `(source, target, item)`."""

    def __init__(
        self, kernel: Kernel, seed: int, knobs: NetworkKnobs, deliver: Callable[[Call], None]
    ) -> None:
        self._kernel = kernel
        self._seed = seed
        self._deliver = deliver
        self._links: dict[tuple[int, int], Link] = {}
        self.sent = self.lost = self.duplicated = 0
        self.set_knobs(knobs)

    def set_knobs(self, knobs: NetworkKnobs) -> None:
        self._table = LATENCIES[knobs.latency]
        self.knobs = knobs
        self._calm = not (knobs.loss_ppm or knobs.duplicate_ppm or knobs.late_ppm)

    def send(self, source: int, target: int, name: int, item: object, size_delay_ns: int = 0) -> bool:
        """Hand over `item`; False when it is already known to be lost. `name`: what it is, for the draws."""
        self.sent += 1
        link = self._links.get((source, target)) or self.link(source, target)
        repeat = link.repeats.get(name, 0)
        link.repeats[name] = repeat + 1
        word = mix(link.key ^ name ^ repeat << 56)
        if link.cuts or (word & 0xFFFFF) * MILLION >> 20 < self.knobs.loss_ppm:
            self.lost += 1
            return False
        delay = size_delay_ns + latency_ns(self._table, self.knobs.median_ns, word >> 48)
        payload = (source, target, item)
        if link.clogs:
            link.held.append((delay, payload))
            return True
        if not self._calm:
            delay = self._misbehave(link, mix(word), delay, payload)
        self._schedule(link, delay, payload, word >> 40 & 7)
        return True

    def link(self, source: int, target: int) -> Link:
        link = self._links.get((source, target))
        if link is None:
            link = Link(key(self._seed, "network", source, target))
            self._links[source, target] = link
        return link

    def cut(self, pairs: Iterable[tuple[int, int]], by: int = 1) -> None:
        """Add (or, with -1, take away) a cut on each directed link. What is under way still arrives."""
        for source, target in pairs:
            self.link(source, target).cuts += by

    def clog(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Hold everything sent on these links until they are unclogged."""
        for source, target in pairs:
            self.link(source, target).clogs += 1

    def unclog(self, pairs: Iterable[tuple[int, int]]) -> None:
        for source, target in pairs:
            link = self.link(source, target)
            link.clogs -= 1
            if not link.clogs:
                self._release(link)

    def heal(self, knobs: NetworkKnobs) -> None:
        """Take every fault away for good."""
        self.set_knobs(knobs)
        for link in self._links.values():
            link.cuts = link.clogs = 0
            self._release(link)

    def _misbehave(self, link: Link, word: int, delay: int, payload: tuple[int, int, object]) -> int:
        knobs = self.knobs
        if (word & 0xFFFFF) * MILLION >> 20 < knobs.duplicate_ppm:
            self.duplicated += 1
            again = latency_ns(self._table, 4 * knobs.median_ns, word >> 48)
            self._schedule(link, again, payload, word >> 20 & 7)
        if (word >> 24 & 0xFFFFF) * MILLION >> 20 < knobs.late_ppm:
            delay += (word >> 44) * knobs.late_max_ns >> 20
        return delay

    def _schedule(self, link: Link, delay: int, payload: object, rank: int) -> None:
        if self.knobs.in_order:
            arrival = max(self._kernel.now + delay, link.last_arrival_ns)
            delay, rank = arrival - self._kernel.now, 1
            link.last_arrival_ns = arrival
        self._kernel.after(delay, self._deliver, payload, 1 + rank)

    def _release(self, link: Link) -> None:
        held, link.held = link.held, []
        for delay, payload in held:
            self._schedule(link, delay, payload, 1)
