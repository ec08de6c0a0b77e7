"""What becomes of a proposal: appended by the leader, passed on to it, or dropped for a reason that is told.

Only the proposer's own member answers it (`Accepted`, `Dropped`); what was passed on is answered by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quorker.core.raft import confchange, membership, replication
from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.effects import Accepted, Dropped, DropReason
from quorker.core.raft.messages import NOBODY, Entry, ForwardProposal
from quorker.core.raft.roles import Follower, Leader

if TYPE_CHECKING:
    from quorker.core.raft.state import RaftState


def propose(raft: RaftState, items: Sequence[bytes], context: int) -> None:
    """One entry for each of `items`."""
    leader = raft.acting_as
    if not isinstance(leader, Leader):
        _propose_elsewhere(raft, tuple([Entry(0, 0, item) for item in items]), context)
        return
    index, term = raft.log.last_index, raft.term
    entries = [Entry(term, index + offset, item) for offset, item in enumerate(items, 1)]
    _conclude(raft, _append(raft, leader, entries), context)


def propose_config(raft: RaftState, change: ConfigChange, context: int) -> None:
    """One entry with the change; an empty entry in its place, and Dropped, if it has to wait."""
    data, leader = confchange.encode_change(change), raft.acting_as
    if not isinstance(leader, Leader):
        _propose_elsewhere(raft, (Entry(0, 0, data, change.entry_kind),), context)
        return
    waits = membership.must_wait(raft, leader, change)
    entry = Entry(raft.term, raft.log.last_index + 1, data, change.entry_kind)
    refused = _admit_and_append(raft, leader, (entry,))
    _conclude(raft, refused or (DropReason.CONFIG_PENDING if waits else None), context)


def on_forward_proposal(raft: RaftState, message: ForwardProposal) -> None:
    """Another member's proposal. Whether it succeeds is known by its effect only."""
    if isinstance(raft.acting_as, Leader):
        index, term = raft.log.last_index, raft.term
        entries = [
            Entry(term, index + offset, entry.data, entry.kind)
            for offset, entry in enumerate(message.entries, 1)
        ]
        _admit_and_append(raft, raft.acting_as, entries)
    elif message.sender != raft.leader:  # or two members could pass it to and fro
        _pass_on(raft, message.entries)


def _admit_and_append(raft: RaftState, leader: Leader, entries: Sequence[Entry]) -> DropReason | None:
    pending = leader.pending_config_index
    refused = _append(raft, leader, [membership.admit(raft, leader, entry) for entry in entries])
    if refused:
        leader.pending_config_index = pending
    return refused


def _append(raft: RaftState, leader: Leader, entries: Sequence[Entry]) -> DropReason | None:
    """Append, unless there is a reason not to."""
    if raft.node_id not in raft.progress:
        return DropReason.NOT_A_MEMBER
    if leader.transfer_to != NOBODY:
        return DropReason.TRANSFERRING
    if entries and not replication.append(raft, leader, entries):
        return DropReason.TOO_MUCH_UNCOMMITTED
    return None


def _conclude(raft: RaftState, refused: DropReason | None, context: int) -> None:
    if refused:
        raft.effects.append(Dropped(context, refused, raft.leader))
    else:
        raft.effects.append(Accepted(context, raft.log.last_index, raft.term))


def _propose_elsewhere(raft: RaftState, entries: tuple[Entry, ...], context: int) -> None:
    reason = _pass_on(raft, entries)
    if reason:
        raft.effects.append(Dropped(context, reason, raft.leader))


def _pass_on(raft: RaftState, entries: tuple[Entry, ...]) -> DropReason | None:
    follower = raft.acting_as
    if not isinstance(follower, Follower) or follower.leader == NOBODY:
        return DropReason.NO_LEADER
    if raft.config.disable_proposal_forwarding:
        return DropReason.NOT_LEADER
    raft.send(ForwardProposal(raft.node_id, follower.leader, 0, entries))
    return None
