"""The disk of one member of a transcript, and what may be concluded from it.

It remembers the log only: hard state is shown, never read back, as the members of a transcript do not restart.
"""

from __future__ import annotations

from collections.abc import Iterable

from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import Entry, SnapshotMeta
from quorker.sim.transcript.parser import TranscriptError


class Storage:
    """The log as this node's disk holds it."""

    def __init__(self, base: SnapshotMeta) -> None:
        self.first_index = base.index + 1
        self.entries: list[Entry] = []

    def copy(self) -> Storage:
        twin = Storage(SnapshotMeta(self.first_index - 1))
        twin.entries = list(self.entries)
        return twin

    def term_at(self, index: int) -> int | None:
        offset = index - self.first_index
        return self.entries[offset].term if 0 <= offset < len(self.entries) else None

    @property
    def last_index(self) -> int:
        return self.first_index - 1 + len(self.entries)

    def write(self, persist: Persist) -> None:
        """Truncate, install, append: the order that Persist demands."""
        if persist.truncate_from is not None:
            del self.entries[max(persist.truncate_from - self.first_index, 0) :]
        if persist.snapshot is not None:
            self.first_index = persist.snapshot.index + 1
            self.entries.clear()
        if persist.entries and persist.entries[0].index != self.last_index + 1:
            raise TranscriptError(
                f"a write at {persist.entries[0].index} leaves a gap after {self.last_index}"
            )
        self.entries.extend(persist.entries)

    def compact(self, keep_from: int) -> None:
        del self.entries[: keep_from - self.first_index]
        self.first_index = keep_from


def check_durable(raft: Raft, storage: Storage, queued: Iterable[Persist]) -> None:
    """What Raft takes for durable must be found after a crash now, and after any number of the queued writes.

    Raises TranscriptError otherwise. Cheap enough to run after every input.
    """
    found = storage.copy()
    _check_found(raft, found)
    for persist in queued:
        found.write(persist)
        if persist.snapshot is not None:
            return  # the log before it is given up, and what follows is compared once it is installed
        _check_found(raft, found)


def _check_found(raft: Raft, found: Storage) -> None:
    for index in range(max(raft.first_index, found.first_index), raft.stable_index + 1):
        if found.term_at(index) != raft.log.term_at(index):
            raise TranscriptError(
                f"{raft.node_id}: takes {index} for durable, a crash would find another entry"
            )
