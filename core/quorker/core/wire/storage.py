"""One member's storage: log, promises and snapshots in one directory, on any `FileSystem`.

Hot path: any number of `Persist` effects become one write and one fdatasync. The caller owns the threads: all methods
from one thread at a time, except `prepare` and `SnapshotWriter.add`, which may run beside the others. After the first
failure every call raises StorageFailed, and the process must end; the next one recovers from what reached the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from quorker.core.errors import ConfigurationError, InvalidInput, StorageError
from quorker.core.raft.config import DurableState
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import HardState, SnapshotMeta
from quorker.core.wire import storage_open
from quorker.core.wire.filesystem import FileSystem
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.hardstate import SLOT_NAMES, Slot
from quorker.core.wire.identity import Identity
from quorker.core.wire.log_shape import LogShape
from quorker.core.wire.reserve import Reserve
from quorker.core.wire.segments import SegmentLane
from quorker.core.wire.snapshot_meta import SnapshotRecord
from quorker.core.wire.snapshot_store import SnapshotStore, SnapshotWriter
from quorker.core.wire.storage_errors import DiskFull
from quorker.core.wire.storage_open import Trust
from quorker.core.wire.wal import Record, Truncate

SEGMENT_BYTES_MIN: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Sizes in bytes. `reserve_bytes`: space held back for a full disk; 0 for none.

    `low_bytes`: with less than that free, the disk counts as nearly full.
    """

    segment_bytes: int = 16 << 20
    reserve_bytes: int = 32 << 20
    low_bytes: int = 128 << 20

    def validate(self) -> None:
        if self.segment_bytes < SEGMENT_BYTES_MIN or self.segment_bytes % 512:
            raise ConfigurationError(
                f"segment_bytes {self.segment_bytes}: at least {SEGMENT_BYTES_MIN}, in multiples of 512"
            )
        if self.reserve_bytes < 0:
            raise ConfigurationError(f"reserve_bytes {self.reserve_bytes}: 0 or more")
        if self.low_bytes < 0:
            raise ConfigurationError(f"low_bytes {self.low_bytes}: 0 or more")


class LogStorage:
    """Opens or makes a directory; afterwards everything that `write` returned from survives any crash.

    `identity` says whose directory it must be; its dir_uuid and restore_epoch are used when the directory is new.
    `fresh`: nothing was ever written or promised here; whether that can be is for the caller to judge. `notes`: what
    an operator should know about this recovery. `torn_path`: where the bytes of a torn tail were put.

    Raises IdentityMismatch, ConfigurationError, CorruptionError, DiskFull, StorageFailed.
    """

    def __init__(
        self,
        fs: FileSystem,
        identity: Identity,
        settings: StorageSettings | None = None,
        *,
        create: bool = True,
        trust: Trust | None = None,
    ) -> None:
        settings = settings or StorageSettings()
        settings.validate()
        self._fs = GuardedFileSystem(fs)
        found = storage_open.open_directory(
            self._fs, identity, settings.segment_bytes, create, trust or Trust()
        )
        self.identity = found.identity
        self.fresh = found.is_fresh
        self.notes = tuple(found.notes)
        self.torn_path: str | None = None
        self._durable: DurableState | None = found.durable
        self._shape = found.log.shape
        self._hard_state = found.log.hard_state
        self._received: dict[tuple[int, int], SnapshotRecord] = {}
        self._reserve = Reserve(self._fs, settings.reserve_bytes)
        self._store = SnapshotStore(self._fs, identity.cluster_id, self._reserve.release)
        self._low_bytes = settings.low_bytes
        self._slots = found.slots
        self._lane = SegmentLane(
            self._fs,
            self.identity,
            settings.segment_bytes,
            self._reserve.release,
            found.log.headers,
            found.log.end,
            found.log.last_batch,
        )
        self._sealed = True
        self._begin(found)

    def _begin(self, found: storage_open.Found) -> None:
        """Make the directory writable: what is not proven durable is written anew, the incarnation counted."""
        log = found.log
        storage_open.remove_leftovers(self._fs)
        self._reserve.adopt()
        if log.torn is not None:
            self.torn_path = storage_open.keep_torn_bytes(self._fs, log.torn)
        self._shape.snapshots = storage_open.kept_snapshots(self._shape.snapshots, found.snapshot)
        if log.dirty:
            self._rewrite_tail(found)
        self._slots.open()
        for _ in SLOT_NAMES:  # the incarnation must survive the loss of either
            self._write_slot()

    def _rewrite_tail(self, found: storage_open.Found) -> None:
        """Continue in a new segment that begins with the unproven batch, or with an empty one."""
        log, before = found.log, found.log.shape_before_tail
        tail: tuple[Record, ...] = ()
        if log.tail is None:
            before = self._shape
        else:
            tail = log.tail.records
        kept = storage_open.kept_snapshots(before.snapshots, found.snapshot)
        self._lane.start_segment(
            (*_mentions(kept), *tail),
            before.last_index + 1,
            self._shape.last_index,
            self._hard_state,
            cut=True,
        )

    # What was found, and what is there now

    @property
    def durable(self) -> DurableState:
        """What recovery found. To be taken before the first `write`, which lets go of the entries in it."""
        if self._durable is None:
            raise StorageError("the recovered state was given up when the first batch was written")
        return self._durable

    @property
    def hard_state(self) -> HardState:
        """Term and vote as they are on the disk, and the newest commit index that was heard of."""
        return self._hard_state

    @property
    def first_index(self) -> int:
        """The oldest entry on the disk; last_index + 1 when there is none."""
        return self._shape.first_index

    @property
    def last_index(self) -> int:
        return self._shape.last_index

    @property
    def snapshots(self) -> tuple[SnapshotRecord, ...]:
        """The snapshots that are safe, oldest first, with sizes and digests. At most two, once trimmed."""
        return self._shape.snapshots

    @property
    def log_bytes(self) -> int:
        """How much of the log's files is used."""
        return self._lane.log_bytes

    @property
    def segment(self) -> int:
        """The number of the file that the log is written to."""
        return self._lane.segment

    @property
    def free_bytes(self) -> int:
        return self._fs.free_bytes()

    @property
    def is_low(self) -> bool:
        """The disk is nearly full: what is left is for what ends or keeps what is there, and for snapshots."""
        return self.free_bytes < self._low_bytes

    @property
    def failure(self) -> str:
        """Why nothing here can be trusted any more; empty while all is well."""
        return self._fs.broken

    # The log

    def write(self, batch: Sequence[Persist]) -> None:
        """Make all of these durable, in order, with one write and one fdatasync (none when nothing asks for it).

        Raises DiskFull when a new segment was needed and there is no room: nothing has happened, the same call may be
        made again. Raises StorageFailed.
        """
        self._fs.require_working()
        shape, records, hard_state = self._shape.copy(), list[Record](), self._hard_state
        for persist in batch:
            self._plan(persist, shape, records)
            hard_state = persist.hard_state or hard_state
        promised = self._hard_state
        if records or hard_state.term != promised.term or hard_state.voted_for != promised.voted_for:
            self._write_records(records, shape, hard_state)
        self._hard_state = hard_state
        if hard_state.forgotten is not promised.forgotten:
            for _ in SLOT_NAMES:  # the only place where it stands
                self._write_slot()

    def _plan(self, persist: Persist, shape: LogShape, records: list[Record]) -> None:
        """Add the records of one Persist, in the order it asks for: truncation, snapshot, entries."""
        if persist.truncate_from is not None and persist.truncate_from <= shape.last_index:
            self._truncate(persist.truncate_from, shape, records)
        if persist.snapshot is not None and persist.snapshot.index > _newest_index(shape.snapshots):
            record = self._received_record(persist.snapshot)
            shape.note_snapshot(record)
            records.append(record)
        entries = persist.entries
        if not entries:
            return
        if entries[0].index <= shape.last_index:
            self._truncate(entries[0].index, shape, records)
        for entry in entries:
            shape.append(entry)
        records += entries

    def _truncate(self, index: int, shape: LogShape, records: list[Record]) -> None:
        shape.truncate(index)
        records.append(Truncate(index))

    def _received_record(self, meta: SnapshotMeta) -> SnapshotRecord:
        record = self._received.get((meta.index, meta.term))
        if record is None or record.meta != meta:
            raise StorageError(f"snapshot {meta.index} of term {meta.term} was never received")
        return record

    def _write_records(self, records: list[Record], shape: LogShape, hard_state: HardState) -> None:
        in_place = self._lane.append(records, shape.last_index, hard_state)
        if not in_place:
            first = (*_mentions(self._shape.snapshots), *records)
            self._lane.start_segment(first, self._shape.last_index + 1, shape.last_index, hard_state)
        self._shape, self._hard_state, self._durable = shape, hard_state, None
        if self._received:
            self._forget_received(_newest_index(shape.snapshots))
        self._sealed = not in_place  # a segment has its name only when its first batch is durable
        if self._sealed:
            self._write_slot()

    def _forget_received(self, index: int) -> None:
        """Those up to `index` are in the log by now, or overtaken; the lane may still be about to name later ones."""
        self._received = {name: record for name, record in self._received.items() if name[0] > index}

    @property
    def needs_seal(self) -> bool:
        """Something was written since the last `seal`."""
        return not self._sealed

    def seal(self) -> None:
        """To be called after an idle moment: from now on, damage to what was written cannot pass for a torn write."""
        self._fs.require_working()
        if self._sealed:
            return
        self._lane.seal(self._shape.last_index)
        self._write_slot()
        self._sealed = True

    @property
    def wants_prepare(self) -> bool:
        """Whether now is a good moment to call `prepare`."""
        return self._lane.wants_prepare

    def prepare(self) -> None:
        """Allocate the next segment ahead of its use, so that `write` need not. Raises DiskFull, without harm."""
        self._fs.require_working()
        self._lane.prepare()
        self._reserve.refill()

    def _write_slot(self) -> None:
        lane, seq = self._lane, self._slots.newest.seq + 1
        position = (lane.last_batch, self._shape.last_index, lane.segment, lane.offset)
        self._slots.write(Slot(seq, self.identity.incarnation, self._hard_state, *position))

    # Snapshots

    def bootstrap(self, meta: SnapshotMeta) -> None:
        """Begin a cluster: an empty snapshot that every first member writes alike. Only into a fresh directory."""
        if not self.fresh or self._shape.snapshots:
            raise ConfigurationError("this directory was in use already: a cluster begins only once")
        self.receive_snapshot(meta).finish()
        self.write([Persist(0, HardState(meta.term, 0, meta.index), snapshot=meta)])
        self.seal()
        self._durable = DurableState(self._hard_state, meta)

    def save_snapshot(self, meta: SnapshotMeta, chunks: Iterable[bytes]) -> bool:
        """Keep our own state machine's snapshot. False when a newer one was installed meanwhile."""
        writer = self.snapshot_writer(meta)
        for chunk in chunks:
            writer.add(chunk)
        return writer.finish()

    def snapshot_writer(self, meta: SnapshotMeta) -> SnapshotWriter:
        """The same piece by piece."""
        return self._store.writer(meta, self._adopt_own)

    def receive_snapshot(self, meta: SnapshotMeta) -> SnapshotWriter:
        """A snapshot from a leader. It counts once it is finished and a Persist that names it was written."""
        return self._store.writer(meta, self._adopt_received)

    def open_snapshot(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """The chunks of a snapshot, verified one by one. Raises CorruptionError, also in the middle."""
        received = self._received.get((meta.index, meta.term))
        for record in (*self._shape.snapshots, *([received] if received else ())):
            if record.meta == meta:
                return self._store.chunks(record)
        raise InvalidInput(f"snapshot {meta.index} of term {meta.term} is not here")

    def compact(self, keep_from: int) -> None:
        """Drop whole segments that hold only entries before `keep_from`, and snapshots before the last two.

        The log behind the older of two snapshots stays, in case the newest turns out to be damaged.
        """
        self._fs.require_working()
        shape = self._shape
        usable = [known.meta.index + 1 for known in shape.snapshots[-2:]]
        keep_from = min([keep_from, *(index for index in usable if index >= shape.first_index)])
        if usable:
            self._lane.drop_before(keep_from)
            shape.compact(self._lane.first_index)
        shape.snapshots = shape.snapshots[-2:]
        self._store.drop_older(shape.snapshots)

    def _adopt_own(self, record: SnapshotRecord, publish: Callable[[], None]) -> bool:
        if record.meta.index <= _newest_index(self._shape.snapshots):
            return False
        publish()
        shape = self._shape.copy()
        shape.note_snapshot(record)
        try:
            self._write_records([record], shape, self._hard_state)
        except DiskFull:
            if (record.meta.index, record.meta.term) not in self._received:
                self._store.remove(record.meta)  # nothing names it, and space is short
            raise
        return True

    def _adopt_received(self, record: SnapshotRecord, publish: Callable[[], None]) -> bool:
        if record.meta.index <= _newest_index(self._shape.snapshots):
            return False
        publish()
        self._received[record.meta.index, record.meta.term] = replace(record, installed=True)
        return True

    def close(self) -> None:
        """Seal and let go of the files. After a failure: only let go."""
        try:
            if not self._fs.broken:
                self.seal()
        finally:
            self._lane.close()
            self._slots.close()


def _newest_index(snapshots: Sequence[SnapshotRecord]) -> int:
    return snapshots[-1].meta.index if snapshots else 0


def _mentions(snapshots: Sequence[SnapshotRecord]) -> Iterator[SnapshotRecord]:
    """Records that say that these snapshots exist, for a segment that must not depend on the ones before it."""
    return (replace(record, installed=False) for record in snapshots)
