"""The persistence lane: what is written to disk in which order, and what may be said only afterwards.

One FIFO of numbered writes. `stable` is the highest index up to which the disk is known to hold this very log.
Cutting the log lowers it at once, and clips what every write in flight can still prove; so a late acknowledgement
of a write that was since overwritten raises nothing. Which messages wait here is decided by their senders.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quorker.core.raft.effects import Persist, Send, Truncated
from quorker.core.raft.messages import AppendResponse, HardState, NodeId, SnapshotMeta

if TYPE_CHECKING:
    from quorker.core.raft.log import RaftLog
    from quorker.core.raft.state import RaftState

NOTHING_CUT: Final = 0


@dataclass(slots=True)
class Write:
    """A Persist that is not yet acknowledged. `last_index`: the log is durable up to here once it is."""

    seq: int
    last_index: int
    hard_state: HardState | None
    snapshot: SnapshotMeta | None


@dataclass(slots=True)
class Durable:
    """What acknowledged writes made true: the hard state on disk, and a snapshot to install."""

    hard_state: HardState
    snapshot: SnapshotMeta | None = None


class PersistenceLane:
    """The numbered writes of one member. `next_unwritten`: the first entry that no write carries yet."""

    __slots__ = (
        "_cut_from",
        "_snapshot",
        "_written",
        "durable",
        "held",
        "in_flight",
        "next_unwritten",
        "seq",
        "stable",
    )

    def __init__(self, last_index: int, hard_state: HardState) -> None:
        self.seq = 0
        self.stable = last_index
        self.next_unwritten = last_index + 1
        self.in_flight: deque[Write] = deque()
        self.held: list[Send] = []
        self.durable = Durable(hard_state)
        self._written = hard_state
        self._cut_from = NOTHING_CUT
        self._snapshot: SnapshotMeta | None = None

    def cut(self, index: int) -> None:
        """The log was cut: entries >= `index` are no longer ours, on disk and in flight neither."""
        if index < self.next_unwritten:
            self._cut_from = min(self._cut_from or index, index)
            self.next_unwritten = index
        self.stable = min(self.stable, index - 1)
        for write in self.in_flight:
            write.last_index = min(write.last_index, index - 1)
        self.held = [send for send in self.held if not _speaks_for(send, index)]

    def replace(self, snapshot: SnapshotMeta, kept_to: int, last_index: int) -> None:
        """`snapshot` takes the place of a log that was committed up to `kept_to` and ended at `last_index`."""
        if last_index > kept_to:
            self.cut(kept_to + 1)
        self._snapshot = snapshot
        self.next_unwritten = snapshot.index + 1

    def is_clean(self, log: RaftLog, term: int, voted_for: NodeId) -> bool:
        """Whether the disk has, or is about to get, all that must be there, and nothing waits for it."""
        return (
            self.next_unwritten > log.last_index
            and term == self._written.term
            and voted_for == self._written.voted_for
            and not self._written.forgotten
            and not (self.held or self._cut_from or self._snapshot)
        )

    def next_write(self, log: RaftLog, now: HardState, persist_commit: bool) -> Persist | None:
        """The write that brings the disk up to date, if it is not, or that held messages must wait for."""
        written = self._written
        promise_moved = (
            now.term != written.term
            or now.voted_for != written.voted_for
            or now.forgotten is not written.forgotten
        )
        commit_moved = now.commit_index != written.commit_index
        must_sync = (
            promise_moved
            or self.next_unwritten <= log.last_index
            or self._cut_from != NOTHING_CUT
            or self._snapshot is not None
        )
        if must_sync or (commit_moved and persist_commit) or (self.held and self.in_flight):
            return self._emit(log, now if promise_moved or commit_moved else None, must_sync)
        return None

    def _emit(self, log: RaftLog, hard_state: HardState | None, must_sync: bool) -> Persist:
        self.seq += 1
        persist = Persist(
            self.seq,
            hard_state,
            self._cut_from or None,
            log.entries(self.next_unwritten, log.last_index + 1),
            self._snapshot,
            must_sync,
            tuple(self.held),
        )
        self.in_flight.append(Write(self.seq, log.last_index, hard_state, self._snapshot))
        self.next_unwritten = log.last_index + 1
        self._written = hard_state or self._written
        self._cut_from, self._snapshot = NOTHING_CUT, None
        self.held = []
        return persist

    def acknowledge(self, seq: int) -> Durable:
        """Writes up to `seq` are durable. Returns what is on disk now; its snapshot, if these wrote one."""
        durable = self.durable
        durable.snapshot = None
        while self.in_flight and self.in_flight[0].seq <= seq:
            write = self.in_flight.popleft()
            self.stable = max(self.stable, write.last_index)
            durable.hard_state = write.hard_state or durable.hard_state
            durable.snapshot = write.snapshot or durable.snapshot
        return durable


def _speaks_for(send: Send, index: int) -> bool:
    """Whether this acknowledges an entry >= `index`: it must not outlive the entry it speaks for."""
    message = send.message
    return isinstance(message, AppendResponse) and not message.rejected and message.index >= index


def truncate(raft: RaftState, index: int) -> bool:
    """Cut the log from `index` on, here and, with the next write, on disk. False if that is committed."""
    if index <= raft.commit_index:
        raft.fatal("committed entries never change", f"cut at {index}, committed to {raft.commit_index}")
        return False
    last = raft.log.last_index
    raft.log.truncate_from(index)
    raft.lane.cut(index)
    raft.effects.append(Truncated(index, last))
    return True


def flush(raft: RaftState) -> None:
    """Turn what is not on disk yet into one Persist; let go at once what then has nothing to wait for."""
    lane = raft.lane
    if not (raft.config.persist_commit or raft.rejoining) and lane.is_clean(
        raft.log, raft.term, raft.voted_for
    ):
        return  # most inputs change nothing that must be durable
    persist = lane.next_write(raft.log, raft.hard_state, raft.config.persist_commit)
    if persist is not None:
        raft.effects.append(persist)
    elif lane.held:
        raft.effects.extend(lane.held)
        lane.held = []
