"""One quorker member that measures how late its own event loop is, driven over stdin (see member_protocol.py).

Lateness is how much longer a sleep of 5 ms took. Beside it stands the processor time that the loop's thread used in
that time: on a machine with other load the first says what the members saw, the second how much of it was our own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import trio

from quorker.app import App
from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.memory_pauses import calm_collector
from quorker.transport.node import Node

PAYLOAD = b"x" * 200
BULK = 250
FILLERS = 4
SAMPLE_SECONDS = 0.005
PATIENCE_SECONDS = 300.0
LOAD_CALLERS = 4
LOAD_PAUSE_SECONDS = 0.02

app = App("bench")


@dataclass
class Sampler:
    """Milliseconds since the last `take`."""

    late: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            start, used = time.perf_counter(), time.thread_time()
            await trio.sleep(SAMPLE_SECONDS)
            self.late.append((time.perf_counter() - start - SAMPLE_SECONDS) * 1000)
            self.busy.append((time.thread_time() - used) * 1000)

    def take(self) -> dict[str, float]:
        late, busy = sorted(self.late), sorted(self.busy)
        self.late, self.busy = [], []
        if not late:
            return {"late_p99_ms": 0.0, "late_max_ms": 0.0, "busy_max_ms": 0.0}
        p99 = late[int(len(late) * 0.99)]
        return {"late_p99_ms": p99, "late_max_ms": late[-1], "busy_max_ms": busy[-1]}


class Bench:
    """What the benchmark asks of this member."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        self.node = node
        self.sampler = Sampler()
        self._nursery = nursery
        nursery.start_soon(self.sampler.run)

    async def perform(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "status":
                return self._status()
            case "fill":
                return await self._fill(command["count"])
            case "load":
                for _ in range(LOAD_CALLERS):
                    self._nursery.start_soon(self._call)
                return self.sampler.take()
            case "snapshot":
                return await self._snapshot()
            case "lateness":
                return self.sampler.take()
            case other:
                return {"error": f"unknown command {other}"}

    def _status(self) -> dict[str, Any]:
        replica = self.node.replica
        snapshots = cast("Any", self.node.driver.disk).snapshots
        return {
            "node": self.node.node_id,
            "leader": replica.raft.leader,
            "jobs": len(replica.store.jobs),
            "lag": replica.raft.last_index - replica.store_index,
            "snapshot_index": snapshots[-1].meta.index,
            "snapshot_mib": snapshots[-1].size / 2**20,
            "rss_mib": psutil.Process().memory_info().rss / 2**20,
        }

    async def _fill(self, count: int) -> dict[str, float]:
        left = count // BULK
        start = time.perf_counter()

        async def filler() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self.node.submit(EnqueueJobs((NewJob("parked", PAYLOAD, queue="parked"),) * BULK))

        async with trio.open_nursery() as nursery:
            for _ in range(FILLERS):
                nursery.start_soon(filler)
        return {"jobs_per_second": count / (time.perf_counter() - start)}

    async def _call(self) -> None:
        """One job after another, until the process is killed."""
        while True:
            await self.node.submit(EnqueueJobs((NewJob("parked", PAYLOAD, queue="parked"),)), timeout=120)
            await trio.sleep(LOAD_PAUSE_SECONDS)

    async def _snapshot(self) -> dict[str, float]:
        replica = self.node.replica
        await wait_until(lambda: replica.saving is None, "no snapshot is under way", PATIENCE_SECONDS)
        self.sampler.take()
        start = time.perf_counter()
        replica.request_snapshot()
        self.node.driver.wake()
        await wait_until(lambda: replica.saving is None, "the snapshot is on disk", PATIENCE_SECONDS)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "mib": self._status()["snapshot_mib"], **self.sampler.take()}


async def lines() -> AsyncIterator[dict[str, Any]]:
    async for line in trio.wrap_file(sys.stdin):
        yield json.loads(line)


async def main() -> None:
    config = json.loads(sys.argv[1])
    members = {int(node): address for node, address in config["members"].items()}
    door = app.node(
        data_dir=Path(config["data_dir"]),
        node_id=config["node_id"],
        listen=members[config["node_id"]],
        members=members,
        profile="fast",
        workers=0,
    )
    async with door as attached, trio.open_nursery() as nursery:
        calm_collector()  # as `quorker node` does
        bench = Bench(cast("Node", attached.connection), nursery)
        async for command in lines():
            print(json.dumps(await bench.perform(command)), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
