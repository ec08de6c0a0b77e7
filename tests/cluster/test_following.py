"""Whoever follows the jobs sees every change once, also when the members it asks go away one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from quorker.app.cli.job_listing import Filters, read_filters
from quorker.app.cli.tail_command import follow
from quorker.app.job_search import Row
from quorker.jepsen_like.calls import enqueue
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.client import open_client
from quorker.transport.connection import Connection

pytestmark = pytest.mark.trio

INTERVAL_SECONDS = 0.05


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with local_cluster(tmp_path) as running:
        await running.elect(1)
        yield running


async def enqueue_and_stop(cluster: LocalCluster, number: int, connection: Connection) -> list[str]:
    """New jobs, before and while this member is away."""
    before = await enqueue(connection, 20)
    await cluster.stop(number)
    meanwhile = await enqueue(connection, 20)
    await cluster.start(number)
    return before + meanwhile


async def test_no_change_is_missed_when_members_go_away(cluster: LocalCluster, nursery: trio.Nursery) -> None:
    shown: list[str] = []
    looks = 0

    def show(rows: list[Row]) -> bool:
        nonlocal looks
        looks += 1
        shown.extend(row["id"] for row in rows)
        return True

    addresses = [node.address for node in cluster.nodes]
    ids: list[str] = []
    async with open_client(addresses, name="follower", observer=True) as client:
        nursery.start_soon(follow, client, read_filters(Filters()), INTERVAL_SECONDS, show)
        await wait_until(lambda: looks, "it follows")
        async with open_client(addresses, name="caller") as caller:
            for number in (1, 2, 3):
                ids += await enqueue_and_stop(cluster, number, caller)
                await cluster.wait_leader()
        await wait_until(lambda: len(shown) >= len(ids), "all changes are shown")
        nursery.cancel_scope.cancel()
    assert sorted(shown) == sorted(ids)
