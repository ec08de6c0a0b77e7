"""Every bug that the simulator found in the core, as the smallest case that showed it. Each was red once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quorker.core.raft.config import RaftConfig
from quorker.sim.case import Case, Fault, FaultKind, Op, OpKind, RaftKnobs, Target
from quorker.sim.cluster import run_case
from quorker.sim.disk import DiskKnobs
from quorker.sim.expansion import JOBS_CHURN, expand
from quorker.sim.kernel import MS
from quorker.sim.network import NetworkKnobs
from quorker.sim.node import Node
from quorker.sim.randomness import Stream


def test_a_first_joiner_gets_in_over_a_snapshot_that_does_not_name_it() -> None:
    """The leader's only snapshot was older than the membership; the new node refused it for ever."""
    case = Case(seed=1, voters=1, spares=1, chaos_ns=400 * MS, ops=(Op(200 * MS, OpKind.ADD_VOTER, 2),))
    assert run_case(case).violation is None


def test_members_campaign_again_after_their_disks_have_recovered() -> None:
    """A disk that was once reported as stalled counted as stalled for ever when nothing more was written."""
    stalls = tuple(Fault(190 * MS, FaultKind.DISK_STALL, 300 * MS, Target.ANY, node) for node in (1, 2, 3))
    case = Case(seed=15, chaos_ns=700 * MS, plan=stalls, ops=(Op(195 * MS, OpKind.PROPOSE, 0),))
    assert run_case(case).violation is None


def forwarded_reads(seed: int) -> Case:
    """Followers that read and restart within milliseconds, while answers to their former lives are on the way."""
    draw = Stream(seed, "forwarded reads")
    ops: list[Op] = []
    at_ns = 150 * MS
    while at_ns < 900 * MS:
        kind = OpKind.READ if draw.chance(600_000) else OpKind.PROPOSE
        ops.append(Op(at_ns, kind, draw.between(1, 3)))
        at_ns += draw.between(1, 6) * MS
    plan = [
        Fault(
            draw.between(150, 900) * MS,
            FaultKind.CRASH,
            draw.log_uniform(MS, 8 * MS),
            Target.FOLLOWER,
            draw.between(1, 3),
        )
        for _ in range(25)
    ]
    return Case(
        seed=seed,
        chaos_ns=900 * MS,
        plan=tuple(sorted(plan, key=lambda fault: fault.at_ns)),
        ops=tuple(ops),
        raft=RaftKnobs(election_ms=80, heartbeat_ms=8),
        network=NetworkKnobs(late_ppm=200_000, late_max_ns=60 * MS),
        disk=DiskKnobs(median_ns=MS // 10),
    )


def test_an_answer_to_a_former_life_answers_no_read_of_this_one() -> None:
    """Numbers of forwarded reads began anew after a restart, so a late answer served a stale read."""
    for seed in range(20):
        assert run_case(forwarded_reads(seed)).violation is None, seed


def test_that_stale_read_is_seen_when_lives_are_not_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    configure = Node.raft_config

    def forgetful(self: Node) -> RaftConfig:
        return replace(configure(self), incarnation=0)

    monkeypatch.setattr(Node, "raft_config", forgetful)
    violations = [run_case(forwarded_reads(seed)).violation for seed in range(20)]
    assert "linearizable read" in {violation.oracle for violation in violations if violation}


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
