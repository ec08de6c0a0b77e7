"""Leaders come and go; sessions, their commands and their jobs stay, and apply once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from quorker.jepsen_like.calls import count_up, enqueue, ignore_cancel, read_counter, receive
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until

pytestmark = pytest.mark.trio

COMMANDS = 300


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with local_cluster(tmp_path) as running:
        await running.elect(1)
        yield running


async def count_many(cluster: LocalCluster, number: int, key: str) -> None:
    """`COMMANDS` increments, ten at a time. Each of them must succeed."""
    left = iter(range(COMMANDS))

    async def caller() -> None:
        for _ in left:
            await count_up(cluster[number], key)

    async with trio.open_nursery() as callers:
        for _ in range(10):
            callers.start_soon(caller)


async def test_commands_apply_once_while_leadership_moves(cluster: LocalCluster) -> None:
    sessions = [node.session_id for node in cluster.nodes]
    terms = {cluster[1].replica.raft.term}
    async with trio.open_nursery() as nursery:
        for number in (1, 2, 3):
            nursery.start_soon(count_many, cluster, number, f"of {number}")
        for number in (2, 3, 1, 3):
            leader = await cluster.elect(number)
            terms.add(leader.replica.raft.term)
            await leader.wait_applied(leader.replica.store_index + 20)
    assert len(terms) == 5
    for number in (1, 2, 3):
        assert await read_counter(cluster[2], f"of {number}", "linearizable") == COMMANDS
    assert [node.session_id for node in cluster.nodes] == sessions


async def test_commands_apply_once_while_leaders_leave_and_return(cluster: LocalCluster) -> None:
    """Node 3 has work all the time; the leader it knows stops under it."""
    session = cluster[3].session_id
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_many, cluster, 3, "of 3")
        for number in (1, 2):
            await cluster.elect(number)
            await cluster.stop(number)
            await cluster.wait_leader(number)
            await cluster.start(number)
    assert await read_counter(cluster[1], "of 3", "linearizable") == COMMANDS
    assert cluster[3].session_id == session


async def test_a_worker_keeps_its_jobs_over_a_change_of_leader(cluster: LocalCluster) -> None:
    (job_id,) = await enqueue(cluster[1])
    async with cluster[2].worker(("default",), 1, ignore_cancel) as worker:
        (grant,) = await receive(worker, 1)
        await cluster.elect(3)
        worker.complete_nowait(grant, b"done")
        await worker.wait_reported()
        details = (await cluster[2].query("job_details", {"job_id": job_id})).value
    assert (details["state"], details["deliveries"], details["result"]) == ("Succeeded", 1, b"done")


async def test_all_jobs_run_exactly_once_when_nothing_fails(cluster: LocalCluster) -> None:
    runs: list[str] = []
    everything = trio.Event()

    async def work(number: int) -> None:
        async with cluster[number].worker(("default",), 8, ignore_cancel) as worker:
            while True:
                for grant in await worker.receive():
                    runs.append(grant.job_id)
                    worker.complete_nowait(grant, b"")
                if len(runs) >= 300:
                    everything.set()

    async with trio.open_nursery() as nursery:
        for number in (1, 2, 3):
            nursery.start_soon(work, number)
        ids = [job_id for _ in range(10) for node in cluster.nodes for job_id in await enqueue(node, 10)]
        with trio.fail_after(15):
            await everything.wait()
        await wait_until(lambda: done(cluster) == 300, "all jobs are reported")
        nursery.cancel_scope.cancel()
    assert sorted(runs) == sorted(ids)
    assert len(set(ids)) == 300


def done(cluster: LocalCluster) -> int:
    return cluster[1].replica.store.index.count("Succeeded")
