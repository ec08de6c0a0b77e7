"""Bugs that other implementations shipped, as scenarios of several members. Each would come back as a failure here.

The letters are those of the catalogue (elections, log, storage, snapshots, membership, reads). Bugs that show in a
single answer have their test beside that answer, under the same letter; `ELSEWHERE` names those that belong to a disk,
a store or a cluster, and have the name of what they promise.
"""

from __future__ import annotations

from collections import deque
from itertools import permutations
from pathlib import Path
from typing import Final

import pytest

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import ReadReady, Role
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    HardState,
    HeartbeatResponse,
    Message,
    RequestVote,
    SnapshotMeta,
    VoteResponse,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import TIMEOUT, VOTERS, accept, flush, leader, of_kind

TESTS: Final = Path(__file__).resolve().parent.parent
ELSEWHERE: Final = {
    "E2 a second thread raises the term": "test_tidy.py::test_core_imports_only_what_is_pure",
    "E8 a removed member disrupts": "raft/test_paper_cluster.py::test_6_a_removed_server_does_not_disrupt_the_cluster",
    "S4 a rename that is not synced": "disk/test_crash_states.py::test_a_missing_sync_is_found_out",
    "S5 damage is taken for a torn end": "disk/test_damage.py::test_a_bit_in_the_newest_segment",
    "S7 one damaged member takes everybody's data": "disk/test_rejoin.py::test_wherever_the_damage_is_no_promise_is_given_twice",
    "S10 what was applied and its index differ": "jobs/test_replicas.py::test_a_replica_restored_at_any_points_stays_equal",
    "S11 term and vote are two writes": "disk/test_crash_states.py::test_every_crash_state_recovers",
    "S12 a full disk leaves half a record": "disk/test_storage_errors.py::test_no_room_for_a_segment_refuses_the_batch_and_heals",
    "N5 a snapshot without the sessions": "jobs/test_sessions.py::test_replies_survive_a_restore",
    "M4 an id is used again": "wire/test_roster.py::test_mistakes_are_refused_with_an_alarm",
    "R4 leases by the wall clock": (
        "jobs/test_time.py::test_a_wall_clock_that_jumps_an_hour_ahead_takes_no_lease_lock_session_or_record"
    ),
}


@pytest.mark.parametrize("bug", ELSEWHERE)
def test_a_bug_that_is_tested_elsewhere_has_its_test(bug: str) -> None:
    file, _, name = ELSEWHERE[bug].partition("::")
    assert f"def {name}(" in (TESTS / file).read_text()


def take(cluster: Cluster, kind: type[Message]) -> list[Message]:
    """Take the messages of one kind out of the network."""
    taken = [message for message in cluster.queue if isinstance(message, kind)]
    cluster.queue = deque(message for message in cluster.queue if not isinstance(message, kind))
    return taken


def step(cluster: Cluster, *nodes: int) -> None:
    """The members do what they have to do, and their disks finish; nothing is delivered."""
    for node in nodes:
        cluster.perform(node)
        cluster.sync(node)


def propose(cluster: Cluster, node: int, *items: bytes) -> None:
    for item in items:
        cluster[node].propose([item], 0)
        cluster.settle()


# Elections


def test_e1_a_vote_is_remembered_by_a_voter_that_crashed() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster[1].campaign()
    step(cluster, 1)
    cluster.deliver()
    step(cluster, 2)
    cluster.members[2].restart()
    cluster[3].campaign()
    cluster[3].campaign()
    cluster[2].step(RequestVote(3, 2, cluster[1].term, 1, 1))
    step(cluster, 2)
    to_3 = [message for message in take(cluster, VoteResponse) if message.to == 3]
    assert [getattr(message, "granted", None) for message in to_3] == [False]


def test_e1_a_vote_that_was_not_written_was_not_given() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster[2].step(RequestVote(1, 2, 2, 1, 1))
    cluster.perform(2)
    assert take(cluster, VoteResponse) == []
    cluster.members[2].restart()
    assert cluster[2].voted_for == 0


def test_e5_a_member_at_a_higher_term_finds_its_way_back() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    disk = cluster.members[3].disk
    disk.hard_state = HardState(
        40, 3, disk.hard_state.commit_index
    )  # as if it had campaigned without pre-votes
    cluster.members[3].restart()
    cluster.heal()
    cluster.tick(6 * TIMEOUT)
    (leader,) = cluster.leaders()
    propose(cluster, leader, b"x")
    assert cluster.members[3].data() == [b"x"]


def test_e7_one_broken_link_does_not_unseat_the_leader() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut = {(1, 3), (3, 1)}
    term = cluster[1].term
    cluster.tick(10 * TIMEOUT)
    assert (cluster.leaders(), cluster[1].term) == ([1], term)


def test_e7_a_leader_that_is_heard_but_hears_nobody_gives_way() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut = {(2, 1), (3, 1)}
    cluster.tick(8 * TIMEOUT)
    assert 1 not in cluster.leaders()
    assert len(cluster.leaders()) == 1


def test_e11_a_lost_grant_is_repeated_to_the_same_candidate() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster.isolate(3)
    cluster[1].campaign()
    step(cluster, 1)
    cluster.deliver()
    step(cluster, 2)
    assert len(take(cluster, VoteResponse)) == 1
    cluster[2].step(RequestVote(1, 2, cluster[1].term, 1, 1))
    cluster.settle()
    assert cluster.leaders() == [1]


def test_e13_an_old_grant_is_never_counted_for_a_shorter_log() -> None:
    """A candidate that crashes before its vote is durable has asked nobody, so no old grant can exist."""
    cluster = Cluster(3, pre_vote=False)
    cluster[1].step(AppendEntries(2, 1, 2, 1, 1, (Entry(2, 2, b"x"),), 1))
    cluster[1].forget_leader()
    cluster[1].campaign()
    cluster.perform(1)  # the entry and the candidacy are in one write, which does not finish
    assert take(cluster, RequestVote) == []
    cluster.members[1].restart()
    assert (cluster[1].last_index, cluster[1].term) == (1, 1)


# Log and commit


def test_l1_figure_8_never_commits_an_older_term_by_counting() -> None:
    cluster = Cluster(3, pre_vote=False)
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].propose([b"old"], 1)
    cluster.settle()
    cluster.elect_alone(2, 3)
    cluster.heal()
    cluster.members[1].restart()
    cluster.cut = {(2, 1), (2, 3), (1, 2), (3, 2)}
    cluster[3].forget_leader()
    cluster[1].campaign()
    step(cluster, 1)
    cluster.deliver()
    step(cluster, 3)
    cluster.deliver()
    if cluster[1].role is not Role.LEADER:
        cluster[1].campaign()
        for _ in range(2):
            step(cluster, 1, 3)
            cluster.deliver()
    assert cluster[1].role is Role.LEADER
    old = cluster[1].last_index - 1
    cluster[1].step(AppendResponse(3, 1, cluster[1].term, old, session=cluster[1].progress[3].session))
    assert cluster[1].commit_index < old


def test_l2_a_stale_append_takes_nothing_away() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    propose(cluster, 1, b"a")
    cluster[1].propose([b"b"], 0)
    cluster.perform(1)
    first = [message for message in take(cluster, AppendEntries) if message.to == 2]
    cluster.queue.extend(first)
    cluster.settle()
    propose(cluster, 1, b"c", b"d")
    for message in first:  # it was also delayed, and arrives again
        cluster[2].step(message)
    cluster[2].step(AppendEntries(1, 2, cluster[1].term, 2, cluster[1].term, (), 2))
    assert cluster[2].last_index == cluster[1].last_index


def test_l3_what_follows_a_conflict_goes_with_it() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].propose([b"x", b"y", b"z"], 0)
    cluster.settle()
    cluster.elect_among(2, 3)
    cluster.heal()
    cluster.tick(2)
    assert cluster[1].log.entries(2, 99) == cluster[2].log.entries(2, 99)


@pytest.mark.parametrize("order", list(permutations(((2, 5), (3, 3), (4, 4), (5, 6)))), ids=str)
def test_l8_whatever_order_acknowledgements_come_in_a_majority_is_counted(
    order: tuple[tuple[int, int], ...],
) -> None:
    raft = leader(conf_state=ConfState((1, 2, 3, 4, 5)))
    raft.propose([b"x"] * 4, 1)
    flush(raft)
    held = {1: raft.last_index}
    for peer, index in order:
        accept(raft, peer, index)
        flush(raft)
        held[peer] = index
        counted = [i for i in range(1, 7) if sum(i <= acknowledged for acknowledged in held.values()) >= 3]
        assert raft.commit_index == max(counted, default=1)


def test_l9_an_entry_that_only_followers_hold_is_not_counted_for_the_leader() -> None:
    """With two voters the leader's own disk decides."""
    cluster = Cluster(2)
    cluster.elect(1)
    cluster[1].propose([b"x"], 0)
    cluster.perform(1)
    cluster.deliver()
    step(cluster, 2)
    cluster.deliver()
    before = cluster[1].commit_index
    cluster.sync(1)
    assert (before, cluster[1].commit_index) == (cluster[1].last_index - 1, cluster[1].last_index)


def test_l12_replication_goes_on_when_every_append_in_flight_is_lost() -> None:
    cluster = Cluster(3, max_inflight_messages=2)
    cluster.elect(1)
    cluster.cut = {(1, 3)}
    for number in range(6):
        propose(cluster, 1, b"%d" % number)
    cluster.heal()
    cluster.tick(4)
    assert cluster[3].last_index == cluster[1].last_index


def test_l14_a_commit_index_that_outlived_its_entries_is_only_a_hint() -> None:
    base = SnapshotMeta(1, 1, ConfState(VOTERS))
    raft = Raft(RaftConfig(1, TIMEOUT), DurableState(HardState(3, 0, 9), base, (Entry(3, 2),)))
    assert (raft.commit_index, raft.last_index) == (2, 2)


# Storage


def test_s1_an_acknowledged_entry_survives_any_crash() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    propose(cluster, 1, b"acknowledged")
    for node in VOTERS:
        cluster.members[node].restart()
    cluster.heal()
    cluster.isolate(1)
    cluster.tick(8 * TIMEOUT)
    assert cluster.members[2].data() == [b"acknowledged"]


def test_s2_entries_and_the_term_that_allows_them_are_one_write() -> None:
    cluster = Cluster(3)
    cluster[1].step(AppendEntries(2, 1, 7, 1, 1, (Entry(7, 2),), 1))
    cluster.perform(1)
    (persist,) = cluster.members[1].writes
    assert persist.hard_state is not None
    assert (persist.hard_state.term, persist.entries) == (7, (Entry(7, 2),))


# Membership


def test_m1_a_new_leader_changes_nothing_before_it_has_committed() -> None:
    cluster = Cluster(4)
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].propose_config(ConfigChange((ChangeStep(ChangeKind.REMOVE, 4),)), 0)
    cluster.settle()
    cluster.elect_among(2, 3, 4)
    new = cluster[2]
    new.propose_config(ConfigChange((ChangeStep(ChangeKind.REMOVE, 1),)), 0)
    cluster.settle()
    assert new.conf_state.voters == (2, 3, 4)
    cluster.heal()
    cluster.tick(2)
    assert cluster[1].last_index <= new.last_index
    assert all(entry.term >= new.term for entry in new.log.entries(3, 99))


def test_m2_a_slow_member_does_not_win_in_a_configuration_that_is_gone() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    for node in (4, 5):
        cluster.add(node)
        leader.propose_config(ConfigChange((ChangeStep(ChangeKind.ADD_VOTER, node),)), 0)
        cluster.settle()
        cluster.tick(3)
    slow = cluster.members[3]
    slow.restart()  # its state machine is empty again: nothing is applied yet
    slow.raft.forget_leader()
    slow.raft.campaign()
    assert slow.raft.role is Role.FOLLOWER
    cluster.tick(2)
    assert slow.raft.conf_state.voters == (1, 2, 3, 4, 5)


# Reads


def test_r2_a_leader_cut_off_serves_no_read_that_misses_a_write() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    cluster.elect_among(2, 3)
    propose(cluster, 2, b"newer")
    cluster[1].read(5)
    cluster.tick(2)
    cluster.heal()
    cluster.tick(3 * TIMEOUT)
    assert of_kind(cluster.members[1].log, ReadReady) == []


def test_r3_a_late_answer_to_an_old_round_confirms_no_new_read() -> None:
    """Also when the same member leads again, in a later term: rounds are numbered per term."""
    cluster = Cluster(3, pre_vote=False)
    cluster.elect(1)
    session = cluster[1].progress[2].session
    cluster[1].read(5)
    cluster.settle()
    old_term = cluster[1].term
    cluster.elect_among(2, 3)
    cluster.tick(2)
    cluster.elect_among(1, 2, 3)
    cluster.isolate(1)
    cluster[1].read(6)
    cluster.settle()
    for peer in (2, 3):
        cluster[1].step(HeartbeatResponse(peer, 1, old_term, 1, session))
    cluster.settle()
    assert [ready.context for ready in of_kind(cluster.members[1].log, ReadReady)] == [5]
