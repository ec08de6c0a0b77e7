"""Who leads: campaigns, votes, terms, the timers behind them, and handing leadership over (§5.2, §5.4.1, §9.6).

What a leader does with its lead is `replication`. A vote or a candidacy is never spoken of before it is durable.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from quorker.core.raft import membership, replication, roles
from quorker.core.raft.messages import (
    NOBODY,
    AppendEntries,
    AppendResponse,
    Entry,
    ForwardTransfer,
    Heartbeat,
    InstallSnapshot,
    Message,
    NodeId,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from quorker.core.raft.progress import quorum_active
from quorker.core.raft.quorum import VoteResult, joint_vote_result
from quorker.core.raft.roles import Candidate, Follower, Leader, PreCandidate

if TYPE_CHECKING:
    from quorker.core.raft.state import RaftState

FROM_LEADER: Final = (AppendEntries, Heartbeat, InstallSnapshot)


class Campaign(Enum):
    """Why a member stands for election."""

    PRE_ELECTION = "is an election worth it"
    ELECTION = "the leader is gone"
    TRANSFER = "the leader asked for it"


# Timers


def tick(raft: RaftState) -> None:
    """Act on the time that has passed. Any number of units may have."""
    leader = raft.acting_as
    if isinstance(leader, Leader):
        _tick_leader(raft, leader)
    elif _is_promotable(raft) and raft.now - raft.timer_base >= raft.randomized_election_timeout:
        raft.timer_base = raft.now
        start(raft)


def _tick_leader(raft: RaftState, leader: Leader) -> None:
    if raft.now - raft.timer_base >= raft.config.election_timeout:
        raft.timer_base = raft.now
        leader.transfer_to = NOBODY  # it had one election timeout
        if raft.config.check_quorum and not _check_quorum(raft):
            return
    if raft.now - leader.heartbeat_base >= raft.config.heartbeat_interval:
        leader.heartbeat_base = raft.now
        replication.send_heartbeats(raft, leader.reads.newest)


def _check_quorum(raft: RaftState) -> bool:
    """Whether a quorum answered since the last check. If not, stop leading: others may have elected someone."""
    is_active = quorum_active(raft.configuration.voters, raft.progress)
    if not is_active:
        roles.become_follower(raft, raft.term, NOBODY)
    for peer in raft.peers:
        raft.progress[peer].recent_active = False
    return is_active


def next_deadline(raft: RaftState) -> int | None:
    """When `tick` has something to do, in units of `now`; None if only an input can change that."""
    leader, config = raft.acting_as, raft.config
    if raft.is_silent:
        return None
    if not isinstance(leader, Leader):
        return raft.timer_base + raft.randomized_election_timeout if _is_promotable(raft) else None
    if not raft.peers:
        return None
    heartbeat = leader.heartbeat_base + config.heartbeat_interval
    if config.check_quorum or leader.transfer_to != NOBODY:
        quorum_check = raft.timer_base + config.election_timeout
        return min(quorum_check, heartbeat)
    return heartbeat


# Campaigns


def start(raft: RaftState) -> None:
    """Stand for election, first asking whether it could be won."""
    campaign(raft, Campaign.PRE_ELECTION if raft.config.pre_vote else Campaign.ELECTION)


def campaign(raft: RaftState, kind: Campaign) -> None:
    """Stand for election if this member may: a healthy voter that has applied every committed membership."""
    if isinstance(raft.acting_as, Leader) or not _is_promotable(raft):
        return
    if not membership.has_unapplied_change(raft):
        _ask_for_votes(raft, kind)


def _is_promotable(raft: RaftState) -> bool:
    own = raft.progress.get(raft.node_id)
    if own is None or own.is_learner:
        return False
    return raft.installing is None and not raft.disk_stalled and raft.rejoining is None


def _ask_for_votes(raft: RaftState, kind: Campaign) -> None:
    is_pre_vote = kind is Campaign.PRE_ELECTION
    if is_pre_vote:
        roles.become_pre_candidate(raft)
    else:
        roles.become_candidate(raft)
    # A candidacy waits until our own vote for it is durable. If it left at once, we could crash, forget entries
    # that were not durable, campaign in the same term again and count an old grant for the shorter log.
    say = raft.send if is_pre_vote or raft.config.early_vote_requests else raft.hold
    term = raft.term + 1 if is_pre_vote else raft.term
    last, last_term = raft.log.last_index, raft.log.last_term
    is_transfer = kind is Campaign.TRANSFER
    for voter in raft.configuration.voters.ids():
        if voter != raft.node_id:
            say(RequestVote(raft.node_id, voter, term, last, last_term, is_pre_vote, is_transfer))
    if isinstance(raft.acting_as, PreCandidate):
        _count_vote(raft, raft.acting_as, raft.node_id, granted=True)


def on_own_vote_durable(raft: RaftState) -> None:
    """The disk has caught up: if it holds our vote for ourselves in this term, it counts now."""
    candidate, durable = raft.acting_as, raft.lane.durable.hard_state
    if not isinstance(candidate, Candidate) or raft.node_id in candidate.votes:
        return
    if (durable.term, durable.voted_for) == (raft.term, raft.node_id):
        _count_vote(raft, candidate, raft.node_id, granted=True)


def _count_vote(raft: RaftState, acting: PreCandidate | Candidate, voter: NodeId, granted: bool) -> None:
    """Count a voter once, its first answer, and see whether the election is decided."""
    acting.votes.setdefault(voter, granted)
    result = joint_vote_result(raft.configuration.voters, acting.votes)
    if result is VoteResult.LOST:
        roles.become_follower(raft, raft.term, NOBODY)
    elif result is VoteResult.WON and isinstance(acting, PreCandidate):
        _ask_for_votes(raft, Campaign.ELECTION)
    elif result is VoteResult.WON:
        _take_the_lead(raft)


def _take_the_lead(raft: RaftState) -> None:
    """Begin the term with an empty entry: only committing one of our own commits what came before (§5.4.2)."""
    leader = roles.become_leader(raft)
    replication.append(raft, leader, (Entry(raft.term, raft.log.last_index + 1),))


# Terms


def admit_higher_term(raft: RaftState, message: Message) -> bool:
    """A message from a later term. False if it is to be ignored, to protect the leader we hear (§6, §9.6)."""
    if isinstance(message, RequestVote):
        if not message.transfer and _hears_leader(raft):
            return False
        if message.pre_vote:
            return True
    if isinstance(message, VoteResponse) and message.pre_vote and message.granted:
        return True  # it carries the term we asked about, which nobody has entered
    leader = message.sender if isinstance(message, FROM_LEADER) else NOBODY
    roles.become_follower(raft, message.term, leader)
    return True


def _hears_leader(raft: RaftState) -> bool:
    """Whether a leader was heard within the shortest election timeout, or may have been before a restart."""
    elapsed = raft.now - raft.timer_base
    if raft.now < raft.silent_until:
        return True
    return raft.config.check_quorum and raft.leader != NOBODY and elapsed < raft.config.election_timeout


def on_lower_term(raft: RaftState, message: Message) -> None:
    """A message from an earlier term. A leader or pre-candidate left behind must learn of ours, or be stuck."""
    config = raft.config
    if isinstance(message, (AppendEntries, Heartbeat)):
        if config.check_quorum or config.pre_vote or raft.rejoining is not None:  # who never campaigns
            raft.hold(
                AppendResponse(
                    raft.node_id,
                    message.sender,
                    raft.term,
                    0,
                    session=message.session,
                    rejoin=raft.rejoin_name,
                )
            )
    elif isinstance(message, RequestVote):
        answer = VoteResponse(raft.node_id, message.sender, raft.term, False, message.pre_vote)
        if message.pre_vote:
            raft.send(answer)
        elif not config.pre_vote:  # else it asks first, and hears it then
            raft.hold(answer)


def heed_leader(raft: RaftState, leader: NodeId) -> bool:
    """A message came from the leader of our term: follow it. False if there already is another one."""
    acting = raft.acting_as
    if isinstance(acting, (PreCandidate, Candidate)):
        roles.become_follower(raft, raft.term, leader)
    elif acting.leader in (leader, NOBODY) and isinstance(acting, Follower):
        roles.follow(raft, acting, leader)
    else:
        raft.fatal("one leader per term", f"{acting.leader} and {leader} lead term {raft.term}")
        return False
    raft.timer_base = raft.leader_contact = raft.now
    return True


# Votes


def on_request_vote(raft: RaftState, message: RequestVote) -> None:
    """Give a vote once per term, to someone whose log is at least as good as ours (§5.2, §5.4.1).

    Learners vote too: the candidate may know that we have become a voter before we do. Who rejoins does not.
    """
    is_free = raft.voted_for == NOBODY and raft.leader == NOBODY
    is_future_pre_vote = message.pre_vote and message.term > raft.term
    may_vote = raft.voted_for == message.sender or is_free or is_future_pre_vote
    granted = (
        may_vote and raft.rejoining is None and raft.log.is_up_to_date(message.last_index, message.last_term)
    )
    # A grant carries the term asked about: in a pre-vote that is not ours, and the asker ignores older ones.
    term = message.term if granted else raft.term
    commit, commit_term = (0, 0) if granted else (raft.commit_index, raft.log.term_at(raft.commit_index) or 0)
    response = VoteResponse(
        raft.node_id, message.sender, term, granted, message.pre_vote, commit, commit_term
    )
    if message.pre_vote:
        raft.send(response)  # promises nothing
        return
    raft.hold(response)
    if granted:
        raft.voted_for = message.sender
        raft.timer_base = raft.now


def on_vote_response(raft: RaftState, message: VoteResponse) -> None:
    """Count an answer to the question we are asking now; one to the other question is stale."""
    acting = raft.acting_as
    # A grant names the term asked about. One from the pre-vote before, that elected this term's leader, is of our term.
    is_stale = message.pre_vote and message.granted and message.term != raft.term + 1
    if isinstance(acting, PreCandidate if message.pre_vote else Candidate) and not is_stale:
        _count_vote(raft, acting, message.sender, message.granted)
    if not isinstance(raft.acting_as, Leader):
        _learn_commit(raft, message)


def _learn_commit(raft: RaftState, message: VoteResponse) -> None:
    """The voter says what is committed: if our log holds that entry, it is committed here as well.

    Without this an even number of voters could wait forever for one whose removal only it knows to be committed.
    What we learned may be another configuration, so the campaign in the old one ends.
    """
    if message.commit_index <= raft.commit_index or not message.commit_term:
        return
    if raft.log.matches(message.commit_index, message.commit_term):
        raft.commit_to(message.commit_index)
        if membership.has_unapplied_change(raft) and not isinstance(raft.acting_as, Follower):
            roles.become_follower(raft, raft.term, NOBODY)


# Handing over


def transfer(raft: RaftState, target: NodeId) -> None:
    """Make `target` the leader: bring it up to date, appending nothing meanwhile, and have it campaign (§3.10)."""
    leader = raft.acting_as
    if isinstance(leader, Follower) and leader.leader != NOBODY:
        raft.send(ForwardTransfer(raft.node_id, leader.leader, raft.term, target))
    if not isinstance(leader, Leader):
        return
    known = raft.progress.get(target)
    if known is None or known.is_learner or known.rejoin or leader.transfer_to == target:
        return
    leader.transfer_to = NOBODY
    if target == raft.node_id:
        return
    raft.timer_base = raft.now
    leader.transfer_to = target
    if known.match_index == raft.log.last_index:
        raft.send(TimeoutNow(raft.node_id, target, raft.term))
    else:
        replication.request_append(raft, leader, target, send_if_empty=True)


def on_timeout_now(raft: RaftState) -> None:
    """The leader asks us to take over. Without a pre-vote: we know that it is alive."""
    if isinstance(raft.acting_as, Follower):
        campaign(raft, Campaign.TRANSFER)


def abdicate(raft: RaftState) -> None:
    """Stop leading because our disk cannot keep up, and ask the best other voter to take over at once."""
    if not isinstance(raft.acting_as, Leader):
        return
    voters = raft.configuration.voters.incoming
    fit = [peer for peer in raft.peers if peer in voters and not raft.progress[peer].rejoin]
    heirs = [peer for peer in fit if raft.progress[peer].recent_active]
    if heirs:
        heir = max(heirs, key=lambda peer: raft.progress[peer].match_index)
        raft.send(TimeoutNow(raft.node_id, heir, raft.term))
    roles.become_follower(raft, raft.term, NOBODY)
