"""The three ways in: trio, asyncio and plain code, around a store in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from quorker.app import App, Attached, BlockingCall, JobPending, NotConnected
from quorker.app.front_door import FrontDoor, WorkPlan, attach
from quorker.core.errors import ConfigurationError, StorageFailed
from quorker.transport.memory import MemoryStore


def door(app: App, workers: int = 2) -> FrontDoor:
    """Like `app.node(...)`, with a store in memory instead of a member."""

    @asynccontextmanager
    async def opening() -> AsyncGenerator[Attached]:
        connection = MemoryStore().connect()
        async with attach(app, connection, WorkPlan(workers, None, 1.0), "somewhere:1", 7) as attached:
            yield attached

    return FrontDoor(opening)


@pytest.fixture
def threads_before() -> Iterator[None]:
    """Closing leaves no loop behind."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "quorker"]


pytestmark = pytest.mark.usefixtures("threads_before")


def make_tasks(app: App) -> Any:
    @app.task
    async def double(x: int) -> int:
        return 2 * x

    return double


def test_plain_code(app: App) -> None:
    double = make_tasks(app)
    with door(app) as node:
        assert (node.address, node.node_id) == ("somewhere:1", 7)
        job = double.enqueue(4)
        assert job.result(timeout=10) == 8
        assert job.state() == "Succeeded"
        assert job.cancel() is False
        assert node.status().role == "leader"
    with pytest.raises(NotConnected):
        double.enqueue(1)


def test_many_plain_threads(app: App) -> None:
    double = make_tasks(app)
    results: list[int] = []

    def client(x: int) -> None:
        results.append(double.enqueue(x).result(timeout=30))

    with door(app):
        threads = [threading.Thread(target=client, args=(x,)) for x in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [2 * x for x in range(16)]


def test_a_waiting_plain_call_times_out(app: App) -> None:
    double = make_tasks(app)
    with door(app, workers=0), pytest.raises(JobPending):
        double.enqueue(1).result(timeout=0.01)


def test_asyncio_code(app: App) -> None:
    double = make_tasks(app)

    async def main() -> None:
        async with door(app) as node:
            jobs = await asyncio.gather(*[double.aenqueue(x) for x in range(20)])
            assert await asyncio.gather(*[job.aresult() for job in jobs]) == [2 * x for x in range(20)]
            assert (await node.astatus()).role == "leader"
            with pytest.raises(BlockingCall, match=r"you are in asyncio code.*await double\.aenqueue"):
                double.enqueue(1)

    asyncio.run(main())


def test_a_cancelled_asyncio_call_is_cancelled_in_the_loop_of_the_connection(app: App) -> None:
    double = make_tasks(app)

    async def main() -> None:
        async with door(app, workers=0):
            job = await double.aenqueue(1)
            waiting = asyncio.create_task(job.aresult(timeout=600))
            while not await job.astate():
                pass
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())


def test_a_trio_loop_beside_the_thread_of_the_node(app: App) -> None:
    double = make_tasks(app)

    async def main() -> None:
        job = await double.aenqueue(5)
        assert await job.aresult() == 10
        with trio.move_on_after(0.01) as scope:
            await (await double.using(delay=600).aenqueue(5)).aresult()
        assert scope.cancelled_caught

    with door(app):
        trio.run(main)


@pytest.mark.trio
async def test_trio_code_and_a_plain_thread_of_it(app: App) -> None:
    double = make_tasks(app)
    async with door(app):
        assert await (await double.aenqueue(1)).aresult() == 2
        assert await trio.to_thread.run_sync(lambda: double.enqueue(2).result()) == 4


@pytest.mark.trio
async def test_plain_with_in_async_code_says_what_to_write(app: App) -> None:
    with pytest.raises(BlockingCall, match="async with"), door(app):
        pass


@pytest.mark.trio
async def test_the_error_of_the_body_comes_out_as_it_was(app: App) -> None:
    with pytest.raises(KeyError):
        async with door(app):
            raise KeyError("mine")


def test_the_error_of_the_body_comes_out_as_it_was_in_plain_code(app: App) -> None:
    with pytest.raises(KeyError), door(app):
        raise KeyError("mine")


def failing_door(at: str, error: Exception) -> FrontDoor:
    @asynccontextmanager
    async def opening() -> AsyncGenerator[Attached]:
        async with trio.open_nursery():
            if at == "start":
                raise error
            yield Attached(None, "", 0)  # type: ignore[arg-type]  # nothing is asked of it
            raise error

    return FrontDoor(opening)


@pytest.mark.parametrize("at", ["start", "end"])
def test_errors_of_opening_and_closing_come_out_bare(at: str) -> None:
    error = StorageFailed("the disk is gone")
    with pytest.raises(StorageFailed, match="the disk is gone"), failing_door(at, error):
        pass

    async def on(library: str) -> None:
        with pytest.raises(StorageFailed, match="the disk is gone"):
            async with failing_door(at, error):
                pass

    trio.run(on, "trio")
    asyncio.run(on("asyncio"))


def test_calls_after_the_loop_has_ended_say_so(app: App) -> None:
    double = make_tasks(app)
    with door(app):
        job = double.enqueue(1)
        gateway = app.gateway()
    app.add_gateway(gateway)
    with pytest.raises(NotConnected, match="has ended"):
        job.result()


def test_the_newest_way_in_is_used(app: App) -> None:
    double = make_tasks(app)
    with door(app), door(app, workers=0):
        assert double.enqueue(1).state() == "Enqueued"


@pytest.mark.trio
async def test_a_plain_task_that_no_worker_process_can_find_is_refused_at_the_start(app: App) -> None:
    @app.task
    def hidden() -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"task hidden is defined inside .*move it to the top of its module"
    ):
        async with app.node("unused", workers=1):
            pass
