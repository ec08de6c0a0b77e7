"""Steady clusters: the steps are taken and promises kept; each promise, when it is broken, is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quorker.core.raft import core, election
from quorker.core.raft.state import RaftState
from quorker.sim.cases.case import Case, Fault, FaultKind, JobsKnobs, RaftKnobs
from quorker.sim.cases.expansion import PROFILES, expand
from quorker.sim.mutants.mutant import always
from quorker.sim.oracles.steady import obstacle
from quorker.sim.runs.cluster import Report, run_case
from quorker.sim.world.kernel import MS, SECOND

CASE = Case(seed=1, chaos_ns=300 * MS, steady=True)
JOBS_CASE = replace(
    CASE, jobs=JobsKnobs(), calm_ns=30 * SECOND, raft=RaftKnobs(election_ms=180, heartbeat_ms=30)
)
KEPT = "stable leader kept"


def oracle_of(report: Report) -> str:
    return report.violation.oracle if report.violation is not None else ""


@pytest.mark.parametrize("voters", [3, 4, 5])
def test_a_healthy_cluster_takes_every_step(voters: int) -> None:
    for seed in range(8):
        report = run_case(replace(CASE, seed=seed, voters=voters))
        assert report.violation is None, seed
        seen = report.sometimes
        assert (seen[KEPT], seen["stalled leader handed over"]) == (1, 1)
        assert seen["leader succeeded in a steady cluster"] == 2


@pytest.mark.parametrize(
    "case",
    [
        replace(CASE, voters=2),
        replace(CASE, spares=1),
        replace(CASE, dead_in_calm=1),
        replace(CASE, raft=replace(CASE.raft, check_quorum=False)),
        replace(CASE, steady=False),
    ],
)
def test_nothing_is_demanded_where_nothing_was_promised(case: Case) -> None:
    report = run_case(case)
    assert report.violation is None
    assert KEPT not in report.sometimes


def test_members_with_a_job_store_owe_the_same() -> None:
    seen = run_case(replace(JOBS_CASE, seed=2)).sometimes
    assert (seen[KEPT], seen["stalled leader handed over"]) == (1, 1)


def test_ordinary_profiles_demand_it_in_a_share_of_the_runs_where_they_may() -> None:
    for profile in PROFILES.values():
        cases = [expand(seed, profile) for seed in range(400)]
        steady = [case for case in cases if case.steady]
        assert not any(obstacle(case) for case in steady)
        assert bool(steady) == any(not obstacle(case) for case in cases), profile.name


def test_damage_that_nobody_has_noticed_yet_leaves_no_member_to_spare() -> None:
    """A leader dies here for good; short seed 3026778 lost its second copy to a sector that nobody had read since."""
    rot = Fault(100 * MS, FaultKind.FILE_MISDIRECTED, 0, node=2, amount=5)
    case = replace(CASE, plan=(rot,), disk=replace(CASE.disk, files=True))
    assert "damage" in obstacle(case)
    assert not expand(3_026_778).steady


def test_what_comes_before_is_the_same_run() -> None:
    plain, steady = run_case(replace(CASE, steady=False)), run_case(CASE)
    assert plain.events < steady.events
    assert plain.true_ns < steady.true_ns


def test_a_leader_that_one_follower_unseats_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "_hears_leader", always(False))

    def hasty(raft: RaftState) -> None:
        election.campaign(raft, election.Campaign.ELECTION)

    monkeypatch.setattr(election, "start", hasty)
    assert "stable leader [A2]" in {oracle_of(run_case(replace(CASE, seed=seed))) for seed in range(6)}


def test_a_leader_that_keeps_its_stalled_disk_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.Raft, "disk_latency", always(None))
    assert oracle_of(run_case(CASE)) == "stalled leader hands over [A1]"


def test_a_deaf_leader_that_stays_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "_check_quorum", always(True))
    assert oracle_of(run_case(CASE)) == "succession [A1]"
