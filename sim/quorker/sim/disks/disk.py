"""A simulated member's disk at the level of Raft's Persist records: twin of `quorker.transport.disk`.

Records become durable in order and in groups, after a latency. At a crash, any prefix of what was not yet acknowledged
may have reached the disk. The disk can be slow, stall or fail an fsync. The files themselves, with torn pages and
reordered writes, are a layer below: `quorker.sim.disks.file_disk` has the same interface and runs the real storage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from quorker.core.raft.config import DurableState
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import NOBODY, Entry, Forgotten, HardState, SnapshotMeta
from quorker.sim.world.kernel import SECOND, Call, Kernel
from quorker.sim.world.network import LATENCIES, latency_ns
from quorker.sim.world.randomness import key, mix

GROUPED_MAX: Final = 1 << 30
WRITE_MAX_NS: Final = 2 * SECOND


@dataclass(frozen=True, slots=True)
class DiskKnobs:
    """How the disks behave in the chaotic phase. `grouped_max`: records that one fsync may cover.

    `files`: the real storage runs on simulated files, with segments and a reserve of these sizes.
    """

    latency: str = "uniform"
    median_ns: int = 200_000
    grouped_max: int = GROUPED_MAX
    files: bool = False
    segment_bytes: int = 4_096
    reserve_bytes: int = 0


class DurableLog:
    """What a crash cannot take away: hard state, snapshot and log of one member."""

    __slots__ = (
        "commit_synced",
        "entries",
        "first",
        "hard_state",
        "is_damaged",
        "lost",
        "snapshot",
        "state",
        "votes",
    )

    def __init__(self, hard_state: HardState, snapshot: SnapshotMeta, state: Any) -> None:
        self.hard_state = hard_state
        self.commit_synced = hard_state.commit_index
        self.snapshot = snapshot
        self.state = state  # the state machine that the snapshot holds
        self.first = snapshot.index + 1
        self.entries: list[Entry] = []
        self.votes: dict[int, int] = {}  # term -> for whom, ever
        self.lost: dict[int, int] = {}  # index -> term of entries that damage took
        self.is_damaged = False  # ever, in this run

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1

    def holds(self, index: int, term: int) -> bool:
        """Whether this entry survives a crash here (what the snapshot covers does)."""
        if index <= self.snapshot.index:
            return True
        return index <= self.last and self.entries[index - self.first].term == term

    def held(self, index: int, term: int) -> bool:
        """Whether this entry was ever durable here and nothing but damage took it away."""
        return self.holds(index, term) or self.lost.get(index) == term

    def write(self, record: Persist, state: Any) -> str:
        """Make one record durable. Returns what is wrong with it, "" when nothing is."""
        if record.truncate_from is not None:
            if record.truncate_from <= self.snapshot.index:
                return f"truncates from {record.truncate_from}, inside the snapshot of {self.snapshot.index}"
            del self.entries[record.truncate_from - self.first :]
        if record.snapshot is not None:
            self.install(record.snapshot, state)
        if record.entries:
            if record.entries[0].index != self.last + 1:
                return f"appends {record.entries[0].index} after {self.last}"
            self.entries.extend(record.entries)
        if record.hard_state is not None:
            self._keep(record.hard_state, record.must_sync)
        return ""

    def install(self, snapshot: SnapshotMeta, state: Any) -> None:
        """The snapshot becomes the base; the log behind it stays only if it continues it."""
        if snapshot.index < self.snapshot.index:
            return
        continues = self.holds(snapshot.index, snapshot.term) and snapshot.index <= self.last
        self.entries = self.entries[snapshot.index + 1 - self.first :] if continues else []
        self.first = snapshot.index + 1
        self.snapshot, self.state = snapshot, state

    def lose_from(self, index: int) -> None:
        """Damage: entries from `index` on cannot be read any more."""
        self.is_damaged = True
        kept = max(index - self.first, 0)
        self.lost |= {entry.index: entry.term for entry in self.entries[kept:]}
        del self.entries[kept:]

    def forget(self, forgotten: Forgotten) -> None:
        """What a real disk notices at its start: this member may have forgotten so much."""
        known = max(forgotten, self.hard_state.forgotten)
        self.hard_state = replace(self.hard_state, forgotten=known)

    def image(self) -> DurableLog:
        """A copy, as a backup of the whole disk makes one."""
        twin = DurableLog(self.hard_state, self.snapshot, self.state)
        twin.commit_synced, twin.first, twin.entries = self.commit_synced, self.first, list(self.entries)
        return twin

    def put_back(self, image: DurableLog) -> None:
        """Damage: the disk is as it was. What it had promised since is remembered by nobody but the oracles."""
        self.lost |= dict.fromkeys(range(image.first, self.snapshot.index + 1), 0)
        self.lose_from(self.first)
        self.hard_state, self.snapshot, self.state = image.hard_state, image.snapshot, image.state
        self.commit_synced, self.first, self.entries = image.commit_synced, image.first, list(image.entries)

    def lose_unsynced_commit(self) -> None:
        """A commit index that was written without an fsync may be gone after a crash."""
        state = self.hard_state
        self.hard_state = replace(state, commit_index=self.commit_synced)

    def become(self, found: DurableState, state: Any) -> None:
        """A recovery has read this; whether it may is judged by others."""
        self.snapshot, self.state = found.snapshot, state
        self.first = found.snapshot.index + 1
        self.entries = list(found.entries)
        self._keep(found.hard_state, synced=True)

    def recovered(self) -> DurableState:
        return DurableState(self.hard_state, self.snapshot, tuple(self.entries))

    def _keep(self, hard_state: HardState, synced: bool) -> None:
        self.hard_state = hard_state
        if hard_state.voted_for != NOBODY:
            self.votes[hard_state.term] = hard_state.voted_for
        if synced:
            self.commit_synced = hard_state.commit_index


class LogDisk:
    """One member's lane of Persist records.

    For each record, in order, `on_durable(record, problem)` is called when it is safe, then `on_flushed(seq)` once for
    the group; `on_failed(record)` instead when the fsync failed. `problem` is "" for a record that makes sense.
    `on_broken()` is called when anything else failed.
    """

    def __init__(
        self, kernel: Kernel, seed: int, node_id: int, knobs: DiskKnobs, durable: DurableLog
    ) -> None:
        self._kernel = kernel
        self._key = key(seed, "disk", node_id)
        self._draws = 0
        self.knobs = knobs
        self.durable = durable
        self.slowness = 1
        self.stalled = self.failing = False
        self._lane: deque[tuple[Persist, Any, int]] = deque()  # record, snapshot state, issued at (node's ms)
        self._flushing = 0
        self._flush_id: int = 0  # of the fsync under way: completions of others are void
        self.on_durable: Callable[[Persist, str], None] = _unowned
        self.on_flushed: Callable[[int], None] = _unowned
        self.on_failed: Callable[[Persist], None] = _unowned
        self.on_broken: Callable[[], None] = _unowned

    @property
    def is_low(self) -> bool:
        """There is hardly any room left on it."""
        return False

    def open(self) -> bool:
        """A process begins: read what is there. False when that is not possible now."""
        return True

    def save_snapshot(self, meta: SnapshotMeta, state: Any) -> bool:
        """Keep the state machine as it is at `meta`. False when that was not possible."""
        self.durable.install(meta, state)
        return True

    def load_snapshot(self) -> Any:
        """The newest state; None, after `on_broken()`, when it cannot be read."""
        return self.durable.state

    def compact(self, keep_from: int) -> None:
        """The log before `keep_from` may go."""

    @property
    def may_have_lost(self) -> bool:
        """Whether anything but a crash ever befell what this disk holds."""
        return self.durable.is_damaged

    @property
    def oldest_issued_ms(self) -> int | None:
        """When the oldest record that is not durable was issued, in the node's milliseconds."""
        return self._lane[0][2] if self._lane else None

    def submit(self, record: Persist, state: Any, now_ms: int) -> None:
        self._lane.append((record, state, now_ms))
        if not self._flushing:
            self._flush()

    def latency_ns(self) -> int:
        """A slow disk is not stuck: that is what a stall is, which ends when everything heals."""
        return min(
            WRITE_MAX_NS,
            self.slowness
            * latency_ns(LATENCIES[self.knobs.latency], self.knobs.median_ns, self._draw() >> 48),
        )

    def crash(self) -> int:
        """The process or the machine dies: a prefix of the lane survives. Returns how many records did."""
        word = self._draw()
        survivors = (word >> 32) * (len(self._lane) + 1) >> 32
        for _ in range(survivors):
            record, state, _ = self._lane.popleft()
            self.durable.write(record, state)
        if word & 1:
            self.durable.lose_unsynced_commit()
        self._lane.clear()
        self._flushing = 0
        self._flush_id += 1
        return survivors

    def stall(self) -> None:
        """Nothing becomes durable until `resume`."""
        self.stalled = True

    def resume(self) -> None:
        if self.stalled:
            self.stalled = False
            if self._flushing:
                self._complete_after(self.latency_ns())

    def heal(self) -> None:
        """Every trouble of this disk ends; what it did stays done."""
        self.slowness, self.failing = 1, False
        self.resume()

    def scan(self) -> None:
        """The run is over and the process gone: look at what is there."""

    def _draw(self) -> int:
        self._draws += 1
        return mix(self._key + self._draws)

    def _flush(self) -> None:
        self._flushing = min(len(self._lane), self.knobs.grouped_max)
        synced = any(self._lane[place][0].must_sync for place in range(self._flushing))
        self._complete_after(self.latency_ns() if synced else 0)

    def _complete_after(self, delay_ns: int) -> None:
        self._flush_id += 1
        self._kernel.after(delay_ns, self._completed, self._flush_id)

    def _completed(self, call: Call) -> None:
        if call.payload != self._flush_id or self.stalled:
            return
        if not self._sync_group():
            return
        self._finish_group()
        if self._lane and not self._flushing:
            self._flush()

    def _sync_group(self) -> bool:
        if not self.failing:
            return True
        self.failing = False
        self.on_failed(self._lane[0][0])
        return False

    def _finish_group(self) -> None:
        flush_id, count, self._flushing = self._flush_id, self._flushing, 0
        seq = 0
        for _ in range(count):
            record, state, _ = self._lane.popleft()
            seq = record.seq
            self.on_durable(record, self.durable.write(record, state))
            if self._flush_id != flush_id:  # the node crashed while it released this record's messages
                return
        self.on_flushed(seq)


def _unowned(*_: object) -> None:
    raise AssertionError("this disk belongs to no node yet")
