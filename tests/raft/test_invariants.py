"""Each invariant can be broken, and is then named. A check that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange, Configuration, encode_change
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Role
from quorker.core.raft.invariants import MemberView, check_state, check_step, view
from quorker.core.raft.messages import Entry, EntryKind, SnapshotMeta
from quorker.core.raft.quorum import JointVoters
from quorker.core.raft.roles import Leader
from quorker.sim.bare.solo import BASE, beat, candidate, leader, member, settled_leader


def applied_too_much(raft: Raft) -> None:
    raft.applied_index = raft.commit_index + 1


def stable_beyond_the_log(raft: Raft) -> None:
    raft.lane.stable = raft.last_index + 1


def a_gap_before_what_is_applied(raft: Raft) -> None:
    raft.log.restart_after(SnapshotMeta(9, 2, BASE.conf_state))
    raft.commit_index = raft.applying_index = 9


def log_starts_after_the_snapshot(raft: Raft) -> None:
    raft.snapshot = replace(raft.snapshot, index=0)


def offered_before_durable(raft: Raft) -> None:
    raft.lane.stable = raft.applying_index - 1


def an_entry_of_a_future_term(raft: Raft) -> None:
    raft.log.append([Entry(raft.term + 1, raft.last_index + 1)])


def falling_terms(raft: Raft) -> None:
    raft.log.append([Entry(1, raft.last_index + 1)])


def an_entry_in_the_wrong_place(raft: Raft) -> None:
    raft.log.truncate_from(raft.last_index)
    raft.log.append([Entry(2, raft.last_index + 1)])
    raft.log.first_index += 1
    raft.log.last_index += 1


def a_write_that_proves_too_much(raft: Raft) -> None:
    raft.propose([b"x"], 1)
    raft.drain()
    raft.lane.in_flight[0].last_index += 1


def written_beyond_the_log(raft: Raft) -> None:
    raft.lane.next_unwritten = raft.last_index + 2


def stable_but_not_written(raft: Raft) -> None:
    raft.lane.next_unwritten = raft.lane.stable


def voter_and_learner(raft: Raft) -> None:
    raft.configuration = replace(raft.configuration, learners=(2,))


def progress_of_strangers(raft: Raft) -> None:
    raft.progress[9] = raft.progress[2]


def remains_of_a_joint_configuration(raft: Raft) -> None:
    raft.configuration = replace(raft.configuration, auto_leave=True)


def a_configuration_from_the_future(raft: Raft) -> None:
    raft.config_index = raft.commit_index + 1


def a_leader_that_is_no_member(raft: Raft) -> None:
    raft.configuration = Configuration(JointVoters((2, 3)))
    del raft.progress[1]


def a_leader_that_voted_for_another(raft: Raft) -> None:
    raft.voted_for = 2


def match_beyond_next(raft: Raft) -> None:
    raft.progress[2].match_index = raft.progress[2].next_index


def match_beyond_the_log(raft: Raft) -> None:
    raft.progress[2].match_index = raft.last_index + 1
    raft.progress[2].next_index = raft.last_index + 2


def a_snapshot_that_is_not_followed(raft: Raft) -> None:
    raft.progress[3].become_snapshot(5)
    raft.progress[3].next_index += 1


def counts_what_is_not_durable(raft: Raft) -> None:
    raft.propose([b"x"], 1)
    raft.progress[1].match_index = raft.last_index
    raft.progress[1].next_index = raft.last_index + 1


def two_changes_at_once(raft: Raft) -> None:
    change = ConfigChange((ChangeStep(ChangeKind.ADD_VOTER, 4),))
    for _ in range(2):
        data = encode_change(change)
        raft.log.append([Entry(raft.term, raft.last_index + 1, data, EntryKind.CONFIG_V2)])


def a_change_nobody_expects(raft: Raft) -> None:
    raft.propose_config(ConfigChange((ChangeStep(ChangeKind.ADD_VOTER, 4),)), 1)
    assert isinstance(raft.acting_as, Leader)
    raft.acting_as.pending_config_index = 0


BREAKERS = [
    (applied_too_much, "applied"),
    (stable_beyond_the_log, "stable"),
    (a_gap_before_what_is_applied, "are gone"),
    (log_starts_after_the_snapshot, "a gap"),
    (offered_before_durable, "offered"),
    (an_entry_of_a_future_term, "in term"),
    (falling_terms, "terms fall"),
    (an_entry_in_the_wrong_place, "says it is at"),
    (a_write_that_proves_too_much, "writes in flight prove"),
    (written_beyond_the_log, "written to"),
    (stable_but_not_written, "yet written only"),
    (voter_and_learner, "voters and learners"),
    (progress_of_strangers, "progress of"),
    (remains_of_a_joint_configuration, "joint configuration remains"),
    (a_configuration_from_the_future, "is in effect"),
    (a_leader_that_is_no_member, "without being a member"),
    (a_leader_that_voted_for_another, "voted for 2"),
    (match_beyond_next, "does not hold for 2"),
    (match_beyond_the_log, "2 matches to"),
    (a_snapshot_that_is_not_followed, "waits for snapshot"),
    (counts_what_is_not_durable, "counts itself"),
    (two_changes_at_once, "at once"),
    (a_change_nobody_expects, "none assumed"),
]


@pytest.mark.parametrize(("breaker", "named"), BREAKERS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_state_is_named(breaker: Callable[[Raft], None], named: str) -> None:
    raft = settled_leader()
    raft.propose([b"a"], 9)
    assert check_state(raft) == []
    breaker(raft)
    assert any(named in violation for violation in check_state(raft))


def test_a_candidate_that_did_not_vote_for_itself_is_named() -> None:
    raft = candidate()
    raft.voted_for = 2
    assert check_state(raft) == ["a candidate voted for 2"]


def test_a_silent_member_is_not_judged() -> None:
    raft = leader()
    raft.persist_failed(1, "gone")
    applied_too_much(raft)
    assert check_state(raft) == []


@pytest.mark.parametrize("make", [member, candidate, leader, settled_leader])
def test_healthy_members_have_no_violations(make: Callable[[], Raft]) -> None:
    raft = make()
    assert check_state(raft) == []
    assert check_step(view(raft), view(raft)) == []


def healthy() -> MemberView:
    return view(settled_leader())


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ({}, {"term": 1}, "term falls"),
        ({}, {"commit_index": 1}, "commit_index falls"),
        ({}, {"applied_index": 1}, "applied_index falls"),
        ({"first_index": 9}, {}, "first_index falls"),
        ({}, {"last_index": 1}, "the log now ends"),
        ({}, {"voted_for": 2}, "voted for 1 and 2"),
        ({}, {"leader": 2}, "1 and 2 lead"),
        ({"role": Role.FOLLOWER}, {"voted_for": 2}, "elected"),
        ({"last_index": 9}, {}, "a leader cut its log"),
        ({"match_indexes": ((2, 1, 9),)}, {"match_indexes": ((2, 1, 8),)}, "the match of 2 falls"),
    ],
)
def test_a_broken_step_is_named(before: dict[str, Any], after: dict[str, Any], named: str) -> None:
    violations = check_step(replace(healthy(), **before), replace(healthy(), **after))
    assert any(named in violation for violation in violations)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"voted_for": 2, "term": 1}, {}),  # a new term, a new vote
        ({"leader": 2, "term": 1}, {}),
        ({"leader": 0}, {}),
        ({"match_indexes": ((2, 1, 9),)}, {"match_indexes": ((2, 5, 0),)}),  # another session
    ],
)
def test_what_may_change_is_not_a_violation(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert check_step(replace(healthy(), **before), replace(healthy(), **after)) == []


def test_a_follower_may_cut_what_is_not_committed() -> None:
    raft = member([2, 2], term=2)
    beat(raft)
    before = view(raft)
    raft.log.truncate_from(3)
    assert check_step(before, view(raft)) == []
