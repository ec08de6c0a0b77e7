"""A member that may have forgotten what it promised: it has no say until others have brought it up to date."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quorker.core.raft.core import Raft
from quorker.core.raft.effects import DiskWentBack, Fatal, Persist, RejoinChanged, Role
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    Forgotten,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    Message,
    RejoinRequest,
    RejoinResponse,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
    VoteResponse,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    accept,
    beat,
    beat_back,
    entries_of,
    flush,
    heard,
    messages,
    settled_leader,
)

PROMISES, ENTRIES = Forgotten.PROMISES, Forgotten.ENTRIES


def grown(size: int = 3, entries: int = 5, **settings: Any) -> Cluster:
    """Member 1 leads, and everybody holds some committed entries."""
    cluster = Cluster(size, **settings)
    cluster.elect(1)
    for number in range(entries):
        cluster[1].propose([b"%d" % number], number)
        cluster.settle()
    cluster.tick(2)
    return cluster


def damage(cluster: Cluster, node: int, forgotten: Forgotten, keep: int = 2) -> Raft:
    """The disk of `node` keeps its first entries only, and with PROMISES nothing else; it restarts."""
    disk = cluster.members[node].disk
    if forgotten is PROMISES:
        disk.hard_state, disk.snapshot, disk.entries = HardState(), SnapshotMeta(), []
    disk.entries = disk.entries[:keep]
    disk.hard_state = replace(disk.hard_state, forgotten=forgotten)
    cluster.members[node].restart()
    return cluster[node]


def has_a_say(cluster: Cluster, node: int) -> bool:
    durably = cluster.members[node].disk.hard_state.forgotten is Forgotten.NOTHING
    return durably and cluster[node].rejoining is None


# What it does not do


@pytest.mark.parametrize("pre_vote", [False, True])
def test_it_gives_no_vote(pre_vote: bool) -> None:
    raft = damage(grown(), 2, ENTRIES)
    raft.tick(raft.now + 30)
    raft.step(RequestVote(3, 2, raft.term + 1, 99, 99, pre_vote))
    answers = [message for message in messages(flush(raft)) if isinstance(message, VoteResponse)]
    assert [answer.granted for answer in answers] == [False]
    assert raft.voted_for != 3


def test_it_stands_in_no_election() -> None:
    raft = damage(grown(), 2, ENTRIES)
    assert raft.next_deadline() is None
    raft.tick(raft.now + 1000)
    raft.campaign()
    raft.step(TimeoutNow(1, 2, raft.term))
    assert (raft.role, messages(flush(raft))) == (Role.FOLLOWER, [])


def test_a_leader_hands_over_to_somebody_else() -> None:
    cluster = grown()
    damage(cluster, 2, ENTRIES)
    cluster.cut = {(3, 1)}
    cluster.tick(2)
    cluster[1].transfer(2)
    cluster.settle()
    assert cluster.leaders() == [1]


def test_no_answer_of_it_can_be_counted() -> None:
    raft = damage(grown(), 2, ENTRIES)
    raft.step(Heartbeat(1, 2, raft.term, 0, 7, 1))
    raft.step(AppendEntries(1, 2, raft.term, raft.last_index, raft.log.last_term, (), 0, 1))
    raft.step(AppendEntries(1, 2, raft.term, 99, raft.term, (), 0, 1))
    raft.step(AppendEntries(1, 2, raft.term - 1, 99, 1, (), 0, 1))
    kinds = (AppendResponse, HeartbeatResponse)
    answers = [message for message in messages(flush(raft)) if isinstance(message, kinds)]
    assert len(answers) == 4
    assert {answer.rejoin for answer in answers} == {raft.rejoin_name} != {0}


def test_each_life_has_a_name_of_its_own() -> None:
    cluster = grown()
    first = damage(cluster, 2, ENTRIES).rejoin_name
    cluster.members[2].restart()
    assert cluster[2].rejoin_name not in (0, first)


# How it is not counted


def test_its_acknowledgements_commit_nothing() -> None:
    cluster = grown()
    cluster.cut = {(1, 3), (3, 1)}
    damage(cluster, 2, ENTRIES)
    cluster.tick(3)
    committed = cluster[1].commit_index
    cluster[1].propose([b"x"], 9)
    cluster.settle()
    assert cluster[2].stable_index == cluster[1].last_index, "it has got the entry"
    assert cluster[1].commit_index == committed
    cluster.heal()
    cluster.tick(2)
    assert cluster[1].commit_index == cluster[1].last_index


def test_a_leader_that_hears_only_it_steps_down() -> None:
    cluster = grown()
    cluster.cut = {(1, 3), (3, 1)}
    damage(cluster, 2, ENTRIES)
    cluster.tick(25, only=(1, 2))
    assert cluster[1].role is Role.FOLLOWER


def test_it_confirms_no_read() -> None:
    raft = settled_leader()
    raft.step(RejoinRequest(2, 1, 0, 77, 1))
    raft.read(5)
    flush(raft)
    session = raft.progress[2].session
    raft.step(HeartbeatResponse(2, 1, raft.term, 2, session, 77))
    assert not [effect for effect in flush(raft) if getattr(effect, "context", 0) == 5]
    beat_back(raft, 3, read_round=2)
    assert [effect for effect in flush(raft) if getattr(effect, "context", 0) == 5]


def test_what_its_former_self_acknowledged_no_longer_counts() -> None:
    """L7, S8: an acknowledgement that was on its way, or remembered, when the disk lost what it spoke of."""
    raft = settled_leader()
    raft.propose([b"x"], 1)
    flush(raft)
    old = raft.progress[2].session
    raft.step(RejoinRequest(2, 1, 0, 77, 1))
    assert raft.progress[2].match_index == 0
    raft.step(AppendResponse(2, 1, raft.term, raft.last_index, session=old))
    flush(raft)
    assert raft.commit_index < raft.last_index


def test_an_answer_under_a_name_is_enough_for_the_leader_to_forget() -> None:
    raft = settled_leader()
    session = raft.progress[2].session
    raft.step(HeartbeatResponse(2, 1, raft.term, 0, session, 77))
    assert (raft.progress[2].match_index, raft.progress[2].rejoin) == (0, 77)
    assert raft.progress[2].session != session


def test_it_counts_again_when_it_says_so() -> None:
    raft = settled_leader()
    raft.step(RejoinRequest(2, 1, 0, 77, 1))
    raft.propose([b"x"], 1)
    flush(raft)
    session, last = raft.progress[2].session, raft.last_index
    raft.step(AppendResponse(2, 1, raft.term, last, session=session, rejoin=77))
    flush(raft)
    assert raft.commit_index < last
    raft.step(AppendResponse(2, 1, raft.term, last, session=session))
    raft.propose([b"y"], 2)
    accept(raft, 2, last + 1)
    flush(raft)
    assert raft.commit_index == last + 1


# When it has its say again


@pytest.mark.parametrize("forgotten", [ENTRIES, PROMISES])
@pytest.mark.parametrize("size", [3, 5])
def test_it_has_its_say_again_when_others_have_brought_it_up_to_date(forgotten: Forgotten, size: int) -> None:
    cluster = grown(size)
    damage(cluster, 2, forgotten)
    cluster.tick(6)
    assert has_a_say(cluster, 2)
    assert cluster[2].commit_index == cluster[1].commit_index
    assert RejoinChanged(Forgotten.NOTHING) in cluster.members[2].log
    cluster.isolate(1)
    cluster.elect_among(2, *range(3, size + 1))


@pytest.mark.parametrize("forgotten", [ENTRIES, PROMISES])
def test_without_a_majority_of_others_it_waits(forgotten: Forgotten) -> None:
    cluster = grown()
    cluster.cut = {(1, 3), (3, 1), (2, 3), (3, 2)}
    damage(cluster, 2, forgotten)
    cluster.tick(8)
    assert cluster[2].last_index == cluster[1].last_index
    assert not has_a_say(cluster, 2)
    cluster.heal()
    cluster.tick(40)
    assert has_a_say(cluster, 2)


def test_lost_promises_need_the_term_of_every_other_member() -> None:
    """A majority is not enough: somebody who got the forgotten vote may be the one that is missing."""
    cluster = grown(5)
    cluster.isolate(5)
    damage(cluster, 2, PROMISES)
    cluster.tick(8)
    assert cluster[2].last_index == cluster[1].last_index
    assert not has_a_say(cluster, 2)
    cluster.heal()
    cluster.tick(40)
    assert has_a_say(cluster, 2)


def test_a_forgotten_vote_is_not_given_again() -> None:
    cluster = Cluster(5, pre_vote=False, check_quorum=False)
    cluster.elect(1)
    cluster.isolate(1)
    term = cluster[1].term
    for voter in (2, 3, 4, 5):
        cluster[voter].forget_leader()
    cluster[3].campaign()
    for node in (3, 2):
        cluster.perform(node)
        cluster.sync(node)
        cluster.deliver(lambda message: message.to != 2)
    assert cluster[2].voted_for == 3
    cluster.queue.clear()
    damage(cluster, 2, PROMISES)
    cluster.heal()
    for _ in range(60):
        cluster.tick(1)
    assert has_a_say(cluster, 2)
    assert cluster[2].term > term, "the term of the candidate is known now"
    assert cluster.members[2].disk.hard_state.voted_for == 2 or cluster[2].leader, "its vote is used up"


def test_the_vote_of_the_term_in_which_it_rejoined_is_used_up() -> None:
    cluster = grown()
    raft = damage(cluster, 2, PROMISES)
    cluster.tick(6)
    assert has_a_say(cluster, 2)
    raft.forget_leader()
    raft.step(RequestVote(3, 2, raft.term, 99, 99))
    answers = [message for message in messages(flush(raft)) if isinstance(message, VoteResponse)]
    assert [answer.granted for answer in answers] == [False]


def test_the_index_of_another_term_is_not_enough() -> None:
    cluster = grown()
    raft = damage(cluster, 2, ENTRIES, keep=9)
    raft.step(RejoinResponse(1, 2, raft.term - 1, raft.rejoin_name, 2))
    flush(raft)
    assert raft.rejoining is not None
    raft.step(RejoinResponse(1, 2, raft.term, raft.rejoin_name + 1, 2))
    flush(raft)
    assert raft.rejoining is not None, "an answer to another life"
    raft.step(RejoinResponse(1, 2, raft.term, raft.rejoin_name, 2))
    beat(raft, leader_id=1)
    assert raft.rejoining is not None


def test_a_leader_waits_for_an_entry_of_its_own_term_before_it_names_an_index() -> None:
    """Before, its commit index may be behind what the former self helped to commit."""
    cluster = grown()
    cluster.cut = {(1, 2), (2, 1), (1, 3), (3, 1)}
    cluster[3].forget_leader()
    cluster[2].forget_leader()
    cluster[3].campaign()
    for actor in (3, 2, 3, 2, 3):
        cluster.perform(actor)
        cluster.sync(actor)
        cluster.deliver()
    assert cluster[3].role is Role.LEADER
    cluster.queue.clear()
    cluster[3].step(RejoinRequest(2, 3, 0, 77, 1))
    answers = [message for message in messages(flush(cluster[3])) if isinstance(message, RejoinResponse)]
    assert [answer.index for answer in answers] == [0]


def test_the_disk_says_it_before_the_member_does() -> None:
    """A crash in between finds it without a say, and it asks again."""
    cluster = grown()
    raft = damage(cluster, 2, ENTRIES)
    while not (raft.rejoining is not None and raft.rejoining.is_over):
        cluster[1].tick(cluster[1].now + 1)
        cluster.settle(only=(1, 3))
        cluster.deliver()
        cluster.perform(2)
        if not (raft.rejoining is not None and raft.rejoining.is_over):
            cluster.sync(2)
    assert raft.rejoin_name
    raft.step(RequestVote(3, 2, raft.term + 1, 99, 99))
    assert not any(
        isinstance(send.message, VoteResponse) and send.message.granted
        for persist in cluster.members[2].writes
        for send in persist.then
    )
    cluster.members[2].restart()
    assert cluster[2].rejoining is not None
    cluster.tick(6)
    assert has_a_say(cluster, 2)


def test_it_does_not_believe_what_only_its_former_self_may_have_held() -> None:
    """An older image may end in entries that were since replaced: a heartbeat speaks of the new ones."""
    cluster = grown()
    cluster.members[2].disk.hard_state = replace(cluster.members[2].disk.hard_state, commit_index=1)
    raft = damage(cluster, 2, ENTRIES)
    stale = raft.last_index
    raft.log.truncate_from(stale)
    raft.log.append([Entry(1, stale, b"stale")])
    raft.step(Heartbeat(1, 2, raft.term, stale))
    assert raft.commit_index < stale
    raft.step(
        AppendEntries(
            1, 2, raft.term, stale - 1, raft.log.term_at(stale - 1) or 0, entries_of(2, stale, 1), 0
        )
    )
    raft.step(Heartbeat(1, 2, raft.term, stale))
    assert raft.commit_index == stale


@pytest.mark.parametrize("settings", [{}, {"pre_vote": False, "check_quorum": False}])
def test_a_leader_left_behind_learns_its_term(settings: dict[str, Any]) -> None:
    """It campaigns never, so it must not be ignored for ever by a leader whose term it is past."""
    cluster = grown(**settings)
    disk = cluster.members[2].disk
    disk.hard_state = replace(disk.hard_state, term=cluster[1].term + 3)
    damage(cluster, 2, ENTRIES)
    cluster.tick(60)
    assert has_a_say(cluster, 2)


def test_lease_reads_confirm_nobody() -> None:
    raft = settled_leader(lease_reads=True)
    raft.step(RejoinRequest(2, 1, 0, 77, 1))
    assert [answer.index for answer in heard(raft, RejoinResponse)] == [0]
    beat_back(raft, 3, read_round=1)
    assert [answer.index for answer in heard(raft, RejoinResponse)] == [raft.commit_index]


def test_a_learner_rejoins_alike() -> None:
    cluster = Cluster(3, voters=(1,))
    start = SnapshotMeta(1, 1, ConfState((1,), (2, 3)))
    for member in cluster.members.values():
        member.disk.snapshot = start
        member.restart()
    cluster.elect(1)
    cluster[1].propose([b"x"], 1)
    cluster.settle()
    damage(cluster, 2, PROMISES)
    cluster.tick(5)
    assert has_a_say(cluster, 2)
    assert cluster[2].last_index == cluster[1].last_index


# A disk that went back


def test_a_follower_notices_that_its_disk_went_back() -> None:
    cluster = grown()
    disk = cluster.members[2].disk
    disk.entries = disk.entries[:2]
    cluster.members[2].restart()
    last, commit = cluster[2].last_index, cluster[1].commit_index
    cluster.tick(1)
    assert not cluster.members[2].all(Fatal)
    assert cluster.members[2].all(DiskWentBack) == [DiskWentBack(2, commit, last)]
    marks = [write.hard_state for write in cluster.members[2].all(Persist) if write.hard_state is not None]
    assert PROMISES in [mark.forgotten for mark in marks], "the mark survives a restart"
    cluster.tick(8)
    assert has_a_say(cluster, 2)


def test_a_leader_names_the_disk_that_went_back() -> None:
    cluster = grown()
    last = cluster[1].last_index
    disk = cluster.members[2].disk
    disk.entries = disk.entries[:2]
    cluster.members[2].restart()
    found = cluster[2].last_index
    cluster.tick(8)
    assert cluster.members[1].all(DiskWentBack) == [DiskWentBack(2, last, found)]


def test_the_mark_survives_restarts_until_it_is_over() -> None:
    cluster = grown()
    cluster.isolate(3)
    damage(cluster, 2, ENTRIES)
    for _ in range(3):
        cluster.tick(3)
        cluster.members[2].restart()
        assert cluster[2].rejoining is not None
    cluster.heal()
    cluster.tick(40)
    assert has_a_say(cluster, 2)
    cluster.members[2].restart()
    assert cluster[2].rejoining is None


def test_members_with_all_their_memory_say_nothing_new() -> None:
    cluster = grown()
    sent: list[Message] = [*cluster.queue]
    cluster.tick(30)
    assert not [message for message in sent if isinstance(message, (RejoinRequest, RejoinResponse))]
    assert not any(member.all(RejoinChanged) for member in cluster.members.values())
