"""T3 at the level of tasks: a member that is cut off stops its jobs at its own deadline, before anybody else gets them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from quorker.app import App, Attached, current_job
from quorker.app.loopback_addresses import free_addresses
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.node_config import TIMINGS

pytestmark = pytest.mark.trio

Members = Callable[..., AbstractAsyncContextManager[None]]


class Runs:
    """What the runs of one job say of themselves. The first one hangs until it is stopped."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.stopped_at: float | None = None

    async def run(self) -> int:
        self.started.append(current_job.fence)
        if len(self.started) == 1:
            try:
                await trio.sleep_forever()
            finally:
                self.stopped_at = trio.current_time()
        return current_job.fence


@asynccontextmanager
async def third(directory: Path, addresses: dict[int, str], app: App) -> AsyncGenerator[Attached]:
    """Member 3, which has all the workers."""
    door = app.node(
        directory / "3", node_id=3, listen=addresses[3], members=addresses, profile="fast", workers=2
    )
    async with door as attached:
        yield attached


def read(pipe: int) -> bytes | None:
    """What stands in it; b"" when no process holds its other end, None when one does and has nothing to say."""
    try:
        return os.read(pipe, 100)
    except BlockingIOError:
        return None


async def test_a_member_that_is_cut_off_stops_its_jobs_at_its_deadline(
    tmp_path: Path, plain: ModuleType, members: Members
) -> None:
    app, runs, addresses = App("test"), Runs(), dict(enumerate(free_addresses(3), 1))
    register: Any = app.task
    run, hang = register(name="run")(runs.run), register(plain.hang)
    os.mkfifo(tmp_path / "alive")
    pipe = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    async with third(tmp_path, addresses, app) as member:
        async with members({1: App("test"), 2: App("test")}, addresses):
            job, hanging = await run.aenqueue(), await hang.aenqueue(str(tmp_path / "alive"))
            await wait_until(lambda: runs.started, "the job runs")
            await wait_until(lambda: read(pipe) == b"started\n", "the process runs")
        cut_off_at = trio.current_time()
        await wait_until(lambda: runs.stopped_at is not None, "the task is cancelled")
        await wait_until(lambda: read(pipe) == b"", "the process is killed")
        assert member.connection.lease_seconds <= 0, "not before its deadline"
        assert runs.stopped_at is not None
        ttl = TIMINGS["fast"].session_ttl_ms / 1000
        assert runs.stopped_at - cut_off_at > 0.1 * ttl, "a while after the others had gone"
        async with members({1: App("test"), 2: App("test")}, addresses):
            with trio.fail_after(60):
                await hanging.acancel()
                assert await job.aresult() > runs.started[0], "it runs again, under a higher fence"
    os.close(pipe)
