"""Worker processes: what they run, how they die, and that nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from quorker.app.child_protocol import ChildCall
from quorker.app.children import ChildPool, Done, open_child_pool
from quorker.app.failure import Failure
from quorker.app.payload import decode_result, encode_call

FUNCTIONS = Path(__file__).with_name("plain_functions.py")
pytestmark = pytest.mark.trio


def call(qualname: str, *args: object, result_bytes_max: int = 65536) -> ChildCall:
    packed = encode_call(args, {}, bytes_max=65536)
    return ChildCall(
        "plain_functions",
        str(FUNCTIONS),
        qualname,
        packed,
        result_bytes_max,
        "J1",
        77,
        3,
        "mail",
        "t",
        None,
        {},
        "",
    )


async def no_asks(ask: Any) -> Any:
    raise AssertionError(f"nothing is asked here, but {ask}")


async def result(pool: ChildPool, wanted: ChildCall) -> Any:
    outcome = await pool.run(wanted, no_asks)
    assert isinstance(outcome, Done), outcome
    return decode_result(outcome.result)


async def failure(pool: ChildPool, wanted: ChildCall) -> Failure:
    outcome = await pool.run(wanted, no_asks)
    assert isinstance(outcome, Failure), outcome
    return outcome


class Alive:
    """A named pipe that processes hold open while they live."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._descriptor = -1

    async def wait_started(self) -> None:
        self._descriptor = await trio.to_thread.run_sync(
            os.open, self.path, os.O_RDONLY, abandon_on_cancel=True
        )
        assert await self._read() == b"started\n"

    async def wait_gone(self) -> None:
        with trio.fail_after(30):
            assert await self._read() == b""
        os.close(self._descriptor)

    async def _read(self) -> bytes:
        return await trio.to_thread.run_sync(os.read, self._descriptor, 100, abandon_on_cancel=True)


@pytest.fixture
def alive(tmp_path: Path) -> Alive:
    return Alive(tmp_path / "alive")


async def test_results_context_and_reuse() -> None:
    async with open_child_pool(2) as pool:
        assert await result(pool, call("add", 2, 3)) == 5
        assert await result(pool, call("Namespace.inner", 4)) == -4
        one = await result(pool, call("whoami"))
        assert one[:5] == ["J1", 77, 3, "mail", "t"]
        assert await result(pool, call("whoami")) == one  # the same process


async def test_exceptions_are_failures_with_their_types() -> None:
    async with open_child_pool(2) as pool:
        failed = await failure(pool, call("fail", "gone"))
        assert failed.error_types[:3] == ("ConnectionResetError", "ConnectionError", "OSError")
        assert failed.message == "gone"
        assert "plain_functions.py" in failed.trace
        assert (await failure(pool, call("leave"))).kind == "SystemExit"
        assert await result(pool, call("add", 1, 1)) == 2


async def test_results_that_cannot_be_stored_are_failures() -> None:
    async with open_child_pool(2) as pool:
        failed = await failure(pool, call("give_back_a_set"))
        assert failed.message == "result: set is not encodable; use sorted(value) or list(value)"
        failed = await failure(pool, call("whoami", result_bytes_max=3))
        assert "the result is" in failed.message


async def test_what_cannot_be_found_is_a_failure() -> None:
    async with open_child_pool(2) as pool:
        assert "finds no 'nothing'" in (await failure(pool, call("nothing"))).message
        lost = call("add")._replace(module_name="no_such_module", module_file="")
        assert (await failure(pool, lost)).kind == "ModuleNotFoundError"


async def test_a_process_that_dies_is_a_failure_that_says_how() -> None:
    async with open_child_pool(2) as pool:
        failed = await failure(pool, call("crash"))
        assert failed.kind == "WorkerProcessDied"
        assert "was killed by SIGSEGV" in failed.message
        assert "ended with exit code 7" in (await failure(pool, call("exit_at_once", 7))).message
        assert await result(pool, call("add", 1, 1)) == 2


async def test_prints_go_to_stderr_and_stdin_is_empty(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_child_pool(2) as pool:
        assert await result(pool, call("print_and_read")) == ""
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err) > 200_000
    assert "straight to the descriptor" in err


@pytest.mark.parametrize("function", ["hang", "hang_with_a_program"])
async def test_cancelling_kills_the_function_and_its_programs(alive: Alive, function: str) -> None:
    async with open_child_pool(2) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run, call(function, alive.path), no_asks)
            await alive.wait_started()
            nursery.cancel_scope.cancel()
        await alive.wait_gone()
        assert await result(pool, call("add", 1, 1)) == 2


async def test_a_busy_process_dies_with_its_node(alive: Alive) -> None:
    """The node is a process of its own here, killed without any chance to clean up."""
    node = (
        "import trio\n"
        "from quorker.app.child_protocol import ChildCall\n"
        "from quorker.app.children import open_child_pool\n"
        f"call = ChildCall(*{tuple(call('hang_with_a_program', alive.path))!r})\n"
        "async def main():\n"
        "    async with open_child_pool(1) as pool:\n"
        "        await pool.run(call, None)\n"
        "trio.run(main)\n"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", node])
    await alive.wait_started()
    process.kill()
    await process.wait()
    await alive.wait_gone()


async def test_at_most_so_many_processes() -> None:
    pids: list[int] = []

    async with open_child_pool(2) as pool:

        async def one() -> None:
            pids.append((await result(pool, call("whoami")))[5])

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
    assert len(pids) == 8
    assert 1 <= len(set(pids)) <= 2


async def test_closing_the_pool_leaves_no_process() -> None:
    async with open_child_pool(2) as pool:
        pid = (await result(pool, call("whoami")))[5]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_burst_of_short_jobs_does_not_start_a_process_for_each() -> None:
    pids: set[int] = set()

    async with open_child_pool(50) as pool:

        async def one() -> None:
            pids.add((await result(pool, call("whoami")))[5])

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
    assert len(pids) < 10


async def test_a_job_that_gives_up_waiting_leaves_no_trace(alive: Alive) -> None:
    async with open_child_pool(1) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run, call("hang", alive.path), no_asks)
            await alive.wait_started()
            with trio.move_on_after(0) as scope:
                await pool.run(call("add", 1, 1), no_asks)
            assert scope.cancelled_caught
            nursery.start_soon(result, pool, call("add", 1, 1))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await result(pool, call("add", 1, 1)) == 2


async def test_processes_that_cannot_start_fail_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_child_pool(1) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", "/no/such/python")
            assert "no worker process can be started" in (await failure(pool, call("add", 1, 1))).message
            patched.setattr(sys, "executable", "/bin/false")
            failed = await failure(pool, call("add", 1, 1))
            assert failed.message.endswith("it ended with exit code 1 while it started")
        assert await result(pool, call("add", 1, 1)) == 2


def start_without_a_node() -> subprocess.CompletedProcess[bytes]:
    """A worker process whose node died while it started."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        return subprocess.run(
            [sys.executable, "-c", "from quorker.app.child import main; main()"],
            stdin=subprocess.PIPE,
            stdout=write_end,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write_end)


async def test_a_worker_process_that_finds_its_node_gone_ends_without_a_word() -> None:
    ended = start_without_a_node()
    assert ended.stderr == b""
    assert ended.returncode != 0
