"""A disk that fails, and a disk that hangs: who may lead, vote and answer then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Dropped, DropReason, Persist, ReadFailed, Role
from quorker.core.raft.messages import (
    AppendEntries,
    ConfState,
    Heartbeat,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    TIMEOUT,
    VOTERS,
    accept,
    beat,
    candidate,
    entries_of,
    flush,
    heard,
    leader,
    member,
    messages,
    of_kind,
    said,
    settled_leader,
)


def fail(raft: Raft) -> None:
    raft.persist_failed(1, "Input/output error")


# A failed write


def test_a_leader_whose_disk_failed_asks_the_best_other_to_take_over_and_leads_no_more() -> None:
    raft = settled_leader()
    raft.propose([b"x"], 1)
    raft.drain()
    accept(raft, 3, raft.last_index)
    raft.drain()
    fail(raft)
    assert messages(list(raft.drain())) == [TimeoutNow(1, 3, 2)]
    assert (raft.role, raft.leader) == (Role.FOLLOWER, 0)


def test_what_waited_for_the_failed_write_is_never_said() -> None:
    """S1, S3: nothing is acknowledged that a disk has not confirmed, and nothing is written again."""
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, entries_of(2, 2, 1), 1))
    fail(raft)
    assert messages(list(raft.drain())) == []
    raft.persisted(1)
    raft.step(AppendEntries(2, 1, 2, 1, 1, entries_of(2, 2, 1), 1))
    raft.tick(100 * TIMEOUT)
    assert (raft.drain(), raft.stable_index, raft.next_deadline()) == ((), 1, None)


@pytest.mark.parametrize("make", [member, candidate, settled_leader])
def test_a_member_with_a_failed_disk_takes_no_more_part(make: Callable[[], Raft]) -> None:
    raft = make()
    fail(raft)
    flush(raft)
    term = raft.term
    raft.step(RequestVote(2, 1, term + 1, 99, 99))
    raft.step(Heartbeat(2, 1, term + 1, 1))
    raft.campaign()
    raft.transfer(2)
    raft.applied(99)
    raft.snapshot_made(SnapshotMeta(1, 1, ConfState(VOTERS)), 1)
    raft.tick(100 * TIMEOUT)
    assert (said(raft), raft.term, raft.role) == ([], term, Role.FOLLOWER)


def test_everything_that_is_asked_of_it_is_refused_with_the_reason() -> None:
    raft = member()
    fail(raft)
    raft.propose([b"x"], 1)
    raft.propose_config(ConfigChange(), 2)
    raft.read(3)
    effects = list(raft.drain())
    assert [(dropped.context, dropped.reason) for dropped in of_kind(effects, Dropped)] == [
        (1, DropReason.DISK_FAILED),
        (2, DropReason.DISK_FAILED),
    ]
    assert of_kind(effects, ReadFailed) == [ReadFailed(3, DropReason.DISK_FAILED)]


def test_the_first_failure_is_kept_as_the_reason() -> None:
    raft = member()
    fail(raft)
    raft.persist_failed(2, "No space left on device")
    assert raft.disk_failure == "write 1: Input/output error"


def test_the_others_go_on_without_it() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    fail(cluster[1])
    cluster.settle()
    (new,) = cluster.leaders()
    cluster[new].propose([b"x"], 1)
    cluster.settle()
    assert cluster.members[2].data() == cluster.members[3].data() == [b"x"]


# A stalled disk


def test_a_leader_with_a_stalled_disk_hands_over() -> None:
    """S9."""
    raft = settled_leader()
    raft.disk_latency(TIMEOUT)
    assert raft.role is Role.LEADER
    raft.disk_latency(TIMEOUT + 1)
    assert [message.to for message in heard(raft, TimeoutNow)] == [2]
    assert raft.role is not Role.LEADER


def test_the_limit_can_be_set() -> None:
    raft = settled_leader(disk_stall_timeout=3)
    raft.disk_latency(4)
    assert raft.role is Role.FOLLOWER


def test_the_heir_is_the_voter_with_the_longest_log_that_was_heard() -> None:
    raft = settled_leader(conf_state=ConfState(VOTERS, learners=(4,)))
    raft.propose([b"x"], 1)
    flush(raft)
    for peer in (3, 4):
        accept(raft, peer, raft.last_index)
    raft.disk_latency(TIMEOUT + 1)
    assert [message.to for message in heard(raft, TimeoutNow)] == [3]
    alone = leader()
    alone.progress[2].recent_active = alone.progress[3].recent_active = False
    alone.disk_latency(TIMEOUT + 1)
    assert (heard(alone, TimeoutNow), alone.role) == ([], Role.FOLLOWER)


def test_a_member_with_a_stalled_disk_does_not_campaign_until_it_recovers() -> None:
    raft = member()
    raft.disk_latency(TIMEOUT + 1)
    raft.tick(100 * TIMEOUT)
    raft.step(TimeoutNow(2, 1, raft.term))
    assert (raft.role, raft.next_deadline()) == (Role.FOLLOWER, None)
    raft.disk_latency(0)
    raft.tick(101 * TIMEOUT)
    assert raft.role is not Role.FOLLOWER


def test_a_disk_that_has_caught_up_is_not_stalled() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, entries_of(2, 2, 1), 1))
    (persist,) = of_kind(raft.drain(), Persist)
    raft.disk_latency(TIMEOUT + 1)
    stalled = [raft.disk_stalled]
    raft.persisted(persist.seq)
    stalled.append(raft.disk_stalled)
    assert stalled == [True, False]


def test_a_cluster_of_one_has_nobody_to_hand_over_to() -> None:
    raft = leader(conf_state=ConfState((1,)))
    raft.disk_latency(100 * TIMEOUT)
    assert raft.role is Role.LEADER


def test_a_stalled_disk_moves_leadership_and_the_member_follows_when_it_recovers() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[1].disk_latency(TIMEOUT + 1)
    cluster.settle((1, 2, 3))
    (new,) = cluster.leaders()
    assert new != 1
    cluster[1].disk_latency(0)
    cluster[new].propose([b"x"], 1)
    cluster.settle()
    assert cluster.members[1].data() == [b"x"]


def test_a_stalled_follower_still_answers_heartbeats() -> None:
    raft = member(term=2)
    raft.disk_latency(TIMEOUT + 1)
    beat(raft)
    assert len(messages(list(raft.drain()))) == 1
