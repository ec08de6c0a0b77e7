"""A simulated member's disk down to its files: the real storage code on a file system that forgets, tears and fails.

Twin of `quorker.sim.disk` for the host above it, and of `quorker.transport.disk` for the storage on it. A write takes
effect when its fsync would return; a crash before that lets it get so far and no further. After every crash the real
recovery reads what is left, and a ledger of everything that was acknowledged judges what it says. Which damage is done
to a disk at rest is decided in `quorker.sim.faults_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from quorker.core.errors import CorruptionError, StorageError, StorageFailed
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import HardState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.core.wire.storage_errors import DiskFull
from quorker.sim.checks import Violation
from quorker.sim.crash_states import UNLIMITED, ForgetfulFileSystem, Image
from quorker.sim.disk import DiskKnobs, DurableLog, LogDisk
from quorker.sim.kernel import MS, Call, Kernel
from quorker.sim.randomness import key, mix
from quorker.sim.storage_ledger import Held, Ledger, held_by

SEAL_AFTER_NS: Final = 50 * MS
FULL_PAUSE_NS: Final = 5 * MS  # before a write that found no room is tried again
CHUNK_BYTES: Final = 700  # of a snapshot: several make up a file
SERVED: Final = "corruption is never served"
CLUSTER_ID: Final = b"a simulated one."


class MachineDied(Exception):
    """In the place of a call that the process did not live to make."""


class Trouble:
    """Stands before every call of the file system: lets it pass, fails it, or lets the process end there.

    `calls_left`: how many more it lives to make. `failing_sync` and `failing_write` fail the next one.
    """

    def __init__(self, fs: ForgetfulFileSystem) -> None:
        self._fs = fs
        self.calls_left: int | None = None
        self.failing_sync = self.failing_write = False

    def __call__(self, operation: str, path: str) -> None:
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise MachineDied
            self.calls_left -= 1
        if self.failing_sync and operation in ("fdatasync", "fsync_dir"):
            self.failing_sync = False
            self._fs.loses_at_sync = path
            if operation == "fsync_dir":
                raise OSError(f"fsync of {path} failed")
        elif self.failing_write and operation in ("pwrite", "create", "rename", "unlink", "allocate"):
            self.failing_write = False
            raise OSError(f"{operation} of {path} failed: input/output error")


class FileDisk(LogDisk):
    """`damaged`: what was done to the bytes at rest, if anything; only then may a recovery refuse to believe them."""

    def __init__(
        self, kernel: Kernel, seed: int, node_id: int, knobs: DiskKnobs, durable: DurableLog
    ) -> None:
        super().__init__(kernel, seed, node_id, knobs, durable)
        self.fs = ForgetfulFileSystem()
        self.fs.before = self.trouble = Trouble(self.fs)
        self.damaged = ""
        self.storage: LogStorage | None = None
        self.happened: list[str] = []  # what a good campaign should have seen
        self._name = f"n{node_id}"
        self._file_key = key(seed, "disk files", node_id)
        self._file_draws = 0
        self._empty = durable.state
        self._settings = StorageSettings(knobs.segment_bytes, knobs.reserve_bytes)
        directory = mix(self._file_key).to_bytes(8, "big")
        self._identity = Identity(CLUSTER_ID, node_id, directory * 2)
        self._incarnation = 0
        self._acknowledged = Ledger()
        self._doubtful: list[tuple[Persist, Any]] = []  # records that a crash found in the lane
        self._doubtful_snapshot: tuple[SnapshotMeta, bytes] | None = None
        self._healed = False
        self._left: Image = {}  # what was there when the recovery refused
        self._format()

    def _format(self) -> None:
        """Make the directory, as a founder or as one who waits to be invited."""
        storage = LogStorage(self.fs, self._identity, self._settings)
        meta = self.durable.snapshot
        if meta.index:
            storage.bootstrap(meta)
            self._acknowledged.received[meta] = b""
            self._acknowledged.write(Persist(0, HardState(meta.term, 0, meta.index), snapshot=meta))
        storage.close()
        self._incarnation = storage.identity.incarnation

    # ------------------------------------------------------------------ life and death

    def open(self) -> bool:
        """Recover. A first attempt may be cut short itself."""
        if self.refused:
            return False
        before = self.fs.image()
        try:
            storage = self._recover()
        except CorruptionError as error:
            self._refuse(str(error), before)
            return False
        except (DiskFull, StorageFailed):
            self.fs.kill()
            return False
        self._believe(storage)
        return True

    def _recover(self) -> LogStorage:
        if self._below(8) == 0:
            self.trouble.calls_left = self._below(60)
            try:
                self._open_files()
            except (MachineDied, DiskFull, StorageFailed):
                self.happened.append("recovery interrupted")
            self._die()
        with self._trouble():
            return self._open_files()

    def _open_files(self) -> LogStorage:
        return LogStorage(self.fs, self._identity, self._settings, create=False)

    def crash(self) -> int:
        """Whatever is under way gets so far. Returns how many records a write took along that was still under way."""
        written = self._interrupt()
        self._die()
        self.storage = None
        self._doubtful += [(record, state) for record, state, _ in self._lane]
        self._lane.clear()
        self._flushing = 0
        self._flush_id += 1
        return written

    def _interrupt(self) -> int:
        storage, count = self.storage, self._flushing
        if storage is None or storage.failure:
            return 0
        if self.trouble.calls_left is None:
            self.trouble.calls_left = self._below(2 if self._below(2) else 10)  # a plain append has two
        try:
            if count:
                self._write_files(storage, self._group())
            elif storage.wants_prepare:
                storage.prepare()
            else:
                storage.seal()
        except (MachineDied, DiskFull, StorageFailed):
            return 0
        return count

    def _die(self) -> None:
        """The process alone, or the whole machine."""
        self.trouble.calls_left = None
        way = self._below(8)
        if way < 3:
            self.fs.kill()
        elif way == 3:
            self.fs.power_cut(lambda choices: 0)
        elif way == 4:
            self.fs.power_cut(lambda choices: choices - 1)
        else:
            self.fs.power_cut(self._below)

    def _may_die(self, calls: int) -> None:
        """Once in a while the process does not live to make all the calls of what comes now."""
        if self._below(16) == 0 and not self._healed:
            self.trouble.calls_left = self._below(calls)

    def heal(self) -> None:
        super().heal()
        self._healed = True
        self.trouble.failing_sync = self.trouble.failing_write = False
        self.fs.capacity = UNLIMITED

    def scan(self) -> None:
        """The run is over: what was acknowledged can be read, or what cannot be is as it was found."""
        self.heal()
        if self.refused:
            self.check_refused()
        elif self.open():
            self.crash()

    # ------------------------------------------------------------------ what a recovery may say

    def _believe(self, storage: LogStorage) -> None:
        """The storage has recovered: compare with what was acknowledged, and go on from there."""
        if storage.notes and not self.damaged:
            raise Violation("intact disks are read", f"{self._name} says {'; '.join(storage.notes)}")
        found = held_by(storage)
        ledger = next((ledger for ledger in self._candidates() if self._explains(ledger, found)), None)
        if ledger is None:
            raise self._accusation(found)
        if storage.identity.incarnation <= self._incarnation:
            raise Violation("incarnations grow", f"{self._name} has {storage.identity.incarnation} twice")
        self._incarnation = storage.identity.incarnation
        if found.snapshot.index < self._acknowledged.newest.index:
            self.happened.append("older snapshot taken")
        self._acknowledged = ledger
        self._doubtful.clear()
        self._doubtful_snapshot = None
        self.durable.become(storage.durable, self._decode(found.state))
        if storage.torn_path is not None:
            self.happened.append("torn tail cut")
        self.storage = storage

    def _candidates(self) -> Iterator[Ledger]:
        """What was acknowledged, then with each of the records in doubt; all that with or without a last snapshot."""
        bases = [self._acknowledged]
        if self._doubtful_snapshot is not None:
            with_snapshot = self._acknowledged.copy()
            with_snapshot.save(*self._doubtful_snapshot)
            bases.append(with_snapshot)
        for base in bases:
            ledger = base.copy()
            yield ledger
            for record, state in self._doubtful:
                ledger = ledger.copy()
                self._tell(ledger, record, state)
                yield ledger

    def _explains(self, ledger: Ledger, found: Held) -> bool:
        """A damaged disk may have lost its newest snapshot: the log behind the one before it is there for that."""
        if found.snapshot != ledger.newest:
            if not self.damaged or found != ledger.held(found.snapshot):
                return False
            ledger.snapshots = {
                meta: state for meta, state in ledger.snapshots.items() if meta.index <= found.snapshot.index
            }
        return found == ledger.held()

    def _accusation(self, found: Held) -> Violation:
        known = list(self._candidates())
        for entry in found.entries:
            if all(ledger.entries.get(entry.index) != entry for ledger in known):
                return Violation(SERVED, f"{self._name} reads {entry}, which was never written")
        if all(ledger.snapshots.get(found.snapshot) != found.state for ledger in known):
            return Violation(SERVED, f"{self._name} reads a snapshot that was never written")
        last, acknowledged = found.snapshot.index + len(found.entries), self._acknowledged
        return Violation(
            "acknowledged writes survive",
            f"{self._name} comes back in term {found.term}, vote {found.voted_for}, at {last}; it had acknowledged "
            f"{acknowledged.hard_state} and {acknowledged.last_index}, snapshot {acknowledged.newest.index}",
        )

    def _refuse(self, why: str, before: Image) -> None:
        self.fs.kill()
        self.trouble.calls_left = None
        if not self.damaged:
            raise Violation("intact disks are read", f"{self._name} does not start: {why}")
        self.refused, self._left = why, before
        self.happened.append("recovery refused")
        self.check_refused()

    def lose(self, why: str) -> None:
        """The directory is not the one that this member left: by itself it does not start from that."""
        self.damaged = self.refused = why
        self._left = self.fs.image()

    def check_refused(self) -> None:
        """Nothing is deleted or changed because it could not be read."""
        if self.refused and self.fs.image() != self._left:
            raise Violation("damage is left as it is", f"{self._name} changed files that it refused to read")

    # ------------------------------------------------------------------ writing

    def _write_files(self, storage: LogStorage, group: Sequence[tuple[Persist, Any]]) -> None:
        for record, state in group:
            if record.snapshot is not None:
                self._receive(storage, record.snapshot, self._encode(state))
        storage.write([record for record, _ in group])

    def _receive(self, storage: LogStorage, meta: SnapshotMeta, data: bytes) -> None:
        writer = storage.receive_snapshot(meta)
        for chunk in _chunks(data):
            writer.add(chunk)
        writer.finish()

    def _tell(self, ledger: Ledger, record: Persist, state: Any) -> None:
        if record.snapshot is not None:
            ledger.received[record.snapshot] = self._encode(state)
        ledger.write(record)

    def _group(self) -> list[tuple[Persist, Any]]:
        return [self._lane[place][:2] for place in range(self._flushing)]

    def _sync_group(self) -> bool:
        storage, group = self.storage, self._group()
        assert storage is not None
        try:
            with self._trouble():
                self._write_files(storage, group)
        except DiskFull:
            self.happened.append("found no room")
            self._complete_after(FULL_PAUSE_NS)
            return False
        except StorageFailed:
            self.on_failed(group[0][0])
            return False
        for record, state in group:
            self._tell(self._acknowledged, record, state)
        return True

    def _finish_group(self) -> None:
        super()._finish_group()
        storage = self.storage
        if storage is not None:
            self._kernel.after(SEAL_AFTER_NS, self._seal, self._flush_id)
            if storage.wants_prepare:
                self._attempt(storage.prepare)

    def _seal(self, call: Call) -> None:
        storage = self.storage
        if storage is not None and call.payload == self._flush_id and not self.stalled:
            self._attempt(storage.seal)

    # ------------------------------------------------------------------ snapshots

    def save_snapshot(self, meta: SnapshotMeta, state: Any) -> bool:
        storage, data = self.storage, self._encode(state)
        assert storage is not None
        self._doubtful_snapshot = (meta, data)
        self._may_die(16)
        saved = self._attempt(lambda: storage.save_snapshot(meta, _chunks(data)))
        if self.storage is not storage:
            return False
        self.trouble.calls_left = self._doubtful_snapshot = None
        if saved:
            self._acknowledged.save(meta, data)
            self.durable.install(meta, state)
        return saved

    def load_snapshot(self) -> Any:
        """A damaged file ends the process; the next one goes back to the snapshot before it."""
        storage, meta = self.storage, self.durable.snapshot
        assert storage is not None
        try:
            data = b"".join(storage.open_snapshot(meta))
        except CorruptionError as error:
            if not self.damaged:
                raise Violation("intact disks are read", f"{self._name} sends no snapshot: {error}") from None
            self.on_broken()
            return None
        if data != self._acknowledged.snapshots[meta]:
            raise Violation(SERVED, f"{self._name} sends a snapshot nobody ever wrote")
        return self._decode(data)

    def compact(self, keep_from: int) -> None:
        storage = self.storage
        if storage is None:
            return
        self._may_die(4)
        self._attempt(lambda: storage.compact(keep_from))
        if self.storage is storage:
            self.trouble.calls_left = None

    def _attempt(self, act: Callable[[], Any]) -> bool:
        """Do something that can fail for lack of space. Any other failure ends the process."""
        try:
            with self._trouble():
                return act() is not False
        except DiskFull:
            self.happened.append("found no room")
            return False
        except (StorageFailed, MachineDied):
            self.on_broken()
            return False

    @contextmanager
    def _trouble(self) -> Generator[None]:
        """Faults that wait for this member strike now; what it calls wrongly is a bug."""
        self.trouble.failing_sync, self.failing = self.failing, False
        try:
            yield
        except (DiskFull, StorageFailed, CorruptionError):
            raise
        except StorageError as error:
            raise Violation("disk lane", f"{self._name}: {error}") from error
        finally:
            self.failing, self.trouble.failing_sync = self.trouble.failing_sync, False

    # ------------------------------------------------------------------ bytes and draws

    def _encode(self, state: Any) -> bytes:
        """A bare member's state is a number: pad it, so that it takes several sectors."""
        if isinstance(state, bytes):
            return state
        return b"" if state == self._empty else state.to_bytes(8, "big") + bytes(state % 4 * CHUNK_BYTES)

    def _decode(self, data: bytes) -> Any:
        if not data:
            return self._empty
        return data if isinstance(self._empty, bytes) else int.from_bytes(data[:8], "big")

    def _below(self, limit: int) -> int:
        self._file_draws += 1
        return (mix(self._file_key + self._file_draws) >> 32) * limit >> 32


def _chunks(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
