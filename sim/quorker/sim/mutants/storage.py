"""Bugs of the storage code, below Raft's records: what is flushed when, what recovery believes, what is thrown away.

They show in runs whose disks are files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from zlib import crc32

from quorker.core.errors import CorruptionError
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import Forgotten, SnapshotMeta
from quorker.core.wire import recovery, storage_open, wal
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.hardstate import Slot
from quorker.core.wire.recovery import RecoveredLog, Torn
from quorker.core.wire.segments import SegmentLane
from quorker.core.wire.snapshot_meta import SnapshotRecord
from quorker.core.wire.snapshot_store import SNAPSHOT_DIRECTORY, SnapshotWriter, snapshot_path
from quorker.core.wire.state_slots import StateSlots
from quorker.core.wire.storage import LogStorage
from quorker.core.wire.wal_scan import Scan
from quorker.sim.mutants.cases import damaging, dying, on_files, saving, wiped
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in

LOST: Final = "acknowledged writes survive"
UNREADABLE: Final = "intact disks are read"
SERVED: Final = "corruption is never served"


def forget_to(*_: object) -> None:
    """What a lazy programmer's sync does."""


@bug(
    "What is written is not flushed.",
    known="NATS 7564, PySyncObj",
    oracles=(LOST, UNREADABLE),
    budget=10,
    case=on_files,
)
def fsync_skipped(patch: Patch) -> None:
    patch.replace(GuardedFileSystem, "fdatasync", forget_to)


@bug(
    "A new or renamed file is not flushed into its directory.",
    known="etcd 6368",
    oracles=(LOST, UNREADABLE),
    budget=10,
    case=on_files,
)
def directory_not_synced(patch: Patch) -> None:
    patch.replace(GuardedFileSystem, "fsync_dir", forget_to)


@bug(
    "A failed flush is taken for a good one.",
    known="PostgreSQL in 2018, CockroachDB 37102",
    oracles=(LOST, UNREADABLE),
    budget=60,
    case=on_files,
)
def fsync_error_swallowed(patch: Patch) -> None:
    def fdatasync(self: Any, handle: int) -> None:
        try:
            self._inner.fdatasync(handle)
        except OSError:
            return

    patch.replace(GuardedFileSystem, "fdatasync", fdatasync)


@bug(
    "After a torn write, the whole newest segment is thrown away.",
    known="pebble 453",
    oracles=(LOST,),
    budget=60,
    case=dying,
)
def whole_segment_dropped_on_a_torn_tail(patch: Patch) -> None:

    def replay_newest(log: RecoveredLog, *rest: object) -> None:
        replay(log, *rest)
        if log.torn is not None:
            log.shape.truncate(log.shape.first_index)
            log.entries.clear()

    replay = patch.replace(recovery, "_replay_newest", replay_newest)


@bug(
    "Whatever is damaged is cut off as if it had been torn.",
    known="camunda 6098, vibesql 5357",
    oracles=(LOST,),
    budget=30,
    case=damaging,
)
def any_damage_passes_for_a_torn_tail(patch: Patch) -> None:

    def judge_end(data: bytes, seed: int, segment: int, scan: Scan, slot: Slot, path: str) -> Any:
        try:
            return judge(data, seed, segment, scan, slot, path)
        except CorruptionError as error:
            if scan.last_batch is None:
                raise
            return Torn(path, scan.end.offset, b"", error.why)

    judge = patch.replace(recovery, "judge_end", judge_end)


@bug(
    "Whether a damaged batch had been proven is not looked up.",
    known="mysticeti 219",
    oracles=(LOST,),
    budget=30,
    case=damaging,
)
def slots_are_not_asked(patch: Patch) -> None:

    def judge_end(data: bytes, seed: int, segment: int, scan: Scan, slot: Slot, path: str) -> Any:
        return judge(data, seed, segment, scan, replace(slot, sealed_batch=0, sealed_end=0), path)

    judge = patch.replace(recovery, "judge_end", judge_end)
    patch.replace(recovery, "_require_promises", forget_to)


@bug(
    "Entries are read without a look at their checksum.",
    known="PySyncObj, DotNext",
    oracles=(SERVED,),
    budget=60,
    case=damaging,
)
def payloads_are_not_checked(patch: Patch) -> None:
    def payload_of(data: bytes, offset: int, header: wal.RecordHeader, chain: int) -> Any:
        del chain
        payload = data[offset + wal.RECORD_HEADER_BYTES :][: header.length]
        return payload if len(payload) == header.length else None

    patch.replace(wal, "payload_of", payload_of)


@bug(
    "The checksum of an entry covers its first bytes only.",
    known="checksums that leave out the length",
    oracles=(SERVED,),
    budget=30,
    case=damaging,
)
def checksums_cover_only_the_beginning(patch: Patch) -> None:
    """Of each piece of a payload; an entry has two, its term and its data."""

    def crc(data: bytes, seed: int = 0) -> int:
        return crc32(data[:32], seed)

    def payload_of(data: bytes, offset: int, header: wal.RecordHeader, chain: int) -> Any:
        if header.type != wal.ENTRY:
            return intact(data, offset, header, chain)
        payload = data[offset + wal.RECORD_HEADER_BYTES :][: header.length]
        found = crc(payload[8:], crc(payload[:8], chain))
        return payload if len(payload) == header.length and found == header.payload_crc else None

    patch.replace(wal, "crc32", crc)
    intact = patch.replace(wal, "payload_of", payload_of)


@bug(
    "What was not proven to be whole is believed.",
    known="samyama 1335",
    oracles=(LOST, UNREADABLE),
    budget=30,
    case=dying,
)
def unproven_tail_is_believed(patch: Patch) -> None:
    def proven_end(scan: Scan, *_: object) -> Any:
        return scan.end

    patch.replace(recovery, "_proven_end", proven_end)


@bug(
    "A file that cannot be read is deleted.",
    known="NATS 7549 and 7556",
    oracles=("damage is left as it is",),
    budget=30,
    case=damaging,
)
def damaged_files_are_cleaned_up(patch: Patch) -> None:

    def read_directory(fs: GuardedFileSystem, *rest: object) -> Any:
        try:
            return read(fs, *rest)
        except CorruptionError as error:
            if error.path.startswith("wal/"):
                fs.unlink(error.path)
            raise

    read = patch.replace(storage_open, "read_directory", read_directory)


@bug(
    "A snapshot gets its name before its bytes are flushed.",
    known="etcd 6368",
    oracles=(LOST, UNREADABLE),
    budget=30,
    case=saving,
)
def snapshot_renamed_without_fsync(patch: Patch) -> None:
    def publish(self: Any) -> None:
        self._write(self._encoder.footer())
        handle = self._open_handle()
        self._handle = None
        fs = self._fs
        fs.close(handle)
        fs.rename(self._temporary, snapshot_path(self.meta))
        fs.fsync_dir(SNAPSHOT_DIRECTORY)

    patch.replace(SnapshotWriter, "_publish", publish)


@bug(
    "The state names a snapshot that is not there yet.",
    known="redisraft 43",
    oracles=(LOST, UNREADABLE),
    budget=30,
    case=saving,
)
def snapshot_named_before_it_is_durable(patch: Patch) -> None:

    def adopt_own(self: Any, record: SnapshotRecord, publish: Callable[[], None]) -> Any:
        adopted = adopt(self, record, lambda: None)
        publish()
        return adopted

    adopt = patch.replace(LogStorage, "_adopt_own", adopt_own)


@bug(
    "The log is trimmed before the snapshot is durable.",
    known="hashicorp/raft 85, camunda 3573",
    oracles=(LOST, UNREADABLE),
    budget=30,
    case=saving,
)
def log_trimmed_before_the_snapshot_is_durable(patch: Patch) -> None:

    def save_snapshot(self: Any, meta: SnapshotMeta, chunks: Sequence[bytes]) -> Any:
        self._lane.drop_before(meta.index + 1)
        return save(self, meta, chunks)

    save = patch.replace(LogStorage, "save_snapshot", save_snapshot)


@bug(
    "A new segment is used before its first batch is flushed.",
    known="amelie 17, acoustid 157",
    oracles=(LOST, UNREADABLE),
    budget=60,
    case=on_files,
)
def segment_named_before_its_first_batch(patch: Patch) -> None:

    def write_through(self: Any, handle: int, data: bytes, offset: int) -> None:
        if offset:
            write(self, handle, data, offset)
        else:
            self._fs.pwrite(handle, data, 0)

    write = patch.replace(SegmentLane, "_write_through", write_through)


@bug(
    "A vote waits for the next entry before it is written.",
    known="PySyncObj 84",
    oracles=(LOST, UNREADABLE),
    budget=30,
    case=on_files,
)
def votes_are_not_written_alone(patch: Patch) -> None:

    def write_entries(self: Any, batch: Sequence[Persist]) -> None:
        if any(record.entries or record.snapshot for record in batch):
            write(self, batch)

    write = patch.replace(LogStorage, "write", write_entries)


@bug(
    "How often a directory was opened is counted in memory, and not written.",
    known="identities of processes that are taken from a clock or a counter in memory",
    oracles=("incarnations grow",),
    budget=10,
    case=on_files,
)
def openings_are_not_counted(patch: Patch) -> None:
    def write(self: StateSlots, slot: Slot) -> None:
        put(self, replace(slot, incarnation=self.newest.incarnation))

    put = patch.replace(StateSlots, "write", write)


@bug(
    "That a member may have forgotten something is in memory only: whoever dies while it rejoins has its say again.",
    oracles=("the mark survives",),
    budget=10,
    case=wiped,
)
def marks_are_not_written(patch: Patch) -> None:
    def write(self: StateSlots, slot: Slot) -> None:
        put(self, replace(slot, hard_state=replace(slot.hard_state, forgotten=Forgotten.NOTHING)))

    put = patch.replace(StateSlots, "write", write)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
