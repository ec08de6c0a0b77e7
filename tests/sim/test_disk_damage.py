"""Disks that lose what was synced: runs stay clean, what is gone is noticed, and planted bugs of the rejoin are found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from quorker.core.raft.messages import (
    ConfState,
    Entry,
    Forgotten,
    HardState,
    SnapshotMeta,
)
from quorker.sim.cases.case import Case, Fault, FaultKind, Op, OpKind, RaftKnobs, Target
from quorker.sim.cases.expansion import DAMAGE, DAMAGED_JOBS, DAMAGES, SHORT, Profile, expand
from quorker.sim.cases.replay import seed_line
from quorker.sim.disks.damage import UNNOTICED
from quorker.sim.disks.disk import DurableLog
from quorker.sim.runs.cluster import Cluster, run_case
from quorker.sim.world.kernel import MS
from quorker.sim.world.trace import Trace

BASE = SnapshotMeta(1, 1, ConfState((1, 2, 3)))


# The model


def filled() -> DurableLog:
    durable = DurableLog(HardState(3, 2, 5), BASE, 0)
    durable.entries = [Entry(3, index) for index in range(2, 8)]
    return durable


def test_a_lost_suffix_is_not_held_but_was() -> None:
    durable = filled()
    durable.lose_from(5)
    assert (durable.last, durable.holds(5, 3), durable.held(5, 3), durable.held(5, 2)) == (
        4,
        False,
        True,
        False,
    )


def test_an_image_is_put_back_as_it_was() -> None:
    durable = filled()
    image = durable.image()
    durable.entries += [Entry(4, 8)]
    durable.hard_state = HardState(4, 1, 8)
    durable.put_back(image)
    assert (durable.last, durable.hard_state) == (7, HardState(3, 2, 5))
    assert durable.held(8, 4)


def test_what_may_be_forgotten_grows_only() -> None:
    durable = filled()
    durable.forget(Forgotten.PROMISES)
    durable.forget(Forgotten.ENTRIES)
    assert durable.hard_state.forgotten is Forgotten.PROMISES


def test_never_do_half_of_the_members_forget_at_once() -> None:
    plan = tuple(
        Fault(at_ms * MS, FaultKind.WIPE, 5 * MS, Target.ANY, 1 + at_ms % 3) for at_ms in range(100, 110)
    )
    cluster = Cluster(Case(1, plan=plan, chaos_ns=115 * MS), Trace(None))
    cluster.run()
    assert 0 < cluster.world.sometimes["fault wipe"] < len(plan)
    assert cluster.world.sometimes["fault wipe"] == cluster.world.sometimes["damage wipe"]


def test_the_voters_of_today_are_counted_where_the_membership_changes() -> None:
    """One of four may forget. When two have left, two are left, and no one of them may."""
    wipe = Fault(300 * MS, FaultKind.WIPE, 5 * MS, Target.ANY, 2)
    gone = (Op(100 * MS, OpKind.REMOVE, 3), Op(160 * MS, OpKind.REMOVE, 4))
    case = Case(1, voters=4, spares=1, plan=(wipe,))
    assert "fault wipe" in run_case(case).sometimes
    assert "fault wipe" not in run_case(replace(case, ops=gone)).sometimes


def test_a_roll_back_that_the_calm_comes_before_never_struck() -> None:
    fault = Fault(100 * MS, FaultKind.ROLL_BACK, 200 * MS, Target.ANY, 2)
    assert "fault roll-back" in run_case(Case(1, plan=(fault,))).sometimes
    assert "fault roll-back" not in run_case(Case(1, plan=(fault,), chaos_ns=250 * MS)).sometimes


# Runs


@pytest.mark.parametrize(("profile", "seeds"), [(DAMAGE, 120), (DAMAGED_JOBS, 8)], ids=["raft", "jobs"])
def test_no_damage_breaks_a_promise(profile: Profile, seeds: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(seeds):
        report = run_case(expand(seed, profile))
        assert report.violation is None, seed_line(seed, profile.name)
        seen.update(report.sometimes.keys())
    assert {f"damage {kind}" for kind in DAMAGES} | {"has its say again", "disk went back"} <= set(seen)


def test_an_unnoticed_roll_back_is_noticed_by_the_leader_and_the_member() -> None:
    """Nobody says that the disk was put back; the leader remembers more than the disk holds."""
    ops = tuple(Op(at_ms * MS, OpKind.PROPOSE, 0) for at_ms in range(200, 800, 5))
    fault = Fault(400 * MS, FaultKind.ROLL_BACK, 200 * MS, Target.FOLLOWER, 2, UNNOTICED)
    case = Case(7, plan=(fault,), ops=ops, raft=RaftKnobs(election_ms=200, heartbeat_ms=10))
    said: list[str] = []
    report = run_case(case, said.append)
    assert report.violation is None
    assert {"damage roll-back", "rejoins", "has its say again"} <= set(report.sometimes)
    named = [line for line in said if "went back from" in line]
    assert len(named) == 2, "its own words, and the leader's"


def test_runs_without_damage_are_what_they_were() -> None:
    """The profiles that know no damage draw none."""
    kinds = {fault.kind for seed in range(50) for fault in expand(seed, SHORT).plan}
    assert not kinds & {*DAMAGES}
