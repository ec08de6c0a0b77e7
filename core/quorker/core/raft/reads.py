"""Linearizable reads: the index a read must wait for, and the proof that its leader was still leader (§6.4 of the
dissertation).

A leader numbers reads itself, per term, and heartbeats carry the newest number: an answer to it confirms all reads
up to it, and nothing a caller repeats or delays can confirm a later one. Nothing is read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorker.core.raft.effects import DropReason, ReadFailed, ReadReady
from quorker.core.raft.messages import NOBODY, ForwardRead, NodeId, ReadResponse, RejoinResponse
from quorker.core.raft.quorum import joint_committed_index
from quorker.core.raft.roles import Follower, ForwardedRead, Leader, ReadRequest

if TYPE_CHECKING:
    from quorker.core.raft.state import RaftState


def request(raft: RaftState, context: int) -> None:
    """A read of our own."""
    acting = raft.acting_as
    if isinstance(acting, Leader):
        ask(raft, acting, ReadRequest(raft.node_id, context))
    elif isinstance(acting, Follower) and acting.leader != NOBODY:
        _forward(raft, acting, context)
    else:
        raft.effects.append(ReadFailed(context, DropReason.NO_LEADER))


# The leader


def ask(raft: RaftState, leader: Leader, read: ReadRequest) -> None:
    """Confirm a read. It waits until this term has committed something: before, our commit index may be behind."""
    if not raft.has_own_term_commit:
        leader.queued_reads.append(read)
    elif raft.decides_alone or (raft.config.lease_reads and not read.rejoins):
        _answer(raft, read, raft.commit_index)
    else:
        leader.reads.waiting.append((raft.commit_index, read))
        leader.reads.is_due = True


def ask_once(raft: RaftState, leader: Leader, read: ReadRequest) -> None:
    """Confirm a read that may be asked for again and again until it is."""
    if read not in leader.queued_reads and all(read != waiting for _, waiting in leader.reads.waiting):
        ask(raft, leader, read)


def release_queued(raft: RaftState, leader: Leader) -> None:
    """The commit index has moved: what waited for that is asked now."""
    if leader.queued_reads and raft.has_own_term_commit:
        queued, leader.queued_reads = leader.queued_reads, []
        for read in queued:
            ask(raft, leader, read)


def start_round(raft: RaftState, leader: Leader) -> int:
    """The round for all reads that came since the last drain. We confirm it ourselves at once."""
    rounds = leader.reads
    rounds.is_due = False
    rounds.acked[raft.node_id] = rounds.newest
    return rounds.newest


def on_acknowledged(raft: RaftState, leader: Leader, peer: NodeId, read_round: int) -> None:
    rounds = leader.reads
    if read_round > rounds.confirmed + len(rounds.waiting):
        return  # a confused peer answers what was never asked
    rounds.acked[peer] = max(rounds.acked.get(peer, 0), read_round)
    confirm(raft, leader)


def confirm(raft: RaftState, leader: Leader) -> None:
    """Answer every read that a quorum of the current configuration has confirmed."""
    rounds = leader.reads
    confirmed = joint_committed_index(raft.configuration.voters, rounds.acked)
    count = min(confirmed - rounds.confirmed, len(rounds.waiting))
    if count <= 0:
        return
    rounds.confirmed += count
    ready, rounds.waiting = rounds.waiting[:count], rounds.waiting[count:]
    for index, read in ready:
        _answer(raft, read, index)


def _answer(raft: RaftState, read: ReadRequest, index: int) -> None:
    if read.rejoins:
        raft.send(RejoinResponse(raft.node_id, read.origin, raft.term, read.context, index))
    elif read.origin == raft.node_id:
        raft.effects.append(ReadReady(read.context, index))
    else:
        raft.send(ReadResponse(raft.node_id, read.origin, raft.term, read.context, index))


def on_forward_read(raft: RaftState, message: ForwardRead) -> None:
    if isinstance(raft.acting_as, Leader):
        ask(raft, raft.acting_as, ReadRequest(message.sender, message.context))


# The follower


def _forward(raft: RaftState, follower: Follower, context: int) -> None:
    """Ask the leader, under a number of our own that is never used again."""
    raft.reads_forwarded += 1
    follower.forwarded_reads[raft.reads_forwarded] = ForwardedRead(context, raft.now)
    raft.send(ForwardRead(raft.node_id, follower.leader, 0, raft.reads_forwarded))


def resend_forwarded(raft: RaftState) -> None:
    """The leader lives, yet has not answered for an election timeout: a message was lost, so ask again."""
    follower = raft.acting_as
    if not isinstance(follower, Follower) or not follower.forwarded_reads:
        return
    for number, read in follower.forwarded_reads.items():
        if raft.now - read.sent_at >= raft.config.election_timeout:
            read.sent_at = raft.now
            raft.send(ForwardRead(raft.node_id, follower.leader, 0, number))


def on_read_response(raft: RaftState, message: ReadResponse) -> None:
    follower = raft.acting_as
    if isinstance(follower, Follower):
        read = follower.forwarded_reads.pop(message.context, None)
        if read is not None:
            raft.effects.append(ReadReady(read.context, message.index))
