"""The disk at the level of Persist records: what is durable when, and what a crash may leave."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.sim.disks.disk import WRITE_MAX_NS, DiskKnobs, DurableLog, LogDisk
from quorker.sim.world.kernel import MS, SECOND, Kernel

BASE = SnapshotMeta(1, 1, ConfState((1,)))


@dataclass
class Machine:
    """A disk whose reports are written down."""

    knobs: DiskKnobs = field(default_factory=DiskKnobs)
    seed: int = 1
    kernel: Kernel = field(default_factory=Kernel)
    safe: list[int] = field(default_factory=list[int])
    flushed: list[int] = field(default_factory=list[int])
    failed: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.durable = DurableLog(HardState(1, 0, 1), BASE, 0)
        self.disk = LogDisk(self.kernel, self.seed, 1, self.knobs, self.durable)
        self.disk.on_durable = lambda record, _: self.safe.append(record.seq)
        self.disk.on_flushed = self.flushed.append
        self.disk.on_failed = lambda record: self.failed.append(record.seq)

    def append(self, *indexes: int) -> None:
        for index in indexes:
            self.disk.submit(Persist(index, entries=(Entry(1, index),)), None, 0)

    def run(self) -> None:
        self.kernel.run(until=self.kernel.now + SECOND)


def test_records_that_wait_share_one_fsync() -> None:
    machine = Machine()
    machine.append(2, 3, 4)
    machine.run()
    assert machine.safe == [2, 3, 4]
    assert machine.flushed == [2, 4]
    assert machine.durable.last == 4


def test_without_group_commit_each_record_is_flushed_alone() -> None:
    machine = Machine(DiskKnobs(grouped_max=1))
    machine.append(2, 3, 4)
    machine.run()
    assert machine.flushed == [2, 3, 4]


def test_a_crash_keeps_some_prefix_and_reports_nothing() -> None:
    kept: set[int] = set()
    for seed in range(40):
        machine = Machine(seed=seed)
        machine.append(2, 3, 4)
        survived = machine.disk.crash()
        machine.run()
        assert machine.safe == machine.flushed == []
        assert machine.durable.last == 1 + survived
        kept.add(survived)
    assert kept == {0, 1, 2, 3}


def test_what_was_flushed_survives_every_crash() -> None:
    machine = Machine()
    machine.append(2, 3)
    machine.run()
    machine.disk.crash()
    assert machine.durable.last == 3


def test_a_stalled_disk_finishes_when_it_resumes() -> None:
    machine = Machine()
    machine.append(2)
    machine.disk.stall()
    machine.run()
    assert machine.safe == []
    assert machine.disk.oldest_issued_ms == 0
    machine.disk.resume()
    machine.run()
    assert machine.safe == [2]
    assert machine.disk.oldest_issued_ms is None


def test_a_failed_fsync_makes_nothing_durable() -> None:
    machine = Machine()
    machine.disk.failing = True
    machine.append(2)
    machine.run()
    assert machine.failed == [2]
    assert machine.safe == []


def test_a_slow_disk_is_slow() -> None:
    for slowness, done in ((1, True), (50, False)):
        machine = Machine(DiskKnobs(latency="constant", median_ns=MS))
        machine.disk.slowness = slowness
        machine.append(2)
        machine.kernel.run(until=2 * MS)
        assert (machine.safe == [2]) is done


def test_a_slow_disk_is_never_stuck() -> None:
    """Short seed 3054728: one write of a heavy tail took longer than the calm."""
    machine = Machine(DiskKnobs(latency="constant", median_ns=SECOND))
    machine.disk.slowness = 99
    machine.append(2)
    machine.kernel.run(until=WRITE_MAX_NS + MS)
    assert machine.safe == [2]


def test_a_gap_in_the_log_is_told() -> None:
    durable = DurableLog(HardState(1, 0, 1), BASE, 0)
    assert durable.write(Persist(1, entries=(Entry(1, 3),)), None) == "appends 3 after 1"


def test_truncating_into_the_snapshot_is_told() -> None:
    durable = DurableLog(HardState(1, 0, 1), BASE, 0)
    assert "inside the snapshot" in durable.write(Persist(1, truncate_from=1), None)


def test_a_snapshot_keeps_the_log_that_continues_it_and_no_other() -> None:
    for term, kept in ((1, 1), (2, 0)):
        durable = DurableLog(HardState(2, 0, 1), BASE, 0)
        durable.write(Persist(1, entries=(Entry(1, 2), Entry(1, 3), Entry(1, 4))), None)
        durable.install(SnapshotMeta(3, term, ConfState((1,))), 99)
        assert len(durable.entries) == kept
        assert durable.first == 4
        assert durable.state == 99


def test_an_older_snapshot_changes_nothing() -> None:
    durable = DurableLog(HardState(2, 0, 1), SnapshotMeta(9, 2, ConfState((1,))), 99)
    durable.install(SnapshotMeta(3, 1, ConfState((1,))), 5)
    assert durable.snapshot.index == 9
    assert durable.state == 99


def test_an_unsynced_commit_index_may_be_lost_but_never_term_and_vote() -> None:
    durable = DurableLog(HardState(1, 0, 1), BASE, 0)
    durable.write(Persist(1, HardState(2, 1, 1)), None)
    durable.write(Persist(2, HardState(2, 1, 8), must_sync=False), None)
    assert durable.hard_state.commit_index == 8
    durable.lose_unsynced_commit()
    assert durable.hard_state == HardState(2, 1, 1)
