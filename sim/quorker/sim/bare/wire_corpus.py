"""Hostile bytes for whoever listens: streams that are almost, or not at all, what the protocol says.

One seed gives one list of streams, for the pure parsers and for real sockets alike. No I/O here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from quorker.core.prng import uniform
from quorker.core.wire.frames import FrameWriter, Outgoing
from quorker.core.wire.records import pack

FOREIGN: Final = (
    b"",
    b"\x00",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS ClientHello
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"HFR1" + struct.pack("<i", 2**31 - 1),
    b"\xff" * 4096,
    b"\x00" * 4096,
)
BOMBS: Final = (
    b"\x90" * 4000,  # arrays side by side: only the first is read, the rest is trailing
    b"\x91" * 3999 + b"\xc0",  # nested
    b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xd6\xff" + bytes(4),  # a timestamp
    b"\xc7\x00\x05",  # an empty extension
    b"\x82\xa1a\x01\xa1a\x02",  # a key twice
    b"\x81\x01\x01",
    b"\xcb\x7f\xf8" + bytes(6),  # NaN
    b"\xa1\xff",  # not UTF-8
    b"\xc1",
)


def raw_frame(kind: int, payload: bytes, *, length: int | None = None, checksum: int | None = None) -> bytes:
    """A frame without a tag whose head may lie."""
    head = struct.pack("<IB", len(payload) if length is None else length, kind)
    crc = zlib.crc32(payload, zlib.crc32(head)) if checksum is None else checksum
    return head + struct.pack("<I", crc) + payload


class WireCorpus:
    """Streams made from `seed` and from `valid` frames."""

    def __init__(self, seed: int, valid: list[Outgoing]) -> None:
        self._seed = seed
        self._counter = 0
        self._valid = valid

    def _draw(self, low: int, high: int) -> int:
        self._counter += 1
        return uniform(self._seed, self._counter, low, high)

    def streams(self, count: int) -> Iterator[bytes]:
        """First everything that is known to hurt, then `count` mutations of valid streams."""
        yield from FOREIGN
        for kind, _ in self._valid:
            yield from (raw_frame(kind, bomb) for bomb in BOMBS)
            yield raw_frame(kind, b"", length=2**32 - 1)
            yield raw_frame(kind, b"x", checksum=0)
            yield raw_frame(kind, pack([]))
            yield raw_frame(kind, pack([None] * 64))
        mutations: tuple[Callable[[], bytes], ...] = (
            self._flipped,
            self._cut,
            self._shuffled,
            self._payload_flipped,
            self._noise,
        )
        for number in range(count):
            yield mutations[number % len(mutations)]()

    def _whole(self) -> bytes:
        return FrameWriter(1 << 20).join(self._valid)

    def _flipped(self) -> bytes:
        data = bytearray(self._whole())
        for _ in range(self._draw(1, 4)):
            data[self._draw(0, len(data) - 1)] ^= 1 << self._draw(0, 7)
        return bytes(data)

    def _cut(self) -> bytes:
        data = self._whole()
        return data[: self._draw(0, len(data) - 1)]

    def _shuffled(self) -> bytes:
        """Whole frames, in any order, some twice."""
        frames = [self._valid[self._draw(0, len(self._valid) - 1)] for _ in range(self._draw(1, 6))]
        return FrameWriter(1 << 20).join(frames)

    def _payload_flipped(self) -> bytes:
        """A frame whose checksum is right and whose content is not."""
        kind, payload = self._valid[self._draw(0, len(self._valid) - 1)]
        data = bytearray(payload or b"\x00")
        for _ in range(self._draw(1, 3)):
            data[self._draw(0, len(data) - 1)] = self._draw(0, 255)
        return raw_frame(kind, bytes(data))

    def _noise(self) -> bytes:
        return bytes(self._draw(0, 255) for _ in range(self._draw(0, 200)))
