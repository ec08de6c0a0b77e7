"""The log in memory: a list of entries after a base, which stands for everything compacted away.

Only arithmetic on indexes and terms. What is committed, applied or durable, and whether the log may be cut, is
known elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quorker.core.raft.messages import Entry, SnapshotMeta

ENTRY_OVERHEAD_BYTES: Final = 64  # what an entry costs beside its data; it bounds a flood of empty ones too


def entry_bytes(entry: Entry) -> int:
    """What an entry counts for in the limits of appends and applies."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


def payload_bytes(entries: Sequence[Entry]) -> int:
    """The bytes of data in `entries`: an empty entry counts for nothing."""
    if len(entries) == 1:
        return len(entries[0].data)
    return sum([len(entry.data) for entry in entries])


class RaftLog:
    """Entries `first_index..last_index`, after a base of index `first_index - 1` whose term is known."""

    __slots__ = ("_base_term", "_entries", "first_index", "last_index")

    def __init__(self, base_index: int = 0, base_term: int = 0, entries: Sequence[Entry] = ()) -> None:
        self.first_index = base_index + 1
        self.last_index = base_index + len(entries)
        self._base_term = base_term
        self._entries = list(entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._base_term

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`, also of the base; None if it is compacted away or does not exist."""
        offset = index - self.first_index
        if offset >= 0:
            return self._entries[offset].term if index <= self.last_index else None
        return self._base_term if offset == -1 else None

    def entry(self, index: int) -> Entry | None:
        offset = index - self.first_index
        return self._entries[offset] if offset >= 0 and index <= self.last_index else None

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> tuple[Entry, ...]:
        """The entries of `[low, high)` that are in memory; with `max_bytes`, as many as fit, at least one."""
        first = self.first_index
        start = low - first if low > first else 0
        stop = high - first
        if stop <= start:
            return ()
        if max_bytes is not None:  # more than this cannot fit: a long log is not copied to send its beginning
            stop = min(stop, start + max(max_bytes // ENTRY_OVERHEAD_BYTES, 1))
        found = self._entries[start:stop]
        if max_bytes is None or len(found) <= 1:
            return tuple(found)
        total = 0
        for count, entry in enumerate(found):
            total += entry_bytes(entry)
            if total > max_bytes:
                return tuple(found[: max(count, 1)])
        return tuple(found)

    def matches(self, index: int, term: int) -> bool:
        return self.term_at(index) == term

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as ours (§5.4.1)."""
        ours = self.last_term
        return last_term > ours or (last_term == ours and last_index >= self.last_index)

    def find_conflict(self, entries: Sequence[Entry]) -> int:
        """The index of the first entry that is not in this log, 0 if all are. They are consecutive."""
        for entry in entries:
            if self.term_at(entry.index) != entry.term:
                return entry.index
        return 0

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """Where this log may still agree with one that has `term` at `index`: skips whole terms (§5.3).

        The highest index <= `index` whose term is <= `term`, with that term; (index, 0) where ours is unknown.
        """
        while index > 0:
            ours = self.term_at(index)
            if ours is None:
                return index, 0
            if ours <= term:
                return index, ours
            index -= 1
        return 0, 0

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow last_index."""
        assert not entries or entries[0].index == self.last_index + 1, "the log has no gaps"
        self._entries.extend(entries)
        self.last_index += len(entries)

    def truncate_from(self, index: int) -> None:
        """Forget every entry at or after `index`."""
        assert index >= self.first_index, "what was compacted cannot be truncated"
        del self._entries[index - self.first_index :]
        self.last_index = min(self.last_index, index - 1)

    def compact(self, keep_from: int) -> None:
        """Forget every entry before `keep_from`; its predecessor becomes the base."""
        keep_from = min(keep_from, self.last_index + 1)
        if keep_from <= self.first_index:
            return
        self._base_term = self._entries[keep_from - 1 - self.first_index].term
        del self._entries[: keep_from - self.first_index]
        self.first_index = keep_from

    def restart_after(self, snapshot: SnapshotMeta) -> None:
        """Forget everything: the log now begins after `snapshot`."""
        self._entries = []
        self._base_term = snapshot.term
        self.first_index = snapshot.index + 1
        self.last_index = snapshot.index


def are_consecutive(entries: Sequence[Entry], previous_index: int, previous_term: int, term: int) -> bool:
    """Whether entries could follow (previous_index, previous_term) in the log of a leader of `term`."""
    for entry in entries:
        previous_index += 1
        if entry.index != previous_index or not previous_term <= entry.term <= term:
            return False
        previous_term = entry.term
    return True
