"""What the storage offers its driver: batches, seals, snapshots, compaction, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from quorker.core.errors import (
    ConfigurationError,
    IdentityMismatch,
    InvalidInput,
    ProtocolError,
    StorageError,
)
from quorker.core.raft.config import DurableState
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, EntryKind, HardState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.sim.disks.crash_states import ForgetfulFileSystem
from quorker.sim.disks.storage_ledger import Witness, held_by

Opener = Callable[[ForgetfulFileSystem], LogStorage]
MEMBERS = ConfState((1, 2, 3), (4,), (1, 2), (5,), auto_leave=True)


class Calls:
    """Counts what is asked of the file system."""

    def __init__(self, fs: ForgetfulFileSystem) -> None:
        self.seen: list[str] = []
        fs.before = lambda operation, _: self.seen.append(operation)

    def taken(self) -> list[str]:
        seen, self.seen = self.seen, []
        return seen


@pytest.fixture
def calls(fs: ForgetfulFileSystem, witness: Witness) -> Calls:
    assert witness.storage.failure == ""
    return Calls(fs)


def restarted(fs: ForgetfulFileSystem, opener: Opener) -> LogStorage:
    return opener(ForgetfulFileSystem(fs.image()))


# Opening


def test_a_new_directory_is_fresh_and_empty(fs: ForgetfulFileSystem, opener: Opener) -> None:
    storage = opener(fs)
    assert storage.fresh
    assert storage.durable == DurableState()
    assert storage.identity.incarnation == 1


def test_a_directory_that_was_made_but_never_used_is_still_fresh(
    fs: ForgetfulFileSystem, opener: Opener
) -> None:
    opener(fs)
    assert restarted(fs, opener).fresh


def test_a_used_directory_is_not_fresh(fs: ForgetfulFileSystem, witness: Witness, opener: Opener) -> None:
    witness.append(1, b"x")
    assert not restarted(fs, opener).fresh


def test_a_mere_vote_makes_a_directory_used(fs: ForgetfulFileSystem, opener: Opener) -> None:
    opener(fs).write([Persist(1, HardState(1, 2))])
    again = restarted(fs, opener)
    assert not again.fresh
    assert again.durable == DurableState(HardState(1, 2))


def test_every_opening_has_its_own_incarnation(fs: ForgetfulFileSystem, opener: Opener) -> None:
    seen: list[int] = []
    for _ in range(4):
        storage = opener(fs)
        seen.append(storage.identity.incarnation)
        fs = ForgetfulFileSystem(next(fs.crash_images(1)))
    assert seen == [1, 2, 3, 4]


def test_a_directory_that_should_exist_is_not_made(
    fs: ForgetfulFileSystem, identity: Identity, settings: StorageSettings
) -> None:
    with pytest.raises(ConfigurationError, match="holds no data"):
        LogStorage(fs, identity, settings, create=False)
    assert fs.image() == {}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Identity(b"another cluster!", 1), "belongs to cluster"),
        (Identity(b"the cluster's id", 2), "belongs to node 1, but this is node 2"),
    ],
)
def test_another_owner_is_refused_and_nothing_changes(
    fs: ForgetfulFileSystem, witness: Witness, settings: StorageSettings, other: Identity, why: str
) -> None:
    witness.storage.close()
    before = fs.image()
    with pytest.raises(IdentityMismatch, match=why):
        LogStorage(fs, other, settings)
    assert fs.image() == before


def test_the_identity_of_the_directory_is_the_one_it_was_made_with(
    fs: ForgetfulFileSystem, settings: StorageSettings
) -> None:
    LogStorage(fs, Identity(b"the cluster's id", 1, b"made on a monday", 0, 7), settings)
    again = LogStorage(ForgetfulFileSystem(fs.image()), Identity(b"the cluster's id", 1), settings)
    assert again.identity == Identity(b"the cluster's id", 1, b"made on a monday", 2, 7)


def test_settings_that_cannot_work_are_named(fs: ForgetfulFileSystem, identity: Identity) -> None:
    with pytest.raises(ConfigurationError, match="segment_bytes 1000"):
        LogStorage(fs, identity, StorageSettings(segment_bytes=1000))
    with pytest.raises(ConfigurationError, match="reserve_bytes"):
        LogStorage(fs, identity, StorageSettings(reserve_bytes=-1))


def test_a_cluster_begins_once(
    witness: Witness, fs: ForgetfulFileSystem, opener: Opener, first_snapshot: SnapshotMeta
) -> None:
    """M5: a bootstrap never runs over what is there."""
    with pytest.raises(ConfigurationError, match="in use already"):
        witness.storage.bootstrap(first_snapshot)
    with pytest.raises(ConfigurationError, match="in use already"):
        restarted(fs, opener).bootstrap(first_snapshot)


def test_bootstrap_is_what_a_restart_finds(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener, first_snapshot: SnapshotMeta
) -> None:
    expected = DurableState(HardState(1, 0, 1), first_snapshot)
    assert witness.storage.durable == expected
    assert restarted(fs, opener).durable == expected


# The log


def test_one_batch_is_one_write_and_one_sync(witness: Witness, calls: Calls) -> None:
    witness.write(
        Persist(1, HardState(2, 1, 1), entries=(Entry(2, 2, b"a" * 100), Entry(2, 3, b"b"))),
        Persist(2, HardState(3, 2, 1), 3, (Entry(3, 3, b"c"),)),
    )
    assert calls.taken() == ["pwrite", "fdatasync"]


def test_a_vote_is_one_write_and_one_sync(witness: Witness, calls: Calls) -> None:
    witness.write(Persist(1, HardState(5, 2, 1)))
    assert calls.taken() == ["pwrite", "fdatasync"]


def test_a_commit_index_alone_is_not_written(witness: Witness, calls: Calls) -> None:
    witness.write(Persist(1, HardState(1, 0, 1), must_sync=False), Persist(2))
    assert calls.taken() == []


def test_the_commit_index_travels_with_the_next_batch(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    witness.append(1, b"two", b"three")
    witness.write(Persist(1, HardState(1, 0, 3), must_sync=False))
    assert restarted(fs, opener).durable.hard_state.commit_index == 1
    witness.append(1, b"four")
    assert restarted(fs, opener).durable.hard_state.commit_index == 3


def test_a_commit_index_is_never_ahead_of_the_log(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    """L14: the leader's commit index may be beyond what this member has."""
    witness.write(Persist(1, HardState(1, 0, 50), entries=(Entry(1, 2),)))
    assert restarted(fs, opener).durable.hard_state.commit_index == 2


def test_entries_of_all_kinds_and_sizes_come_back(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    for size in range(40):
        kind = EntryKind(size % 3)
        witness.write(Persist(0, entries=(Entry(1 + size // 7, size + 2, bytes([size]) * size, kind),)))
    witness.append(9, b"\0" * 5000)
    assert held_by(restarted(fs, opener)) == witness.acknowledged.held()


def test_overlapping_entries_replace_what_was_there(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    witness.append(1, b"two", b"three", b"four")
    witness.write(Persist(1, entries=(Entry(2, 3, b"other"),)))
    assert witness.storage.last_index == 3
    assert held_by(restarted(fs, opener)) == witness.acknowledged.held()


def test_a_gap_is_refused_before_anything_is_written(witness: Witness, calls: Calls) -> None:
    with pytest.raises(StorageError, match="entry 5 cannot follow entry 1"):
        witness.storage.write([Persist(1, entries=(Entry(1, 5),))])
    assert calls.taken() == []
    witness.append(1, b"two")


def test_the_recovered_entries_are_let_go_with_the_first_write(witness: Witness) -> None:
    witness.append(1, b"x")
    with pytest.raises(StorageError, match="given up"):
        _ = witness.storage.durable


def test_preparing_takes_the_allocation_off_the_hot_path(witness: Witness, calls: Calls) -> None:
    while not witness.storage.wants_prepare:
        witness.append(1, b"x" * 100)
    witness.storage.prepare()
    assert not witness.storage.wants_prepare
    calls.taken()
    segment = witness.storage.log_bytes // 2048
    while witness.storage.log_bytes // 2048 == segment:
        witness.append(1, b"x" * 100)
    assert "allocate" not in calls.taken()


def test_a_seal_is_written_once(witness: Witness, calls: Calls) -> None:
    witness.append(1, b"x")
    assert witness.storage.needs_seal
    witness.storage.seal()
    assert not witness.storage.needs_seal
    calls.taken()
    witness.storage.seal()
    assert calls.taken() == []


def test_after_a_clean_stop_the_log_goes_on_in_its_segment(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    witness.append(1, b"x")
    witness.storage.close()
    names = fs.listdir("wal")
    again = opener(fs)
    again.write([Persist(1, entries=(Entry(1, 3, b"y"),))])
    assert fs.listdir("wal") == names
    assert [entry.data for entry in restarted(fs, opener).durable.entries] == [b"x", b"y"]


def test_after_an_unclean_stop_the_tail_is_written_anew(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    """After a failed fsync a disk may show bytes that it does not hold: reading them is no proof."""
    witness.append(1, b"x")
    names = fs.listdir("wal")
    opener(fs)
    newer = [name for name in fs.listdir("wal") if name not in names]
    assert len(newer) == 1
    opener(fs)  # that one is proven now
    assert fs.listdir("wal") == [*names, *newer]


def test_idle_restarts_after_a_kill_do_not_use_up_the_disk(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    witness.append(1, b"x")
    opener(fs)
    used = len(fs.listdir("wal"))
    for _ in range(5):
        opener(fs)
    assert len(fs.listdir("wal")) == used


# Snapshots


def some_entries(witness: Witness, count: int) -> None:
    for number in range(count):
        witness.append(1, bytes([number % 256]) * 100)


def test_a_snapshot_comes_back_with_its_members(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    some_entries(witness, 10)
    meta = SnapshotMeta(7, 1, MEMBERS)
    witness.save(meta, [b"one", b"", b"three" * 1000])
    again = restarted(fs, opener)
    assert again.durable.snapshot == meta
    assert list(again.open_snapshot(meta)) == [b"one", b"", b"three" * 1000]
    assert again.snapshots[-1].sha256 == hashlib.sha256(b"one" + b"three" * 1000).digest()
    assert again.snapshots[-1].size == 5003
    assert held_by(again) == witness.acknowledged.held()


def test_writing_goes_on_while_a_snapshot_is_written(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    some_entries(witness, 5)
    meta = SnapshotMeta(5, 1, MEMBERS)
    writer = witness.storage.snapshot_writer(meta)
    for number in range(10):
        writer.add(bytes([number]))
        witness.append(1, b"meanwhile")
    assert writer.finish()
    assert restarted(fs, opener).durable.entries[-1].data == b"meanwhile"
    assert b"".join(restarted(fs, opener).open_snapshot(meta)) == bytes(range(10))


def test_compaction_keeps_two_snapshots_and_the_log_behind_the_older(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    some_entries(witness, 60)
    for index in (20, 30, 40):
        witness.save(SnapshotMeta(index, 1, MEMBERS), [str(index).encode()])
        witness.storage.compact(index + 1)
    assert [record.meta.index for record in witness.storage.snapshots] == [30, 40]
    assert len(fs.listdir("snap")) == 2
    assert 1 < witness.storage.first_index <= 31
    assert restarted(fs, opener).first_index == witness.storage.first_index
    assert held_by(restarted(fs, opener)) == witness.acknowledged.held()


def test_compaction_never_goes_beyond_what_a_snapshot_covers(
    witness: Witness, fs: ForgetfulFileSystem
) -> None:
    some_entries(witness, 60)
    names = fs.listdir("wal")
    witness.storage.compact(50)
    assert fs.listdir("wal") == names


def test_an_older_snapshot_than_the_newest_is_not_kept(witness: Witness, fs: ForgetfulFileSystem) -> None:
    """N1: a late snapshot never replaces a newer one."""
    some_entries(witness, 10)
    witness.save(SnapshotMeta(8, 1, MEMBERS), [b"new"])
    names = fs.listdir("snap")
    assert not witness.storage.save_snapshot(SnapshotMeta(6, 1, MEMBERS), [b"old"])
    late = witness.storage.receive_snapshot(SnapshotMeta(8, 1, MEMBERS))
    assert not late.finish()
    assert fs.listdir("snap") == names


def test_a_received_snapshot_counts_only_when_a_persist_names_it(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    some_entries(witness, 5)
    before = witness.acknowledged.held()
    meta = SnapshotMeta(90, 4, MEMBERS)
    witness.receive(meta, [b"from the leader"])
    assert held_by(restarted(fs, opener)) == before
    witness.write(Persist(1, HardState(4, 0, 90), snapshot=meta, truncate_from=2))
    assert held_by(restarted(fs, opener)) == witness.acknowledged.held()
    assert witness.storage.first_index == 91
    assert b"".join(witness.storage.open_snapshot(meta)) == b"from the leader"


def test_a_second_received_snapshot_does_not_make_the_first_unknown(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    """The Persist that names the first may still wait, for room on a full disk or for its turn."""
    first, second = SnapshotMeta(50, 3, ConfState((1, 2))), SnapshotMeta(60, 3, ConfState((1, 2)))
    witness.receive(first, [b"first"])
    witness.receive(second, [b"second"])
    witness.write(
        Persist(1, HardState(3, 0, 50), snapshot=first), Persist(2, HardState(3, 0, 60), snapshot=second)
    )
    assert held_by(opener(ForgetfulFileSystem(fs.image()))) == witness.acknowledged.held()


def test_an_installed_snapshot_keeps_the_log_that_runs_through_it(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    some_entries(witness, 9)
    meta = SnapshotMeta(6, 1, MEMBERS)
    witness.receive(meta, [b"state"])
    witness.write(Persist(1, snapshot=meta))
    again = restarted(fs, opener)
    assert held_by(again) == witness.acknowledged.held()
    assert again.last_index == 10


def test_a_conflicting_log_does_not_survive_an_installed_snapshot(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    """N2: an entry of another term at the snapshot's index, and all behind it, is gone."""
    some_entries(witness, 9)
    meta = SnapshotMeta(6, 2, MEMBERS)
    witness.receive(meta, [b"state"])
    witness.write(Persist(1, snapshot=meta))
    assert restarted(fs, opener).last_index == 6
    witness.append(2, b"seven")
    assert held_by(restarted(fs, opener)) == witness.acknowledged.held()


def test_a_snapshot_that_never_arrived_cannot_be_installed(witness: Witness, calls: Calls) -> None:
    with pytest.raises(StorageError, match="never received"):
        witness.storage.write([Persist(1, snapshot=SnapshotMeta(90, 4, MEMBERS))])
    assert calls.taken() == []


def test_a_snapshot_with_the_wrong_digest_is_thrown_away(witness: Witness, fs: ForgetfulFileSystem) -> None:
    names = fs.listdir("snap")
    writer = witness.storage.receive_snapshot(SnapshotMeta(90, 4, MEMBERS))
    writer.add(b"some bytes")
    with pytest.raises(ProtocolError, match="does not match"):
        writer.finish(hashlib.sha256(b"other bytes").digest())
    assert fs.listdir("snap") == names


def test_the_right_digest_is_accepted(witness: Witness) -> None:
    writer = witness.storage.receive_snapshot(SnapshotMeta(90, 4, MEMBERS))
    writer.add(b"some ")
    writer.add(b"bytes")
    assert writer.finish(hashlib.sha256(b"some bytes").digest())


def test_an_aborted_snapshot_leaves_nothing(witness: Witness, fs: ForgetfulFileSystem) -> None:
    names = fs.listdir("snap")
    writer = witness.storage.snapshot_writer(SnapshotMeta(90, 4, MEMBERS))
    writer.add(b"some bytes")
    writer.abort()
    writer.abort()
    assert fs.listdir("snap") == names
    with pytest.raises(StorageError, match="already finished or given up"):
        writer.add(b"more")


def test_a_snapshot_nobody_has_cannot_be_read(witness: Witness) -> None:
    with pytest.raises(InvalidInput, match="is not here"):
        witness.storage.open_snapshot(SnapshotMeta(90, 4, MEMBERS))


def test_a_chunk_has_a_limit(witness: Witness) -> None:
    writer = witness.storage.snapshot_writer(SnapshotMeta(90, 4, MEMBERS))
    with pytest.raises(InvalidInput, match="at most"):
        writer.add(bytes((4 << 20) + 1))


def test_a_reader_outlives_the_removal_of_its_file(witness: Witness) -> None:
    some_entries(witness, 60)
    metas = [SnapshotMeta(index, 1, MEMBERS) for index in (20, 30, 40)]
    witness.save(metas[0], [b"a", b"b"])
    reader = witness.storage.open_snapshot(metas[0])
    assert next(reader) == b"a"
    for meta in metas[1:]:
        witness.save(meta, [b"x"])
    witness.storage.compact(41)
    assert list(reader) == [b"b"]


def test_leftovers_of_a_killed_process_are_removed(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    witness.storage.snapshot_writer(SnapshotMeta(90, 4, MEMBERS)).add(b"never finished")
    witness.storage.prepare()
    assert [path for path in fs.image() if path.endswith(".tmp")]
    opener(fs)
    assert not [path for path in fs.image() if path.endswith(".tmp")]
