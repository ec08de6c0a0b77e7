"""Opening a data directory: making a new one, or reading an old one back, up to the point where it can be written.

Making a directory ends with its IDENT file; without one, a directory was never in use, or is damaged. Reading changes
nothing before the whole log has been judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from quorker.core.errors import ConfigurationError, CorruptionError
from quorker.core.raft.config import NO_PROMISES, NO_SNAPSHOT, DurableState
from quorker.core.raft.messages import Forgotten, HardState
from quorker.core.wire import set_aside, wal
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.hardstate import SLOT_NAMES, Slot, decode_slot, encode_slot
from quorker.core.wire.identity import (
    IDENT,
    IDENT_BYTES,
    Identity,
    decode_identity,
    encode_identity,
    require_same_owner,
)
from quorker.core.wire.recovery import WAL_DIRECTORY, RecoveredLog, Torn, recover_log
from quorker.core.wire.segments import TEMPORARY, SegmentLane
from quorker.core.wire.snapshot_meta import SnapshotRecord
from quorker.core.wire.snapshot_store import SNAPSHOT_DIRECTORY, SUFFIX, SnapshotStore, snapshot_path
from quorker.core.wire.state_slots import StateSlots, read_file, read_slot, replace_file
from quorker.core.wire.storage_errors import DiskFull, NotUnderstood

TORN_SUFFIX: Final = ".torn"
TORN_KEPT: Final = 4
_DIRECTORIES: Final = (WAL_DIRECTORY, SNAPSHOT_DIRECTORY)


@dataclass(slots=True)
class Found:
    """What a directory holds, judged and not yet changed. `notes` are sentences for the operator."""

    identity: Identity
    slots: StateSlots
    log: RecoveredLog
    snapshot: SnapshotRecord | None
    durable: DurableState
    notes: list[str]

    @property
    def is_fresh(self) -> bool:
        """Nothing was ever written or promised here."""
        return self.durable == DurableState() and not self.log.shape.snapshots


@dataclass(frozen=True, slots=True)
class Trust:
    """What to make of a directory that cannot be, or must not be, believed.

    `others_help`: the others can bring this member up to date, so that damage makes it rejoin without a say instead of
    ending it. `rejoin`: somebody says that the directory is not what this node left behind: wiped, or put back.
    """

    others_help: bool = False
    rejoin: bool = False


def open_directory(
    fs: GuardedFileSystem, identity: Identity, segment_bytes: int, create: bool, trust: Trust
) -> Found:
    """Make or read a directory, putting damage aside where that is allowed."""
    if trust.rejoin:
        _doubt(fs, identity, segment_bytes)
    elif is_unused(fs):
        if not create:
            raise ConfigurationError("the data directory holds no data, but this node should have some")
        make_directory(fs, identity, segment_bytes)
    try:
        return read_directory(fs, identity)
    except NotUnderstood:
        raise
    except CorruptionError as damage:
        if not (trust.others_help or trust.rejoin):
            raise
        owner = decode_identity(read_file(fs, IDENT, IDENT_BYTES + 1), IDENT)
        remove_leftovers(fs)
        aside = set_aside.begin_anew(fs, owner, segment_bytes)
        found = read_directory(fs, identity)
        found.notes.append(f"{damage}; log and snapshots were kept aside as {aside}")
        return found


def _doubt(fs: GuardedFileSystem, identity: Identity, segment_bytes: int) -> None:
    """Use the directory as far as it goes, marked as one that may have forgotten promises."""
    try:
        if not is_unused(fs):
            owner = decode_identity(read_file(fs, IDENT, IDENT_BYTES + 1), IDENT)
            require_same_owner(owner, identity, "the data directory")
            set_aside.doubt_everything(fs, owner)
            return
    except CorruptionError:
        set_aside.keep_all_aside(fs)
    make_directory(fs, identity, segment_bytes, HardState(forgotten=Forgotten.PROMISES))


def is_unused(fs: GuardedFileSystem) -> bool:
    """Whether this directory has no IDENT because it was never in use.

    Raises CorruptionError when it was in use all the same: then IDENT was lost.
    """
    names = fs.listdir("")
    if IDENT in names:
        return False
    for name in SLOT_NAMES:
        data = read_slot(fs, name)
        slot = decode_slot(data, None)
        if any(data) and (slot is None or slot.incarnation):
            raise CorruptionError(IDENT, 0, f"is missing, but {name} shows that this directory was in use")
    for directory, suffix, harmless in ((WAL_DIRECTORY, ".wal", 1), (SNAPSHOT_DIRECTORY, SUFFIX, 0)):
        files = fs.listdir(directory) if directory in names else []
        if sum(name.endswith(suffix) for name in files) > harmless:
            raise CorruptionError(IDENT, 0, f"is missing, but there are files in {directory}/")
    return True


def make_directory(
    fs: GuardedFileSystem, identity: Identity, segment_bytes: int, promised: HardState = NO_PROMISES
) -> None:
    """Fill an unused directory; IDENT comes last and is what makes it count. Raises DiskFull."""
    names = fs.listdir("")
    for directory in _DIRECTORIES:
        if directory not in names:
            fs.mkdir(directory)
    for name in fs.listdir(WAL_DIRECTORY):  # an earlier attempt got no further than this
        if set_aside.ASIDE not in name:
            fs.unlink(f"{WAL_DIRECTORY}/{name}")
    lane = SegmentLane(fs, identity, segment_bytes, lambda: False)
    lane.start_segment((), 1, 0, HardState())
    for seq, name in enumerate(SLOT_NAMES):
        slot = Slot(seq, 0, promised, lane.last_batch, 0, lane.segment, lane.offset)
        replace_file(fs, name, encode_slot(slot, identity.dir_uuid))
    lane.close()
    fs.fsync_dir("")
    replace_file(fs, IDENT + TEMPORARY, encode_identity(identity))
    fs.rename(IDENT + TEMPORARY, IDENT)
    fs.fsync_dir("")


def read_directory(fs: GuardedFileSystem, expected: Identity) -> Found:
    """Judge everything in a directory that has an IDENT.

    Raises IdentityMismatch, CorruptionError.
    """
    found = decode_identity(read_file(fs, IDENT, IDENT_BYTES + 1), IDENT)
    require_same_owner(found, expected, "the data directory")
    names = fs.listdir("")
    for directory in _DIRECTORIES:
        if directory not in names:
            raise CorruptionError(directory, 0, "the directory is missing")
        fs.fsync_dir(directory)  # what is visible may not be durable yet
    fs.fsync_dir("")
    slots = StateSlots(fs, found.dir_uuid)
    log = recover_log(_segments(fs), found, slots.newest)
    snapshot, notes = _choose_snapshot(fs, found.cluster_id, log)
    notes += [f"{name} could not be read; the other slot and the log were enough" for name in slots.damaged]
    identity = replace(found, incarnation=slots.newest.incarnation + 1)
    return Found(identity, slots, log, snapshot, _durable_state(log, snapshot), notes)


def _segments(fs: GuardedFileSystem) -> Iterator[tuple[str, bytes]]:
    named = [(wal.parse_segment_name(name), name) for name in fs.listdir(WAL_DIRECTORY)]
    for _, name in sorted((parsed, name) for parsed, name in named if parsed is not None):
        handle = fs.open(f"{WAL_DIRECTORY}/{name}")
        try:
            yield name, fs.pread(handle, fs.size(handle), 0)
        finally:
            fs.close(handle)


def _choose_snapshot(
    fs: GuardedFileSystem, cluster_id: bytes, log: RecoveredLog
) -> tuple[SnapshotRecord | None, list[str]]:
    """The newest snapshot that is intact and that the log continues. Damaged ones stay where they are.

    Raises CorruptionError when there is none although there should be one.
    """
    shape, notes = log.shape, list[str]()
    if not shape.snapshots:
        if shape.first_index != 1:
            raise CorruptionError(
                WAL_DIRECTORY, 0, f"the log begins with entry {shape.first_index}, no snapshot before"
            )
        return None, notes
    store = SnapshotStore(fs, cluster_id)
    damage: CorruptionError | None = None
    for record in reversed(shape.snapshots):
        if record.meta.index + 1 < shape.first_index:
            break
        found = store.damage(record)
        if found is None:
            return record, notes
        damage = damage or found
        notes.append(f"{found}; going back to the snapshot before it")
    if damage is None:
        newest = shape.snapshots[-1].meta
        why = f"ends at {newest.index}, but the log begins with {shape.first_index}"
        raise CorruptionError(snapshot_path(newest), 0, why)
    raise CorruptionError(damage.path, damage.offset, f"{damage.why}; and no older snapshot reaches the log")


def _durable_state(log: RecoveredLog, snapshot: SnapshotRecord | None) -> DurableState:
    meta = NO_SNAPSHOT if snapshot is None else snapshot.meta
    entries = log.entries[max(meta.index + 1 - log.shape.first_index, 0) :]
    promised = log.hard_state
    if promised == NO_PROMISES and snapshot is None and not entries:
        return DurableState()
    commit_index = max(min(promised.commit_index, log.shape.last_index), meta.index)
    hard_state = replace(promised, commit_index=commit_index)
    return DurableState(hard_state, meta, tuple(entries))


def remove_leftovers(fs: GuardedFileSystem) -> None:
    """Files of a process that stopped in the middle of making them."""
    present = fs.listdir("")
    for directory in ("", *[name for name in _DIRECTORIES if name in present]):
        for name in fs.listdir(directory):
            if name.endswith(TEMPORARY):
                fs.unlink(f"{directory}/{name}" if directory else name)


def keep_torn_bytes(fs: GuardedFileSystem, torn: Torn) -> str | None:
    """Put what was cut beside the segment. Best effort when the disk is full: the segment itself stays too, for now."""
    path = f"{torn.path.removesuffix('.wal')}-{torn.offset:08d}{TORN_SUFFIX}"
    older = [name for name in fs.listdir(WAL_DIRECTORY) if name.endswith(TORN_SUFFIX)]
    for name in older:
        if name in older[: 1 - TORN_KEPT] or path.endswith(name):
            fs.unlink(f"{WAL_DIRECTORY}/{name}")
    handle = fs.create(path)
    try:
        fs.pwrite(handle, torn.data, 0)
        fs.fdatasync(handle)
    except DiskFull:
        return None
    finally:
        fs.close(handle)
    return path


def kept_snapshots(
    known: Sequence[SnapshotRecord], chosen: SnapshotRecord | None
) -> tuple[SnapshotRecord, ...]:
    """Of all that the log names: the one that was chosen and the one before it."""
    if chosen is None:
        return ()
    return tuple(record for record in known if record.meta.index <= chosen.meta.index)[-2:]
