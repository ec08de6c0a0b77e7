"""The oracles reject hand-made traces that break a promise, and accept their lawful twins."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from quorker.core.raft.effects import Persist
from quorker.core.raft.log import RaftLog
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    EntryKind,
    Forgotten,
    HardState,
    HeartbeatResponse,
    Message,
    RequestVote,
    SnapshotMeta,
    VoteResponse,
)
from quorker.sim.disks.disk import DurableLog
from quorker.sim.oracles.checks import Oracles, Violation, next_state

THREE = ConfState((1, 2, 3))
BASE = SnapshotMeta(1, 1, THREE)


@dataclass
class Member:
    """As much of a member as the oracles look at."""

    term: int = 2
    commit_index: int = 1
    conf_state: ConfState = THREE
    log: RaftLog = field(default_factory=lambda: RaftLog(1, 1))

    @property
    def last_index(self) -> int:
        return self.log.last_index


def entry(index: int, term: int = 2, data: bytes = b"") -> Entry:
    return Entry(term, index, data)


def change(index: int) -> Entry:
    return Entry(2, index, b"", EntryKind.CONFIG_V2)


class Trial:
    """Three members with disks, and the oracles over them."""

    def __init__(self) -> None:
        self.disks = {node_id: DurableLog(HardState(1, 0, 1), BASE, 0) for node_id in (1, 2, 3)}
        self.oracles = Oracles(self.disks)
        self.members = {node_id: Member(log=RaftLog(1, 1)) for node_id in (1, 2, 3)}
        for node_id, member in self.members.items():
            self.oracles.on_started(node_id, member, applied_index=1)

    def write(self, node_id: int, *entries: Entry) -> None:
        """Entries reach the log and the disk of a member."""
        member = self.members[node_id]
        before = member.log.last_term
        member.log.append(entries)
        record = Persist(1, HardState(member.term, 0, 1), entries=entries)
        self.oracles.on_persist(node_id, record, before)
        self.oracles.on_durable(node_id, self.disks[node_id].write(record, None))

    def lead(self, node_id: int, term: int, voters: tuple[int, ...] | None = None) -> None:
        """It becomes leader by the votes of `voters`; left out: by that of its neighbour."""
        self.members[node_id].term = term
        for voter in (node_id % 3 + 1,) if voters is None else voters:
            self.oracles.seen[voter].granted.setdefault(term, node_id)
        self.oracles.on_leader(node_id, term, self.members[node_id])

    def commit(self, node_id: int, index: int, leads: bool = True) -> None:
        member = self.members[node_id]
        member.commit_index = index
        self.oracles.after_step(node_id, member, leads)

    def committed(self, *entries: Entry) -> None:
        """A lawful beginning: n1 leads term 2 and commits entries that all three hold."""
        self.lead(1, 2)
        for node_id in (1, 2, 3):
            self.write(node_id, *entries)
        self.commit(1, entries[-1].index)


@pytest.fixture
def trial() -> Trial:
    return Trial()


def rejects(oracle: str, act: Callable[[], object]) -> None:
    with pytest.raises(Violation, match=f"^{re.escape(oracle)}: "):
        act()


def test_a_lawful_run_is_accepted(trial: Trial) -> None:
    trial.committed(entry(2), entry(3, data=b"job"))
    trial.commit(2, 3, leads=False)
    trial.oracles.on_apply(2, [entry(2), entry(3, data=b"job")])
    state = next_state(next_state(0, entry(2)), entry(3, data=b"job"))
    trial.oracles.on_state(2, 3, state)
    trial.lead(2, 3)
    trial.oracles.scan()


def test_a_leader_without_a_majority_of_votes(trial: Trial) -> None:
    rejects("elected by majorities [R10]", lambda: trial.lead(1, 2, voters=()))


def test_a_leader_with_the_votes_of_the_new_voters_only(trial: Trial) -> None:
    trial.members[1].conf_state = ConfState((1, 2), voters_outgoing=(1, 3))
    rejects("elected by majorities [R10]", lambda: trial.lead(1, 2, voters=(2,)))
    trial.lead(1, 2, voters=(2, 3))


def test_a_vote_for_another_elects_nobody(trial: Trial) -> None:
    trial.oracles.seen[2].granted[2] = 3
    rejects("elected by majorities [R10]", lambda: trial.lead(1, 2))


def test_a_change_over_a_change_that_is_not_committed(trial: Trial) -> None:
    trial.lead(1, 2)
    trial.write(1, change(2), entry(3))
    rejects("one change at a time [R10]", lambda: trial.write(1, change(4)))


def test_a_change_over_a_committed_one_and_the_copies_of_others_are_lawful(trial: Trial) -> None:
    trial.committed(change(2))
    trial.write(1, entry(3), change(4))
    trial.write(2, entry(3), change(4))


def test_two_leaders_of_one_term(trial: Trial) -> None:
    trial.lead(1, 2)
    trial.lead(1, 2)
    rejects("election safety", lambda: trial.lead(2, 2))


def test_a_leader_that_is_no_voter(trial: Trial) -> None:
    trial.members[1].conf_state = ConfState((2, 3), (1,))
    rejects("leader is a voter", lambda: trial.lead(1, 2))


def test_a_leader_without_what_was_committed_before_its_term(trial: Trial) -> None:
    trial.committed(entry(2))
    trial.members[3].log.truncate_from(2)
    rejects("leader completeness", lambda: trial.lead(3, 3))


def test_a_late_leader_of_an_older_term_need_not_hold_what_a_newer_one_committed(trial: Trial) -> None:
    """Its votes were given before, and arrived late. What counts is the term of the commit, not of the entry."""
    trial.lead(1, 4)
    trial.write(1, entry(2, 4))
    trial.write(2, entry(2, 4))
    trial.commit(1, 2)
    trial.lead(3, 3)
    rejects("leader completeness", lambda: trial.lead(3, 5))


def test_a_stale_leader_that_commits_what_a_newer_leader_lacks(trial: Trial) -> None:
    trial.lead(1, 2)
    trial.write(1, entry(2))
    trial.write(2, entry(2))
    trial.lead(3, 3)
    rejects("leader completeness", lambda: trial.commit(1, 2))


def test_a_commit_without_a_durable_majority(trial: Trial) -> None:
    trial.lead(1, 2)
    trial.write(1, entry(2))
    rejects("commit on durable majority", lambda: trial.commit(1, 2))


def test_a_commit_over_one_half_of_a_joint_configuration(trial: Trial) -> None:
    trial.members[1].conf_state = ConfState((1, 2), (), (3,))
    trial.oracles.on_started(1, trial.members[1], 1)
    trial.lead(1, 2, voters=(2, 3))
    trial.write(1, entry(2))
    trial.write(2, entry(2))
    rejects("commit on durable majority", lambda: trial.commit(1, 2))


def test_a_commit_by_counting_an_entry_of_an_older_term(trial: Trial) -> None:
    """Figure 8 of the paper."""
    trial.lead(1, 4)
    for node_id in (1, 2):
        trial.write(node_id, entry(2, 2))
    rejects("own-term commit", lambda: trial.commit(1, 2))


def test_a_follower_that_commits_first(trial: Trial) -> None:
    trial.write(1, entry(2))
    rejects("only leaders commit", lambda: trial.commit(1, 2, leads=False))


def test_a_commit_beyond_the_log(trial: Trial) -> None:
    rejects("commit within log", lambda: trial.commit(1, 2))


def test_a_commit_that_goes_back(trial: Trial) -> None:
    trial.committed(entry(2), entry(3))
    rejects("monotonic commit", lambda: trial.commit(1, 2))


def test_a_term_that_goes_back(trial: Trial) -> None:
    trial.members[1].term = 5
    trial.commit(1, 1)
    trial.members[1].term = 4
    rejects("monotonic term", lambda: trial.commit(1, 1))


def test_another_entry_committed_at_the_same_index(trial: Trial) -> None:
    trial.committed(entry(2))
    trial.members[2].log = RaftLog(1, 1, [entry(2, 3)])
    rejects("state-machine safety", lambda: trial.commit(2, 2, leads=False))


def test_one_index_and_term_with_two_contents(trial: Trial) -> None:
    trial.write(1, entry(2, data=b"one"))
    rejects("log matching", lambda: trial.write(2, entry(2, data=b"other")))


def test_one_index_and_term_with_two_predecessors(trial: Trial) -> None:
    trial.write(1, entry(2, 2), entry(3, 3))
    rejects("log matching", lambda: trial.write(2, entry(2, 1), entry(3, 3)))


def test_a_gap_on_disk(trial: Trial) -> None:
    record = Persist(1, entries=(entry(3),))
    rejects("persist lane", lambda: trial.oracles.on_durable(1, trial.disks[1].write(record, None)))


VOTE = VoteResponse(1, 2, 5, granted=True)
CANDIDACY = RequestVote(1, 2, 5, 1, 1)
ACKNOWLEDGEMENT = AppendResponse(1, 2, 5, 2)
LEADING = AppendEntries(1, 2, 5, 1, 1, (), 1)


@pytest.mark.parametrize(
    "message", [VOTE, CANDIDACY, ACKNOWLEDGEMENT, LEADING], ids=lambda each: type(each).__name__
)
def test_a_promise_before_it_is_durable(trial: Trial, message: Message) -> None:
    rejects("durable before sent", lambda: trial.oracles.on_send(1, message))
    voted_for = message.to if isinstance(message, VoteResponse) else 1
    trial.disks[1].write(Persist(1, HardState(5, voted_for, 1), entries=(entry(2, 5),)), None)
    trial.oracles.on_send(1, message)


@pytest.mark.parametrize(("message", "voted_for"), [(VOTE, 2), (CANDIDACY, 1)], ids=["vote", "candidacy"])
def test_one_write_may_bring_a_vote_and_the_end_of_its_term(
    trial: Trial, message: Message, voted_for: int
) -> None:
    trial.disks[1].write(Persist(1, HardState(6, 0, 1)), None)
    trial.oracles.on_send(1, message)
    trial.disks[1].votes[5] = voted_for + 1
    rejects("durable before sent", lambda: trial.oracles.on_send(1, message))


def test_what_promises_nothing_may_leave_at_once(trial: Trial) -> None:
    trial.oracles.on_send(1, RequestVote(1, 2, 5, 1, 1, pre_vote=True))
    trial.oracles.on_send(1, VoteResponse(1, 2, 5, granted=True, pre_vote=True))
    trial.oracles.on_send(1, VoteResponse(1, 2, 5, granted=False))


def test_two_votes_in_one_term(trial: Trial) -> None:
    trial.disks[1].write(Persist(1, HardState(5, 2, 1)), None)
    trial.oracles.on_send(1, VOTE)
    trial.disks[1].votes[5] = 3
    rejects("one vote", lambda: trial.oracles.on_send(1, VoteResponse(1, 3, 5, granted=True)))


def test_a_restart_before_a_term_in_which_it_voted(trial: Trial) -> None:
    trial.disks[1].write(Persist(1, HardState(5, 2, 1)), None)
    trial.oracles.on_send(1, VOTE)
    rejects("durability", lambda: trial.oracles.on_started(1, Member(term=4), 1))


@pytest.mark.parametrize(
    "message",
    [
        VoteResponse(2, 1, 1, granted=True, pre_vote=True),
        RequestVote(2, 1, 2, 1, 1, pre_vote=True),
        AppendResponse(2, 1, 1, 1),
        HeartbeatResponse(2, 1, 1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_say_of_somebody_who_may_have_forgotten(trial: Trial, message: Message) -> None:
    trial.oracles.on_send(2, message)
    trial.disks[2].forget(Forgotten.ENTRIES)
    rejects("no say", lambda: trial.oracles.on_send(2, message))


def test_what_nobody_counts_may_be_said_by_everybody(trial: Trial) -> None:
    trial.disks[2].forget(Forgotten.PROMISES)
    for message in (
        VoteResponse(2, 1, 1, granted=False),
        AppendResponse(2, 1, 1, 1, rejoin=7),
        HeartbeatResponse(2, 1, 1, rejoin=7),
    ):
        trial.oracles.on_send(2, message)


def test_a_commit_that_counts_what_damage_took(trial: Trial) -> None:
    """Nobody could know; without the damage it would have been lawful. The scan at the end accepts no excuse."""
    trial.lead(1, 2)
    for node_id in (1, 2):
        trial.write(node_id, entry(2))
    trial.disks[2].lose_from(2)
    trial.commit(1, 2)
    rejects("durability", trial.oracles.scan)


def test_lost_promises_excuse_a_restart_before_a_vote(trial: Trial) -> None:
    trial.disks[2].votes[5] = 1
    trial.disks[2].hard_state = HardState(5, 1, 1)
    trial.oracles.on_send(2, VoteResponse(2, 1, 5, granted=True))
    trial.disks[2].hard_state = HardState(2, 0, 1)
    rejects("durability", lambda: trial.oracles.on_started(2, trial.members[2], 1))
    trial.disks[2].forget(Forgotten.PROMISES)
    trial.oracles.on_started(2, trial.members[2], 1)


def test_applying_what_is_not_committed(trial: Trial) -> None:
    trial.write(1, entry(2))
    rejects("apply only committed", lambda: trial.oracles.on_apply(1, [entry(2)]))


def test_applying_out_of_order(trial: Trial) -> None:
    trial.committed(entry(2), entry(3))
    trial.oracles.on_started(1, Member(), 1)
    rejects("apply in order", lambda: trial.oracles.on_apply(1, [entry(3)]))


def test_applying_something_else_than_the_others(trial: Trial) -> None:
    trial.committed(entry(2, data=b"one"))
    trial.oracles.on_started(1, Member(), 1)
    rejects("state-machine safety", lambda: trial.oracles.on_apply(1, [entry(2, data=b"other")]))


def test_applying_what_the_own_disk_lacks(trial: Trial) -> None:
    trial.committed(entry(2))
    trial.oracles.on_started(1, Member(), 1)
    trial.disks[1].entries.clear()
    rejects("apply only durable", lambda: trial.oracles.on_apply(1, [entry(2)]))


def test_a_machine_that_differs(trial: Trial) -> None:
    trial.committed(entry(2))
    rejects("replicas are equal", lambda: trial.oracles.on_state(3, 2, 12345))


def test_a_snapshot_from_the_past_and_from_the_future(trial: Trial) -> None:
    trial.committed(entry(2), entry(3))
    trial.oracles.on_started(1, Member(), 3)
    rejects("monotonic apply", lambda: trial.oracles.on_install(1, SnapshotMeta(3, 2, THREE)))
    rejects("apply only committed", lambda: trial.oracles.on_install(1, SnapshotMeta(9, 2, THREE)))


def test_a_read_that_misses_what_was_committed_before(trial: Trial) -> None:
    trial.oracles.on_read(1, 5, 5)
    rejects("linearizable read", lambda: trial.oracles.on_read(1, 4, 5))


def test_committing_what_was_refused(trial: Trial) -> None:
    trial.oracles.refused[b"op000001"] = "which n1 had refused"
    rejects("honest refusal", lambda: trial.committed(entry(2, data=b"op000001 and more")))


def test_a_scan_that_finds_committed_entries_on_too_few_disks(trial: Trial) -> None:
    trial.committed(entry(2))
    trial.disks[1].entries.clear()
    trial.oracles.scan()
    trial.disks[2].entries.clear()
    rejects("durability", trial.oracles.scan)


def test_a_scan_that_finds_a_wrong_snapshot(trial: Trial) -> None:
    trial.committed(entry(2))
    trial.disks[1].install(SnapshotMeta(2, 2, THREE), 4711)
    rejects("replicas are equal", trial.oracles.scan_states)
