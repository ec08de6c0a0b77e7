"""The state machine as a whole: total for any bytes, one handler per command, tokens that only grow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.jobs import commands, store, tables
from quorker.core.jobs.batch import BadEntry, decode_entry, decode_group, encode_entry, encode_group
from quorker.core.jobs.commands import (
    AcquireLock,
    Command,
    CompleteJob,
    EnqueueJobs,
    FetchJobs,
    IncrementCounter,
    KeepAlive,
    ReleaseLock,
    TryLock,
    encode,
)
from quorker.core.jobs.ids import job_id_of
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.outcome import Reply
from quorker.core.jobs.store import HANDLERS, JobStore
from quorker.core.jobs.tables import ORDINALS_FOR_COMMANDS, ORDINALS_MAX, Tables
from quorker.sim.bare.lone_store import LoneStore
from quorker.sim.bare.store_traffic import SMALL_LIMITS, StoreTraffic
from quorker.sim.oracles.store_invariants import check_store

_codec: Any = msgpack

HOSTILE: list[Any] = [
    b"\x00", b"\xc1", b"\x93", b"\x93\x01\x02", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 2000,
    b"\xd6\xff\x00\x00\x00\x00", b"\xa1\xff", b"\x93\x00\x00\x90trailing", b"\x80", b"\x93\xc3\xc3\x90",
]  # fmt: skip


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


# --- total ---


@pytest.mark.parametrize("data", HOSTILE)
def test_bytes_without_meaning_have_no_effect_and_raise_an_alarm(lone: LoneStore, data: bytes) -> None:
    lone.enqueue()
    before = lone.store.applied_index
    jobs = dict(lone.store.jobs)
    outcome = lone.apply(data)
    assert outcome.replies == []
    assert lone.store.applied_index == before + 1
    assert lone.store.jobs == jobs
    assert len(outcome.faults) == 1 or data == b"\x93\xc3\xc3\x90"


def test_no_bytes_at_all_are_raft_s_own_entry(lone: LoneStore) -> None:
    outcome = lone.apply(b"")
    assert (outcome.replies, outcome.faults) == ([], [])


def test_a_bad_group_does_not_spoil_its_neighbours(lone: LoneStore) -> None:
    good = encode_group(0, 0, [(1, encode(IncrementCounter("k", 1)))])
    bad = [b"", b"\x01", b"\xc1", _codec.packb([0, 0]), _codec.packb([-1, 0, []]), _codec.packb([0, -1, []])]
    bad += [
        _codec.packb([0, 0, [[1]]]),
        _codec.packb([0, 0, [["1", [66]]]]),
        _codec.packb([0, 0, [[-1, [66]]]]),
    ]
    outcome = lone.apply(encode_entry(0, 0, [each for group in bad for each in (group, good)]))
    assert len(outcome.faults) == len(bad)
    assert lone.store.collections.counters.value("k") == len(bad)


def test_a_bad_command_does_not_spoil_its_neighbours(lone: LoneStore) -> None:
    numbered = [
        (1, encode(IncrementCounter("k", 1))),
        (2, [999]),
        (3, None),
        (4, encode(IncrementCounter("k", 1))),
    ]
    outcome = lone.apply(encode_entry(0, 0, [encode_group(0, 0, numbered)]))
    assert [reply[0] for _, _, reply in outcome.replies] == [0, 1, 1, 0]
    assert [reply[1] for _, _, reply in outcome.replies[1:3]] == ["bad_command"] * 2
    assert lone.store.collections.counters.value("k") == 2


@cache
def some_state() -> list[bytes]:
    """A snapshot with a bit of everything."""
    traffic = StoreTraffic(5)
    for _ in traffic.entries(60):
        pass
    return list(traffic.store.snapshot().chunks())


def assert_total(data: bytes) -> None:
    """Two replicas, one of them restored from the other, take it alike; neither raises nor stumbles over a bug."""
    one = JobStore.restore(some_state(), SMALL_LIMITS)
    other = JobStore.restore(one.snapshot().chunks(), SMALL_LIMITS)
    outcome = one.apply(one.applied_index + 1, data)
    assert other.apply(other.applied_index + 1, data) == outcome
    assert not [fault for fault in outcome.faults if fault.startswith("bug")]
    assert one.digest() == other.digest()
    check_store(one)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    assert_total(data)


@settings(deadline=None)
@given(anything)
def test_arbitrary_msgpack(value: Any) -> None:
    assert_total(_codec.packb(value))


@settings(deadline=None)
@given(st.integers(0, 99), st.lists(anything, max_size=6))
def test_arbitrary_arguments_of_any_command(op: int, arguments: list[Any]) -> None:
    assert_total(encode_entry(0, 0, [_codec.packb([0, 0, [[1, [op, *arguments]]]])]))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_mutated_valid_entries(seed: int, data: st.DataObject) -> None:
    entry = bytearray(StoreTraffic(seed).entry())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(entry) - 1))
        entry[at] = data.draw(st.integers(0, 255))
    assert_total(bytes(entry[: data.draw(st.integers(0, len(entry)))] if data.draw(st.booleans()) else entry))


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_decoding_raises_bad_entry_and_nothing_else(data: bytes) -> None:
    for decode in (decode_entry, decode_group):
        with suppress(BadEntry):
            assert len(decode(data)) == 3


def test_an_entry_comes_back_as_it_went() -> None:
    group = encode_group(5, 3, [(7, encode(KeepAlive()))])
    assert decode_entry(encode_entry(1, 2, [group, b""])) == (1, 2, [group, b""])
    assert decode_group(group) == (5, 3, [[7, [66]]])


# --- the table ---


def test_every_command_has_a_handler() -> None:
    assert set(HANDLERS) == {each.OP for each in commands.COMMAND_TYPES}


# --- bugs of ours ---


def broken(error: Exception) -> Callable[..., Reply]:
    def handler(*_: Tables | Command) -> Reply:
        raise error

    return handler


def test_a_bug_in_a_handler_refuses_its_command_raises_an_alarm_and_stops_nobody(
    lone: LoneStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HANDLERS, KeepAlive.OP, broken(KeyError("oops")))
    lone.careful = False
    replies = lone.entry((0, KeepAlive()), (0, IncrementCounter("k", 1)))
    assert replies == [(1, "internal_error", "KeyError"), (0, 1)]
    (fault,) = lone.outcome.faults
    assert "KeepAlive" in fault
    assert "oops" in fault


def test_a_bug_in_dispatch_raises_an_alarm_and_stops_nobody(
    lone: LoneStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "settle", broken(IndexError()))
    lone.careful = False
    assert len(lone.enqueue()) == 1
    assert len(lone.outcome.faults) == 1


@pytest.mark.parametrize("error", [MemoryError(), RecursionError()])
def test_what_depends_on_the_machine_stops_this_member(
    lone: LoneStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(HANDLERS, KeepAlive.OP, broken(error))
    with pytest.raises(type(error)):
        lone.entry((0, KeepAlive()))


# --- tokens ---


def test_tokens_are_made_of_epoch_index_and_ordinal() -> None:
    lone = LoneStore(epoch=3)
    index = lone.store.applied_index + 1
    assert lone.do(TryLock("r", "me", 10)) == 3 << 55 | index << 16 | 1
    (one, other) = lone.enqueue(NewJob("a"), NewJob("b"))
    assert [one, other] == [job_id_of(3 << 55 | index + 1 << 16 | ordinal) for ordinal in (1, 2)]


def test_tokens_strictly_increase(lone: LoneStore) -> None:
    tokens: list[int] = []
    for round_number in range(3):
        session = lone.worker(slots=2, name=f"w{round_number}")
        lone.enqueue(NewJob("a"), NewJob("b"))
        tokens += [session, *[grant.token for grant in lone.take_grants()]]
        tokens.append(lone.do(AcquireLock(f"r{round_number}"), session)[1])
    assert tokens == sorted(set(tokens))


def test_tokens_increase_across_a_restore_from_a_backup(lone: LoneStore) -> None:
    """The backup may be older than what was granted since: the epoch makes up for it."""
    backup = list(lone.store.snapshot().chunks())
    last = max(lone.do(TryLock(f"r{number}", "me", 10)) for number in range(5))
    restored = JobStore.restore(backup, epoch=1)
    index = restored.applied_index + 1
    reply = restored.apply(
        index, encode_entry(0, 0, [encode_group(0, 0, [(1, encode(TryLock("r", "me", 10)))])])
    )
    assert reply.replies[0][2][1] > last
    assert JobStore.restore(restored.snapshot().chunks()).epoch == 1


def test_an_index_that_goes_back_is_a_bug_of_the_caller(lone: LoneStore) -> None:
    lone.apply(b"")
    with pytest.raises(AssertionError):
        lone.store.apply(lone.store.applied_index, b"")


def test_indexes_may_have_gaps() -> None:
    """Raft's own entries do not come here."""
    store = JobStore()
    store.apply(5, b"")
    store.apply(9, b"")
    assert store.applied_index == 9


# --- an entry that is too full ---


def test_most_tokens_of_an_entry_are_for_commands_and_some_for_grants() -> None:
    assert 2**15 < ORDINALS_FOR_COMMANDS < ORDINALS_MAX == 2**16 - 1


@pytest.fixture
def _small_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that can make 1023 tokens, of which commands may use 900."""
    monkeypatch.setattr(tables, "ORDINALS_MAX", 1023)
    monkeypatch.setattr(store, "ORDINALS_MAX", 1023)
    monkeypatch.setattr(store, "ORDINALS_FOR_COMMANDS", 900)


def big_entry(jobs: int) -> bytes:
    command = encode(EnqueueJobs((NewJob("t"),) * 10))
    return encode_entry(0, 0, [encode_group(0, 0, [(0, command)] * (jobs // 10))])


@pytest.mark.usefixtures("_small_entries")
def test_an_entry_that_runs_out_of_tokens_refuses_makers_and_dispatches_on_with_the_next() -> None:
    lone = LoneStore(careful=False)
    sessions = [lone.worker(slots=100, name=f"w{number}") for number in range(8)]
    outcome = lone.apply(big_entry(1200))
    refused = [reply for _, _, reply in outcome.replies if reply[0] == 1]
    assert {reply[1] for reply in refused} == {"entry_full"}
    assert len(lone.store.jobs) == 910
    granted = len(outcome.notices)
    assert granted == 1023 - 910
    assert lone.store.stirred == {"default": None}
    assert lone.store.next_due()[0] is not None
    replica = JobStore.restore(lone.store.snapshot().chunks())
    data = encode_entry(0, 0, [encode_group(0, 0, [(0, wire) for wire in lone.store.due(0, 0)])])
    index = lone.store.applied_index + 1
    assert replica.apply(index, data) == lone.apply(data)
    assert replica.digest() == lone.store.digest()
    assert granted + len(lone.outcome.notices) == 8 * 100
    assert all(lone.store.sessions[session].busy == 100 for session in sessions)
    check_store(lone.store)


@pytest.mark.usefixtures("_small_entries")
def test_a_full_entry_still_completes_and_releases() -> None:
    lone = LoneStore(careful=False)
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    grant = lone.take_grant()
    token = lone.do(AcquireLock("r"), worker)[1]
    lone.do(AcquireLock("r", 0, True), worker)
    fill = [(0, encode(EnqueueJobs((NewJob("t"),) * 10)))] * 100
    late = [
        (7001, encode(CompleteJob(job_id, grant.token))),
        (7002, encode(ReleaseLock("r", token))),
        (7003, encode(FetchJobs(("default",), 5))),
    ]
    lone.apply(encode_entry(0, 0, [encode_group(0, 0, fill), encode_group(worker, 7000, late)]))
    replies = {seq: reply for session, seq, reply in lone.outcome.replies if session}
    assert replies[7001][0] == replies[7002][0] == 0
    assert replies[7003][1] == "entry_full"
    check_store(lone.store)


def test_a_lock_that_finds_no_token_is_passed_on_by_the_next_command() -> None:
    lone = LoneStore(careful=False)
    one, other = lone.open("one"), lone.open("other")
    token = lone.do(AcquireLock("r"), one)[1]
    lone.do(AcquireLock("r", 0, True), other)
    index = lone.store.applied_index + 1
    lone.store.begin(index, lone.outcome)
    while lone.store.tokens_left:
        lone.store.next_token()
    assert HANDLERS[ReleaseLock.OP](lone.store, ReleaseLock("r", token)) == (0, True)
    assert lone.store.locks["r"].session == 0
    assert lone.pass_time(1) >= 1
    assert lone.store.locks["r"].session == other
    assert [grant.resource for grant in lone.take_locks()] == ["r"]
