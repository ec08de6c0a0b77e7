"""Snapshots on both sides: offered, delivered, given up, taken over, refused, and compaction."""

from __future__ import annotations

import pytest

from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Apply, InstallState, Persist, Role, Truncated
from quorker.core.raft.invariants import check_state
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    InstallSnapshot,
    SnapshotMeta,
)
from quorker.core.raft.progress import ProgressState
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    VOTERS,
    accept,
    append,
    beat,
    beat_back,
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

SNAPSHOT = SnapshotMeta(9, 2, ConfState(VOTERS))


def offer(raft: Raft, snapshot: SnapshotMeta = SNAPSHOT, term: int = 2) -> None:
    raft.step(InstallSnapshot(2, 1, term, snapshot, session=4))


def behind() -> Raft:
    """A leader whose log begins after what member 3 would need."""
    raft = settled_leader()
    raft.peer_unreachable(3)
    for number in range(5):
        raft.propose([b"%d" % number], number)
        flush(raft)
        accept(raft, 2, raft.last_index)
        flush(raft)
    compact(raft, keep_from=raft.last_index)
    raft.progress[3].match_index = 0
    raft.progress[3].become_probe()
    return raft


# The leader


def test_a_snapshot_is_offered_in_place_of_entries_that_are_gone() -> None:
    raft = behind()
    beat_back(raft, 3)
    (sent,) = heard(raft, InstallSnapshot)
    assert sent == InstallSnapshot(1, 3, 2, raft.snapshot, raft.progress[3].session)
    known = raft.progress[3]
    assert (known.state, known.pending_snapshot) == (ProgressState.SNAPSHOT, raft.snapshot.index)


def test_nothing_else_is_sent_while_a_snapshot_is_on_its_way() -> None:
    raft = behind()
    beat_back(raft, 3)
    flush(raft)
    raft.propose([b"x"], 1)
    beat_back(raft, 3)
    assert [message.to for message in said(raft) if isinstance(message, AppendEntries)] == [2]


def test_no_snapshot_goes_to_a_member_that_seems_gone() -> None:
    raft = behind()
    raft.progress[3].recent_active = False
    raft.propose([b"x"], 1)
    assert heard(raft, InstallSnapshot) == []


def test_the_acknowledgement_of_a_snapshot_resumes_replication() -> None:
    raft = behind()
    beat_back(raft, 3)
    flush(raft)
    raft.propose([b"x"], 1)
    flush(raft)
    accept(raft, 3, raft.snapshot.index)
    known = raft.progress[3]
    assert known.state is ProgressState.REPLICATE
    (sent,) = [message for message in heard(raft, AppendEntries) if message.to == 3]
    assert (sent.previous_index, len(sent.entries)) == (raft.snapshot.index, 1)


def test_a_snapshot_from_elsewhere_will_do_if_the_log_continues_it() -> None:
    raft = behind()
    beat_back(raft, 3)
    flush(raft)
    accept(raft, 3, raft.first_index - 1)  # older than the one we offered
    assert raft.progress[3].state is ProgressState.REPLICATE


def test_an_acknowledgement_that_the_log_does_not_continue_is_not_enough() -> None:
    raft = behind()
    beat_back(raft, 3)
    flush(raft)
    accept(raft, 3, 2)
    assert raft.progress[3].state is ProgressState.SNAPSHOT


def test_a_member_may_get_beyond_the_snapshot_on_its_way_and_still_not_reach_the_log() -> None:
    raft = behind()
    beat_back(raft, 3)
    flush(raft)
    offered = raft.progress[3].pending_snapshot
    for number in range(3):
        raft.propose([b"%d" % number], number)
        flush(raft)
        accept(raft, 2, raft.last_index)
    compact(raft, keep_from=raft.last_index)
    accept(raft, 3, offered + 1)
    known = raft.progress[3]
    assert (known.state, known.next_index) == (ProgressState.SNAPSHOT, offered + 2)
    assert check_state(raft) == []


@pytest.mark.parametrize("ok", [True, False])
def test_after_the_drivers_report_the_next_append_waits_for_a_heartbeat(ok: bool) -> None:
    raft = behind()
    beat_back(raft, 3)
    flush(raft)
    raft.snapshot_status(3, ok)
    known = raft.progress[3]
    assert (known.state, known.is_paused) == (ProgressState.PROBE, True)
    assert known.next_index == (raft.snapshot.index + 1 if ok else 1)
    beat_back(raft, 3)
    assert [type(message) for message in said(raft)] == [AppendEntries if ok else InstallSnapshot]


def test_a_rejection_of_an_older_append_does_not_disturb_a_snapshot_on_its_way() -> None:
    raft = behind()
    beat_back(raft, 3)
    flush(raft)
    reject(raft, 3, raft.snapshot.index, 2, 1)
    known = raft.progress[3]
    assert (known.state, known.next_index) == (ProgressState.SNAPSHOT, raft.snapshot.index + 1)


def test_a_report_about_someone_who_is_not_waiting_changes_nothing() -> None:
    raft = settled_leader()
    raft.snapshot_status(2, ok=False)
    raft.snapshot_status(99, ok=True)
    member().snapshot_status(2, ok=True)
    assert raft.progress[2].state is ProgressState.REPLICATE


# The follower


def test_a_snapshot_is_written_then_installed_then_acknowledged() -> None:
    raft = member(term=2)
    offer(raft)
    effects = raft.drain()
    (persist,) = of_kind(effects, Persist)
    assert (persist.snapshot, persist.truncate_from, persist.must_sync) == (SNAPSHOT, None, True)
    assert [send.message for send in persist.then] == [AppendResponse(1, 2, 2, 9, commit_index=9, session=4)]
    assert of_kind(effects, InstallState) == []
    raft.persisted(persist.seq)
    assert of_kind(raft.drain(), InstallState) == [InstallState(SNAPSHOT)]


def test_entries_after_a_snapshot_are_applied_only_when_it_is_installed() -> None:
    """N3: nothing is applied on top of a state that is not there."""
    raft = member(term=2)
    offer(raft)
    raft.step(AppendEntries(2, 1, 2, 9, 2, entries_of(2, 10, 2), 11))
    (persist,) = of_kind(raft.drain(), Persist)
    raft.persisted(persist.seq)
    effects = raft.drain()
    assert (of_kind(effects, InstallState), of_kind(effects, Apply)) == ([InstallState(SNAPSHOT)], [])
    raft.applied(9)
    assert [entry.index for apply in of_kind(raft.drain(), Apply) for entry in apply.entries] == [10, 11]


def test_nobody_campaigns_with_a_snapshot_that_is_not_installed() -> None:
    """N7."""
    raft = member(term=2)
    offer(raft)
    raft.drain()
    raft.forget_leader()
    raft.campaign()
    assert (raft.role, raft.next_deadline()) == (Role.FOLLOWER, None)


def test_an_older_snapshot_never_replaces_a_newer_log() -> None:
    """N1: it may have been delayed, or sent twice."""
    raft = member(term=2)
    offer(raft)
    flush(raft)
    append(raft, (9, 2), entries_of(2, 10, 2), commit=11)
    offer(raft)
    offer(raft, SnapshotMeta(4, 2, ConfState(VOTERS)))
    assert [answer.index for answer in heard(raft, AppendResponse)] == [11, 11]
    assert (raft.last_index, raft.applied_index) == (11, 11)


def test_a_snapshot_replaces_a_suffix_that_contradicts_it() -> None:
    """N2: an entry at the snapshot's index, of another term, must not stay."""
    raft = member([1] * 12, term=2)
    beat(raft, commit=3)
    flush(raft)
    offer(raft)
    effects = flush(raft)
    assert of_kind(effects, Truncated) == [Truncated(4, 13)]
    assert [persist.truncate_from for persist in of_kind(effects, Persist)] == [4]
    assert (raft.first_index, raft.last_index, raft.log.last_term) == (10, 9, 2)


def test_a_log_that_holds_the_snapshots_entry_only_commits_it() -> None:
    raft = member([2] * 10, term=2)
    offer(raft)
    effects = flush(raft)
    assert of_kind(effects, InstallState) == []
    assert (raft.first_index, raft.last_index, raft.commit_index) == (2, 11, 9)


def test_two_snapshots_in_a_row() -> None:
    """N6: the second comes while the first is being written."""
    raft = member(term=2)
    offer(raft)
    first = raft.drain()
    newer = SnapshotMeta(20, 2, ConfState((1, 2, 3, 4)))
    offer(raft, newer)
    second = raft.drain()
    for effects in (first, second):
        (persist,) = of_kind(effects, Persist)
        raft.persisted(persist.seq)
    assert of_kind(flush(raft), InstallState) == [InstallState(newer)]
    assert (raft.applied_index, raft.conf_state.voters) == (20, (1, 2, 3, 4))


def test_applies_that_were_under_way_may_end_after_a_snapshot_came() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, entries_of(2, 2, 2), 3))
    (persist,) = of_kind(raft.drain(), Persist)
    raft.persisted(persist.seq)
    assert len(of_kind(raft.drain(), Apply)) == 1
    offer(raft)
    effects = raft.drain()
    raft.applied(3)
    assert raft.applied_meta is None  # what is in the state machine now has no name any more
    raft.persisted(of_kind(effects, Persist)[0].seq)
    flush(raft)
    assert raft.applied_meta == SNAPSHOT


def test_a_snapshot_brings_its_configuration() -> None:
    """N4."""
    raft = member(term=2)
    offer(raft, SnapshotMeta(9, 2, ConfState((1, 2, 4), learners=(5,))))
    flush(raft)
    assert raft.conf_state == ConfState((1, 2, 4), learners=(5,))


def test_a_snapshot_from_before_our_membership_is_taken_all_the_same() -> None:
    """The leader may have no newer one; the entry that adds us follows."""
    raft = member(term=2, conf_state=ConfState())
    offer(raft, SnapshotMeta(9, 2, ConfState((2, 3))))
    flush(raft)
    assert (raft.applied_index, raft.conf_state.voters) == (9, (2, 3))


@pytest.mark.parametrize(
    "snapshot",
    [
        SnapshotMeta(9, 3, ConfState(VOTERS)),  # of a term after the leader's
        SnapshotMeta(9, 2, ConfState(VOTERS, learners=(1,))),  # voter and learner
        SnapshotMeta(9, 2, ConfState((), learners=(1,))),  # nobody votes
    ],
)
def test_a_snapshot_that_cannot_be_changes_nothing(snapshot: SnapshotMeta) -> None:
    raft = member(term=2)
    offer(raft, snapshot)
    effects = flush(raft)
    assert of_kind(effects, InstallState) == []
    assert (raft.last_index, raft.commit_index) == (1, 1)


# Compaction


def test_compaction_never_goes_beyond_the_snapshot() -> None:
    raft = member([2] * 10, term=2, commit=6)
    flush(raft)
    compact(raft, keep_from=99)
    assert (raft.first_index, raft.snapshot.index) == (7, 6)


def test_a_snapshot_of_what_is_not_applied_is_ignored() -> None:
    raft = member([2] * 10, term=2, commit=6)
    flush(raft)
    raft.snapshot_made(SnapshotMeta(8, 2, ConfState(VOTERS)), keep_from=9)
    raft.snapshot_made(SnapshotMeta(0, 0, ConfState(VOTERS)), keep_from=1)
    assert (raft.first_index, raft.snapshot.index) == (2, 1)


def test_the_newest_snapshot_is_the_one_that_is_offered() -> None:
    raft = behind()
    newest = compact(raft, keep_from=2)
    beat_back(raft, 3)
    assert [message.snapshot for message in heard(raft, InstallSnapshot)] == [newest]


def test_a_restart_from_a_snapshot_with_entries_after_it() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    for number in range(6):
        cluster[1].propose([b"%d" % number], number)
        cluster.settle()
        if number == 3:
            cluster.members[2].compact()
    cluster.members[2].restart()
    cluster.tick(2)
    assert cluster.members[2].data() == [b"4", b"5"]
    assert cluster[2].applied_index == cluster[1].applied_index


def test_a_leader_keeps_enough_to_send_entries_if_told_to() -> None:
    raft = leader([2] * 5)
    accept(raft, 2, raft.last_index)
    flush(raft)
    compact(raft, keep_from=4)
    reject(raft, 3, raft.last_index - 1, 4, 2)
    assert [message.previous_index for message in heard(raft, AppendEntries) if message.to == 3][-1] == 4
