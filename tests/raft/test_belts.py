"""What a confused peer may say: nothing raises, nothing committed changes, and nonsense is ignored."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.raft import persistence
from quorker.core.raft.core import TERM_JUMP_MAX, Raft
from quorker.core.raft.effects import Fatal, Persist, Role
from quorker.core.raft.invariants import check_state
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    EntryKind,
    ForwardProposal,
    ForwardRead,
    ForwardTransfer,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadResponse,
    RejoinRequest,
    RejoinResponse,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
    VoteResponse,
)
from quorker.sim.bare.solo import (
    VOTERS,
    append,
    beat,
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


def invariants_broken(raft: Raft) -> list[str]:
    return [effect.invariant for effect in of_kind(flush(raft), Fatal)]


@pytest.mark.parametrize(
    "message",
    [
        RequestVote(2, 3, 5, 99, 99),  # to somebody else
        RequestVote(1, 1, 5, 99, 99),  # from ourselves
        RequestVote(0, 1, 5, 99, 99),  # from nobody
        RequestVote(2, 1, 2 + TERM_JUMP_MAX + 1, 99, 99),  # from a future that cannot be
        RequestVote(2, 1, -1, 99, 99),
    ],
)
def test_what_is_not_for_us_or_from_an_absurd_term_is_dropped(message: Message) -> None:
    raft = member(term=2)
    raft.step(message)
    assert (said(raft), raft.term) == ([], 2)


def test_the_largest_sensible_jump_of_terms_is_taken() -> None:
    raft = member(term=2)
    raft.step(RequestVote(2, 1, 2 + TERM_JUMP_MAX, 99, 99))
    assert raft.term == 2 + TERM_JUMP_MAX


def test_answers_of_strangers_are_dropped() -> None:
    raft = settled_leader()
    raft.step(AppendResponse(9, 1, 50, 99))
    raft.step(HeartbeatResponse(9, 1, 50))
    raft.step(VoteResponse(9, 1, 50, granted=False))
    assert (raft.role, raft.term) == (Role.LEADER, 2)


def test_strangers_may_lead_us() -> None:
    """A new member knows nobody, also not the leader that sends it the log."""
    raft = member(conf_state=ConfState())
    assert append(raft, (1, 1), entries_of(2, 2, 1), term=2, leader_id=9).index == 2


def test_an_append_from_below_the_commit_index_cuts_nothing() -> None:
    raft = member([2, 2], term=3, commit=3)
    flush(raft)
    assert append(raft, (1, 1), [Entry(3, 2), Entry(3, 3)]).index == 3
    assert [raft.log.term_at(index) for index in (2, 3)] == [2, 2]


def test_cutting_what_is_committed_is_fatal() -> None:
    """No append gets here: what it may change follows the commit index. It would be a bug of our own."""
    raft = member([2, 2], term=3, commit=3)
    assert not persistence.truncate(raft, 3)
    assert invariants_broken(raft) == ["committed entries never change"]
    assert raft.log.term_at(3) == 2


def test_two_leaders_in_one_term_are_fatal() -> None:
    raft = member(term=2)
    beat(raft)
    beat(raft, leader_id=3)
    assert invariants_broken(raft) == ["one leader per term"]
    raft = settled_leader()
    beat(raft, leader_id=3)
    assert invariants_broken(raft) == ["one leader per term"]


def test_a_leader_that_commits_what_we_lost_is_fatal() -> None:
    """A heartbeat names only what we acknowledged: our disk forgot it. Of two, the other cannot confirm itself."""
    raft = member([2, 2], term=2, conf_state=ConfState((1, 2)))
    beat(raft, commit=4)
    assert invariants_broken(raft) == ["acknowledged entries stay"]


def test_after_a_broken_invariant_a_member_is_silent() -> None:
    raft = member([2, 2], term=2, conf_state=ConfState((1, 2)))
    beat(raft, commit=4)
    flush(raft)
    raft.tick(1000)
    raft.step(RequestVote(2, 1, 5, 99, 99))
    raft.propose([b"x"], 1)
    assert (said(raft), raft.term, raft.next_deadline()) == ([], 2, None)


@pytest.mark.parametrize("index", [0, 5])
def test_applying_out_of_order_is_fatal(index: int) -> None:
    raft = member([2, 2], term=2, commit=3)
    raft.drain()
    raft.applied(index)
    assert invariants_broken(raft) == ["entries are applied in order"]


@pytest.mark.parametrize(
    "entries",
    [
        (Entry(2, 3),),  # a gap
        (Entry(2, 2), Entry(2, 2)),
        (Entry(3, 2),),  # from after the leader's term
        (Entry(2, 2), Entry(1, 3)),  # terms fall
    ],
)
def test_appends_that_cannot_be_are_ignored(entries: tuple[Entry, ...]) -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, entries, 1))
    assert (heard(raft, AppendResponse), raft.last_index) == ([], 1)


def test_a_commit_index_beyond_the_log_is_not_believed_in_an_append() -> None:
    raft = member(term=2)
    append(raft, (1, 1), entries_of(2, 2, 1), commit=999)
    assert raft.commit_index == 2


NUMBER = st.one_of(st.integers(0, 12), st.integers(0, (1 << 63) - 1))
NODE = st.integers(0, 5)
FLAG = st.booleans()
SMALL = st.integers(0, 12)
IDS = st.lists(st.integers(0, 5), unique=True, max_size=4).map(lambda ids: tuple(sorted(ids)))
CONF = st.builds(ConfState, IDS, IDS, IDS, IDS, FLAG)
ENTRY = st.builds(Entry, SMALL, SMALL, st.binary(max_size=8), st.sampled_from(EntryKind))
ENTRIES = st.lists(ENTRY, max_size=4).map(tuple)
SNAPSHOTS = st.builds(SnapshotMeta, NUMBER, SMALL, CONF)
TO_US = st.just(1)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(AppendEntries, NODE, TO_US, SMALL, NUMBER, SMALL, ENTRIES, NUMBER, SMALL),
    st.builds(AppendResponse, NODE, TO_US, SMALL, NUMBER, FLAG, NUMBER, SMALL, NUMBER, SMALL, SMALL),
    st.builds(Heartbeat, NODE, TO_US, SMALL, NUMBER, NUMBER, SMALL),
    st.builds(HeartbeatResponse, NODE, TO_US, SMALL, NUMBER, SMALL, SMALL),
    st.builds(RequestVote, NODE, TO_US, SMALL, NUMBER, SMALL, FLAG, FLAG),
    st.builds(VoteResponse, NODE, TO_US, SMALL, FLAG, FLAG, NUMBER, SMALL),
    st.builds(InstallSnapshot, NODE, TO_US, SMALL, SNAPSHOTS, SMALL),
    st.builds(TimeoutNow, NODE, TO_US, SMALL),
    st.builds(ForwardTransfer, NODE, TO_US, SMALL, NODE),
    st.builds(ForwardProposal, NODE, TO_US, SMALL, ENTRIES),
    st.builds(ForwardRead, NODE, TO_US, SMALL, NUMBER),
    st.builds(ReadResponse, NODE, TO_US, SMALL, NUMBER, NUMBER),
    st.builds(RejoinRequest, NODE, TO_US, SMALL, NUMBER, NUMBER),
    st.builds(RejoinResponse, NODE, TO_US, SMALL, NUMBER, NUMBER),
)


@pytest.mark.parametrize("make", [member, candidate, leader, settled_leader])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(MESSAGES, max_size=12), st.integers(0, 1 << 30))
def test_no_message_raises_or_breaks_an_invariant(
    make: Callable[[list[int]], Raft], arriving: list[Message], seed: int
) -> None:
    raft = make([1, 2])
    rng = Random(seed)
    for message in arriving:
        raft.step(message)
        if rng.random() < 0.5:
            flush(raft)
        raft.tick(raft.now + rng.choice([0, 1, 30]))
        raft.propose([b"x"], 1)
        assert check_state(raft) == []
    flush(raft)
    assert check_state(raft) == []


def test_a_write_is_never_asked_for_twice() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, entries_of(2, 2, 1), 1))
    assert len(of_kind(raft.drain(), Persist)) == 1
    assert raft.drain() == ()


def test_voters_of_the_base_are_known() -> None:
    assert member().conf_state == ConfState(VOTERS)
