"""The numbered lane of writes: what is durable when, and what leaves before, with and after a write."""

from __future__ import annotations

from random import Random

import pytest

from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Apply, Effect, Fatal, Persist, Role, Send, Truncated
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    HardState,
    Heartbeat,
    RequestVote,
    SnapshotMeta,
    VoteResponse,
)
from quorker.core.raft.persistence import PersistenceLane
from quorker.sim.bare.pair import Cluster, MemoryDisk
from quorker.sim.bare.solo import (
    BASE,
    accept,
    append,
    beat,
    candidate,
    entries_of,
    flush,
    leader,
    member,
    messages,
    of_kind,
    settled_leader,
)


def receive(
    raft: Raft, term: int, previous: tuple[int, int], entries: tuple[Entry, ...]
) -> tuple[Effect, ...]:
    """Member 2 appends as leader of `term`. What the member asks for, not done yet."""
    raft.step(AppendEntries(2 if term % 2 else 3, 1, term, *previous, entries, 1))
    return raft.drain()


def only_persist(effects: tuple[Effect, ...]) -> Persist:
    (persist,) = of_kind(effects, Persist)
    return persist


def test_writes_are_numbered_from_one_without_gaps() -> None:
    raft = member(term=2)
    numbers = [only_persist(receive(raft, 3, (1, 1), entries_of(3, 2, count))).seq for count in (1, 2, 3)]
    assert numbers == [1, 2, 3]


def test_entries_that_come_between_two_drains_share_one_write() -> None:
    raft = settled_leader()
    for number in range(3):
        raft.propose([b"%d" % number], number)
    assert [entry.data for entry in only_persist(raft.drain()).entries] == [b"0", b"1", b"2"]


def test_a_write_carries_only_what_no_earlier_one_does() -> None:
    raft = settled_leader()
    raft.propose([b"a"], 1)
    raft.drain()
    raft.propose([b"b"], 2)
    assert [entry.data for entry in only_persist(raft.drain()).entries] == [b"b"]


def test_acknowledgements_are_cumulative() -> None:
    raft = member(term=2)
    for count in (1, 2, 3):
        receive(raft, 3, (1, 1), entries_of(3, 2, count))
    raft.persisted(2)
    assert raft.stable_index == 3
    raft.persisted(3)
    assert raft.stable_index == 4


def test_an_append_is_acknowledged_only_by_the_write_that_holds_it() -> None:
    effects = receive(member(term=2), 3, (1, 1), entries_of(3, 2, 2))
    assert messages(effects) == []
    assert [send.message for send in only_persist(effects).then] == [
        AppendResponse(1, 2, 3, 3, commit_index=1)
    ]


def test_a_rejection_waits_as_well() -> None:
    effects = receive(member(term=2), 3, (9, 3), ())
    assert messages(effects) == []
    (send,) = only_persist(effects).then
    assert isinstance(send.message, AppendResponse)
    assert send.message.rejected


def test_an_answer_that_rests_on_nothing_new_leaves_at_once() -> None:
    raft = member(term=3)
    beat(raft)
    flush(raft)
    effects = receive(raft, 3, (1, 1), ())
    assert of_kind(effects, Persist) == []
    assert messages(effects) == [AppendResponse(1, 2, 3, 1, commit_index=1)]


def test_an_answer_waits_for_every_write_in_flight_and_follows_them_in_order() -> None:
    raft = member(term=3)
    receive(raft, 3, (1, 1), entries_of(3, 2, 1))
    persist = only_persist(receive(raft, 3, (2, 3), ()))
    assert (persist.seq, persist.entries, persist.hard_state, persist.must_sync) == (2, (), None, False)
    assert [send.message for send in persist.then] == [AppendResponse(1, 2, 3, 2, commit_index=1)]


def test_heartbeats_are_answered_at_once() -> None:
    raft = member(term=3)
    receive(raft, 3, (1, 1), entries_of(3, 2, 1))
    raft.step(Heartbeat(2, 1, 3, 1))
    assert len(messages(raft.drain())) == 1


def test_a_vote_is_given_only_by_the_write_that_holds_it() -> None:
    raft = member()
    raft.step(RequestVote(2, 1, 2, 1, 1))
    effects = raft.drain()
    assert messages(effects) == []
    persist = only_persist(effects)
    assert persist.hard_state == HardState(2, 2, 1)
    assert [send.message for send in persist.then] == [VoteResponse(1, 2, 2, granted=True)]


def test_a_candidacy_waits_for_the_candidates_own_vote() -> None:
    """E13: else an old grant could be counted for a log that lost its unwritten end in a crash."""
    raft = member()
    raft.campaign()
    effects = raft.drain()
    assert messages(effects) == []
    persist = only_persist(effects)
    assert persist.hard_state == HardState(2, 1, 1)
    assert [type(send.message) for send in persist.then] == [RequestVote, RequestVote]


def test_the_own_vote_counts_only_when_durable() -> None:
    raft = member()
    raft.campaign()
    persist = only_persist(raft.drain())
    raft.step(VoteResponse(2, 1, 2, granted=True))
    roles = [raft.role]
    raft.persisted(persist.seq)
    roles.append(raft.role)
    assert roles == [Role.CANDIDATE, Role.LEADER]


def test_the_own_vote_of_an_earlier_campaign_does_not_count() -> None:
    raft = member()
    raft.campaign()
    first = only_persist(raft.drain())
    raft.campaign()
    raft.persisted(first.seq)
    raft.step(VoteResponse(2, 1, raft.term, granted=True))
    assert raft.role is Role.CANDIDATE


def test_a_pre_vote_leaves_at_once() -> None:
    raft = member(pre_vote=True)
    raft.campaign()
    effects = raft.drain()
    assert of_kind(effects, Persist) == []
    assert [type(message) for message in messages(effects)] == [RequestVote, RequestVote]


def test_a_leader_sends_before_it_writes() -> None:
    raft = settled_leader()
    raft.propose([b"x"], 1)
    kinds = [type(effect) for effect in raft.drain() if isinstance(effect, (Send, Persist))]
    assert kinds == [Send, Send, Persist]


def test_a_leader_counts_itself_only_when_durable() -> None:
    raft = settled_leader()
    raft.propose([b"x"], 1)
    persist = only_persist(raft.drain())
    accept(raft, 2, raft.last_index)
    before = raft.commit_index
    raft.persisted(persist.seq)
    assert (before, raft.commit_index) == (raft.last_index - 1, raft.last_index)


def test_an_entry_may_be_committed_without_the_leader_yet_is_applied_there_only_when_durable() -> None:
    raft = settled_leader()
    raft.propose([b"x"], 1)
    persist = only_persist(raft.drain())
    accept(raft, 2, raft.last_index)
    accept(raft, 3, raft.last_index)
    assert raft.commit_index == raft.last_index
    assert of_kind(raft.drain(), Apply) == []
    raft.persisted(persist.seq)
    assert [len(apply.entries) for apply in of_kind(raft.drain(), Apply)] == [1]


def test_a_follower_applies_only_what_is_durable() -> None:
    raft = member(term=3)
    raft.step(AppendEntries(2, 1, 3, 1, 1, entries_of(3, 2, 2), 3))
    effects = raft.drain()
    assert (raft.commit_index, of_kind(effects, Apply)) == (3, [])
    raft.persisted(only_persist(effects).seq)
    assert of_kind(raft.drain(), Apply) == [Apply(entries_of(3, 2, 2))]


def test_a_commit_alone_writes_nothing_and_rides_along_with_the_next_write() -> None:
    raft = settled_leader()
    raft.propose([b"x"], 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    assert of_kind(flush(raft), Persist) == []
    raft.propose([b"y"], 2)
    assert only_persist(raft.drain()).hard_state == HardState(2, 1, raft.commit_index)


def test_a_commit_is_written_by_itself_when_asked_for_and_need_not_be_synced() -> None:
    raft = settled_leader(persist_commit=True)
    raft.propose([b"x"], 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    persist = only_persist(raft.drain())
    assert (persist.hard_state, persist.must_sync) == (HardState(2, 1, raft.commit_index), False)


def test_a_truncation_lowers_stable_at_once_and_is_named_in_the_write() -> None:
    raft = member([2, 2, 2], term=3)
    effects = receive(raft, 3, (2, 2), entries_of(3, 3, 1))
    assert raft.stable_index == 2
    assert of_kind(effects, Truncated) == [Truncated(3, 4)]
    persist = only_persist(effects)
    assert (persist.truncate_from, persist.entries) == (3, entries_of(3, 3, 1))


def test_what_was_never_written_needs_no_truncation_on_disk() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 3, 1, 1, entries_of(3, 2, 3), 1))
    raft.step(AppendEntries(3, 1, 4, 1, 1, entries_of(4, 2, 1), 1))
    persist = only_persist(raft.drain())
    assert (persist.truncate_from, persist.entries) == (None, entries_of(4, 2, 1))


def test_an_acknowledgement_never_raises_stable_past_what_a_later_write_truncates() -> None:
    """L10: the late confirmation of a write that was overwritten since proves nothing about its entries."""
    raft = member(term=2)
    receive(raft, 3, (1, 1), entries_of(3, 2, 3))
    receive(raft, 4, (2, 3), entries_of(4, 3, 1))
    raft.persisted(1)
    assert raft.stable_index == 2
    raft.persisted(2)
    assert raft.stable_index == 3


def test_the_same_entry_written_overwritten_and_written_again() -> None:
    """The ABA race: (2, term 3) is written, replaced by (2, term 4), and comes back, all in flight."""
    raft = member(term=2)
    receive(raft, 3, (1, 1), entries_of(3, 2, 1))
    receive(raft, 4, (1, 1), entries_of(4, 2, 1))
    persist = only_persist(receive(raft, 5, (1, 1), (*entries_of(3, 2, 1), *entries_of(5, 3, 1))))
    assert persist.truncate_from == 2
    stable: list[int] = []
    for seq in (1, 2, 3):
        raft.persisted(seq)
        stable.append(raft.stable_index)
    assert stable == [1, 1, 3]


def test_an_unsent_acknowledgement_does_not_outlive_the_entries_it_speaks_for() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 3, 1, 1, entries_of(3, 2, 3), 1))
    raft.step(AppendEntries(3, 1, 4, 1, 1, entries_of(4, 2, 1), 1))
    answers = [send.message for send in only_persist(raft.drain()).then]
    assert answers == [AppendResponse(1, 3, 4, 2, commit_index=1)]


def test_a_snapshot_is_one_write_and_cuts_what_contradicts_it() -> None:
    lane = PersistenceLane(5, HardState(2, 0, 3))
    snapshot = SnapshotMeta(9, 2, BASE.conf_state)
    lane.replace(snapshot, kept_to=3, last_index=5)
    assert (lane.stable, lane.next_unwritten) == (3, 10)
    raft = member([2, 2], term=2)
    raft.lane.replace(snapshot, kept_to=1, last_index=3)
    raft.log.restart_after(snapshot)
    persist = raft.lane.next_write(raft.log, HardState(2, 0, 9), persist_commit=False)
    assert persist is not None
    assert (persist.truncate_from, persist.snapshot, persist.entries) == (2, snapshot, ())
    assert persist.must_sync


def test_a_confirmation_of_what_was_never_written_is_fatal() -> None:
    raft = member()
    raft.persisted(1)
    assert [effect.invariant for effect in of_kind(raft.drain(), Fatal)] == [
        "the disk confirms what was written"
    ]


def test_a_new_leader_counts_only_what_is_durable_of_its_older_entries() -> None:
    raft = member(term=2, pre_vote=False)
    receive(raft, 3, (1, 1), entries_of(3, 2, 2))
    raft.forget_leader()
    raft.campaign()
    raft.drain()
    raft.persisted(2)
    raft.step(VoteResponse(2, 1, raft.term, granted=True))
    assert (raft.role, raft.progress[1].match_index) == (Role.LEADER, 3)


@pytest.mark.parametrize("seed", range(60))
def test_stable_is_what_any_crash_would_find(seed: int) -> None:
    """Whatever of the unconfirmed writes reached the disk, it agrees with the log up to stable_index."""
    rng = Random(seed)
    raft = member(term=2)
    disk, in_flight = MemoryDisk(HardState(2, 0, 1), BASE), list[Persist]()
    term = 2
    for _ in range(40):
        if rng.random() < 0.4:
            term += 1
        low = rng.randint(1, raft.last_index)
        entries = entries_of(term, low + 1, rng.randint(0, 3))
        raft.step(AppendEntries(2, 1, term, low, raft.log.term_at(low) or 0, entries, 1))
        if rng.random() < 0.7:
            in_flight += of_kind(raft.drain(), Persist)
        for _ in range(rng.randint(0, len(in_flight)) if rng.random() < 0.5 else 0):
            persist = in_flight.pop(0)
            disk.write(persist)
            raft.persisted(persist.seq)
        check_crashes(raft, disk, in_flight)


def check_crashes(raft: Raft, disk: MemoryDisk, in_flight: list[Persist]) -> None:
    for count in range(len(in_flight) + 1):
        found = MemoryDisk(disk.hard_state, disk.snapshot, list(disk.entries))
        for persist in in_flight[:count]:
            found.write(persist)
        kept = tuple(entry for entry in found.entries if entry.index <= raft.stable_index)
        assert kept == raft.log.entries(2, raft.stable_index + 1)


def test_votes_and_terms_survive_a_crash_only_if_written() -> None:
    cluster = Cluster(3)
    cluster[1].campaign()
    cluster.deliver()
    cluster.perform(1)
    cluster.members[1].restart()
    assert (cluster[1].term, cluster[1].voted_for) == (1, 0)


def test_a_candidate_that_moved_on_does_not_count_its_durable_vote() -> None:
    raft = candidate()
    raft.step(AppendEntries(2, 1, raft.term + 1, 1, 1, (), 1))
    flush(raft)
    assert raft.role is Role.FOLLOWER


def test_a_single_voter_leads_as_soon_as_its_vote_is_durable_and_commits_by_itself() -> None:
    raft = leader(conf_state=ConfState((1,)))
    raft.propose([b"x"], 1)
    effects = raft.drain()
    assert raft.commit_index == 2
    raft.persisted(only_persist(effects).seq)
    assert raft.commit_index == raft.last_index


def test_append_answers_name_what_is_durable_then() -> None:
    raft = member(term=3)
    assert append(raft, (1, 1), entries_of(3, 2, 2)).index == 3
    assert raft.stable_index == 3
