"""How entries get from a leader's log into the others', and when they are committed (§5.3, §5.4.2).

The follower's and the leader's side. Who leads, what a committed entry does, and snapshots are other files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quorker.core.raft import persistence, progress, reads, rejoin, snapshots
from quorker.core.raft.effects import Apply
from quorker.core.raft.log import are_consecutive, entry_bytes, payload_bytes
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    NodeId,
    TimeoutNow,
)
from quorker.core.raft.progress import Progress, ProgressState
from quorker.core.raft.roles import Leader

if TYPE_CHECKING:
    from quorker.core.raft.state import RaftState


# The leader appends


def _fits_uncommitted(raft: RaftState, leader: Leader, size: int) -> bool:
    """Whether `size` more uncommitted bytes are allowed. Empty entries always are, and anything on an empty tail."""
    limit = raft.config.max_uncommitted_bytes
    if limit and leader.uncommitted_bytes and size and leader.uncommitted_bytes + size > limit:
        return False
    leader.uncommitted_bytes += size
    return True


def append(raft: RaftState, leader: Leader, entries: Sequence[Entry]) -> bool:
    """Put entries of our own at the end of the log, and send them. False, with no effect, if the tail is too large."""
    if not _fits_uncommitted(raft, leader, payload_bytes(entries)):
        return False
    raft.log.append(entries)
    request_all(raft, leader)
    return True


# The leader sends


def request_append(raft: RaftState, leader: Leader, peer: NodeId, send_if_empty: bool) -> None:
    """An append to `peer` is due: now, or with everything else that comes due before the next drain."""
    if raft.config.join_appends:
        due = leader.appends_due
        due[peer] = send_if_empty or due.get(peer, False)
    else:
        send_append(raft, peer, send_if_empty)


def request_all(raft: RaftState, leader: Leader, send_if_empty: bool = True) -> None:
    for peer in raft.peers:
        request_append(raft, leader, peer, send_if_empty)


def request_rest(raft: RaftState, leader: Leader, peer: NodeId) -> None:
    """Send `peer` all that its window has room for."""
    if raft.config.join_appends:
        leader.appends_due.setdefault(peer, False)
        return
    while send_append(raft, peer, send_if_empty=False):
        pass


def flush(raft: RaftState, leader: Leader) -> None:
    """Send what has come due since the last drain: one round of heartbeats for all reads, appends joined."""
    if leader.reads.is_due:
        send_heartbeats(raft, reads.start_round(raft, leader))
    if not leader.appends_due:
        return
    due, leader.appends_due = leader.appends_due, {}
    for peer in sorted(due):
        if send_append(raft, peer, due[peer]):
            while send_append(raft, peer, send_if_empty=False):
                pass


def send_append(raft: RaftState, peer: NodeId, send_if_empty: bool = True) -> bool:
    """Send `peer` what comes next for it. Whether something was sent.

    A full window still lets empty appends through: an answer to one tells whether the window's contents were lost.
    """
    known = raft.progress.get(peer)
    if known is None or known.is_paused:
        return False
    log = raft.log
    previous_index = known.next_index - 1
    if previous_index >= log.last_index and not send_if_empty:
        return False
    previous_term = log.term_at(previous_index)
    if previous_term is None:
        return snapshots.send(raft, peer, known)
    entries: tuple[Entry, ...] = ()
    if previous_index < log.last_index and not (
        known.state is ProgressState.REPLICATE and known.inflight.is_full
    ):
        entries = log.entries(known.next_index, log.last_index + 1, raft.config.max_append_bytes)
    if not entries and not send_if_empty:
        return False
    commit = raft.commit_index
    raft.send(
        AppendEntries(
            raft.node_id,
            peer,
            raft.term,
            previous_index,
            previous_term,
            entries,
            commit,
            known.session,
            known.flight,
        )
    )
    known.sent_entries(len(entries), payload_bytes(entries))
    known.sent_commit = commit
    return True


def send_heartbeats(raft: RaftState, read_round: int) -> None:
    """Tell every peer that we lead, and what it may commit: never more than it is known to hold."""
    for peer in raft.peers:
        known = raft.progress[peer]
        commit = min(known.match_index, raft.commit_index)
        raft.send(Heartbeat(raft.node_id, peer, raft.term, commit, read_round, known.session))
        known.sent_commit = commit


# The leader counts


def count_own(raft: RaftState, leader: Leader) -> None:
    """Our own entries have become durable: only now do they count."""
    own = raft.progress.get(raft.node_id)
    if own is not None and own.maybe_update(raft.lane.stable) and maybe_commit(raft):
        on_commit(raft, leader)


def maybe_commit(raft: RaftState) -> bool:
    """Commit what a majority holds, if it ends with an entry of our own term (§5.4.2)."""
    index = progress.committed(raft.configuration.voters, raft.progress)
    if index <= raft.commit_index or raft.log.term_at(index) != raft.term:
        return False
    raft.commit_to(index)
    return True


def on_commit(raft: RaftState, leader: Leader) -> None:
    reads.release_queued(raft, leader)
    request_all(raft, leader)


def on_append_response(raft: RaftState, message: AppendResponse) -> None:
    leader = raft.acting_as
    known = raft.progress.get(message.sender)
    if not isinstance(leader, Leader) or known is None or known.session != message.session:
        return
    if message.rejoin != known.rejoin and rejoin.is_named_otherwise(
        raft, known, message.sender, message.rejoin
    ):
        request_append(raft, leader, message.sender, send_if_empty=True)
        return
    known.recent_active = True
    if message.rejected:
        _on_rejected(raft, leader, known, message)
    elif message.index <= raft.log.last_index:  # a confused peer may claim more than we ever sent
        _on_accepted(raft, leader, known, message)


def _on_rejected(raft: RaftState, leader: Leader, known: Progress, message: AppendResponse) -> None:
    """The logs do not meet where we thought. Skip what cannot match, a term at a time (§5.3).

    Of a flight that the network reordered, all but the first rejection are dead: each would be a new probe, each
    answer to a probe a new flight, and the traffic would multiply.
    """
    if known.state is ProgressState.SNAPSHOT or known.flight != message.flight:
        return
    hint = message.hint_index
    if message.hint_term > 0:
        hint, _ = raft.log.find_conflict_by_term(hint, message.hint_term)
    if known.maybe_decrease(message.index, hint):
        if known.state is ProgressState.REPLICATE:
            known.become_probe()
        request_append(raft, leader, message.sender, send_if_empty=True)


def _on_accepted(raft: RaftState, leader: Leader, known: Progress, message: AppendResponse) -> None:
    moved = known.maybe_update(message.index)
    probe_met = (
        known.state is ProgressState.PROBE
        and known.flight == message.flight
        and known.match_index == message.index
    )
    if not moved and not probe_met:
        return
    _advance_state(raft, known, message.index)
    if maybe_commit(raft):
        on_commit(raft, leader)
    elif known.can_bump_commit(raft.commit_index):
        request_append(raft, leader, message.sender, send_if_empty=True)
    request_rest(raft, leader, message.sender)
    if message.sender == leader.transfer_to and known.match_index == raft.log.last_index:
        raft.send(TimeoutNow(raft.node_id, message.sender, raft.term))


def _advance_state(raft: RaftState, known: Progress, index: int) -> None:
    if known.state is ProgressState.PROBE:
        known.become_replicate()
    elif known.state is ProgressState.REPLICATE:
        known.inflight.free_to(index)
    elif known.match_index + 1 >= raft.log.first_index:
        # Wherever its snapshot came from: it can go on from our log. Probing takes the snapshot into account.
        known.become_probe()
        known.become_replicate()


def on_heartbeat_response(raft: RaftState, message: HeartbeatResponse) -> None:
    leader = raft.acting_as
    known = raft.progress.get(message.sender)
    if not isinstance(leader, Leader) or known is None or known.session != message.session:
        return
    if message.rejoin != known.rejoin and rejoin.is_named_otherwise(
        raft, known, message.sender, message.rejoin
    ):
        request_append(raft, leader, message.sender, send_if_empty=True)
        return
    known.recent_active = True
    known.paused = False
    if known.match_index < raft.log.last_index or known.state is ProgressState.PROBE:
        request_append(raft, leader, message.sender, send_if_empty=True)
    if message.read_round and not message.rejoin:
        reads.on_acknowledged(raft, leader, message.sender, message.read_round)


def on_unreachable(raft: RaftState, peer: NodeId) -> None:
    """A send to `peer` failed: what is in flight is probably lost."""
    known = raft.progress.get(peer)
    if known is not None and known.state is ProgressState.REPLICATE:
        known.become_probe()


# The follower receives


def on_append_entries(raft: RaftState, message: AppendEntries) -> None:
    """Take over the leader's entries. An answer is sent once they are durable, whatever it says."""
    entries, previous = message.entries, message.previous_index
    if not are_consecutive(entries, previous, message.previous_term, message.term):
        return
    if previous < raft.commit_index:
        _answer(raft, message, raft.commit_index)
    elif not raft.log.matches(previous, message.previous_term):
        _reject(raft, message)
    elif _take(raft, entries):
        last = previous + len(entries)
        rejoin.verify(raft, last)
        raft.commit_to(min(message.commit_index, last))
        _answer(raft, message, last)


def _take(raft: RaftState, entries: Sequence[Entry]) -> bool:
    """Append what is new, after cutting what conflicts. Never cuts because a message is short or old (§5.3)."""
    log = raft.log
    start = log.find_conflict(entries)
    if not start:
        return True
    if start <= log.last_index and not persistence.truncate(raft, start):
        return False
    log.append(entries[start - entries[0].index :])
    return True


def _answer(raft: RaftState, message: AppendEntries, index: int) -> None:
    raft.hold(
        AppendResponse(
            raft.node_id,
            message.sender,
            raft.term,
            index,
            commit_index=raft.commit_index,
            session=message.session,
            rejoin=raft.rejoin_name,
            flight=message.flight,
        )
    )


def _reject(raft: RaftState, message: AppendEntries) -> None:
    """Say where our log may meet the leader's: not above where its term is at most the leader's there."""
    log = raft.log
    hint_index, hint_term = log.find_conflict_by_term(
        min(message.previous_index, log.last_index), message.previous_term
    )
    raft.hold(
        AppendResponse(
            raft.node_id,
            message.sender,
            raft.term,
            message.previous_index,
            rejected=True,
            hint_index=hint_index,
            hint_term=hint_term,
            commit_index=raft.commit_index,
            session=message.session,
            rejoin=raft.rejoin_name,
            flight=message.flight,
        )
    )


def on_heartbeat(raft: RaftState, message: Heartbeat) -> None:
    """The leader lives. It names only entries that we have acknowledged: if one is missing, our disk lost it."""
    if message.commit_index > raft.log.last_index and raft.rejoining is None:
        rejoin.on_disk_went_back(raft, message.commit_index)
        if raft.is_silent:
            return
    raft.commit_to(rejoin.believable_commit(raft, message.commit_index))
    raft.send(
        HeartbeatResponse(
            raft.node_id, message.sender, raft.term, message.read_round, message.session, raft.rejoin_name
        )
    )
    reads.resend_forwarded(raft)
    rejoin.ask(raft)


# Everyone applies


def flush_applies(raft: RaftState) -> None:
    """Offer entries that are committed and durable here, within the byte limit over all unfinished offers."""
    if raft.installing is not None or raft.applying_paused:
        return
    high = raft.commit_index
    if not raft.config.apply_unstable:
        high = min(high, raft.lane.stable)
    if high <= raft.applying_index:
        return
    limit = raft.config.max_committed_bytes_per_apply
    room = limit - raft.applying_bytes if limit else None
    entries = raft.log.entries(raft.applying_index + 1, high + 1, room)
    raft.effects.append(Apply(entries))
    raft.applying_index = entries[-1].index
    if limit:
        raft.applying_bytes += sum([entry_bytes(entry) for entry in entries])
        raft.applying_paused = raft.applying_bytes >= limit or raft.applying_index < high
