"""Without a majority nothing is promised, and whoever asks is told so honestly. With one, everything goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from quorker.core.errors import NotApplied, OperationError
from quorker.jepsen_like.calls import count_up, enqueue, read_counter, receive
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until

pytestmark = pytest.mark.trio


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with local_cluster(tmp_path, default_timeout=1.0) as running:
        await running.elect(1)
        yield running


async def try_all(cluster: LocalCluster, number: int) -> dict[str, OperationError]:
    """Eight increments of a key each on a member that cannot succeed: what each caller is told."""
    errors: dict[str, OperationError] = {}

    async def attempt(key: str) -> None:
        try:
            await count_up(cluster[number], key, timeout=1.5)
        except OperationError as error:
            errors[key] = error

    async with trio.open_nursery() as nursery:
        for each in range(8):
            nursery.start_soon(attempt, f"{number} {each}")
    return errors


@pytest.mark.parametrize("alone", [1, 3], ids=["the leader", "a follower"])
async def test_what_a_minority_says_is_true(cluster: LocalCluster, alone: int) -> None:
    others = [number for number in (1, 2, 3) if number != alone]
    await cluster.stop(*others)
    errors = await try_all(cluster, alone)
    assert len(errors) == 8, "nobody was told that it worked"
    await cluster.start(*others)
    await cluster.wait_leader()
    await count_up(cluster[alone], "after", timeout=10)
    for key, error in errors.items():
        count = await read_counter(cluster[alone], key, "linearizable")
        assert count == 0 if isinstance(error, NotApplied) else count in (0, 1)


async def test_a_member_that_knows_of_no_leader_says_not_applied(cluster: LocalCluster) -> None:
    """Each attempt was refused on the spot, so nothing can come of it later."""
    await cluster.stop(1, 2)
    await wait_until(lambda: cluster[3].replica.raft.leader == 0, "node 3 has noticed")
    errors = await try_all(cluster, 3)
    assert [type(error) for error in errors.values()] == [NotApplied] * 8


async def test_reads_of_a_minority(cluster: LocalCluster) -> None:
    await count_up(cluster[1])
    await cluster.wait_equal()
    await cluster.stop(1, 2)
    await wait_until(lambda: cluster[3].replica.raft.leader == 0, "node 3 has noticed")
    with pytest.raises(NotApplied, match="linearizable read needs a leader"):
        await read_counter(cluster[3], consistency="linearizable")
    local = await cluster[3].query("counter", {"key": "total"})
    assert (local.value, local.age_ms) == (1, -1)
    assert (await cluster[3].status()).leader == 0


async def test_calls_wait_until_a_majority_is_there(tmp_path: Path) -> None:
    """A member may start before all others; what it was asked is done when it can be."""
    async with local_cluster(tmp_path, start=False) as cluster:
        await cluster.start(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_up, cluster[2])
            nursery.start_soon(cluster[2].wait_linearizable)
            await wait_until(lambda: cluster[2].replica.raft.role.value == "pre-candidate", "node 2 is alone")
            await cluster.start(1, 3)
        assert await read_counter(cluster[1], consistency="linearizable") == 1


async def test_jobs_that_were_stopped_for_lack_of_a_majority_run_afterwards(cluster: LocalCluster) -> None:
    """The worker's own deadline passes without a leader. Log time stands still, so the session lives on, and
    so do the leases: the worker itself has to give the jobs back that nobody has taken from it yet."""
    stopped: list[str] = []
    async with cluster[3].worker(("default",), 2, lambda token, reason: stopped.append(reason)) as worker:
        await enqueue(cluster[1])
        (running,) = await receive(worker, 1)
        await enqueue(cluster[1])
        await cluster.wait_equal()
        assert worker.running == 2, "the second one has arrived and waits to be received"
        await cluster.stop(1, 2)
        await wait_until(lambda: stopped, "the running job is told to stop")
        worker.release_nowait(running)
        await cluster.start(1, 2)
        again = await receive(worker, 2)
    assert sorted(grant.attempt for grant in again) == [1, 1]
    assert min(grant.token for grant in again) > running.token
