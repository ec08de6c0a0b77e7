"""A whole cluster of member processes on this machine: their directories, addresses and logs, started and killed.

Only processes that were started here are touched. The demo shows one, and `quorker.jepsen_like.processes` judges
one. What must not live here: clients, and any judgement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from quorker.app.loopback_addresses import free_addresses
from quorker.app.member_process import MemberProcess, last_lines

_STOP_SECONDS: Final = 2.0  # the last one has no majority to say goodbye to


class LocalMembers:
    """`count` members that serve `app` (MODULE:app), with data and logs below `directory`.

    `options` are added to the command line of each.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        app: str,
        *,
        options: Sequence[str] = (),
    ) -> None:
        self.addresses = dict(zip(range(1, count + 1), free_addresses(count), strict=True))
        self.directory = directory
        self._app = app
        self._options = tuple(options)
        self._processes: dict[int, MemberProcess] = {}

    def __getitem__(self, node: int) -> MemberProcess:
        """The process of this member, from its start until it is reaped."""
        return self._processes[node]

    @property
    def running(self) -> list[int]:
        return sorted(node for node, process in self._processes.items() if process.is_running)

    def data_path(self, node: int) -> Path:
        return self.directory / f"n{node}"

    async def start(self, node: int) -> None:
        """Start a member, or start it again from its disk. Returns when it listens; raises `MemberNotStarted`."""
        arguments, environment = self.arguments(node), self.environment(node)
        self._processes[node] = await MemberProcess.start(arguments, self.log_path(node), environment)

    async def start_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for node in self.addresses:
                nursery.start_soon(self.start, node)

    async def kill(self, *nodes: int) -> None:
        """SIGKILL to all of them at once: no goodbye, no flush."""
        for node in nodes:
            self._processes[node].kill()
        for node in nodes:
            await self._reap(node)

    async def stop(self, node: int) -> int:
        """SIGTERM; returns the exit code once it has ended."""
        self._processes[node].terminate()
        await self._processes[node].wait_ended()
        return await self._reap(node)

    async def stop_all(self) -> None:
        """Ask all that run to stop; whatever does not stop is killed. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            for node in self.running:
                self._processes[node].terminate()
                self._processes[node].resume()
            with trio.move_on_after(_STOP_SECONDS):
                for node in self.running:
                    await self._processes[node].wait_ended()
            for node in list(self._processes):
                await self._reap(node)

    async def _reap(self, node: int) -> int:
        return await self._processes.pop(node).destroy()

    def logs(self) -> str:
        """The last lines of the log of every member that ever ran."""
        paths = {node: self.log_path(node) for node in self.addresses if self.log_path(node).exists()}
        return "\n".join(f"--- node {node}\n{last_lines(path)}" for node, path in paths.items())

    def log_path(self, node: int) -> Path:
        return self.directory / f"n{node}.log"

    def seen_by(self, node: int) -> Mapping[int, str]:
        """The addresses that this member is told."""
        return self.addresses

    def arguments(self, node: int) -> list[str]:
        members = ",".join(f"{number}={address}" for number, address in self.seen_by(node).items())
        return [
            *(self._app, "--id", str(node), "--data", str(self.data_path(node))),
            *("--listen", self.addresses[node], "--members", members, "--profile", "fast"),
            *("--log-level", "warning", *self._options),
        ]

    def environment(self, node: int) -> Mapping[str, str]:
        """What is added to the environment of this member."""
        return {}
