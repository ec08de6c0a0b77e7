"""The Raft paper, sentence by sentence: each test is named after the section whose sentence it checks.

Sections are those of "In Search of an Understandable Consensus Algorithm (Extended Version)".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import product

import pytest

from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Apply, Persist, Role, RoleChanged, Send
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    RequestVote,
    VoteResponse,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    TIMEOUT,
    VOTERS,
    accept,
    append,
    candidate,
    flush,
    heard,
    leader,
    member,
    messages,
    said,
)

# 5.1 Raft basics


@pytest.mark.parametrize("make", [member, candidate, leader])
def test_5_1_current_term_is_exchanged_and_the_smaller_one_updated(make: Callable[[], Raft]) -> None:
    raft = make()
    raft.step(Heartbeat(2, 1, 7, 1))
    assert raft.term == 7


@pytest.mark.parametrize("make", [candidate, leader])
def test_5_1_a_candidate_or_leader_with_an_old_term_reverts_to_follower(make: Callable[[], Raft]) -> None:
    raft = make()
    raft.step(RequestVote(3, 1, raft.term + 1, 9, 9, transfer=True))
    assert raft.role is Role.FOLLOWER


def test_5_1_a_request_with_a_stale_term_is_rejected() -> None:
    raft = member(term=5, check_quorum=False)
    raft.step(RequestVote(2, 1, 4, 9, 9))
    raft.step(AppendEntries(2, 1, 4, 1, 1, (Entry(4, 2),), 2))
    assert not any(isinstance(answer, VoteResponse) and answer.granted for answer in said(raft))
    assert raft.last_index == 1


def test_5_1_terms_are_consecutive_integers() -> None:
    raft = member(term=5)
    for expected in (6, 7, 8):
        raft.campaign()
        assert raft.term == expected


def test_5_1_the_current_term_increases_monotonically() -> None:
    raft = member(term=5)
    raft.step(Heartbeat(2, 1, 3, 1))
    raft.step(RequestVote(2, 1, 1, 9, 9))
    assert raft.term == 5


def test_5_1_followers_are_passive_they_only_respond() -> None:
    raft = member(term=2)
    raft.tick(TIMEOUT - 1)
    assert said(raft) == []
    raft.step(Heartbeat(2, 1, 2, 1))
    raft.step(AppendEntries(2, 1, 2, 1, 1, (Entry(2, 2),), 1))
    assert [(type(answer), answer.to) for answer in said(raft)] == [
        (HeartbeatResponse, 2),
        (AppendResponse, 2),
    ]
    raft.tick(2 * TIMEOUT - 2)
    assert said(raft) == []


def test_5_1_requests_without_a_response_are_tried_again() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster.isolate(1)
    cluster[1].campaign()
    cluster.settle()
    assert {type(message) for message in cluster.dropped} == {RequestVote}
    cluster.heal()
    cluster.tick(2 * TIMEOUT, only=(1,))
    cluster.settle()
    assert cluster.leaders() == [1]
    cluster.isolate(1)
    cluster[1].propose([b"x"], 1)
    cluster.settle()
    cluster.heal()
    cluster.tick(2)
    assert {tuple(cluster.members[node].data()) for node in VOTERS} == {(b"x",)}


# 5.2 Leader election


def test_5_2_servers_begin_as_followers() -> None:
    assert member().role is Role.FOLLOWER


def test_5_2_a_server_remains_follower_as_long_as_it_hears_a_leader() -> None:
    raft = member(term=2)
    for now in range(0, 10 * TIMEOUT, TIMEOUT - 1):
        raft.tick(now)
        raft.step(Heartbeat(2, 1, 2, 1))
    assert raft.role is Role.FOLLOWER


def test_5_2_leaders_send_periodic_heartbeats_to_all_followers() -> None:
    raft = leader(heartbeat_interval=3)
    raft.tick(2)
    assert said(raft) == []
    raft.tick(3)
    beats = said(raft)
    assert [beat.to for beat in beats] == [2, 3]
    assert all(isinstance(beat, Heartbeat) for beat in beats)


def test_5_2_a_follower_without_communication_begins_an_election() -> None:
    raft = member()
    roles: list[Role] = []
    for now in (TIMEOUT - 1, 2 * TIMEOUT):
        raft.tick(now)
        roles.append(raft.role)
    assert roles == [Role.FOLLOWER, Role.CANDIDATE]


def test_5_2_to_begin_an_election_it_increments_its_term_votes_for_itself_and_asks_all_others() -> None:
    raft = member(term=4)
    raft.campaign()
    effects = flush(raft)
    assert (raft.term, raft.voted_for, raft.role) == (5, 1, Role.CANDIDATE)
    assert messages(effects) == [RequestVote(1, 2, 5, 1, 1), RequestVote(1, 3, 5, 1, 1)]


@pytest.mark.parametrize(
    ("size", "grants", "rejections", "role"),
    [
        (1, 0, 0, Role.LEADER),
        (3, 0, 0, Role.CANDIDATE),
        (3, 1, 0, Role.LEADER),
        (3, 0, 2, Role.FOLLOWER),
        (5, 1, 1, Role.CANDIDATE),
        (5, 2, 2, Role.LEADER),
        (5, 1, 3, Role.FOLLOWER),
    ],
)
def test_5_2_a_candidate_wins_with_the_votes_of_a_majority(
    size: int, grants: int, rejections: int, role: Role
) -> None:
    raft = member(conf_state=ConfState(tuple(range(1, size + 1))))
    raft.campaign()
    flush(raft)
    for voter in range(2, 2 + rejections):
        raft.step(VoteResponse(voter, 1, raft.term, granted=False))
    for voter in range(2 + rejections, 2 + rejections + grants):
        raft.step(VoteResponse(voter, 1, raft.term, granted=True))
    assert raft.role is role


def test_5_2_votes_of_another_term_do_not_count() -> None:
    raft = candidate()
    raft.step(VoteResponse(2, 1, raft.term - 1, granted=True))
    assert raft.role is Role.CANDIDATE


def test_5_2_a_server_votes_for_at_most_one_candidate_per_term_first_come_first_served() -> None:
    raft = member()
    raft.step(RequestVote(2, 1, 2, 1, 1))
    raft.step(RequestVote(3, 1, 2, 1, 1))
    raft.step(RequestVote(2, 1, 2, 1, 1))
    granted = [(answer.to, answer.granted) for answer in said(raft) if isinstance(answer, VoteResponse)]
    assert granted == [(2, True), (3, False), (2, True)]


@pytest.mark.parametrize("first", list(product((1, 2), repeat=3)), ids=str)
def test_5_2_election_safety_at_most_one_leader_in_a_term(first: tuple[int, ...]) -> None:
    """Two candidates of one term; `first`: whose request reaches each of the voters 3, 4 and 5 first."""
    cluster = Cluster(5, pre_vote=False)
    for node in (1, 2):
        cluster[node].campaign()
        cluster.perform(node)
        cluster.sync(node)
    preferred: dict[int, int] = dict(zip((3, 4, 5), first, strict=True))
    cluster.queue = deque(
        sorted(cluster.queue, key=lambda request: preferred.get(request.to) != request.sender)
    )
    cluster.settle()
    elected = [
        (node, change.term)
        for node, each in cluster.members.items()
        for change in each.all(RoleChanged)
        if change.role is Role.LEADER
    ]
    assert elected == [(1 if first.count(1) > first.count(2) else 2, 2)]


def test_5_2_a_granted_vote_restarts_the_election_timer() -> None:
    raft = member(term=2)
    raft.set_randomized_election_timeout(TIMEOUT)
    raft.tick(TIMEOUT - 1)
    raft.step(RequestVote(3, 1, 2, 1, 1))
    assert [getattr(answer, "granted", None) for answer in said(raft)] == [True]
    roles: list[Role] = []
    for now in (2 * TIMEOUT - 2, 2 * TIMEOUT - 1):
        raft.tick(now)
        roles.append(raft.role)
    assert roles == [Role.FOLLOWER, Role.CANDIDATE]


def test_5_2_a_new_leader_establishes_its_authority_at_once() -> None:
    raft = candidate()
    raft.step(VoteResponse(2, 1, raft.term, granted=True))
    assert [message.to for message in said(raft) if isinstance(message, AppendEntries)] == [2, 3]


@pytest.mark.parametrize("ahead", [0, 1])
def test_5_2_a_candidate_recognizes_a_leader_of_its_term_or_later(ahead: int) -> None:
    raft = candidate()
    raft.step(AppendEntries(2, 1, raft.term + ahead, 1, 1, (), 1))
    assert (raft.role, raft.leader) == (Role.FOLLOWER, 2)


def test_5_2_a_candidate_rejects_a_leader_of_an_earlier_term_and_continues() -> None:
    raft = candidate()
    raft.step(AppendEntries(2, 1, raft.term - 1, 1, 1, (Entry(1, 2),), 2))
    assert (raft.role, raft.last_index) == (Role.CANDIDATE, 1)


def test_5_2_without_a_winner_each_candidate_starts_a_new_election_in_the_next_term() -> None:
    raft = candidate()
    term = raft.term
    raft.tick(raft.now + 2 * TIMEOUT)
    assert (raft.role, raft.term) == (Role.CANDIDATE, term + 1)


def test_5_2_election_timeouts_are_chosen_randomly_from_a_fixed_interval() -> None:
    raft = member(seed=3)
    drawn: set[int] = set()
    for _ in range(200):
        raft.campaign()
        drawn.add(raft.randomized_election_timeout)
    assert drawn == set(range(TIMEOUT, 2 * TIMEOUT))


def test_5_2_most_elections_are_not_split() -> None:
    """Two members that time out together draw apart soon: no fixed jitter keeps them in step."""
    equal = 0
    for seed in range(100):
        first, second = (Raft(RaftConfig(node, TIMEOUT, seed=seed), DurableState()) for node in (1, 2))
        equal += first.randomized_election_timeout == second.randomized_election_timeout
    assert equal < 30


# 5.3 Log replication


def test_5_3_the_leader_appends_the_command_and_sends_it_to_all_others_in_parallel() -> None:
    raft = leader()
    accept(raft, 2, 2)
    accept(raft, 3, 2)
    flush(raft)
    raft.propose([b"x"], 1)
    sent = [message for message in said(raft) if isinstance(message, AppendEntries)]
    assert [message.to for message in sent] == [2, 3]
    assert {message.entries for message in sent} == {(Entry(2, 3, b"x"),)}


def test_5_3_the_leader_applies_an_entry_once_it_is_safely_replicated() -> None:
    raft = leader()
    assert raft.applied_index == 1
    accept(raft, 2, 2)
    assert [effect.entries for effect in flush(raft) if isinstance(effect, Apply)] == [(Entry(2, 2),)]


def test_5_3_the_leader_retries_indefinitely_until_all_followers_store_all_entries() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].propose([b"x"], 1)
    cluster.tick(5 * TIMEOUT)
    cluster.heal()
    cluster.tick(2)
    assert cluster.members[3].data() == [b"x"]


def test_5_3_each_entry_has_the_term_in_which_the_leader_received_it_and_its_position() -> None:
    raft = leader()
    raft.propose([b"x", b"y"], 1)
    assert raft.log.entries(3, 5) == (Entry(2, 3, b"x"), Entry(2, 4, b"y"))


@pytest.mark.parametrize(
    ("size", "others", "is_committed"), [(3, 1, True), (3, 0, False), (5, 1, False), (5, 2, True)]
)
def test_5_3_an_entry_is_committed_once_a_majority_has_it(size: int, others: int, is_committed: bool) -> None:
    cluster = Cluster(size)
    cluster.elect(1)
    cluster.isolate(*range(2 + others, size + 1))
    cluster[1].propose([b"x"], 1)
    cluster.settle()
    assert (cluster[1].commit_index == cluster[1].last_index) is is_committed


def test_5_3_committing_an_entry_commits_all_before_it_also_of_previous_leaders() -> None:
    raft = member([2, 3])
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 4, granted=True))
    flush(raft)
    accept(raft, 2, 4)
    assert [entry.term for entry in raft.log.entries(2, raft.commit_index + 1)] == [2, 3, 4]


def test_5_3_the_leader_includes_its_commit_index_in_appends_and_heartbeats() -> None:
    raft = leader()
    accept(raft, 2, 2)
    sent = said(raft)
    raft.tick(1)
    sent += said(raft)
    told = [
        (type(message), message.commit_index)
        for message in sent
        if isinstance(message, (AppendEntries, Heartbeat))
    ]
    assert told == [(AppendEntries, 2), (Heartbeat, 2), (Heartbeat, 0)]  # 3 acknowledged nothing yet


def test_5_3_a_follower_applies_committed_entries_in_log_order() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, (Entry(2, 2, b"a"), Entry(2, 3, b"b")), 3))
    applied = [entry for effect in flush(raft) if isinstance(effect, Apply) for entry in effect.entries]
    assert [entry.data for entry in applied] == [b"a", b"b"]


def test_5_3_entries_of_equal_index_and_term_hold_equal_commands_and_equal_logs_before_them() -> None:
    cluster = Cluster(3)
    cluster.elect(1).propose([b"1"], 1)
    cluster.settle()
    cluster.isolate(1)
    cluster[1].propose([b"lost"], 2)
    cluster.elect_among(2, 3)
    cluster[2].propose([b"2"], 3)
    cluster.settle()
    cluster.heal()
    cluster.tick(3)
    logs = [cluster[node].log.entries(2, 99) for node in VOTERS]
    assert logs[0] == logs[1] == logs[2]
    assert [entry.data for entry in logs[0] if entry.data] == [b"1", b"2"]


def test_5_3_a_leader_creates_at_most_one_entry_per_index() -> None:
    raft = leader()
    raft.propose([b"x"], 1)
    before = raft.log.entries(2, 4)
    raft.propose([b"y"], 2)
    assert raft.log.entries(2, 4) == before


def test_5_3_a_follower_without_the_preceding_entry_refuses_the_new_ones() -> None:
    raft = member([1, 2], term=3)
    assert append(raft, (9, 3), [Entry(3, 10)]).rejected
    assert append(raft, (3, 3), [Entry(3, 4)]).rejected
    assert raft.last_index == 3
    assert not append(raft, (3, 2), [Entry(3, 4)]).rejected
    assert raft.last_index == 4


@pytest.mark.parametrize(
    ("terms", "previous", "sent"),
    [
        ([], (1, 1), [2]),
        ([1], (1, 1), [2]),
        ([1, 1, 1], (2, 1), [2, 2]),
        ([1, 2, 2, 2], (2, 1), [3]),
    ],
)
def test_5_3_conflicting_entries_are_overwritten_by_the_leaders(
    terms: list[int], previous: tuple[int, int], sent: list[int]
) -> None:
    raft = member(terms, term=3)
    entries = [Entry(term, index) for index, term in enumerate(sent, previous[0] + 1)]
    assert append(raft, previous, entries) == AppendResponse(1, 2, 3, entries[-1].index, commit_index=1)
    assert list(raft.log.entries(previous[0] + 1, 99)) == entries


def test_5_3_a_new_leader_initializes_next_index_to_just_after_its_last_entry() -> None:
    raft = member([1, 1, 1])
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 2, granted=True))
    sent = [message for message in said(raft) if isinstance(message, AppendEntries)]
    assert {(message.previous_index, message.previous_term) for message in sent} == {(4, 1)}


def test_5_3_after_a_rejection_the_leader_goes_back_and_tries_again() -> None:
    raft = member([1, 1, 1, 1])
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 2, granted=True))
    flush(raft)
    session = raft.progress[2].session
    raft.step(AppendResponse(2, 1, 2, 5, rejected=True, hint_index=3, hint_term=1, session=session))
    (again,) = said(raft)
    assert isinstance(again, AppendEntries)
    assert (again.previous_index, len(again.entries)) == (3, 3)


def test_5_3_the_number_of_rejected_appends_is_bounded_by_the_terms_in_conflict() -> None:
    """The follower names the first index where it could match, so a whole term is skipped at a time."""
    follower = member([2] * 50 + [3] * 50, term=9)
    answer = append(follower, (80, 2))
    assert (answer.rejected, answer.hint_index, answer.hint_term) == (True, 51, 2)


def test_5_3_a_leader_never_overwrites_or_deletes_its_own_entries() -> None:
    raft = leader()
    raft.propose([b"x"], 1)
    before = raft.log.entries(2, 99)
    raft.step(AppendResponse(2, 1, 2, 2, rejected=True, session=raft.progress[2].session))
    flush(raft)
    assert raft.log.entries(2, 99) == before


# 5.4 Safety


@pytest.mark.parametrize(
    ("ours", "last_index", "last_term", "granted"),
    [
        ([1, 1], 3, 1, True),  # the same
        ([1, 1], 4, 1, True),  # longer
        ([1, 1], 2, 1, False),  # shorter
        ([1, 1], 2, 2, True),  # shorter, of a later term
        ([1, 2], 9, 1, False),  # longer, of an earlier term
    ],
)
def test_5_4_1_a_vote_is_denied_if_our_log_is_more_up_to_date(
    ours: list[int], last_index: int, last_term: int, granted: bool
) -> None:
    raft = member(ours)
    raft.step(RequestVote(2, 1, 5, last_index, last_term))
    (answer,) = heard(raft, VoteResponse)
    assert (answer.to, answer.term, answer.granted) == (2, 5, granted)


def test_5_4_1_the_request_says_how_the_candidates_log_ends() -> None:
    raft = member([1, 4])
    raft.campaign()
    asked = [message for message in said(raft) if isinstance(message, RequestVote)]
    assert {(request.last_index, request.last_term) for request in asked} == {(3, 4)}


def test_5_4_2_entries_of_earlier_terms_are_never_committed_by_counting() -> None:
    raft = member([2, 3])
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(2, 1, 4, granted=True))
    flush(raft)
    accept(raft, 2, 3)
    accept(raft, 3, 3)
    assert raft.commit_index == 1
    accept(raft, 2, 4)
    assert raft.commit_index == 4


def test_5_4_3_an_entry_applied_at_an_index_is_the_same_everywhere() -> None:
    """Figure 8: an entry of an earlier term may be overwritten, even from a majority, unless it is committed."""
    cluster = Cluster(5, pre_vote=False)
    cluster.elect(1)
    cluster.isolate(1, 2)
    cluster[1].propose([b"blue"], 1)
    cluster.settle()  # (a): on 1 and 2
    cluster.elect_alone(5, 3, 4)
    cluster[5].propose([b"red"], 2)
    cluster.settle()  # (b): on 5 only
    cluster.heal()
    cluster.isolate(4, 5)
    cluster.members[1].restart()
    cluster.elect_among(1, 2, 3)  # (c): 1 spreads "blue", and commits it with an entry of its own
    cluster.heal()
    cluster.tick(2 * TIMEOUT)  # (e)
    assert {tuple(cluster.members[node].data()) for node in cluster.members} == {(b"blue",)}


def test_5_4_2_an_uncommitted_entry_on_a_majority_may_be_overwritten() -> None:
    """Figure 8 (d): without an entry of its own term on a majority, the leader has not committed the old one."""
    cluster = Cluster(5, pre_vote=False)
    cluster.elect(1)
    cluster.isolate(1, 2)
    cluster[1].propose([b"blue"], 1)
    cluster.settle()
    cluster.elect_alone(5, 3, 4)
    cluster[5].propose([b"red"], 2)
    cluster.settle()
    cluster.heal()
    cluster.elect_among(5, 3, 4)
    cluster.tick(2 * TIMEOUT)
    assert {tuple(cluster.members[node].data()) for node in cluster.members} == {(b"red",)}


@pytest.mark.parametrize(("node", "holds"), [(2, True), (3, True), (4, False), (5, False)])
def test_5_4_leader_completeness_a_committed_entry_is_in_the_log_of_every_later_leader(
    node: int, holds: bool
) -> None:
    cluster = Cluster(5, pre_vote=False, check_quorum=False)
    cluster.elect(1)
    cluster.isolate(4, 5)
    cluster[1].propose([b"committed"], 1)
    cluster.settle()
    assert cluster[1].commit_index == cluster[1].last_index
    cluster.heal()
    cluster.isolate(1)
    cluster[node].campaign()
    cluster.settle()
    assert (node in cluster.leaders()) is holds
    assert (b"committed" in [entry.data for entry in cluster[node].log.entries(2, 99)]) is holds


# 5.5 Follower and candidate crashes


def test_5_5_requests_are_idempotent() -> None:
    raft = member(term=2)
    entries = [Entry(2, 2, b"a"), Entry(2, 3, b"b")]
    first = append(raft, (1, 1), entries)
    assert append(raft, (1, 1), entries) == first
    assert append(raft, (1, 1), entries[:1]).index == 2
    assert list(raft.log.entries(2, 99)) == entries  # a shorter, older request cuts nothing


def test_5_5_a_crashed_follower_catches_up_after_its_restart() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].propose([b"x"], 1)
    cluster.settle()
    cluster.members[3].restart()
    cluster.heal()
    cluster.tick(2)
    assert cluster.members[3].data() == [b"x"]


# Figure 2: what is durable before anything is answered


def test_figure_2_term_and_vote_are_on_stable_storage_before_a_vote_is_given() -> None:
    raft = member()
    raft.step(RequestVote(2, 1, 2, 1, 1))
    effects = raft.drain()
    assert messages(list(effects)) == []
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert persist.hard_state == HardState(2, 2, 1)
    assert persist.then == (Send(2, VoteResponse(1, 2, 2, granted=True)),)


def test_figure_2_entries_are_on_stable_storage_before_they_are_acknowledged() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, (Entry(2, 2),), 1))
    effects = raft.drain()
    assert messages(list(effects)) == []
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert persist.entries == (Entry(2, 2),)
    assert [send.to for send in persist.then] == [2]


def test_figure_2_a_restarted_server_does_not_vote_again_in_its_term() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster[1].step(RequestVote(2, 1, 2, 1, 1))
    cluster.perform(1)
    cluster.sync(1)
    cluster.members[1].restart()
    cluster[1].step(RequestVote(3, 1, 2, 1, 1))
    assert [answer.granted for answer in heard(cluster[1], VoteResponse)] == [False]
