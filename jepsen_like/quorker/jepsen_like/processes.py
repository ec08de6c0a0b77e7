"""Real members as real processes: they are killed, frozen, stopped and restarted, and asked from outside as users ask.

The processes themselves are those of `quorker.app.local_members`; here stands how a nemesis and a test speak of them.
Nothing outlives the block that made them. What must not live here: workloads, and any judgement.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from quorker.app.demo.ledger import ledger_environment
from quorker.app.local_members import LocalMembers
from quorker.core.errors import QuorkerError
from quorker.core.raft.messages import NOBODY
from quorker.jepsen_like.recorded_tasks import RECORDED_APP
from quorker.jepsen_like.waiting import poll
from quorker.transport.client import open_client
from quorker.transport.connection import Status

STATUS_SECONDS: Final = 1.0
LEADER_SECONDS: Final = 30.0


class ProcessCluster(LocalMembers):
    """Made by `process_cluster`. A paused member counts as running, and is not asked."""

    def __init__(self, directory: Path, count: int, *, options: Sequence[str] = ()) -> None:
        super().__init__(directory, count, RECORDED_APP, options=options)
        self.paused: set[int] = set()
        self.ledger = directory / "ledger"
        self.ledger.mkdir()

    def environment(self, node: int) -> Mapping[str, str]:
        return ledger_environment(self.ledger, node)

    async def restart(self, *nodes: int) -> None:
        """SIGTERM and a new start, one after another."""
        for node in nodes:
            await self.stop(node)
            await self.start(node)

    async def kill(self, *nodes: int) -> None:
        await super().kill(*nodes)
        self.paused.difference_update(nodes)

    def pause(self, *nodes: int) -> None:
        for node in nodes:
            self[node].pause()
            self.paused.add(node)

    def resume(self, *nodes: int) -> None:
        for node in nodes:
            self[node].resume()
            self.paused.discard(node)

    async def status(self, node: int) -> Status | None:
        """What this very member says, or None when it gives no answer."""
        with trio.move_on_after(STATUS_SECONDS):
            try:
                async with open_client([self.addresses[node]], name="observer", observer=True) as member:
                    return await member.status()
            except QuorkerError:
                return None
        return None

    async def wait_leader(self, *unwanted: int) -> int:
        """The leader that all running members name, itself included, and that is none of `unwanted`."""

        async def ask() -> int | None:
            return self._agreed([await self.status(node) for node in self.awake], unwanted)

        return await poll(ask, "all members follow one leader", LEADER_SECONDS)

    @property
    def awake(self) -> list[int]:
        return [node for node in self.running if node not in self.paused]

    def _agreed(self, found: list[Status | None], unwanted: tuple[int, ...]) -> int | None:
        named = {NOBODY if status is None else status.leader for status in found}
        leader = named.pop() if len(named) == 1 else NOBODY
        return leader if leader in self.awake and leader not in unwanted else None

    async def wait_applied_equally(self) -> int:
        """The index that all running members have applied, once it is the same, and nothing is left to apply."""

        async def ask() -> int | None:
            found = [await self.status(node) for node in self.awake]
            logs = {(0, 1) if each is None else (each.applied_index, each.last_index) for each in found}
            applied, last = logs.pop()
            return applied if not logs and applied == last else None

        return await poll(ask, "all members have applied the same", LEADER_SECONDS)


@asynccontextmanager
async def process_cluster(
    directory: Path,
    count: int = 3,
    *,
    start: bool = True,
    options: Sequence[str] = (),
) -> AsyncGenerator[ProcessCluster]:
    """`count` members with data and logs below `directory`; gone at the end of the block, whatever happens in it."""
    cluster = ProcessCluster(directory, count, options=options)
    try:
        if start:
            await cluster.start_all()
        yield cluster
    finally:
        await cluster.stop_all()
