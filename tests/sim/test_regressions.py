"""Every bug that the simulator found in the core, as the smallest case that showed it. Each was red once.

What was not made smaller lies in `regressions` as a scenario file: `quorker sim run tests/sim/regressions/NAME.toml`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from quorker.sim.cases.case import Case, Fault, FaultKind, Op, OpKind, Target
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.cases.scenario import load
from quorker.sim.disks.disk import DiskKnobs
from quorker.sim.mutants.cases import forwarded_reads
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.kernel import MS

FILES = sorted((Path(__file__).parent / "regressions").glob("*.toml"))


def test_a_first_joiner_gets_in_over_a_snapshot_that_does_not_name_it() -> None:
    """The leader's only snapshot was older than the membership; the new node refused it for ever."""
    case = Case(seed=1, voters=1, spares=1, chaos_ns=400 * MS, ops=(Op(200 * MS, OpKind.ADD_VOTER, 2),))
    assert run_case(case).violation is None


def test_a_line_to_a_member_that_is_down_does_not_outlive_its_rebirth() -> None:
    """The twin of the driver let a client hold a line on which nobody had heard that it came: what it was granted
    before it spoke again was never told to it, and its lease lasted for ever."""
    assert run_case(expand(8102006, JOBS)).violation is None


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_case_that_a_campaign_found_stays_the_same_case(path: Path) -> None:
    """What its seed expands to may change; the file says what was wrong, and holds the whole case."""
    scenario = load(path)
    assert scenario.name == path.stem
    assert len(scenario.description.split()) >= 5
    assert [run_case(case).violation for case in scenario.cases()] == [None]


def test_the_cases_that_campaigns_found_are_there() -> None:
    assert len(FILES) >= 8
