"""Frames: how a stream of bytes becomes messages of known kind and bounded size, and back.

A frame is `length u32 | kind u8 | crc32 u32 | payload | tag` (little endian). `length` counts payload and tag; the
checksum covers length, kind, payload and tag. The tag is there once a shared secret has proved both sides: HMAC-SHA256
over a running number, length, kind and payload, cut to 16 bytes, with one key per direction, so that a frame can be
neither changed, repeated, left out, reordered nor sent back. What a payload means must not live here.
"""

from __future__ import annotations

import hmac
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from quorker.core.errors import InvalidInput, ProtocolError

Frame: TypeAlias = tuple[int, memoryview]
"""(kind, payload). The memory stays valid as long as somebody holds it."""

Outgoing: TypeAlias = tuple[int, bytes]
"""(kind, payload) on its way out."""

_HEAD: Final = struct.Struct("<IB")
_CRC: Final = struct.Struct("<I")
_SEQUENCE: Final = struct.Struct("<Q")
HEADER_BYTES: Final = _HEAD.size + _CRC.size
TAG_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Every bound of the network layer: sizes in bytes, times in milliseconds."""

    frame_unauthenticated_bytes: int = 4 << 10
    frame_client_bytes: int = 1 << 20
    frame_peer_bytes: int = 4 << 20
    frame_answer_bytes: int = 16 << 20  # from a member to its client
    snapshot_chunk_bytes: int = 256 << 10
    queued_messages_max: int = 256  # per peer, beyond what the kernel took
    queued_bytes_max: int = 16 << 20
    client_queued_messages_max: int = 4_096  # per client; one that lets more pile up is disconnected
    client_queued_bytes_max: int = 16 << 20
    unauthenticated_max: int = 64
    unauthenticated_per_address_max: int = 8
    handshake_ms: int = 5_000
    connections_max: int = 1_024
    peer_reserve: int = 64  # of `connections_max`: clients cannot take these
    read_idle_ms: int = 15_000
    write_stall_ms: int = 10_000
    ping_ms: int = 5_000


class FrameTag:
    """Makes the tags of one direction of one connection; the running number is never sent, only counted."""

    __slots__ = ("_keyed", "_sequence")

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha256")
        self._sequence = 0

    def next(self, head: bytes | memoryview, payload: bytes | memoryview) -> bytes:
        """The tag of the next frame of this direction."""
        mac = self._keyed.copy()
        mac.update(_SEQUENCE.pack(self._sequence))
        mac.update(head)
        mac.update(payload)
        self._sequence += 1
        return mac.digest()[:TAG_BYTES]


class FrameWriter:
    """Turns payloads into frames, in the order in which they will be sent."""

    __slots__ = ("_tag", "limit")

    def __init__(self, limit: int, tag_key: bytes | None = None) -> None:
        self.limit = limit
        self._tag = FrameTag(tag_key) if tag_key is not None else None

    def join(self, frames: Iterable[Outgoing]) -> bytes:
        """All frames in one piece. Raises `InvalidInput` before anything is counted when one payload is too large."""
        frames = list(frames)
        for kind, payload in frames:
            if len(payload) > self.limit:
                raise InvalidInput(
                    f"frame of kind {kind} has {len(payload)} bytes, at most {self.limit} may be sent"
                )
        parts: list[bytes] = []
        for kind, payload in frames:
            self._append(parts, kind, payload)
        return b"".join(parts)

    def frame(self, kind: int, payload: bytes) -> bytes:
        return self.join(((kind, payload),))

    def _append(self, parts: list[bytes], kind: int, payload: bytes) -> None:
        if self._tag is None:
            head = _HEAD.pack(len(payload), kind)
            parts += (head, _CRC.pack(zlib.crc32(payload, zlib.crc32(head))), payload)
            return
        head = _HEAD.pack(len(payload) + TAG_BYTES, kind)
        tag = self._tag.next(head, payload)
        parts += (head, _CRC.pack(zlib.crc32(tag, zlib.crc32(payload, zlib.crc32(head)))), payload, tag)


class FrameReader:
    """Cuts a stream into frames. Keeps at most one incomplete frame, whose length was checked first.

    After a `ProtocolError` the stream cannot be trusted any more: the same error is raised again and again.
    """

    __slots__ = ("_at", "_partial", "_source", "_tag", "limit")

    def __init__(self, limit: int, tag_key: bytes | None = None) -> None:
        self.limit = limit
        self._tag = FrameTag(tag_key) if tag_key is not None else None
        self._source = b""
        self._at = 0
        self._partial = bytearray()

    def secure(self, limit: int, tag_key: bytes | None) -> None:
        """The handshake is over: what follows, also what has arrived already, is read with these."""
        self.limit = limit
        self._tag = FrameTag(tag_key) if tag_key is not None else None

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that is complete now."""
        self.push(data)
        return list(iter(self.pull, None))

    def push(self, data: bytes) -> None:
        rest = len(self._source) - self._at
        self._source = self._source[self._at :] + data if rest else data
        self._at = 0

    def pull(self) -> Frame | None:
        """The next complete frame, or None."""
        if self._partial:
            return self._pull_split()
        source, start = self._source, self._at
        available = len(source) - start
        if available < HEADER_BYTES:
            self._fill_partial(HEADER_BYTES)
            return None
        length, kind = _HEAD.unpack_from(source, start)
        self._check_length(length, kind)
        end = start + HEADER_BYTES + length
        if end > len(source):
            self._fill_partial(HEADER_BYTES + length)
            return None
        payload = self._open(memoryview(source)[start:end])
        self._at = end
        return kind, payload

    def _pull_split(self) -> Frame | None:
        """The next frame is the one whose beginning came with earlier data."""
        partial = self._partial
        if not self._fill_partial(HEADER_BYTES):
            return None
        length, kind = _HEAD.unpack_from(partial)
        self._check_length(length, kind)
        if not self._fill_partial(HEADER_BYTES + length):
            return None
        payload = self._open(memoryview(bytes(partial)))
        partial.clear()
        return kind, payload

    def _fill_partial(self, size: int) -> bool:
        """Move bytes over until the incomplete frame has `size`; True when it has."""
        missing = size - len(self._partial)
        if missing > 0:
            piece = self._source[self._at : self._at + missing]
            self._partial += piece
            self._at += len(piece)
        return len(self._partial) >= size

    def _check_length(self, length: int, kind: int) -> None:
        overhead = TAG_BYTES if self._tag is not None else 0
        if length < overhead:
            raise ProtocolError(
                f"frame of kind {kind} announces {length} bytes, its tag alone has {overhead}"
            )
        if length - overhead > self.limit:
            raise ProtocolError(
                f"frame of kind {kind} announces {length - overhead} bytes, at most {self.limit} fit"
            )

    def _open(self, frame: memoryview) -> memoryview:
        head, body = frame[: _HEAD.size], frame[HEADER_BYTES:]
        (checksum,) = _CRC.unpack_from(frame, _HEAD.size)
        if zlib.crc32(body, zlib.crc32(head)) != checksum:
            raise ProtocolError(
                "a frame's checksum is wrong: the bytes were damaged, or this is another protocol"
            )
        if self._tag is None:
            return body
        payload, tag = body[:-TAG_BYTES], body[-TAG_BYTES:]
        if not hmac.compare_digest(self._tag.next(head, payload), tag):
            self._tag = _NEVER
            raise ProtocolError("a frame's tag is wrong: it was changed, repeated or left out on its way")
        return payload


class _NeverTag(FrameTag):
    """Matches no frame: the tag of a stream that was caught lying."""

    __slots__ = ()

    def next(self, head: bytes | memoryview, payload: bytes | memoryview) -> bytes:
        return b""


_NEVER: Final = _NeverTag(b"")
