"""What a member is: a follower, a pre-candidate, a candidate or a leader, each with what only that role remembers.

A member changes role only through the `become_*` functions below, so whatever a role promised ends with it. When
to change, and what a new leader does first, is decided in `election`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from quorker.core import prng
from quorker.core.raft.effects import DropReason, LeaderChanged, ReadFailed, Role, RoleChanged
from quorker.core.raft.messages import NOBODY, NodeId
from quorker.core.raft.progress import InflightWindow, Progress

if TYPE_CHECKING:
    from quorker.core.raft.state import RaftState

TRANSITIONS: Final = {
    Role.FOLLOWER: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.PRE_CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER),
    Role.LEADER: (Role.FOLLOWER,),
}


@dataclass(slots=True)
class ForwardedRead:
    """A read that waits for the leader's answer. `sent_at`: when it was last sent, in units of `now`."""

    context: int
    sent_at: int


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A read that a leader has to confirm: for `origin`, under the context that `origin` gave it.

    `rejoins`: it is asked by a member that rejoins, under the name of its life.
    """

    origin: NodeId
    context: int
    rejoins: bool = False


@dataclass(slots=True)
class ReadRounds:
    """Reads that wait until a quorum has answered the round they stand in. Rounds count reads, from 1, per term.

    `waiting`: with the index each read has to wait for. `is_due`: a read was added since the last heartbeat.
    """

    waiting: list[tuple[int, ReadRequest]] = field(default_factory=list[tuple[int, ReadRequest]])
    confirmed: int = 0
    acked: dict[NodeId, int] = field(default_factory=dict[NodeId, int])
    is_due: bool = False

    @property
    def newest(self) -> int:
        """The round that confirms all that wait; 0 if none does."""
        return self.confirmed + len(self.waiting) if self.waiting else 0


@dataclass(slots=True)
class Follower:
    role: ClassVar[Role] = Role.FOLLOWER
    leader: NodeId = NOBODY
    forwarded_reads: dict[int, ForwardedRead] = field(default_factory=dict[int, ForwardedRead])


@dataclass(slots=True)
class PreCandidate:
    role: ClassVar[Role] = Role.PRE_CANDIDATE
    leader: ClassVar[NodeId] = NOBODY
    votes: dict[NodeId, bool] = field(default_factory=dict[NodeId, bool])


@dataclass(slots=True)
class Candidate:
    role: ClassVar[Role] = Role.CANDIDATE
    leader: ClassVar[NodeId] = NOBODY
    votes: dict[NodeId, bool] = field(default_factory=dict[NodeId, bool])


@dataclass(slots=True)
class Leader:
    """`pending_config_index`: no configuration change may be proposed before this index is applied.

    `appends_due`: peers to be sent to at the next drain, with whether an empty append is worth sending.
    """

    role: ClassVar[Role] = Role.LEADER
    leader: NodeId
    pending_config_index: int
    heartbeat_base: int
    transfer_to: NodeId = NOBODY
    uncommitted_bytes: int = 0
    queued_reads: list[ReadRequest] = field(
        default_factory=list[ReadRequest]
    )  # until an own-term entry commits
    reads: ReadRounds = field(default_factory=ReadRounds)
    appends_due: dict[NodeId, bool] = field(default_factory=dict[NodeId, bool])


RoleRecord: TypeAlias = Follower | PreCandidate | Candidate | Leader


def become_follower(raft: RaftState, term: int, leader: NodeId) -> None:
    """Follow `leader` (or nobody yet) in `term`."""
    _enter(raft, Follower(leader), term)
    raft.timer_base = raft.now


def become_pre_candidate(raft: RaftState) -> None:
    """Ask around whether an election could be won. Neither term nor vote changes (§9.6)."""
    _enter(raft, PreCandidate(), raft.term)


def become_candidate(raft: RaftState) -> None:
    """Stand for election in the next term, and vote for ourselves."""
    _enter(raft, Candidate(), raft.term + 1)
    raft.voted_for = raft.node_id
    raft.timer_base = raft.now


def become_leader(raft: RaftState) -> Leader:
    """Lead the current term: nothing is known of the others' logs, and of ours only what is durable counts."""
    last = raft.log.last_index
    leader = Leader(raft.node_id, pending_config_index=last, heartbeat_base=raft.now)
    _enter(raft, leader, raft.term)
    raft.timer_base = raft.now
    session = raft.new_session()
    for peer, known in raft.progress.items():
        raft.progress[peer] = fresh_progress(raft, known.is_learner, session)
    if own := raft.progress.get(raft.node_id):
        own.match_index = raft.lane.stable
        own.become_replicate()
        own.recent_active = True
    return leader


def follow(raft: RaftState, follower: Follower, leader: NodeId) -> None:
    """A follower learns who leads its term, or forgets it."""
    if follower.leader != leader:
        follower.leader = leader
        raft.effects.append(LeaderChanged(leader, raft.term))


def fresh_progress(raft: RaftState, is_learner: bool, session: int) -> Progress:
    """What a new leader knows of a member: nothing, so it probes from the end of its own log."""
    config = raft.config
    window = InflightWindow(config.max_inflight_messages, config.max_inflight_bytes)
    return Progress(raft.log.last_index + 1, window, is_learner=is_learner, session=session)


def randomize_election_timeout(raft: RaftState) -> None:
    """Draw anew from [election_timeout, 2 * election_timeout): the same draw twice would split votes forever."""
    base = raft.config.election_timeout
    raft.timeout_draws += 1
    seed = prng.derive(prng.derive(raft.config.seed, raft.node_id), raft.config.incarnation)
    raft.randomized_election_timeout = prng.uniform(seed, raft.timeout_draws, base, 2 * base - 1)


def _enter(raft: RaftState, acting_as: RoleRecord, term: int) -> None:
    left, left_term = raft.acting_as, raft.term
    assert acting_as.role in TRANSITIONS[left.role], f"from {left.role} there is no way to {acting_as.role}"
    if term != left_term:
        raft.term = term
        raft.voted_for = NOBODY
    raft.acting_as = acting_as
    randomize_election_timeout(raft)
    for context in _own_reads(raft.node_id, left):
        raft.effects.append(ReadFailed(context, DropReason.LEADER_CHANGED))
    if (left.role, left_term) != (acting_as.role, term):
        raft.effects.append(RoleChanged(acting_as.role, term))
    if left.leader != acting_as.leader or (acting_as.leader != NOBODY and left_term != term):
        raft.effects.append(LeaderChanged(acting_as.leader, term))


def _own_reads(node_id: NodeId, left: RoleRecord) -> list[int]:
    """The contexts of our own reads that a role leaves unanswered."""
    if isinstance(left, Follower):
        return [read.context for read in left.forwarded_reads.values()]
    if isinstance(left, Leader):
        reads = [*(read for _, read in left.reads.waiting), *left.queued_reads]
        return [read.context for read in reads if read.origin == node_id]
    return []
