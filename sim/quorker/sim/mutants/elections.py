"""Bugs of elections: who votes for whom, how votes are counted, who may stand, and who has to step down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from quorker.core.raft import core, election, log, quorum, replication, roles
from quorker.core.raft.config import RaftConfig
from quorker.core.raft.messages import (
    NOBODY,
    AppendResponse,
    HeartbeatResponse,
    Message,
    RequestVote,
    VoteResponse,
)
from quorker.core.raft.quorum import VoteResult
from quorker.core.raft.roles import Candidate, Leader
from quorker.core.raft.state import RaftState
from quorker.sim.mutants.cases import (
    churning,
    colliding,
    colliding_five,
    colliding_politely,
    diverging,
    steady,
)
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.oracles import checks
from quorker.sim.world.host import Host

ELECTED: Final = "elected by majorities [R10]"
TWO_LEADERS: Final = (ELECTED, "election safety", "leader completeness")


@bug(
    "Votes and acknowledgements leave before what they promise is on disk.",
    known="PySyncObj 84, TiKV 994, NATS 7564",
    oracles=("durable before sent",),
    budget=30,
)
def acknowledge_before_fsync(patch: Patch) -> None:
    patch.replace(RaftState, "hold", RaftState.send)


@bug(
    "The same, while nobody compares messages with disks: what comes of it has to show.",
    known="PySyncObj 84",
    oracles=("commit on durable majority",),
    budget=30,
)
def acknowledge_before_fsync_unwatched(patch: Patch) -> None:
    patch.replace(RaftState, "hold", RaftState.send)
    patch.replace(checks, "PROMISES", {})


@bug(
    "A candidate asks for votes before its own is on disk.",
    known="several implementations that write and ask in parallel",
    oracles=("durable before sent",),
    budget=30,
)
def votes_are_asked_for_early(patch: Patch) -> None:
    def hasty(self: Host) -> RaftConfig:
        return replace(configure(self), early_vote_requests=True)

    configure: Callable[[Host], RaftConfig] = patch.replace(Host, "raft_config", hasty)


@bug(
    "A candidate counts votes that it was given in earlier terms.",
    known="canonical/raft 196, Raft.Nondeterminism",
    oracles=TWO_LEADERS,
    budget=30,
    case=colliding,
)
def stale_votes_count(patch: Patch) -> None:
    def on_lower_term(raft: RaftState, message: Message) -> None:
        if isinstance(message, VoteResponse):
            election.on_vote_response(raft, message)
        else:
            ignore(raft, message)

    ignore = patch.replace(election, "on_lower_term", on_lower_term)


@bug(
    "An answer that arrives twice counts as two votes.",
    known="coyote-samples 8",
    oracles=TWO_LEADERS,
    budget=60,
    case=colliding_five,
)
def a_vote_counts_twice(patch: Patch) -> None:
    def count_vote(raft: RaftState, acting: Any, voter: int, granted: bool) -> None:
        if granted and voter in acting.votes:
            others = raft.configuration.voters.ids()
            voter = next((other for other in others if other not in acting.votes), voter)
        count(raft, acting, voter, granted)

    count = patch.replace(election, "_count_vote", count_vote)


@bug(
    "A late answer to a pre-vote counts as a vote.",
    known="canonical/raft 196",
    oracles=TWO_LEADERS,
    budget=150,
    case=colliding_politely,
)
def pre_votes_count(patch: Patch) -> None:
    def on_vote_response(raft: RaftState, message: VoteResponse) -> None:
        asked = not isinstance(raft.acting_as, Candidate)
        count(raft, replace(message, pre_vote=message.pre_vote and asked))

    count = patch.replace_item(core.HANDLERS, VoteResponse, on_vote_response)


@bug(
    "A question before an election makes the voter forget whom it voted for.",
    known="canonical/raft 196",
    oracles=("one vote", "election safety", "durable before sent", "invariant"),
    budget=30,
    case=colliding_politely,
)
def a_pre_vote_frees_the_vote(patch: Patch) -> None:
    def on_request_vote(raft: RaftState, message: RequestVote) -> None:
        judge(raft, message)
        if message.pre_vote and not isinstance(raft.acting_as, Leader | Candidate):
            raft.voted_for = NOBODY

    judge = patch.replace_item(core.HANDLERS, RequestVote, on_request_vote)


@bug(
    "A member that hears no leader votes again in the same term.",
    known="Raft 5.2",
    oracles=("one vote", "election safety"),
    budget=30,
)
def several_votes_per_term(patch: Patch) -> None:
    def on_request_vote(raft: RaftState, message: RequestVote) -> None:
        raft.voted_for = NOBODY if raft.leader == NOBODY else raft.voted_for
        judge(raft, message)

    judge = patch.replace_item(core.HANDLERS, RequestVote, on_request_vote)


@bug(
    "Votes are given whatever the candidate's log lacks.",
    known="Raft 5.4.1",
    oracles=("leader completeness", "state-machine safety"),
    budget=60,
)
def vote_for_any_log(patch: Patch) -> None:
    patch.replace(log.RaftLog, "is_up_to_date", always(True))


@bug(
    "Logs are compared by length, and not by their last term first.",
    known="Raft 5.4.1",
    oracles=("leader completeness", "state-machine safety"),
    budget=30,
    case=diverging,
)
def vote_for_the_longest_log(patch: Patch) -> None:
    def is_up_to_date(self: log.RaftLog, last_index: int, _: int) -> bool:
        return last_index >= self.last_index

    patch.replace(log.RaftLog, "is_up_to_date", is_up_to_date)


@bug("Half of the voters elect a leader.", known="Raft 5.2", oracles=TWO_LEADERS, budget=30)
def vote_quorum_too_small(patch: Patch) -> None:
    def vote_result(voters: tuple[int, ...], votes: dict[int, bool]) -> VoteResult:
        granted = sum(votes.get(voter, False) for voter in voters)
        return VoteResult.WON if granted >= max(len(voters) // 2, 1) or not voters else VoteResult.PENDING

    patch.replace(quorum, "vote_result", vote_result)


@bug(
    "A leader does not step down when an answer carries a later term.",
    known="Raft 5.1",
    oracles=("liveness", "event budget"),
    budget=150,
)
def answers_do_not_depose(patch: Patch) -> None:
    def admit_higher_term(raft: RaftState, message: Message) -> bool:
        return not isinstance(message, AppendResponse | HeartbeatResponse) and admit(raft, message)

    admit = patch.replace(election, "admit_higher_term", admit_higher_term)


@bug(
    "A leader that hears nobody goes on leading, and keeps those that hear it from electing another.",
    known="Cloudflare, November 2020",
    oracles=("succession [A1]", "liveness"),
    budget=10,
    case=steady,
)
def leader_never_doubts_itself(patch: Patch) -> None:
    patch.replace(election, "_check_quorum", always(True))


@bug(
    "Members campaign without asking first, and nobody protects the leader it hears: a deaf member unseats all.",
    known="Raft 9.6, etcd before pre-vote",
    oracles=("stable leader [A2]", "succession [A1]"),
    budget=10,
    case=steady,
)
def deaf_members_disrupt(patch: Patch) -> None:
    def start(raft: RaftState) -> None:
        election.campaign(raft, election.Campaign.ELECTION)

    patch.replace(election, "start", start)
    patch.replace(election, "_hears_leader", always(False))


@bug(
    "Every election timeout of a member is the same: votes split for ever.",
    known="EastGuard 120",
    oracles=("succession [A1]", "liveness"),
    budget=10,
    case=steady,
)
def timeouts_are_not_random(patch: Patch) -> None:
    def fix(raft: RaftState) -> None:
        raft.randomized_election_timeout = raft.config.election_timeout

    patch.replace(roles, "randomize_election_timeout", fix)


@bug(
    "Learners and members that were removed stand for election.",
    known="NuRaft 553, canonical/raft 234",
    oracles=("leader is a voter", "election safety"),
    budget=30,
    case=churning,
)
def learners_may_lead(patch: Patch) -> None:
    patch.replace(election, "_is_promotable", always(True))


@bug(
    "A learner refuses to vote, although the candidate knows that it has become a voter.",
    known="raft-rs 57",
    oracles=("liveness",),
    budget=300,
    case=churning,
)
def learners_do_not_vote(patch: Patch) -> None:
    def on_request_vote(raft: RaftState, message: RequestVote) -> None:
        if raft.is_voter:
            judge(raft, message)

    judge = patch.replace_item(core.HANDLERS, RequestVote, on_request_vote)


@bug(
    "A new leader appends nothing: what it took over is never committed by itself.",
    known="Raft 5.4.2 and 8",
    oracles=("liveness", "event budget"),
    budget=30,
)
def no_entry_at_the_start_of_a_term(patch: Patch) -> None:
    def take_the_lead(raft: RaftState) -> None:
        replication.request_all(raft, roles.become_leader(raft))

    patch.replace(election, "_take_the_lead", take_the_lead)


@bug(
    "A leader whose disk writes nothing any more goes on leading.",
    known="hashicorp/raft 503, consul 22064, tarantool 9399",
    oracles=("stalled leader hands over [A1]",),
    budget=10,
    case=steady,
)
def stalled_disks_lead(patch: Patch) -> None:
    patch.replace(core.Raft, "disk_latency", always(None))


@bug(
    "A disk that was once reported as stalled counts as stalled for ever.",
    known="this core, simulator seed 990",
    oracles=("liveness",),
    budget=150,
)
def stalled_once_is_stalled_for_ever(patch: Patch) -> None:
    def persisted(self: core.Raft, seq: int) -> None:
        stalled = self.disk_stalled
        confirm(self, seq)
        self.disk_stalled = stalled

    confirm = patch.replace(core.Raft, "persisted", persisted)


@bug(
    "A candidate that asks the same voter again in the same term gets no second answer.",
    known="nebula 2419, PySyncObj",
    equivalent="A candidate asks each voter once per term: what comes again is a copy made by the network, and if the "
    "first answer is lost, the next election is in a new term.",
)
def repeated_requests_are_ignored(patch: Patch) -> None:
    def on_request_vote(raft: RaftState, message: RequestVote) -> None:
        if message.pre_vote or raft.voted_for != message.sender:
            judge(raft, message)

    judge = patch.replace_item(core.HANDLERS, RequestVote, on_request_vote)


@bug(
    "A candidate does not count its first answer from a voter, but its last.",
    equivalent="A voter never changes its answer within a term, and answers of other terms do not count.",
)
def the_last_answer_counts(patch: Patch) -> None:
    def count_vote(raft: RaftState, acting: Any, voter: int, granted: bool) -> None:
        acting.votes.pop(voter, None)
        count(raft, acting, voter, granted)

    count = patch.replace(election, "_count_vote", count_vote)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
