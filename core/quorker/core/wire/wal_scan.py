"""Reading one segment: its batches, the place where they stop, and what can be seen behind that place.

Says what is there. What it means for the log (a clean end, a torn tail, corruption) is decided in `recovery`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import error as StructError  # noqa: N812  # an exception class with a lower-case name

from quorker.core.errors import CorruptionError
from quorker.core.raft.messages import Entry, EntryKind, HardState
from quorker.core.wire import wal
from quorker.core.wire.snapshot_meta import decode_snapshot_record
from quorker.core.wire.storage_errors import NotUnderstood
from quorker.core.wire.wal import ALIGNMENT, Record, RecordHeader, Truncate


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records: offset in the file, and the chain value there."""

    offset: int
    chain: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A complete batch, without its COMMIT. `start` and `end` leave out a SEAL behind it."""

    number: int
    records: tuple[Record, ...]
    last_index: int
    hard_state: HardState
    start: Position
    end: Position


@dataclass(slots=True)
class Scan:
    """What a segment holds. `end` is behind the last complete batch and its SEAL.

    `bad_offset` is the first byte that is not a valid record, or the size of the file; it lies behind `end` when a
    batch was begun and not completed.
    """

    end: Position
    batches: list[Batch] = field(default_factory=list[Batch])
    sealed: bool = False
    bad_offset: int = 0
    why: str = ""

    @property
    def last_batch(self) -> Batch | None:
        return self.batches[-1] if self.batches else None


def scan_segment(data: bytes, seed: int, previous_batch: int, path: str, stop: int | None = None) -> Scan:
    """Read batches from behind the segment header up to `stop`, or to the first thing that is not valid.

    Raises CorruptionError when an intact record says something that this version does not understand.
    """
    scan = Scan(Position(wal.SEGMENT_HEADER_BYTES, wal.first_chain(data[: wal.SEGMENT_HEADER_BYTES])))
    offset, chain = scan.end.offset, scan.end.chain
    number = previous_batch + 1
    pending: list[Record] = []
    stop = len(data) if stop is None else stop
    while offset < stop:
        header = wal.header_at(data, offset, seed)
        payload = None if header is None else wal.payload_of(data, offset, header, chain)
        if header is None or payload is None:
            scan.why = (
                "no valid record header" if header is None else "the payload of a record does not match"
            )
            break
        _require_known(header, path, offset)
        end = Position(wal.record_end(header, offset), header.chain)
        if header.type == wal.SEAL and not pending and header.batch == number - 1:
            scan.sealed, scan.end = True, end
        elif header.batch != number:
            scan.why = f"a record of batch {header.batch} stands where batch {number} is expected"
            break
        elif header.type == wal.COMMIT:
            scan.batches.append(_batch(header, payload, scan.end, end, pending, path, offset))
            scan.sealed, scan.end, pending, number = False, end, [], number + 1
        else:
            pending.append(_record(header, payload, path, offset))
        offset, chain = end.offset, end.chain
    scan.bad_offset = offset
    return scan


def _require_known(header: RecordHeader, path: str, offset: int) -> None:
    if header.type not in wal.TYPES or header.version != 1:
        what = f"record type {header.type}, version {header.version}"
        raise NotUnderstood(path, offset, f"{what} is unknown: was it written by a newer version?")


def _batch(
    header: RecordHeader,
    payload: bytes,
    start: Position,
    end: Position,
    records: list[Record],
    path: str,
    offset: int,
) -> Batch:
    """Raises CorruptionError when the COMMIT does not describe what stands before it."""
    try:
        count, last_index, term, voted_for, commit_index = wal.COMMIT_PAYLOAD.unpack(payload)
    except StructError:
        raise CorruptionError(path, offset, "a COMMIT record of the wrong size") from None
    if count != len(records) or header.position != start.offset:
        raise CorruptionError(path, offset, "a COMMIT record does not fit the batch before it")
    hard_state = HardState(term, voted_for, commit_index)
    return Batch(header.batch, tuple(records), last_index, hard_state, start, end)


def _record(header: RecordHeader, payload: bytes, path: str, offset: int) -> Record:
    try:
        if header.type == wal.ENTRY:
            term, data = wal.split_entry(payload)
            return Entry(term, header.position, data, EntryKind(header.flags))
        if header.type == wal.TRUNCATE:
            return Truncate(header.position)
    except (ValueError, StructError):
        raise NotUnderstood(path, offset, "an entry that this version does not understand") from None
    record = decode_snapshot_record(payload, bool(header.flags)) if header.type == wal.SNAPSHOT else None
    if record is None:
        raise NotUnderstood(path, offset, "a record that this version does not understand")
    return record


def first_nonzero(data: bytes, offset: int) -> int | None:
    """Where the first byte that is not zero stands, from `offset` on."""
    rest = data[offset:]
    stripped = rest.lstrip(b"\0")
    return offset + len(rest) - len(stripped) if stripped else None


def later_record(data: bytes, seed: int, torn_batch: int, torn_start: int, offset: int) -> int | None:
    """Where, from `offset` on, a record stands that was written only after `torn_batch` was durable.

    Such are: any record of a later batch; a SEAL of this batch; and the COMMIT of this batch when it says that the
    batch begins behind `torn_start` (then a SEAL that was durable before it is what is damaged).
    """
    end = len(data.rstrip(b"\0"))
    for place in range(offset, end, ALIGNMENT):
        if data[place + 4 : place + 6] not in _TYPE_AND_VERSION:
            continue
        header = wal.header_at(data, place, seed)
        if header is None or header.batch < torn_batch:
            continue
        misplaced = header.type == wal.COMMIT and header.position != torn_start
        if header.batch > torn_batch or header.type == wal.SEAL or misplaced:
            return place
    return None


_TYPE_AND_VERSION = frozenset(bytes((kind, 1)) for kind in wal.TYPES)
