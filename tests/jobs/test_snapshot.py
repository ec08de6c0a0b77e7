"""Snapshots: canonical, verified, taken in an instant, read back to the byte, or refused as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.errors import CorruptionError
from quorker.core.jobs import snapshot
from quorker.core.jobs.commands import AddToSet, DeleteJob, EnqueueJobs, IncrementCounter, SetRangeInHash
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.snapshot import FOOTER_BYTES, BadSnapshot
from quorker.core.jobs.store import JobStore
from quorker.sim.bare.lone_store import LoneStore
from quorker.sim.bare.store_traffic import StoreTraffic


def busy_store(entries: int = 150) -> JobStore:
    """A store with something in every table, after that many entries or soon after."""
    traffic = StoreTraffic(7)
    for _ in traffic.entries(entries):
        pass
    while entries > 100 and not is_busy(traffic.store):
        next(traffic.entries(1))
    return traffic.store


def is_busy(store: JobStore) -> bool:
    kept = (
        store.jobs,
        store.queues,
        store.places,
        store.sessions,
        store.leases,
        store.locks,
        store.unique_keys,
        store.recurring,
    )
    return all(kept)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def whole(store: JobStore) -> bytes:
    return b"".join(store.snapshot().chunks())


def test_the_store_of_these_tests_has_something_in_every_table() -> None:
    view = busy_store().snapshot()
    assert all(
        [view.queues, view.entries, view.jobs, view.sessions, view.leases, view.locks, view.unique_keys]
    )
    assert view.recurring
    assert list(view.collections.rows())


def test_a_round_trip_is_identical_to_the_byte() -> None:
    store = busy_store()
    restored = JobStore.restore(store.snapshot().chunks())
    assert whole(restored) == whole(store)
    assert restored.state_bytes == store.state_bytes
    assert (restored.applied_index, restored.lt, restored.wt) == (store.applied_index, store.lt, store.wt)


def test_an_empty_store_makes_the_round_trip() -> None:
    assert whole(JobStore.restore(JobStore().snapshot().chunks())) == whole(JobStore())


@pytest.mark.parametrize("limit", [1, 2, 44, 45, 1000, 65536, 10**9])
def test_chunks_have_the_size_that_was_asked_for_and_join_to_the_same_bytes(limit: int) -> None:
    store = busy_store()
    chunks = list(store.snapshot().chunks(limit))
    assert all(len(chunk) == limit for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= limit
    assert b"".join(chunks) == whole(store)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8))
def test_any_cutting_reads_back(sizes: list[int]) -> None:
    data = whole(busy_store())
    chunks: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size
    assert whole(JobStore.restore(chunks)) == data


def test_a_view_never_changes_while_the_store_goes_on() -> None:
    traffic = StoreTraffic(7)
    for _ in traffic.entries(100):
        pass
    before = whole(traffic.store)
    view = traffic.store.snapshot()
    chunks = view.chunks(100)
    begun = [next(chunks)]
    for _ in traffic.entries(100):
        pass
    assert b"".join([*begun, *chunks]) == before
    assert view.digest() != traffic.store.digest()


def test_the_digest_is_that_of_the_footer() -> None:
    store = busy_store()
    assert whole(store)[-32:] == store.digest() == store.snapshot().digest()


def test_the_same_state_by_another_way_has_the_same_bytes() -> None:
    """Collections are canonical by content; only what the log ordered is in the order of the log."""
    one, other = LoneStore(careful=False), LoneStore(careful=False)
    one.entry(
        (0, AddToSet("s", "a", 1.0)), (0, AddToSet("s", "b", 2.0)), (0, SetRangeInHash("h", (("x", "1"),)))
    )
    other.entry(
        (0, SetRangeInHash("h", (("x", "1"),))), (0, AddToSet("s", "b", 2.0)), (0, AddToSet("s", "a", 1.0))
    )
    assert one.store.chain != other.store.chain, "only the chain tells which way it was"
    other.store.chain = one.store.chain
    assert one.store.digest() == other.store.digest()


# --- damage ---


def refused(chunks: Iterable[bytes]) -> str:
    with pytest.raises(BadSnapshot) as caught:
        JobStore.restore(chunks)
    assert isinstance(caught.value, CorruptionError)
    return str(caught.value)


def test_every_truncation_is_refused() -> None:
    data = whole(busy_store(entries=12))
    for length in [
        *range(0, len(data), 37),
        len(data) - 1,
        len(data) - FOOTER_BYTES,
        len(data) - FOOTER_BYTES + 4,
    ]:
        refused(cut(data[:length], 500))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_every_flipped_byte_is_refused(data: st.DataObject) -> None:
    bytes_of = bytearray(whole(busy_store(entries=12)))
    at = data.draw(st.integers(0, len(bytes_of) - 1))
    bytes_of[at] ^= data.draw(st.integers(1, 255))
    refused(cut(bytes(bytes_of), 700))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refused([data])


def test_trailing_bytes_and_doubled_snapshots_are_refused() -> None:
    data = whole(busy_store(entries=12))
    refused([data + b"\x00"])
    refused([data + data])
    refused([])


def resealed(body: bytes, rows: int) -> bytes:
    """A body with a footer that proves it."""
    return body + snapshot.END_MARK + rows.to_bytes(8, "big") + sha256(body).digest()


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "VERSION", 2)
    data = whole(JobStore())
    monkeypatch.undo()
    assert "version (2,)" in refused([data])


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "FORMAT", "something else")
    data = whole(JobStore())
    monkeypatch.undo()
    assert "does not begin" in refused([data])


def test_a_wrong_number_of_rows_is_refused() -> None:
    body = whole(JobStore())[:-FOOTER_BYTES]
    assert "rows" in refused([resealed(body, 99)])


def test_oversized_counts_are_refused_before_anything_is_allocated() -> None:
    for huge in (
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ):
        refused([resealed(huge + b"x" * 100, 1)])


def test_rows_that_make_no_sense_are_refused_although_the_checksum_is_right() -> None:
    head = whole(JobStore())[: -FOOTER_BYTES - 4]
    assert head
    for row in (
        b"\x92\x63\x01",
        b"\x91\x03",
        b"\x01",
        b"\x90",
        b"\x92\x05\x01",
        b"\xa1x",
        b"\x92\x0a\x90\x91\x03",
    ):
        refused([resealed(head + row, 2)])


def test_a_refused_snapshot_leaves_the_live_store_alone() -> None:
    store = busy_store()
    before = store.digest()
    refused([whole(store)[:-1]])
    assert store.digest() == before


# --- what a restored store knows ---


def test_a_restored_store_goes_on_like_the_live_one() -> None:
    lone = LoneStore(careful=False)
    lone.worker(slots=2, name="a")
    lone.worker(slots=2, name="b")
    lone.enqueue(*[NewJob("t", priority=number % 3) for number in range(9)])
    lone.pass_time(1000)
    restored = JobStore.restore(lone.store.snapshot().chunks())
    for _ in range(5):
        lone.enqueue(NewJob("t", delay_ms=50))
        lone.pass_time(100)
    live = lone.store.applied_index
    assert live > restored.applied_index
    assert restored.next_due() != (None, None)


def test_limits_and_epoch_come_from_the_snapshot() -> None:
    lone = LoneStore(Limits(max_jobs=5), epoch=2)
    restored = JobStore.restore(lone.store.snapshot().chunks(), Limits(max_jobs=9))
    assert (restored.limits.max_jobs, restored.wanted.max_jobs, restored.epoch) == (5, 9, 2)


def test_a_long_history_shares_its_current_state() -> None:
    """The text of an error is written once, also where it is the current state."""
    lone = LoneStore()
    (job_id,) = lone.enqueue()
    restored = lone.twin.jobs[job_id]
    assert restored.current is restored.history[-1]


def test_counters_of_a_snapshot_are_those_of_the_moment() -> None:
    lone = LoneStore(careful=False)
    lone.do(IncrementCounter("k", 1))
    view = lone.store.snapshot()
    lone.do(IncrementCounter("k", 1))
    restored = JobStore.restore(view.chunks())
    assert restored.collections.counters.value("k") == 1


def test_a_queue_longer_than_a_segment_keeps_its_order() -> None:
    lone = LoneStore(careful=False)
    ids = lone.do(EnqueueJobs((NewJob("t"),) * 700))
    lone.do(EnqueueJobs((NewJob("t", priority=1),)))
    restored = JobStore.restore(lone.store.snapshot().chunks())
    queue = restored.queues["default"]
    assert [restored.pop_from_queue(queue) for _ in range(701)][1:] == list(ids)


def test_undecided_continuations_survive_in_their_order() -> None:
    lone = LoneStore(Limits(piece=1), careful=False)
    for _ in range(3):
        parent, *_ = lone.enqueue(NewJob("p"), *[NewJob("c", parent_id="#0")] * 9)
        lone.do(DeleteJob(parent))
    restored = JobStore.restore(lone.store.snapshot().chunks())
    assert list(restored.unresolved) == list(lone.store.unresolved)
    assert len(restored.unresolved) == 3
