"""Three members on one loop, with real sockets and disks: what every one of them does for its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest

from quorker.jepsen_like.calls import count_up, enqueue, read_counter
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.client import open_client

pytestmark = pytest.mark.trio


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with local_cluster(tmp_path) as running:
        await running.elect(1)
        yield running


async def test_a_write_through_any_member_is_seen_on_all(cluster: LocalCluster) -> None:
    ids = [(await enqueue(node))[0] for node in cluster.nodes]
    await cluster.wait_equal()
    for node in cluster.nodes:
        for job_id in ids:
            assert (await node.query("job", {"job_id": job_id})).value["state"] == "Enqueued"


async def test_a_follower_forwards_and_sees_its_own_writes_at_once(cluster: LocalCluster) -> None:
    for round_number in range(1, 11):
        for node in cluster.nodes[1:]:
            await count_up(node, f"of node {node.node_id}")
            assert await read_counter(node, f"of node {node.node_id}") == round_number


async def test_a_linearizable_read_misses_nothing_acknowledged_anywhere(cluster: LocalCluster) -> None:
    for round_number in range(1, 11):
        writer = cluster.nodes[round_number % 3]
        await count_up(writer)
        for reader in cluster.nodes:
            assert await read_counter(reader, consistency="linearizable") == round_number


async def test_status_tells_who_is_who(cluster: LocalCluster) -> None:
    await enqueue(cluster[2])
    index = await cluster.wait_equal()
    leader, follower = await cluster[1].status(), await cluster[2].status()
    assert (leader.node_id, leader.role, leader.leader) == (1, "leader", 1)
    assert (follower.node_id, follower.role, follower.leader) == (2, "follower", 1)
    for status in (leader, follower):
        assert (status.cluster_id, status.members, status.faulted) == ("default", (1, 2, 3), "")
        assert (status.applied_index, status.commit_index, status.last_index) == (index, index, index)
        assert (status.term, status.lag) == (cluster[1].replica.raft.term, 0)
        assert (status.version, status.learners) == (version("quorker"), ())
    assert (leader.followers, follower.followers) == (((2, 0), (3, 0)), ())
    assert leader.leader_contact_age_ms is None
    assert follower.leader_contact_age_ms is not None


async def test_a_leader_tells_how_far_each_member_is_behind_and_one_that_is_cut_off_does_not_guess(
    cluster: LocalCluster,
) -> None:
    await cluster.wait_equal()
    await cluster.stop(3)
    held = cluster[1].replica.raft.progress[3].match_index
    for _ in range(5):
        await count_up(cluster[1])
    async with open_client([cluster[1].address]) as client:
        status = await client.status()
    lacks = dict(status.followers)
    assert lacks[3] == status.last_index - held
    assert lacks[3] >= 5
    await cluster.stop(1)
    await wait_until(lambda: cluster[2].replica.raft.leader == 0, "node 2 has noticed")
    alone = await cluster[2].status()
    assert (alone.lag, alone.leader_contact_age_ms, alone.followers) == (None, None, ())


@pytest.mark.parametrize("number", [1, 2], ids=["the leader", "a follower"])
async def test_an_answer_from_memory_says_how_old_it_is(cluster: LocalCluster, number: int) -> None:
    """Without a majority the age goes on, also at a leader that has not noticed."""
    node = cluster[number]
    await node.query("clock", {}, consistency="linearizable")
    assert (await node.query("clock", {})).age_ms >= 0
    await cluster.stop(*(other for other in (1, 2, 3) if other != number))
    await wait_until(lambda: node.query_now("clock", {}).age_ms > 500, "its age grows")
