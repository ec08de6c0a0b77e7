"""What is on disk is what counts: members that stop and start again, come late, or lag behind by a lot or a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quorker.core.jobs.commands import CompleteJob
from quorker.jepsen_like.calls import count_up, enqueue, ignore_cancel, read_counter, receive
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until

pytestmark = pytest.mark.trio

SMALL_LOG: dict[str, Any] = {"segment_bytes": 1 << 16, "snapshot_after_entries": 20, "keep_entries": 5}


async def write_until_compacted(cluster: LocalCluster, number: int, beyond: int = 1) -> None:
    """Write until the log of this member begins behind entry `beyond`."""
    node = cluster[number]
    for _ in range(1_000):
        await enqueue(node, 5, args=bytes(1_000))
        if node.replica.raft.first_index > beyond + 1 and node.replica.saving is None:
            return
    raise AssertionError(f"the log of node {number} is never trimmed")


@pytest.mark.parametrize("settings", [{}, SMALL_LOG], ids=["log", "snapshot"])
async def test_a_cluster_that_was_stopped_continues_where_it_was(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with local_cluster(tmp_path, **settings) as cluster:
        await cluster.elect(1)
        await write_until_compacted(cluster, 1) if settings else await enqueue(cluster[1], 5)
        for node in cluster.nodes:
            await count_up(node)
        await cluster.wait_equal()
        jobs = dict(cluster[1].replica.store.jobs)
        await cluster.restart(1, 2, 3)
        await cluster.elect(2)
        assert await read_counter(cluster[3], consistency="linearizable") == 3
        await cluster.wait_equal()
        assert dict(cluster[3].replica.store.jobs) == jobs


async def test_a_single_member_restarts_again_and_again(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, 1, **SMALL_LOG) as cluster:
        ids: list[str] = []
        for _ in range(4):
            await write_until_compacted(cluster, 1, beyond=cluster[1].replica.raft.last_index)
            ids += await enqueue(cluster[1])
            await cluster.restart(1)
            await read_counter(cluster[1], consistency="linearizable")
            assert set(ids) <= set(cluster[1].replica.store.jobs)


async def test_tokens_go_on_growing_after_a_restart(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, 1, **SMALL_LOG) as cluster:
        tokens: list[int] = []
        for _ in range(3):
            await write_until_compacted(cluster, 1, beyond=cluster[1].replica.raft.last_index)
            async with cluster[1].worker(("fenced",), 1, ignore_cancel) as worker:
                await enqueue(cluster[1], queue="fenced")
                (grant,) = await receive(worker, 1)
                await cluster[1].submit(CompleteJob(grant.job_id, grant.token))
            tokens.append(grant.token)
            await cluster.restart(1)
    assert tokens == sorted(set(tokens))


async def test_a_member_that_lags_behind_catches_up_from_the_log(tmp_path: Path) -> None:
    async with local_cluster(tmp_path) as cluster:
        await cluster.elect(1)
        await cluster.stop(3)
        for _ in range(30):
            await enqueue(cluster[1])
        await cluster.start(3)
        await cluster.wait_leader()
        assert await cluster.wait_equal() > 30
        assert cluster[3].replica.raft.first_index == 2, "nothing was replaced by a snapshot"


async def test_an_empty_member_is_sent_a_snapshot(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, start=False, **SMALL_LOG) as cluster:
        await cluster.start(1, 2)
        await cluster.elect(1)
        await write_until_compacted(cluster, 1)
        await cluster.start(3)
        await cluster.wait_leader()
        await cluster.wait_equal()
        assert cluster[3].replica.raft.first_index > 2
        await enqueue(cluster[3])
        await cluster.restart(3)
        await cluster.wait_leader()
        await cluster.wait_equal()


async def test_a_member_whose_log_was_compacted_away_is_sent_a_snapshot(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, **SMALL_LOG) as cluster:
        await cluster.elect(1)
        await enqueue(cluster[3])
        last = await cluster.wait_equal()
        await cluster.stop(3)
        await write_until_compacted(cluster, 1, beyond=last)
        await cluster.start(3)
        await cluster.wait_leader()
        await cluster.wait_equal()


async def test_a_snapshot_of_many_chunks_arrives_while_writes_go_on(tmp_path: Path) -> None:
    """Larger than what may be under way unconfirmed, so both sides have to pace each other."""
    settings: dict[str, Any] = SMALL_LOG | {"segment_bytes": 1 << 20}
    async with local_cluster(tmp_path, start=False, **settings) as cluster:
        await cluster.start(1, 2)
        await cluster.elect(1)
        for _ in range(50):
            await enqueue(cluster[2], args=bytes(100_000))
        await wait_until(lambda: cluster[1].replica.raft.first_index > 2, "the log is trimmed")
        await cluster.start(3)
        written = 0
        while len(cluster[3].replica.store.jobs) < 50:
            await count_up(cluster[2])
            written += 1
        assert await read_counter(cluster[3], consistency="linearizable") == written
        await cluster.wait_equal()
