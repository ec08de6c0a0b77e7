"""Who is a member: proposing a change, its taking effect when applied, and what follows from it (§4, §6).

A change takes effect when its entry is applied, not when it is appended. Three guards make that safe: one change
at a time may be on its way, a new leader assumes that one is, and nobody campaigns over a committed change that it
has not applied. How one configuration becomes the next is computed in `confchange`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quorker.core.raft import confchange, reads, replication, roles
from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.log import RaftLog, payload_bytes
from quorker.core.raft.messages import NOBODY, Entry, EntryKind
from quorker.core.raft.roles import Leader

if TYPE_CHECKING:
    from quorker.core.raft.state import RaftState


def admit(raft: RaftState, leader: Leader, entry: Entry) -> Entry:
    """A proposed entry as it may be appended: a configuration change that has to wait becomes an empty entry."""
    if entry.kind is EntryKind.NORMAL:
        return entry
    change = decode(entry)
    if change is None or must_wait(raft, leader, change):
        return replace(entry, data=b"", kind=EntryKind.NORMAL)
    leader.pending_config_index = entry.index
    return entry


def decode(entry: Entry) -> ConfigChange | None:
    """The change in a configuration entry; None if its bytes are not one."""
    try:
        return confchange.decode_change(entry.data, entry.kind)
    except ValueError:
        return None


def must_wait(raft: RaftState, leader: Leader, change: ConfigChange) -> bool:
    """One change at a time, and from a joint configuration there is only the way out."""
    if raft.config.disable_config_validation:
        return False
    is_pending = leader.pending_config_index > raft.applied_index
    return is_pending or raft.configuration.is_joint is not change.leaves_joint


def on_applied(raft: RaftState, index: int) -> None:
    """The state machine has applied everything up to `index`: configuration changes take effect."""
    apply_changes(raft, index)
    before, raft.applied_index = raft.applied_index, index
    raft.applying_index = max(raft.applying_index, index)
    leader = raft.acting_as
    if isinstance(leader, Leader):
        done = payload_bytes(raft.log.entries(before + 1, index + 1))
        leader.uncommitted_bytes = max(0, leader.uncommitted_bytes - done)
        leave_joint_if_due(raft, leader)


def apply_changes(raft: RaftState, index: int) -> None:
    """Let the configuration changes up to `index` take effect, each once."""
    entries = raft.log.entries(raft.config_index + 1, index + 1)
    raft.config_index = max(raft.config_index, index)
    for entry in entries:
        if entry.kind is not EntryKind.NORMAL:
            _apply(raft, entry)


def _apply(raft: RaftState, entry: Entry) -> None:
    """Every member skips a change that is impossible, so they stay the same."""
    change = decode(entry)
    if change is None:
        return
    members = raft.configuration, raft.progress
    try:
        members = confchange.apply_change(members, change, raft.progress_template())
    except confchange.ConfigRefusedError:
        return
    switch(raft, members, entry.index)


def switch(raft: RaftState, members: confchange.Members, index: int) -> None:
    """Make `members` the configuration, as of the entry at `index`, and do what follows from it."""
    raft.use_members(members, index)
    leader = raft.acting_as
    if not isinstance(leader, Leader):
        return
    if not _may_lead(raft):
        if raft.config.step_down_on_removal:
            roles.become_follower(raft, raft.term, NOBODY)
        return
    if replication.maybe_commit(raft):
        replication.on_commit(raft, leader)
    else:  # no reason to let a new member wait for a heartbeat
        replication.request_all(raft, leader, send_if_empty=False)
    if leader.transfer_to not in raft.configuration.voters:
        leader.transfer_to = NOBODY
    reads.confirm(raft, leader)


def _may_lead(raft: RaftState) -> bool:
    own = raft.progress.get(raft.node_id)
    return own is not None and not own.is_learner


def leave_joint_if_due(raft: RaftState, leader: Leader) -> None:
    """A joint configuration that leaves by itself does so once it is applied: append the empty change.

    While leadership is being transferred nothing is appended; then the next entry applied tries again.
    """
    if not raft.configuration.auto_leave or raft.applied_index < leader.pending_config_index:
        return
    if leader.transfer_to == NOBODY and raft.node_id in raft.progress:
        leader.pending_config_index = raft.log.last_index + 1
        entry = Entry(raft.term, leader.pending_config_index, b"", EntryKind.CONFIG_V2)
        replication.append(raft, leader, (entry,))


def proven_commit(log: RaftLog) -> int:
    """Up to here the log proves itself committed: a change is proposed only after the one before it was applied.

    After a restart the commit index may be forgotten. A member that forgot two changes could win an election in a
    configuration that shares no majority with the newest, so it must not be behind by more than one.
    """
    entries = log.entries(log.first_index, log.last_index + 1)
    changes = [entry.index for entry in entries if entry.kind is not EntryKind.NORMAL]
    return changes[-2] if len(changes) > 1 else 0


def has_unapplied_change(raft: RaftState) -> bool:
    """Whether a committed configuration change has not taken effect here."""
    unapplied = raft.log.entries(raft.applied_index + 1, raft.commit_index + 1)
    return any(entry.kind is not EntryKind.NORMAL for entry in unapplied)
