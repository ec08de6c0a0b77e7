"""The recovery rule on bytes: each sentence of it, and hostile bytes that no crash would write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import ConfigurationError, CorruptionError
from quorker.core.raft.messages import ConfState, Entry, EntryKind, HardState, SnapshotMeta
from quorker.core.wire import wal
from quorker.core.wire.hardstate import SLOT_BYTES, Slot, decode_slot, encode_slot, newest_slot
from quorker.core.wire.identity import Identity, decode_identity, encode_identity
from quorker.core.wire.recovery import RecoveredLog, recover_log
from quorker.core.wire.snapshot_file import SnapshotEncoder, read_snapshot
from quorker.core.wire.snapshot_meta import SnapshotRecord, decode_snapshot_record, encode_snapshot_record
from quorker.core.wire.wal import Record, SegmentHeader, Truncate

OWNER = Identity(b"the cluster's id", 1, b"the directory id")
NOTHING_KNOWN = Slot(0, 1, HardState(), 0, 0, 0, 0)
SIZE = 2048


@dataclass
class Segment:
    """A segment under construction: its bytes, and where each record begins."""

    header: SegmentHeader
    data: bytes
    chain: int
    batch: int

    @classmethod
    def begin(cls, header: SegmentHeader | None = None) -> Segment:
        header = header or SegmentHeader(1, 1, SIZE)
        head = wal.encode_segment_header(header, OWNER)
        return cls(header, head, wal.first_chain(head), header.previous_batch)

    @property
    def seed(self) -> int:
        return wal.segment_seed(self.header.segment, OWNER.dir_uuid)

    @property
    def end(self) -> int:
        return len(self.data)

    def add(self, *records: Record, last_index: int, hard_state: HardState | None = None) -> int:
        """Append a batch. Returns where it begins."""
        start, self.batch = self.end, self.batch + 1
        hard_state = hard_state or HardState(1, 1, 0)
        data, self.chain = wal.encode_batch(
            self.seed, self.chain, start, self.batch, records, last_index, hard_state
        )
        self.data += data
        return start

    def seal(self) -> int:
        start = self.end
        data, self.chain = wal.encode_seal(self.seed, self.chain, start, self.batch, 0)
        self.data += data
        return start

    def raw(self, kind: int, version: int, payload: bytes) -> int:
        """Append a record of the batch to come that says anything, with checksums that hold."""
        start = self.end
        fields = (len(payload), kind, version, 0, self.batch + 1, 1, crc32(payload, self.chain))
        body = b"".join(
            value.to_bytes(size, "little") for value, size in zip(fields, (4, 1, 1, 2, 8, 8, 4), strict=True)
        )
        self.chain = crc32(body, self.seed + start & 0xFFFFFFFF)
        self.data += body + self.chain.to_bytes(4, "little") + payload + bytes(-len(payload) % 8)
        return start

    def named(self, damage: dict[int, int] | None = None) -> tuple[str, bytes]:
        content = bytearray(self.data.ljust(self.header.size, b"\0"))
        for offset, mask in (damage or {}).items():
            content[offset] ^= mask
        return wal.segment_name(self.header.segment, self.header.next_index), bytes(content)


@pytest.fixture
def segment() -> Segment:
    """Entries 1 to 3 in two batches."""
    segment = Segment.begin()
    segment.add(Entry(1, 1, b"one"), last_index=1)
    segment.add(Entry(1, 2, b"two"), Entry(1, 3, b"three"), last_index=3)
    return segment


def recovered(*segments: tuple[str, bytes], slot: Slot = NOTHING_KNOWN) -> RecoveredLog:
    return recover_log(segments, OWNER, slot)


def indexes(log: RecoveredLog) -> list[int]:
    return [entry.index for entry in log.entries]


def sealed(batch: int, segment: int = 0, end: int = 0) -> Slot:
    return replace(NOTHING_KNOWN, sealed_batch=batch, sealed_segment=segment, sealed_end=end)


# Rule 1: a clean end


def test_zeros_behind_the_last_record_are_a_clean_end(segment: Segment) -> None:
    log = recovered(segment.named())
    assert indexes(log) == [1, 2, 3]
    assert log.torn is None
    assert log.hard_state == HardState(1, 1, 0)


def test_an_unproven_last_batch_must_be_written_anew(segment: Segment) -> None:
    log = recovered(segment.named())
    assert log.dirty
    assert log.tail is not None
    assert [record for record in log.tail.records if isinstance(record, Entry)] == log.entries[1:]


def test_a_slot_that_was_written_later_proves_the_last_batch(segment: Segment) -> None:
    log = recovered(segment.named(), slot=sealed(2, 1, segment.end))
    assert not log.dirty
    assert log.end.offset == segment.end


def test_a_seal_proves_its_batch_but_not_itself(segment: Segment) -> None:
    start = segment.seal()
    log = recovered(segment.named())
    assert log.tail is None
    assert log.end.offset == start
    assert log.dirty


def test_the_first_batch_of_a_segment_is_proven_by_the_name_of_the_file() -> None:
    segment = Segment.begin()
    segment.add(Entry(1, 1), last_index=1)
    assert not recovered(segment.named()).dirty


def test_an_end_before_what_a_slot_knows_is_corruption(segment: Segment) -> None:
    """The sealed end of the log was lost as a whole: nothing else would show it."""
    with pytest.raises(CorruptionError, match="ends with batch 2, but batch 3 was known to be durable"):
        recovered(segment.named(), slot=sealed(3))


# Rule 2: a torn tail


def test_a_batch_without_its_commit_is_torn(segment: Segment) -> None:
    complete = segment.end
    segment.raw(wal.ENTRY, 1, bytes(8) + b"never closed")
    log = recovered(segment.named())
    assert indexes(log) == [1, 2, 3]
    assert log.torn is not None
    assert log.torn.offset == complete
    assert log.torn.data == segment.data[complete:].rstrip(b"\0")


def test_damage_inside_the_last_batch_is_torn(segment: Segment) -> None:
    start = segment.add(Entry(1, 4, b"four"), last_index=4)
    log = recovered(segment.named({start + 40: 1}))
    assert indexes(log) == [1, 2, 3]


def test_a_torn_batch_that_a_slot_knows_is_corruption(segment: Segment) -> None:
    start = segment.add(Entry(1, 4, b"four"), last_index=4)
    with pytest.raises(CorruptionError, match="batch 3 was known to be durable") as caught:
        recovered(segment.named({start + 40: 1}), slot=sealed(3))
    assert caught.value.offset == start


def test_a_torn_batch_with_its_seal_behind_it_is_corruption(segment: Segment) -> None:
    start = segment.add(Entry(1, 4, b"four"), last_index=4)
    segment.seal()
    with pytest.raises(CorruptionError, match="a record that was written later"):
        recovered(segment.named({start + 40: 1}))


def test_garbage_behind_the_end_is_torn(segment: Segment) -> None:
    log = recovered(segment.named({1500: 0xFF}))
    assert indexes(log) == [1, 2, 3]
    assert log.torn is not None


# Rule 3: corruption


def test_damage_before_the_last_batch_is_corruption(segment: Segment) -> None:
    second = segment.add(Entry(1, 4, b"four"), last_index=4)
    segment.add(Entry(1, 5, b"five"), last_index=5)
    with pytest.raises(CorruptionError, match="a record that was written later") as caught:
        recovered(segment.named({second: 1}))
    assert caught.value.offset == second


def test_a_damaged_seal_before_a_complete_batch_is_corruption(segment: Segment) -> None:
    """The batch behind it is whole and may be acknowledged: cutting it would not be cutting a torn write."""
    start = segment.seal()
    segment.add(Entry(1, 4, b"four"), last_index=4)
    with pytest.raises(CorruptionError, match="a record that was written later") as caught:
        recovered(segment.named({start + 5: 1}))
    assert caught.value.offset == start


def test_damage_in_the_first_batch_of_a_segment_is_corruption() -> None:
    segment = Segment.begin()
    start = segment.add(Entry(1, 1, b"one"), last_index=1)
    with pytest.raises(CorruptionError, match="durable before the file got its name") as caught:
        recovered(segment.named({start + 41: 1}))
    assert caught.value.path == "wal/00000000000000000001-0000000000000001.wal"
    assert caught.value.offset == start


def test_a_log_that_forgot_a_promise_is_corruption(segment: Segment) -> None:
    for promised in (HardState(2, 0), HardState(1, 3)):
        with pytest.raises(CorruptionError, match="this node had promised"):
            recovered(segment.named(), slot=replace(NOTHING_KNOWN, hard_state=promised))


def test_the_commit_index_of_a_slot_is_taken_over(segment: Segment) -> None:
    log = recovered(segment.named(), slot=replace(NOTHING_KNOWN, hard_state=HardState(1, 1, 2)))
    assert log.hard_state == HardState(1, 1, 2)


def test_no_segment_at_all_is_corruption() -> None:
    with pytest.raises(CorruptionError, match="the log is missing"):
        recovered()


# Several segments


def next_header(segment: Segment) -> SegmentHeader:
    return SegmentHeader(2, 4, SIZE, segment.batch, segment.end, segment.chain)


def following(header: SegmentHeader) -> tuple[str, bytes]:
    """A segment with this header and entry 4."""
    segment = Segment.begin(header)
    segment.add(Entry(1, 4, b"four"), last_index=4)
    return segment.named()


def test_the_log_goes_on_in_the_next_segment(segment: Segment) -> None:
    assert indexes(recovered(segment.named(), following(next_header(segment)))) == [1, 2, 3, 4]


def test_the_log_may_begin_in_the_middle(segment: Segment) -> None:
    """Older segments were compacted."""
    log = recovered(following(next_header(segment)))
    assert indexes(log) == [4]
    assert log.shape.first_index == 4


def test_a_truncation_may_reach_behind_what_was_compacted() -> None:
    """The entries that it cut stood in segments that are gone; the log now begins where it was cut."""
    segment = Segment.begin(SegmentHeader(2, 9, SIZE, 5, 1000, 7))
    segment.add(Truncate(7), Entry(2, 7, b"seven"), last_index=7)
    log = recovered(segment.named())
    assert indexes(log) == [7]
    assert (log.shape.first_index, log.shape.last_index) == (7, 7)


def test_a_missing_segment_is_corruption(segment: Segment) -> None:
    with pytest.raises(CorruptionError, match="segment 2 before it is missing"):
        recovered(segment.named(), following(replace(next_header(segment), segment=3)))


def test_a_segment_must_end_as_the_next_one_says(segment: Segment) -> None:
    header = next_header(segment)
    claims = [
        replace(header, previous_batch=7),
        replace(header, previous_end=136),
        replace(header, previous_end=segment.end + 8),
        replace(header, previous_chain=5),
    ]
    for wrong in claims:
        with pytest.raises(CorruptionError) as caught:
            recovered(segment.named(), following(wrong))
        assert caught.value.path == f"wal/{segment.named()[0]}"


def test_a_segment_must_continue_the_log(segment: Segment) -> None:
    with pytest.raises(CorruptionError, match="begins with entry 9, but the log before it ends at 3"):
        recovered(segment.named(), following(replace(next_header(segment), next_index=9)))


def test_garbage_behind_the_end_of_an_older_segment_is_corruption(segment: Segment) -> None:
    with pytest.raises(CorruptionError, match="is not zero behind the last record") as caught:
        recovered(segment.named({1501: 4}), following(next_header(segment)))
    assert caught.value.offset == 1501


def test_what_an_unclean_stop_left_behind_the_end_means_nothing(segment: Segment) -> None:
    assert indexes(
        recovered(segment.named({1501: 4}), following(replace(next_header(segment), cut=True)))
    ) == [1, 2, 3, 4]


def test_a_segment_under_another_name_is_corruption(segment: Segment) -> None:
    with pytest.raises(CorruptionError, match="is segment 1 under another name"):
        recovered((wal.segment_name(1, 7), segment.named()[1]))


def test_a_segment_of_another_directory_is_corruption(segment: Segment) -> None:
    with pytest.raises(CorruptionError, match="belongs to another data directory"):
        recover_log([segment.named()], replace(OWNER, dir_uuid=bytes(16)), NOTHING_KNOWN)


def test_a_segment_shorter_than_it_was_made_is_corruption(segment: Segment) -> None:
    """Also where the cut falls between two batches, and everything left is valid."""
    name, content = segment.named()
    with pytest.raises(CorruptionError, match="but was made with 2048") as caught:
        recovered((name, content[: segment.end]))
    assert caught.value.offset == segment.end


# Records that are whole and make no sense


@pytest.mark.parametrize(
    ("kind", "version", "payload"),
    [
        (9, 1, b""),
        (wal.ENTRY, 2, bytes(8)),
        (wal.ENTRY, 1, b"x"),
        (wal.SNAPSHOT, 1, b"x"),
        (wal.COMMIT, 1, b"x"),
    ],
)
def test_an_intact_record_that_is_not_understood_stops_everything(
    segment: Segment, kind: int, version: int, payload: bytes
) -> None:
    """It is never skipped: a newer version may have written it."""
    start = segment.raw(kind, version, payload)
    with pytest.raises(CorruptionError) as caught:
        recovered(segment.named())
    assert caught.value.offset == start


def test_a_gap_between_entries_is_corruption(segment: Segment) -> None:
    start = segment.add(Entry(1, 9), last_index=9)
    with pytest.raises(CorruptionError, match="entry 9 cannot follow entry 3") as caught:
        recovered(segment.named())
    assert caught.value.offset == start


def test_a_batch_that_does_not_lead_where_it_says_is_corruption(segment: Segment) -> None:
    segment.add(Truncate(2), last_index=3)
    with pytest.raises(CorruptionError, match="leads to entry 1, but names 3"):
        recovered(segment.named())


def test_a_newer_format_is_not_called_damage(segment: Segment) -> None:
    name, content = segment.named()
    newer = content[:8] + b"\x02\x00" + content[10 : wal.SEGMENT_HEADER_BYTES - 4]
    newer += crc32(newer).to_bytes(4, "little") + content[wal.SEGMENT_HEADER_BYTES :]
    with pytest.raises(ConfigurationError, match="has format 2; this version reads format 1"):
        recovered((name, newer))


# Any bytes at all


@given(st.binary(max_size=400), st.integers(0, 400))
def test_hostile_bytes_are_torn_or_corrupt_never_a_record(garbage: bytes, offset: int) -> None:
    segment = Segment.begin()
    segment.add(Entry(1, 1, b"one"), last_index=1)
    name, content = segment.named()
    place = segment.end + offset
    content = content[:place] + garbage + content[place + len(garbage) :]
    assert indexes(recovered((name, content))) == [1]


@given(st.binary(max_size=SLOT_BYTES))
def test_hostile_slots_and_names_are_nothing(garbage: bytes) -> None:
    assert decode_slot(garbage.ljust(SLOT_BYTES, b"\x01"), None) is None
    assert (
        decode_snapshot_record(garbage) is None
        or encode_snapshot_record(decode_snapshot_record(garbage) or SnapshotRecord(SnapshotMeta(), 0, b""))
        == garbage
    )
    with pytest.raises(CorruptionError):
        decode_identity(garbage, "IDENT")


@given(st.binary(max_size=300))
def test_hostile_snapshots_are_corrupt(garbage: bytes) -> None:
    expected = SnapshotEncoder(SnapshotMeta(5, 1), OWNER.cluster_id).record()
    with pytest.raises(CorruptionError):
        list(read_snapshot(lambda size, at: garbage[at : at + size], "x.snap", OWNER.cluster_id, expected))


def snapshot_file(body: SnapshotEncoder, chunk: bytes, footer: SnapshotRecord) -> bytes:
    """A file whose checksums all hold, with any footer."""
    block = body.chunk(chunk)
    payload = encode_snapshot_record(footer)
    head = len(payload).to_bytes(4, "little") + b"\x02" + bytes(3) + (1).to_bytes(4, "little")
    crc = crc32(payload, crc32(head, int.from_bytes(block[12:16], "little")))
    return body.header + block + head + crc.to_bytes(4, "little") + payload


def test_a_whole_snapshot_must_be_the_one_that_the_log_names() -> None:
    """Other members, other bytes under the right name, or bytes that are not what the footer says."""
    meta, chunk = SnapshotMeta(5, 1, ConfState((1, 2))), b"the state"
    right = SnapshotRecord(meta, len(chunk), sha256(chunk).digest())

    def found(footer: SnapshotRecord, content: bytes) -> list[bytes]:
        file = snapshot_file(SnapshotEncoder(meta, OWNER.cluster_id), content, footer)
        return list(read_snapshot(lambda size, at: file[at : at + size], "x.snap", OWNER.cluster_id, right))

    assert found(right, chunk) == [chunk]
    other_members = replace(right, meta=replace(meta, conf_state=ConfState((1, 2, 3))))
    for footer, content in ((other_members, chunk), (right, b"other state"), (right, b"the State")):
        with pytest.raises(CorruptionError, match="is not the snapshot that the log names"):
            found(footer, content)


# Round trips

ids = st.lists(st.integers(1, 2**63), max_size=3).map(tuple)
metas = st.builds(
    SnapshotMeta,
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.builds(ConfState, ids, ids, ids, ids, st.booleans()),
)


@given(metas, st.integers(0, 2**63), st.binary(min_size=32, max_size=32), st.booleans())
def test_a_snapshot_record_comes_back(meta: SnapshotMeta, size: int, digest: bytes, installed: bool) -> None:
    record = SnapshotRecord(meta, size, digest, installed)
    assert decode_snapshot_record(encode_snapshot_record(record), installed) == record


@given(st.lists(st.tuples(st.binary(max_size=60), st.sampled_from(EntryKind)), max_size=8))
def test_entries_come_back(written: list[tuple[bytes, EntryKind]]) -> None:
    segment = Segment.begin()
    entries = tuple(Entry(2**40, 1 + place, data, kind) for place, (data, kind) in enumerate(written))
    segment.add(*entries, last_index=len(entries), hard_state=HardState(2**50, 2**31, 7))
    log = recovered(segment.named())
    assert tuple(log.entries) == entries
    assert log.hard_state == HardState(2**50, 2**31, 7)


def test_slots_and_identities_come_back() -> None:
    slot = Slot(2**40, 3, HardState(4, 5, 6), 7, 8, 9, 10)
    assert decode_slot(encode_slot(slot, OWNER.dir_uuid), OWNER.dir_uuid) == slot
    assert decode_slot(encode_slot(slot, OWNER.dir_uuid), bytes(16)) is None
    older = replace(slot, seq=1)
    assert newest_slot((slot, older)) is newest_slot((older, slot)) is newest_slot((None, slot)) is slot
    identity = replace(OWNER, restore_epoch=255)
    assert decode_identity(encode_identity(identity), "IDENT") == identity
    for cluster_id, node_id, epoch in ((b"short", 1, 0), (bytes(16), 0, 0), (bytes(16), 1, 256)):
        with pytest.raises(ConfigurationError):
            Identity(cluster_id, node_id, restore_epoch=epoch)


def test_the_chain_of_a_segment_depends_on_its_header() -> None:
    headers = [SegmentHeader(1, 1, SIZE), SegmentHeader(1, 1, SIZE, previous_chain=5)]
    assert len({wal.first_chain(wal.encode_segment_header(header, OWNER)) for header in headers}) == 2


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


def test_the_format_is_pinned() -> None:
    """These bytes are on disks: a change here needs a new format number."""
    segment = Segment.begin()
    segment.add(Entry(1, 1, b"one"), Truncate(5), last_index=1, hard_state=HardState(1, 2, 3))
    segment.seal()
    assert digest(segment.data) == PINNED_LOG
    assert digest(encode_slot(Slot(1, 2, HardState(3, 4, 5), 6, 7, 8, 9), OWNER.dir_uuid)) == PINNED_SLOT
    assert digest(encode_identity(OWNER)) == PINNED_IDENTITY
    encoder = SnapshotEncoder(SnapshotMeta(5, 1, ConfState((1, 2), (3,))), OWNER.cluster_id)
    assert digest(encoder.header + encoder.chunk(b"state") + encoder.footer()) == PINNED_SNAPSHOT


PINNED_LOG = "df7e360f6566465a"
PINNED_SLOT = "c022f3ad9bf4e7c2"
PINNED_IDENTITY = "f0dd73453296540a"
PINNED_SNAPSHOT = "42adde0e6cdfd715"
