"""What the log on disk holds, without its entries: bounds, terms, known snapshots, and how each record changes them.

The same arithmetic runs when a batch is written and when it is read back, so that both agree about where the log ends.
"""

from __future__ import annotations

from bisect import bisect_right

from quorker.core.errors import StorageError
from quorker.core.raft.messages import Entry
from quorker.core.wire.snapshot_meta import SnapshotRecord
from quorker.core.wire.wal import Record, Truncate


class BrokenLog(StorageError):
    """Records that do not follow each other: a gap between entries."""


class LogShape:
    """Entries `first_index..last_index` are on disk, without a gap. `snapshots`: known ones, oldest first."""

    __slots__ = ("_run_starts", "_run_terms", "first_index", "last_index", "snapshots")

    def __init__(self, next_index: int = 1) -> None:
        self.first_index = next_index
        self.last_index = next_index - 1
        self.snapshots: tuple[SnapshotRecord, ...] = ()
        self._run_starts: list[int] = []  # first index of each run of equal terms
        self._run_terms: list[int] = []

    def copy(self) -> LogShape:
        twin = LogShape.__new__(LogShape)
        twin.first_index, twin.last_index = self.first_index, self.last_index
        twin.snapshots = self.snapshots
        twin._run_starts, twin._run_terms = self._run_starts[:], self._run_terms[:]
        return twin

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`, None when it is not on disk."""
        if not self.first_index <= index <= self.last_index:
            return None
        return self._run_terms[bisect_right(self._run_starts, index) - 1]

    def apply(self, record: Record) -> None:
        if isinstance(record, Entry):
            self.append(record)
        elif isinstance(record, Truncate):
            self.truncate(record.index)
        else:
            self.note_snapshot(record)

    def append(self, entry: Entry) -> None:
        if entry.index != self.last_index + 1:
            raise BrokenLog(f"entry {entry.index} cannot follow entry {self.last_index}")
        self.last_index = entry.index
        if not self._run_terms or self._run_terms[-1] != entry.term:
            self._run_starts.append(entry.index)
            self._run_terms.append(entry.term)

    def truncate(self, index: int) -> None:
        if index > self.last_index:
            return
        self.last_index = index - 1
        self.first_index = min(self.first_index, index)
        while self._run_starts and self._run_starts[-1] >= index:
            self._run_starts.pop()
            self._run_terms.pop()

    def note_snapshot(self, record: SnapshotRecord) -> None:
        """Remember a snapshot. An installed one replaces the log, unless the log runs through it."""
        index = record.meta.index
        known = [old for old in self.snapshots if old.meta.index != index]
        self.snapshots = tuple(sorted([*known, record], key=_index_of))
        if record.installed and self.term_at(index) != record.meta.term:
            self.first_index, self.last_index = index + 1, index
            self._run_starts, self._run_terms = [], []

    def compact(self, first_index: int) -> None:
        """Entries before `first_index` are no longer on disk."""
        if first_index <= self.first_index:
            return
        self.first_index = first_index
        keep = max(bisect_right(self._run_starts, first_index) - 1, 0)
        del self._run_starts[:keep], self._run_terms[:keep]


def _index_of(record: SnapshotRecord) -> int:
    return record.meta.index
