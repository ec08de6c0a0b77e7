"""P14 and the lock: one process per directory, private files, and every mistake named. On real files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quorker.core.errors import ConfigurationError, CorruptionError, IdentityMismatch, StorageFailed
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import StorageSettings
from quorker.core.wire.storage_errors import DiskFull
from quorker.sim.disks.storage_ledger import Witness, held_by
from quorker.transport.disk import Disk

MEMBERS = ConfState((1, 2, 3))
SMALL = StorageSettings(segment_bytes=65536, reserve_bytes=65536)
HOLDER = """
import os, sys
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import StorageSettings
from quorker.transport.disk import Disk
disk = Disk.open(sys.argv[1], Identity(b"the cluster's id", 1), StorageSettings(65536, 0))
print(os.getpid(), flush=True)
if "fork" in sys.argv and not os.fork():
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def reopen(data_dir: Path, identity: Identity) -> Callable[[], Disk]:
    return lambda: Disk.open(data_dir, identity, SMALL)


@contextmanager
def holder(data_dir: Path, *flags: str) -> Generator[tuple[subprocess.Popen[str], list[int]]]:
    """Another process that has the directory open: (process, its pid and that of its forked child)."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir), *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process, [int(process.stdout.readline()) for _ in ("itself", *flags)]
    finally:
        process.kill()
        process.stdin.close()  # a forked child ends when nobody can write to it any more
        process.wait()
        process.stdout.close()


def test_a_life_on_real_files(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    disk = reopen()
    witness = Witness(disk)
    witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    for number in range(60):
        witness.append(2, bytes([number]) * 5000)
    witness.save(SnapshotMeta(20, 2, MEMBERS), [b"state" * 1000])
    witness.save(SnapshotMeta(40, 2, MEMBERS), [b"newer" * 1000])
    disk.compact(41)
    disk.prepare()
    assert disk.free_bytes > 0
    disk.close()
    again = reopen()
    assert held_by(again) == witness.acknowledged.held()
    assert not again.fresh
    assert again.identity.incarnation == 2
    again.close()
    assert sorted(path.name for path in data_dir.iterdir()) == [
        "IDENT", "LOCK", "RESERVE", "STATE.0", "STATE.1", "snap", "wal",
    ]  # fmt: skip


def test_everything_is_private(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    disk = reopen()
    disk.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    disk.close()
    for path in (data_dir, *data_dir.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_directory_that_others_can_change_is_refused(
    mode: int, data_dir: Path, reopen: Callable[[], Disk]
) -> None:
    data_dir.mkdir()
    data_dir.chmod(mode)
    with pytest.raises(ConfigurationError, match=r"can be changed by others.*chmod 700"):
        reopen()
    assert list(data_dir.iterdir()) == []


def test_a_directory_that_others_can_read_is_told(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    data_dir.mkdir(mode=0o755)
    data_dir.chmod(0o755)
    disk = reopen()
    assert any("can be read by others" in note for note in disk.notes)
    disk.close()


def test_a_path_that_cannot_be_a_directory_is_named(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    data_dir.write_text("a file")
    with pytest.raises(ConfigurationError, match=f"data directory {data_dir} cannot be used"):
        reopen()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable for the superuser")
def test_an_unwritable_directory_is_named(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    data_dir.mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match="cannot be used: Permission denied"):
        reopen()


def test_a_second_process_is_kept_out_and_told_who_is_in(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    with holder(data_dir) as (process, _):
        who = f"in use by process {process.pid} on "
        with pytest.raises(ConfigurationError, match=who):
            reopen()


def test_a_second_opening_in_the_same_process_is_kept_out(reopen: Callable[[], Disk]) -> None:
    disk = reopen()
    with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()} on "):
        reopen()
    disk.close()
    reopen().close()


def test_the_lock_dies_with_its_process(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    with holder(data_dir) as (process, _):
        process.kill()
        process.wait()
        reopen().close()


def test_a_forked_child_does_not_keep_the_lock(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    """A worker process of the app outlives the member: its copy of the lock must not lock anybody out."""
    with holder(data_dir, "fork") as (process, pids):
        process.kill()
        process.wait()
        os.kill(pids[1], 0)  # the child lives
        reopen().close()


def test_a_forked_child_does_not_take_the_lock_away(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    with holder(data_dir, "fork") as (_, pids):
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(ConfigurationError, match="in use by process"):
            reopen()


def test_a_forked_child_cannot_write(reopen: Callable[[], Disk]) -> None:
    disk = reopen()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            disk.write([Persist(1, HardState(5, 1))])
        except StorageFailed:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    disk.write([Persist(1, HardState(4, 1))])
    disk.close()
    again = reopen()
    assert again.durable.hard_state == HardState(4, 1)
    again.close()


def test_after_closing_nothing_can_be_written(reopen: Callable[[], Disk]) -> None:
    disk = reopen()
    disk.close()
    with pytest.raises(StorageFailed):
        disk.write([Persist(1, HardState(5, 1))])


@pytest.mark.parametrize(
    "other", [Identity(b"another cluster!", 1), Identity(b"the cluster's id", 2)], ids=["cluster", "node"]
)
def test_another_owner_is_refused_and_the_lock_is_given_back(
    other: Identity, data_dir: Path, reopen: Callable[[], Disk]
) -> None:
    reopen().close()
    with pytest.raises(IdentityMismatch, match=str(data_dir)):
        Disk.open(data_dir, other, SMALL)
    reopen().close()


def test_a_wiped_directory_is_fresh_again_and_another_one(
    data_dir: Path, reopen: Callable[[], Disk], identity: Identity
) -> None:
    """S8: whether a member may be fresh is for the caller to say; that it is, is for the disk."""
    disk = Disk.open(data_dir, Identity(identity.cluster_id, 1), SMALL)
    disk.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    first = disk.identity.dir_uuid
    disk.close()
    data_dir.rename(data_dir.with_name("away"))
    with pytest.raises(ConfigurationError, match="should have some"):
        Disk.open(data_dir, identity, SMALL, create=False)
    disk = Disk.open(data_dir, Identity(identity.cluster_id, 1), SMALL)
    assert disk.fresh
    assert disk.identity.dir_uuid != first
    disk.close()


def test_corruption_names_the_whole_path(data_dir: Path, reopen: Callable[[], Disk]) -> None:
    reopen().close()
    (segment,) = (data_dir / "wal").iterdir()
    content = bytearray(segment.read_bytes())
    content[40] ^= 1
    segment.write_bytes(content)
    with pytest.raises(CorruptionError, match=f"^{segment} is damaged at byte 0: ") as caught:
        reopen()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_device_or_quota_is_disk_full(
    code: int, reopen: Callable[[], Disk], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed reservation leaves the file extended and the disk full: it is removed at once."""
    disk = reopen()
    names = sorted(path.name for path in (data_dir / "wal").iterdir())

    def no_room(*_: int) -> None:
        raise OSError(code, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        with pytest.raises(DiskFull):
            disk.prepare()
    assert sorted(path.name for path in (data_dir / "wal").iterdir()) == names
    disk.prepare()
    disk.close()


def test_a_failed_fdatasync_ends_it(reopen: Callable[[], Disk], monkeypatch: pytest.MonkeyPatch) -> None:
    disk = reopen()

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(StorageFailed, match="fdatasync"):
            disk.write([Persist(1, HardState(2, 1))])
    with pytest.raises(StorageFailed, match="must end"):
        disk.write([Persist(1, HardState(2, 1))])
    disk.close()
    reopen().close()


def test_short_writes_and_reads_are_completed(
    reopen: Callable[[], Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = reopen()
    real_write, real_read = os.pwrite, os.pread

    def short_write(handle: int, data: bytes, offset: int) -> int:
        return real_write(handle, data[:100], offset)

    def short_read(handle: int, size: int, offset: int) -> bytes:
        return real_read(handle, min(size, 1000), offset)

    monkeypatch.setattr(os, "pwrite", short_write)
    disk.write([Persist(1, HardState(2, 1), entries=(Entry(2, 1, b"x" * 1000),))])
    disk.close()
    monkeypatch.undo()
    monkeypatch.setattr(os, "pread", short_read)
    again = reopen()
    assert again.durable.entries == (Entry(2, 1, b"x" * 1000),)
    again.close()
