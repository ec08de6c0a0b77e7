"""The recovery rule: from the bytes of the log segments to what the node promised, or to the damage that forbids it.

Let X be the first byte of the newest segment that is not a valid record.

1. Everything from X on is zero: the log ends cleanly.
2. X lies in the last batch, nothing that was written after that batch can be seen behind X, and no state slot says
   that the log was durable beyond X: the fsync of this batch cannot be known to have returned. It is a torn tail:
   this batch is dropped, its bytes are kept aside.
3. Anything else is corruption. Nothing is changed, nothing is skipped.

Older segments, and the first batch of each segment (a segment gets its name only when that batch is durable), know
only "valid" and "corrupt". A last batch that is valid but not proven durable is a `tail`: it must be written anew
before it is relied upon, because after a failed fsync a disk may show bytes that it does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from quorker.core.errors import CorruptionError
from quorker.core.raft.config import NO_PROMISES
from quorker.core.raft.messages import NOBODY, Entry, HardState
from quorker.core.wire import wal
from quorker.core.wire.hardstate import Slot
from quorker.core.wire.identity import Identity
from quorker.core.wire.log_shape import BrokenLog, LogShape
from quorker.core.wire.wal import Record, SegmentHeader, Truncate
from quorker.core.wire.wal_scan import Batch, Position, Scan, first_nonzero, later_record, scan_segment

WAL_DIRECTORY: Final = "wal"
LOG_BEGIN: Final = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Torn:
    """A torn tail: the bytes that were cut from segment `path` at `offset`, and why they are not valid."""

    path: str
    offset: int
    data: bytes
    why: str


@dataclass(slots=True)
class RecoveredLog:
    """The log as far as it can be believed. `entries` are shape.first_index..shape.last_index.

    `end` is the place in the newest segment up to which everything is proven durable, `last_batch` the batch there.
    `tail`, if any, is already part of `shape`, `entries` and `hard_state`, but not of `shape_before_tail`; `dirty`
    says that something stands behind `end`, so that writing must go on in a new segment.
    """

    shape: LogShape
    entries: list[Entry] = field(default_factory=list[Entry])
    hard_state: HardState = NO_PROMISES
    headers: list[SegmentHeader] = field(default_factory=list[SegmentHeader])
    end: Position = LOG_BEGIN
    last_batch: int = 0
    tail: Batch | None = None
    shape_before_tail: LogShape = field(default_factory=LogShape)
    torn: Torn | None = None
    dirty: bool = False

    def replay(self, batch: Batch, path: str) -> None:
        for record in batch.records:
            self._replay_record(record, path, batch.start.offset)
        if self.shape.last_index != batch.last_index:
            why = f"batch {batch.number} leads to entry {self.shape.last_index}, but names {batch.last_index}"
            raise CorruptionError(path, batch.start.offset, why)
        self.hard_state = batch.hard_state

    def _replay_record(self, record: Record, path: str, offset: int) -> None:
        start = self.shape.first_index
        try:
            self.shape.apply(record)
        except BrokenLog as error:
            raise CorruptionError(path, offset, str(error)) from None
        if isinstance(record, Entry):
            self.entries.append(record)
        elif isinstance(record, Truncate):
            del self.entries[max(record.index - start, 0) :]
        elif self.shape.last_index < self.shape.first_index:
            self.entries.clear()


def recover_log(segments: Iterable[tuple[str, bytes]], owner: Identity, slot: Slot) -> RecoveredLog:
    """Apply the rule to all segments, oldest first: (name, contents).

    Raises CorruptionError naming file and offset.
    """
    log: RecoveredLog | None = None
    for (name, data), following in _with_next(segments):
        path = f"{WAL_DIRECTORY}/{name}"
        header = segment_header(name, data, owner, path)
        if log is None:
            log = RecoveredLog(LogShape(header.next_index))
        _require_successor(log.headers, header, log.shape, path)
        log.headers.append(header)
        if following is None:
            _replay_newest(log, header, data, owner, slot, path)
        else:
            next_header = segment_header(*following, owner, f"{WAL_DIRECTORY}/{following[0]}")
            _replay_closed(log, header, next_header, data, owner, path)
    if log is None:
        raise CorruptionError(WAL_DIRECTORY, 0, "the log is missing")
    _require_promises(log, slot)
    return log


def _with_next(
    segments: Iterable[tuple[str, bytes]],
) -> Iterator[tuple[tuple[str, bytes], tuple[str, bytes] | None]]:
    """Each segment with the one after it; never more than two in memory."""
    pending: tuple[str, bytes] | None = None
    for segment in segments:
        if pending is not None:
            yield pending, segment
        pending = segment
    if pending is not None:
        yield pending, None


def segment_header(name: str, data: bytes, owner: Identity, path: str) -> SegmentHeader:
    """The header of a segment that has this name and all its bytes. Raises CorruptionError."""
    header = wal.decode_segment_header(data, owner, path)
    if wal.segment_name(header.segment, header.next_index) != name:
        raise CorruptionError(path, 0, f"is segment {header.segment} under another name")
    if len(data) != header.size:
        why = f"has {len(data)} bytes, but was made with {header.size}"
        raise CorruptionError(path, min(len(data), header.size), why)
    return header


def _require_successor(older: list[SegmentHeader], header: SegmentHeader, shape: LogShape, path: str) -> None:
    if not older:
        return
    if header.segment != older[-1].segment + 1:
        raise CorruptionError(path, 0, f"segment {older[-1].segment + 1} before it is missing")
    if header.next_index != shape.last_index + 1:
        why = f"begins with entry {header.next_index}, but the log before it ends at {shape.last_index}"
        raise CorruptionError(path, 0, why)


def _replay_closed(
    log: RecoveredLog,
    header: SegmentHeader,
    following: SegmentHeader,
    data: bytes,
    owner: Identity,
    path: str,
) -> None:
    """A segment that has a successor, which says where it ends: anything else is corruption."""
    seed = wal.segment_seed(header.segment, owner.dir_uuid)
    scan = scan_segment(data, seed, header.previous_batch, path, following.previous_end)
    last = scan.last_batch
    ends_as_named = (
        last is not None
        and last.number == following.previous_batch
        and scan.end == Position(following.previous_end, following.previous_chain)
    )
    if not ends_as_named:
        why = scan.why or f"does not end with batch {following.previous_batch} as its successor says"
        raise CorruptionError(path, scan.bad_offset, why)
    garbage = None if following.cut else first_nonzero(data, scan.end.offset)
    if garbage is not None:
        raise CorruptionError(path, garbage, "is not zero behind the last record")
    for batch in scan.batches:
        log.replay(batch, path)


def _replay_newest(
    log: RecoveredLog, header: SegmentHeader, data: bytes, owner: Identity, slot: Slot, path: str
) -> None:
    seed = wal.segment_seed(header.segment, owner.dir_uuid)
    scan = scan_segment(data, seed, header.previous_batch, path)
    log.torn = judge_end(data, seed, header.segment, scan, slot, path)
    last = scan.batches[-1]
    log.end = _proven_end(scan, header, slot)
    log.last_batch = last.number
    log.dirty = log.torn is not None or log.end != scan.end
    for batch in scan.batches[:-1]:
        log.replay(batch, path)
    if log.end == last.start:
        log.tail, log.last_batch = last, last.number - 1
    log.shape_before_tail = log.shape.copy()
    log.replay(last, path)


def judge_end(data: bytes, seed: int, segment: int, scan: Scan, slot: Slot, path: str) -> Torn | None:
    """Rules 1 to 3 for the newest segment: None when it ends cleanly, or what was torn.

    Raises CorruptionError.
    """
    last, bad = scan.last_batch, scan.bad_offset
    if last is None:
        raise CorruptionError(
            path, bad, f"{scan.why}, in a batch that was durable before the file got its name"
        )
    if slot.sealed_segment == segment and bad < slot.sealed_end:
        why = f"{scan.why}, yet the log was known to be durable up to byte {slot.sealed_end}"
        raise CorruptionError(path, bad, why)
    if bad == scan.end.offset and first_nonzero(data, bad) is None:
        if last.number < slot.sealed_batch:
            why = f"ends with batch {last.number}, but batch {slot.sealed_batch} was known to be durable"
            raise CorruptionError(path, bad, why)
        return None
    torn_batch = last.number + 1
    later = later_record(data, seed, torn_batch, scan.end.offset, bad)
    if later is not None:
        raise CorruptionError(
            path, bad, f"{scan.why}, yet a record that was written later stands at byte {later}"
        )
    if torn_batch <= slot.sealed_batch:
        raise CorruptionError(path, bad, f"{scan.why}, yet batch {torn_batch} was known to be durable")
    return Torn(path, scan.end.offset, data[scan.end.offset :].rstrip(b"\0"), scan.why)


def _proven_end(scan: Scan, header: SegmentHeader, slot: Slot) -> Position:
    """How far the newest segment is certainly on the disk, not only in what was read.

    Certain are: what a slot that was written afterwards vouches for; each batch that another batch or a SEAL follows,
    because those are written only when its fsync has returned; and the first batch of a segment.
    """
    last = scan.batches[-1]
    if slot.sealed_segment == header.segment and slot.sealed_end == scan.end.offset:
        return scan.end
    if scan.sealed or slot.sealed_batch >= last.number or len(scan.batches) == 1:
        return last.end
    return last.start


def _require_promises(log: RecoveredLog, slot: Slot) -> None:
    """The promises in the log are never older than their copy in a slot. Takes over what else only a slot knows."""
    found, copy = log.hard_state, slot.hard_state
    forgot_vote = found.term == copy.term and copy.voted_for not in (NOBODY, found.voted_for)
    if found.term < copy.term or forgot_vote:
        newest = log.headers[-1]
        path = f"{WAL_DIRECTORY}/{wal.segment_name(newest.segment, newest.next_index)}"
        why = f"ends in term {found.term}, but this node had promised term {copy.term}, vote {copy.voted_for}"
        raise CorruptionError(path, log.end.offset, why)
    commit_index = max(found.commit_index, copy.commit_index)
    log.hard_state = HardState(found.term, found.voted_for, commit_index, copy.forgotten)
