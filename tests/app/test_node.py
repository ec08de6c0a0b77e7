"""Apps on real nodes: one member in each kind of code, three members, clients, restarts from disk."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from quorker.app import App
from quorker.app.loopback_addresses import free_addresses
from quorker.core.errors import ConfigurationError, IdentityMismatch, InvalidInput, NotApplied


def make_app() -> App:
    app = App("test")

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    return app


def double(app: App) -> Any:
    return app.tasks["double"]


@pytest.mark.trio
async def test_a_node_in_trio_code(tmp_path: Path) -> None:
    app = make_app()
    async with app.node(tmp_path, profile="fast") as node:
        job = await double(app).aenqueue(21)
        assert await job.aresult() == 42
        status = await node.astatus()
    assert (status.role, status.cluster_id, status.members) == ("leader", "test", (1,))


def test_a_node_in_plain_code_keeps_its_jobs(tmp_path: Path) -> None:
    app = make_app()
    with app.node(tmp_path, profile="fast", workers=0) as node:
        assert node.address.startswith("127.0.0.1:")
        jobs = [double(app).enqueue(x) for x in range(5)]
        assert {job.state() for job in jobs} == {"Enqueued"}
    with app.node(tmp_path, profile="fast"):
        assert [job.result() for job in jobs] == [0, 2, 4, 6, 8]


def test_a_node_in_asyncio_code(tmp_path: Path) -> None:
    app = make_app()

    async def main() -> None:
        async with app.node(tmp_path, profile="fast"):
            jobs = await asyncio.gather(*[double(app).aenqueue(x) for x in range(20)])
            assert await asyncio.gather(*[job.aresult() for job in jobs]) == [2 * x for x in range(20)]

    asyncio.run(main())


@pytest.mark.trio
async def test_a_client_that_is_no_member_enqueues_and_works(tmp_path: Path) -> None:
    member, enqueuer, worker = make_app(), make_app(), make_app()
    async with (
        member.node(tmp_path, profile="fast", workers=0) as node,
        enqueuer.connect(node.address),
        worker.connect(node.address, workers=2),
    ):
        job = await double(enqueuer).aenqueue(4)
        assert await job.aresult() == 8
        assert await member.job(job.id).aresult() == 8


@pytest.mark.trio
async def test_a_job_of_one_member_runs_on_another(tmp_path: Path) -> None:
    addresses = dict(enumerate(free_addresses(3), 1))
    apps = {node_id: make_app() for node_id in addresses}
    async with AsyncExitStack() as stack:

        async def start(node_id: int) -> None:
            door = apps[node_id].node(
                tmp_path / str(node_id),
                node_id=node_id,
                listen=addresses[node_id],
                members=addresses,
                profile="fast",
                workers=3 if node_id == 3 else 0,
            )
            await stack.enter_async_context(door)

        for node_id in addresses:
            await start(node_id)
        jobs = [await double(apps[1 + x % 2]).aenqueue(x) for x in range(20)]
        with trio.fail_after(60):
            for x, job in enumerate(jobs):
                assert await job.aresult() == 2 * x
                assert await apps[2].job(job.id).aresult() == 2 * x


@pytest.mark.trio
async def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    app = make_app()
    with pytest.raises(ConfigurationError, match="node id 0"):
        async with app.node(tmp_path, node_id=0):
            pass
    async with app.node(tmp_path, profile="fast", workers=0):
        with pytest.raises(ConfigurationError, match="in use by process"):
            async with make_app().node(tmp_path):
                pass
    with pytest.raises(IdentityMismatch):
        async with App("other").node(tmp_path):
            pass


@pytest.mark.trio
async def test_nobody_at_the_address() -> None:
    (address,) = free_addresses(1)
    with pytest.raises(NotApplied, match=r"no member answered within 0.2 s"):
        async with make_app().connect(address, timeout=0.2):
            pass


def test_a_timeout_that_is_none() -> None:
    for timeout in (0, -1, float("nan")):
        with pytest.raises(InvalidInput, match="timeout"):
            make_app().connect("127.0.0.1:7701", timeout=timeout)


SCRIPT = """
    from quorker.app import App, NO_RETRY, JobFailed

    app = App("script")

    @app.task(retry=NO_RETRY)
    def square(x: int) -> int:
        return x * x

    @app.task(retry=NO_RETRY)
    def fail() -> None:
        raise OSError("on purpose")

    {guard}
        with app.node("data", profile="fast", workers=2):
            print(square.enqueue(7).result())
            try:
                fail.enqueue().result()
            except JobFailed as error:
                print(error.error_type, error.message)
"""


def run_script(tmp_path: Path, guard: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(guard=guard)))
    return subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_script_with_plain_tasks(tmp_path: Path) -> None:
    ran = run_script(tmp_path, 'if __name__ == "__main__":')
    assert (ran.returncode, ran.stdout) == (0, "49\nOSError on purpose\n"), ran.stderr


def test_a_script_without_a_guard_says_what_is_missing(tmp_path: Path) -> None:
    ran = run_script(tmp_path, "if True:")
    assert ran.returncode != 0
    assert "a worker process imports your script to find its tasks" in ran.stderr
    assert 'put that part under `if __name__ == "__main__":`' in ran.stderr
