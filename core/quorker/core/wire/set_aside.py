"""A directory whose log or snapshots are damaged, of a member that others can bring up to date: what can be read of it is
given up, its files are kept under other names, and the member begins anew without a say (`quorker.core.raft.rejoin`).

Nothing is removed. The mark that the member may have forgotten something is durable before the first file is renamed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from quorker.core.errors import CorruptionError
from quorker.core.raft.messages import NOBODY, Forgotten, HardState
from quorker.core.wire import wal
from quorker.core.wire.filesystem import SECTOR_BYTES
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.hardstate import SLOT_NAMES, Slot
from quorker.core.wire.identity import IDENT, Identity
from quorker.core.wire.recovery import WAL_DIRECTORY, judge_end, segment_header
from quorker.core.wire.segments import SegmentLane
from quorker.core.wire.snapshot_store import SNAPSHOT_DIRECTORY, SUFFIX
from quorker.core.wire.state_slots import StateSlots
from quorker.core.wire.wal_scan import first_nonzero, scan_segment

ASIDE: Final = ".damaged"
_DIRECTORIES: Final = (WAL_DIRECTORY, SNAPSHOT_DIRECTORY)


def begin_anew(fs: GuardedFileSystem, owner: Identity, segment_bytes: int) -> str:
    """Put the log and the snapshots of a directory aside and start an empty log. Returns how they are called now.

    Raises CorruptionError when neither state slot can be read: then not even the incarnation is known.
    """
    slots = StateSlots(fs, owner.dir_uuid)
    promised = surviving_promises(fs, owner, slots.newest)
    slots.open()
    try:
        _write_twice(slots, replace(slots.newest, hard_state=promised))
        number = slots.newest.seq
        keep_aside(fs, number)
        lane = SegmentLane(fs, owner, segment_bytes, lambda: False)
        lane.start_segment((), 1, 0, promised)
        lane.close()
        newest = slots.newest
        _write_twice(
            slots,
            Slot(newest.seq, newest.incarnation, promised, lane.last_batch, 0, lane.segment, lane.offset),
        )
    finally:
        slots.close()
    return f"*{ASIDE}-{number}"


def doubt_everything(fs: GuardedFileSystem, owner: Identity) -> None:
    """Somebody says that this directory is not what this node left behind: mark that it may have forgotten promises."""
    slots = StateSlots(fs, owner.dir_uuid)
    slots.open()
    try:
        marked = replace(slots.newest.hard_state, forgotten=Forgotten.PROMISES)
        _write_twice(slots, replace(slots.newest, hard_state=marked))
    finally:
        slots.close()


def _write_twice(slots: StateSlots, slot: Slot) -> None:
    """The mark must survive the loss of either slot."""
    for _ in SLOT_NAMES:
        slots.write(replace(slot, seq=slots.newest.seq + 1))


def surviving_promises(fs: GuardedFileSystem, owner: Identity, slot: Slot) -> HardState:
    """Term and vote, and whether they are certain: marked ENTRIES if they are, PROMISES if there may have been later ones.

    Certain are those of a newest segment that is whole, and those of a slot behind which nothing was written.
    """
    found = _newest_promises(fs, owner, slot)
    copy = slot.hard_state
    forgot_vote = (
        found is not None and found.term == copy.term and copy.voted_for not in (NOBODY, found.voted_for)
    )
    if found is None or found.term < copy.term or forgot_vote:
        return HardState(copy.term, copy.voted_for, 0, Forgotten.PROMISES)
    mark = max(Forgotten.ENTRIES, copy.forgotten)
    return HardState(found.term, found.voted_for, 0, mark)


def _newest_promises(fs: GuardedFileSystem, owner: Identity, slot: Slot) -> HardState | None:
    """None when they may be among what is damaged."""
    names = fs.listdir(WAL_DIRECTORY) if WAL_DIRECTORY in fs.listdir("") else []
    segments = sorted(
        (parsed, name) for name in names if (parsed := wal.parse_segment_name(name)) is not None
    )
    if not segments or segments[-1][0][0] < slot.sealed_segment:
        return None
    (number, _), name = segments[-1]
    path = f"{WAL_DIRECTORY}/{name}"
    data = _contents(fs, path)
    try:
        header = segment_header(name, data, owner, path)
        seed = wal.segment_seed(header.segment, owner.dir_uuid)
        scan = scan_segment(data, seed, header.previous_batch, path)
        judge_end(data, seed, header.segment, scan, slot, path)
        return scan.batches[-1].hard_state
    except CorruptionError:
        is_last = number == slot.sealed_segment and _is_nothing_behind(data, owner, slot)
        return slot.hard_state if is_last else None


def _is_nothing_behind(data: bytes, owner: Identity, slot: Slot) -> bool:
    """Whether nothing was written behind the end that the slot vouches for.

    Zeros prove that only while the record that ended there is still in its sector, to its last word: what takes the end of
    that record away, or its whole sector, takes what was written behind it too.
    """
    end = slot.sealed_end
    if len(data) < end or first_nonzero(data, end) is not None or not any(data[end - wal.ALIGNMENT : end]):
        return False
    seed = wal.segment_seed(slot.sealed_segment, owner.dir_uuid)
    sector = (end - 1) // SECTOR_BYTES * SECTOR_BYTES
    first = max(sector - wal.RECORD_HEADER_BYTES + wal.ALIGNMENT, wal.SEGMENT_HEADER_BYTES)
    for offset in range(first, end - wal.RECORD_HEADER_BYTES + 1, wal.ALIGNMENT):
        header = wal.header_at(data, offset, seed)
        if header is not None and wal.record_end(header, offset) == end:
            return True
    return False


def _contents(fs: GuardedFileSystem, path: str) -> bytes:
    handle = fs.open(path)
    try:
        return fs.pread(handle, fs.size(handle), 0)
    finally:
        fs.close(handle)


def keep_aside(fs: GuardedFileSystem, number: int) -> None:
    """Rename every segment and snapshot, so that none of them counts any more. `number` tells one time from another."""
    names = fs.listdir("")
    for directory, suffix in zip(_DIRECTORIES, (".wal", SUFFIX), strict=True):
        if directory not in names:
            fs.mkdir(directory)
            fs.fsync_dir("")
        for name in fs.listdir(directory):
            if name.endswith(suffix):
                fs.rename(f"{directory}/{name}", f"{directory}/{name}{ASIDE}-{number}")
        fs.fsync_dir(directory)


def keep_all_aside(fs: GuardedFileSystem) -> None:
    """The same with identity and slots: whose directory this was is not known for certain."""
    names = fs.listdir("")
    number = 1
    while f"{IDENT}{ASIDE}-{number}" in names or any(
        f"{name}{ASIDE}-{number}" in names for name in SLOT_NAMES
    ):
        number += 1
    keep_aside(fs, number)
    for name in (*SLOT_NAMES, IDENT):
        if name in names:
            fs.rename(name, f"{name}{ASIDE}-{number}")
    fs.fsync_dir("")
