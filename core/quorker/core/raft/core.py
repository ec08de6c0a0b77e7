"""One Raft member: a pure state machine from inputs to effects.

An input may only append to the list of effects; a driver drains it after each batch of inputs and performs them
(`effects` says how). No clock, no randomness, no I/O, one owner, no re-entry; nothing a peer sends raises. Time
is the driver's: per batch it calls `observe_time(now)`, hands in what arrived, calls `tick(now)`, then drains.
Everything is decided in the other files of this package; this one only sorts inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from quorker.core.raft import (
    election,
    membership,
    persistence,
    proposals,
    reads,
    rejoin,
    replication,
    roles,
    snapshots,
)
from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.effects import Dropped, DropReason, Effect, ReadFailed
from quorker.core.raft.log import entry_bytes
from quorker.core.raft.messages import (
    NOBODY,
    AppendEntries,
    AppendResponse,
    ForwardProposal,
    ForwardRead,
    ForwardTransfer,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    NodeId,
    ReadResponse,
    RejoinRequest,
    RejoinResponse,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
    VoteResponse,
)
from quorker.core.raft.roles import Follower, Leader
from quorker.core.raft.state import RaftState

TERM_JUMP_MAX: Final = 1 << 20  # a message further in the future is from someone confused
TERMLESS: Final = frozenset({ForwardProposal, ForwardRead, RejoinRequest, RejoinResponse})
RESPONSES: Final = frozenset({AppendResponse, HeartbeatResponse, VoteResponse, ReadResponse})
FROM_LEADER: Final = frozenset(election.FROM_LEADER)


class Raft(RaftState):
    """One member. Inputs below; the views are the attributes of `RaftState`."""

    __slots__ = ()

    def __init__(self, config: RaftConfig, durable: DurableState, now: int = 0) -> None:
        super().__init__(config, durable, now)
        membership.apply_changes(self, self.applied_index)
        if not config.disable_config_validation:
            self.commit_to(membership.proven_commit(self.log))
        self.effects.clear()
        if flaw := durable.flaw():
            self.fatal("the disk holds what was promised", flaw)

    # What arrives

    def step(self, message: Message) -> None:
        """A peer sent `message`. Anything is allowed; what makes no sense is ignored."""
        if self.is_silent or not self._is_addressed(message):
            return
        kind = type(message)
        if kind in RESPONSES and message.sender not in self.progress:
            return
        if message.term != self.term and not self._admit_term(message):
            return
        if kind not in FROM_LEADER or election.heed_leader(self, message.sender):
            HANDLERS[kind](self, message)

    def _admit_term(self, message: Message) -> bool:
        """Whether a message of another term than ours is to be handled."""
        if type(message) in TERMLESS:
            return True
        if message.term > self.term:
            return election.admit_higher_term(self, message)
        election.on_lower_term(self, message)
        return False

    def _is_addressed(self, message: Message) -> bool:
        is_for_us = message.to == self.node_id and message.sender not in (self.node_id, NOBODY)
        return is_for_us and 0 <= message.term <= self.term + TERM_JUMP_MAX

    def observe_time(self, now: int) -> None:
        """It is `now`, but first look at what has arrived: no timer fires until `tick`."""
        self.now = max(self.now, now)

    def tick(self, now: int) -> None:
        """It is `now`: fire the timers that are due. Any number of units may have passed since the last call."""
        self.observe_time(now)
        if not self.is_silent:
            election.tick(self)

    def next_deadline(self) -> int | None:
        """When `tick` is to be called at the latest, in units of `now`; None if nothing waits for time."""
        return election.next_deadline(self)

    # What the node wants

    def propose(self, items: Sequence[bytes], context: int) -> None:
        """Append one entry per item: Accepted with the index of the last, or Dropped. A follower passes it on."""
        if self.is_silent:
            self.effects.append(Dropped(context, DropReason.DISK_FAILED, NOBODY))
        else:
            proposals.propose(self, items, context)

    def propose_config(self, change: ConfigChange, context: int) -> None:
        """Append a configuration change. Answered like `propose`."""
        if self.is_silent:
            self.effects.append(Dropped(context, DropReason.DISK_FAILED, NOBODY))
        else:
            proposals.propose_config(self, change, context)

    def read(self, context: int) -> None:
        """Ask for the index a linearizable read has to wait for: ReadReady or ReadFailed follows, on any member."""
        if self.is_silent:
            self.effects.append(ReadFailed(context, DropReason.DISK_FAILED))
        else:
            reads.request(self, context)

    def transfer(self, to: NodeId) -> None:
        """Make `to` the leader. Proposals are dropped until it is, or for one election timeout."""
        if not self.is_silent:
            election.transfer(self, to)

    def campaign(self) -> None:
        """Stand for election now."""
        if not self.is_silent:
            election.start(self)

    def forget_leader(self) -> None:
        """Someone knows that the leader is gone: stop protecting it. Not under lease reads, which rely on that."""
        if isinstance(self.acting_as, Follower) and not self.config.lease_reads:
            roles.follow(self, self.acting_as, NOBODY)

    # What the disk and the state machine report

    def persisted(self, seq: int) -> None:
        """Every Persist up to `seq` is durable, and its `then` was performed."""
        if self.is_silent:
            return
        if seq > self.lane.seq:
            self.fatal("the disk confirms what was written", f"confirmed {seq}, written {self.lane.seq}")
            return
        durable = self.lane.acknowledge(seq)
        if durable.snapshot is not None:
            snapshots.on_durable(self, durable.snapshot)
        if isinstance(self.acting_as, Leader):
            replication.count_own(self, self.acting_as)
        else:
            election.on_own_vote_durable(self)
        if not self.lane.in_flight:
            self.disk_stalled = False

    def persist_failed(self, seq: int, why: str) -> None:
        """A write failed; what is on disk is unknown. This member leads, votes and acknowledges never again."""
        if not self.disk_failure:
            election.abdicate(self)
            roles.become_follower(self, self.term, NOBODY)
            self.disk_failure = f"write {seq}: {why}"
            self.is_silent = True

    def disk_latency(self, oldest_unacknowledged: int) -> None:
        """The oldest write in flight is this old, in units of `now`. A leader with a stalled disk hands over."""
        self.disk_stalled = oldest_unacknowledged > self.config.stall_timeout
        if self.disk_stalled and not self.is_silent and not self.decides_alone:
            election.abdicate(self)

    def applied(self, index: int) -> None:
        """The state machine holds everything up to `index`: configuration changes up to there take effect."""
        if self.is_silent:
            return
        if not self.applied_index <= index <= self.applying_index:
            offered = f"{self.applied_index}..{self.applying_index}"
            self.fatal("entries are applied in order", f"applied {index}, offered {offered}")
            return
        self._release_apply_room(index)
        membership.on_applied(self, index)
        if self.installing is not None and index >= self.installing.index:
            self.installing = None

    def _release_apply_room(self, index: int) -> None:
        if limit := self.config.max_committed_bytes_per_apply:
            done = self.log.entries(self.applied_index + 1, index + 1)
            self.applying_bytes = max(0, self.applying_bytes - sum([entry_bytes(entry) for entry in done]))
            self.applying_paused = self.applying_bytes >= limit

    def snapshot_made(self, meta: SnapshotMeta, keep_from: int) -> None:
        """A snapshot of the state machine is durable: drop log entries before `keep_from` that it covers."""
        if not self.is_silent:
            snapshots.made(self, meta, keep_from)

    @property
    def applied_meta(self) -> SnapshotMeta | None:
        """The name of a snapshot of the state machine as it is after the last `applied`.

        None while a received snapshot is on its way into the state machine: what is there now is about to go.
        """
        term = self.log.term_at(self.applied_index)
        if term is None or self.installing is not None:
            return None
        return SnapshotMeta(self.applied_index, term, self.conf_state)

    def peer_unreachable(self, peer: NodeId) -> None:
        """A message to `peer` was probably lost."""
        if isinstance(self.acting_as, Leader):
            replication.on_unreachable(self, peer)

    def snapshot_status(self, peer: NodeId, ok: bool) -> None:
        """The snapshot offered to `peer` has arrived there, or will not."""
        snapshots.on_status(self, peer, ok)

    # What is to be done

    def drain(self) -> tuple[Effect, ...]:
        """The effects of all inputs since the last call, in the order in which to perform them."""
        if not self.is_silent:
            self._flush()
        if not self.effects:
            return ()
        effects, self.effects = self.effects, []
        return tuple(effects)

    def _flush(self) -> None:
        """Join what the inputs have left to do: sends first, so that the others work while our disk does."""
        if isinstance(self.acting_as, Leader):
            replication.flush(self, self.acting_as)
        if self.rejoining is not None:
            rejoin.finish_if_due(self, self.rejoining)
        persistence.flush(self)
        if self.commit_index > self.applying_index:
            replication.flush_applies(self)

    def set_randomized_election_timeout(self, timeout: int) -> None:
        """Fix the election timeout until the next change of role. For tests."""
        self.randomized_election_timeout = timeout


def _on_transfer(raft: RaftState, message: ForwardTransfer) -> None:
    election.transfer(raft, message.target)


def _on_timeout_now(raft: RaftState, _message: TimeoutNow) -> None:
    election.on_timeout_now(raft)


HANDLERS: Final[dict[type[Any], Callable[[RaftState, Any], None]]] = {
    AppendEntries: replication.on_append_entries,
    AppendResponse: replication.on_append_response,
    Heartbeat: replication.on_heartbeat,
    HeartbeatResponse: replication.on_heartbeat_response,
    RequestVote: election.on_request_vote,
    VoteResponse: election.on_vote_response,
    InstallSnapshot: snapshots.on_install_snapshot,
    TimeoutNow: _on_timeout_now,
    ForwardTransfer: _on_transfer,
    ForwardProposal: proposals.on_forward_proposal,
    ForwardRead: reads.on_forward_read,
    ReadResponse: reads.on_read_response,
    RejoinRequest: rejoin.on_request,
    RejoinResponse: rejoin.on_response,
}
