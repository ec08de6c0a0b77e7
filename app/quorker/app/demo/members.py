"""The demo's members: real processes on this machine, killed and restarted. Only processes started here are touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio

from quorker.app.demo.tasks import LEDGER_VARIABLE, NODE_VARIABLE
from quorker.app.demo.verdict import Kill
from quorker.core.errors import ConfigurationError

_COMMAND: Final = (sys.executable, "-c", "from quorker.app.cli import main; raise SystemExit(main())", "node")
_APP: Final = "quorker.app.demo.tasks:app"
_STOP_SECONDS: Final = 2.0  # the last one has no majority to say goodbye to
_LOG_LINES_SHOWN: Final = 20


class Members:
    """Three members, their directories and addresses."""

    def __init__(self, directory: Path, count: int, workers: int) -> None:
        self.ledger = directory / "ledger"
        self.ledger.mkdir()
        self.addresses = dict(zip(range(1, count + 1), free_addresses(count), strict=True))
        self.kills: list[Kill] = []
        self.started_at: dict[int, float] = {}
        self._directory = directory
        self._workers = workers
        self._processes: dict[int, trio.Process] = {}

    @property
    def running(self) -> list[int]:
        return sorted(node for node, process in self._processes.items() if process.poll() is None)

    async def start(self, node: int) -> None:
        """Start a member, or start it again from its disk. Returns when it listens."""
        self.started_at[node] = time.time()
        with (self._log_path(node)).open("ab") as log:
            process = await trio.lowlevel.open_process(
                [*_COMMAND, *self._arguments(node)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(node),
                start_new_session=True,
            )
        self._processes[node] = process
        await self._wait_ready(node, process)

    async def start_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for node in self.addresses:
                nursery.start_soon(self.start, node)

    async def kill(self, *nodes: int) -> None:
        """SIGKILL to all of them at once: no goodbye, no flush."""
        for node in nodes:
            self._processes[node].send_signal(signal.SIGKILL)
        at = time.time()
        self.kills += [Kill(node, at) for node in nodes]
        for node in nodes:
            await self._reap(node)

    async def stop_all(self) -> None:
        """Ask all that run to stop; whatever does not stop is killed. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            for node in self.running:
                self._processes[node].terminate()
            with trio.move_on_after(_STOP_SECONDS):
                for node in self.running:
                    await self._processes[node].wait()
            for node in list(self._processes):
                self._processes[node].kill()
                await self._reap(node)

    def logs(self) -> str:
        """The last lines of every member's log."""
        found: list[str] = []
        for node in self.addresses:
            if (path := self._log_path(node)).exists():
                found += [f"--- node {node}", *path.read_text().splitlines()[-_LOG_LINES_SHOWN:]]
        return "\n".join(found)

    async def _reap(self, node: int) -> None:
        process = self._processes.pop(node)
        await process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            await pipe.aclose()

    async def _wait_ready(self, node: int, process: trio.Process) -> None:
        """The first line that a member prints says that it listens; what it prints later fits into the pipe."""
        assert process.stdout is not None
        line = await process.stdout.receive_some()
        if not line:
            raise ConfigurationError(f"node {node} did not start\n{self.logs()}")

    def _arguments(self, node: int) -> list[str]:
        members = ",".join(f"{number}={address}" for number, address in self.addresses.items())
        return [
            *(_APP, "--id", str(node), "--data", str(self._directory / f"n{node}")),
            *("--listen", self.addresses[node], "--members", members, "--profile", "fast"),
            *("--workers", str(self._workers), "--log-level", "warning", "--stop-at-eof"),
        ]

    def _environment(self, node: int) -> Mapping[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("QUORKER_")}
        return mine | {LEDGER_VARIABLE: str(self.ledger), NODE_VARIABLE: str(node)}

    def _log_path(self, node: int) -> Path:
        return self._directory / f"n{node}.log"


def free_addresses(count: int) -> list[str]:
    """Loopback addresses that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
