"""Snapshots: when a leader sends one instead of entries, how a follower takes one over, and compaction (§7).

Raft sees names only. The bytes are moved, verified and installed by the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorker.core.raft import confchange, rejoin
from quorker.core.raft.confchange import ConfigRefusedError
from quorker.core.raft.effects import InstallState, Truncated
from quorker.core.raft.messages import AppendResponse, InstallSnapshot, NodeId, SnapshotMeta
from quorker.core.raft.progress import Progress, ProgressState
from quorker.core.raft.roles import Leader

if TYPE_CHECKING:
    from quorker.core.raft.state import RaftState


# The leader


def send(raft: RaftState, peer: NodeId, known: Progress) -> bool:
    """What `peer` needs next is compacted away: offer our newest snapshot, unless `peer` seems to be gone."""
    if not known.recent_active:
        return False
    known.become_snapshot(raft.snapshot.index)
    raft.send(InstallSnapshot(raft.node_id, peer, raft.term, raft.snapshot, known.session))
    return True


def on_status(raft: RaftState, peer: NodeId, ok: bool) -> None:
    """The driver has delivered the snapshot, or has given up. Either way wait before the next append."""
    known = raft.progress.get(peer)
    if not isinstance(raft.acting_as, Leader) or known is None or known.state is not ProgressState.SNAPSHOT:
        return
    if not ok:
        known.pending_snapshot = 0  # or the next probe would start behind a snapshot that never arrived
    known.become_probe()
    known.paused = True


# The follower


def on_install_snapshot(raft: RaftState, message: InstallSnapshot) -> None:
    """The bytes are here. Answer with where our log ends now, once that is durable."""
    if message.snapshot.term > message.term:
        return
    index = raft.log.last_index if _restore(raft, message.snapshot) else raft.commit_index
    rejoin.verify(raft, index)
    raft.hold(
        AppendResponse(
            raft.node_id,
            message.sender,
            raft.term,
            index,
            commit_index=raft.commit_index,
            session=message.session,
            rejoin=raft.rejoin_name,
        )
    )


def _restore(raft: RaftState, snapshot: SnapshotMeta) -> bool:
    """Put the snapshot in the place of the log. False if it brings nothing that the log does not hold.

    It need not name us as a member: the entry that adds us may come after it.
    """
    if snapshot.index <= raft.commit_index:
        return False
    if raft.log.matches(snapshot.index, snapshot.term):
        raft.commit_to(snapshot.index)  # we hold all of its entries
        return False
    try:
        members = confchange.restore(snapshot.conf_state, raft.progress_template())
    except ConfigRefusedError:
        return False
    committed, last = raft.commit_index, raft.log.last_index
    raft.lane.replace(snapshot, committed, last)
    if last > committed:
        raft.effects.append(Truncated(committed + 1, last))
    raft.log.restart_after(snapshot)
    raft.commit_index = raft.applying_index = raft.config_index = snapshot.index
    raft.snapshot = raft.installing = snapshot
    raft.use_members(members, snapshot.index)
    return True


def on_durable(raft: RaftState, snapshot: SnapshotMeta) -> None:
    """A received snapshot is on disk: put it into the state machine, unless a newer one has come since."""
    if snapshot == raft.installing:
        raft.effects.append(InstallState(snapshot))


# Everyone


def made(raft: RaftState, snapshot: SnapshotMeta, keep_from: int) -> None:
    """The driver has a durable snapshot: entries before `keep_from` may go, as far as the snapshot covers them."""
    if not raft.snapshot.index <= snapshot.index <= raft.applied_index or raft.installing is not None:
        return
    raft.snapshot = snapshot
    raft.log.compact(min(keep_from, snapshot.index + 1))
