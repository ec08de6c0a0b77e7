"""A store of 20,000 jobs goes through a snapshot, a restart and the way to an empty member, and stays the same to the byte.

What it costs in time is measured by `bench/large_store.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.jepsen_like.calls import count_up, read_counter
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.node import Node

pytestmark = pytest.mark.trio

JOBS = 20_000
BULK = 250
LONG_SECONDS = 120.0


async def fill(node: Node) -> None:
    for first in range(0, JOBS, BULK):
        numbered = range(first, first + BULK)
        await node.submit(EnqueueJobs(tuple(NewJob("send", b"%200d" % number) for number in numbered)))


async def take_snapshot(node: Node) -> None:
    node.replica.request_snapshot()
    node.driver.wake()
    await wait_until(lambda: node.replica.saving is None, "the snapshot is on disk", LONG_SECONDS)


async def wait_equal(cluster: LocalCluster) -> None:
    def agree() -> bool:
        return len({node.replica.store_index for node in cluster.nodes}) == 1

    await wait_until(agree, "all members have applied the same", LONG_SECONDS)
    await cluster.wait_equal()


async def test_a_large_store_survives_snapshot_restart_and_installation(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, start=False, keep_entries=5) as cluster:
        await cluster.start(1, 2)
        await cluster.elect(1)
        await fill(cluster[1])
        jobs = dict(cluster[1].replica.store.jobs)
        assert len(jobs) == JOBS
        async with trio.open_nursery() as nursery:
            for node in cluster.nodes:
                nursery.start_soon(take_snapshot, node)
            for _ in range(20):  # the store goes on while it is copied
                await count_up(cluster[2])
        await cluster.restart(2)
        await cluster.wait_leader()
        await wait_equal(cluster)
        await cluster.start(3)
        for _ in range(20):
            await count_up(cluster[1])
        await wait_until(lambda: cluster[3].replica.store.jobs, "the snapshot is installed", LONG_SECONDS)
        assert cluster[3].replica.raft.first_index > 2, "it did not come out of the log"
        await wait_equal(cluster)
        assert dict(cluster[3].replica.store.jobs) == jobs
        await cluster.restart(1, 3)
        await cluster.wait_leader()
        await wait_equal(cluster)
        assert await read_counter(cluster[3], consistency="linearizable") == 40
        assert dict(cluster[1].replica.store.jobs) == jobs
