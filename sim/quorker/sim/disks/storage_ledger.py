"""What a storage was told and has acknowledged, kept as naively as possible: the oracle of the disk tests.

Shares no code with `quorker.core.wire`: dictionaries and slices only. A `Held` is everything that a restart must find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import Entry, HardState, SnapshotMeta
from quorker.core.wire.storage import LogStorage

NO_SNAPSHOT = SnapshotMeta()


@dataclass(frozen=True, slots=True)
class Held:
    """Promises, a snapshot with its bytes, and the entries behind it."""

    term: int
    voted_for: int
    snapshot: SnapshotMeta
    state: bytes
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class Ledger:
    """The log as a dictionary. `snapshots`: those from which the log can still be replayed."""

    hard_state: HardState = field(default_factory=HardState)
    entries: dict[int, Entry] = field(default_factory=dict[int, Entry])
    last_index: int = 0
    snapshots: dict[SnapshotMeta, bytes] = field(default_factory=lambda: {NO_SNAPSHOT: b""})
    received: dict[SnapshotMeta, bytes] = field(default_factory=dict[SnapshotMeta, bytes])

    def copy(self) -> Ledger:
        return replace(
            self,
            entries=dict(self.entries),
            snapshots=dict(self.snapshots),
            received=dict(self.received),
        )

    @property
    def newest(self) -> SnapshotMeta:
        return max(self.snapshots, key=lambda meta: meta.index)

    def write(self, persist: Persist) -> None:
        if persist.truncate_from is not None:
            self._cut(persist.truncate_from)
        if persist.snapshot is not None and persist.snapshot.index > self.newest.index:
            self._install(persist.snapshot)
        for entry in persist.entries:
            self._cut(entry.index)
            self.entries[entry.index] = entry
            self.last_index = entry.index
        self.hard_state = persist.hard_state or self.hard_state

    def save(self, meta: SnapshotMeta, state: bytes) -> None:
        if meta.index > self.newest.index:
            self.snapshots[meta] = state

    def held(self, snapshot: SnapshotMeta | None = None) -> Held | None:
        """What there is from this snapshot on (from the newest, when None); None if it was never one to start from."""
        base = self.newest if snapshot is None else snapshot
        if base not in self.snapshots:
            return None
        entries = tuple(self.entries[index] for index in range(base.index + 1, self.last_index + 1))
        return Held(self.hard_state.term, self.hard_state.voted_for, base, self.snapshots[base], entries)

    def _cut(self, index: int) -> None:
        for gone in range(index, self.last_index + 1):
            self.entries.pop(gone, None)
        self.last_index = min(self.last_index, index - 1)

    def _install(self, meta: SnapshotMeta) -> None:
        state = self.received[meta]
        continues = meta.index in self.entries and self.entries[meta.index].term == meta.term
        if not continues:
            self.entries.clear()
            self.snapshots.clear()
            self.last_index = meta.index
        self.snapshots[meta] = state


def held_by(storage: LogStorage) -> Held:
    """What a storage found when it was opened."""
    durable = storage.durable
    meta = durable.snapshot
    state = b"" if meta == NO_SNAPSHOT else b"".join(storage.open_snapshot(meta))
    hard_state = durable.hard_state
    return Held(hard_state.term, hard_state.voted_for, meta, state, durable.entries)


class Witness:
    """Drives a storage and keeps two ledgers: what is `acknowledged`, and what it would be if all was `told`."""

    def __init__(self, storage: LogStorage) -> None:
        self.storage = storage
        self.acknowledged = Ledger()
        self.told = Ledger()
        self.sealed = Ledger()  # acknowledged at the last seal

    def write(self, *batch: Persist) -> None:
        self.told = self.acknowledged.copy()
        for persist in batch:
            self.told.write(persist)
        self.storage.write(batch)
        self.acknowledged = self.told

    def append(self, term: int, *data: bytes) -> None:
        first = self.acknowledged.last_index + 1
        entries = tuple(Entry(term, first + number, item) for number, item in enumerate(data))
        self.write(Persist(0, entries=entries))

    def save(self, meta: SnapshotMeta, chunks: Sequence[bytes]) -> None:
        self.told = self.acknowledged.copy()
        self.told.save(meta, b"".join(chunks))
        self.storage.save_snapshot(meta, chunks)
        self.acknowledged = self.told

    def receive(self, meta: SnapshotMeta, chunks: Sequence[bytes]) -> None:
        writer = self.storage.receive_snapshot(meta)
        for chunk in chunks:
            writer.add(chunk)
        self.acknowledged.received[meta] = b"".join(chunks)
        writer.finish()

    def bootstrap(self, meta: SnapshotMeta) -> None:
        self.told = self.acknowledged.copy()
        self.told.received[meta] = b""
        self.told.write(Persist(0, HardState(meta.term, 0, meta.index), snapshot=meta))
        self.storage.bootstrap(meta)
        self.acknowledged = self.told
        self.sealed = self.acknowledged.copy()

    def seal(self) -> None:
        self.storage.seal()
        self.sealed = self.acknowledged.copy()

    def explains(self, found: Held) -> bool:
        """Whether a restart may find this: everything acknowledged, perhaps with what was told last."""
        return found in (self.acknowledged.held(), self.told.held())
