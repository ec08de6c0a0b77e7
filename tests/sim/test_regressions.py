"""Every bug that the simulator found in the core, as the smallest case that showed it. Each was red once."""

from __future__ import annotations

import pytest

from quorker.sim.cases.case import Case, Fault, FaultKind, Op, OpKind, Target
from quorker.sim.cases.expansion import JOBS, JOBS_CHURN, expand
from quorker.sim.disks.disk import DiskKnobs
from quorker.sim.mutants.cases import forwarded_reads, lagging
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.kernel import MS


def test_a_first_joiner_gets_in_over_a_snapshot_that_does_not_name_it() -> None:
    """The leader's only snapshot was older than the membership; the new node refused it for ever."""
    case = Case(seed=1, voters=1, spares=1, chaos_ns=400 * MS, ops=(Op(200 * MS, OpKind.ADD_VOTER, 2),))
    assert run_case(case).violation is None


def test_members_campaign_again_after_their_disks_have_recovered() -> None:
    """A disk that was once reported as stalled counted as stalled for ever when nothing more was written."""
    stalls = tuple(Fault(190 * MS, FaultKind.DISK_STALL, 300 * MS, Target.ANY, node) for node in (1, 2, 3))
    case = Case(seed=15, chaos_ns=700 * MS, plan=stalls, ops=(Op(195 * MS, OpKind.PROPOSE, 0),))
    assert run_case(case).violation is None


def test_an_answer_to_a_former_life_answers_no_read_of_this_one() -> None:
    """Numbers of forwarded reads began anew after a restart, so a late answer served a stale read."""
    for seed in range(20):
        assert run_case(forwarded_reads(seed)).violation is None, seed


def test_two_snapshots_may_wait_for_a_slow_machine() -> None:
    """A second snapshot became durable before the first was installed: each is installed as what it is."""
    proposals = tuple(Op(at * MS, OpKind.PROPOSE, 0) for at in range(150, 190, 10))
    snapshots = tuple(Fault(at * MS // 4, FaultKind.SNAPSHOT, MS, Target.LEADER) for at in range(800, 840))
    slow = Fault(0, FaultKind.SLOW_APPLIER, 900 * MS, Target.ANY, 4, amount=30 * MS)
    for seed in range(5, 10):
        ops = (*proposals, Op(200 * MS, OpKind.ADD_LEARNER, 4))
        case = Case(seed=seed, spares=1, chaos_ns=400 * MS, plan=(slow, *snapshots), ops=ops)
        assert run_case(case).violation is None


def test_an_opening_that_comes_late_takes_no_jobs_from_a_newer_session() -> None:
    """A copy of an old process's opening, held up on its way to the leader, ended the session of the new one."""
    assert run_case(expand(80070, JOBS_CHURN)).violation is None


@pytest.mark.parametrize("seed", [80029, 80078])
def test_a_member_that_was_removed_keeps_no_session_alive(seed: int) -> None:
    """It never forgot its leader and forwarded for ever, while answers and grants did not reach it any more."""
    assert run_case(expand(seed, JOBS_CHURN)).violation is None


def test_a_grant_that_a_snapshot_had_skipped_is_begun() -> None:
    """It was told after a newer one, and taken for one that had been seen."""
    assert run_case(lagging(36)).violation is None


def test_a_leader_that_was_frozen_hears_what_became_of_its_snapshot() -> None:
    """The twin of the driver forgot its own report while the process was frozen: the member got nothing ever again."""
    case = Case(
        seed=27888751945778,
        voters=1,
        spares=1,
        chaos_ns=697 * MS,
        ops=(Op(410 * MS + 7_600, OpKind.ADD_VOTER, 2),),
        disk=DiskKnobs(median_ns=4_478_341),
        plan=(
            Fault(329 * MS, FaultKind.FLAPPING, 233_199_703, Target.FOLLOWER, 2, 22),
            Fault(417 * MS, FaultKind.SLOW_NODE, 16 * MS, Target.LEADER, 2, 323),
        ),
    )
    assert run_case(case).violation is None


@pytest.mark.parametrize("seed", [3000127, 610035])
def test_a_dead_member_answers_nobody(seed: int) -> None:
    """Its twin answered a client that came back from the memory of the process that had died."""
    assert run_case(expand(seed, JOBS)).violation is None


def test_the_calm_waits_for_no_wall_clock_that_was_set_back() -> None:
    """A leader had stamped what was not committed yet, and its clock was set back: a job was due by that stamp only."""
    assert run_case(expand(50, JOBS_CHURN)).violation is None


def test_no_leader_is_blamed_for_a_session_that_it_learns_of_late() -> None:
    """Its opening was committed after more than its time to live; something else was proposed within the interval."""
    assert run_case(expand(257, JOBS)).violation is None
