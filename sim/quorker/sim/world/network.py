"""The hostile network between simulated nodes: twin of `quorker.transport.peers`.

Messages are delayed, lost, duplicated, overtaken and held; they outlive the restarts of both ends. Links are directed,
so a node can be deaf without being mute; they can be slow, narrow and picky about kinds of messages, and what is under
way on them can be lost in a reset. What a message means is not known here: callers name it by a few integers, and every
draw is keyed by that name, so that no draw depends on what else is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from quorker.sim.world.kernel import SECOND, Call, Kernel
from quorker.sim.world.randomness import MILLION, key, mix

KIND_SHIFT: Final = 50  # a message's name begins with its kind
BURST_BYTES: Final = 16 << 10  # what a narrow link takes at once after a pause

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
    bytes_per_s: int = 0  # what each link carries (0: anything); what finds its queue full is dropped
    queue_bytes: int = 1 << 20
    connections: bool = False  # a reset loses what is under way
    wire_bytes: bool = False  # what arrives is read from the bytes of the real protocol


class Codec(Protocol):
    """One direction of one connection, as bytes."""

    def write(self, item: Any) -> bytes: ...

    def read(self, data: bytes, said: Any, word: int) -> None:
        """Must hear what was said; the bytes are cut in pieces as `word` tells."""
        ...

    def tear(self, data: bytes, word: int) -> None:
        """The connection ends within these bytes."""
        ...


def no_size(_: object) -> int:
    """Nothing is said about sizes: only times count."""
    return 0


@dataclass(slots=True)
class Hardship:
    """What makes a link worse without cutting it."""

    swallowed: dict[int, int] = field(
        default_factory=dict[int, int]
    )  # kind of message -> faults that want it
    slow_ns: int = 0
    widths: list[int] = field(default_factory=list[int])  # bytes per second, of every limit that lies on it
    queue_bytes: int = 0
    idle_at_ns: int = 0  # when everything sent so far has left

    def wait_ns(self, now_ns: int, size: int) -> int:
        """A token bucket: a link that was idle takes a burst at once, later messages queue. -1: the queue is full."""
        width = min(self.widths)
        idle_at_ns = max(self.idle_at_ns, now_ns - BURST_BYTES * SECOND // width)
        if (idle_at_ns - now_ns) * width // SECOND > self.queue_bytes:
            return -1
        self.idle_at_ns = idle_at_ns + size * SECOND // width
        return max(0, self.idle_at_ns - now_ns)


@dataclass(slots=True, eq=False)
class Connection:
    """What is under way on it arrives as long as it stands."""

    codec: Codec | None
    torn: bool = False  # it ended in the middle of a message


@dataclass(slots=True)
class Link:
    """One direction between two nodes. `cuts` and `clogs` count the faults that lie on it now."""

    key: int
    cuts: int = 0
    clogs: int = 0
    last_arrival_ns: int = 0
    hardship: Hardship | None = None
    connection: Connection | None = None
    held: list[tuple[int, object]] = field(default_factory=list[tuple[int, object]])
    repeats: dict[int, int] = field(default_factory=dict[int, int])


class Network:
    """Moves payloads between nodes. `deliver(call)` is called with payload `(source, target, item)`."""

    def __init__(
        self,
        kernel: Kernel,
        seed: int,
        knobs: NetworkKnobs,
        deliver: Callable[[Call], None],
        size_of: Callable[[Any], int] = no_size,
        make_codec: Callable[[], Codec] | None = None,
    ) -> None:
        """`size_of`: an item in bytes. `make_codec`: how a connection turns items into bytes and back."""
        self._kernel = kernel
        self._seed = seed
        self._deliver = deliver
        self._size_of = size_of
        self._make_codec = make_codec
        self._links: dict[tuple[int, int], Link] = {}
        self.sent = self.lost = self.duplicated = self.torn = 0
        self.on_duplicated: Callable[[int], None] = _unheard  # told the name of what arrives twice
        self.set_knobs(knobs)

    def set_knobs(self, knobs: NetworkKnobs) -> None:
        self._table = LATENCIES[knobs.latency]
        self.knobs = knobs
        self._calm = not (knobs.loss_ppm or knobs.duplicate_ppm or knobs.late_ppm)
        self._connects = knobs.connections or knobs.wire_bytes

    def send(
        self, source: int, target: int, name: int, item: object, size_delay_ns: int = 0, *, once: bool = False
    ) -> bool:
        """Hand over `item`; False when it is already known to be lost. `name`: what it is, for the draws.

        `once`: it is never repeated, as by a connection; Raft's own messages must not need that.
        """
        self.sent += 1
        link = self._links.get((source, target)) or self.link(source, target)
        repeat = link.repeats.get(name, 0)
        link.repeats[name] = repeat + 1
        word = mix(link.key ^ name ^ repeat << 56)
        if link.cuts or (word & 0xFFFFF) * MILLION >> 20 < self.knobs.loss_ppm:
            self.lost += 1
            return False
        if link.hardship is not None:
            more_ns = self._endure(link.hardship, name >> KIND_SHIFT, item)
            if more_ns < 0:
                self.lost += 1
                return False
            size_delay_ns += more_ns
        delay = size_delay_ns + latency_ns(self._table, self.knobs.median_ns, word >> 48)
        payload = (source, target, item)
        if link.clogs:
            link.held.append((delay, payload))
            return True
        if not self._calm:
            duplicated = self.duplicated
            delay = self._misbehave(link, mix(word), delay, payload, once)
            if self.duplicated != duplicated:
                self.on_duplicated(name)
        self._schedule(link, delay, payload, word >> 40 & 7)
        return True

    @property
    def is_cut(self) -> bool:
        """Whether any link is cut now."""
        return any(link.cuts for link in self._links.values())

    def link(self, source: int, target: int) -> Link:
        link = self._links.get((source, target))
        if link is None:
            link = Link(key(self._seed, "network", source, target))
            if self.knobs.bytes_per_s:
                link.hardship = Hardship(widths=[self.knobs.bytes_per_s], queue_bytes=self.knobs.queue_bytes)
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

    def hardships(self, pairs: Iterable[tuple[int, int]]) -> list[Hardship]:
        """What lies on these links, to be made worse or better."""
        found: list[Hardship] = []
        for source, target in pairs:
            link = self.link(source, target)
            if link.hardship is None:
                link.hardship = Hardship(queue_bytes=self.knobs.queue_bytes)
            found.append(link.hardship)
        return found

    def reset(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Break the connections of these links: what is under way is lost, what follows goes over new ones."""
        for source, target in pairs:
            link = self.link(source, target)
            link.connection = None
            link.held.clear()

    def heal(self, knobs: NetworkKnobs) -> None:
        """Take every fault away for good."""
        self.set_knobs(knobs)
        for link in self._links.values():
            link.cuts = link.clogs = 0
            link.hardship = None
            self._release(link)

    def _endure(self, hardship: Hardship, kind: int, item: object) -> int:
        """How much longer the message takes; -1 if it is lost."""
        if hardship.swallowed.get(kind):
            return -1
        wait_ns = hardship.wait_ns(self._kernel.now, self._size_of(item)) if hardship.widths else 0
        return wait_ns + hardship.slow_ns if wait_ns >= 0 else -1

    def _misbehave(
        self, link: Link, word: int, delay: int, payload: tuple[int, int, object], once: bool
    ) -> int:
        knobs = self.knobs
        if not once and (word & 0xFFFFF) * MILLION >> 20 < knobs.duplicate_ppm:
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
        if self._connects:
            self._kernel.after(delay, self._arrive, self._written(link, payload), 1 + rank)
        else:
            self._kernel.after(delay, self._deliver, payload, 1 + rank)

    def _written(self, link: Link, payload: Any) -> tuple[Link, Connection, Any, bytes]:
        """Hand the message to the connection of the link, which is made when there is none."""
        connection = link.connection
        if connection is None:
            make = self._make_codec if self.knobs.wire_bytes else None
            connection = link.connection = Connection(make() if make is not None else None)
        data = connection.codec.write(payload[2]) if connection.codec is not None else b""
        return link, connection, payload, data

    def _arrive(self, call: Call) -> None:
        connection: Connection
        link, connection, payload, data = call.payload
        codec, word = connection.codec, mix(link.key ^ self._kernel.now)
        if connection is link.connection:
            if codec is not None:
                codec.read(data, payload[2], word)
            call.payload = payload
            self._deliver(call)
            return
        self.lost += 1
        if codec is not None and not connection.torn:
            connection.torn = True
            self.torn += 1
            codec.tear(data, word)

    def _release(self, link: Link) -> None:
        held, link.held = link.held, []
        for delay, payload in held:
            self._schedule(link, delay, payload, 1)


def _unheard(_: int) -> None:
    """Nobody wants to know."""
