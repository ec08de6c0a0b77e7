"""What one connection sees of its own writes and of those of others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio

from quorker.transport.storage import StorageConnection

pytestmark = pytest.mark.trio

NewJob: TypeAlias = Callable[..., Awaitable[str]]


async def test_own_writes_are_seen_at_once(storage: StorageConnection) -> None:
    for number in range(20):
        await storage.set_range_in_hash("k", {"a": str(number)})
        assert await storage.get_value_from_hash("k", "a") == str(number)


async def test_a_linearizable_read_sees_what_others_have_written(
    storage: StorageConnection, other: StorageConnection
) -> None:
    careful = StorageConnection(other.connection, "linearizable")
    for number in range(20):
        await storage.set_range_in_hash("k", {"a": str(number)})
        assert await careful.get_value_from_hash("k", "a") == str(number)


async def test_after_an_own_write_everything_acknowledged_before_is_seen(
    storage: StorageConnection, other: StorageConnection
) -> None:
    for number in range(20):
        await storage.set_range_in_hash("k", {"a": str(number)})
        await other.set_range_in_hash("other", {"a": str(number)})
        assert await other.get_value_from_hash("k", "a") == str(number)


async def test_jobs_written_through_any_connection_are_drained_through_one(
    storage: StorageConnection, other: StorageConnection, new_job: NewJob
) -> None:
    made = [await new_job(queue="default") for _ in range(3)]
    transaction = other.create_write_transaction()
    for job_id in made:
        transaction.add_to_queue("mail", job_id)
    await transaction.commit()
    drained = [(await other.fetch_next_job(["default", "mail"])).job_id for _ in range(6)]
    assert drained == made + made


async def test_counters_add_up_across_connections(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async def count(connection: StorageConnection) -> None:
        for _ in range(10):
            transaction = connection.create_write_transaction()
            transaction.increment_counter("k")
            await transaction.commit()

    async with trio.open_nursery() as nursery:
        for connection in (storage, other, storage, other):
            nursery.start_soon(count, connection)
    await storage.get_utc_datetime()
    assert await storage.get_counter("k") == 40


async def test_answers_say_how_far_they_have_seen(storage: StorageConnection) -> None:
    before = await storage.connection.query("clock", {})
    await storage.set_range_in_hash("k", {"a": "1"})
    after = await storage.connection.query("clock", {}, consistency="linearizable")
    assert after.applied_index > before.applied_index
    assert after.age_ms >= 0
