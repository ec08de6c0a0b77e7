"""What a dashboard reads: statistics, queues, pages, details, history of counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TypeAlias

import pytest

from quorker.core.errors import Rejected
from quorker.core.jobs.commands import (
    CompleteJob,
    DeleteJob,
    EnqueueJobs,
    FailJob,
    FetchJobs,
    NewJob,
    RetryPolicy,
    grant_from_wire,
)
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import ServerContext, State

pytestmark = pytest.mark.trio

MakeJob: TypeAlias = Callable[..., Awaitable[str]]
Advance: TypeAlias = Callable[[int], Awaitable[None]]
HUGE = 2**63 - 1


async def enqueued(storage: StorageConnection, *jobs: NewJob) -> list[str]:
    return list(await storage.connection.submit(EnqueueJobs(jobs)))


async def run_one(storage: StorageConnection, error: str = "") -> str:
    """Take the next job of the default queue and end it."""
    (wire,) = await storage.connection.submit(FetchJobs(("default",), 1))
    grant = grant_from_wire(wire)
    if error:
        await storage.connection.submit(FailJob(grant.job_id, grant.token, error, "went wrong", "at line 1"))
    else:
        await storage.connection.submit(CompleteJob(grant.job_id, grant.token, b"42"))
    return grant.job_id


async def test_statistics_count_everything(storage: StorageConnection, new_job: MakeJob) -> None:
    for _ in range(4):
        await new_job(state="Enqueued", queue="default")
    await storage.fetch_next_job(["default"])
    await new_job(state="Processing")
    await new_job(state="Failed")
    await new_job(state="Awaiting")
    await enqueued(storage, NewJob("later", delay_ms=10**9))
    await storage.announce_server("a", ServerContext(1, ()))
    transaction = storage.create_write_transaction()
    transaction.add_to_set("recurring-jobs", "r", -1.0)
    transaction.add_to_set("retries", "x")
    transaction.add_to_set("retries", "y")
    await transaction.commit()
    expected = {
        "servers": 1,
        "recurring": 1,
        "enqueued": 4,
        "queued": 3,
        "fetched": 1,
        "queues": 1,
        "scheduled": 1,
        "processing": 1,
        "succeeded": 0,
        "failed": 1,
        "deleted": 0,
        "retries": 2,
        "awaiting": 1,
        "quarantined": 0,
        "jobs": 8,
        "limits": 0,
        "limited": 0,
    }
    assert await storage.monitoring.statistics() == expected


async def test_statistics_of_an_empty_store_are_zero(storage: StorageConnection) -> None:
    assert set((await storage.monitoring.statistics()).values()) == {0}


async def test_queues_come_by_name_with_their_first_entries(
    storage: StorageConnection, new_job: MakeJob
) -> None:
    ids = [await new_job(state="Enqueued", queue="b") for _ in range(7)]
    await new_job(queue="a")
    await storage.fetch_next_job(["b"])
    first, second = await storage.monitoring.queues()
    assert (first["name"], first["length"], first["fetched"]) == ("a", 1, 0)
    assert (second["name"], second["length"], second["fetched"]) == ("b", 6, 1)
    assert [job_id for job_id, _ in second["first"]] == ids[1:6]


async def test_enqueued_page_shows_ghosts_and_flags_other_states(
    storage: StorageConnection, new_job: MakeJob
) -> None:
    good = await new_job(state="Enqueued", queue="default")
    odd = await new_job(state="Failed", queue="default")
    transaction = storage.create_write_transaction()
    transaction.add_to_queue("default", "ghost")
    transaction.add_to_queue("default", good)
    await transaction.commit()
    entries = await storage.monitoring.enqueued_jobs("default", 0, HUGE)
    assert [job_id for job_id, _ in entries] == [good, odd, "ghost", good]
    rows = [row for _, row in entries]
    assert [row and row["in_state"] for row in rows] == [True, False, None, True]
    assert await storage.monitoring.enqueued_count("default") == 4


async def test_pages_do_not_overflow(storage: StorageConnection, new_job: MakeJob) -> None:
    ids = [await new_job(state="Failed", queue="default") for _ in range(3)]
    failed = await storage.monitoring.failed_jobs(1, HUGE)
    assert [row["id"] for row in failed] == ids[1::-1]
    assert [entry[0] for entry in await storage.monitoring.enqueued_jobs("default", 2, HUGE)] == ids[2:]
    assert await storage.monitoring.enqueued_jobs("default", 2**62, HUGE) == []
    assert await storage.monitoring.enqueued_jobs("nothing", 0, 9) == []


async def test_requeued_entries_stand_at_the_head_of_the_page(
    storage: StorageConnection, new_job: MakeJob
) -> None:
    ids = [await new_job(queue="default") for _ in range(4)]
    fetched = [await storage.fetch_next_job(["default"]) for _ in range(2)]
    for each in fetched:
        await each.requeue()
    order = [ids[1], ids[0], ids[2], ids[3]]
    assert [entry[0] for entry in await storage.monitoring.enqueued_jobs("default", 0, 9)] == order
    assert [entry[0] for entry in await storage.monitoring.enqueued_jobs("default", 1, 2)] == order[1:3]


async def test_fetched_page_shows_the_lease(storage: StorageConnection, new_job: MakeJob) -> None:
    job_id = await new_job(state="Enqueued", queue="default")
    fetched = await storage.fetch_next_job(["default"])
    ((shown, row),) = await storage.monitoring.fetched_jobs("default", 0, 9)
    assert shown == job_id
    assert row is not None
    assert (row["lease"]["token"], row["lease"]["kind"]) == (fetched.token, "fetched")
    assert row["lease"]["since_wt"] > 0
    assert await storage.monitoring.fetched_count("default") == 1
    assert await storage.monitoring.fetched_jobs("nothing", 0, 9) == []
    assert await storage.monitoring.fetched_count("nothing") == 0


async def test_scheduled_page_is_ordered_by_due_time(storage: StorageConnection) -> None:
    ids = await enqueued(
        storage,
        NewJob("a", delay_ms=3_000_000),
        NewJob("b", delay_ms=1_000_000),
        NewJob("c", delay_ms=2_000_000),
    )
    entries = await storage.monitoring.scheduled_jobs(0, 9)
    assert [job_id for job_id, _ in entries] == [ids[1], ids[2], ids[0]]
    assert await storage.monitoring.scheduled_count() == 3


async def test_scheduled_page_shows_members_with_a_queue_and_ghosts(
    storage: StorageConnection, new_job: MakeJob
) -> None:
    """`queue:id` is how the contract's users schedule a job that carries its own queue."""
    plain, queued = await new_job(state="Scheduled"), await new_job(state="Scheduled")
    far = 4_000_000_000.0
    transaction = storage.create_write_transaction()
    transaction.add_to_set("schedule", plain, far + 2)
    transaction.add_to_set("schedule", f"mail:{queued}", far + 1)
    transaction.add_to_set("schedule", "ghost", far + 3)
    await transaction.commit()
    (soon,) = await enqueued(storage, NewJob("a", delay_ms=60_000))
    entries = await storage.monitoring.scheduled_jobs(0, 9)
    assert [job_id for job_id, _ in entries] == [soon, queued, plain, "ghost"]
    assert [row and row["due_wt"] for _, row in entries][1:] == [
        int(far + 1) * 1000,
        int(far + 2) * 1000,
        None,
    ]
    assert [job_id for job_id, _ in await storage.monitoring.scheduled_jobs(1, 2)] == [queued, plain]
    assert await storage.monitoring.scheduled_count() == 4


async def test_awaiting_page_shows_the_current_state_of_the_parent(storage: StorageConnection) -> None:
    parent, child = await enqueued(storage, NewJob("a"), NewJob("b", parent_id="#0"))
    (row,) = await storage.monitoring.awaiting_jobs(0, 9)
    assert (row["id"], row["parent"]) == (child, {"id": parent, "state": "Enqueued"})
    await storage.connection.submit(FetchJobs(("default",), 1))
    (row,) = await storage.monitoring.awaiting_jobs(0, 9)
    assert row["parent"]["state"] == "Processing"
    assert await storage.monitoring.awaiting_count() == 1


async def test_awaiting_page_reads_the_parent_that_a_contract_user_wrote(
    storage: StorageConnection, new_job: MakeJob
) -> None:
    parent, child = await new_job(state="Processing"), await new_job()
    transaction = storage.create_write_transaction()
    transaction.set_job_state(child, State("Awaiting", "", {"ParentId": parent}))
    await transaction.commit()
    (row,) = await storage.monitoring.awaiting_jobs(0, 9)
    assert row["parent"] == {"id": parent, "state": "Processing"}


async def test_succeeded_page_shows_latency_and_duration(
    storage: StorageConnection, advance: Advance
) -> None:
    await enqueued(storage, NewJob("a"))
    await advance(500)
    (wire,) = await storage.connection.submit(FetchJobs(("default",), 1))
    grant = grant_from_wire(wire)
    await advance(1_500)
    await storage.connection.submit(CompleteJob(grant.job_id, grant.token))
    (row,) = await storage.monitoring.succeeded_jobs(0, 9)
    assert (row["data"]["latency_ms"], row["data"]["duration_ms"]) == (500, 1_500)
    assert row["state_wt"] == row["created_wt"] + 2_000


async def test_failed_page_shows_the_error(storage: StorageConnection) -> None:
    await enqueued(storage, NewJob("a", retry=RetryPolicy(attempts=0)))
    job_id = await run_one(storage, error="ValueError")
    (row,) = await storage.monitoring.failed_jobs(0, 9)
    assert row["id"] == job_id
    assert (row["data"]["error_type"], row["data"]["message"]) == ("ValueError", "went wrong")
    assert row["failures"] == 1


async def test_pages_show_the_call_also_when_nobody_can_run_it(storage: StorageConnection) -> None:
    await enqueued(storage, NewJob("gone.module:task", b"\xff\xfe not for anybody", queue="mail", priority=7))
    ((_, row),) = await storage.monitoring.enqueued_jobs("mail", 0, 9)
    assert row is not None
    assert (row["task"], row["args"], row["queue"], row["priority"]) == (
        "gone.module:task",
        b"\xff\xfe not for anybody",
        "mail",
        7,
    )


async def test_counts_come_from_the_index(storage: StorageConnection, new_job: MakeJob) -> None:
    for state in ("Processing", "Succeeded", "Failed", "Deleted", "Awaiting"):
        await new_job(state=state)
    monitoring = storage.monitoring
    counts = [
        await monitoring.processing_count(),
        await monitoring.succeeded_list_count(),
        await monitoring.failed_count(),
        await monitoring.deleted_list_count(),
        await monitoring.awaiting_count(),
    ]
    assert counts == [1] * 5
    assert len(await monitoring.deleted_jobs(0, 9)) == 1


async def test_details_of_a_missing_job_are_none(storage: StorageConnection) -> None:
    assert await storage.monitoring.job_details("nothing") is None


async def test_details_show_history_newest_first_parameters_and_expiry(
    storage: StorageConnection, new_job: MakeJob
) -> None:
    job_id = await new_job(state="Enqueued", queue="default")
    await storage.set_job_parameter(job_id, "RetryCount", "1")
    transaction = storage.create_write_transaction()
    transaction.set_job_state(job_id, State("Processing", "by hand", {"ServerId": "a"}))
    transaction.expire_job(job_id, 60_000)
    await transaction.commit()
    details = await storage.monitoring.job_details(job_id)
    assert details is not None
    assert [(each["name"], each["reason"]) for each in details["history"]] == [
        ("Processing", "by hand"),
        ("Enqueued", ""),
    ]
    assert details["history"][0]["data"] == {"ServerId": "a"}
    assert details["parameters"] == {"RetryCount": "1"}
    assert 0 < details["expires_in_ms"] <= 60_000
    assert list(details["queues"]) == ["default"]
    assert (details["lease"], details["parent"]) == (None, None)


async def test_details_keep_the_current_state_when_it_is_not_the_last(
    storage: StorageConnection, new_job: MakeJob, restart: Callable[[], Awaitable[None]]
) -> None:
    job_id = await new_job(state="Enqueued")
    transaction = storage.create_write_transaction()
    transaction.add_job_state(job_id, State("Failed"))
    await transaction.commit()
    await restart()
    details = await storage.monitoring.job_details(job_id)
    assert details is not None
    assert details["state"] == "Enqueued"
    assert [each["name"] for each in details["history"]] == ["Failed", "Enqueued"]


async def test_details_show_lease_result_parent_and_continuations(storage: StorageConnection) -> None:
    parent, child = await enqueued(storage, NewJob("a", tags=("red",)), NewJob("b", parent_id="#0"))
    (wire,) = await storage.connection.submit(FetchJobs(("default",), 1))
    details = await storage.monitoring.job_details(parent)
    assert details is not None
    assert details["lease"]["token"] == grant_from_wire(wire).token
    assert details["lease"]["worker"] == "storage"
    assert (details["continuations"], list(details["tags"]), details["leases"]) == ([child], ["red"], 1)
    await storage.connection.submit(CompleteJob(parent, grant_from_wire(wire).token, b"42"))
    details = await storage.monitoring.job_details(parent)
    assert details is not None
    assert (details["result"], details["lease"], details["leases"]) == (b"42", None, 0)
    details = await storage.monitoring.job_details(child)
    assert details is not None
    assert details["parent"] == {"id": parent, "state": "Succeeded"}


async def test_history_of_counts_has_seven_days_and_twentyfour_hours(storage: StorageConnection) -> None:
    now = await storage.get_utc_datetime()
    days = await storage.monitoring.counts_by_date("succeeded")
    hours = await storage.monitoring.counts_by_hour("failed")
    assert next(iter(days)) >= now.strftime("%Y-%m-%d")
    assert (len(days), len(hours)) == (7, 24)
    assert set(days.values()) | set(hours.values()) == {0}
    stamps = [datetime.strptime(label, "%Y-%m-%d-%H") for label in hours]
    assert {later - sooner for later, sooner in pairwise(stamps)} == {timedelta(hours=1)}


async def test_ended_jobs_are_counted_once_in_total_by_day_and_by_hour(storage: StorageConnection) -> None:
    ids = await enqueued(
        storage, NewJob("a"), NewJob("b"), NewJob("c", retry=RetryPolicy(attempts=0)), NewJob("d")
    )
    await run_one(storage)
    await run_one(storage)
    await run_one(storage, error="ValueError")
    await storage.connection.submit(DeleteJob(ids[3]))
    statistics = await storage.monitoring.statistics()
    assert (statistics["succeeded"], statistics["failed"], statistics["deleted"]) == (2, 1, 1)
    for what, expected in [("succeeded", 2), ("failed", 1), ("deleted", 1)]:
        assert sum((await storage.monitoring.counts_by_date(what)).values()) == expected
        assert sum((await storage.monitoring.counts_by_hour(what)).values()) == expected


async def test_a_job_reported_twice_is_counted_once(storage: StorageConnection) -> None:
    await enqueued(storage, NewJob("a"))
    (wire,) = await storage.connection.submit(FetchJobs(("default",), 1))
    grant = grant_from_wire(wire)
    await storage.connection.submit(CompleteJob(grant.job_id, grant.token))
    with pytest.raises(Rejected):
        await storage.connection.submit(CompleteJob(grant.job_id, grant.token))
    assert (await storage.monitoring.statistics())["succeeded"] == 1


async def test_yesterday_stays_in_the_history(storage: StorageConnection, advance: Advance) -> None:
    await enqueued(storage, NewJob("a"))
    await run_one(storage)
    await advance(24 * 3600 * 1000)
    await storage.get_utc_datetime()
    days = list((await storage.monitoring.counts_by_date("succeeded")).values())
    assert days[:3] == [0, 1, 0]
    assert sum((await storage.monitoring.counts_by_hour("succeeded")).values()) == 0


async def test_everything_monitored_survives_a_restart(
    storage: StorageConnection, new_job: MakeJob, restart: Callable[[], Awaitable[None]]
) -> None:
    await enqueued(storage, NewJob("a"), NewJob("b", parent_id="#0"), NewJob("c", delay_ms=10**6))
    await run_one(storage)
    await new_job(state="Failed", queue="mail")
    before = [await storage.monitoring.statistics(), await storage.monitoring.queues()]
    await restart()
    assert [await storage.monitoring.statistics(), await storage.monitoring.queues()] == before
