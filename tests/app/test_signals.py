"""A node stops when it is told to: gracefully at the first signal, at once at the second."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from quorker.app import App
from quorker.core.errors import EXIT_OK
from quorker.jepsen_like.commands import COMMAND

TASKS = """
import trio
from quorker.app import App
app = App("slow")

@app.task
async def take(seconds: float) -> str:
    print("started", flush=True)
    await trio.sleep(seconds)
    return "done"
"""


class RunningNode:
    """A `quorker node` of its own process; everything it prints is read line by line."""

    def __init__(self, directory: Path) -> None:
        (directory / "slow.py").write_text(TASKS)
        options = ["--listen", "127.0.0.1:0", "--data", "data", "--shutdown-timeout", "60", "--stop-at-eof"]
        self.process = subprocess.Popen(
            [*COMMAND, "node", "slow:app", *options],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self.line().split(", ")[1]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def close(self) -> None:
        with self.process:  # closes its pipes and waits for it
            self.process.kill()


@pytest.fixture
def node(tmp_path: Path) -> Generator[RunningNode]:
    running = RunningNode(tmp_path)
    yield running
    running.close()


def app_with_take() -> App:
    app = App("slow")

    @app.task
    async def take(seconds: float) -> str:
        return str(seconds)

    return app


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_running_jobs_end(
    node: RunningNode, number: signal.Signals, tmp_path: Path
) -> None:
    app = app_with_take()
    with app.connect(node.address):
        job = app.tasks["take"].enqueue(0.3)
        assert node.line() == "started"
    node.process.send_signal(number)
    assert node.line() == f"node 1 stops on {number.name}"
    assert node.process.wait(60) == EXIT_OK
    with app.node(tmp_path / "data", workers=0):
        assert job.result(timeout=30) == "done"


def test_the_second_signal_ends_it_at_once(node: RunningNode) -> None:
    app = app_with_take()
    with app.connect(node.address):
        app.tasks["take"].enqueue(3600.0)
        assert node.line() == "started"
    node.process.terminate()
    assert node.line() == "node 1 stops on SIGTERM"
    node.process.terminate()
    assert node.process.wait(60) == 128 + signal.SIGTERM


def test_the_end_of_standard_input_stops_it(node: RunningNode) -> None:
    assert node.process.stdin is not None
    node.process.stdin.close()
    assert node.process.wait(60) == EXIT_OK
