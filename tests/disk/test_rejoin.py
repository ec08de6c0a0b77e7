"""Damage in the directory of a member that others can help: it begins anew without a say, and keeps everything aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from quorker.core.errors import CorruptionError, IdentityMismatch
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, Forgotten, HardState, SnapshotMeta
from quorker.core.wire.filesystem import SECTOR_BYTES
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.hardstate import Slot
from quorker.core.wire.identity import IDENT, Identity
from quorker.core.wire.set_aside import surviving_promises
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.core.wire.storage_open import Trust
from quorker.sim.disks.crash_states import ForgetfulFileSystem
from quorker.sim.disks.storage_ledger import Witness

SEGMENT = 1024
IDENTITY = Identity(b"the cluster's id", 1, b"the directory id")
OTHERS_HELP, REJOIN = Trust(others_help=True), Trust(others_help=True, rejoin=True)
Image = dict[str, bytes | None]


def opened(fs: ForgetfulFileSystem, trust: Trust = OTHERS_HELP, identity: Identity = IDENTITY) -> LogStorage:
    return LogStorage(fs, identity, StorageSettings(SEGMENT, 0), trust=trust)


def written(end: Callable[[LogStorage], None] = LogStorage.close) -> Image:
    """A directory with several segments and two snapshots, whose member voted for 3 in term 5."""
    fs = ForgetfulFileSystem()
    witness = Witness(opened(fs))
    witness.bootstrap(SnapshotMeta(1, 1, ConfState((1, 2, 3))))
    for number in range(14):
        witness.append(2, bytes([number]) * 60)
    witness.save(SnapshotMeta(5, 2, ConfState((1, 2, 3))), [b"state at five"])
    witness.save(SnapshotMeta(9, 2, ConfState((1, 2, 3))), [b"state at nine"])
    witness.storage.compact(6)
    for number in range(6):
        witness.append(2, bytes([number]) * 60)
    witness.write(Persist(0, HardState(5, 3, 9)))
    end(witness.storage)
    return dict(fs.image())


def segments(image: Image) -> list[str]:
    return sorted(path for path in image if path.endswith(".wal"))


def snapshots(image: Image) -> list[str]:
    return sorted(path for path in image if path.endswith(".snap"))


def flipped(image: Image, path: str, offset: int) -> Image:
    content = bytearray(image[path] or b"")
    content[offset] ^= 1
    return {**image, path: bytes(content)}


def kept(before: Image, after: Image) -> bool:
    """Every log and snapshot file is still there, byte for byte, under its name or a new one."""
    there = [content for content in after.values() if content is not None]
    return all(before[path] in there for path in (*segments(before), *snapshots(before)))


def assert_begun_anew(image: Image, forgotten: Forgotten, promised: tuple[int, int]) -> ForgetfulFileSystem:
    fs = ForgetfulFileSystem(image)
    with opened_and_closed(fs) as storage:
        state = storage.durable.hard_state
        assert state.forgotten is forgotten
        assert (state.term, state.voted_for) == promised
        assert (storage.durable.entries, storage.durable.snapshot) == ((), SnapshotMeta())
        assert not storage.fresh, "nobody may begin a cluster with it"
        assert any("damaged at byte" in note and "kept aside" in note for note in storage.notes)
    assert kept(image, dict(fs.image()))
    return fs


class opened_and_closed:  # noqa: N801  # used like a function
    def __init__(self, fs: ForgetfulFileSystem, trust: Trust = OTHERS_HELP) -> None:
        self._storage = opened(fs, trust)

    def __enter__(self) -> LogStorage:
        return self._storage

    def __exit__(self, *_: object) -> None:
        self._storage.close()


# What is noticed, and what is still known of the promises


def test_damage_in_an_older_segment_leaves_the_promises_intact() -> None:
    image = written()
    assert len(segments(image)) > 2
    assert_begun_anew(flipped(image, segments(image)[0], 300), Forgotten.ENTRIES, (5, 3))


def test_damage_in_the_newest_segment_after_a_clean_stop_leaves_the_promises_intact() -> None:
    image = written()
    assert_begun_anew(flipped(image, segments(image)[-1], 200), Forgotten.ENTRIES, (5, 3))


def test_damage_that_may_hide_a_promise_loses_the_promises() -> None:
    """Killed before a seal: a slot does not know the vote that stands behind the damage."""

    def killed(storage: LogStorage) -> None:
        storage.write([Persist(0, HardState(7, 1, 9))])
        storage.write([Persist(0, HardState(8, 2, 9))])
        storage.write([Persist(0, entries=(Entry(8, storage.last_index + 1, b"y"),))])

    image = written(killed)
    content = image[segments(image)[-1]] or b""
    used = len(content.rstrip(b"\0"))
    state = opened(ForgetfulFileSystem(flipped(image, segments(image)[-1], used - 300))).hard_state
    assert state.forgotten is Forgotten.PROMISES
    assert state.term < 8, "what it says may be old"


def voted() -> Image:
    """A log of one sector with a vote in term 7, of which no slot knows."""
    fs = ForgetfulFileSystem()
    storage = opened(fs)
    storage.bootstrap(SnapshotMeta(1, 1, ConfState((1, 2, 3))))
    storage.write([Persist(0, HardState(7, 2, 1))])
    image = dict(fs.image())
    (path,) = segments(image)
    assert len((image[path] or b"").rstrip(b"\0")) <= SECTOR_BYTES
    return image


def lost_from(image: Image, from_byte: int) -> ForgetfulFileSystem:
    """The rest of the first sector of the log reads as zeros."""
    (path,) = segments(image)
    content = image[path] or b""
    lost = content[:from_byte] + bytes(SECTOR_BYTES - from_byte) + content[SECTOR_BYTES:]
    return ForgetfulFileSystem({**image, path: lost})


def test_a_lost_sector_may_have_held_a_later_promise_than_any_that_is_known() -> None:
    """It takes what a slot vouches for and the vote behind that, which nothing else tells of."""
    image = voted()
    for from_byte in range(0, 400, 8):  # where the last record begins that a slot vouches for
        state = opened(lost_from(image, from_byte)).hard_state
        assert (state.term, state.forgotten) == (1, Forgotten.PROMISES), from_byte


def test_zeros_that_begin_within_the_last_record_known_prove_nothing() -> None:
    """Short seed 3056447: the header of that record was still there, and the term behind it was not."""
    image = voted()
    known = Slot(9, 1, HardState(1, 0, 1), 2, 1, 1, 400)  # as if the file had been closed there

    def forgotten(fs: ForgetfulFileSystem) -> Forgotten:
        return surviving_promises(GuardedFileSystem(fs), IDENTITY, known).forgotten

    assert forgotten(ForgetfulFileSystem(image)) is Forgotten.ENTRIES
    for from_byte in range(360, 400, 8):
        assert forgotten(lost_from(image, from_byte)) is Forgotten.PROMISES, from_byte


def test_a_lost_newest_segment_loses_the_promises() -> None:
    image = written()
    del image[segments(image)[-1]]
    fs = ForgetfulFileSystem(image)
    assert opened(fs).hard_state.forgotten is Forgotten.PROMISES


def test_both_snapshots_damaged() -> None:
    image = written()
    for path in snapshots(image)[-2:]:
        image = flipped(image, path, 70)
    assert_begun_anew(image, Forgotten.ENTRIES, (5, 3))


def test_one_damaged_snapshot_needs_nobody() -> None:
    image = written()
    storage = opened(ForgetfulFileSystem(flipped(image, snapshots(image)[-1], 70)))
    assert storage.hard_state.forgotten is Forgotten.NOTHING
    assert storage.durable.snapshot.index == 5


@pytest.mark.parametrize("trust", [Trust(), None])
def test_alone_it_refuses_and_touches_nothing(trust: Trust | None) -> None:
    image = flipped(written(), segments(written())[0], 300)
    fs = ForgetfulFileSystem(image)
    with pytest.raises(CorruptionError) as caught:
        LogStorage(fs, IDENTITY, StorageSettings(SEGMENT, 0), trust=trust)
    assert caught.value.path == segments(image)[0]
    assert dict(fs.image()) == image


def every_damage(image: Image) -> Iterator[Image]:
    for path in (*segments(image), *snapshots(image)):
        for offset in range(0, len(image[path] or b""), 37):
            yield flipped(image, path, offset)


def test_wherever_the_damage_is_no_promise_is_given_twice() -> None:
    """It starts as it was, or knows its last promises and has no say, or knows that it may not know them."""
    image = written()
    for damaged in every_damage(image):
        fs = ForgetfulFileSystem(damaged)
        state = opened(fs).hard_state
        assert state.forgotten is Forgotten.PROMISES or (state.term, state.voted_for) == (5, 3)
        assert kept(damaged, dict(fs.image()))


def test_an_unreadable_identity_is_nothing_to_rejoin_with() -> None:
    for path in (IDENT, "STATE.0"):
        image = flipped(written(), path, 20)
        image = flipped(image, "STATE.1", 20) if path != IDENT else image
        with pytest.raises(CorruptionError):
            opened(ForgetfulFileSystem(image))


# The mark


def test_the_mark_survives_restarts_and_the_loss_of_a_slot() -> None:
    image = written()
    fs = assert_begun_anew(flipped(image, segments(image)[0], 300), Forgotten.ENTRIES, (5, 3))
    for slot in ("STATE.0", "STATE.1"):
        damaged = ForgetfulFileSystem(flipped(dict(fs.image()), slot, 40))
        assert opened(damaged).durable.hard_state == HardState(5, 3, 0, Forgotten.ENTRIES)


def test_the_mark_is_written_and_taken_away_with_a_persist() -> None:
    fs = ForgetfulFileSystem(written())
    storage = opened(fs)
    storage.write([Persist(1, HardState(5, 3, 9, Forgotten.PROMISES))])
    for slot in ("STATE.0", "STATE.1"):
        damaged = ForgetfulFileSystem(flipped(dict(fs.image()), slot, 40))
        assert opened(damaged).durable.hard_state.forgotten is Forgotten.PROMISES
    storage.write([Persist(2, HardState(5, 3, 9))])
    storage.close()
    assert opened(ForgetfulFileSystem(fs.image())).durable.hard_state == HardState(5, 3, 9)


def test_the_incarnation_goes_on() -> None:
    image = written()
    before = opened(ForgetfulFileSystem(image)).identity.incarnation
    after = opened(ForgetfulFileSystem(flipped(image, segments(image)[0], 300))).identity
    assert after.incarnation == before
    assert after.dir_uuid == IDENTITY.dir_uuid


def test_it_can_be_written_and_damaged_again() -> None:
    image = written()
    fs = assert_begun_anew(flipped(image, segments(image)[0], 300), Forgotten.ENTRIES, (5, 3))
    storage = opened(fs)
    meta = SnapshotMeta(9, 2, ConfState((1, 2, 3)))
    writer = storage.receive_snapshot(meta)
    writer.add(b"state at nine")
    writer.finish()
    storage.write(
        [Persist(1, replace(storage.hard_state, term=6), snapshot=meta, entries=(Entry(6, 10, b"x"),))]
    )
    storage.close()
    recovered = opened(ForgetfulFileSystem(fs.image())).durable
    assert (recovered.snapshot.index, len(recovered.entries)) == (9, 1)
    assert recovered.hard_state.forgotten is Forgotten.ENTRIES
    again = dict(fs.image())
    assert_begun_anew(flipped(again, segments(again)[-1], 300), Forgotten.ENTRIES, (6, 3))


def test_every_crash_while_things_are_put_aside_ends_without_a_say() -> None:
    image = written()
    damaged = flipped(image, segments(image)[0], 300)
    fs = ForgetfulFileSystem(damaged)
    states: list[Image] = []
    fs.after_change = lambda: states.append(dict(fs.image()))
    opened(fs)
    assert len(states) > 10
    for state in states:
        again = ForgetfulFileSystem(state)
        storage = opened(again)
        assert storage.hard_state.forgotten in (Forgotten.ENTRIES, Forgotten.PROMISES)
        if storage.hard_state.forgotten is Forgotten.ENTRIES:
            assert (storage.hard_state.term, storage.hard_state.voted_for) == (5, 3)
        assert kept(damaged, dict(again.image()))


# What an operator says


def test_a_wiped_directory_begins_without_a_say() -> None:
    storage = opened(ForgetfulFileSystem(), REJOIN)
    assert storage.durable.hard_state == HardState(forgotten=Forgotten.PROMISES)
    assert not storage.fresh


def test_a_directory_that_was_put_back_keeps_its_data_and_loses_its_say() -> None:
    fs = ForgetfulFileSystem(written())
    storage = opened(fs, REJOIN)
    assert storage.durable.hard_state == HardState(5, 3, 9, Forgotten.PROMISES)
    assert storage.durable.snapshot.index == 9


@pytest.mark.parametrize("lost", [(IDENT,), ("STATE.0", "STATE.1")])
def test_an_unreadable_identity_is_kept_aside(lost: tuple[str, ...]) -> None:
    image = written()
    for path in lost:
        image = flipped(image, path, 20)
    fs = ForgetfulFileSystem(image)
    storage = opened(fs, REJOIN, replace(IDENTITY, dir_uuid=b"a new directory!"))
    assert storage.identity.dir_uuid == b"a new directory!"
    assert storage.durable.hard_state == HardState(forgotten=Forgotten.PROMISES)
    assert kept(image, dict(fs.image()))
    assert all(image[path] in fs.image().values() for path in lost)


def test_nobody_rejoins_with_the_directory_of_another_node() -> None:
    with pytest.raises(IdentityMismatch):
        opened(ForgetfulFileSystem(written()), REJOIN, replace(IDENTITY, node_id=2))
