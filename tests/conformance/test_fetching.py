"""Queues, fetching and leases, as the storage contract has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
import trio.testing

from quorker.core.errors import InvalidInput, Rejected
from quorker.core.jobs.commands import SetQueuePaused
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import State

pytestmark = pytest.mark.trio

Advance: TypeAlias = Callable[[int], Awaitable[None]]
NewJob: TypeAlias = Callable[..., Awaitable[str]]

INVISIBILITY_MS = 60_000


async def enqueue(storage: StorageConnection, queue: str, *job_ids: str) -> None:
    transaction = storage.create_write_transaction()
    for job_id in job_ids:
        transaction.add_to_queue(queue, job_id)
    await transaction.commit()


async def test_fetching_is_first_in_first_out(storage: StorageConnection, new_job: NewJob) -> None:
    ids = [await new_job(queue="default") for _ in range(3)]
    assert [(await storage.fetch_next_job(["default"])).job_id for _ in ids] == ids


async def test_nothing_to_fetch_is_none(storage: StorageConnection) -> None:
    assert await storage.try_fetch_next_job(["default"]) is None


async def test_the_order_of_queues_is_their_priority(storage: StorageConnection, new_job: NewJob) -> None:
    low = await new_job(queue="alow")
    high = await new_job(queue="zhigh")
    first = await storage.fetch_next_job(["zhigh", "alow"])
    second = await storage.fetch_next_job(["zhigh", "alow"])
    assert [(each.queue, each.job_id) for each in (first, second)] == [("zhigh", high), ("alow", low)]


async def test_other_queues_are_left_alone(storage: StorageConnection, new_job: NewJob) -> None:
    await new_job(queue="mail")
    assert await storage.try_fetch_next_job(["default"]) is None


async def test_ids_without_a_job_are_skipped(storage: StorageConnection, new_job: NewJob) -> None:
    await enqueue(storage, "default", "ghost1", "ghost2")
    job_id = await new_job(queue="default")
    assert (await storage.fetch_next_job(["default"])).job_id == job_id


async def test_an_id_enqueued_twice_is_fetched_twice(storage: StorageConnection, new_job: NewJob) -> None:
    job_id = await new_job()
    await enqueue(storage, "default", job_id, job_id)
    first = await storage.fetch_next_job(["default"])
    second = await storage.fetch_next_job(["default"])
    assert (first.job_id, second.job_id) == (job_id, job_id)
    assert first.token < second.token


async def test_tokens_increase(storage: StorageConnection, new_job: NewJob) -> None:
    await new_job(queue="default")
    first = await storage.fetch_next_job(["default"])
    await first.requeue()
    again = await storage.fetch_next_job(["default"])
    assert again.job_id == first.job_id
    assert again.token > first.token


async def test_fetching_does_not_change_the_state(storage: StorageConnection, new_job: NewJob) -> None:
    job_id = await new_job(state="Enqueued", queue="default")
    await storage.fetch_next_job(["default"])
    found = await storage.get_state_data(job_id)
    assert found is not None
    assert found.name == "Enqueued"


async def test_a_fetch_waits_until_something_is_enqueued(
    storage: StorageConnection, other: StorageConnection, new_job: NewJob
) -> None:
    job_id = await new_job()
    fetched: list[str] = []

    async def fetch() -> None:
        fetched.append((await other.fetch_next_job(["default"])).job_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch)
        await trio.testing.wait_all_tasks_blocked()
        assert fetched == []
        await enqueue(storage, "default", job_id)
    assert fetched == [job_id]


async def test_a_fetch_waits_until_something_is_requeued(
    storage: StorageConnection, other: StorageConnection, new_job: NewJob
) -> None:
    job_id = await new_job(queue="default")
    held = await storage.fetch_next_job(["default"])
    fetched: list[str] = []

    async def fetch() -> None:
        fetched.append((await other.fetch_next_job(["default"])).job_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch)
        await trio.testing.wait_all_tasks_blocked()
        await held.requeue()
    assert fetched == [job_id]


async def test_a_waiting_fetch_can_be_cancelled(storage: StorageConnection) -> None:
    with trio.move_on_after(0.01) as scope:
        await storage.fetch_next_job(["default"])
    assert scope.cancelled_caught


async def test_a_fetch_cancelled_at_entry_takes_nothing(storage: StorageConnection, new_job: NewJob) -> None:
    await new_job(queue="default")
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.fetch_next_job(["default"])
    assert scope.cancelled_caught
    assert await storage.monitoring.fetched_count("default") == 0


async def test_a_fetch_cancelled_under_way_gives_back_what_it_took(
    storage: StorageConnection, new_job: NewJob
) -> None:
    job_id = await new_job(queue="default")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.try_fetch_next_job, ["default"])
            await trio.lowlevel.checkpoint()
            scope.cancel()
    assert await storage.monitoring.fetched_count("default") == 0
    assert (await storage.fetch_next_job(["default"])).job_id == job_id


async def test_every_job_is_fetched_once_by_many_workers(
    storage: StorageConnection, other: StorageConnection, new_job: NewJob
) -> None:
    ids = [await new_job(queue="default") for _ in range(20)]
    taken: list[str] = []

    async def work(connection: StorageConnection) -> None:
        while (fetched := await connection.try_fetch_next_job(["default"])) is not None:
            taken.append(fetched.job_id)
            await fetched.remove_from_queue()

    async with trio.open_nursery() as nursery:
        for connection in (storage, other):
            for _ in range(4):
                nursery.start_soon(work, connection)
    assert sorted(taken) == sorted(ids)


async def test_an_acknowledged_job_is_gone_from_its_queue(
    storage: StorageConnection, new_job: NewJob
) -> None:
    await new_job(queue="default")
    fetched = await storage.fetch_next_job(["default"])
    assert await fetched.remove_from_queue()
    assert not await fetched.renew()
    assert await storage.try_fetch_next_job(["default"]) is None
    assert await storage.monitoring.fetched_count("default") == 0


async def test_acknowledging_twice_is_harmless(storage: StorageConnection, new_job: NewJob) -> None:
    await new_job(queue="default")
    fetched = await storage.fetch_next_job(["default"])
    assert await fetched.remove_from_queue()
    assert not await fetched.remove_from_queue()
    assert not await fetched.requeue()


async def test_a_requeued_job_returns_to_the_head(storage: StorageConnection, new_job: NewJob) -> None:
    first, second = await new_job(queue="default"), await new_job(queue="default")
    fetched = await storage.fetch_next_job(["default"])
    assert await fetched.requeue()
    order = [(await storage.fetch_next_job(["default"])).job_id for _ in range(2)]
    assert order == [first, second]


async def test_leaving_the_block_gives_the_job_back(storage: StorageConnection, new_job: NewJob) -> None:
    job_id = await new_job(queue="default")
    async with await storage.fetch_next_job(["default"]):
        assert await storage.monitoring.enqueued_count("default") == 0
    assert (await storage.fetch_next_job(["default"])).job_id == job_id


async def test_leaving_the_block_after_an_acknowledgement_gives_nothing_back(
    storage: StorageConnection, new_job: NewJob
) -> None:
    await new_job(queue="default")
    async with await storage.fetch_next_job(["default"]) as fetched:
        await fetched.remove_from_queue()
    assert await storage.try_fetch_next_job(["default"]) is None


async def test_the_block_gives_back_also_when_cancelled(storage: StorageConnection, new_job: NewJob) -> None:
    await new_job(queue="default")
    with trio.CancelScope() as scope:
        async with await storage.fetch_next_job(["default"]):
            scope.cancel()
            await trio.sleep_forever()
    assert await storage.monitoring.enqueued_count("default") == 1


async def test_a_lease_is_reclaimed_at_exactly_the_timeout(
    storage: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    job_id = await new_job(queue="default")
    fetched = await storage.fetch_next_job(["default"])
    await advance(INVISIBILITY_MS - 1)
    assert (await storage.maintain(INVISIBILITY_MS))["leases"] == 0
    await advance(1)
    assert (await storage.maintain(INVISIBILITY_MS))["leases"] == 1
    assert not await fetched.renew()
    assert (await storage.fetch_next_job(["default"])).job_id == job_id


async def test_a_renewed_lease_outlives_the_timeout(
    storage: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    await new_job(queue="default")
    fetched = await storage.fetch_next_job(["default"])
    for _ in range(3):
        await advance(INVISIBILITY_MS - 1)
        assert await fetched.renew()
        await storage.maintain(INVISIBILITY_MS)
    assert await fetched.remove_from_queue()


async def test_a_worker_that_lost_its_lease_cannot_acknowledge_for_the_new_owner(
    storage: StorageConnection, other: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    await new_job(queue="default")
    slow = await storage.fetch_next_job(["default"])
    await advance(INVISIBILITY_MS)
    await storage.maintain(INVISIBILITY_MS)
    owner = await other.fetch_next_job(["default"])
    assert not await slow.remove_from_queue()
    assert await owner.renew()


async def test_reclaimed_jobs_return_to_the_head_oldest_first(
    storage: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    ids = [await new_job(queue="default") for _ in range(4)]
    for _ in range(3):
        await storage.fetch_next_job(["default"])
    await advance(INVISIBILITY_MS)
    assert (await storage.maintain(INVISIBILITY_MS))["leases"] == 3
    assert [(await storage.fetch_next_job(["default"])).job_id for _ in ids] == ids


async def test_reclaimed_order_is_the_same_after_a_restart(
    storage: StorageConnection, new_job: NewJob, advance: Advance, restart: Callable[[], Awaitable[None]]
) -> None:
    ids = [await new_job(queue="default") for _ in range(3)]
    fetched = [await storage.fetch_next_job(["default"]) for _ in ids]
    await fetched[0].renew()
    await restart()
    await advance(INVISIBILITY_MS)
    await storage.maintain(INVISIBILITY_MS)
    order = [(await storage.fetch_next_job(["default"])).job_id for _ in ids]
    assert order == [ids[1], ids[2], ids[0]]


async def test_a_reclaimed_job_survives_the_next_pass(
    storage: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    job_id = await new_job(queue="default")
    await storage.fetch_next_job(["default"])
    await advance(INVISIBILITY_MS)
    first = await storage.maintain(INVISIBILITY_MS)
    second = await storage.maintain(INVISIBILITY_MS)
    assert (first["leases"], first["jobs"], second["leases"], second["jobs"]) == (1, 0, 0, 0)
    assert await storage.get_job_data(job_id) is not None


async def test_maintenance_drops_empty_queues(storage: StorageConnection, new_job: NewJob) -> None:
    await new_job(queue="default")
    await (await storage.fetch_next_job(["default"])).remove_from_queue()
    assert (await storage.maintain(INVISIBILITY_MS))["queues"] == 1
    assert await storage.monitoring.queues() == []


async def test_nothing_is_fetched_from_a_paused_queue(storage: StorageConnection, new_job: NewJob) -> None:
    job_id = await new_job(queue="default")
    await storage.connection.submit(SetQueuePaused("default", True, "inventory", "ops"))
    assert await storage.try_fetch_next_job(["default"]) is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(storage.fetch_next_job, ["default"])
        await trio.testing.wait_all_tasks_blocked()
        await storage.connection.submit(SetQueuePaused("default", False))
    assert [entry[0] for entry in await storage.monitoring.fetched_jobs("default", 0, 9)] == [job_id]


async def test_a_transaction_acknowledges_together_with_the_new_state(
    storage: StorageConnection, new_job: NewJob
) -> None:
    job_id = await new_job(queue="default")
    async with await storage.fetch_next_job(["default"]) as fetched:
        transaction = storage.create_write_transaction()
        transaction.set_job_state(job_id, State("Succeeded"))
        transaction.remove_from_queue(fetched)
        assert await transaction.commit() == [True, True]
    assert await storage.try_fetch_next_job(["default"]) is None


async def test_a_transaction_without_its_lease_does_nothing(
    storage: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    job_id = await new_job(state="Enqueued", queue="default")
    fetched = await storage.fetch_next_job(["default"])
    await advance(INVISIBILITY_MS)
    await storage.maintain(INVISIBILITY_MS)
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Succeeded"))
    transaction.remove_from_queue(fetched)
    with pytest.raises(Rejected) as refusal:
        await transaction.commit()
    assert refusal.value.reason == "precondition_failed"
    found = await storage.get_state_data(job_id)
    assert found is not None
    assert found.name == "Enqueued"


@pytest.mark.parametrize("queues", [[], [""], ["Upper"], ["a b"]])
async def test_wrong_queues_are_refused(storage: StorageConnection, queues: list[str]) -> None:
    with pytest.raises(InvalidInput):
        await storage.fetch_next_job(queues)
