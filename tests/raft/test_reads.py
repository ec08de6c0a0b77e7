"""Linearizable reads: rounds that the leader numbers, on leaders, followers and clusters of one."""

from __future__ import annotations

import pytest

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import DropReason, ReadFailed, ReadReady, Role
from quorker.core.raft.messages import (
    ConfState,
    ForwardRead,
    Heartbeat,
    HeartbeatResponse,
    ReadResponse,
    VoteResponse,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    TIMEOUT,
    VOTERS,
    accept,
    beat,
    beat_back,
    candidate,
    flush,
    heard,
    leader,
    member,
    of_kind,
    said,
    settled_leader,
)


def ready(raft: Raft) -> list[ReadReady]:
    return of_kind(flush(raft), ReadReady)


def test_one_round_serves_all_reads_that_came_together() -> None:
    raft = settled_leader()
    for context in (5, 6, 7):
        raft.read(context)
    assert [message.read_round for message in heard(raft, Heartbeat)] == [3, 3]
    beat_back(raft, 2, read_round=3)
    assert [read.context for read in ready(raft)] == [5, 6, 7]


def test_an_older_round_confirms_older_reads_only() -> None:
    raft = settled_leader()
    raft.read(5)
    flush(raft)
    raft.read(6)
    flush(raft)
    beat_back(raft, 2, read_round=1)
    assert [read.context for read in ready(raft)] == [5]
    beat_back(raft, 3, read_round=2)
    assert [read.context for read in ready(raft)] == [6]


def test_a_repeated_answer_confirms_nothing_new() -> None:
    """R3: rounds are the leader's numbers, so an answer to an old one cannot pass for a new one."""
    raft = settled_leader()
    raft.read(5)
    flush(raft)
    beat_back(raft, 2, read_round=1)
    flush(raft)
    raft.read(5)  # the same context again is a new read
    flush(raft)
    beat_back(raft, 2, read_round=1)
    assert ready(raft) == []
    beat_back(raft, 2, read_round=2)
    assert len(ready(raft)) == 1


def test_an_answer_to_a_round_that_was_never_started_is_ignored() -> None:
    raft = settled_leader(conf_state=ConfState((1, 2, 3, 4, 5)))
    beat_back(raft, 2, read_round=99)
    raft.read(5)
    flush(raft)
    beat_back(raft, 3, read_round=1)
    assert ready(raft) == []  # 1 and 3 are two of five


def test_later_heartbeats_repeat_the_open_round() -> None:
    raft = settled_leader()
    raft.read(5)
    flush(raft)
    raft.tick(1)
    assert [message.read_round for message in heard(raft, Heartbeat)] == [1, 1]
    beat_back(raft, 2, read_round=1)
    flush(raft)
    raft.tick(2)
    assert [message.read_round for message in heard(raft, Heartbeat)] == [0, 0]


def test_answers_of_a_former_term_do_not_count() -> None:
    raft = settled_leader()
    raft.read(5)
    flush(raft)
    raft.step(HeartbeatResponse(2, 1, raft.term - 1, 1, raft.progress[2].session))
    assert ready(raft) == []


def test_learners_confirm_nothing() -> None:
    raft = settled_leader(conf_state=ConfState(VOTERS, learners=(4, 5)))
    raft.read(5)
    flush(raft)
    beat_back(raft, 4, read_round=1)
    beat_back(raft, 5, read_round=1)
    assert ready(raft) == []


@pytest.mark.parametrize(("answering", "served"), [((2, 3), 0), ((4, 5), 0), ((3, 5), 1)])
def test_a_joint_configuration_needs_both_majorities(answering: tuple[int, ...], served: int) -> None:
    raft = settled_leader(conf_state=ConfState(voters=(1, 2, 3), voters_outgoing=(1, 4, 5)))
    raft.read(5)
    flush(raft)
    for peer in answering:
        beat_back(raft, peer, read_round=1)
    assert len(ready(raft)) == served


def test_a_smaller_configuration_may_confirm_what_waits() -> None:
    raft = settled_leader(conf_state=ConfState((1, 2)))
    raft.propose_config(ConfigChange((ChangeStep(ChangeKind.REMOVE, 2),)), 1)
    raft.read(5)
    asked_at = raft.commit_index
    assert ready(raft) == []
    accept(raft, 2, raft.last_index)
    assert ready(raft) == [ReadReady(5, asked_at)]


def test_a_cluster_of_one_serves_at_once() -> None:
    raft = leader(conf_state=ConfState((1,)))
    raft.read(5)
    assert ready(raft) == [ReadReady(5, raft.commit_index)]


def test_a_cluster_of_one_serves_nothing_before_its_own_term_is_committed() -> None:
    """R1: after a restart the commit index lags behind what was acknowledged."""
    raft = member([2, 2, 2], conf_state=ConfState((1,)))
    raft.campaign()
    raft.drain()
    raft.persisted(1)
    raft.read(5)
    assert raft.role is Role.LEADER
    assert of_kind(raft.drain(), ReadReady) == []
    raft.persisted(2)
    assert of_kind(raft.drain(), ReadReady) == [ReadReady(5, 5)]


def test_lease_reads_skip_the_round() -> None:
    raft = settled_leader(lease_reads=True)
    raft.read(5)
    effects = flush(raft)
    assert of_kind(effects, ReadReady) == [ReadReady(5, raft.commit_index)]


def test_lease_reads_wait_for_the_own_term_all_the_same() -> None:
    raft = leader([2, 2], lease_reads=True)
    raft.read(5)
    assert ready(raft) == []
    accept(raft, 2, raft.last_index)
    assert ready(raft) == [ReadReady(5, raft.last_index)]


# Followers


def test_a_follower_asks_the_leader_under_a_number_of_its_own() -> None:
    raft = member(term=2)
    beat(raft)
    raft.read(77)
    (asked,) = heard(raft, ForwardRead)
    assert (asked.to, asked.context != 77) == (2, True)
    raft.step(ReadResponse(2, 1, 2, asked.context, 9))
    assert ready(raft) == [ReadReady(77, 9)]
    raft.step(ReadResponse(2, 1, 2, asked.context, 9))
    assert ready(raft) == []


def test_the_leader_answers_a_forwarded_read_after_a_round() -> None:
    raft = settled_leader()
    raft.step(ForwardRead(3, 1, 0, 41))
    flush(raft)
    beat_back(raft, 2, read_round=1)
    assert heard(raft, ReadResponse) == [ReadResponse(1, 3, 2, 41, raft.commit_index)]


def test_equal_numbers_of_two_followers_are_two_reads() -> None:
    raft = settled_leader()
    raft.step(ForwardRead(2, 1, 0, 41))
    raft.step(ForwardRead(3, 1, 0, 41))
    flush(raft)
    beat_back(raft, 2, read_round=2)
    assert [answer.to for answer in heard(raft, ReadResponse)] == [2, 3]


def test_an_answer_to_a_former_life_answers_nothing() -> None:
    """A number is never used in two lives, so what comes late from the one cannot answer the other."""
    cluster = Cluster(3)
    cluster.elect(1)
    numbers: set[int] = set()
    for _ in range(3):
        cluster[2].step(Heartbeat(1, 2, cluster[1].term, 0))
        cluster[2].read(5)
        numbers |= {asked.context for asked in heard(cluster[2], ForwardRead)}
        cluster.members[2].restart()
    assert len(numbers) == 3


def test_reads_through_a_follower_end_to_end() -> None:
    cluster = Cluster(3)
    cluster.elect(1).propose([b"x"], 1)
    cluster.settle()
    cluster[3].read(5)
    cluster.settle()
    assert of_kind(cluster.members[3].log, ReadReady) == [ReadReady(5, 3)]


def test_without_a_leader_a_read_fails() -> None:
    for raft in (member(), candidate()):
        raft.read(5)
        assert of_kind(flush(raft), ReadFailed) == [ReadFailed(5, DropReason.NO_LEADER)]


def test_a_lost_question_is_asked_again_when_the_leader_is_heard() -> None:
    raft = member(term=2)
    beat(raft)
    raft.read(5)
    (asked,) = heard(raft, ForwardRead)
    raft.tick(TIMEOUT - 1)
    beat(raft)
    assert heard(raft, ForwardRead) == []
    raft.observe_time(TIMEOUT)
    beat(raft)
    assert heard(raft, ForwardRead) == [asked]


@pytest.mark.parametrize("change", ["new term", "campaign"])
def test_a_forwarded_read_fails_when_the_leader_changes(change: str) -> None:
    raft = member(term=2)
    beat(raft)
    raft.read(5)
    flush(raft)
    if change == "new term":
        beat(raft, leader_id=3, term=3)
    else:
        raft.tick(2 * TIMEOUT)
    assert of_kind(flush(raft), ReadFailed) == [ReadFailed(5, DropReason.LEADER_CHANGED)]


def test_a_leader_that_steps_down_fails_its_own_reads() -> None:
    raft = leader([2])
    raft.read(5)  # queued: nothing of this term is committed
    raft.step(ForwardRead(3, 1, 0, 41))
    raft.step(VoteResponse(2, 1, raft.term + 1, granted=False))
    assert of_kind(flush(raft), ReadFailed) == [ReadFailed(5, DropReason.LEADER_CHANGED)]
    raft = settled_leader()
    raft.read(6)
    flush(raft)
    raft.tick(3 * TIMEOUT)
    raft.tick(6 * TIMEOUT)
    assert of_kind(flush(raft), ReadFailed) == [ReadFailed(6, DropReason.LEADER_CHANGED)]


def test_a_follower_does_not_answer_forwarded_reads() -> None:
    raft = member(term=2)
    beat(raft)
    flush(raft)
    raft.step(ForwardRead(3, 1, 0, 41))
    assert said(raft) == []


def test_a_removed_leader_does_not_decide_alone() -> None:
    """A configuration of one voter is served at once only by that voter."""
    raft = settled_leader(conf_state=ConfState((1, 2)), step_down_on_removal=False)
    raft.propose_config(ConfigChange((ChangeStep(ChangeKind.REMOVE, 1),)), 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    flush(raft)
    raft.read(5)
    assert (raft.role, raft.conf_state.voters, ready(raft)) == (Role.LEADER, (2,), [])
    beat_back(raft, 2, read_round=1)
    assert len(ready(raft)) == 1
