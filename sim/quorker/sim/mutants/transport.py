"""Bugs of what members say to each other: frames, their codec, and connections that end within a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Final

from quorker.core.raft.messages import Entry, Heartbeat, VoteResponse
from quorker.core.wire import raft_codec
from quorker.core.wire.frames import HEADER_BYTES, Frame, FrameReader
from quorker.core.wire.raft_codec import RaftEncoder
from quorker.sim.mutants.cases import breaking
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.world.kernel import Call
from quorker.sim.world.network import Connection, Network

WIRE: Final = ("wire",)


@bug(
    "The length that a frame announces is not checked: one that was cut makes the reader wait for gigabytes.",
    known="every protocol whose frames have no limit",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def frame_lengths_are_not_checked(patch: Patch) -> None:
    patch.replace(FrameReader, "_check_length", always(None))


@bug(
    "The checksum of a frame is not checked: bytes that follow a broken message complete it.",
    known="readers that survive a reconnect",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def frame_checksums_are_not_checked(patch: Patch) -> None:
    def unchecked(_: FrameReader, frame: memoryview) -> memoryview:
        return frame[HEADER_BYTES:]

    patch.replace(FrameReader, "_open", unchecked)


@bug(
    "A new connection goes on with the reader of the old one, and the part of a frame that it held.",
    known="readers that survive a reconnect",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def partial_frames_outlive_their_connection(patch: Patch) -> None:
    def reset(self: Network, pairs: Iterable[tuple[int, int]]) -> None:
        links = [self.link(*pair) for pair in pairs]
        before = [link.connection for link in links]
        for link, connection in zip(links, before, strict=True):
            link.held.clear()
            link.connection = Connection(connection.codec) if connection is not None else None

    patch.replace(Network, "reset", reset)


@bug(
    "Only the first frame of what arrives at once is read.",
    known="a recv() that is taken for a message",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def a_read_is_taken_for_a_frame(patch: Patch) -> None:
    def feed(self: FrameReader, data: bytes) -> list[Frame]:
        return read(self, data)[:1]

    read: Callable[[FrameReader, bytes], list[Frame]] = patch.replace(FrameReader, "feed", feed)


@bug(
    "Two fields of a heartbeat change places on the wire.",
    known="positional codecs",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def heartbeats_are_written_in_another_order(patch: Patch) -> None:
    swapped = attrgetter("sender", "to", "term", "read_round", "commit_index", "session")
    patch.replace_item(raft_codec.__dict__["_PLAIN_FIELDS"], Heartbeat, swapped)


@bug(
    "The answer to the question before an election is read as a vote.",
    known="a flag that was added to one side of a protocol",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def pre_votes_are_written_as_votes(patch: Patch) -> None:
    def fields_of(message: VoteResponse) -> tuple[Any, ...]:
        values = list(fields(message))
        values[4] = False
        return tuple(values)

    fields = patch.replace_item(raft_codec.__dict__["_PLAIN_FIELDS"], VoteResponse, fields_of)


@bug(
    "Bytes of entries that were encoded before are used again for as many others.",
    known="caches of encoded batches",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def encoded_entries_are_mistaken_for_others(patch: Patch) -> None:
    def pack_entries(self: Any, entries: tuple[Entry, ...]) -> bytes:
        if len(entries) == len(self._entries):
            entries = self._entries
        packed: bytes = pack(self, entries)
        return packed

    pack = patch.replace(RaftEncoder, "_pack_entries", pack_entries)


@bug(
    "Every entry arrives as a plain one: changes of the membership are bytes for the machine.",
    oracles=WIRE,
    budget=30,
    case=breaking,
)
def kinds_of_entries_are_lost(patch: Patch) -> None:
    def plain(term: int, index: int, _: int, data: bytes) -> Entry:
        return Entry(term, index, data)

    patch.replace(raft_codec, "_entry", plain)


@bug(
    "What was under way on a connection that has ended is delivered all the same.",
    equivalent="Raft counts on no connection: terms, replication sessions, rounds of reads and lives name what an answer "
    "belongs to, and without real bytes the network delivers such messages anyway.",
    case=breaking,
)
def messages_outlive_their_connection(patch: Patch) -> None:
    def arrive(self: Any, call: Call) -> None:
        call.payload = call.payload[2]
        self._deliver(call)

    patch.replace(Network, "_arrive", arrive)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
