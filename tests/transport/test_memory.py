"""The store in memory as a connection: workers, waiting, and a clock that is told to go on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from quorker.core.errors import ConfigurationError, InvalidInput, Rejected
from quorker.core.jobs.commands import AcquireLock, DeleteJob, EnqueueJobs, JobGrant, NewJob, RetryPolicy
from quorker.core.jobs.limits import Limits
from quorker.transport.memory import FIRST_WT, MemoryConnection, MemoryStore

pytestmark = pytest.mark.trio

TTL_MS = 10_000


def ignore(token: int, reason: str) -> None:
    """A worker that is never asked to stop."""


async def enqueue(connection: MemoryConnection, *jobs: NewJob) -> Sequence[str]:
    ids: Sequence[str] = await connection.submit(EnqueueJobs(jobs or (NewJob("task"),)))
    return ids


async def state_of(connection: MemoryConnection, job_id: str) -> str:
    return str((await connection.query("job", {"job_id": job_id})).value["state"])


@pytest.fixture
async def memory() -> MemoryStore:
    await trio.lowlevel.checkpoint()
    return MemoryStore()


async def test_a_worker_gets_jobs_and_reports_them(memory: MemoryStore) -> None:
    client, server = memory.connect(), memory.connect()
    (job_id,) = await enqueue(client, NewJob("task", b"args"))
    async with server.worker(["default"], 1, ignore) as worker:
        (grant,) = await worker.receive()
        assert (grant.job_id, grant.args, grant.attempt) == (job_id, b"args", 1)
        assert await state_of(client, job_id) == "Processing"
        worker.complete_nowait(grant, b"42")
        await worker.wait_reported()
    answer = await client.query("job", {"job_id": job_id})
    assert (answer.value["state"], answer.value["result"]) == ("Succeeded", b"42")


async def test_a_waiting_worker_wakes(memory: MemoryStore) -> None:
    client, server = memory.connect(), memory.connect()
    received: list[JobGrant] = []

    async with server.worker(["default"], 2, ignore) as worker, trio.open_nursery() as nursery:

        async def receive() -> None:
            received.extend(await worker.receive())

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        ids = await enqueue(client, NewJob("a"), NewJob("b"), NewJob("c"))
    assert [grant.job_id for grant in received] == list(ids[:2])


async def test_a_failed_job_is_retried_when_its_time_has_come(memory: MemoryStore) -> None:
    connection = memory.connect()
    (job_id,) = await enqueue(connection, NewJob("task", retry=RetryPolicy(1, (5_000,))))
    async with connection.worker(["default"], 1, ignore) as worker:
        (grant,) = await worker.receive()
        worker.fail_nowait(grant, "ValueError", "wrong", "line 1")
        memory.advance(4_999)
        assert await state_of(connection, job_id) == "Scheduled"
        memory.advance(1)
        (again,) = await worker.receive()
        assert (again.job_id, again.attempt) == (job_id, 2)
        assert again.token > grant.token


async def test_a_released_job_comes_again_with_the_same_attempt(memory: MemoryStore) -> None:
    connection = memory.connect()
    await enqueue(connection)
    async with connection.worker(["default"], 1, ignore) as worker:
        (grant,) = await worker.receive()
        worker.release_nowait(grant)
        (again,) = await worker.receive()
        assert (again.attempt, again.deliveries) == (1, 2)


async def test_a_deleted_job_is_cancelled(memory: MemoryStore) -> None:
    connection = memory.connect()
    (job_id,) = await enqueue(connection)
    cancelled: list[tuple[int, str]] = []

    def on_cancel(token: int, reason: str) -> None:
        cancelled.append((token, reason))

    async with connection.worker(["default"], 1, on_cancel) as worker:
        (grant,) = await worker.receive()
        await connection.submit(DeleteJob(job_id))
        assert cancelled == [(grant.token, "deleted")]
        worker.complete_nowait(grant, b"")
        await worker.wait_reported()
    assert await state_of(connection, job_id) == "Deleted"


async def test_a_stopped_worker_gets_nothing_more(memory: MemoryStore) -> None:
    connection = memory.connect()
    async with connection.worker(["default"], 1, ignore) as worker:
        await worker.stop()
        await enqueue(connection)
        with pytest.raises(trio.EndOfChannel):
            await worker.receive()


async def test_leaving_the_block_ends_the_subscription(memory: MemoryStore) -> None:
    connection = memory.connect()
    async with connection.worker(["default"], 1, ignore):
        with pytest.raises(ConfigurationError):
            async with connection.worker(["default"], 1, ignore):
                pass
    (job_id,) = await enqueue(connection)
    assert await state_of(connection, job_id) == "Enqueued"
    async with connection.worker(["default"], 1, ignore) as worker:
        assert len(await worker.receive()) == 1


async def test_what_a_vanished_worker_held_is_lost_when_its_time_is_up(memory: MemoryStore) -> None:
    dying, other = memory.connect(ttl_ms=TTL_MS), memory.connect(ttl_ms=TTL_MS)
    (job_id,) = await enqueue(other)
    async with dying.worker(["default"], 1, ignore) as worker:
        await worker.receive()
        dying.vanish()
        memory.advance(TTL_MS - 1)
        assert await state_of(other, job_id) == "Processing"
        memory.advance(1)
        assert await state_of(other, job_id) == "Enqueued"
        async with other.worker(["default"], 1, ignore) as second:
            (grant,) = await second.receive()
            assert (grant.job_id, grant.deliveries) == (job_id, 2)
        with pytest.raises(Rejected, match="session_expired"):
            await dying.submit(DeleteJob(job_id))


async def test_what_a_closed_connection_held_is_given_back_at_once(memory: MemoryStore) -> None:
    closing, other = memory.connect(), memory.connect()
    (job_id,) = await enqueue(other)
    await closing.submit(AcquireLock("lock"))
    async with closing.worker(["default"], 1, ignore) as worker:
        await worker.receive()
        await closing.close()
    assert await state_of(other, job_id) == "Enqueued"
    assert (await other.submit(AcquireLock("lock")))[0] == "granted"


async def test_live_sessions_outlast_any_time(memory: MemoryStore) -> None:
    connection = memory.connect(ttl_ms=TTL_MS)
    _, token = await connection.submit(AcquireLock("lock"))
    memory.advance(100 * TTL_MS)
    assert (await connection.query("lock", {"resource": "lock"})).value["token"] == token


async def test_the_clock_moves_only_when_told(memory: MemoryStore) -> None:
    connection = memory.connect()
    (job_id,) = await enqueue(connection, NewJob("task", delay_ms=3_600_000))
    assert (await connection.query("clock", {})).value == {"lt": 0, "wt": FIRST_WT}
    memory.advance(3_599_999)
    assert await state_of(connection, job_id) == "Scheduled"
    memory.advance(1)
    assert await state_of(connection, job_id) == "Enqueued"
    assert (await connection.query("clock", {})).value["wt"] == FIRST_WT + 3_600_000


async def test_what_is_due_happens_at_its_instant_and_in_order(memory: MemoryStore) -> None:
    connection = memory.connect()
    ids = await enqueue(connection, NewJob("a", delay_ms=2_000), NewJob("b", delay_ms=1_000))
    memory.advance(60_000)
    page = (await connection.query("enqueued_jobs", {"queue": "default"})).value
    assert [(job_id, row["state_wt"] - FIRST_WT) for job_id, row in page] == [
        (ids[1], 1_000),
        (ids[0], 2_000),
    ]


async def test_waiting_for_a_job_ends_with_it(memory: MemoryStore) -> None:
    connection = memory.connect()
    (job_id,) = await enqueue(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.wait_finished, job_id, 10)
        await trio.testing.wait_all_tasks_blocked()
        await connection.submit(DeleteJob(job_id))
    await connection.wait_finished(job_id, 0)
    await connection.wait_finished("nothing", 0)


async def test_waiting_for_a_job_has_an_end(memory: MemoryStore) -> None:
    connection = memory.connect()
    (job_id,) = await enqueue(connection)
    with pytest.raises(trio.TooSlowError):
        await connection.wait_finished(job_id, 0.01)


async def test_a_restart_keeps_everything(memory: MemoryStore) -> None:
    connection = memory.connect()
    (job_id,) = await enqueue(connection)
    async with connection.worker(["default"], 1, ignore) as worker:
        (grant,) = await worker.receive()
        memory.restart()
        worker.complete_nowait(grant, b"")
        await worker.wait_reported()
    assert await state_of(connection, job_id) == "Succeeded"


async def test_refusals_and_limits_reach_the_caller() -> None:
    memory = MemoryStore(Limits(max_jobs=1))
    connection = memory.connect()
    await enqueue(connection)
    with pytest.raises(Rejected, match="store_full"):
        await enqueue(connection)
    with pytest.raises(InvalidInput):
        await connection.query("job", {})
    status = await connection.status()
    assert status.applied_index == status.commit_index > 0
    assert status.faulted == ""


async def test_a_cancelled_command_is_not_applied(memory: MemoryStore) -> None:
    connection = memory.connect()
    with trio.CancelScope() as scope:
        scope.cancel()
        await enqueue(connection)
    assert scope.cancelled_caught
    assert (await connection.query("statistics", {})).value["jobs"] == 0
