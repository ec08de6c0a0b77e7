"""The write-ahead log as bytes: segment headers, records, batches; how they are made and how one record is read.

A segment has a declared size and is zero behind its last record. A record is

    length u32 | type u8 | version u8 | flags u16 | batch u64 | index u64 | payload_crc u32 | header_crc u32 | payload | zeros

at a multiple of 8 (little endian). `header_crc` is seeded with the segment and the position, so that a header can be
recognised standing alone, but nowhere else; `payload_crc` is seeded with the `header_crc` of the record before, so
that records form one chain from the segment header on. One batch is some records and the COMMIT that closes them and
carries the hard state; a SEAL behind it says that its fsync returned. How far to believe a log is decided in
`recovery`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

from quorker.core.errors import ConfigurationError, CorruptionError
from quorker.core.raft.messages import Entry, HardState
from quorker.core.wire.identity import Identity
from quorker.core.wire.snapshot_meta import SnapshotRecord, encode_snapshot_record

FORMAT: Final = 1
SEGMENT_HEADER_BYTES: Final = 128
RECORD_HEADER_BYTES: Final = 32
SEAL_BYTES: Final = RECORD_HEADER_BYTES
ALIGNMENT: Final = 8

ENTRY: Final = 1  # flags: kind of the entry; payload: term, data
COMMIT: Final = (
    2  # index: where its batch begins in the file; payload: record count, last log index, hard state
)
SEAL: Final = 3  # the batch of this number is durable; no payload
TRUNCATE: Final = 4  # every entry from `index` on is gone
SNAPSHOT: Final = 5  # flags: 1 when it took the place of the log; payload: snapshot_meta
TYPES: Final = frozenset({ENTRY, COMMIT, SEAL, TRUNCATE, SNAPSHOT})

_VERSION: Final = 1
_MAGIC: Final = b"QKWAL\x00\x01\n"
_SEGMENT: Final = struct.Struct("<8sHHI16sQ16sQQQQQI")
_SEGMENT_PADDING: Final = bytes(SEGMENT_HEADER_BYTES - _SEGMENT.size - 4)
_RECORD: Final = struct.Struct("<IBBHQQI")
_RECORD_WITH_CRC: Final = struct.Struct("<IBBHQQII")
_CRC: Final = struct.Struct("<I")
_TERM: Final = struct.Struct("<Q")
COMMIT_PAYLOAD: Final = struct.Struct("<QQQQQ")  # records, last_index, term, voted_for, commit_index
_PADDING: Final = tuple(bytes(-length % ALIGNMENT) for length in range(ALIGNMENT))
_MASK: Final = 0xFFFFFFFF
_NAME: Final = re.compile(r"(\d{20})-([0-9a-f]{16})\.wal")


@dataclass(frozen=True, slots=True)
class Truncate:
    """Every entry with an index >= `index` is gone."""

    index: int


Record: TypeAlias = Entry | Truncate | SnapshotRecord


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment knows of itself and of where the one before it ends.

    `next_index`: what the log would have appended next when the segment began. `previous_*`: number of the last batch
    before this segment, where it ended and the chain there; 0 for the first segment. `cut`: bytes behind
    `previous_end` are left over from an unclean stop and mean nothing.
    """

    segment: int
    next_index: int
    size: int
    previous_batch: int = 0
    previous_end: int = 0
    previous_chain: int = 0
    cut: bool = False


class RecordHeader(NamedTuple):
    """A header whose checksum holds at the place where it was found. `chain` is that checksum.

    `position` is the log index, or for a COMMIT the offset at which its batch begins.
    """

    length: int
    type: int
    version: int
    flags: int
    batch: int
    position: int
    payload_crc: int
    chain: int


def segment_name(segment: int, next_index: int) -> str:
    return f"{next_index:020d}-{segment:016x}.wal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """(segment, next_index), or None when this is not the name of a segment."""
    match = _NAME.fullmatch(name)
    return (int(match[2], 16), int(match[1])) if match else None


def segment_seed(segment: int, dir_uuid: bytes) -> int:
    """What makes the record headers of one segment of one directory unlike all others."""
    return crc32(segment.to_bytes(8, "little"), crc32(dir_uuid))


def encode_segment_header(header: SegmentHeader, owner: Identity) -> bytes:
    body = _SEGMENT.pack(
        _MAGIC,
        FORMAT,
        header.cut,
        0,
        owner.cluster_id,
        owner.node_id,
        owner.dir_uuid,
        header.segment,
        header.next_index,
        header.size,
        header.previous_batch,
        header.previous_end,
        header.previous_chain,
    )
    return (body := body + _SEGMENT_PADDING) + _CRC.pack(crc32(body))


def first_chain(header: bytes) -> int:
    """The chain value with which the first record of a segment begins.

    Without the stored checksum: the checksum of anything that ends with its own checksum is always the same.
    """
    return crc32(header[:-4])


def decode_segment_header(data: bytes, owner: Identity, path: str) -> SegmentHeader:
    """Raises CorruptionError: a segment gets its name only after its header was durable, so it is never torn."""
    header = data[:SEGMENT_HEADER_BYTES]
    if len(header) < SEGMENT_HEADER_BYTES:
        raise CorruptionError(path, len(header), "the file ends inside its header")
    if _CRC.pack(crc32(header[:-4])) != header[-4:]:
        raise CorruptionError(path, 0, "the checksum of the segment header does not match")
    magic, written_format, cut, _, cluster_id, node_id, dir_uuid, *numbers = _SEGMENT.unpack_from(header)
    if magic != _MAGIC:
        raise CorruptionError(path, 0, "is not a log segment")
    if written_format != FORMAT:
        raise ConfigurationError(f"{path} has format {written_format}; this version reads format {FORMAT}")
    if (cluster_id, node_id, dir_uuid) != (owner.cluster_id, owner.node_id, owner.dir_uuid):
        raise CorruptionError(path, 0, "belongs to another data directory")
    segment, next_index, size, batch, end, chain = numbers
    return SegmentHeader(segment, next_index, size, batch, end, chain, bool(cut))


def encode_batch(
    seed: int,
    chain: int,
    offset: int,
    batch: int,
    records: Sequence[Record],
    last_index: int,
    hard_state: HardState,
) -> tuple[bytes, int]:
    """The bytes of a batch that begins at `offset`, and the chain value behind it."""
    pieces: list[bytes] = []
    place = offset
    for record in records:
        if isinstance(record, Entry):
            head, index, data = _TERM.pack(record.term), record.index, record.data
            kind, flags = ENTRY, int(record.kind)
        else:
            kind, flags, index, data = _rare_record(record)
            head = b""
        length = len(head) + len(data)
        body = _RECORD.pack(length, kind, _VERSION, flags, batch, index, crc32(data, crc32(head, chain)))
        chain = crc32(body, seed + place & _MASK)
        padding = _PADDING[length % ALIGNMENT]
        pieces += (body, _CRC.pack(chain), head, data, padding)
        place += RECORD_HEADER_BYTES + length + len(padding)
    closing = COMMIT_PAYLOAD.pack(
        len(records), last_index, hard_state.term, hard_state.voted_for, hard_state.commit_index
    )
    body = _RECORD.pack(len(closing), COMMIT, _VERSION, 0, batch, offset, crc32(closing, chain))
    chain = crc32(body, seed + place & _MASK)
    pieces += (body, _CRC.pack(chain), closing)
    return b"".join(pieces), chain


def _rare_record(record: Truncate | SnapshotRecord) -> tuple[int, int, int, bytes]:
    if isinstance(record, Truncate):
        return TRUNCATE, 0, record.index, b""
    return SNAPSHOT, int(record.installed), record.meta.index, encode_snapshot_record(record)


def encode_seal(seed: int, chain: int, offset: int, batch: int, last_index: int) -> tuple[bytes, int]:
    """The bytes of the SEAL of `batch`, and the chain value behind it."""
    body = _RECORD.pack(0, SEAL, _VERSION, 0, batch, last_index, crc32(b"", chain))
    chain = crc32(body, seed + offset & _MASK)
    return body + _CRC.pack(chain), chain


def header_at(data: bytes, offset: int, seed: int) -> RecordHeader | None:
    """The record header that was written at exactly this place of this segment, if one was. Its payload may be bad."""
    if offset + RECORD_HEADER_BYTES > len(data):
        return None
    header = RecordHeader(*_RECORD_WITH_CRC.unpack_from(data, offset))
    if crc32(data[offset : offset + _RECORD.size], seed + offset & _MASK) != header.chain:
        return None
    return header


def record_end(header: RecordHeader, offset: int) -> int:
    return offset + RECORD_HEADER_BYTES + header.length + -header.length % ALIGNMENT


def payload_of(data: bytes, offset: int, header: RecordHeader, chain: int) -> bytes | None:
    """The payload behind this header, if it and the zeros behind it are what was written after `chain`."""
    start = offset + RECORD_HEADER_BYTES
    end = start + header.length
    payload = data[start:end]
    if len(payload) != header.length or crc32(payload, chain) != header.payload_crc:
        return None
    return payload if not any(data[end : record_end(header, offset)]) else None


def split_entry(payload: bytes) -> tuple[int, bytes]:
    """Term and data of an ENTRY. Raises struct.error when it is too short."""
    return _TERM.unpack_from(payload)[0], payload[_TERM.size :]
