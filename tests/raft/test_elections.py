"""Elections beyond the paper: pre-votes, quorum checks, leases, timers that may jump, and jitter."""

from __future__ import annotations

import pytest

from quorker.core.raft.effects import LeaderChanged, Role, RoleChanged
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Heartbeat,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    TIMEOUT,
    VOTERS,
    append,
    beat,
    beat_back,
    candidate,
    entries_of,
    flush,
    heard,
    leader,
    member,
    of_kind,
    said,
    settled_leader,
)

# Pre-vote


def test_a_pre_vote_asks_about_the_next_term_and_changes_nothing() -> None:
    raft = member(term=4, pre_vote=True)
    raft.campaign()
    assert {request.term for request in heard(raft, RequestVote)} == {5}
    assert (raft.role, raft.term, raft.voted_for) == (Role.PRE_CANDIDATE, 4, 0)


def test_a_won_pre_vote_starts_the_election() -> None:
    raft = member(term=4, pre_vote=True)
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 5, granted=True, pre_vote=True))
    assert [(request.term, request.pre_vote) for request in heard(raft, RequestVote)] == [(5, False)] * 2
    assert (raft.role, raft.term) == (Role.CANDIDATE, 5)


def test_a_pre_vote_is_given_without_promising_anything() -> None:
    raft = member(term=4)
    raft.step(RequestVote(2, 1, 5, 9, 9, pre_vote=True))
    raft.step(RequestVote(3, 1, 5, 9, 9, pre_vote=True))
    answers = heard(raft, VoteResponse)
    assert [(answer.term, answer.granted, answer.pre_vote) for answer in answers] == [(5, True, True)] * 2
    assert (raft.term, raft.voted_for) == (4, 0)


def test_a_pre_vote_does_not_reset_the_election_timer() -> None:
    raft = member(term=4)
    raft.tick(TIMEOUT - 1)
    raft.step(RequestVote(2, 1, 5, 9, 9, pre_vote=True))
    raft.tick(2 * TIMEOUT)
    assert raft.role is Role.CANDIDATE


def test_a_pre_vote_of_an_old_term_is_refused_with_ours() -> None:
    """E5: if it were ignored, a member that once had a higher term could wait for ever."""
    raft = member(term=4)
    raft.step(RequestVote(2, 1, 3, 9, 9, pre_vote=True))
    (answer,) = heard(raft, VoteResponse)
    assert (answer.term, answer.granted) == (4, False)


def test_a_refused_pre_vote_of_a_higher_term_teaches_us_the_term() -> None:
    raft = member(term=4, pre_vote=True)
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 7, granted=False, pre_vote=True))
    assert (raft.role, raft.term) == (Role.FOLLOWER, 7)


def test_answers_to_the_pre_vote_do_not_count_in_the_election() -> None:
    """E4: they say nothing about a vote."""
    raft = candidate()
    raft.step(VoteResponse(2, 1, raft.term, granted=True, pre_vote=True))
    assert raft.role is Role.CANDIDATE


def test_a_late_answer_to_the_pre_vote_before_does_not_count_in_this_one() -> None:
    """It was about the term that this member is in by now; counted, it would unseat a leader that all others hear."""
    raft = member(term=4, pre_vote=True)
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 4, granted=True, pre_vote=True))
    assert (raft.role, raft.term) == (Role.PRE_CANDIDATE, 4)
    raft.step(VoteResponse(3, 1, 5, granted=True, pre_vote=True))
    assert (raft.role, raft.term) == (Role.CANDIDATE, 5)


def test_answers_to_a_vote_do_not_count_in_the_pre_vote() -> None:
    raft = member(term=4, pre_vote=True)
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 4, granted=True))
    assert raft.role is Role.PRE_CANDIDATE


def test_a_member_that_was_cut_off_does_not_disturb_when_it_returns() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(10 * TIMEOUT)
    assert cluster[3].role is Role.PRE_CANDIDATE
    cluster.heal()
    cluster.tick(2)
    assert (cluster.leaders(), cluster[1].term, cluster[3].leader) == ([1], 2, 1)


def test_a_repeated_answer_is_one_vote() -> None:
    """E3: votes are counted by voter."""
    raft = candidate(conf_state=ConfState((1, 2, 3, 4, 5)))
    for _ in range(3):
        raft.step(VoteResponse(2, 1, raft.term, granted=True))
    assert raft.role is Role.CANDIDATE


def test_the_first_answer_of_a_voter_stands() -> None:
    raft = candidate()
    raft.step(VoteResponse(2, 1, raft.term, granted=False))
    raft.step(VoteResponse(2, 1, raft.term, granted=True))
    assert raft.role is Role.CANDIDATE


def test_votes_of_strangers_and_learners_do_not_count() -> None:
    raft = candidate(conf_state=ConfState(VOTERS, learners=(4,)))
    raft.step(VoteResponse(4, 1, raft.term, granted=True))
    raft.step(VoteResponse(9, 1, raft.term, granted=True))
    assert raft.role is Role.CANDIDATE


def test_a_learner_gives_its_vote() -> None:
    """E10: it may have been promoted without knowing it yet."""
    raft = member(conf_state=ConfState((2, 3), learners=(1,)))
    raft.step(RequestVote(2, 1, 5, 9, 9))
    assert [answer.granted for answer in heard(raft, VoteResponse)] == [True]


@pytest.mark.parametrize("conf_state", [ConfState((2, 3), learners=(1,)), ConfState((2, 3)), ConfState()])
def test_who_is_not_a_voter_never_campaigns(conf_state: ConfState) -> None:
    raft = member(conf_state=conf_state)
    raft.campaign()
    raft.tick(100 * TIMEOUT)
    assert (raft.role, raft.next_deadline()) == (Role.FOLLOWER, None)


# Check quorum and leases


def test_a_leader_that_hears_no_quorum_steps_down() -> None:
    raft = settled_leader()
    raft.tick(TIMEOUT)
    assert raft.role is Role.LEADER  # they were heard in this interval
    raft.tick(2 * TIMEOUT)
    assert (raft.role, raft.leader, raft.term) == (Role.FOLLOWER, 0, 2)


def test_a_leader_that_hears_a_quorum_goes_on() -> None:
    raft = settled_leader()
    for now in range(1, 10 * TIMEOUT):
        raft.tick(now)
        beat_back(raft, 2)
    assert raft.role is Role.LEADER


def test_without_check_quorum_a_leader_goes_on_alone() -> None:
    raft = settled_leader(check_quorum=False)
    raft.tick(100 * TIMEOUT)
    assert raft.role is Role.LEADER


def test_learners_do_not_keep_a_leader_in_office() -> None:
    raft = settled_leader(conf_state=ConfState(VOTERS, learners=(4, 5)))
    for now in range(1, 3 * TIMEOUT):
        raft.tick(now)
        if raft.role is Role.LEADER:
            beat_back(raft, 4)
            beat_back(raft, 5)
    assert raft.role is Role.FOLLOWER


def test_a_leader_in_office_gives_no_vote() -> None:
    raft = settled_leader()
    raft.step(RequestVote(2, 1, 9, 99, 99))
    assert (said(raft), raft.role) == ([], Role.LEADER)


def test_leadership_transfer_breaks_the_lease() -> None:
    raft = settled_leader()
    raft.step(RequestVote(2, 1, 3, raft.last_index, 2, transfer=True))
    assert [answer.granted for answer in heard(raft, VoteResponse)] == [True]


def test_a_leader_left_behind_learns_of_the_new_term() -> None:
    """E6: an answer at our term, or it would send for ever and we would never follow anyone."""
    raft = member(term=5)
    raft.step(Heartbeat(2, 1, 3, 1))
    raft.step(AppendEntries(2, 1, 3, 1, 1, (), 1))
    assert [(answer.term, answer.index) for answer in heard(raft, AppendResponse)] == [(5, 0), (5, 0)]


def test_without_pre_vote_and_check_quorum_an_old_leader_is_ignored() -> None:
    raft = member(term=5, check_quorum=False)
    raft.step(Heartbeat(2, 1, 3, 1))
    assert said(raft) == []


def test_a_restarted_member_outwaits_the_leases_it_forgot() -> None:
    """E14: under lease reads it may have promised a leader not to vote for another."""
    raft = member(term=4, lease_reads=True)
    raft.step(RequestVote(2, 1, 5, 9, 9))
    assert said(raft) == []
    raft.tick(TIMEOUT)
    raft.step(RequestVote(2, 1, 5, 9, 9))
    assert [answer.granted for answer in heard(raft, VoteResponse)] == [True]


def test_a_forgotten_leader_is_not_protected() -> None:
    raft = member(term=2)
    beat(raft)
    raft.forget_leader()
    raft.step(RequestVote(3, 1, 3, 9, 9))
    assert [answer.granted for answer in heard(raft, VoteResponse)] == [True]


def test_a_leader_is_not_forgotten_under_lease_reads() -> None:
    raft = member(term=2, lease_reads=True)
    beat(raft)
    raft.forget_leader()
    assert raft.leader == 2


# Time


def test_time_never_goes_back() -> None:
    raft = member()
    raft.tick(7)
    raft.tick(3)
    assert raft.now == 7


def test_observing_time_fires_nothing() -> None:
    raft = member(term=2)
    raft.observe_time(50 * TIMEOUT)
    beat(raft)
    raft.tick(50 * TIMEOUT)
    assert (raft.role, raft.last_leader_contact) == (Role.FOLLOWER, 50 * TIMEOUT)


def test_the_deadline_of_a_follower_is_its_election_timeout() -> None:
    raft = member(term=2)
    raft.tick(5)
    beat(raft)
    deadline = raft.next_deadline()
    assert deadline is not None
    assert deadline == 5 + raft.randomized_election_timeout
    raft.tick(deadline - 1)
    before = raft.role
    raft.tick(deadline)
    assert (before, raft.role) == (Role.FOLLOWER, Role.CANDIDATE)


def test_the_deadline_of_a_leader_is_its_next_heartbeat_or_quorum_check() -> None:
    raft = settled_leader(heartbeat_interval=4)
    assert raft.next_deadline() == 4
    raft.tick(8)
    assert raft.next_deadline() == TIMEOUT
    assert settled_leader(heartbeat_interval=4, check_quorum=False).next_deadline() == 4


def test_a_cluster_of_one_waits_for_nothing() -> None:
    raft = leader(conf_state=ConfState((1,)))
    assert raft.next_deadline() is None


def test_a_long_jump_sends_one_heartbeat_per_peer() -> None:
    raft = settled_leader(check_quorum=False)
    raft.tick(1000)
    assert [message.to for message in heard(raft, Heartbeat)] == [2, 3]


def test_a_long_jump_starts_one_election() -> None:
    raft = member(term=4)
    raft.tick(1000)
    assert raft.term == 5
    raft.tick(1000 + TIMEOUT - 1)
    assert raft.term == 5


def test_the_timeout_is_drawn_anew_at_every_change_of_role() -> None:
    """E12: with a fixed draw two members could split the vote for ever."""
    raft = member(seed=2)
    draws: list[int] = []
    for _ in range(20):
        raft.campaign()
        draws.append(raft.randomized_election_timeout)
        raft.step(AppendEntries(2, 1, raft.term, 1, 1, (), 1))
        draws.append(raft.randomized_election_timeout)
        flush(raft)
    assert len(set(draws)) > 5


def test_two_members_elect_a_leader_soon() -> None:
    cluster = Cluster(2, seed=5)
    cluster.tick(8 * TIMEOUT)
    assert len(cluster.leaders()) == 1


def test_a_timeout_can_be_set_for_a_test() -> None:
    raft = member()
    raft.set_randomized_election_timeout(3)
    raft.tick(3)
    assert raft.role is Role.CANDIDATE


# What others are told


def test_changes_of_role_and_leader_are_effects() -> None:
    raft = member()
    raft.campaign()
    flush_effects = flush(raft)
    raft.step(VoteResponse(2, 1, 2, granted=True))
    flush_effects += flush(raft)
    assert of_kind(flush_effects, RoleChanged) == [
        RoleChanged(Role.CANDIDATE, 2),
        RoleChanged(Role.LEADER, 2),
    ]
    assert of_kind(flush_effects, LeaderChanged) == [LeaderChanged(1, 2)]


def test_the_same_leader_in_a_new_term_is_a_change() -> None:
    raft = member(term=2)
    beat(raft)
    beat(raft, term=3)
    effects = flush(raft)
    assert of_kind(effects, LeaderChanged) == [LeaderChanged(2, 2), LeaderChanged(2, 3)]


def test_only_a_follower_heeds_timeout_now() -> None:
    raft = member(term=2, pre_vote=True)
    raft.step(TimeoutNow(2, 1, 2))
    assert (raft.role, raft.term) == (Role.CANDIDATE, 3)
    raft.step(TimeoutNow(2, 1, 3))
    assert raft.term == 3


def test_a_rejected_candidate_learns_what_is_committed() -> None:
    """M3: an even number of voters could otherwise wait for ever for one that is no voter any more."""
    raft = candidate([2, 2], term=2)
    raft.step(VoteResponse(2, 1, raft.term, granted=False, commit_index=3, commit_term=2))
    assert raft.commit_index == 3
    raft = candidate([2, 2], term=2)
    raft.step(VoteResponse(2, 1, raft.term, granted=False, commit_index=3, commit_term=1))
    assert raft.commit_index == 1


def test_a_rejection_says_what_is_committed_a_grant_does_not() -> None:
    raft = member([2, 2], term=2, commit=3)
    raft.step(RequestVote(2, 1, 4, 2, 2))
    raft.step(RequestVote(3, 1, 4, 3, 2))
    answers = heard(raft, VoteResponse)
    assert [(answer.commit_index, answer.commit_term) for answer in answers] == [(3, 2), (0, 0)]


def test_a_follower_of_a_live_leader_stays_so_whoever_asks() -> None:
    raft = member(term=2)
    assert not append(raft, (1, 1), entries_of(2, 2, 1)).rejected
    for peer in (2, 3, 9):
        raft.step(RequestVote(peer, 1, 3, 99, 9, pre_vote=True))
    assert (said(raft), raft.leader) == ([], 2)


def test_without_pre_votes_a_candidate_of_an_earlier_term_hears_of_ours() -> None:
    """§5.1. It may be the only one that can win, and nobody else may speak to it (long seed 4000353)."""
    raft = member(term=5, pre_vote=False)
    raft.step(RequestVote(2, 1, 3, 9, 3))
    assert said(raft) == [VoteResponse(1, 2, 5, granted=False)]


def test_with_pre_votes_it_has_heard_of_it_before() -> None:
    raft = member(term=5, pre_vote=True)
    raft.step(RequestVote(2, 1, 3, 9, 3))
    assert said(raft) == []
