"""How a member ends: what it gives back, to whom, and that no way of ending it takes long or leaves anything behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from quorker.core.errors import StorageFailed
from quorker.jepsen_like.calls import enqueue, ignore_cancel, receive
from quorker.jepsen_like.local_cluster import QUICK, LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until
from quorker.transport import node_start
from quorker.transport.node import Node
from quorker.transport.node_start import open_node

pytestmark = pytest.mark.trio


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with local_cluster(tmp_path) as running:
        await running.elect(1)
        yield running


def session_names(node: Node) -> set[str]:
    return {session.name for session in node.replica.store.sessions.values()}


async def test_a_leader_that_stops_hands_leadership_over(cluster: LocalCluster) -> None:
    """Nobody had to wait for an election timeout: then a pre-vote would have come first, and no other term."""
    term = cluster[1].replica.raft.term
    before = cluster[2].replica.raft.log.last_index
    await cluster.stop(1)
    leader = await cluster.wait_leader(1)
    assert leader.replica.raft.term == term + 1
    assert leader.replica.raft.log.term_at(before) == term


async def test_jobs_of_a_stopping_member_run_elsewhere_without_an_attempt_spent(
    cluster: LocalCluster,
) -> None:
    ids = await enqueue(cluster[2], 3)
    async with cluster[1].worker(("default",), 3, ignore_cancel) as first:
        assert [grant.job_id for grant in await receive(first, 3)] == ids
        async with cluster[3].worker(("default",), 3, ignore_cancel) as second:
            await cluster.stop(1)
            grants = await receive(second, 3)
    assert [grant.job_id for grant in grants] == ids
    assert [(grant.attempt, grant.deliveries) for grant in grants] == [(1, 2)] * 3
    assert [cluster[3].replica.store.jobs[job_id].lost for job_id in ids] == [0, 0, 0]


@pytest.mark.parametrize("number", [1, 2])
async def test_nothing_is_left_of_the_session_of_a_stopped_member(cluster: LocalCluster, number: int) -> None:
    await cluster.stop(number)
    await cluster.wait_leader(number)
    await cluster.wait_equal()
    assert f"node-{number}" not in session_names(cluster[3])


async def test_a_cancelled_member_still_gives_everything_back(cluster: LocalCluster, tmp_path: Path) -> None:
    config = cluster.configs[3]
    await cluster.stop(3)
    (job_id,) = await enqueue(cluster[1])
    with trio.CancelScope() as scope:
        async with open_node(config) as node, node.worker(("default",), 1, ignore_cancel) as worker:
            assert [grant.job_id for grant in await worker.receive()] == [job_id]
            scope.cancel()
    assert scope.cancelled_caught
    await wait_until(lambda: "node-3" not in session_names(cluster[1]), "the session of node 3 is closed")
    job = cluster[1].replica.store.jobs[job_id]
    assert (job.state, job.lost) == ("Enqueued", 0)


async def test_an_error_of_the_block_passes_as_it_is_after_a_graceful_stop(tmp_path: Path) -> None:
    async def use() -> None:
        async with open_node(replace(QUICK, data_dir=tmp_path / "alone")) as node:
            await enqueue(node)
            raise LookupError("of the caller")

    with pytest.raises(LookupError, match="of the caller"):
        await use()
    async with open_node(replace(QUICK, data_dir=tmp_path / "alone")) as node:
        await node.query("clock", {}, consistency="linearizable")
        assert len(node.replica.store.sessions) <= 1, "only the new one: the old one was closed"


async def test_members_that_stop_together_do_not_wait_for_a_majority(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_start, "STOP_SECONDS", 1_000)
    with trio.fail_after(10):
        await cluster.stop(1, 2, 3)


async def test_the_last_member_stops_without_the_others(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_start, "STOP_SECONDS", 1_000)
    with trio.fail_after(10):
        for number in (1, 2, 3):
            await cluster.stop(number)


async def test_an_error_of_any_part_ends_the_member_with_that_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails in the drive loop: the block is cancelled, and the error comes out unwrapped."""

    def fail(batch: object) -> None:
        raise StorageFailed("the disk is gone")

    async def use() -> None:
        async with open_node(replace(QUICK, data_dir=tmp_path / "alone")) as node:
            await enqueue(node)
            monkeypatch.setattr(node.driver.disk, "write", fail)
            await enqueue(node)

    with pytest.raises(StorageFailed, match="gone"):
        await use()
