"""P11 and P12: the first failed call is the last one that is trusted (D4), and a full disk is an answer, not an end."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from quorker.core.errors import EXIT_STORAGE_FAILED, ConfigurationError, StorageFailed
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.core.wire.storage_errors import DiskFull
from quorker.sim.disks.crash_states import ForgetfulFileSystem
from quorker.sim.disks.storage_ledger import Witness, held_by

Opener = Callable[[ForgetfulFileSystem], LogStorage]
MEMBERS = ConfState((1, 2, 3))
EVERY_CALL: dict[str, Callable[[LogStorage], object]] = {
    "write": lambda storage: storage.write([Persist(9, HardState(9, 1))]),
    "write nothing": lambda storage: storage.write([]),
    "seal": lambda storage: storage.seal(),
    "prepare": lambda storage: storage.prepare(),
    "compact": lambda storage: storage.compact(1),
    "snapshot": lambda storage: storage.save_snapshot(SnapshotMeta(99, 9, MEMBERS), [b"x"]),
    "receive": lambda storage: storage.receive_snapshot(SnapshotMeta(99, 9, MEMBERS)),
    "read": lambda storage: list(storage.open_snapshot(storage.snapshots[-1].meta)),
}


@dataclass
class Fault:
    """Fails the call of number `at`, counted from when it was set."""

    at: int
    calls: int = 0
    hit: str = ""

    def __call__(self, operation: str, path: str) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.hit = f"{operation} {path}"
            raise OSError(errno.EIO, "an injected error")


def busy_life(witness: Witness) -> None:
    """A bit of everything that writes."""
    for number in range(12):
        witness.append(2, bytes([number]) * 150)
    witness.write(Persist(0, HardState(3, 2, 5), 9, (Entry(3, 9, b"other"),)))
    witness.seal()
    witness.save(SnapshotMeta(6, 2, MEMBERS), [b"state"])
    witness.save(SnapshotMeta(8, 2, MEMBERS), [b"newer state"])
    witness.storage.compact(8)
    witness.storage.prepare()
    witness.receive(SnapshotMeta(50, 3, MEMBERS), [b"from the leader"])
    witness.write(Persist(0, HardState(3, 2, 50), snapshot=SnapshotMeta(50, 3, MEMBERS)))
    witness.append(3, b"the end" * 100)
    witness.storage.compact(51)
    witness.storage.close()


def calls_of_a_busy_life(opener: Opener) -> int:
    fs = ForgetfulFileSystem()
    witness = Witness(opener(fs))
    witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    fault = Fault(0)
    fs.before = fault
    busy_life(witness)
    return fault.calls


def fails_at(number: int, opener: Opener) -> tuple[ForgetfulFileSystem, Witness, str]:
    """A life that ended at its call of this number, and what that call was."""
    fs = ForgetfulFileSystem()
    witness = Witness(opener(fs))
    witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    fault = Fault(number)
    fs.before = fault
    with pytest.raises(StorageFailed):
        busy_life(witness)
    fs.before = lambda operation, path: None
    return fs, witness, fault.hit


def test_any_failed_call_ends_it_and_loses_nothing(opener: Opener) -> None:
    """What a failed call left is in doubt; a restart, also after a power cut, finds all that was acknowledged."""
    total = calls_of_a_busy_life(opener)
    hits: set[str] = set()
    for number in range(1, total + 1):
        fs, witness, hit = fails_at(number, opener)
        hits.add(hit.partition(" ")[0])
        assert witness.storage.failure != ""
        for image in (fs.image(), *fs.crash_images(16, seed=number)):
            assert witness.explains(held_by(opener(ForgetfulFileSystem(image)))), hit
    assert hits >= {"pwrite", "fdatasync", "rename", "fsync_dir", "create", "allocate", "unlink"}


@pytest.mark.parametrize("call", EVERY_CALL)
def test_after_a_failure_every_call_fails(call: str, fs: ForgetfulFileSystem, witness: Witness) -> None:
    fs.before = Fault(2)
    with pytest.raises(StorageFailed):
        witness.append(1, b"its fsync fails")
    fs.before = lambda operation, path: None
    with pytest.raises(StorageFailed, match="must end") as caught:
        EVERY_CALL[call](witness.storage)
    assert caught.value.exit_code == EXIT_STORAGE_FAILED


def test_after_a_failure_closing_writes_nothing(fs: ForgetfulFileSystem, witness: Witness) -> None:
    fs.before = Fault(2)
    with pytest.raises(StorageFailed):
        witness.append(1, b"its fsync fails")
    asked: list[str] = []
    fs.before = lambda operation, path: asked.append(operation)
    witness.storage.close()
    assert asked == []


def test_an_fsync_is_never_tried_again(fs: ForgetfulFileSystem, witness: Witness) -> None:
    """S3: the second fsync would succeed, and prove nothing."""
    syncs: list[str] = []

    def failing_once(operation: str, path: str) -> None:
        if operation == "fdatasync":
            syncs.append(path)
            if len(syncs) == 1:
                raise OSError(errno.EIO, "an injected error")

    fs.before = failing_once
    for _ in range(2):
        with pytest.raises(StorageFailed):
            witness.append(1, b"x")
    assert len(syncs) == 1


def test_what_a_failed_fsync_left_in_memory_is_not_believed(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    """The next process reads bytes that the disk does not have. Once it relied on them, a power cut takes nothing."""
    witness.append(1, b"safe")
    fs.loses_at_sync = f"wal/{fs.listdir('wal')[-1]}"
    with pytest.raises(StorageFailed):
        witness.append(1, b"only in memory")
    fs.loses_at_sync = ""
    storage = opener(fs)
    relied_upon = held_by(storage)
    assert relied_upon == witness.told.held()
    storage.write([Persist(1, entries=(Entry(1, 4, b"next"),))])
    (safe,) = set(map(repr, (held_by(opener(ForgetfulFileSystem(image))) for image in fs.crash_images(64))))
    assert "only in memory" in safe
    assert "next" in safe


def test_a_failed_call_while_opening_leaves_the_directory_as_good_as_before(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    witness.append(1, b"two")
    image = fs.image()
    number, fault = 0, Fault(0)
    while number == fault.calls or fault.hit:
        number += 1
        again, fault = ForgetfulFileSystem(image), Fault(number)
        again.before = fault
        try:
            opener(again)
        except StorageFailed:
            for left in (again.image(), *again.crash_images(16)):
                assert held_by(opener(ForgetfulFileSystem(left))) == witness.acknowledged.held()
    assert number > 20


# Full


def test_no_room_for_a_segment_refuses_the_batch_and_heals(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    fs.capacity = 6000
    while fs.free_bytes() >= 2048 or witness.storage.log_bytes % 2048 < 1700:
        witness.append(1, b"x" * 200)
    for _ in range(3):
        with pytest.raises(DiskFull):
            witness.append(1, b"x" * 200)
    assert witness.storage.failure == ""
    assert held_by(opener(ForgetfulFileSystem(fs.image()))) == witness.acknowledged.held()
    fs.capacity = 20_000
    witness.append(1, b"there is room again")
    assert held_by(opener(ForgetfulFileSystem(fs.image()))) == witness.acknowledged.held()


def test_a_small_batch_still_fits_when_a_large_one_does_not(
    fs: ForgetfulFileSystem, witness: Witness
) -> None:
    fs.capacity = 4000
    with pytest.raises(DiskFull):
        witness.append(1, b"x" * 3000)
    witness.append(1, b"x")


def test_no_room_to_prepare_is_harmless(fs: ForgetfulFileSystem, witness: Witness) -> None:
    names = fs.listdir("wal")
    fs.capacity = 0
    with pytest.raises(DiskFull):
        witness.storage.prepare()
    assert fs.listdir("wal") == names
    witness.append(1, b"x")


def test_no_room_for_a_snapshot_leaves_nothing_of_it(fs: ForgetfulFileSystem, witness: Witness) -> None:
    witness.append(1, b"two")
    names = fs.listdir("snap")
    fs.capacity = 8000
    with pytest.raises(DiskFull):
        witness.storage.save_snapshot(SnapshotMeta(2, 1, MEMBERS), [b"x" * 2000] * 5)
    assert fs.listdir("snap") == names
    witness.append(1, b"three")


def test_no_room_within_allocated_space_is_a_failed_disk(fs: ForgetfulFileSystem, witness: Witness) -> None:
    """It cannot be; when it happens all the same, what is on the disk is unknown."""

    def full(operation: str, path: str) -> None:
        if operation == "pwrite":
            raise DiskFull("no space left")

    fs.before = full
    with pytest.raises(StorageFailed):
        witness.append(1, b"x")


def test_the_reserve_is_given_up_when_the_disk_is_full_and_taken_again(
    fs: ForgetfulFileSystem, identity: Identity
) -> None:
    settings = StorageSettings(segment_bytes=2048, reserve_bytes=3000)
    fs.capacity = 20_000
    witness = Witness(LogStorage(fs, identity, settings))
    witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    assert "RESERVE" in fs.listdir("")
    fs.capacity -= fs.free_bytes()
    while "RESERVE" in fs.listdir(""):
        witness.append(1, b"x" * 200)
    assert witness.storage.failure == ""
    fs.capacity = 60_000
    witness.storage.prepare()
    assert "RESERVE" in fs.listdir("")


def test_a_reserve_of_another_size_is_replaced(fs: ForgetfulFileSystem, identity: Identity) -> None:
    for size in (3000, 1000):
        LogStorage(fs, identity, StorageSettings(2048, size)).close()
        content = fs.image()["RESERVE"]
        assert content is not None
        assert len(content) == size
    LogStorage(fs, identity, StorageSettings(2048, 0)).close()
    assert "RESERVE" not in fs.listdir("")


def test_a_full_disk_does_not_stop_a_restart(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    """Except for the one segment that an unclean stop may need; then it is refused with the reason named."""
    witness.append(1, b"x")
    image = fs.image()
    full = ForgetfulFileSystem(image, capacity=0)
    with pytest.raises(DiskFull):
        opener(full)
    assert held_by(opener(ForgetfulFileSystem(full.image()))) == witness.acknowledged.held()
    witness.storage.close()
    assert held_by(opener(ForgetfulFileSystem(fs.image(), capacity=0))) == witness.acknowledged.held()


def test_a_snapshot_may_take_the_reserve(fs: ForgetfulFileSystem, identity: Identity) -> None:
    fs.capacity = 40_000
    witness = Witness(LogStorage(fs, identity, StorageSettings(segment_bytes=2048, reserve_bytes=6000)))
    witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    witness.append(1, b"two")
    assert "RESERVE" in fs.listdir("")
    fs.capacity -= fs.free_bytes()
    assert witness.storage.save_snapshot(SnapshotMeta(2, 1, MEMBERS), [b"x" * 1000] * 3)
    assert "RESERVE" not in fs.listdir("")


def test_a_snapshot_that_the_log_has_no_room_to_name_is_taken_back(
    fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    while witness.storage.log_bytes % 2048 < 1900:
        witness.append(1, b"x" * 20)
    names = fs.listdir("snap")
    last = witness.storage.last_index
    fs.capacity = fs.used_bytes + 1000
    with pytest.raises(DiskFull):
        witness.storage.save_snapshot(SnapshotMeta(last, 1, MEMBERS), [b"x" * 100])
    assert fs.listdir("snap") == names
    assert held_by(opener(ForgetfulFileSystem(fs.image()))) == witness.acknowledged.held()


def test_low_space_is_told_before_it_is_gone(fs: ForgetfulFileSystem, identity: Identity) -> None:
    storage = LogStorage(fs, identity, StorageSettings(segment_bytes=2048, reserve_bytes=0, low_bytes=5000))
    fs.capacity = fs.used_bytes + 5000
    assert not storage.is_low
    fs.capacity -= 1
    assert storage.is_low
    with pytest.raises(ConfigurationError, match="low_bytes"):
        StorageSettings(low_bytes=-1).validate()
