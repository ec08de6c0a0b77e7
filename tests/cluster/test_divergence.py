"""A member whose memory was damaged: it answers otherwise than the others, finds out, and stops; the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorker.core.errors import EXIT_CORRUPT
from quorker.core.jobs.commands import DeleteJob
from quorker.jepsen_like.calls import count_up, enqueue
from quorker.jepsen_like.local_cluster import local_cluster

pytestmark = pytest.mark.trio

CLAIM_WITHIN = 80  # entries: more than lie between two claims of a leader


@pytest.mark.parametrize("damaged", [1, 3], ids=["the leader", "a follower"])
async def test_a_member_with_another_state_stops_and_says_why(tmp_path: Path, damaged: int) -> None:
    async with local_cluster(tmp_path) as cluster:
        await cluster.elect(1)
        (job_id,) = await enqueue(cluster[2])
        await cluster.wait_equal()
        jobs = cluster[damaged].replica.store.jobs
        jobs[job_id] = jobs[job_id]._replace(current=None)
        await cluster[2].submit(DeleteJob(job_id, ("Enqueued",)))
        for _ in range(CLAIM_WITHIN):
            await count_up(cluster[2])
        error = await cluster.wait_failed(damaged)
        assert error.exit_code == EXIT_CORRUPT
        assert "the state of this member at index " in str(error)
        assert "that of a majority of the members is " in str(error)
        await cluster.wait_leader()
        await count_up(cluster[2])
        await cluster.wait_equal()
        assert cluster.running == [number for number in (1, 2, 3) if number != damaged]
        for node in cluster.nodes:
            assert f"node {damaged} has " in (await node.status()).contradiction
        assert list((tmp_path / f"n{damaged}" / "wal").iterdir())
