"""Replication beyond the paper: windows, probing, joined appends, sessions, limits on bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Accepted, Apply, Dropped, DropReason, Persist
from quorker.core.raft.log import ENTRY_OVERHEAD_BYTES
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    ForwardProposal,
    Heartbeat,
    HeartbeatResponse,
    NodeId,
)
from quorker.core.raft.progress import ProgressState
from quorker.sim.bare.solo import (
    accept,
    accept_all,
    append,
    beat,
    beat_back,
    candidate,
    compact,
    entries_of,
    flush,
    heard,
    leader,
    member,
    of_kind,
    reject,
    said,
    settled_leader,
)


def appends(raft: Raft, peer: NodeId = 2) -> list[AppendEntries]:
    return [message for message in heard(raft, AppendEntries) if message.to == peer]


def answer(raft: Raft, index: int, flight: int, rejected: bool = False) -> None:
    """Member 2 answers an append of a certain flight."""
    session = raft.progress[2].session
    raft.step(AppendResponse(2, 1, raft.term, index, rejected, session=session, flight=flight))


def in_flight(count: int) -> tuple[Raft, int]:
    """A leader that has sent `count` appends in one flight and has no answer; the number of that flight."""
    raft = settled_leader()
    for number in range(count):
        raft.propose([b"x"], number)
        flush(raft)
    return raft, raft.progress[2].flight


# Joined and separate appends


def test_appends_between_two_drains_are_joined() -> None:
    raft = settled_leader()
    for number in range(3):
        raft.propose([b"%d" % number], number)
    (sent,) = appends(raft)
    assert [entry.data for entry in sent.entries] == [b"0", b"1", b"2"]


def test_appends_are_separate_when_asked_for() -> None:
    raft = settled_leader(join_appends=False)
    for number in range(3):
        raft.propose([b"%d" % number], number)
    assert [len(sent.entries) for sent in appends(raft)] == [1, 1, 1]


def test_a_commit_rides_on_the_next_append() -> None:
    raft = settled_leader()
    raft.propose([b"a"], 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    raft.propose([b"b"], 2)
    (sent,) = appends(raft)
    assert (len(sent.entries), sent.commit_index) == (1, raft.commit_index)


def test_a_commit_is_sent_alone_when_nothing_else_is_to_be_said() -> None:
    raft = settled_leader()
    raft.propose([b"a"], 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    (sent,) = appends(raft)
    assert (sent.entries, sent.commit_index) == ((), raft.last_index)


def test_every_proposal_is_accepted_with_the_index_of_its_last_entry() -> None:
    raft = settled_leader()
    base = raft.last_index
    raft.propose([b"a"], 1)
    raft.propose([b"b", b"c"], 2)
    assert of_kind(flush(raft), Accepted) == [Accepted(1, base + 1, 2), Accepted(2, base + 3, 2)]


# Probing and windows


def test_a_new_leader_probes_with_one_append_at_a_time() -> None:
    raft = leader()
    raft.propose([b"a"], 1)
    assert appends(raft) == []  # the answer to the first one is still to come
    accept(raft, 2, 2)
    assert [entry.data for sent in appends(raft) for entry in sent.entries] == [b"a"]


def test_a_lost_probe_is_repeated_after_a_heartbeat() -> None:
    raft = leader()
    beat_back(raft, 2)
    (again,) = appends(raft)
    assert (again.previous_index, len(again.entries)) == (1, 1)


def test_a_follower_that_matches_is_sent_to_without_waiting() -> None:
    raft = settled_leader()
    for number in range(3):
        raft.propose([b"%d" % number], number)
        assert len(appends(raft)) == 1


def test_a_full_window_stops_the_flow_until_something_is_acknowledged() -> None:
    raft = settled_leader(max_inflight_messages=2)
    base = raft.last_index
    sent: list[int] = []
    for number in range(4):
        raft.propose([b"%d" % number], number)
        sent.append(len(appends(raft)))
    assert sent == [1, 1, 0, 0]
    accept(raft, 2, base + 1)
    assert [[entry.data for entry in message.entries] for message in appends(raft)] == [[b"2", b"3"]]


def test_a_window_is_limited_by_bytes_too() -> None:
    raft = settled_leader(max_inflight_bytes=100, max_append_bytes=100)
    sent: list[int] = []
    for number in range(3):
        raft.propose([b"x" * 60], number)
        sent.append(len(appends(raft)))
    assert sent == [1, 1, 0]


def test_when_a_whole_window_is_lost_the_flow_goes_on_by_itself() -> None:
    """L12: a full window lets an empty append through per heartbeat, whose rejection shows what is missing."""
    raft = settled_leader(max_inflight_messages=2)
    base = raft.last_index
    for number in range(3):
        raft.propose([b"%d" % number], number)
        said(raft)
    beat_back(raft, 2)
    (probe,) = appends(raft)
    assert (probe.previous_index, probe.entries) == (base + 2, ())
    reject(raft, 2, base + 2, base, 2)
    (again,) = appends(raft)
    assert (again.previous_index, len(again.entries)) == (base, 3)


def test_a_large_backlog_is_cut_into_appends_of_the_allowed_size() -> None:
    raft = settled_leader(max_append_bytes=2 * (ENTRY_OVERHEAD_BYTES + 10))
    raft.propose([b"x" * 10] * 5, 1)
    assert [len(sent.entries) for sent in appends(raft)] == [2, 2, 1]


def test_an_append_holds_at_least_one_entry_however_large() -> None:
    raft = settled_leader(max_append_bytes=0)
    raft.propose([b"x" * 1000] * 2, 1)
    assert [len(sent.entries) for sent in appends(raft)] == [1, 1]


def test_an_unreachable_follower_is_probed() -> None:
    raft = settled_leader()
    raft.peer_unreachable(2)
    assert raft.progress[2].state is ProgressState.PROBE
    raft.peer_unreachable(99)
    raft.peer_unreachable(1)


def test_a_stale_rejection_is_ignored() -> None:
    raft = settled_leader()
    before = raft.progress[2].next_index
    reject(raft, 2, raft.progress[2].match_index, 1, 1)
    assert (raft.progress[2].next_index, appends(raft)) == (before, [])


def test_next_never_falls_to_what_is_matched() -> None:
    """L11: however low the hint of a rejection is."""
    raft = settled_leader()
    raft.propose([b"a"], 1)
    said(raft)
    reject(raft, 2, raft.last_index, 0, 0)
    known = raft.progress[2]
    assert known.match_index < known.next_index


def test_the_leader_skips_terms_the_follower_cannot_have() -> None:
    """L13: one probe per term in conflict, not one per entry."""
    raft = leader([3] * 20 + [5] * 20)
    reject(raft, 2, raft.last_index - 1, 30, 4)
    (probe,) = appends(raft)
    assert probe.previous_index == 21


def test_an_acknowledgement_beyond_our_log_is_ignored() -> None:
    raft = settled_leader()
    accept(raft, 2, raft.last_index + 5)
    assert raft.progress[2].match_index == raft.last_index


def test_a_late_acknowledgement_takes_nothing_back() -> None:
    """L6: match and commit only rise within a term."""
    raft = settled_leader()
    accept(raft, 2, 1)
    assert raft.progress[2].match_index == raft.last_index


# Sessions


def test_answers_of_another_session_do_not_count() -> None:
    """L7: a member that was removed and added again, in one term, may not hold what its former self acknowledged."""
    raft = settled_leader(conf_state=ConfState((1, 2), learners=(3,)))
    old = raft.progress[3].session
    for kind in (ChangeKind.REMOVE, ChangeKind.ADD_LEARNER):
        raft.propose_config(ConfigChange((ChangeStep(kind, 3),)), 1)
        flush(raft)
        accept(raft, 2, raft.last_index)
        flush(raft)
    assert raft.progress[3].session not in (0, old)
    raft.step(AppendResponse(3, 1, raft.term, raft.last_index, session=old))
    raft.step(HeartbeatResponse(3, 1, raft.term, 0, old))
    assert raft.progress[3].match_index == 0
    accept(raft, 3, raft.last_index)
    assert raft.progress[3].match_index == raft.last_index


def test_only_the_first_rejection_of_a_flight_makes_the_leader_probe() -> None:
    """A network that reorders has one append rejected after the other; each would start a flight of its own."""
    raft, flight = in_flight(5)
    last = raft.last_index
    for previous in range(last - 4, last):
        answer(raft, previous, flight, rejected=True)
    (probe,) = appends(raft)
    assert (probe.previous_index, probe.flight) == (last - 5, flight + 1)
    answer(raft, last - 1, flight, rejected=True)
    assert not appends(raft)


def test_a_late_answer_to_an_earlier_flight_ends_no_probing() -> None:
    raft, flight = in_flight(1)
    met = raft.last_index - 1
    raft.peer_unreachable(2)
    answer(raft, met, flight)
    after_late = raft.progress[2].state
    answer(raft, met, flight + 1)
    assert (after_late, raft.progress[2].state) == (ProgressState.PROBE, ProgressState.REPLICATE)


def test_a_confirmation_counts_whatever_flight_it_belongs_to() -> None:
    raft, flight = in_flight(1)
    raft.peer_unreachable(2)
    answer(raft, raft.last_index, flight)
    assert raft.progress[2].match_index == raft.commit_index == raft.last_index


def test_a_follower_echoes_session_and_flight() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, (), 1, session=7, flight=3))
    raft.step(AppendEntries(2, 1, 2, 9, 2, (), 1, session=8, flight=4))
    raft.step(Heartbeat(2, 1, 2, 1, session=9))
    answers = said(raft)
    appended = [message for message in answers if isinstance(message, AppendResponse)]
    assert sorted((each.session, each.flight) for each in appended) == [(7, 3), (8, 4)]
    assert [message.session for message in answers if isinstance(message, HeartbeatResponse)] == [9]


def test_a_promotion_keeps_the_session() -> None:
    raft = settled_leader(conf_state=ConfState((1, 2), learners=(3,)))
    session = raft.progress[3].session
    raft.propose_config(ConfigChange((ChangeStep(ChangeKind.ADD_VOTER, 3),)), 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    flush(raft)
    assert (raft.conf_state.voters, raft.progress[3].session) == ((1, 2, 3), session)


# Heartbeats


def test_a_heartbeat_tells_no_follower_more_than_it_holds() -> None:
    raft = settled_leader()
    raft.propose([b"a"], 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    flush(raft)
    raft.tick(1)
    assert [beat.commit_index for beat in heard(raft, Heartbeat)] == [raft.last_index, raft.last_index - 1]


def test_a_heartbeat_commits_what_the_follower_acknowledged() -> None:
    raft = member([2, 2], term=2)
    beat(raft, commit=3)
    assert [apply.entries[-1].index for apply in of_kind(flush(raft), Apply)] == [3]


def test_a_follower_commits_no_more_than_the_append_proves() -> None:
    """L4: its own last entry may be of another branch."""
    raft = member([2, 2, 2], term=3)
    append(raft, (2, 2), commit=4)
    assert raft.commit_index == 2


def test_an_append_below_the_commit_index_is_answered_with_it() -> None:
    """L5: what is compacted there is not a conflict."""
    raft = member([2, 2, 2], term=3, commit=4)
    flush(raft)
    compact(raft, keep_from=5)
    assert append(raft, (2, 2), entries_of(2, 3, 1)).index == 4


# Limits


def test_uncommitted_bytes_are_bounded() -> None:
    raft = settled_leader(max_uncommitted_bytes=100)
    raft.propose([b"x" * 60], 1)
    raft.propose([b"x" * 60], 2)
    assert of_kind(flush(raft), Dropped) == [Dropped(2, DropReason.TOO_MUCH_UNCOMMITTED, 1)]
    accept_all(raft)
    raft.propose([b"x" * 60], 3)
    assert [accepted.context for accepted in of_kind(flush(raft), Accepted)] == [3]


def test_an_empty_tail_takes_any_proposal_and_a_full_one_takes_empty_entries() -> None:
    raft = settled_leader(max_uncommitted_bytes=100)
    raft.propose([b"x" * 1000], 1)
    raft.propose([b""], 2)
    assert [accepted.context for accepted in of_kind(flush(raft), Accepted)] == [1, 2]


def test_applies_are_bounded_over_all_that_are_unfinished() -> None:
    size = ENTRY_OVERHEAD_BYTES + 10
    raft = member(term=2, max_committed_bytes_per_apply=2 * size)
    raft.step(AppendEntries(2, 1, 2, 1, 1, tuple(Entry(2, index, b"x" * 10) for index in range(2, 7)), 6))
    (persist,) = of_kind(raft.drain(), Persist)
    raft.persisted(persist.seq)
    batches: list[int] = []
    while applies := of_kind(raft.drain(), Apply):
        batches += [len(apply.entries) for apply in applies]
        assert of_kind(raft.drain(), Apply) == []
        raft.applied(applies[-1].entries[-1].index)
    assert batches == [2, 2, 1]


# Forwarding


def test_a_follower_passes_proposals_on() -> None:
    raft = member(term=2)
    beat(raft)
    raft.propose([b"a", b"b"], 1)
    (forwarded,) = heard(raft, ForwardProposal)
    assert (forwarded.to, [entry.data for entry in forwarded.entries]) == (2, [b"a", b"b"])


def test_the_leader_appends_what_is_passed_on_and_answers_nobody() -> None:
    raft = settled_leader()
    raft.step(ForwardProposal(2, 1, 0, (Entry(0, 0, b"a"), Entry(0, 0, b"b"))))
    effects = flush(raft)
    assert of_kind(effects, Accepted) == []
    assert [entry.data for entry in raft.log.entries(raft.last_index - 1, 99)] == [b"a", b"b"]


@pytest.mark.parametrize("make", [member, candidate])
def test_without_a_leader_proposals_are_dropped(make: Callable[[], Raft]) -> None:
    raft = make()
    raft.propose([b"a"], 7)
    assert of_kind(flush(raft), Dropped) == [Dropped(7, DropReason.NO_LEADER, 0)]


def test_a_proposal_is_never_passed_back_to_where_it_came_from() -> None:
    raft = member(term=2)
    beat(raft)
    flush(raft)
    raft.step(ForwardProposal(2, 1, 0, (Entry(0, 0, b"a"),)))
    assert said(raft) == []
    raft.step(ForwardProposal(3, 1, 0, (Entry(0, 0, b"a"),)))
    assert [message.to for message in said(raft)] == [2]
