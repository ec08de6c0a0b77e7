"""Handing leadership over on purpose (§3.10 of the dissertation)."""

from __future__ import annotations

from quorker.core.raft.effects import Accepted, Dropped, DropReason, Role
from quorker.core.raft.messages import (
    AppendEntries,
    ConfState,
    ForwardTransfer,
    RequestVote,
    TimeoutNow,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    TIMEOUT,
    VOTERS,
    accept,
    beat,
    beat_back,
    flush,
    heard,
    leader,
    member,
    of_kind,
    said,
    settled_leader,
)


def test_a_target_that_is_up_to_date_is_asked_at_once() -> None:
    raft = settled_leader()
    raft.transfer(2)
    assert said(raft) == [TimeoutNow(1, 2, 2)]


def test_a_target_that_is_behind_is_brought_up_to_date_first() -> None:
    """E15."""
    raft = settled_leader()
    raft.propose([b"x"], 1)
    flush(raft)
    raft.transfer(2)
    assert heard(raft, TimeoutNow) == []
    accept(raft, 2, raft.last_index)
    assert heard(raft, TimeoutNow) == [TimeoutNow(1, 2, 2)]


def test_a_target_that_is_probed_is_sent_what_it_lacks() -> None:
    raft = settled_leader()
    raft.peer_unreachable(2)
    raft.propose([b"x"], 1)
    flush(raft)
    beat_back(raft, 2)
    raft.transfer(2)
    assert [message.to for message in heard(raft, AppendEntries)] == [2]


def test_proposals_are_dropped_meanwhile() -> None:
    raft = settled_leader()
    raft.transfer(2)
    raft.propose([b"x"], 1)
    assert of_kind(flush(raft), Dropped) == [Dropped(1, DropReason.TRANSFERRING, 1)]


def test_a_transfer_that_does_not_happen_is_given_up_after_an_election_timeout() -> None:
    raft = settled_leader()
    raft.tick(TIMEOUT - 1)
    raft.transfer(2)
    raft.tick(2 * TIMEOUT - 2)
    beat_back(raft, 3)
    raft.propose([b"early"], 1)
    raft.tick(2 * TIMEOUT - 1)
    raft.propose([b"late"], 2)
    effects = flush(raft)
    assert [dropped.context for dropped in of_kind(effects, Dropped)] == [1]
    assert [accepted.context for accepted in of_kind(effects, Accepted)] == [2]


def test_the_end_of_a_transfer_is_a_deadline() -> None:
    raft = settled_leader(check_quorum=False, heartbeat_interval=TIMEOUT - 1)
    raft.tick(TIMEOUT - 1)
    raft.tick(TIMEOUT + 3)
    raft.transfer(2)
    assert raft.next_deadline() == 2 * TIMEOUT - 2
    raft.tick(2 * TIMEOUT - 2)
    assert raft.next_deadline() == 2 * TIMEOUT + 3


def test_another_target_takes_the_place_of_the_first() -> None:
    raft = settled_leader()
    raft.transfer(2)
    raft.transfer(2)
    raft.transfer(3)
    assert [message.to for message in heard(raft, TimeoutNow)] == [2, 3]


def test_a_transfer_to_the_leader_takes_back_any_other() -> None:
    raft = settled_leader()
    raft.transfer(2)
    raft.transfer(1)
    raft.propose([b"x"], 1)
    assert [accepted.context for accepted in of_kind(flush(raft), Accepted)] == [1]


def test_learners_and_strangers_cannot_be_targets() -> None:
    raft = settled_leader(conf_state=ConfState(VOTERS, learners=(4,)))
    raft.transfer(4)
    raft.transfer(9)
    assert said(raft) == []


def test_a_follower_passes_the_wish_on() -> None:
    raft = member(term=2)
    raft.transfer(3)
    assert said(raft) == []
    beat(raft)
    raft.transfer(3)
    assert heard(raft, ForwardTransfer) == [ForwardTransfer(1, 2, 2, 3)]


def test_the_leader_follows_a_forwarded_wish() -> None:
    raft = settled_leader()
    raft.step(ForwardTransfer(3, 1, 2, 2))
    assert heard(raft, TimeoutNow) == [TimeoutNow(1, 2, 2)]


def test_the_target_campaigns_without_a_pre_vote_and_says_why() -> None:
    raft = member(term=2, pre_vote=True)
    beat(raft)
    flush(raft)
    raft.step(TimeoutNow(2, 1, 2))
    requests = heard(raft, RequestVote)
    assert [(request.pre_vote, request.transfer, request.term) for request in requests] == [
        (False, True, 3)
    ] * 2


def test_a_target_that_may_not_lead_ignores_the_request() -> None:
    raft = member(term=2, conf_state=ConfState((2, 3), learners=(1,)))
    raft.step(TimeoutNow(2, 1, 2))
    assert raft.role is Role.FOLLOWER


def test_leadership_moves_although_everybody_hears_the_old_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(1).propose([b"x"], 1)
    cluster[1].transfer(3)
    cluster.settle()
    assert (cluster.leaders(), cluster[1].leader, cluster[3].term) == ([3], 3, 3)


def test_a_failed_transfer_leaves_a_working_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].transfer(3)
    cluster.tick(2 * TIMEOUT)
    cluster[1].propose([b"x"], 1)
    cluster.settle()
    assert cluster.members[2].data() == [b"x"]


def test_a_new_leader_can_hand_over_before_its_first_commit() -> None:
    raft = leader()
    raft.transfer(2)
    accept(raft, 2, raft.last_index)
    assert heard(raft, TimeoutNow) == [TimeoutNow(1, 2, 2)]
