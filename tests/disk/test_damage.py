"""P9: every bit, every cut, every sector. Damage is found, or it took nothing that was acknowledged and sealed.

The oracle is the ledger of what was acknowledged. The one excuse is a last batch that nothing was written behind yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import pytest

from quorker.core.errors import EXIT_CORRUPT, CorruptionError
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, HardState, SnapshotMeta
from quorker.core.wire.filesystem import SECTOR_BYTES
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.sim.disks.crash_states import ForgetfulFileSystem
from quorker.sim.disks.storage_ledger import Held, Ledger, Witness, held_by

Image = dict[str, bytes | None]
SEGMENT: Final = 1024
MEMBERS: Final = ConfState((1, 2, 3))
CORRUPT: Final = "corrupt"
Outcome = Held | str


@dataclass
class Case:
    """A directory as a killed process left it. `versions`: of all its files, oldest first."""

    image: Image
    acknowledged: Held
    before_last: Held  # without the last batch
    sealed: Held
    last_start: int  # where the last batch begins, in the newest segment
    last_end: int
    versions: list[Image]
    ledger: Ledger

    @property
    def segments(self) -> list[str]:
        return sorted(path for path in self.image if path.endswith(".wal"))

    def content(self, path: str) -> bytes:
        content = self.image[path]
        assert content is not None
        return content

    def with_file(self, path: str, content: bytes) -> Image:
        return {**self.image, path: content}

    def flipped(self, path: str) -> Iterator[tuple[int, Image]]:
        """(byte, image with one bit of it flipped), for every bit of the file."""
        content = self.content(path)
        for bit in range(8 * len(content)):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            yield bit // 8, self.with_file(path, bytes(damaged))


def reopened(fs: ForgetfulFileSystem) -> LogStorage:
    identity = Identity(b"the cluster's id", 1, b"the directory id")
    return LogStorage(fs, identity, StorageSettings(SEGMENT, 0))


def outcome(image: Image) -> Outcome:
    """What a restart makes of it. Corruption names a file that is there, and changes nothing."""
    fs = ForgetfulFileSystem(image)
    try:
        return held_by(reopened(fs))
    except CorruptionError as error:
        names_a_place = error.exit_code == EXIT_CORRUPT and error.path and error.offset >= 0
        return CORRUPT if names_a_place and fs.image() == image else "corrupt, and changed"


def build(script: Callable[[Witness], None], seal: bool = False) -> Case:
    """Run a script whose last `append` is the last batch."""
    fs = ForgetfulFileSystem()
    witness = Witness(reopened(fs))
    versions: list[Image] = []
    fs.after_change = lambda: versions.append(fs.image())
    witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    script(witness)
    before = witness.acknowledged.held()
    start = witness.storage.log_bytes
    witness.append(2, b"the last batch", b"has two entries")
    end = witness.storage.log_bytes
    assert start // SEGMENT == end // SEGMENT, "the last batch began a segment of its own"
    if seal:
        witness.seal()
    acknowledged, sealed = witness.acknowledged.held(), witness.sealed.held()
    assert before is not None
    assert acknowledged is not None
    assert sealed is not None
    older = start - start % SEGMENT
    return Case(
        fs.image(), acknowledged, before, sealed, start - older, end - older, versions, witness.acknowledged
    )


def some_segments(witness: Witness) -> None:
    witness.write(Persist(0, HardState(2, 3, 1)))
    for number in range(7):
        witness.append(2, bytes([number]) * 60)
    witness.seal()
    witness.append(2, b"not sealed by itself")


def with_snapshots(witness: Witness) -> None:
    some_segments(witness)
    witness.save(SnapshotMeta(4, 2, MEMBERS), [b"state at four", b"!"])
    witness.append(2, b"between")
    witness.save(SnapshotMeta(6, 2, MEMBERS), [b"state at six"])
    witness.storage.compact(5)


@pytest.fixture(scope="module")
def case() -> Case:
    return build(some_segments)


@pytest.fixture(scope="module")
def snapshot_case() -> Case:
    return build(with_snapshots)


@pytest.fixture(scope="module")
def sealed_case() -> Case:
    return build(some_segments, seal=True)


def test_undamaged_nothing_is_missing(case: Case, snapshot_case: Case, sealed_case: Case) -> None:
    assert outcome(case.image) == case.acknowledged
    assert outcome(snapshot_case.image) == snapshot_case.acknowledged
    assert outcome(sealed_case.image) == sealed_case.acknowledged


def test_a_bit_in_an_older_segment_is_corruption(case: Case) -> None:
    """Everywhere: in the header, in records, in the zeros behind them."""
    assert len(case.segments) > 1
    for path in case.segments[:-1]:
        assert {outcome(image) for _, image in case.flipped(path)} == {CORRUPT}


def test_a_bit_in_the_newest_segment(case: Case) -> None:
    """Before the last batch: corruption. Inside: it is cut, or corruption. Behind: nothing is lost."""
    found: dict[str, set[Outcome]] = {"before": set(), "inside": set(), "behind": set()}
    for byte, image in case.flipped(case.segments[-1]):
        where = "before" if byte < case.last_start else "inside" if byte < case.last_end else "behind"
        found[where].add(outcome(image))
    assert found["before"] == {CORRUPT}
    assert case.before_last in found["inside"]
    assert found["inside"] <= {CORRUPT, case.before_last}
    assert found["behind"] == {case.acknowledged}


def test_a_bit_in_a_sealed_log(sealed_case: Case) -> None:
    """A seal makes the last batch as safe as the others. The seal itself counts: what hit it may have hit what followed."""
    (*_, newest) = sealed_case.segments
    sealed_end = len(sealed_case.content(newest).rstrip(b"\0")) + 7 & -8
    assert sealed_end > sealed_case.last_end
    for byte, image in sealed_case.flipped(newest):
        assert outcome(image) == (CORRUPT if byte < sealed_end else sealed_case.acknowledged)


@pytest.mark.parametrize("name", ["STATE.0", "STATE.1"])
def test_a_bit_in_one_state_slot_loses_nothing(name: str, case: Case) -> None:
    assert {outcome(image) for _, image in case.flipped(name)} == {case.acknowledged}


def test_a_damaged_state_slot_never_brings_an_incarnation_back(case: Case) -> None:
    once = reopened(ForgetfulFileSystem(case.image)).identity.incarnation
    for name in ("STATE.0", "STATE.1"):
        again = reopened(ForgetfulFileSystem(case.with_file(name, bytes(512))))
        assert again.identity.incarnation == once
        assert any(name in note for note in again.notes)


def test_an_incarnation_stands_in_both_slots_before_it_is_used(case: Case) -> None:
    fs = ForgetfulFileSystem(case.image)
    used = reopened(fs).identity.incarnation
    for name in ("STATE.0", "STATE.1"):
        again = reopened(ForgetfulFileSystem({**fs.image(), name: bytes(512)}))
        assert again.identity.incarnation > used


def test_both_state_slots_damaged_is_corruption(case: Case) -> None:
    both = {**case.image, "STATE.0": bytes(512), "STATE.1": b"short"}
    assert outcome(both) == CORRUPT


def test_a_bit_in_the_identity_is_corruption(case: Case) -> None:
    assert {outcome(image) for _, image in case.flipped("IDENT")} == {CORRUPT}


def test_a_bit_in_the_newest_snapshot_goes_back_to_the_one_before(snapshot_case: Case) -> None:
    older, newest = (path for path in sorted(snapshot_case.image) if path.endswith(".snap"))
    fallback = snapshot_case.ledger.held(SnapshotMeta(4, 2, MEMBERS))
    assert fallback is not None
    assert {outcome(image) for _, image in snapshot_case.flipped(newest)} == {fallback}
    assert {outcome(image) for _, image in snapshot_case.flipped(older)} == {snapshot_case.acknowledged}


def test_both_snapshots_damaged_is_corruption(snapshot_case: Case) -> None:
    damaged = {path: b"x" if path.endswith(".snap") else data for path, data in snapshot_case.image.items()}
    assert outcome(damaged) == CORRUPT


def test_a_damaged_snapshot_stays_where_it_is(snapshot_case: Case) -> None:
    """Nothing is deleted because it could not be read (NATS #7556)."""
    newest = max(path for path in snapshot_case.image if path.endswith(".snap"))
    fs = ForgetfulFileSystem(snapshot_case.with_file(newest, b"damaged"))
    storage = reopened(fs)
    assert fs.image()[newest] == b"damaged"
    assert any(newest in note for note in storage.notes)


def test_a_cut_at_every_byte(case: Case, snapshot_case: Case) -> None:
    """Every file, shortened to every length: found, or harmless."""
    for whole in (case, snapshot_case):
        fallback = whole.ledger.held(SnapshotMeta(4, 2, MEMBERS))
        for path in (path for path, content in whole.image.items() if content is not None):
            content = whole.content(path)
            found = {outcome(whole.with_file(path, content[:size])) for size in range(len(content))}
            if path.startswith("STATE"):
                assert found == {whole.acknowledged}
            elif path.endswith(".snap"):
                assert found <= {CORRUPT, fallback, whole.acknowledged}
            else:
                assert found == {CORRUPT}, path


def test_a_last_batch_torn_at_every_byte(case: Case, sealed_case: Case) -> None:
    """A segment is preallocated, so a torn write leaves zeros and the length as it was: only this batch goes, whole.

    Under a seal the same bytes are damage.
    """
    for whole, allowed in ((case, {case.before_last}), (sealed_case, {CORRUPT})):
        (*_, newest) = whole.segments
        content = whole.content(newest)
        torn = [
            content[:kept] + bytes(len(content) - kept) for kept in range(whole.last_start, whole.last_end)
        ]
        written = [image for image in torn if image[: whole.last_end] != content[: whole.last_end]]
        assert len(written) > len(b"the last batch")
        assert {outcome(whole.with_file(newest, image)) for image in written} == allowed


def test_zeros_that_reach_before_the_last_batch(case: Case) -> None:
    """As far as a slot proves, it is damage; behind that, every batch that goes with the zeros goes unseen.

    They lay in one sector with the last one and were not sealed: the limit of the promise.
    """
    newest = case.segments[-1]
    content = case.content(newest)
    found = {
        kept: outcome(case.with_file(newest, content[:kept] + bytes(len(content) - kept)))
        for kept in range(case.last_start)
    }
    assert CORRUPT in found.values()
    kept_less = [held for held in found.values() if held != CORRUPT]
    assert kept_less, "two batches without a seal"
    for held in kept_less:
        assert isinstance(held, Held)
        assert is_prefix_from_seal(held, case)


def test_a_sector_that_is_stale_from_within_what_was_sealed() -> None:
    """It takes the batch behind the seal along, so it must not pass for the torn end of that batch."""
    fs = ForgetfulFileSystem()
    witness = Witness(reopened(fs))
    witness.bootstrap(SnapshotMeta(1, 1, MEMBERS))
    witness.seal()
    sealed_end = witness.storage.log_bytes
    witness.write(Persist(0, HardState(2, 3, 1)))
    image = fs.image()
    (newest,) = [path for path in image if path.endswith(".wal")]
    content = image[newest]
    assert content is not None
    end = -(-sealed_end // SECTOR_BYTES) * SECTOR_BYTES
    assert any(content[sealed_end:end]), "the batch behind the seal has begun in the same sector"
    stale = [content[:start] + bytes(end - start) + content[end:] for start in range(sealed_end)]
    damaged = [data for data in stale if data[:sealed_end] != content[:sealed_end]]
    assert len(damaged) > sealed_end - 8
    assert {outcome({**image, newest: data}) for data in damaged} == {CORRUPT}


def test_a_file_that_is_gone(case: Case, snapshot_case: Case) -> None:
    for whole in (case, snapshot_case):
        fallback = whole.ledger.held(SnapshotMeta(4, 2, MEMBERS))
        for path in whole.image:
            found = outcome({name: data for name, data in whole.image.items() if not name.startswith(path)})
            if path.startswith("STATE"):
                assert found == whole.acknowledged
            elif path.endswith(".snap"):
                assert found in (CORRUPT, fallback, whole.acknowledged)
            elif not path.startswith("wal/") or path == whole.segments[0] or path == whole.segments[-1]:
                assert found == CORRUPT, path


def test_bytes_behind_the_end_of_a_file(case: Case) -> None:
    for path in ("IDENT", *case.segments):
        assert outcome(case.with_file(path, case.content(path) + b"\0")) == CORRUPT


def sector_damage(case: Case) -> Iterator[Image]:
    """Every sector of every file: zeroed, as it was at any earlier time, or swapped with another of the same file."""
    for path in [path for path, content in case.image.items() if content is not None]:
        content = case.content(path)
        older = [version.get(path) or b"" for version in case.versions]
        starts = range(0, len(content), SECTOR_BYTES)
        for start in starts:
            for replacement in replacements(content, older, start):
                yield case.with_file(path, put(content, start, replacement))
        for first, second in combinations(starts, 2):
            one, two = (content[start : start + SECTOR_BYTES] for start in (first, second))
            yield case.with_file(path, put(put(content, first, two), second, one))


def replacements(content: bytes, older: list[bytes], start: int) -> list[bytes]:
    end = min(start + SECTOR_BYTES, len(content))
    candidates = {bytes(end - start), *(version[start:end] for version in older)}
    return sorted(candidate for candidate in candidates if len(candidate) == end - start)


def put(content: bytes, start: int, sector: bytes) -> bytes:
    return content[:start] + sector + content[start + len(sector) :]


def test_every_sector_zeroed_reverted_or_swapped(case: Case, sealed_case: Case, snapshot_case: Case) -> None:
    """What was sealed is never dropped in silence, and nothing is ever read that was not written."""
    total = 0
    for whole in (case, sealed_case, snapshot_case):
        for image in sector_damage(whole):
            total += 1
            found = outcome(image)
            if isinstance(found, str):
                continue
            assert is_prefix_from_seal(found, whole), found
    assert total > 100


def is_prefix_from_seal(found: Held, case: Case) -> bool:
    """At least what was sealed, at most what was acknowledged, whichever snapshot it starts from."""
    most, least = case.ledger.held(found.snapshot), case.sealed
    return (
        most is not None
        and found.entries == most.entries[: len(found.entries)]
        and found.snapshot.index + len(found.entries) >= least.snapshot.index + len(least.entries)
        and (found.term, found.voted_for, found.state) == (most.term, most.voted_for, most.state)
    )


def test_torn_bytes_are_kept_aside(case: Case) -> None:
    newest = case.segments[-1]
    content = bytearray(case.content(newest))
    content[case.last_end - 1] ^= 1
    fs = ForgetfulFileSystem(case.with_file(newest, bytes(content)))
    storage = reopened(fs)
    assert storage.torn_path is not None
    assert fs.image()[storage.torn_path] == bytes(content[case.last_start :]).rstrip(b"\0")
    assert fs.image()[newest] == bytes(content)  # evidence: nothing is overwritten in place
