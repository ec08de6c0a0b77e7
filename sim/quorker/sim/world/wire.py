"""What members say to each other as the very bytes of the real protocol: a codec and a framer for each connection.

In runs with `wire_bytes` every message is encoded and framed by its sender, arrives in pieces, and what the receiver
makes of the bytes must equal what was said. Which messages arrive at all is decided in `network`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, cast

from quorker.core.errors import ProtocolError
from quorker.core.raft.messages import NOBODY, InstallSnapshot, NodeId
from quorker.core.wire.frames import Frame, FrameReader, FrameWriter, WireLimits
from quorker.core.wire.requests import (
    Encoder,
    PeerMessage,
    Propose,
    ProposeRefused,
    Role,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    decode,
)
from quorker.sim.oracles.checks import Violation

LIMITS: Final = WireLimits()
TRANSFER: Final = 1
ORACLE: Final = "wire"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A group of commands on its way to the leader."""

    origin: NodeId
    group: bytes


@dataclass(frozen=True, slots=True)
class ForwardRefused:
    """It was not appended, and will not be."""

    session_id: int
    seqs: tuple[int, ...]
    reason: str  # of a `DropReason`
    retry_after_ms: int


def records_of(message: Any, state: Any) -> list[PeerMessage]:
    """What the real protocol says for this message; `state` is the content of the snapshot that it names."""
    match message:
        case Forwarded(_, group):
            return [Propose(Role.CLIENT, (group,))]
        case ForwardRefused(session_id, seqs, reason, retry_after_ms):
            return [ProposeRefused(session_id, seqs, reason, NOBODY, retry_after_ms)]
        case InstallSnapshot():
            return list(_snapshot(message, content_of(state)))
        case _:
            return [cast("PeerMessage", message)]


def content_of(state: Any) -> bytes:
    """The bytes of a snapshot; bare members replicate a digest, which is a number."""
    return state if isinstance(state, bytes) else b"%d" % state


def _snapshot(message: InstallSnapshot, content: bytes) -> Iterator[PeerMessage]:
    yield SnapshotBegin(TRANSFER, message)
    step = LIMITS.snapshot_chunk_bytes
    for offset in range(0, len(content), step):
        yield SnapshotChunk(TRANSFER, offset, content[offset : offset + step])
    yield SnapshotEnd(TRANSFER, len(content), sha256(content).digest())


class Wire:
    """One direction of one connection."""

    __slots__ = ("_encoder", "_reader", "_writer")

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._writer = FrameWriter(LIMITS.frame_peer_bytes)
        self._reader = FrameReader(LIMITS.frame_peer_bytes)

    def write(self, item: tuple[Any, Any]) -> bytes:
        """The bytes that say this message."""
        return self._writer.join(self._encoder.encode(record) for record in records_of(*item))

    def read(self, data: bytes, said: tuple[Any, Any], word: int) -> None:
        """The bytes arrive in pieces, cut at places that `word` tells, and must say the same again."""
        expected = records_of(*said)
        try:
            heard = self._heard(data, word)
        except ProtocolError as error:
            raise Violation(ORACLE, f"{expected} was refused: {error}") from error
        if heard != expected:
            raise Violation(ORACLE, f"{expected} was heard as {heard}")

    def _heard(self, data: bytes, word: int) -> list[Any]:
        frames: list[Frame] = []
        for piece in pieces(data, word):
            frames += self._reader.feed(piece)
        return [decode(kind, payload) for kind, payload in frames]

    def tear(self, data: bytes, word: int) -> None:
        """The connection ends within these bytes: no part of a frame may pass for a message."""
        whole = len(self._whole_frames(data))
        torn = data[: word % len(data)]
        if len(self._reader.feed(torn)) >= whole:
            raise Violation(ORACLE, f"{len(torn)} of {len(data)} bytes pass for all of it")
        try:
            self._reader.feed(bytes(byte ^ 0xFF for byte in data[len(torn) :]))  # not the rest of it
        except ProtocolError:
            return
        raise Violation(ORACLE, "a frame was completed by bytes of another connection")

    def _whole_frames(self, data: bytes) -> list[Frame]:
        return FrameReader(LIMITS.frame_peer_bytes).feed(data)


def pieces(data: bytes, word: int) -> Iterator[bytes]:
    """Up to four pieces, any of them empty or a single byte."""
    cuts = sorted((word >> shift) % (len(data) + 1) for shift in (0, 20, 40))
    for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        yield data[start:end]


def size_of(item: tuple[Any, Any]) -> int:
    """About how many bytes a message takes, without encoding it."""
    message, state = item
    if type(message) is InstallSnapshot:
        return HEAD_BYTES + len(content_of(state))
    if type(message) is Forwarded:
        return HEAD_BYTES + len(message.group)
    entries = getattr(message, "entries", ())
    return HEAD_BYTES + sum(ENTRY_BYTES + len(entry.data) for entry in entries)


HEAD_BYTES: Final = 32
ENTRY_BYTES: Final = 12
