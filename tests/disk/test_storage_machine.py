"""Anything, in any order, with stops of every kind in between: the storage and a naive ledger never disagree."""

from __future__ import annotations

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, EntryKind, HardState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.sim.disks.crash_states import ForgetfulFileSystem, Image
from quorker.sim.disks.storage_ledger import Witness, held_by

MEMBERS = ConfState((1, 2, 3))
SIZES = st.lists(st.integers(0, 900), min_size=1, max_size=4)
IDENTITY = Identity(b"the cluster's id", 1, b"the directory id")


class StorageMachine(RuleBasedStateMachine):
    """Raft's side of the contract is kept: what a snapshot covers is never truncated, terms never go back."""

    def __init__(self) -> None:
        super().__init__()
        self.fs = ForgetfulFileSystem()
        self.witness = Witness(self._open())
        self.witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
        self.term = 1

    def _open(self) -> LogStorage:
        return LogStorage(self.fs, IDENTITY, StorageSettings(2048, 0))

    @property
    def last(self) -> int:
        return self.witness.acknowledged.last_index

    @property
    def base(self) -> int:
        return self.witness.acknowledged.newest.index

    def _entries(self, first: int, sizes: list[int]) -> tuple[Entry, ...]:
        return tuple(
            Entry(self.term, first + number, bytes([size % 256]) * size, EntryKind(size % 3))
            for number, size in enumerate(sizes)
        )

    @rule(sizes=SIZES)
    def append(self, sizes: list[int]) -> None:
        self.witness.write(Persist(0, entries=self._entries(self.last + 1, sizes)))

    @rule(sizes=SIZES, vote=st.integers(0, 3))
    def append_in_a_new_term(self, sizes: list[int], vote: int) -> None:
        self.term += 1
        self.witness.write(
            Persist(0, HardState(self.term, 0, self.base)),
            Persist(0, HardState(self.term, vote, self.base), entries=self._entries(self.last + 1, sizes)),
        )

    @precondition(lambda self: self.last > self.base)
    @rule(sizes=SIZES, data=st.data(), says_so=st.booleans())
    def overwrite(self, sizes: list[int], data: st.DataObject, says_so: bool) -> None:
        first = data.draw(st.integers(self.base + 1, self.last))
        self.term += 1
        persist = Persist(
            0,
            HardState(self.term, 0, self.base),
            first if says_so else None,
            self._entries(first, sizes),
        )
        self.witness.write(persist)

    @precondition(lambda self: self.last > self.base)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        self.witness.write(Persist(0, truncate_from=data.draw(st.integers(self.base + 1, self.last))))

    @rule()
    def seal(self) -> None:
        self.witness.seal()

    @rule()
    def prepare(self) -> None:
        self.witness.storage.prepare()

    @precondition(lambda self: self.last > self.base)
    @rule(data=st.data(), chunks=st.lists(st.binary(max_size=300), max_size=3))
    def save_snapshot(self, data: st.DataObject, chunks: list[bytes]) -> None:
        index = data.draw(st.integers(self.base + 1, self.last))
        term = self.witness.acknowledged.entries[index].term
        self.witness.save(SnapshotMeta(index, term, MEMBERS), chunks)

    @rule(keep=st.integers(0, 20))
    def compact(self, keep: int) -> None:
        self.witness.storage.compact(self.base + 1 - keep)

    @rule(ahead=st.integers(-3, 30), chunks=st.lists(st.binary(max_size=300), max_size=3), sizes=SIZES)
    def install_snapshot(self, ahead: int, chunks: list[bytes], sizes: list[int]) -> None:
        meta = SnapshotMeta(max(self.last + ahead, self.base + 1), self.term, MEMBERS)
        self.witness.receive(meta, chunks)
        self.witness.write(Persist(0, snapshot=meta))
        self.witness.write(Persist(0, entries=self._entries(self.last + 1, sizes)))

    @rule(ahead=st.integers(1, 30))
    def receive_in_vain(self, ahead: int) -> None:
        self.witness.receive(SnapshotMeta(self.last + ahead, self.term, MEMBERS), [b"too late"])

    @rule()
    def stop_and_start(self) -> None:
        self.witness.storage.close()
        self._restart(self.fs.image())

    @rule()
    def kill_and_start(self) -> None:
        self._restart(self.fs.image())

    @rule(seed=st.integers(0, 1000), which=st.integers(0, 3))
    def cut_the_power_and_start(self, seed: int, which: int) -> None:
        images = list(self.fs.crash_images(3, seed))
        self._restart(images[which % len(images)])

    def _restart(self, image: Image) -> None:
        before = self.witness.storage.identity.incarnation
        self.fs = ForgetfulFileSystem(image)
        self.witness.storage = self._open()
        assert held_by(self.witness.storage) == self.witness.acknowledged.held()
        assert self.witness.storage.identity.incarnation > before
        assert self.witness.storage.notes == ()

    @invariant()
    def bounds_agree(self) -> None:
        storage = self.witness.storage
        assert storage.last_index == self.last
        assert storage.first_index <= self.base + 1
        assert storage.hard_state.term == self.witness.acknowledged.hard_state.term

    @invariant()
    def snapshots_agree(self) -> None:
        assert self.witness.storage.snapshots[-1].meta == self.witness.acknowledged.newest


StorageMachine.TestCase.settings = hypothesis_settings(
    max_examples=120, stateful_step_count=40, deadline=None, derandomize=True
)
TestStorageMachine = StorageMachine.TestCase
