"""Jobs, parameters, states and their expiry, as the storage contract has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from quorker.core.errors import InvalidInput
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import Invocation, JobData, State

pytestmark = pytest.mark.trio

Advance: TypeAlias = Callable[[int], Awaitable[None]]
NewJob: TypeAlias = Callable[..., Awaitable[str]]

DAY_MS = 24 * 3600 * 1000


async def test_a_created_job_reads_back_without_a_state(storage: StorageConnection) -> None:
    call = Invocation("send", b"\x00\xff", "mail")
    job_id = await storage.create_expired_job(call, {"culture": "de", "empty": None}, DAY_MS)
    found = await storage.get_job_data(job_id)
    assert found is not None
    assert found == JobData(job_id, call, None, found.created_wt, {"culture": "de", "empty": None})
    assert found.created_wt > 0
    assert await storage.get_state_data(job_id) is None


async def test_created_ids_differ_and_ascend(storage: StorageConnection) -> None:
    ids = [await storage.create_expired_job(Invocation("send"), {}, DAY_MS) for _ in range(3)]
    assert ids == sorted(set(ids))


async def test_a_missing_job_reads_as_none(storage: StorageConnection) -> None:
    assert await storage.get_job_data("nothing") is None
    assert await storage.get_state_data("nothing") is None
    assert await storage.get_job_parameter("nothing", "name") is None


async def test_an_id_that_no_job_can_have_reads_as_none(storage: StorageConnection) -> None:
    assert await storage.get_job_parameter("not an id!", "name") is None
    assert await storage.get_job_data("not an id!") is None


async def test_parameters_are_added_overwritten_and_nullable(
    storage: StorageConnection, new_job: NewJob
) -> None:
    job_id = await new_job()
    await storage.set_job_parameter(job_id, "a", "1")
    await storage.set_job_parameter(job_id, "a", "2")
    await storage.set_job_parameter(job_id, "b", None)
    assert await storage.get_job_parameter(job_id, "a") == "2"
    assert await storage.get_job_parameter(job_id, "b") is None
    assert await storage.get_job_parameter(job_id, "c") is None
    found = await storage.get_job_data(job_id)
    assert found is not None
    assert found.parameters == {"a": "2", "b": None}


async def test_a_parameter_of_a_missing_job_does_not_make_one(storage: StorageConnection) -> None:
    await storage.set_job_parameter("nothing", "a", "1")
    assert await storage.get_job_data("nothing") is None


async def test_a_state_moves_the_current_one_and_the_index(
    storage: StorageConnection, new_job: NewJob
) -> None:
    job_id = await new_job(state="Processing")
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Succeeded", "fine", {"Result": "42", "Nothing": None}))
    await transaction.commit()
    assert await storage.get_state_data(job_id) == State(
        "Succeeded", "fine", {"Result": "42", "Nothing": None}
    )
    found = await storage.get_job_data(job_id)
    assert found is not None
    assert found.state == "Succeeded"
    assert await storage.monitoring.processing_count() == 0
    assert [row["id"] for row in await storage.monitoring.succeeded_jobs(0, 9)] == [job_id]


async def test_state_data_ignores_case_and_the_last_of_equal_names_wins(
    storage: StorageConnection, new_job: NewJob
) -> None:
    job_id = await new_job()
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Enqueued", "", {"Queue": "a", "QUEUE": "b"}))
    await transaction.commit()
    found = await storage.get_state_data(job_id)
    assert found is not None
    assert found.data["queue"] == "b"
    assert found.data["qUeUe"] == "b"
    assert len(found.data) == 1


async def test_an_added_state_is_history_only(storage: StorageConnection, new_job: NewJob) -> None:
    job_id = await new_job(state="Enqueued")
    transaction = storage.create_write_transaction()
    transaction.add_job_state(job_id, State("Failed", "on the way"))
    await transaction.commit()
    found = await storage.get_state_data(job_id)
    assert found is not None
    assert found.name == "Enqueued"
    details = await storage.monitoring.job_details(job_id)
    assert details is not None
    assert [record["name"] for record in details["history"]] == ["Failed", "Enqueued"]
    assert await storage.monitoring.failed_count() == 0


async def test_reasons_are_kept_whole(storage: StorageConnection, new_job: NewJob) -> None:
    job_id = await new_job()
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Deleted", "r" * 1000))
    await transaction.commit()
    found = await storage.get_state_data(job_id)
    assert found is not None
    assert found.reason == "r" * 1000


async def test_operations_on_a_missing_job_do_nothing(storage: StorageConnection) -> None:
    transaction = storage.create_write_transaction()
    transaction.set_job_state("nothing", State("Enqueued"))
    transaction.add_job_state("nothing", State("Enqueued"))
    transaction.expire_job("nothing", 1000)
    transaction.persist_job("nothing")
    transaction.set_job_parameter("nothing", "a", "1")
    assert await transaction.commit() == [False] * 5
    assert await storage.get_job_data("nothing") is None


async def test_jobs_by_state_page_in_both_directions(storage: StorageConnection, new_job: NewJob) -> None:
    ids = [await new_job(state="Processing") for _ in range(5)]
    monitoring = storage.monitoring
    assert [row["id"] for row in await monitoring.processing_jobs(1, 3)] == ids[1:4]
    assert [row["id"] for row in await monitoring.processing_jobs(4, 10)] == ids[4:]
    assert await monitoring.processing_jobs(5, 10) == []
    assert await monitoring.processing_jobs(0, 0) == []
    for job_id in ids:
        transaction = storage.create_write_transaction()
        transaction.set_job_state(job_id, State("Failed"))
        await transaction.commit()
    assert [row["id"] for row in await monitoring.failed_jobs(0, 2)] == ids[:2:-1]
    assert [row["id"] for row in await monitoring.failed_jobs(1, 99)] == ids[3::-1]


async def test_jobs_that_enter_a_state_together_keep_the_order_of_the_transaction(
    storage: StorageConnection, new_job: NewJob
) -> None:
    first, second = await new_job(), await new_job()
    transaction = storage.create_write_transaction()
    transaction.set_job_state(second, State("Processing"))
    transaction.set_job_state(first, State("Processing"))
    await transaction.commit()
    assert [row["id"] for row in await storage.monitoring.processing_jobs(0, 9)] == [second, first]


async def test_a_job_is_evicted_at_its_expiry_and_not_before(
    storage: StorageConnection, advance: Advance
) -> None:
    job_id = await storage.create_expired_job(Invocation("send"), {}, 10_000)
    await advance(9_999)
    await storage.maintain(DAY_MS)
    assert await storage.get_job_data(job_id) is not None
    await advance(1)
    await storage.maintain(DAY_MS)
    assert await storage.get_job_data(job_id) is None


async def test_an_evicted_job_leaves_the_index_and_its_queue(
    storage: StorageConnection, advance: Advance
) -> None:
    job_id = await storage.create_expired_job(Invocation("send"), {}, 10_000)
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Enqueued"))
    transaction.add_to_queue("default", job_id)
    await transaction.commit()
    await advance(10_000)
    statistics = await storage.monitoring.statistics()
    assert (statistics["jobs"], statistics["enqueued"], statistics["queued"]) == (0, 0, 0)


async def test_expiry_is_set_and_cleared(
    storage: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    kept, expiring = await new_job(), await new_job()
    transaction = storage.create_write_transaction()
    transaction.persist_job(kept)
    transaction.expire_job(expiring, 1_000)
    await transaction.commit()
    details = await storage.monitoring.job_details(kept)
    assert details is not None
    assert details["expires_in_ms"] is None
    await advance(40 * DAY_MS)
    assert await storage.get_job_data(kept) is not None
    assert await storage.get_job_data(expiring) is None


async def test_an_expiry_counts_from_the_commit(
    storage: StorageConnection, new_job: NewJob, advance: Advance
) -> None:
    job_id = await new_job()
    transaction = storage.create_write_transaction()
    transaction.expire_job(job_id, 1_000)
    await advance(5_000)
    await transaction.commit()
    assert await storage.get_job_data(job_id) is not None


async def test_a_job_under_lease_is_not_evicted(storage: StorageConnection, advance: Advance) -> None:
    job_id = await storage.create_expired_job(Invocation("send"), {}, 10_000)
    transaction = storage.create_write_transaction()
    transaction.add_to_queue("default", job_id)
    await transaction.commit()
    fetched = await storage.fetch_next_job(["default"])
    await advance(20_000)
    assert await storage.get_job_data(job_id) is not None
    await fetched.requeue()
    assert await storage.monitoring.enqueued_count("default") == 1


async def test_a_requeued_job_does_not_expire(storage: StorageConnection, advance: Advance) -> None:
    job_id = await storage.create_expired_job(Invocation("send"), {}, 10_000)
    transaction = storage.create_write_transaction()
    transaction.add_to_queue("default", job_id)
    await transaction.commit()
    fetched = await storage.fetch_next_job(["default"])
    await fetched.requeue()
    await advance(20_000)
    assert await storage.get_job_data(job_id) is not None


async def test_a_finished_job_keeps_its_expiry_when_its_lease_is_given_back(
    storage: StorageConnection, advance: Advance
) -> None:
    """The worker ended the job and died before it acknowledged: the job must neither run again nor stay for ever."""
    job_id = await storage.create_expired_job(Invocation("send"), {}, DAY_MS)
    transaction = storage.create_write_transaction()
    transaction.add_to_queue("default", job_id)
    await transaction.commit()
    fetched = await storage.fetch_next_job(["default"])
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Succeeded"))
    transaction.expire_job(job_id, 10_000)
    await transaction.commit()
    await fetched.requeue()
    assert await storage.monitoring.enqueued_count("default") == 0
    await advance(10_000)
    assert await storage.get_job_data(job_id) is None


async def test_jobs_survive_a_restart(
    storage: StorageConnection, new_job: NewJob, restart: Callable[[], Awaitable[None]]
) -> None:
    job_id = await new_job(state="Enqueued", queue="default")
    await storage.set_job_parameter(job_id, "a", "1")
    await restart()
    found = await storage.get_job_data(job_id)
    assert found is not None
    assert (found.state, found.parameters) == ("Enqueued", {"a": "1"})
    assert (await storage.fetch_next_job(["default"])).job_id == job_id


@pytest.mark.parametrize(
    ("task", "queue", "expire_in_ms"),
    [
        ("", "default", 1),
        ("send", "", 1),
        ("send", "Upper", 1),
        ("send", "default", -1),
        ("se nd", "default", 1),
    ],
)
async def test_wrong_calls_are_refused(
    storage: StorageConnection, task: str, queue: str, expire_in_ms: int
) -> None:
    with pytest.raises(InvalidInput):
        await storage.create_expired_job(Invocation(task, b"", queue), {}, expire_in_ms)
