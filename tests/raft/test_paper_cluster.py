"""The Raft paper, sentence by sentence, continued: membership (6), log compaction (7), client interaction (8).

Where we differ on purpose: a configuration takes effect when its entry is applied, not when it is appended (6);
`docs/decisions/0007-members-change-when-applied.md` says why that is safe.
"""

from __future__ import annotations

from collections import deque

import pytest

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange, Transition
from quorker.core.raft.effects import (
    Accepted,
    Dropped,
    DropReason,
    InstallState,
    Persist,
    ReadReady,
    Role,
    Truncated,
)
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    EntryKind,
    Heartbeat,
    InstallSnapshot,
    RequestVote,
    SnapshotMeta,
    VoteResponse,
)
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.solo import (
    TIMEOUT,
    VOTERS,
    accept,
    accept_all,
    append,
    beat,
    beat_back,
    compact,
    flush,
    heard,
    leader,
    member,
    of_kind,
    said,
    settled_leader,
)

JOINT = ConfState(voters=(1, 2, 3), voters_outgoing=(1, 4, 5))


def remove(*nodes: int) -> ConfigChange:
    return ConfigChange(tuple(ChangeStep(ChangeKind.REMOVE, node) for node in nodes))


def add(*nodes: int) -> ConfigChange:
    return ConfigChange(tuple(ChangeStep(ChangeKind.ADD_VOTER, node) for node in nodes))


# 6 Cluster membership changes


def test_6_the_cluster_first_switches_to_joint_consensus_then_to_the_new_configuration() -> None:
    cluster = Cluster(5, voters=VOTERS)
    cluster.elect(1).propose_config(ConfigChange((*add(4, 5).changes, *remove(2, 3).changes)), 1)
    cluster.settle()
    entries = [entry.kind for entry in cluster.members[1].applied]
    assert entries == [EntryKind.NORMAL, EntryKind.CONFIG_V2, EntryKind.CONFIG_V2]
    assert {cluster[node].conf_state for node in (1, 4, 5)} == {ConfState((1, 4, 5))}


def test_6_in_joint_consensus_entries_go_to_all_servers_of_both_configurations() -> None:
    raft = settled_leader(conf_state=JOINT)
    raft.propose([b"x"], 1)
    assert {message.to for message in heard(raft, AppendEntries)} == {2, 3, 4, 5}


@pytest.mark.parametrize("voters", [(1, 2), (3, 4)])
def test_6_any_server_of_either_configuration_may_lead(voters: tuple[int, ...]) -> None:
    conf_state = ConfState(voters=voters, voters_outgoing=(1, 5))
    assert leader(conf_state=conf_state).role is Role.LEADER


@pytest.mark.parametrize(
    ("granting", "role"),
    [((2, 3), Role.CANDIDATE), ((4, 5), Role.CANDIDATE), ((2, 4), Role.LEADER)],
)
def test_6_an_election_needs_majorities_of_both_configurations(granting: tuple[int, ...], role: Role) -> None:
    raft = member(conf_state=JOINT)
    raft.campaign()
    flush(raft)
    for voter in granting:
        raft.step(VoteResponse(voter, 1, raft.term, granted=True))
    assert raft.role is role


@pytest.mark.parametrize(("holding", "committed"), [((2, 3), False), ((4, 5), False), ((2, 4), True)])
def test_6_commitment_needs_majorities_of_both_configurations(
    holding: tuple[int, ...], committed: bool
) -> None:
    raft = settled_leader(conf_state=JOINT)
    raft.propose([b"x"], 1)
    flush(raft)
    for peer in holding:
        accept(raft, peer, raft.last_index)
    assert (raft.commit_index == raft.last_index) is committed


def test_6_new_servers_join_without_a_vote_and_do_not_count() -> None:
    raft = settled_leader(conf_state=ConfState(VOTERS, learners=(4, 5)))
    raft.propose([b"x"], 1)
    assert {message.to for message in heard(raft, AppendEntries)} == {2, 3, 4, 5}
    accept(raft, 4, raft.last_index)
    accept(raft, 5, raft.last_index)
    assert raft.commit_index < raft.last_index


def test_6_a_leader_outside_the_new_configuration_does_not_count_itself_and_steps_down_once_it_commits() -> (
    None
):
    raft = settled_leader(conf_state=ConfState((1, 2)))
    raft.propose_config(remove(1), 1)
    flush(raft)
    roles = [raft.role]
    accept(raft, 2, raft.last_index)
    flush(raft)
    roles.append(raft.role)
    assert roles == [Role.LEADER, Role.FOLLOWER]
    assert raft.conf_state.voters == (2,)


def test_6_while_it_still_leads_it_does_not_count_itself() -> None:
    """An entry that it had proposed before its removal took effect needs a majority of the others, without itself."""
    raft = settled_leader(conf_state=ConfState((1, 2, 3, 4)), step_down_on_removal=False)
    raft.propose_config(remove(1), 1)
    raft.propose([b"x"], 2)
    flush(raft)
    removal, entry = raft.last_index - 1, raft.last_index
    for peer in (2, 3):
        accept(raft, peer, removal)
    flush(raft)
    assert (raft.conf_state.voters, raft.role) == ((2, 3, 4), Role.LEADER)
    accept(raft, 2, entry)
    assert raft.commit_index == removal, "the leader and one of the three others are no majority of those"
    accept(raft, 3, entry)
    assert raft.commit_index == entry


def test_6_a_leader_that_was_removed_takes_nothing_new() -> None:
    raft = settled_leader(step_down_on_removal=False)
    raft.propose_config(remove(1), 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    flush(raft)
    raft.propose([b"x"], 2)
    assert [dropped.reason for dropped in of_kind(flush(raft), Dropped)] == [DropReason.NOT_A_MEMBER]


def test_6_servers_disregard_vote_requests_while_they_believe_a_leader_exists() -> None:
    raft = member(term=2)
    beat(raft)
    raft.tick(TIMEOUT - 1)
    flush(raft)
    raft.step(RequestVote(3, 1, 9, 99, 99))
    assert said(raft) == []
    assert raft.term == 2
    raft.tick(TIMEOUT)
    raft.step(RequestVote(3, 1, 9, 99, 99))
    assert [answer.granted for answer in heard(raft, VoteResponse)] == [True]


def test_6_a_removed_server_does_not_disrupt_the_cluster() -> None:
    cluster = Cluster(3)
    cluster.elect(1).propose_config(remove(3), 1)
    cluster.isolate(3)
    cluster.settle()
    cluster.heal()
    term = cluster[1].term
    cluster.tick(10 * TIMEOUT)
    assert (cluster.leaders(), cluster[1].term) == ([1], term)


# 7 Log compaction


def test_7_the_term_of_the_last_included_entry_serves_the_consistency_check_after_it() -> None:
    raft = member([2, 2, 3], term=3, commit=4)
    flush(raft)
    meta = compact(raft, keep_from=5)
    assert (raft.first_index, meta.term) == (5, 3)
    assert not append(raft, (4, 3), [Entry(3, 5)]).rejected


def test_7_a_snapshot_includes_the_latest_configuration_it_covers() -> None:
    raft = settled_leader()
    raft.propose_config(add(4), 1)
    flush(raft)
    accept_all(raft)
    assert raft.applied_meta == SnapshotMeta(raft.applied_index, raft.term, ConfState((1, 2, 3, 4)))


def test_7_the_leader_sends_a_snapshot_when_it_has_discarded_the_entry_it_needs_to_send() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    for number in range(5):
        cluster[1].propose([b"%d" % number], number)
        cluster.settle()
    cluster.members[1].compact()
    cluster.heal()
    cluster.tick(2)
    assert of_kind(cluster.members[3].log, InstallState) == [InstallState(cluster[1].snapshot)]
    cluster[1].propose([b"after"], 9)
    cluster.settle()
    assert cluster.members[3].data() == [b"after"]


def test_7_a_snapshot_with_new_information_replaces_the_whole_log() -> None:
    raft = member([1, 1, 1], term=2)
    beat(raft)
    flush(raft)
    raft.step(InstallSnapshot(2, 1, 2, SnapshotMeta(9, 2, ConfState(VOTERS))))
    effects = flush(raft)
    assert of_kind(effects, Truncated) == [Truncated(2, 4)]
    assert (raft.first_index, raft.last_index, raft.commit_index, raft.applied_index) == (10, 9, 9, 9)


def test_7_entries_after_a_snapshot_of_a_prefix_of_the_log_are_retained() -> None:
    raft = member([2, 2, 2], term=2)
    raft.step(InstallSnapshot(2, 1, 2, SnapshotMeta(3, 2, ConfState(VOTERS))))
    effects = flush(raft)
    assert not any(isinstance(effect, (Truncated, InstallState)) for effect in effects)
    assert (raft.last_index, raft.commit_index) == (4, 3)


def test_7_an_old_snapshot_changes_nothing() -> None:
    raft = member([2, 2, 2], term=2, commit=4)
    flush(raft)
    raft.step(InstallSnapshot(2, 1, 2, SnapshotMeta(3, 2, ConfState(VOTERS))))
    assert heard(raft, AppendResponse) == [AppendResponse(1, 2, 2, 4, commit_index=4)]
    assert (raft.first_index, raft.last_index, raft.applied_index) == (2, 4, 4)


def test_7_each_server_takes_snapshots_by_itself_covering_just_the_committed_entries() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[1].propose([b"committed"], 1)
    cluster.settle()
    committed = cluster[3].commit_index
    cluster.isolate(1)
    cluster[1].propose([b"not committed"], 2)
    cluster.settle()
    before = [cluster[node].first_index for node in (2, 3)]
    cluster.members[1].compact()
    assert cluster[1].snapshot.index == committed == cluster[1].last_index - 1
    assert [cluster[node].first_index for node in (2, 3)] == before
    cluster.settle()
    assert cluster.queue == deque()


def test_7_a_snapshot_restarts_the_election_timer() -> None:
    """Its chunks are the driver's affair; heartbeats go on beside them."""
    raft = member(term=2)
    raft.set_randomized_election_timeout(TIMEOUT)
    beat(raft)
    flush(raft)
    raft.tick(TIMEOUT - 1)
    raft.step(InstallSnapshot(2, 1, 2, SnapshotMeta(9, 2, ConfState(VOTERS))))
    flush(raft)
    roles: list[Role] = []
    for now in (2 * TIMEOUT - 2, 2 * TIMEOUT - 1):
        raft.tick(now)
        roles.append(raft.role)
    assert roles == [Role.FOLLOWER, Role.CANDIDATE]


# 8 Client interaction


def test_8_a_follower_rejects_a_request_and_names_the_leader_it_heard_from() -> None:
    raft = member(term=2, disable_proposal_forwarding=True)
    beat(raft)
    raft.propose([b"x"], 7)
    assert of_kind(flush(raft), Dropped) == [Dropped(7, DropReason.NOT_LEADER, 2)]


def test_8_a_leader_commits_an_empty_entry_at_the_start_of_its_term() -> None:
    raft = leader()
    assert raft.log.entries(2, 99) == (Entry(2, 2, b""),)


def test_8_a_new_leader_answers_no_read_before_it_has_committed_an_entry_of_its_term() -> None:
    raft = leader([2, 2])
    raft.read(5)
    flush(raft)
    beat_back(raft, 2, read_round=1)
    assert of_kind(flush(raft), ReadReady) == []
    accept(raft, 2, raft.last_index)
    rounds = [beat.read_round for beat in heard(raft, Heartbeat)]
    assert rounds == [1, 1]
    beat_back(raft, 2, read_round=1)
    assert of_kind(flush(raft), ReadReady) == [ReadReady(5, raft.commit_index)]


def test_8_a_deposed_leader_answers_no_read() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].read(5)
    cluster.elect_among(2, 3)
    cluster[2].propose([b"newer"], 1)
    cluster.settle()
    cluster.tick(3 * TIMEOUT)
    assert of_kind(cluster.members[1].log, ReadReady) == []


def test_8_a_read_waits_for_the_index_that_was_committed_when_it_was_asked() -> None:
    raft = settled_leader()
    raft.read(5)
    asked_at = raft.commit_index
    raft.propose([b"later"], 1)
    flush(raft)
    accept(raft, 2, raft.last_index)
    beat_back(raft, 2, read_round=1)
    assert of_kind(flush(raft), ReadReady) == [ReadReady(5, asked_at)]


def test_8_reads_write_nothing_into_the_log() -> None:
    raft = settled_leader()
    last = raft.last_index
    raft.read(5)
    effects = flush(raft)
    beat_back(raft, 2, read_round=1)
    effects += flush(raft)
    assert of_kind(effects, ReadReady) == [ReadReady(5, last)]
    assert of_kind(effects, Persist) == []
    assert raft.last_index == last


def test_8_the_accepted_position_is_known_before_the_outcome_is() -> None:
    raft = settled_leader()
    raft.propose([b"x", b"y"], 7)
    assert of_kind(flush(raft), Accepted) == [Accepted(7, raft.last_index, raft.term)]
    assert raft.commit_index < raft.last_index


def test_explicit_joint_configuration_is_left_only_when_told() -> None:
    cluster = Cluster(3)
    raft = cluster.elect(1)
    raft.propose_config(ConfigChange(remove(3).changes, Transition.EXPLICIT), 1)
    cluster.settle()
    assert raft.conf_state.voters_outgoing == VOTERS
    raft.propose_config(ConfigChange(), 2)
    cluster.settle()
    assert raft.conf_state == ConfState((1, 2))
