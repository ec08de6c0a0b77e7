"""Locks of the cluster in plain, trio and asyncio code and in worker processes, on real members; lost ones in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from quorker.app import NO_RETRY, App, Attached, BlockingCall, JobFailed, LockLost, LockTimeout
from quorker.app.front_door import WorkPlan, attach
from quorker.app.gateway import Query
from quorker.app.loopback_addresses import free_addresses
from quorker.core.errors import InvalidInput
from quorker.transport.memory import MemoryStore

Serve = Callable[..., AbstractAsyncContextManager[Attached]]
Members = Callable[..., AbstractAsyncContextManager[None]]
PATIENCE_SECONDS = 60


@pytest.fixture
def node(app: App, tmp_path: Path) -> Iterator[Attached]:
    with app.node(tmp_path, profile="fast", workers=0) as attached:
        yield attached


def locks_of(app: App) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = app.gateway().request_blocking(Query("locks", {}))
    return found


async def until(holds: Callable[[], object]) -> None:
    """Return once a condition of this process holds."""
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            if holds():
                return
            await trio.sleep(0.01)


async def waiting_for(app: App, resource: str) -> int:
    found: dict[str, Any] = await app.gateway().request(Query("lock", {"resource": resource}))
    return int(found["waiting"])


async def wait_for_line(app: App, length: int) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            if await waiting_for(app, "a") == length:
                return
            await trio.sleep(0.01)


async def wait_for_line_on_asyncio(app: App, length: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await waiting_for(app, "a") == length:
                return
            await asyncio.sleep(0.01)


async def fence_of_next(app: App, *, timeout: float | None = None) -> int:
    with trio.fail_after(PATIENCE_SECONDS):
        async with app.lock("a", timeout=timeout) as held:
            return held.fence


def test_in_plain_code(app: App, node: Attached) -> None:
    with app.lock("a") as first:
        assert not first.is_lost
        first.check()
        (shown,) = locks_of(app)
        assert (shown["resource"], shown["token"], shown["expires_in_ms"]) == ("a", first.fence, None)
        with (
            pytest.raises(LockTimeout, match=f"a is held under token {first.fence}"),
            app.lock("a", timeout=0),
        ):
            pass
        with app.lock("b"):
            assert len(locks_of(app)) == 2
    assert locks_of(app) == []
    assert first.is_lost
    with app.lock("a", ttl=60) as second:
        assert second.fence > first.fence
        assert locks_of(app)[0]["expires_in_ms"] > 0


def test_who_gives_up_leaves_the_line(app: App, node: Attached) -> None:
    with app.lock("a"):
        with (
            pytest.raises(LockTimeout, match=r"a did not become free within 0\.1 s"),
            app.lock("a", timeout=0.1),
        ):
            pass
        assert locks_of(app)[0]["waiting"] == 0


def test_the_error_of_the_block_comes_out_and_the_lock_is_free(app: App, node: Attached) -> None:
    with pytest.raises(KeyError), app.lock("a"):
        raise KeyError("mine")
    assert locks_of(app) == []


def test_threads_of_plain_code_exclude_each_other(app: App, node: Attached) -> None:
    counted = 0

    def count() -> None:
        nonlocal counted
        with app.lock("a"):
            seen = counted
            time.sleep(0.01)  # room for another thread to count from the same number
            counted = seen + 1

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == 8
    assert locks_of(app) == []


def test_in_asyncio_code(app: App, node: Attached) -> None:
    async def main() -> None:
        async with app.lock("a") as held:
            waiting = asyncio.create_task(hold())
            await wait_for_line_on_asyncio(app, 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await wait_for_line_on_asyncio(app, 0)
            assert not held.is_lost
            with pytest.raises(BlockingCall, match=r"async with app\.lock"), app.lock("b"):
                pass
        await hold()

    async def hold() -> None:
        async with app.lock("a"):
            pass

    asyncio.run(main())
    assert locks_of(app) == []


@pytest.mark.trio
async def test_waiters_are_served_in_order(app: App, tmp_path: Path) -> None:
    order: list[int] = []
    fences: list[int] = []

    async def queue_up(number: int) -> None:
        async with app.lock("a") as held:
            order.append(number)
            fences.append(held.fence)

    async with (
        app.node(tmp_path, profile="fast", workers=0),
        trio.open_nursery() as nursery,
        app.lock("a"),
    ):
        for number in range(5):
            nursery.start_soon(queue_up, number)
            await wait_for_line(app, number + 1)
    assert order == list(range(5))
    assert fences == sorted(fences)


@pytest.mark.trio
async def test_a_cancelled_block_frees_the_lock(app: App, tmp_path: Path) -> None:
    async with app.node(tmp_path, profile="fast", workers=0):
        with trio.CancelScope() as scope:
            async with app.lock("a"):
                scope.cancel()
                await trio.sleep_forever()
        with trio.fail_after(PATIENCE_SECONDS):
            async with app.lock("a"):
                pass


@pytest.mark.trio
async def test_a_time_to_live_ends_the_lock_and_says_so(app: App, tmp_path: Path) -> None:
    said: list[str] = []

    async def hold_too_long() -> None:
        async with app.lock("a", ttl=0.5, on_lost=said.append) as held:
            await until(lambda: said)
            assert held.is_lost
            with pytest.raises(LockLost):
                held.check()
            assert await fence_of_next(app) > held.fence

    async with app.node(tmp_path, profile="fast", workers=0):
        with pytest.raises(LockLost, match="lock a is lost: its time to live is over"):
            await hold_too_long()
    assert said == ["its time to live is over"]


@pytest.mark.trio
async def test_a_lost_lock_hides_no_error_of_the_block(app: App, tmp_path: Path) -> None:
    async def hold_too_long() -> None:
        async with app.lock("a", ttl=0.01) as held:
            await until(lambda: held.is_lost)
            raise KeyError("mine")

    async with app.node(tmp_path, profile="fast", workers=0):
        with pytest.raises(KeyError):
            await hold_too_long()


@pytest.mark.trio
async def test_a_lock_is_lost_with_its_session_before_another_has_it(memory: MemoryStore, app: App) -> None:
    """The clock is the store's, and stands between the end of the lease and the end of the session."""
    other = App("other")
    connection = memory.connect(ttl_ms=10_000)
    said: list[str] = []

    async def hold_and_vanish() -> None:
        async with app.lock("a", on_lost=said.append) as held:
            connection.vanish()
            memory.advance(9_000)
            assert held.is_lost
            await until(lambda: said)
            with pytest.raises(LockTimeout):
                await fence_of_next(other, timeout=0)
            memory.advance(2_000)
            assert await fence_of_next(other, timeout=0) > held.fence

    async with (
        attach(app, connection, WorkPlan(0, None, 1.0)),
        attach(other, memory.connect("other"), WorkPlan(0, None, 1.0)),
    ):
        with pytest.raises(LockLost, match="its session could not be renewed in time"):
            await hold_and_vanish()
    assert said == ["its session could not be renewed in time"]


def test_closing_the_node_loses_the_lock(app: App, tmp_path: Path) -> None:
    lock = app.lock("a")
    with app.node(tmp_path, profile="fast", workers=0):
        held = lock.__enter__()
    assert held.is_lost
    with pytest.raises(LockLost, match="connection was closed"):
        lock.__exit__(None, None, None)


@pytest.mark.trio
async def test_three_members_and_a_client_share_a_lock(members: Members) -> None:
    addresses = dict(enumerate(free_addresses(3), 1))
    apps = {node_id: App("locks") for node_id in addresses}
    client = App("locks")

    async def use_client() -> None:
        async with client.connect(addresses[2]):
            async with client.lock("a", ttl=600) as theirs:
                with pytest.raises(LockTimeout):
                    await fence_of_next(apps[3], timeout=0)
            assert await fence_of_next(apps[3]) > theirs.fence
            await client.lock("a").__aenter__()  # left to the end of the session

    async with members(apps, addresses):
        with trio.fail_after(PATIENCE_SECONDS):
            await use_client()
            assert await fence_of_next(apps[1])


@pytest.mark.trio
async def test_in_worker_processes_a_lock_needs_a_time_to_live(
    app: App, serve: Serve, plain: ModuleType
) -> None:
    register: Any = app.task
    use = register(retry=NO_RETRY)(plain.use_lock)
    async with serve(app, workers=2):
        job = await use.aenqueue(60)
        first, second, was_lost = await job.aresult(timeout=PATIENCE_SECONDS)
        assert second > first
        assert not was_lost
        failed = await use.aenqueue(None)
        with pytest.raises(JobFailed, match="may be killed while it holds a: give a ttl"):
            await failed.aresult(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "a", "ttl": 0}, {"name": "a", "ttl": -1}, {"name": "a", "timeout": "soon"}],
)
def test_what_is_no_lock(app: App, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        app.lock(**wrong)


def test_a_lock_object_is_for_one_block_at_a_time(app: App, node: Attached) -> None:
    lock = app.lock("a")
    with lock, pytest.raises(InvalidInput, match="this lock of a is in use"), lock:
        pass
    with lock:
        pass
