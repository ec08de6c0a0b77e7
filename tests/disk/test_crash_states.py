"""P15: whatever a power cut leaves of any operation, a restart finds all that was acknowledged.

Each scenario stops after every change that it makes to the file system, builds the states that a crash may leave there
(all of them, or a sample where there are too many), recovers each, and writes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import pytest

from quorker.core.errors import CorruptionError, StorageFailed
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.core.wire.storage import LogStorage
from quorker.sim.disks.crash_states import ForgetfulFileSystem, Image
from quorker.sim.disks.storage_ledger import Held, Witness, held_by

STATES_PER_POINT: Final = 1024
MEMBERS: Final = ConfState((1, 2, 3), (4,))
Opener = Callable[[ForgetfulFileSystem], LogStorage]
Act = Callable[[Witness], None]


@dataclass
class Inquest:
    """Recovers every state that a crash at this very moment may leave. `found`: how it was each time."""

    fs: ForgetfulFileSystem
    opener: Opener
    explains: Callable[[Held], bool]
    incarnation: int = 0
    points: int = 0
    found: set[Held] = field(default_factory=set[Held])
    _seen: set[int] = field(default_factory=set[int])

    def hold(self) -> None:
        self.points += 1
        for image in (self.fs.image(), *self.fs.crash_images(STATES_PER_POINT, seed=self.points)):
            if (digest := hash(tuple(image.items()))) not in self._seen:
                self._seen.add(digest)
                self.examine(image)

    def examine(self, image: Image) -> None:
        fs = ForgetfulFileSystem(image)
        storage = self.opener(fs)
        found = held_by(storage)
        assert self.explains(found), f"point {self.points}: {found}"
        assert storage.identity.incarnation > self.incarnation
        self.found.add(found)
        self.write_on(fs, storage, found)

    def write_on(self, fs: ForgetfulFileSystem, storage: LogStorage, before: Held) -> None:
        """What is written after the recovery is there after the next one; nothing hides it (S6)."""
        entry = Entry(before.term + 1, storage.last_index + 1, b"after the crash")
        storage.write([Persist(1, HardState(before.term + 1, 1, 1), entries=(entry,))])
        expected = Held(before.term + 1, 1, before.snapshot, before.state, (*before.entries, entry))
        for safe in fs.crash_images(1):
            assert held_by(self.opener(ForgetfulFileSystem(safe))) == expected


def some_log(witness: Witness) -> None:
    witness.write(Persist(0, HardState(2, 3, 1)))
    witness.append(2, b"two", b"three" * 20)
    witness.append(2, b"four")


def long_log(witness: Witness) -> None:
    some_log(witness)
    for number in range(37):
        witness.append(2, bytes([number]) * 150)


def snapshots(witness: Witness) -> None:
    long_log(witness)
    witness.save(SnapshotMeta(10, 2, MEMBERS), [b"state at 10", b"more"])
    witness.storage.compact(9)


def almost_full(witness: Witness) -> None:
    some_log(witness)
    while witness.storage.log_bytes < 1700:
        witness.append(2, b"x" * 40)


def almost_full_prepared(witness: Witness) -> None:
    almost_full(witness)
    witness.storage.prepare()


def received(witness: Witness) -> None:
    long_log(witness)
    witness.receive(SnapshotMeta(100, 3, MEMBERS), [b"from the leader" * 50])


def install(witness: Witness) -> None:
    snapshot = SnapshotMeta(100, 3, MEMBERS)
    entries = (Entry(3, 101, b"behind the snapshot"),)
    witness.write(Persist(0, HardState(3, 0, 100), 20, entries, snapshot))


def save_and_compact(witness: Witness) -> None:
    witness.save(SnapshotMeta(30, 2, MEMBERS), [b"state at 30", b"z" * 600])
    witness.storage.compact(31)


def sealed_log(witness: Witness) -> None:
    some_log(witness)
    witness.seal()


def installed(witness: Witness) -> None:
    received(witness)
    install(witness)


def joined(witness: Witness) -> None:
    last = witness.acknowledged.last_index
    witness.write(
        Persist(1, HardState(3, 0, 4), entries=(Entry(3, last + 1, b"one"),)),
        Persist(2, HardState(4, 2, 4), truncate_from=last + 1, entries=(Entry(4, last + 1, b"two" * 200),)),
        Persist(3, entries=(Entry(4, last + 2, b"three"),)),
    )


SCENARIOS: dict[str, tuple[Act, Act]] = {
    "append": (some_log, lambda witness: witness.append(2, b"five")),
    "append over several sectors": (some_log, lambda witness: witness.append(2, b"5" * 500, b"6" * 300, b"7")),
    "append behind a seal": (sealed_log, lambda w: w.append(2, b"five")),
    "several records in one write": (some_log, joined),
    "a vote": (some_log, lambda witness: witness.write(Persist(0, HardState(7, 2, 1)))),
    "truncate and overwrite": (some_log, lambda w: w.write(Persist(0, HardState(3, 0, 2), 3, (Entry(3, 3, b"x"),)))),
    "seal": (some_log, lambda witness: witness.seal()),
    "close": (some_log, lambda witness: witness.storage.close()),
    "prepare": (almost_full, lambda witness: witness.storage.prepare()),
    "segment change": (almost_full, lambda witness: witness.append(2, b"y" * 400)),
    "prepared segment change": (almost_full_prepared, lambda witness: witness.append(2, b"y" * 400)),
    "a record larger than a segment": (some_log, lambda witness: witness.append(2, b"y" * 5000)),
    "save a snapshot": (long_log, lambda witness: witness.save(SnapshotMeta(30, 2, MEMBERS), [b"state", b"z" * 700])),
    "save and compact": (snapshots, save_and_compact),
    "receive a snapshot": (long_log, lambda w: w.receive(SnapshotMeta(100, 3, MEMBERS), [b"leader's"])),
    "install a snapshot": (received, install),
    "compact after installing": (installed, lambda w: w.storage.compact(101)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_crash_state_recovers(
    name: str, fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    prepare, act = SCENARIOS[name]
    prepare(witness)
    segments = names_in(fs, "wal")
    inquest = Inquest(fs, opener, witness.explains, witness.storage.identity.incarnation)
    inquest.hold()
    fs.after_change = inquest.hold
    act(witness)
    assert inquest.points > 1
    assert witness.acknowledged.held() in inquest.found
    assert (names_in(fs, "wal") != segments) == (name in CHANGES_SEGMENTS)


@pytest.mark.parametrize("name", ["append over several sectors", "segment change", "install a snapshot"])
def test_a_crash_may_come_in_the_middle_of_a_recovery(
    name: str, fs: ForgetfulFileSystem, witness: Witness, opener: Opener
) -> None:
    prepare, act = SCENARIOS[name]
    prepare(witness)
    images: list[Image] = []
    fs.after_change = lambda: images.extend(fs.crash_images(3, seed=len(images)))
    act(witness)
    for image in images:
        recovered = held_by(opener(ForgetfulFileSystem(image)))
        again = ForgetfulFileSystem(image)
        inquest = Inquest(again, opener, recovered.__eq__, witness.storage.identity.incarnation)
        again.after_change = inquest.hold
        opener(again)
        assert inquest.points > 1


@pytest.mark.parametrize("name", ["append", "segment change", "save and compact", "install a snapshot"])
def test_a_kill_then_a_restart_then_a_power_cut(
    name: str, opener: Opener, first_snapshot: SnapshotMeta
) -> None:
    """What the second process saw, and answered for, may have been in memory only. Stopped before every single call."""
    calls, number = Calls(), 0
    while number == 0 or calls.stopped:
        number += 1
        fs = ForgetfulFileSystem()
        witness = Witness(opener(fs))
        witness.bootstrap(first_snapshot)
        SCENARIOS[name][0](witness)
        fs.before = calls = Calls(stop_at=number)
        with contextlib.suppress(StorageFailed):
            SCENARIOS[name][1](witness)
        fs.before = Calls()
        storage = opener(fs)
        inquest = Inquest(fs, opener, held_by(storage).__eq__, storage.identity.incarnation)
        inquest.hold()
    assert number > 2


@dataclass
class Calls:
    """Lets a process live for so many calls."""

    stop_at: int = 0
    count: int = 0
    stopped: bool = False

    def __call__(self, operation: str, path: str) -> None:
        self.count += 1
        if self.count == self.stop_at:
            self.stopped = True
            raise OSError(f"killed before {operation} {path}")


def test_a_crash_may_come_while_the_directory_is_made(
    fs: ForgetfulFileSystem, opener: Opener, first_snapshot: SnapshotMeta
) -> None:
    """Either nothing was ever there, or the cluster was begun; never something between."""
    fresh, begun = Held(0, 0, SnapshotMeta(), b"", ()), Held(1, 0, first_snapshot, b"", ())
    inquest = Inquest(fs, opener, lambda found: found == fresh)
    fs.after_change = inquest.hold
    storage = opener(fs)
    inquest.explains = lambda found: found in (fresh, begun)
    inquest.incarnation = storage.identity.incarnation
    storage.bootstrap(first_snapshot)
    inquest.explains = lambda found: found == begun
    inquest.hold()
    assert inquest.found == {fresh, begun}


def names_in(fs: ForgetfulFileSystem, directory: str) -> list[str]:
    return [name for name in fs.listdir(directory) if not name.endswith(".tmp")]


CHANGES_SEGMENTS: Final = {
    "segment change",
    "prepared segment change",
    "a record larger than a segment",
    "save and compact",
    "compact after installing",
}


def forget_to(_: object) -> None:
    """What a lazy programmer's sync does."""


LAZY: Final = [("append", "fdatasync"), ("segment change", "fdatasync"), ("segment change", "fsync_dir"),
               ("install a snapshot", "fdatasync"), ("save and compact", "fsync_dir")]  # fmt: skip


@pytest.mark.parametrize(("name", "left_out"), LAZY)
def test_a_missing_sync_is_found_out(
    name: str,
    left_out: str,
    fs: ForgetfulFileSystem,
    witness: Witness,
    opener: Opener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutants: without any one kind of sync, some crash state loses something."""
    prepare, act = SCENARIOS[name]
    prepare(witness)
    monkeypatch.setattr(fs, left_out, forget_to)
    act(witness)
    with pytest.raises((AssertionError, CorruptionError)):
        Inquest(fs, opener, witness.explains, witness.storage.identity.incarnation).hold()
