"""Oracles that look where members live, at their disks and at the run itself: each rejects what breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from quorker.core.errors import StorageError
from quorker.core.raft.effects import DiskWentBack, Fatal, Persist
from quorker.core.raft.log import RaftLog
from quorker.core.raft.messages import ConfState, Entry, Forgotten, HardState, SnapshotMeta
from quorker.sim.cases.case import Case, JobsKnobs, Op, OpKind
from quorker.sim.disks.disk import DiskKnobs, DurableLog
from quorker.sim.disks.file_disk import FileDisk
from quorker.sim.oracles.checks import Oracles, Violation
from quorker.sim.runs.cluster import Cluster, run_case
from quorker.sim.runs.jobs_cluster import JobsCluster
from quorker.sim.world.kernel import MS, Kernel
from quorker.sim.world.trace import Trace

CASE = Case(seed=1, chaos_ns=200 * MS)
BASE = SnapshotMeta(1, 1, ConfState((1, 2, 3)))


def rejects(oracle: str, act: Callable[[], object]) -> None:
    with pytest.raises(Violation, match=f"^{re.escape(oracle)}: "):
        act()


@pytest.fixture
def node() -> Any:
    """A member of a cluster that has run for a while, with all that it has inside."""
    cluster = Cluster(CASE, Trace())
    cluster.suffer()
    return cluster.nodes[1]


def test_a_disk_that_went_back_though_nothing_befell_it(node: Any) -> None:
    effect = DiskWentBack(1, remembered=9, found=4)
    rejects("undamaged disks lose nothing", lambda: node._disk_went_back(effect))
    node._disk_went_back(replace(effect, node=2))
    node.disk.durable.lose_from(2)
    node._disk_went_back(effect)


def test_a_snapshot_that_never_arrived(node: Any) -> None:
    record = Persist(99, snapshot=SnapshotMeta(50, 2, BASE.conf_state))
    rejects("snapshot bytes", lambda: node._persist(record))


def test_a_member_that_finds_itself_in_an_impossible_state(node: Any) -> None:
    rejects("fatal", lambda: node._fatal(Fatal("one leader per term", "two lead term 2")))


def test_a_core_whose_state_contradicts_itself(node: Any) -> None:
    raft = node.raft
    assert raft is not None
    node._look_inside(raft)
    raft.commit_index = raft.last_index + 1
    rejects("invariant", lambda: node._look_inside(raft))


def test_disks_that_lead_nowhere() -> None:
    jobs = replace(CASE, jobs=JobsKnobs(), ops=(Op(100 * MS, OpKind.ENQUEUE, 1, 1),), chaos_ns=1_000 * MS)
    cluster = JobsCluster(jobs, Trace())
    cluster.suffer()
    for node in cluster.nodes.values():
        node.disk.durable.lose_from(3)
    rejects("acknowledged is not lost [D1]", cluster.scan)


def test_a_leader_that_commits_entries_that_it_has_not() -> None:
    disks = {node_id: DurableLog(HardState(1, 0, 1), BASE, 0) for node_id in (1, 2, 3)}
    oracles = Oracles(disks)

    class Hollow(RaftLog):
        """It ends at 3 and has nothing in between."""

        def entries(self, low: int, high: int, max_bytes: int | None = None) -> tuple[Entry, ...]:
            del low, high, max_bytes
            return ()

    class Member:
        term, commit_index, conf_state, last_index = 2, 1, BASE.conf_state, 3
        log = Hollow(1, 1, [Entry(2, 2, b""), Entry(2, 3, b"")])

    member = Member()
    oracles.on_started(1, member, 1)
    oracles.seen[2].granted[2] = 1
    oracles.on_leader(1, 2, member)
    for node_id in (1, 2):
        disks[node_id].write(
            Persist(1, HardState(2, 0, 1), entries=(Entry(2, 2, b""), Entry(2, 3, b""))), None
        )
    member.commit_index = 3
    rejects("log has no gaps", lambda: oracles.after_step(1, member, True))


# ---------------------------------------------------------------------- disks down to their files


@pytest.fixture
def disk() -> Any:
    disk = FileDisk(
        Kernel(), 1, 1, DiskKnobs(files=True, segment_bytes=1_024), DurableLog(HardState(1, 0, 1), BASE, 0)
    )
    assert disk.open()
    return disk


def test_a_directory_that_is_opened_twice_under_one_number(disk: Any) -> None:
    directory, _ = disk._opened
    disk.crash()
    disk._opened = (directory, 1 << 20)
    rejects("incarnations grow", disk.open)


def test_a_directory_that_forgets_that_it_may_have_forgotten(disk: Any) -> None:
    disk.crash()
    disk._acknowledged.hard_state = replace(disk._acknowledged.hard_state, forgotten=Forgotten.ENTRIES)
    disk.damaged = "by hand"
    rejects("the mark survives", disk.open)


def test_a_storage_that_cannot_do_what_it_is_asked_for(disk: Any) -> None:
    def ask() -> None:
        with disk._trouble():
            raise StorageError("no such thing")

    rejects("disk lane", ask)


# ---------------------------------------------------------------------- the run as a whole


def test_a_run_that_does_not_end_within_its_events() -> None:
    violation = run_case(replace(CASE, events_max=10)).violation
    assert violation is not None
    assert violation.oracle == "event budget"


def test_a_cluster_that_makes_no_progress() -> None:
    violation = run_case(replace(CASE, calm_ns=MS)).violation
    assert violation is not None
    assert violation.oracle == "liveness"


def test_a_core_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("quorker.core.raft.core.Raft.tick", fail)
    violation = run_case(CASE).violation
    assert violation is not None
    assert violation.oracle == "exception"
