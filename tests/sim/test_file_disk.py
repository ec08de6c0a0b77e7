"""A member's disk down to its files: what survives what, each fault by itself, and what the oracle must reject."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, Forgotten, HardState, SnapshotMeta
from quorker.core.wire.filesystem import SECTOR_BYTES
from quorker.core.wire.storage_open import Trust
from quorker.sim.cases.case import Fault, FaultKind
from quorker.sim.cases.expansion import FILES, SHORT, expand
from quorker.sim.disks.crash_states import ForgetfulFileSystem
from quorker.sim.disks.disk import DiskKnobs, DurableLog
from quorker.sim.disks.file_disk import FileDisk
from quorker.sim.faults.files import make_stale, misdirect, proven, rot, spoil_snapshot
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.kernel import MS, SECOND, Kernel

BASE = SnapshotMeta(1, 1, ConfState((1,)))


@dataclass
class Machine:
    """A disk whose reports are written down."""

    seed: int = 1
    knobs: DiskKnobs = field(default_factory=lambda: DiskKnobs(files=True, segment_bytes=1_024))
    kernel: Kernel = field(default_factory=Kernel)
    safe: list[int] = field(default_factory=list[int])
    problems: list[str] = field(default_factory=list[str])
    last: int = 1

    def __post_init__(self) -> None:
        self.durable = DurableLog(HardState(1, 0, 1), BASE, 0)
        self.disk = FileDisk(self.kernel, self.seed, 1, self.knobs, self.durable)
        self.disk.on_durable = lambda record, problem: self.safe.append(record.seq)
        self.disk.on_flushed = lambda seq: None
        self.disk.on_failed = lambda record: self.problems.append(f"failed {record.seq}")
        self.disk.on_broken = lambda: self.problems.append("broken")
        assert self.disk.open()

    def append(self, count: int = 1, size: int = 100) -> None:
        for _ in range(count):
            self.last += 1
            entry = Entry(1, self.last, bytes([self.last % 256]) * size)
            self.disk.submit(Persist(self.last, entries=(entry,)), None, 0)

    def run(self, for_ns: int = SECOND) -> None:
        self.kernel.run(until=self.kernel.now + for_ns)

    def restart(self) -> bool:
        self.disk.crash()
        self.last = self.durable.last
        return self.disk.open()


def used(seed: int = 1) -> Machine:
    """A machine with some segments, a snapshot, and everything sealed."""
    machine = Machine(seed)
    for _ in range(12):
        machine.append(3)
        machine.run()
    assert machine.disk.save_snapshot(SnapshotMeta(20, 1, BASE.conf_state), 77)
    machine.append(3)
    machine.run()
    return machine


# ---------------------------------------------------------------------- crashes


def test_what_was_acknowledged_survives_every_crash() -> None:
    for seed in range(30):
        machine = Machine(seed=seed)
        machine.append(5)
        machine.run()
        assert machine.safe == [2, 3, 4, 5, 6]
        assert machine.restart()
        assert machine.durable.last == 6
        assert machine.durable.entries[-1].data == bytes([6]) * 100


def test_what_was_under_way_survives_whole_or_not_at_all() -> None:
    kept: set[int] = set()
    for seed in range(60):
        machine = Machine(seed=seed)
        machine.append(1)
        machine.run()
        machine.append(1, size=900)
        machine.append(1)
        assert machine.restart()
        assert machine.safe == [2]
        kept.add(machine.durable.last)
    assert kept == {2, 3}


def test_a_torn_write_is_cut_and_told() -> None:
    happened: set[str] = set()
    for seed in range(60):
        machine = Machine(seed=seed, knobs=DiskKnobs(files=True, segment_bytes=16_384))
        machine.append(1, size=2_000)
        assert machine.restart()
        happened.update(machine.disk.happened)
    assert {"torn tail cut", "recovery interrupted"} <= happened


def test_writing_goes_on_after_a_crash() -> None:
    machine = Machine()
    for round_number in range(10):
        machine.append(2, size=300)
        if round_number % 3:
            machine.run()
        assert machine.restart()
        machine.append(1)
        machine.run()
        assert machine.durable.last == machine.last


def test_a_snapshot_and_what_follows_it_survive() -> None:
    for seed in range(8):
        machine = used(seed=seed)
        machine.disk.compact(21)
        assert machine.restart()
        assert (machine.durable.snapshot.index, machine.durable.state) == (20, 77)
        assert machine.durable.last == 40


def test_a_received_snapshot_becomes_the_base() -> None:
    machine, meta = Machine(), SnapshotMeta(50, 3, BASE.conf_state)
    machine.append(3)
    record = Persist(5, HardState(3, 0, 50), snapshot=meta)
    machine.disk.submit(record, 1234, 0)
    machine.run()
    assert machine.restart()
    assert (machine.durable.snapshot, machine.durable.state, machine.durable.last) == (meta, 1234, 50)
    assert machine.disk.load_snapshot() == 1234


def test_two_received_snapshots_in_one_write() -> None:
    machine = Machine()
    machine.append(1)
    for index in (50, 60):
        meta = SnapshotMeta(index, 3, BASE.conf_state)
        machine.disk.submit(Persist(index, HardState(3, 0, index), snapshot=meta), index, 0)
    machine.run()
    assert machine.safe == [2, 50, 60]
    assert machine.restart()
    assert (machine.durable.snapshot.index, machine.durable.state) == (60, 60)


# ---------------------------------------------------------------------- faults


def test_a_failed_fsync_makes_nothing_durable() -> None:
    for seed in range(20):
        machine = Machine(seed=seed)
        machine.append(1)
        machine.run()
        machine.disk.failing = True
        machine.append(1)
        machine.run()
        assert machine.problems == ["failed 3"]
        assert machine.safe == [2]
        assert machine.restart()
        assert machine.durable.last in (2, 3)  # what the page cache still shows was written anew
        found = machine.durable.last
        assert machine.restart()
        assert machine.durable.last == found


def test_a_write_error_ends_the_process() -> None:
    machine = Machine()
    machine.disk.trouble.failing_write = True
    machine.append(1)
    machine.run()
    assert machine.problems == ["failed 2"]
    assert machine.restart()
    assert machine.durable.last == 1


def test_a_full_disk_refuses_and_heals() -> None:
    machine = Machine()
    machine.disk.fs.capacity = machine.disk.fs.used_bytes
    machine.append(1)
    machine.append(1, size=3_000)
    machine.run()
    assert machine.safe == [2]
    assert machine.problems == []
    assert machine.disk.oldest_issued_ms == 0
    assert not machine.disk.save_snapshot(SnapshotMeta(2, 1, BASE.conf_state), 5)
    machine.disk.heal()
    machine.run()
    assert machine.safe == [2, 3]
    assert machine.restart()
    assert machine.durable.last == 3


def test_a_stalled_disk_finishes_when_it_resumes() -> None:
    machine = Machine()
    machine.append(1)
    machine.disk.stall()
    machine.run()
    assert machine.safe == []
    machine.disk.resume()
    machine.run()
    assert machine.safe == [2]


@pytest.mark.parametrize("damage", [rot, make_stale, misdirect, spoil_snapshot])
def test_damage_is_noticed_or_harmless_and_left_as_it_is(
    damage: Callable[[ForgetfulFileSystem, int], str],
) -> None:
    noticed = 0
    for word in range(1, 60):
        machine = used()
        machine.disk.damaged = damage(machine.disk.fs, word * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
        if machine.restart():
            assert machine.durable.last == 40, machine.disk.damaged
            noticed += "older snapshot taken" in machine.disk.happened
        else:
            assert machine.disk.happened[-1] == "recovery refused", machine.disk.damaged
            noticed += 1
    assert noticed > 15


def test_a_damaged_snapshot_is_not_sent_and_the_one_before_it_is_taken() -> None:
    machine = used()
    path = max(path for path in proven(machine.disk.fs) if path.endswith(".snap"))
    machine.disk.fs.overwrite(path, b"X", 70)
    machine.disk.damaged = "by hand"
    assert machine.disk.load_snapshot() is None
    assert machine.problems == ["broken"]
    assert machine.restart()
    assert (machine.durable.snapshot.index, machine.durable.last) == (1, 40)
    assert "older snapshot taken" in machine.disk.happened


def test_only_what_a_slot_vouches_for_is_proven() -> None:
    machine = Machine()
    machine.append(1)
    machine.run()
    before = proven(machine.disk.fs)
    machine.append(1)
    machine.run(20 * MS)
    assert machine.safe == [2, 3]
    assert proven(machine.disk.fs)[segment_of(machine)] == before[segment_of(machine)]
    machine.run()
    assert proven(machine.disk.fs)[segment_of(machine)] > before[segment_of(machine)]


def segment_of(machine: Machine) -> str:
    return max(path for path in proven(machine.disk.fs) if path.endswith(".wal"))


def test_damage_stays_within_the_budget() -> None:
    case = expand(1, FILES)
    blows = tuple(
        Fault((10 + node) * MS, kind, 5 * MS, node=node, amount=1)
        for kind in (FaultKind.FILE_ROT, FaultKind.WIPE, FaultKind.ROLL_BACK)
        for node in range(1, 6)
    )
    for voters, spares, hurt in ((1, 0, 0), (2, 0, 0), (3, 0, 1), (4, 0, 1), (5, 0, 2), (3, 1, 0)):
        some = tuple(blow for blow in blows if blow.node <= voters)
        report = run_case(replace(case, voters=voters, spares=spares, clocks=(), ops=(), traps=(), plan=some))
        assert report.violation is None
        assert report.sometimes.get("disk damaged", 0) == hurt


def test_file_faults_do_nothing_where_disks_are_no_files() -> None:
    case = expand(1, SHORT)
    assert not case.disk.files
    plan = tuple(Fault(MS, kind, MS) for kind in FaultKind if kind.startswith("file-"))
    report = run_case(replace(case, plan=plan, traps=()))
    assert report.violation is None
    assert "disk damaged" not in report.sometimes


# ---------------------------------------------------------------------- the oracle


def test_an_acknowledged_write_that_is_gone_is_a_violation() -> None:
    machine = Machine()
    before = machine.disk.fs.image()
    machine.append(1)
    machine.run()
    machine.disk.crash()
    machine.disk.fs.restore(before)
    with pytest.raises(Violation, match="acknowledged writes survive"):
        machine.disk.open()


def test_an_intact_disk_that_is_refused_is_a_violation() -> None:
    machine = used()
    rot_the_oldest_segment(machine)
    with pytest.raises(Violation, match="intact disks are read"):
        machine.restart()


def test_touching_a_damaged_disk_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    for help_of_others, method in ((False, "_open_files"), (True, "_believe")):
        machine = used()
        machine.disk.damaged = "by hand"
        machine.disk.trust = Trust(others_help=help_of_others)
        rot_the_oldest_segment(machine)
        act = getattr(machine.disk, method)

        def tidy_up_first(
            *given: object, act: Any = act, fs: ForgetfulFileSystem = machine.disk.fs
        ) -> object:
            fs.unlink(max((path for path in fs.image() if ".wal" in path), key=len))
            return act(*given)

        monkeypatch.setattr(machine.disk, method, tidy_up_first)
        with pytest.raises(Violation, match="damage is left as it is"):
            machine.restart()


def test_a_damaged_member_of_three_begins_anew_and_keeps_everything() -> None:
    machine = used()
    machine.disk.damaged = "by hand"
    machine.disk.trust = Trust(others_help=True)
    rot_the_oldest_segment(machine)
    kept = {data for path, data in machine.disk.fs.at_rest().items() if path.endswith((".wal", ".snap"))}
    assert machine.restart()
    assert machine.durable.hard_state == HardState(1, 0, 0, Forgotten.ENTRIES)
    assert (machine.durable.last, machine.durable.held(40, 1), machine.durable.holds(40, 1)) == (
        0,
        True,
        False,
    )
    assert kept <= set(machine.disk.fs.at_rest().values())
    assert "began anew" in machine.disk.happened


def test_a_disk_that_was_put_back_or_lost_is_marked() -> None:
    machine = used()
    early = machine.disk.keep()
    machine.append(3)
    machine.run()
    machine.disk.crash()
    machine.disk.put_back(early, "rolled back")
    assert machine.disk.open()
    assert (machine.durable.last, machine.durable.hard_state.forgotten) == (40, Forgotten.PROMISES)
    machine.disk.crash()
    machine.disk.put_back(machine.disk.nothing(), "wiped")
    assert machine.disk.open()
    assert (machine.durable.last, machine.durable.hard_state.forgotten) == (0, Forgotten.PROMISES)
    assert machine.restart()
    assert machine.durable.hard_state.forgotten is Forgotten.PROMISES


def test_another_entry_than_was_written_is_a_violation() -> None:
    machine, other = Machine(), Machine()
    machine.append(1)
    other.append(1, size=101)
    machine.run()
    other.run()
    machine.disk.crash()
    other.disk.crash()
    machine.disk.fs.restore(other.disk.fs.image())
    with pytest.raises(Violation, match="corruption is never served"):
        machine.disk.open()


def rot_the_oldest_segment(machine: Machine) -> None:
    path = min(path for path in proven(machine.disk.fs) if path.endswith(".wal"))
    machine.disk.fs.overwrite(path, b"\xff", 200)


# ---------------------------------------------------------------------- the file system


def two_sectors() -> ForgetfulFileSystem:
    fs = ForgetfulFileSystem({"file": b"a" * 2 * SECTOR_BYTES})
    fs.pwrite(fs.open("file"), b"b" * 2 * SECTOR_BYTES, 0)
    return fs


def after(fs: ForgetfulFileSystem, *choices: int) -> dict[str, bytes | None]:
    rest = iter(choices)
    fs.power_cut(lambda count: min(next(rest), count - 1))
    return fs.image()


def test_unsynced_sectors_are_lost_torn_and_reordered() -> None:
    one, other = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES
    for choices, content in (
        ((0, 0, 0), one + one),
        ((1, 0, 0), other + one),
        ((0, 1, 0), one + other),
        ((1, 1, 0), other + other),
    ):
        assert after(two_sectors(), *choices) == {"file": content}


def test_unsynced_names_are_lost() -> None:
    for choice, names in ((0, ["a"]), (1, ["b"]), (2, ["a", "b"])):
        fs = ForgetfulFileSystem({"a": b""})
        fs.rename("a", "b")
        assert list(after(fs, choice, 0)) == names


def test_a_kill_keeps_what_the_machine_remembers() -> None:
    fs = two_sectors()
    fs.kill()
    assert fs.image() == {"file": b"b" * 2 * SECTOR_BYTES}


def test_after_a_power_cut_everything_is_durable() -> None:
    fs = two_sectors()
    assert fs.at_rest() == {}
    fs.power_cut(lambda count: count - 1)
    assert fs.at_rest() == {"file": b"b" * 2 * SECTOR_BYTES}
    assert list(fs.crash_images(10)) == [fs.image()]


def test_a_disk_changes_behind_everybodys_back() -> None:
    fs = ForgetfulFileSystem({"file": b"abc"})
    fs.overwrite("file", b"X", 1)
    assert fs.pread(fs.open("file"), 3, 0) == b"aXc"
    assert fs.image() == fs.at_rest() == {"file": b"aXc"}
