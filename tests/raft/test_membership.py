"""Changes of membership: their guards, when they take effect, joint configurations and how they end."""

from __future__ import annotations

import pytest

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange, Transition, encode_change
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Accepted, ConfigChanged, Dropped, DropReason, Effect, Role
from quorker.core.raft.log import RaftLog
from quorker.core.raft.membership import proven_commit
from quorker.core.raft.messages import (
    AppendEntries,
    ConfState,
    Entry,
    EntryKind,
    ForwardProposal,
    HardState,
    Heartbeat,
    VoteResponse,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    BASE,
    TIMEOUT,
    VOTERS,
    accept,
    accept_all,
    beat,
    flush,
    heard,
    leader,
    member,
    of_kind,
    settled_leader,
)


def change(kind: ChangeKind, *nodes: int, transition: Transition = Transition.AUTO) -> ConfigChange:
    return ConfigChange(tuple(ChangeStep(kind, node) for node in nodes), transition)


def add(*nodes: int) -> ConfigChange:
    return change(ChangeKind.ADD_VOTER, *nodes)


def remove(*nodes: int) -> ConfigChange:
    return change(ChangeKind.REMOVE, *nodes)


def config_entry(term: int, index: int, wanted: ConfigChange) -> Entry:
    return Entry(term, index, encode_change(wanted), EntryKind.CONFIG_V2)


def commit_all(raft: Raft) -> list[Effect]:
    """The peers of the present configuration acknowledge all."""
    effects = flush(raft)
    for peer in raft.peers:
        accept(raft, peer, raft.last_index)
    return effects + flush(raft)


# When it takes effect


def test_a_change_takes_effect_when_it_is_applied() -> None:
    raft = settled_leader()
    raft.propose_config(add(4), 1)
    flush(raft)
    before = raft.conf_state
    effects = commit_all(raft)
    assert (before.voters, raft.conf_state.voters) == (VOTERS, (1, 2, 3, 4))
    assert of_kind(effects, ConfigChanged) == [ConfigChanged(ConfState((1, 2, 3, 4)), raft.applied_index)]


def test_a_new_member_is_sent_to_at_once() -> None:
    raft = settled_leader()
    raft.propose_config(add(4), 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    assert 4 in {message.to for message in heard(raft, AppendEntries)}


def test_a_removed_member_is_sent_nothing_more() -> None:
    raft = settled_leader()
    raft.propose_config(remove(3), 1)
    commit_all(raft)
    raft.tick(1)
    assert {message.to for message in heard(raft, Heartbeat)} == {2}


def test_a_removal_can_commit_what_waits() -> None:
    raft = settled_leader(conf_state=ConfState((1, 2, 3, 4)))
    raft.propose_config(remove(4), 1)
    raft.propose([b"x"], 2)
    flush(raft)
    accept(raft, 2, raft.last_index)
    accept(raft, 3, raft.last_index - 1)
    assert raft.commit_index == raft.last_index - 1
    flush(raft)
    assert raft.commit_index == raft.last_index  # 1 and 2 are a majority of 1, 2, 3


def test_a_follower_applies_changes_too() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, (config_entry(2, 2, add(4)),), 2))
    flush(raft)
    assert raft.conf_state.voters == (1, 2, 3, 4)


def test_a_change_takes_effect_once() -> None:
    raft = settled_leader()
    raft.propose_config(add(4), 1)
    commit_all(raft)
    raft.applied(raft.applied_index)
    assert of_kind(flush(raft), ConfigChanged) == []


def test_impossible_or_unreadable_changes_are_skipped_by_all() -> None:
    raft = member(term=2)
    entries = (
        config_entry(2, 2, ConfigChange()),  # nothing to leave
        Entry(2, 3, b"\xff not a change", EntryKind.CONFIG_V2),
        config_entry(2, 4, remove(1, 2, 3)),
        config_entry(2, 5, add(4)),
    )
    raft.step(AppendEntries(2, 1, 2, 1, 1, entries, 5))
    flush(raft)
    assert (raft.applied_index, raft.conf_state.voters) == (5, (1, 2, 3, 4))


def test_after_a_restart_changes_up_to_the_applied_index_hold_and_later_ones_wait() -> None:
    entries = (config_entry(1, 2, add(4)), config_entry(1, 3, add(5)))
    durable = DurableState(HardState(1, 0, 2), BASE, entries, applied_index=2)
    raft = Raft(RaftConfig(1, TIMEOUT), durable)
    assert raft.conf_state.voters == (1, 2, 3, 4)
    assert raft.drain() == ()


# Guards


def refused(raft: Raft, wanted: ConfigChange) -> list[Dropped]:
    """The answer to a refused proposal; in its place stands an empty entry."""
    raft.propose_config(wanted, 9)
    effects = flush(raft)
    entry = raft.log.entry(raft.last_index)
    assert entry is not None
    assert (entry.kind, entry.data) == (EntryKind.NORMAL, b"")
    assert of_kind(effects, Accepted) == []
    return of_kind(effects, Dropped)


def test_one_change_at_a_time() -> None:
    raft = settled_leader()
    raft.propose_config(add(4), 1)
    flush(raft)
    assert refused(raft, add(5)) == [Dropped(9, DropReason.CONFIG_PENDING, 1)]
    accept_all(raft)
    raft.propose_config(add(5), 2)
    assert [accepted.context for accepted in of_kind(flush(raft), Accepted)] == [2]


def test_a_new_leader_assumes_that_a_change_is_on_its_way() -> None:
    """M1: until everything it found in its log is applied."""
    raft = leader([2, 2])
    assert refused(raft, add(4)) == [Dropped(9, DropReason.CONFIG_PENDING, 1)]
    accept_all(raft)
    raft.propose_config(add(4), 1)
    assert [accepted.context for accepted in of_kind(flush(raft), Accepted)] == [1]


def test_a_joint_configuration_is_left_before_the_next_change() -> None:
    raft = settled_leader(conf_state=ConfState((1, 2), voters_outgoing=(1, 2, 3)))
    assert len(refused(raft, add(4))) == 1
    raft.propose_config(ConfigChange(), 1)
    commit_all(raft)
    assert raft.conf_state == ConfState((1, 2))


def test_there_is_no_way_out_of_a_simple_configuration() -> None:
    assert len(refused(settled_leader(), ConfigChange())) == 1


def test_validation_can_be_switched_off() -> None:
    raft = settled_leader(disable_config_validation=True)
    raft.propose_config(add(4), 1)
    raft.propose_config(ConfigChange(), 2)
    assert [accepted.context for accepted in of_kind(flush(raft), Accepted)] == [1, 2]


def test_a_refused_append_leaves_no_pending_change() -> None:
    raft = settled_leader(max_uncommitted_bytes=10)
    raft.propose([b"x" * 10], 1)
    raft.propose_config(add(4), 2)
    assert [dropped.reason for dropped in of_kind(flush(raft), Dropped)] == [DropReason.TOO_MUCH_UNCOMMITTED]
    accept_all(raft)
    raft.propose_config(add(4), 3)
    assert [accepted.context for accepted in of_kind(flush(raft), Accepted)] == [3]


def test_forwarded_changes_meet_the_same_guards() -> None:
    raft = settled_leader()
    entries = [Entry(0, 0, encode_change(add(node)), EntryKind.CONFIG_V2) for node in (4, 5)]
    garbage = Entry(0, 0, b"\xff", EntryKind.CONFIG_V2)
    raft.step(ForwardProposal(2, 1, 0, (*entries, garbage)))
    kinds = [entry.kind for entry in raft.log.entries(raft.last_index - 2, 99)]
    assert kinds == [EntryKind.CONFIG_V2, EntryKind.NORMAL, EntryKind.NORMAL]


def test_nobody_campaigns_over_a_committed_change_that_it_has_not_applied() -> None:
    """M2: two members with configurations two changes apart could both win an election."""
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, (config_entry(2, 2, add(4)),), 2))
    raft.forget_leader()
    raft.campaign()
    assert raft.role is Role.FOLLOWER
    flush(raft)
    raft.campaign()
    assert raft.role is not Role.FOLLOWER


def test_what_is_only_in_the_log_does_not_hold_back_a_campaign() -> None:
    raft = member(term=2)
    raft.step(AppendEntries(2, 1, 2, 1, 1, (config_entry(2, 2, add(4)),), 1))
    raft.forget_leader()
    raft.campaign()
    assert raft.role is Role.CANDIDATE


def test_of_two_changes_in_a_log_the_first_is_committed() -> None:
    """Even if the commit index was forgotten in a restart: the second was proposed after the first was applied."""
    entries = [config_entry(1, 2, add(4)), Entry(1, 3), config_entry(1, 4, add(5)), Entry(1, 5)]
    assert proven_commit(RaftLog(1, 1, entries)) == 2
    assert proven_commit(RaftLog(1, 1, entries[:2])) == 0
    raft = Raft(RaftConfig(1, TIMEOUT), DurableState(HardState(1, 0, 1), BASE, tuple(entries)))
    raft.campaign()
    assert (raft.commit_index, raft.role) == (2, Role.FOLLOWER)
    flush(raft)
    raft.campaign()
    assert (raft.conf_state.voters, raft.role) == ((1, 2, 3, 4), Role.PRE_CANDIDATE)


def test_a_removed_leader_steps_down_or_drops_what_is_proposed() -> None:
    """M6."""
    stays = settled_leader(step_down_on_removal=False)
    goes = settled_leader()
    for raft in (stays, goes):
        raft.propose_config(remove(1), 1)
        commit_all(raft)
        raft.propose([b"x"], 2)
    assert (stays.role, goes.role) == (Role.LEADER, Role.FOLLOWER)
    assert [dropped.reason for dropped in of_kind(flush(stays), Dropped)] == [DropReason.NOT_A_MEMBER]
    assert [dropped.reason for dropped in of_kind(flush(goes), Dropped)] == [DropReason.NO_LEADER]


def test_a_demoted_leader_steps_down() -> None:
    """E9."""
    raft = settled_leader()
    raft.propose_config(change(ChangeKind.ADD_LEARNER, 1), 1)
    commit_all(raft)
    assert (raft.role, raft.conf_state.learners) == (Role.FOLLOWER, (1,))


# Joint configurations


def test_two_steps_go_through_a_joint_configuration_that_ends_by_itself() -> None:
    cluster = Cluster(5, voters=(1, 2, 3))
    raft = cluster.elect(1)
    raft.propose_config(ConfigChange((*add(4, 5).changes, *remove(2).changes)), 1)
    cluster.settle()
    assert [changed.conf_state for changed in of_kind(cluster.members[1].log, ConfigChanged)] == [
        ConfState((1, 3, 4, 5), voters_outgoing=(1, 2, 3), auto_leave=True),
        ConfState((1, 3, 4, 5)),
    ]


def test_a_new_leader_ends_the_joint_configuration_of_its_predecessor() -> None:
    """M3: the old leader crashes as soon as the change is committed."""
    cluster = Cluster(3)
    raft = cluster.elect(1)
    raft.propose_config(change(ChangeKind.REMOVE, 1, 3), 1)
    cluster.perform(1)
    cluster.sync(1)
    cluster.deliver()
    for node in (2, 3):
        cluster.perform(node)
        cluster.sync(node)
    cluster.deliver()
    cluster.perform(1)  # 1 knows that it is committed, and nobody else does
    cluster.queue.clear()
    cluster.isolate(1)
    cluster.tick(6 * TIMEOUT)
    assert cluster[2].conf_state == ConfState((2,))
    assert cluster[2].role is Role.LEADER


def test_joint_configurations_wait_for_a_transfer_before_they_end() -> None:
    raft = settled_leader(conf_state=ConfState((1, 2, 3), voters_outgoing=(1, 2), auto_leave=True))
    assert raft.conf_state.auto_leave is False  # it had nothing else to wait for
    raft = leader(conf_state=ConfState((1, 2, 3), voters_outgoing=(1, 2), auto_leave=True))
    raft.transfer(2)
    accept_all(raft)
    assert raft.conf_state.auto_leave is True
    raft.tick(TIMEOUT)
    beat(raft, term=1)
    raft.propose([b"x"], 1)
    accept_all(raft)
    accept_all(raft)
    assert raft.conf_state.auto_leave is False


@pytest.mark.parametrize("node", [2, 3])
def test_a_transfer_to_a_member_that_goes_is_given_up(node: int) -> None:
    raft = settled_leader()
    raft.propose_config(remove(node), 1)
    flush(raft)
    raft.transfer(2)
    accept(raft, 5 - node, raft.last_index)
    flush(raft)
    raft.propose([b"x"], 2)
    assert len(of_kind(flush(raft), Accepted)) == (node == 2)


def test_two_voters_become_one_although_the_one_does_not_know() -> None:
    """M3, even size: the demoted leader has a longer log, and only it knows that its demotion is committed."""
    cluster = Cluster(2)
    raft = cluster.elect(2)
    raft.propose_config(change(ChangeKind.ADD_LEARNER, 2), 1)
    cluster.perform(2)
    cluster.sync(2)
    cluster.deliver()
    cluster.perform(1)
    cluster.sync(1)
    raft.propose([b"only here"], 2)
    cluster.perform(2)
    cluster.sync(2)
    cluster.queue = type(cluster.queue)(message for message in cluster.queue if message.to == 2)
    cluster.deliver()  # 2 commits its demotion and steps down; what it tells 1 is lost
    cluster.perform(2)
    cluster.queue.clear()
    assert (cluster[2].conf_state.learners, cluster[1].conf_state.voters) == ((2,), (1, 2))
    cluster.tick(10 * TIMEOUT)
    assert (cluster.leaders(), cluster[1].conf_state.learners) == ([1], (2,))


def test_a_single_voter_grows_to_three() -> None:
    cluster = Cluster(1)
    raft = cluster.elect(1)
    for node in (2, 3):
        cluster.add(node)
        raft.propose_config(add(node), node)
        cluster.settle()
        cluster.tick(3)
    raft.propose([b"x"], 9)
    cluster.settle()
    assert [member.data() for member in cluster.members.values()] == [[b"x"]] * 3
    assert cluster[3].conf_state.voters == VOTERS


def test_votes_of_a_removed_member_do_not_count() -> None:
    raft = member(conf_state=ConfState((1, 2)))
    raft.campaign()
    flush(raft)
    raft.step(VoteResponse(3, 1, raft.term, granted=True))
    assert raft.role is Role.CANDIDATE
