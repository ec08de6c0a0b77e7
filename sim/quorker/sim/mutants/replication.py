"""Bugs of the log: what a follower accepts, what a leader counts, and when an entry is committed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from quorker.core.raft import core, election, log, membership, persistence, progress, quorum, replication
from quorker.core.raft.log import RaftLog
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    Message,
)
from quorker.core.raft.progress import Progress, ProgressMap
from quorker.core.raft.quorum import UNBOUNDED, JointVoters
from quorker.core.raft.roles import Leader
from quorker.core.raft.state import RaftState
from quorker.sim.mutants.cases import churning, diverging
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in
from quorker.sim.mutants.staged import reborn, shuffled

NOT_DURABLE: Final = ("commit on durable majority",)
DIVERGED: Final = (
    "log matching",
    "state-machine safety",
    "leader completeness",
    "undamaged disks lose nothing",
    "fatal",
)


@bug(
    "A leader commits entries of earlier terms by counting who holds them.",
    known="logcabin 44, PySyncObj 110 and 169, canonical/raft 336; Raft 5.4.2",
    oracles=("own-term commit",),
    budget=30,
)
def commit_old_terms_by_counting(patch: Patch) -> None:
    def maybe_commit(raft: RaftState) -> bool:
        index = progress.committed(raft.configuration.voters, raft.progress)
        moved = index > raft.commit_index
        raft.commit_to(index)
        return moved

    patch.replace(replication, "maybe_commit", maybe_commit)


@bug("Half of the voters, or fewer, commit.", known="Raft 5.3", oracles=NOT_DURABLE, budget=30)
def commit_quorum_too_small(patch: Patch) -> None:
    def committed_index(voters: tuple[int, ...], acked: dict[int, int]) -> int:
        ranked = sorted((acked.get(voter, 0) for voter in voters), reverse=True)
        even = voters and len(voters) % 2 == 0
        return ranked[(len(ranked) - 1) // 2] if even else max(ranked, default=UNBOUNDED)

    patch.replace(quorum, "committed_index", committed_index)


@bug(
    "Learners count towards the majority that commits.",
    known="openraft 1802, dragonboat 106",
    oracles=NOT_DURABLE,
    budget=30,
    case=churning,
)
def learners_count(patch: Patch) -> None:
    def committed(_: JointVoters, known: ProgressMap) -> int:
        ranked = sorted(each.match_index for each in known.values())
        return ranked[(len(ranked) - 1) // 2]

    patch.replace(progress, "committed", committed)


@bug(
    "A leader counts its own entries before they are on its own disk.",
    known="etcd 14370",
    oracles=("commit on durable majority", "invariant"),
    budget=30,
)
def leader_counts_itself_early(patch: Patch) -> None:
    def append_and_count(raft: RaftState, leader: Leader, entries: tuple[Entry, ...]) -> bool:
        done: bool = append(raft, leader, entries)
        if done and raft.node_id in raft.progress:
            raft.progress[raft.node_id].maybe_update(raft.log.last_index)
        return done

    append = patch.replace(replication, "append", append_and_count)


@bug(
    "A follower appends without looking whether its log agrees with what comes before.",
    known="Raft 5.3",
    oracles=("log matching", "state-machine safety"),
    budget=600,
)
def no_previous_entry_check(patch: Patch) -> None:
    def matches(self: RaftLog, index: int, _: int) -> bool:
        return index <= self.last_index

    patch.replace(log.RaftLog, "matches", matches)


@bug(
    "A short or late append cuts the log behind it.",
    known="akka-raft 66, PySyncObj 0.3.17",
    oracles=("undamaged disks lose nothing", "commit on durable majority", "fatal"),
    budget=30,
)
def truncate_on_short_appends(patch: Patch) -> None:
    def truncate_and_take(raft: RaftState, entries: tuple[Entry, ...]) -> bool:
        if entries and raft.commit_index < entries[0].index and entries[-1].index < raft.log.last_index:
            persistence.truncate(raft, entries[0].index)
        done: bool = take(raft, entries)
        return done

    take = patch.replace(replication, "_take", truncate_and_take)


@bug(
    "Entries that conflict are replaced, and those behind them kept.",
    known="mofa 1151",
    oracles=DIVERGED,
    budget=150,
)
def the_tail_behind_a_conflict_is_kept(patch: Patch) -> None:
    def take_and_keep(raft: RaftState, entries: tuple[Entry, ...]) -> bool:
        behind = entries[-1].index + 1 if entries and raft.log.find_conflict(entries) else UNBOUNDED
        tail = raft.log.entries(behind, raft.log.last_index + 1)
        done: bool = take(raft, entries)
        if done:
            raft.log.append(tail)
        return done

    take = patch.replace(replication, "_take", take_and_keep)


@bug(
    "A follower commits as far as its log goes, not as far as it was found to agree.",
    known="copycat 265, scylladb 9965",
    oracles=("state-machine safety",),
    budget=600,
)
def follower_commits_unverified(patch: Patch) -> None:
    def on_append_entries(raft: RaftState, message: AppendEntries) -> None:
        take(raft, message)
        raft.commit_to(min(message.commit_index, raft.log.last_index))

    take = patch.replace_item(core.HANDLERS, AppendEntries, on_append_entries)


@bug(
    "Heartbeats name the leader's commit index, whatever the follower holds.",
    known="atomix",
    oracles=("undamaged disks lose nothing", "state-machine safety", "fatal"),
    budget=30,
)
def heartbeats_name_more_than_is_matched(patch: Patch) -> None:
    def send(self: RaftState, message: Message) -> None:
        if isinstance(message, Heartbeat):
            message = replace(message, commit_index=self.commit_index)
        say(self, message)

    say = patch.replace(RaftState, "send", send)


@bug(
    "A follower acknowledges all that is in its log, not what it was sent.",
    known="simulation of a toy: only seen without an entry at the start of a term",
    equivalent="What a leader sends begins where the logs meet, or behind: it starts behind its own log, and neither a hint "
    "nor a new probe leads back further. There it has an entry that the follower lacks, as every term begins with one. So an "
    "append that is accepted cuts whatever the leader has not, and what is left is a beginning of the leader's log, for which "
    "this acknowledgement waits to be durable like any other. Who lost a part of that to damage rejoins, and is not counted.",
)
def acknowledges_its_whole_log(patch: Patch) -> None:
    def answer(raft: RaftState, message: AppendEntries, index: int) -> None:
        say(raft, message, max(index, raft.log.last_index))

    say = patch.replace(replication, "_answer", answer)


@bug(
    "The leader appends what is proposed, and only then sees that its tail is too long, and refuses.",
    known="a limit that is looked at in the wrong place",
    oracles=("honest refusal",),
    budget=300,
)
def refused_proposals_are_appended(patch: Patch) -> None:
    def append_all(raft: RaftState, leader: Leader, entries: tuple[Entry, ...]) -> bool:
        done: bool = append(raft, leader, entries)
        if not done:
            raft.log.append(entries)
            replication.request_all(raft, leader)
        return done

    append = patch.replace(replication, "append", append_all)


@bug(
    "What is offered for applying begins behind what has been applied, though more may be under way.",
    known="etcd-io/raft, applying beside applied",
    oracles=("apply in order",),
    budget=60,
)
def offers_begin_at_what_was_applied(patch: Patch) -> None:
    def flush_applies(raft: RaftState) -> None:
        raft.applying_index = raft.applied_index
        offer(raft)

    offer = patch.replace(replication, "flush_applies", flush_applies)


@bug(
    "Entries of a leader of an earlier term are still accepted.",
    known="hashicorp/raft 695",
    oracles=("commit on durable majority", *DIVERGED),
    budget=150,
    case=diverging,
)
def former_leaders_append(patch: Patch) -> None:
    def on_lower_term(raft: RaftState, message: Message) -> None:
        if isinstance(message, AppendEntries) and not isinstance(raft.acting_as, Leader):
            replication.on_append_entries(raft, message)
        else:
            ignore(raft, message)

    ignore = patch.replace(election, "on_lower_term", on_lower_term)


@bug(
    "Acknowledgements of earlier terms, and of earlier replication sessions, count.",
    known="PySyncObj; seventeen implementations in a survey of rejoining members",
    oracles=("commit on durable majority",),
    budget=30,
    case=reborn,
)
def acknowledgements_of_former_terms_count(patch: Patch) -> None:
    def on_lower_term(raft: RaftState, message: Message) -> None:
        known = raft.progress.get(message.sender)
        if isinstance(message, AppendResponse) and known is not None:
            replication.on_append_response(raft, replace(message, session=known.session))
        else:
            ignore(raft, message)

    ignore = patch.replace(election, "on_lower_term", on_lower_term)


@bug(
    "What is known of a follower's log goes back when answers overtake each other.",
    known="PySyncObj 166, raftos 25, raft-java 53",
    oracles=("invariant",),
    budget=30,
)
def match_index_falls(patch: Patch) -> None:
    def maybe_update(self: Progress, index: int) -> bool:
        news: bool = update(self, index)
        self.match_index = index
        return news

    update = patch.replace(Progress, "maybe_update", maybe_update)


@bug(
    "Rejections are believed whenever they come: the next entry to send falls below what is known to match.",
    known="etcd-io/raft 149, raft-rs 557",
    oracles=("invariant", "exception"),
    budget=150,
)
def late_rejections_are_believed(patch: Patch) -> None:
    def maybe_decrease(self: Progress, rejected: int, hint: int) -> bool:
        self.next_index = max(min(rejected, hint + 1), 1)
        self.paused = False
        return True

    patch.replace(Progress, "maybe_decrease", maybe_decrease)
    _forget_flights(patch)  # else few late ones would be heard at all


@bug(
    "A lost append is waited for without end: no later answer opens the window again.",
    known="etcd 14633, hashicorp/raft 612",
    oracles=("liveness",),
    budget=30,
)
def lost_appends_stop_the_flow(patch: Patch) -> None:
    def on_heartbeat_response(raft: RaftState, message: HeartbeatResponse) -> None:
        known = raft.progress.get(message.sender)
        paused = known is not None and known.paused
        handle(raft, message)
        if known is not None:
            known.paused = known.paused or paused

    handle = patch.replace_item(core.HANDLERS, HeartbeatResponse, on_heartbeat_response)


@bug(
    "Bytes that are committed still count as uncommitted: the leader refuses more and more, then everything.",
    known="etcd-io/raft, size of the uncommitted tail",
    oracles=("liveness",),
    budget=60,
)
def uncommitted_bytes_leak(patch: Patch) -> None:
    def on_applied(raft: RaftState, index: int) -> None:
        leader = raft.acting_as
        counted = leader.uncommitted_bytes if isinstance(leader, Leader) else 0
        apply(raft, index)
        if isinstance(leader, Leader):
            leader.uncommitted_bytes = counted

    apply = patch.replace(membership, "on_applied", on_applied)


@bug(
    "A failed send does not make the leader look for the follower's place again.",
    equivalent="It only finds the place sooner: the append after the lost one is rejected, or the window fills and the "
    "answer to the next heartbeat leads to one that is.",
)
def unreachable_followers_are_not_probed(patch: Patch) -> None:
    def on_unreachable(_: RaftState, __: int) -> None:
        pass

    patch.replace(replication, "on_unreachable", on_unreachable)


@bug(
    "An answer counts for the present flight of appends whatever flight it belongs to.",
    known="our own `jobs-churn` 218",
    oracles=("event budget",),
    budget=20,
    case=shuffled,
)
def answers_outlive_their_flight(patch: Patch) -> None:
    _forget_flights(patch)


def _forget_flights(patch: Patch) -> None:
    def of_this_flight(raft: RaftState, message: AppendResponse) -> None:
        known = raft.progress.get(message.sender)
        handle(raft, replace(message, flight=known.flight) if known else message)

    handle = patch.replace_item(core.HANDLERS, AppendResponse, of_this_flight)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
