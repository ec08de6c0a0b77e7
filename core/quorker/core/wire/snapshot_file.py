"""A snapshot file as bytes: a header, numbered blocks with chained checksums, and a footer that makes it complete.

    header 64 B | block header 16 B, chunk | ... | footer header 16 B, name of the snapshot

A block header is `length u32 | type u8 | zeros | sequence u32 | crc u32`; the checksum covers the rest of the block
header and the payload and is seeded with the one before. A file without its footer, or with anything behind it, is not
a snapshot.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Final
from zlib import crc32

from quorker.core.errors import ConfigurationError, CorruptionError, InvalidInput
from quorker.core.raft.messages import SnapshotMeta
from quorker.core.wire.snapshot_meta import SnapshotRecord, decode_snapshot_record, encode_snapshot_record

FORMAT: Final = 1
HEADER_BYTES: Final = 64
BLOCK_HEADER_BYTES: Final = 16
CHUNK_BYTES_MAX: Final = 4 << 20

_MAGIC: Final = b"QKSNAP\x01\n"
_HEADER: Final = struct.Struct("<8sHHIQQ16s")
_HEADER_PADDING: Final = bytes(HEADER_BYTES - _HEADER.size - 4)
_BLOCK: Final = struct.Struct("<IB3sI")
_CRC: Final = struct.Struct("<I")
_CHUNK: Final = 1
_FOOTER: Final = 2


def snapshot_name(meta: SnapshotMeta) -> str:
    return f"{meta.index:020d}-{meta.term:020d}.snap"


class SnapshotEncoder:
    """Makes the bytes of one file, piece by piece, in order: `header`, `chunk` as often as wanted, `footer`."""

    def __init__(self, meta: SnapshotMeta, cluster_id: bytes) -> None:
        self._meta = meta
        body = _HEADER.pack(_MAGIC, FORMAT, 0, 0, meta.index, meta.term, cluster_id) + _HEADER_PADDING
        self.header = body + _CRC.pack(crc32(body))
        self._crc = crc32(body)
        self._sequence = 0
        self._size = 0
        self._sha256 = hashlib.sha256()

    def chunk(self, data: bytes) -> bytes:
        """A block. Raises InvalidInput when `data` is too large for one."""
        if len(data) > CHUNK_BYTES_MAX:
            raise InvalidInput(f"a snapshot chunk of {len(data)} bytes: at most {CHUNK_BYTES_MAX}")
        self._size += len(data)
        self._sha256.update(data)
        return self._block(_CHUNK, data)

    def record(self, installed: bool = False) -> SnapshotRecord:
        """The name of the snapshot, with size and digest of what was added so far."""
        return SnapshotRecord(self._meta, self._size, self._sha256.digest(), installed)

    def footer(self) -> bytes:
        return self._block(_FOOTER, encode_snapshot_record(self.record()))

    def _block(self, kind: int, payload: bytes) -> bytes:
        head = _BLOCK.pack(len(payload), kind, bytes(3), self._sequence)
        self._sequence += 1
        self._crc = crc32(payload, crc32(head, self._crc))
        return b"".join((head, _CRC.pack(self._crc), payload))


def read_snapshot(
    read: Callable[[int, int], bytes], path: str, cluster_id: bytes, expected: SnapshotRecord
) -> Iterator[bytes]:
    """The chunks of a file, each verified before it is given out; `read(size, offset)` gives its bytes.

    Raises CorruptionError as soon as anything is not what was written, at the latest behind the last chunk, when the
    footer must name `expected` and agree with the digest of all chunks.
    """
    crc = _check_header(read(HEADER_BYTES, 0), path, cluster_id, expected.meta)
    digest, size, sequence, offset = hashlib.sha256(), 0, 0, HEADER_BYTES
    while True:
        head = read(BLOCK_HEADER_BYTES, offset)
        if len(head) < BLOCK_HEADER_BYTES:
            raise CorruptionError(path, offset + len(head), "the file ends without its footer")
        length, kind, zeros, number = _BLOCK.unpack_from(head)
        payload = read(min(length, CHUNK_BYTES_MAX), offset + BLOCK_HEADER_BYTES)
        crc = crc32(payload, crc32(head[: _BLOCK.size], crc))
        intact = len(payload) == length and _CRC.pack(crc) == head[_BLOCK.size :]
        if not intact or number != sequence or any(zeros) or kind not in (_CHUNK, _FOOTER):
            raise CorruptionError(path, offset, f"block {sequence} is not what was written")
        if kind == _FOOTER:
            break
        yield payload
        digest.update(payload)
        size, sequence, offset = size + length, sequence + 1, offset + BLOCK_HEADER_BYTES + length
    found = decode_snapshot_record(payload, expected.installed)
    if found != expected or (size, digest.digest()) != (expected.size, expected.sha256):
        raise CorruptionError(path, offset, "is not the snapshot that the log names")
    if read(1, offset + BLOCK_HEADER_BYTES + length):
        raise CorruptionError(path, offset + BLOCK_HEADER_BYTES + length, "goes on behind its footer")


def _check_header(header: bytes, path: str, cluster_id: bytes, meta: SnapshotMeta) -> int:
    if len(header) < HEADER_BYTES or _CRC.pack(crc32(header[:-4])) != header[-4:]:
        raise CorruptionError(path, 0, "the checksum of the snapshot header does not match")
    magic, written_format, _, _, index, term, owner = _HEADER.unpack_from(header)
    if magic == _MAGIC and written_format != FORMAT:
        raise ConfigurationError(f"{path} has format {written_format}; this version reads format {FORMAT}")
    if magic != _MAGIC or owner != cluster_id or (index, term) != (meta.index, meta.term):
        raise CorruptionError(path, 0, "is not the snapshot that its name says")
    return crc32(header[:-4])
