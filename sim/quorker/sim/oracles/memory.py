"""What members and clients hold in memory, held against their limits: the oracle of bounded memory (L6).

Every queue of a member that a limit is configured for is looked at again and again while a run suffers; when all faults
have ended, what waited must be gone. What a limit is set to is the case's and the core's own default; that refusals are
honest is for others to see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from quorker.core.agreement import DISPUTES_MAX, REMEMBERED
from quorker.core.jobs.store import WINDOW
from quorker.core.raft.messages import Entry
from quorker.core.raft.roles import Follower, Leader
from quorker.core.replica import SNAPSHOTS_HELD_BACK, Replica
from quorker.core.session import ClientSession
from quorker.sim.oracles.checks import Violation

AT_REST: Final = 16  # things that may be under way in a cluster in which nothing is wrong


def weigh(node_id: int, replica: Replica) -> None:
    """All that one member holds is within its limits, now."""
    inside: Any = replica
    config, raft = replica.config, replica.raft
    groups, held = inside._groups, sum(len(group.bytes) for group in inside._groups)
    _at_most(node_id, "groups that wait", len(groups), config.pending_groups_max + config.reserved_groups)
    _at_most(node_id, "bytes that wait", held, config.pending_bytes_max + config.reserved_bytes)
    _exactly(node_id, "bytes that wait, as they are counted", inside._groups_bytes, held)
    _at_most(node_id, "rounds under way", len(inside._rounds), config.rounds_in_flight_max)
    applied = [index for index in inside._round_index.values() if index <= raft.applied_index]
    _exactly(node_id, "places of what is applied", len(applied), 0)
    postponed_max = max(0, raft.commit_index - raft.applied_index)
    _at_most(node_id, "entries that wait to be applied", len(inside._postponed), postponed_max)
    _at_most(node_id, "digests", len(inside._agreement._own), REMEMBERED)
    _at_most(node_id, "disputes", len(inside._agreement._claims), DISPUTES_MAX)
    if isinstance(raft.acting_as, Leader):
        _weigh_leader(node_id, raft, raft.acting_as)
    else:
        _exactly(node_id, "groups of one that does not lead", len(groups), 0)
    for session in replica.store.sessions.values():
        _at_most(node_id, f"replies of session {session.id}", len(session.replies), WINDOW)


def _weigh_leader(node_id: int, raft: Any, leader: Leader) -> None:
    for peer, known in raft.progress.items():
        _at_most(node_id, f"appends under way to n{peer}", len(known.inflight), known.inflight.max_messages)
    log, limit = raft.log, raft.config.max_uncommitted_bytes
    tail = log.entries(raft.applied_index + 1, raft.last_index + 1)
    _at_most(node_id, "bytes not committed, as they are counted", leader.uncommitted_bytes, _bytes(tail))
    own = [e for e in tail if e.index > raft.commit_index and e.term == raft.term]
    largest = max((len(entry.data) for entry in own), default=0)
    # What a leader has inherited is not counted, but taken off the count: so it may have as much again.
    _at_most(node_id, "bytes not committed", _bytes(own), 2 * limit + largest)


def _bytes(entries: Iterable[Entry]) -> int:
    return sum(len(entry.data) for entry in entries)


class LogShare:
    """How much log one process keeps in memory: what is behind its newest snapshots, and a tail."""

    def __init__(self, keep_entries: int) -> None:
        self._keep_entries = keep_entries
        self._saved: deque[int] = deque(maxlen=SNAPSHOTS_HELD_BACK)

    def on_saved(self, node_id: int, index: int, first_index: int, last_index: int) -> None:
        """A snapshot to `index` is on disk, and the log was trimmed."""
        self._saved.append(index)
        kept_max = last_index - self._saved[0] + self._keep_entries
        _at_most(node_id, "entries behind its snapshots", last_index - first_index + 1, kept_max)


def weigh_at_rest(node_id: int, replica: Replica) -> None:
    """Nothing is wrong any more: what had to wait has gone."""
    inside: Any = replica
    raft = replica.raft
    acting: Any = raft.acting_as
    waiting = {
        "groups that wait": len(inside._groups),
        "entries that wait to be applied": len(inside._postponed),
        "writes under way": len(raft.lane.in_flight),
        "messages that wait for a write": len(raft.lane.held),
        "reads": len(acting.forwarded_reads) if isinstance(acting, Follower) else 0,
    }
    if isinstance(acting, Leader):
        waiting["reads"] = len(acting.reads.waiting) + len(acting.queued_reads)
    for what, count in waiting.items():
        _at_most(node_id, f"{what} at rest", count, AT_REST)
    for session in replica.store.sessions.values():
        kept = [seq for seq in session.replies if seq < session.acked_below]
        _exactly(node_id, f"replies of session {session.id} that were acknowledged", len(kept), 0)


def weigh_client(client_id: int, session: ClientSession) -> None:
    """A client of which nothing is asked any more waits for a renewal at most, and for what its jobs came to."""
    if session.unanswered > AT_REST:
        raise Violation("bounded memory [L6]", f"c{client_id} waits for {session.unanswered} answers at rest")


def _at_most(node_id: int, what: str, count: int, limit: int) -> None:
    if count > limit:
        raise Violation("bounded memory [L6]", f"n{node_id} holds {count} {what}, at most {limit} may be")


def _exactly(node_id: int, what: str, count: int, wanted: int) -> None:
    if count != wanted:
        raise Violation("bounded memory [L6]", f"n{node_id} holds {count} {what}, and should {wanted}")
