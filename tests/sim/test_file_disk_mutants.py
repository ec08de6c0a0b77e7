"""Planted bugs of the storage code: each must be found within a bounded number of runs whose disks are files.

The runs are those of the campaign, or ones made for what they must find: members that save snapshots all the time and
die at it, or disks that are damaged in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import pytest

from quorker.core.errors import CorruptionError
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import SnapshotMeta
from quorker.core.wire import recovery, storage_open, wal
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.hardstate import Slot
from quorker.core.wire.recovery import RecoveredLog, Torn
from quorker.core.wire.segments import SegmentLane
from quorker.core.wire.snapshot_meta import SnapshotRecord
from quorker.core.wire.snapshot_store import SNAPSHOT_DIRECTORY, SnapshotWriter, snapshot_path
from quorker.core.wire.storage import LogStorage
from quorker.core.wire.wal_scan import Scan
from quorker.sim.case import Case, Fault, FaultKind, MachineKnobs, Op, OpKind
from quorker.sim.cluster import run_case
from quorker.sim.expansion import FILES, Profile, expand
from quorker.sim.kernel import MS
from quorker.sim.network import NetworkKnobs
from quorker.sim.randomness import MILLION, Stream

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """`budget`: seeds within which it must be found; about three times what it took when it was planted."""

    plant: Plant
    oracles: tuple[str, ...]
    budget: int
    case: Callable[[int], Case]


LOST = "acknowledged writes survive"
UNREADABLE = "intact disks are read"
SERVED = "corruption is never served"


# ---------------------------------------------------------------------- runs made for what they must find


def on_files(seed: int) -> Case:
    return expand(seed, FILES)


TRIO = Profile("files trio", (3,), (300, 400), 1, 40, 0, files_ppm=MILLION)


def dying(seed: int) -> Case:
    """Members with slow disks die in turn, are back at once and die again, while everybody proposes."""
    case = expand(seed, TRIO)
    plan = [
        Fault(at_ns, FaultKind.CRASH, MS, node=1 + at_ns // MS % 3)
        for at_ns in range(30 * MS, case.chaos_ns, 20 * MS)
    ]
    ops = [Op(at_ns, OpKind.PROPOSE, 1 + at_ns // MS % 3) for at_ns in range(20 * MS, case.chaos_ns, 2 * MS)]
    return replace(
        case,
        dead_in_calm=0,
        plan=tuple(plan),
        traps=(),
        ops=tuple(ops),
        raft=replace(case.raft, election_ms=20, heartbeat_ms=4, pre_vote=True),
        network=NetworkKnobs(median_ns=MS // 4),
        disk=replace(case.disk, segment_bytes=1_024, median_ns=2 * MS, latency="uniform"),
    )


def saving(seed: int) -> Case:
    """The same, with snapshots every few entries."""
    return replace(dying(seed), machine=MachineKnobs(snapshot_every=4))


DAMAGE = (FaultKind.FILE_ROT, FaultKind.FILE_ROT, FaultKind.FILE_STALE, FaultKind.FILE_MISDIRECTED)


def damaging(seed: int) -> Case:
    """A disk is damaged and its member dies, in every run."""
    draw, case = Stream(seed, "damaging"), expand(seed, TRIO)
    at_ns = draw.between(case.chaos_ns // 4, case.chaos_ns)
    blow = Fault(at_ns, draw.choice(DAMAGE), MS, node=draw.between(1, 3), amount=draw.below(1 << 31) * 2 + 1)
    return replace(case, dead_in_calm=0, plan=(blow,), traps=())


# ---------------------------------------------------------------------- bugs


def forget_to(*_: object) -> None:
    """What a lazy programmer's sync does."""


def fsync_skipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GuardedFileSystem, "fdatasync", forget_to)


def directory_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GuardedFileSystem, "fsync_dir", forget_to)


def fsync_error_swallowed(patch: pytest.MonkeyPatch) -> None:
    def fdatasync(self: GuardedFileSystem, handle: int) -> None:
        try:
            self._inner.fdatasync(handle)  # pyright: ignore[reportPrivateUsage]  # the place of this bug
        except OSError:
            return

    patch.setattr(GuardedFileSystem, "fdatasync", fdatasync)


def whole_segment_dropped_on_a_torn_tail(patch: pytest.MonkeyPatch) -> None:
    replay = recovery._replay_newest  # pyright: ignore[reportPrivateUsage]  # the place of this bug

    def replay_newest(log: RecoveredLog, *rest: object) -> None:
        replay(log, *rest)  # type: ignore[arg-type]  # what it is given is passed on
        if log.torn is not None:
            log.shape.truncate(log.shape.first_index)
            log.entries.clear()

    patch.setattr(recovery, "_replay_newest", replay_newest)


def any_damage_passes_for_a_torn_tail(patch: pytest.MonkeyPatch) -> None:
    judge = recovery.judge_end

    def judge_end(data: bytes, seed: int, scan: Scan, slot: Slot, path: str) -> Torn | None:
        try:
            return judge(data, seed, scan, slot, path)
        except CorruptionError as error:
            if scan.last_batch is None:
                raise
            return Torn(path, scan.end.offset, b"", error.why)

    patch.setattr(recovery, "judge_end", judge_end)


def slots_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    judge = recovery.judge_end

    def judge_end(data: bytes, seed: int, scan: Scan, slot: Slot, path: str) -> Torn | None:
        return judge(data, seed, scan, replace(slot, sealed_batch=0), path)

    patch.setattr(recovery, "judge_end", judge_end)
    patch.setattr(recovery, "_require_promises", forget_to)


def payloads_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    def payload_of(data: bytes, offset: int, header: wal.RecordHeader, chain: int) -> bytes | None:
        del chain
        payload = data[offset + wal.RECORD_HEADER_BYTES :][: header.length]
        return payload if len(payload) == header.length else None

    patch.setattr(wal, "payload_of", payload_of)


def checksums_cover_only_the_beginning(patch: pytest.MonkeyPatch) -> None:
    """Of each piece of a payload; an entry has two, its term and its data."""

    def crc(data: bytes, seed: int = 0) -> int:
        return crc32(data[:32], seed)

    def payload_of(data: bytes, offset: int, header: wal.RecordHeader, chain: int) -> bytes | None:
        if header.type != wal.ENTRY:
            return intact(data, offset, header, chain)
        payload = data[offset + wal.RECORD_HEADER_BYTES :][: header.length]
        found = crc(payload[8:], crc(payload[:8], chain))
        return payload if len(payload) == header.length and found == header.payload_crc else None

    intact = wal.payload_of
    patch.setattr(wal, "crc32", crc)
    patch.setattr(wal, "payload_of", payload_of)


def unproven_tail_is_believed(patch: pytest.MonkeyPatch) -> None:
    def proven_end(scan: Scan, *_: object) -> object:
        return scan.end

    patch.setattr(recovery, "_proven_end", proven_end)


def damaged_files_are_cleaned_up(patch: pytest.MonkeyPatch) -> None:
    read = storage_open.read_directory

    def read_directory(fs: GuardedFileSystem, *rest: object) -> object:
        try:
            return read(fs, *rest)  # type: ignore[arg-type]  # what it is given is passed on
        except CorruptionError as error:
            if error.path.startswith("wal/"):
                fs.unlink(error.path)
            raise

    patch.setattr(storage_open, "read_directory", read_directory)


def snapshot_renamed_without_fsync(patch: pytest.MonkeyPatch) -> None:
    def publish(self: SnapshotWriter) -> None:
        self._write(self._encoder.footer())  # pyright: ignore[reportPrivateUsage]  # the place of this bug
        handle = self._open_handle()  # pyright: ignore[reportPrivateUsage]  # the place of this bug
        self._handle = None  # pyright: ignore[reportPrivateUsage]  # the place of this bug
        fs = self._fs  # pyright: ignore[reportPrivateUsage]  # the place of this bug
        fs.close(handle)
        fs.rename(self._temporary, snapshot_path(self.meta))  # pyright: ignore[reportPrivateUsage]  # and here
        fs.fsync_dir(SNAPSHOT_DIRECTORY)

    patch.setattr(SnapshotWriter, "_publish", publish)


def snapshot_named_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    adopt = LogStorage._adopt_own  # pyright: ignore[reportPrivateUsage]  # the place of this bug

    def adopt_own(self: LogStorage, record: SnapshotRecord, publish: Callable[[], None]) -> bool:
        adopted = adopt(self, record, lambda: None)
        publish()
        return adopted

    patch.setattr(LogStorage, "_adopt_own", adopt_own)


def log_trimmed_before_the_snapshot_is_durable(patch: pytest.MonkeyPatch) -> None:
    save = LogStorage.save_snapshot

    def save_snapshot(self: LogStorage, meta: SnapshotMeta, chunks: Sequence[bytes]) -> bool:
        self._lane.drop_before(meta.index + 1)  # pyright: ignore[reportPrivateUsage]  # the place of this bug
        return save(self, meta, chunks)

    patch.setattr(LogStorage, "save_snapshot", save_snapshot)


def segment_named_before_its_first_batch(patch: pytest.MonkeyPatch) -> None:
    write = SegmentLane._write_through  # pyright: ignore[reportPrivateUsage]  # the place of this bug

    def write_through(self: SegmentLane, handle: int, data: bytes, offset: int) -> None:
        if offset:
            write(self, handle, data, offset)
        else:
            self._fs.pwrite(handle, data, 0)  # pyright: ignore[reportPrivateUsage]  # the place of this bug

    patch.setattr(SegmentLane, "_write_through", write_through)


def votes_are_not_written_alone(patch: pytest.MonkeyPatch) -> None:
    write = LogStorage.write

    def write_entries(self: LogStorage, batch: Sequence[Persist]) -> None:
        if any(record.entries or record.snapshot for record in batch):
            write(self, batch)

    patch.setattr(LogStorage, "write", write_entries)


MUTANTS = (
    Mutant(fsync_skipped, (LOST, UNREADABLE), 10, on_files),
    Mutant(directory_not_synced, (LOST, UNREADABLE), 10, on_files),
    Mutant(fsync_error_swallowed, (LOST, UNREADABLE), 60, on_files),
    Mutant(whole_segment_dropped_on_a_torn_tail, (LOST,), 60, dying),
    Mutant(any_damage_passes_for_a_torn_tail, (LOST,), 30, damaging),
    Mutant(slots_are_not_asked, (LOST,), 100, damaging),
    Mutant(payloads_are_not_checked, (SERVED,), 60, damaging),
    Mutant(checksums_cover_only_the_beginning, (SERVED,), 200, damaging),
    Mutant(unproven_tail_is_believed, (LOST, UNREADABLE), 200, dying),
    Mutant(damaged_files_are_cleaned_up, ("damage is left as it is",), 30, damaging),
    Mutant(snapshot_renamed_without_fsync, (LOST, UNREADABLE), 30, saving),
    Mutant(snapshot_named_before_it_is_durable, (LOST, UNREADABLE), 100, saving),
    Mutant(log_trimmed_before_the_snapshot_is_durable, (LOST, UNREADABLE), 100, saving),
    Mutant(segment_named_before_its_first_batch, (LOST, UNREADABLE), 60, on_files),
    Mutant(votes_are_not_written_alone, (LOST, UNREADABLE), 30, on_files),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.plant.__name__)
def test_planted_bug_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.plant(monkeypatch)
    for seed in range(mutant.budget):
        violation = run_case(mutant.case(seed)).violation
        if violation is not None:
            assert violation.oracle in mutant.oracles, violation
            return
    pytest.fail(f"not found within {mutant.budget} seeds")


@pytest.mark.parametrize("case", [dying, saving, damaging])
def test_runs_made_for_mutants_are_clean_without_them(case: Callable[[int], Case]) -> None:
    for seed in range(8):
        assert run_case(case(seed)).violation is None, seed
