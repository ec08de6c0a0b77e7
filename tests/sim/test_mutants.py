"""Planted bugs: each must be found within a bounded number of seeds, by the oracle that is meant to see it.

A simulator that finds nothing may simply not look. Some bugs need runs made for them: elections that collide, or
membership that changes all the time; some hide behind a second defence, which is then taken away too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from quorker.core.raft import (
    core,
    election,
    log,
    membership,
    persistence,
    progress,
    quorum,
    replication,
    roles,
)
from quorker.core.raft.messages import AppendEntries, Entry, HardState, Message, RequestVote, VoteResponse
from quorker.core.raft.quorum import UNBOUNDED, VoteResult
from quorker.core.raft.roles import Leader
from quorker.core.raft.state import RaftState
from quorker.sim import checks
from quorker.sim.case import Case, Fault, FaultKind, Op, OpKind, Point, Target, Trap
from quorker.sim.cluster import run_case
from quorker.sim.disk import DurableLog
from quorker.sim.expansion import CHURN, Profile, expand
from quorker.sim.kernel import MS
from quorker.sim.randomness import Stream

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """`budget`: seeds within which it must be found; about three times what it took when it was planted."""

    plant: Plant
    oracles: tuple[str, ...]
    budget: int
    case: Callable[[int], Case] = expand


# ---------------------------------------------------------------------- runs made for what they must find


def churning(seed: int) -> Case:
    return expand(seed, CHURN)


TRIO = Profile("trio", (3,), (300, 900), 1, 40, 0)


def colliding(seed: int) -> Case:
    """Candidates in every term: elections are short, the network is slow and late, voters die when they have voted."""
    case = expand(seed, TRIO)
    traps = tuple(Trap(Point.VOTED, nth, (1 + nth % 5) * MS) for nth in range(1, 30, 3))
    return replace(
        case,
        dead_in_calm=0,
        plan=(),
        traps=traps,
        raft=replace(case.raft, election_ms=18, heartbeat_ms=4, pre_vote=False),
        network=replace(
            case.network, latency="heavy", median_ns=3 * MS, late_ppm=200_000, late_max_ns=80 * MS
        ),
        disk=replace(case.disk, median_ns=MS // 10),
    )


def reading(seed: int) -> Case:
    """Leaders are cut off again and again, while everybody reads through everybody."""
    draw, case = Stream(seed, "reading"), expand(seed, TRIO)
    ops = [
        Op(at_ns, draw.choice((OpKind.READ, OpKind.READ, OpKind.PROPOSE)), draw.choice((0, 1, 2, 3)))
        for at_ns in range(20 * MS, case.chaos_ns, 3 * MS)
    ]
    plan = [
        Fault(at_ns, FaultKind.ISOLATE, draw.between(20, 80) * MS, Target.LEADER)
        for at_ns in range(60 * MS, case.chaos_ns, 90 * MS)
    ]
    return replace(
        case,
        dead_in_calm=0,
        traps=(),
        plan=tuple(plan),
        ops=tuple(ops),
        raft=replace(case.raft, election_ms=20, heartbeat_ms=4),
        network=replace(case.network, median_ns=MS),
    )


# ---------------------------------------------------------------------- bugs


def always(answer: object) -> Callable[..., object]:
    def answer_all(*_: object) -> object:
        return answer

    return answer_all


def acknowledge_before_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftState, "hold", RaftState.send)


def acknowledge_before_fsync_unwatched(patch: pytest.MonkeyPatch) -> None:
    acknowledge_before_fsync(patch)
    patch.setattr(checks, "PROMISES", {})


def vote_not_persisted(patch: pytest.MonkeyPatch) -> None:
    def keep(self: DurableLog, hard_state: HardState, synced: bool) -> None:
        del synced
        self.hard_state = replace(hard_state, voted_for=0)
        self.commit_synced = hard_state.commit_index
        self.votes[hard_state.term] = hard_state.voted_for

    patch.setattr(DurableLog, "_keep", keep)


def hard_state_not_persisted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DurableLog, "_keep", always(None))
    patch.setattr(checks, "PROMISES", {})


def commit_old_terms_by_counting(patch: pytest.MonkeyPatch) -> None:
    def maybe_commit(raft: RaftState) -> bool:
        index = progress.committed(raft.configuration.voters, raft.progress)
        moved = index > raft.commit_index
        raft.commit_to(index)
        return moved

    patch.setattr(replication, "maybe_commit", maybe_commit)


def no_previous_entry_check(patch: pytest.MonkeyPatch) -> None:
    def matches(self: log.RaftLog, index: int, _: int) -> bool:
        return index <= self.last_index

    patch.setattr(log.RaftLog, "matches", matches)


def commit_quorum_too_small(patch: pytest.MonkeyPatch) -> None:
    def committed_index(voters: tuple[int, ...], acked: dict[int, int]) -> int:
        ranked = sorted((acked.get(voter, 0) for voter in voters), reverse=True)
        return (
            ranked[(len(ranked) - 1) // 2]
            if voters and len(voters) % 2 == 0
            else max(ranked, default=UNBOUNDED)
        )

    patch.setattr(quorum, "committed_index", committed_index)


def vote_quorum_too_small(patch: pytest.MonkeyPatch) -> None:
    def vote_result(voters: tuple[int, ...], votes: dict[int, bool]) -> VoteResult:
        granted = sum(votes.get(voter, False) for voter in voters)
        return VoteResult.WON if granted >= max(len(voters) // 2, 1) or not voters else VoteResult.PENDING

    patch.setattr(quorum, "vote_result", vote_result)


def stale_votes_count(patch: pytest.MonkeyPatch) -> None:
    ignore = election.on_lower_term

    def on_lower_term(raft: RaftState, message: Message) -> None:
        if isinstance(message, VoteResponse):
            election.on_vote_response(raft, message)
        else:
            ignore(raft, message)

    patch.setattr(election, "on_lower_term", on_lower_term)


def several_votes_per_term(patch: pytest.MonkeyPatch) -> None:
    judge = core.HANDLERS[RequestVote]

    def on_request_vote(raft: RaftState, message: RequestVote) -> None:
        raft.voted_for = 0 if raft.leader == 0 else raft.voted_for
        judge(raft, message)

    patch.setitem(core.HANDLERS, RequestVote, on_request_vote)


def vote_for_any_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(log.RaftLog, "is_up_to_date", always(True))


def follower_commits_unverified(patch: pytest.MonkeyPatch) -> None:
    take = core.HANDLERS[AppendEntries]

    def on_append_entries(raft: RaftState, message: AppendEntries) -> None:
        take(raft, message)
        raft.commit_to(min(message.commit_index, raft.log.last_index))

    patch.setitem(core.HANDLERS, AppendEntries, on_append_entries)


def leader_counts_itself_early(patch: pytest.MonkeyPatch) -> None:
    append = replication.append

    def append_and_count(raft: RaftState, leader: Leader, entries: tuple[Entry, ...]) -> bool:
        done = append(raft, leader, entries)
        if done and raft.node_id in raft.progress:
            raft.progress[raft.node_id].maybe_update(raft.log.last_index)
        return done

    patch.setattr(replication, "append", append_and_count)


def truncate_on_short_appends(patch: pytest.MonkeyPatch) -> None:
    take = replication._take  # pyright: ignore[reportPrivateUsage]  # the place where this bug would be made

    def truncate_and_take(raft: RaftState, entries: tuple[Entry, ...]) -> bool:
        if entries and raft.commit_index < entries[0].index and entries[-1].index < raft.log.last_index:
            persistence.truncate(raft, entries[0].index)
        return take(raft, entries)

    patch.setattr(replication, "_take", truncate_and_take)


def late_write_confirms_what_was_cut(patch: pytest.MonkeyPatch) -> None:
    clip = persistence.PersistenceLane.cut

    def cut(self: persistence.PersistenceLane, index: int) -> None:
        proven = [write.last_index for write in self.in_flight]
        clip(self, index)
        for write, last_index in zip(self.in_flight, proven, strict=True):
            write.last_index = last_index

    patch.setattr(persistence.PersistenceLane, "cut", cut)


def read_without_a_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftState, "decides_alone", property(always(True)))


def read_before_own_term_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftState, "has_own_term_commit", property(always(True)))


def no_entry_at_the_start_of_a_term(patch: pytest.MonkeyPatch) -> None:
    def take_the_lead(raft: RaftState) -> None:
        replication.request_all(raft, roles.become_leader(raft))

    patch.setattr(election, "_take_the_lead", take_the_lead)


def several_config_changes_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(membership, "must_wait", always(False))


MUTANTS = (
    Mutant(acknowledge_before_fsync, ("durable before sent",), 10),
    Mutant(acknowledge_before_fsync_unwatched, ("commit on durable majority",), 60),
    Mutant(vote_not_persisted, ("one vote", "election safety"), 100, colliding),
    Mutant(hard_state_not_persisted, ("election safety", "log matching", "leader completeness", "fatal"), 60),
    Mutant(commit_old_terms_by_counting, ("own-term commit",), 60),
    Mutant(no_previous_entry_check, ("log matching", "state-machine safety"), 600),
    Mutant(commit_quorum_too_small, ("commit on durable majority",), 10),
    Mutant(vote_quorum_too_small, ("election safety", "leader completeness"), 60),
    Mutant(stale_votes_count, ("election safety", "leader completeness"), 300, colliding),
    Mutant(several_votes_per_term, ("one vote", "election safety"), 60),
    Mutant(vote_for_any_log, ("leader completeness", "state-machine safety"), 150),
    Mutant(follower_commits_unverified, ("state-machine safety",), 800),
    Mutant(leader_counts_itself_early, ("commit on durable majority", "invariant"), 30),
    Mutant(truncate_on_short_appends, ("commit on durable majority", "fatal"), 60),
    Mutant(late_write_confirms_what_was_cut, ("apply only durable", "invariant"), 400),
    Mutant(read_without_a_round, ("linearizable read",), 60, reading),
    Mutant(read_before_own_term_commit, ("linearizable read",), 60, reading),
    Mutant(no_entry_at_the_start_of_a_term, ("liveness", "event budget"), 20),
    Mutant(several_config_changes_at_once, ("apply only committed", "invariant"), 60, churning),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.plant.__name__)
def test_planted_bug_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.plant(monkeypatch)
    for seed in range(mutant.budget):
        violation = run_case(mutant.case(seed)).violation
        if violation is not None:
            assert violation.oracle in mutant.oracles, violation
            return
    pytest.fail(f"not found within {mutant.budget} seeds")


@pytest.mark.parametrize("case", [churning, colliding, reading])
def test_runs_made_for_mutants_are_clean_without_them(case: Callable[[int], Case]) -> None:
    for seed in range(40):
        assert run_case(case(seed)).violation is None, seed
