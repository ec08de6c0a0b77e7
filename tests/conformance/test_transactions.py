"""Write transactions: all or none, in order, with a value per operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from quorker.core.errors import InvalidInput, Rejected
from quorker.core.jobs.commands import (
    HashFieldIs,
    JobInState,
    JobMissing,
    LeaseHeld,
    LockHeld,
    Precondition,
    SetHolds,
)
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import Invocation, State, TransactionClosed
from quorker.transport.storage_transaction import WriteTransaction

pytestmark = pytest.mark.trio

NewJob: TypeAlias = Callable[..., Awaitable[str]]
MONTH_MS = 30 * 24 * 3600 * 1000


async def test_nothing_is_visible_before_the_commit(storage: StorageConnection, new_job: NewJob) -> None:
    job_id = await new_job()
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Enqueued"))
    transaction.add_to_queue("default", job_id)
    assert await storage.get_state_data(job_id) is None
    assert await storage.monitoring.enqueued_count("default") == 0
    await transaction.commit()
    found = await storage.get_state_data(job_id)
    assert found is not None
    assert found.name == "Enqueued"
    assert await storage.monitoring.enqueued_count("default") == 1


async def test_a_second_commit_is_refused(storage: StorageConnection) -> None:
    transaction = storage.create_write_transaction()
    transaction.increment_counter("k")
    await transaction.commit()
    with pytest.raises(TransactionClosed):
        await transaction.commit()
    with pytest.raises(TransactionClosed):
        transaction.increment_counter("k")
    assert await storage.get_counter("k") == 1


async def test_a_transaction_left_behind_is_closed(storage: StorageConnection) -> None:
    async with storage.create_write_transaction() as transaction:
        transaction.increment_counter("k")
    with pytest.raises(TransactionClosed):
        await transaction.commit()
    assert await storage.get_counter("k") == 0


async def test_an_empty_commit_sends_nothing(storage: StorageConnection, operations: set[int]) -> None:
    transaction = storage.create_write_transaction()
    assert await transaction.commit() == []
    assert operations == set()
    with pytest.raises(TransactionClosed):
        await transaction.commit()


async def test_a_commit_is_one_round(storage: StorageConnection) -> None:
    transaction = storage.create_write_transaction()
    for _ in range(10):
        transaction.increment_counter("k")
    before = (await storage.connection.status()).applied_index
    await transaction.commit()
    assert 1 <= (await storage.connection.status()).applied_index - before < 10


async def test_operations_keep_their_order_and_return_their_values(storage: StorageConnection) -> None:
    transaction = storage.create_write_transaction()
    transaction.add_to_set("k", "a")
    transaction.remove_set("k")
    transaction.add_to_set("k", "b")
    transaction.insert_to_list("k", "x")
    transaction.insert_to_list("k", "y")
    assert await transaction.commit() == [True, True, True, 1, 2]
    assert await storage.get_all_items_from_set("k") == {"b"}


async def test_a_job_made_in_a_transaction_has_its_id_at_once(storage: StorageConnection) -> None:
    transaction = storage.create_write_transaction()
    job_id = transaction.create_job(Invocation("send", b"1"), {"a": "1"}, MONTH_MS)
    transaction.set_job_state(job_id, State("Enqueued"))
    transaction.set_job_parameter(job_id, "b", "2")
    assert await storage.get_job_data(job_id) is None
    assert await transaction.commit() == [job_id, True, True]
    found = await storage.get_job_data(job_id)
    assert found is not None
    assert (found.state, found.parameters) == ("Enqueued", {"a": "1", "b": "2"})


async def test_preconditions_that_hold_let_the_commit_through(
    storage: StorageConnection, new_job: NewJob
) -> None:
    job_id, fresh = await new_job(state="Enqueued", queue="default"), await new_job()
    fetched = await storage.fetch_next_job(["default"])
    token = await storage.try_lock("jobs", "me", 60_000)
    await storage.set_range_in_hash("h", {"a": "1"})
    transaction = storage.create_write_transaction()
    conditions: list[Precondition] = [
        JobInState(job_id, ("Enqueued", "Scheduled")),
        JobInState(fresh, ("",)),
        JobMissing("nothing"),
        LockHeld("jobs", token),
        LeaseHeld(fetched.token),
        HashFieldIs("h", "a", "1"),
        HashFieldIs("h", "b", None),
        SetHolds("s", "a", False),
    ]
    for condition in conditions:
        transaction.require(condition)
    transaction.increment_counter("k")
    assert await transaction.commit() == [1]


FAILING: list[Precondition] = [
    JobInState("nothing", ("Enqueued",)),
    LockHeld("jobs", 1),
    LeaseHeld(1),
    HashFieldIs("h", "a", "1"),
    SetHolds("s", "a", True),
]


@pytest.mark.parametrize("condition", FAILING, ids=lambda condition: type(condition).__name__)
async def test_a_failed_precondition_leaves_no_trace(
    storage: StorageConnection, condition: Precondition
) -> None:
    transaction = storage.create_write_transaction()
    transaction.create_job(Invocation("send"), {}, MONTH_MS)
    transaction.increment_counter("k")
    transaction.require(JobMissing("nothing"))
    transaction.require(condition)
    with pytest.raises(Rejected) as refusal:
        await transaction.commit()
    assert refusal.value.reason == "precondition_failed"
    assert refusal.value.detail.startswith("1")
    assert await storage.get_counter("k") == 0
    assert (await storage.monitoring.statistics())["jobs"] == 0
    with pytest.raises(TransactionClosed):
        await transaction.commit()


WRONG: list[Callable[[WriteTransaction], Any]] = [
    lambda tx: tx.increment_counter(""),
    lambda tx: tx.increment_counter("k", -1),
    lambda tx: tx.decrement_counter(""),
    lambda tx: tx.add_to_set("", "a"),
    lambda tx: tx.add_to_set("k", None),  # type: ignore[arg-type]
    lambda tx: tx.add_to_set("k", "a", float("nan")),
    lambda tx: tx.add_range_to_set("", ["a"]),
    lambda tx: tx.add_range_to_set("k", [None]),  # type: ignore[list-item]
    lambda tx: tx.remove_from_set("", "a"),
    lambda tx: tx.remove_set(""),
    lambda tx: tx.expire_set("", 1),
    lambda tx: tx.expire_set("k", 2**41),
    lambda tx: tx.persist_set(""),
    lambda tx: tx.insert_to_list("", "a"),
    lambda tx: tx.remove_from_list("", "a"),
    lambda tx: tx.trim_list("", 0, 1),
    lambda tx: tx.trim_list("k", 0, 2**63),
    lambda tx: tx.expire_list("", 1),
    lambda tx: tx.persist_list(""),
    lambda tx: tx.set_range_in_hash("", {"a": "1"}),
    lambda tx: tx.set_range_in_hash("k", None),  # type: ignore[arg-type]
    lambda tx: tx.set_range_in_hash("k", {"a": 1}),  # type: ignore[dict-item]
    lambda tx: tx.remove_hash(""),
    lambda tx: tx.expire_hash("", 1),
    lambda tx: tx.persist_hash(""),
    lambda tx: tx.create_job(Invocation(""), {}, 1),
    lambda tx: tx.create_job(Invocation("send"), {"": "1"}, 1),
    lambda tx: tx.set_job_parameter("", "a", "1"),
    lambda tx: tx.set_job_parameter("id", "", "1"),
    lambda tx: tx.set_job_state("", State("Enqueued")),
    lambda tx: tx.set_job_state("id", State("")),
    lambda tx: tx.add_job_state("", State("Enqueued")),
    lambda tx: tx.expire_job("", 1),
    lambda tx: tx.expire_job("id", -1),
    lambda tx: tx.persist_job(""),
    lambda tx: tx.add_to_queue("", "id"),
    lambda tx: tx.add_to_queue("default", ""),
    lambda tx: tx.add_to_set("k", "\ud800"),
]


@pytest.mark.parametrize("wrong", range(len(WRONG)))
async def test_wrong_arguments_are_refused_when_they_are_given(
    storage: StorageConnection, wrong: int
) -> None:
    transaction = storage.create_write_transaction()
    with pytest.raises(InvalidInput):
        WRONG[wrong](transaction)
    assert await transaction.commit() == []


async def test_a_transaction_that_is_too_large_is_refused_at_once(storage: StorageConnection) -> None:
    transaction = storage.create_write_transaction()
    for number in range(4):
        transaction.insert_to_list("k", str(number) * 250_000)
    with pytest.raises(
        InvalidInput, match=r"Batch has 1000\d\d\d bytes: one command has at most 786432; split it"
    ):
        await transaction.commit()
    assert await storage.get_all_items_from_list("k") == []


async def test_too_many_operations_are_refused_as_a_whole(storage: StorageConnection) -> None:
    transaction = storage.create_write_transaction()
    for _ in range(1001):
        transaction.increment_counter("k")
    with pytest.raises(InvalidInput):
        await transaction.commit()
    assert await storage.get_counter("k") == 0


READS: list[Callable[[StorageConnection], Awaitable[Any]]] = [
    lambda storage: storage.get_all_items_from_set(""),
    lambda storage: storage.get_set_count(""),
    lambda storage: storage.get_set_count_limited([""], 1),
    lambda storage: storage.get_set_contains("", "a"),
    lambda storage: storage.get_set_contains("k", None),  # type: ignore[arg-type]
    lambda storage: storage.get_range_from_set("", 0, 1),
    lambda storage: storage.get_set_ttl(""),
    lambda storage: storage.get_all_entries_from_hash(""),
    lambda storage: storage.get_value_from_hash("", "a"),
    lambda storage: storage.get_value_from_hash("k", None),  # type: ignore[arg-type]
    lambda storage: storage.get_hash_count(""),
    lambda storage: storage.get_hash_ttl(""),
    lambda storage: storage.get_all_items_from_list(""),
    lambda storage: storage.get_range_from_list("", 0, 1),
    lambda storage: storage.get_list_count(""),
    lambda storage: storage.get_list_ttl(""),
    lambda storage: storage.get_counter(""),
    lambda storage: storage.get_job_data(""),
    lambda storage: storage.get_state_data(""),
    lambda storage: storage.get_job_parameter("", "a"),
    lambda storage: storage.get_job_parameter("id", ""),
    lambda storage: storage.set_job_parameter("", "a", "1"),
    lambda storage: storage.set_range_in_hash("", {}),
    lambda storage: storage.monitoring.job_details(""),
    lambda storage: storage.monitoring.enqueued_jobs("", 0, 1),
    lambda storage: storage.monitoring.enqueued_jobs("default", -1, 1),
    lambda storage: storage.monitoring.failed_jobs(0, -1),
    lambda storage: storage.monitoring.counts_by_date("everything"),
]


@pytest.mark.parametrize("wrong", range(len(READS)))
async def test_wrong_reads_are_refused(storage: StorageConnection, wrong: int) -> None:
    with pytest.raises(InvalidInput):
        await READS[wrong](storage)
