"""A simulated member's disk down to its files: the real storage code on a file system that forgets, tears and fails.

Twin of `quorker.sim.disks.disk` for the host above it, and of `quorker.transport.disk` for the storage on it. A write takes
effect when its fsync would return; a crash before that lets it get so far and no further. After every crash the real
recovery reads what is left, and a ledger of everything that was acknowledged judges what it says. Which damage is done
to a disk at rest is decided in `quorker.sim.faults.files`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from quorker.core.errors import CorruptionError, StorageError, StorageFailed
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import Forgotten, HardState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.core.wire.storage_errors import DiskFull
from quorker.core.wire.storage_open import Trust
from quorker.sim.disks.crash_states import UNLIMITED, ForgetfulFileSystem, Image
from quorker.sim.disks.disk import DiskKnobs, DurableLog, LogDisk
from quorker.sim.disks.storage_ledger import NO_SNAPSHOT, Held, Ledger, held_by
from quorker.sim.oracles.checks import Violation
from quorker.sim.world.kernel import MS, Call, Kernel
from quorker.sim.world.randomness import key, mix

SEAL_AFTER_NS: Final = 50 * MS
FULL_PAUSE_NS: Final = 5 * MS  # before a write that found no room is tried again
CHUNK_BYTES: Final = 700  # of a snapshot: several make up a file
LOW_SEGMENTS: Final = 2  # with less room than that the disk counts as nearly full
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


@dataclass(frozen=True, slots=True)
class Backup:
    """A directory at some time, and what the member on it had acknowledged then."""

    image: Image
    durable: DurableLog
    acknowledged: Ledger
    opened: tuple[bytes, int] = (b"", 0)
    doubtful: tuple[tuple[Persist, Any], ...] = ()
    doubtful_snapshot: tuple[SnapshotMeta, bytes] | None = None


class FileDisk(LogDisk):
    """`damaged`: what was done to the bytes at rest, if anything; only then may a recovery not believe all of them.

    A member of three or more may begin anew from damage, without a say; where it refuses even that, and after a loss
    that it cannot know of, somebody says so at its next start.
    """

    def __init__(
        self, kernel: Kernel, seed: int, node_id: int, knobs: DiskKnobs, durable: DurableLog
    ) -> None:
        super().__init__(kernel, seed, node_id, knobs, durable)
        self.fs = ForgetfulFileSystem()
        self.fs.before = self.trouble = Trouble(self.fs)
        self.damaged = ""
        self.storage: LogStorage | None = None
        self._found_damaged: Mapping[str, bytes] | None = (
            None  # what stood there before anybody began to recover
        )
        self.happened: list[str] = []  # what a good campaign should have seen
        self._name = f"n{node_id}"
        self._file_key = key(seed, "disk files", node_id)
        self._file_draws = 0
        self._empty = durable.state
        self._settings = StorageSettings(
            knobs.segment_bytes, knobs.reserve_bytes, LOW_SEGMENTS * knobs.segment_bytes
        )
        self._node_id = node_id
        self._opened = (b"", 0)  # which directory, and how often
        self._acknowledged = Ledger()
        self._doubtful: list[tuple[Persist, Any]] = []  # records that a crash found in the lane
        self._doubtful_snapshot: tuple[SnapshotMeta, bytes] | None = None
        self._healed = False
        self.trust = Trust(others_help=len(durable.snapshot.conf_state.voters) > 2)
        self._format()

    @property
    def is_low(self) -> bool:
        storage = self.storage
        if storage is None or storage.failure or self.fs.capacity >= UNLIMITED:
            return False
        return storage.is_low

    def _format(self) -> None:
        """Make the directory, as a founder or as one who waits to be invited."""
        storage = LogStorage(self.fs, self._identity(), self._settings)
        meta = self.durable.snapshot
        if meta.index:
            storage.bootstrap(meta)
            self._acknowledged.received[meta] = b""
            self._acknowledged.write(Persist(0, HardState(meta.term, 0, meta.index), snapshot=meta))
        storage.close()
        self._opened = (storage.identity.dir_uuid, storage.identity.incarnation)

    # ------------------------------------------------------------------ life and death

    def open(self) -> bool:
        """Recover. A first attempt may be cut short itself."""
        before = self.fs.image()
        if self._found_damaged is None and self.damaged:
            self._found_damaged = self.fs.at_rest()
        try:
            storage = self._recover()
        except CorruptionError as error:
            self._refuse(str(error), before)
            return False
        except (DiskFull, StorageFailed):
            self.fs.kill()
            return False
        self._believe(storage)
        if self._found_damaged is not None:
            self._check_kept(self._found_damaged)
            self._found_damaged = None
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
        return LogStorage(self.fs, self._identity(), self._settings, create=False, trust=self.trust)

    def _identity(self) -> Identity:
        """A directory that is made anew has a name that none had before."""
        name = mix(self._file_key ^ mix(self._file_draws)).to_bytes(8, "big")
        return Identity(CLUSTER_ID, self._node_id, name * 2)

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
        if self.open():
            self.crash()

    # ------------------------------------------------------------------ what a recovery may say

    def _believe(self, storage: LogStorage) -> None:
        """The storage has recovered: compare with what was acknowledged, and go on from there."""
        if storage.notes and not self.damaged:
            raise Violation("intact disks are read", f"{self._name} says {'; '.join(storage.notes)}")
        found, promised = held_by(storage), storage.hard_state
        ledger = next((ledger for ledger in self._candidates() if self._explains(ledger, found)), None)
        if ledger is None and self._begins_anew(found, promised.forgotten):
            ledger = Ledger(promised)
            self.durable.put_back(DurableLog(promised, NO_SNAPSHOT, self._empty))
            self.happened.append("began anew")
        if ledger is None:
            raise self._accusation(found)
        self._check_numbers(storage.identity, promised.forgotten)
        if found.snapshot.index < self._acknowledged.newest.index and found.snapshot.index:
            self.happened.append("older snapshot taken")
        if storage.torn_path is not None:
            self.happened.append("torn tail cut")
        ledger.hard_state = replace(ledger.hard_state, forgotten=promised.forgotten)
        self._acknowledged, self._doubtful, self._doubtful_snapshot = ledger, [], None
        self.trust = replace(self.trust, rejoin=False)
        self.durable.become(storage.durable, self._decode(found.state))
        self.storage = storage

    def _begins_anew(self, found: Held, forgotten: Forgotten) -> bool:
        """Whether this damaged disk gave up what it held and says so; what it still claims to know must be true."""
        if not self.damaged or not forgotten or found.entries or found.snapshot != NO_SNAPSHOT:
            return False
        promises = [(ledger.hard_state.term, ledger.hard_state.voted_for) for ledger in self._candidates()]
        return forgotten is Forgotten.PROMISES or (found.term, found.voted_for) in promises

    def _check_numbers(self, identity: Identity, forgotten: Forgotten) -> None:
        directory, incarnation = self._opened
        self._opened = (identity.dir_uuid, identity.incarnation)
        if identity.incarnation <= incarnation and (identity.dir_uuid == directory or not self.damaged):
            raise Violation("incarnations grow", f"{self._name} has {identity.incarnation} twice")
        marks = [self._acknowledged.hard_state.forgotten]
        marks += [
            record.hard_state.forgotten for record, _ in self._doubtful if record.hard_state is not None
        ]
        if forgotten < min(marks):
            raise Violation("the mark survives", f"{self._name} no longer knows that it may have forgotten")

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
        is_known = found.snapshot == NO_SNAPSHOT or found.state in (
            ledger.snapshots.get(found.snapshot) for ledger in known
        )
        if not is_known:
            return Violation(SERVED, f"{self._name} reads a snapshot that was never written")
        last, acknowledged = found.snapshot.index + len(found.entries), self._acknowledged
        return Violation(
            "acknowledged writes survive",
            f"{self._name} comes back in term {found.term}, vote {found.voted_for}, at {last}; it had acknowledged "
            f"{acknowledged.hard_state} and {acknowledged.last_index}, snapshot {acknowledged.newest.index}",
        )

    def _refuse(self, why: str, before: Image) -> None:
        """Somebody reads why, and says at the next start that this disk is not to be trusted."""
        self.fs.kill()
        self.trouble.calls_left = None
        if not self.damaged:
            raise Violation("intact disks are read", f"{self._name} does not start: {why}")
        if self.fs.image() != before:
            raise Violation("damage is left as it is", f"{self._name} changed files that it refused to read")
        self.happened.append("recovery refused")
        self.trust = replace(self.trust, rejoin=True)

    def _check_kept(self, before: Mapping[str, bytes]) -> None:
        """Nothing is deleted because it could not be read: log and snapshots are there, perhaps under longer names."""
        after = self.fs.image()
        for path, content in before.items():
            kept = [data for name, data in after.items() if name.startswith(path)]
            if path.endswith((".wal", ".snap")) and content not in kept:
                raise Violation("damage is left as it is", f"{self._name} lost {path} as it started")

    def keep(self) -> Backup:
        """Everything as it is now, with what was acknowledged until now."""
        return Backup(
            self.fs.image(),
            self.durable.image(),
            self._acknowledged.copy(),
            self._opened,
            tuple(self._doubtful),
            self._doubtful_snapshot,
        )

    def nothing(self) -> Backup:
        return Backup({}, DurableLog(HardState(), NO_SNAPSHOT, self._empty), Ledger())

    def put_back(self, backup: Backup, why: str) -> None:
        """The directory is no longer the one that this member left, and somebody says so."""
        self.damaged = why
        self.fs.restore(backup.image)
        self._acknowledged, self._opened = backup.acknowledged, backup.opened
        self._doubtful, self._doubtful_snapshot = list(backup.doubtful), backup.doubtful_snapshot
        self.durable.put_back(backup.durable)
        self.durable.forget(Forgotten.PROMISES)
        self.trust = replace(self.trust, rejoin=True)

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
