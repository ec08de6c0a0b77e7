"""A real member on a real file system that is full again and again (guarantee D5). Mounting one needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from quorker.core.errors import OutOfSpace
from quorker.core.jobs.commands import CompleteJob, DeleteJob, JobGrant, SetRangeInHash
from quorker.jepsen_like.calls import enqueue, ignore_cancel, receive
from quorker.jepsen_like.local_cluster import local_cluster
from quorker.transport.node import Node
from quorker.transport.session_driver import JobReceiver

pytestmark = pytest.mark.trio

SIZE: Final = 32 << 20
ARGS: Final = bytes(100_000)
ROUNDS: Final = 3
ROOM: Final = 8 << 20  # beside the ballast
SLOTS: Final = 5
SMALL: Final[dict[str, Any]] = {
    "segment_bytes": 1 << 20,
    "reserve_bytes": 2 << 20,
    "low_bytes": 4 << 20,
    "snapshot_after_bytes": 1 << 30,  # whatever is full stays full until the test makes space
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "disk"
    root.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(root)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def fill(root: Path, size: int) -> Path:
    path = root / "ballast"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return path


async def fill_with_jobs(node: Node) -> list[str]:
    """Until no more are taken."""
    made: list[str] = []
    while True:
        try:
            made += await enqueue(node, args=ARGS, timeout=2.0)
        except OutOfSpace:
            return made


async def end(node: Node, grant: JobGrant) -> None:
    await node.submit(CompleteJob(grant.job_id, grant.token, b"done"))


def states(node: Node, jobs: list[str]) -> list[str]:
    return [node.replica.store.jobs[job].state for job in jobs]


async def one_round(
    root: Path, node: Node, worker: JobReceiver, ended: list[str], deleted: list[str]
) -> None:
    """Full of jobs behind some ballast; jobs end and go all the same; without the ballast, new ones are taken again."""
    ballast = fill(root, free_of(root) - ROOM)
    made = await fill_with_jobs(node)
    assert len(made) * len(ARGS) > SMALL["low_bytes"] // 2
    for grant in await receive(worker, SLOTS):
        await end(node, grant)
        ended.append(grant.job_id)
    for job in made[-3:]:
        assert await node.submit(DeleteJob(job))
        deleted.append(job)
    with pytest.raises(OutOfSpace, match=r"the disk of node 1 \(the leader\) is nearly full"):
        await enqueue(node, timeout=1.0)
    ballast.unlink()
    await enqueue(node)


async def test_a_full_disk_refuses_new_jobs_ends_others_and_heals(small_disk: Path) -> None:
    ended: list[str] = []
    deleted: list[str] = []
    async with local_cluster(small_disk, 1, **SMALL) as cluster:
        await cluster.elect(1)
        node = cluster[1]
        async with node.worker(("default",), SLOTS, ignore_cancel) as worker:
            for _ in range(ROUNDS):
                await one_round(small_disk, node, worker, ended, deleted)
        await cluster.stop(1)
        await cluster.start(1)
        await cluster.elect(1)
        assert len(ended) >= SLOTS * ROUNDS
        assert set(states(cluster[1], ended)) == {"Succeeded"}
        assert set(states(cluster[1], deleted)) == {"Deleted"}


async def test_a_snapshot_that_needs_the_reserve_makes_room_by_itself(small_disk: Path) -> None:
    """The log of many small changes takes more room than what they changed: nobody has to free anything."""
    settings: dict[str, Any] = {**SMALL, "snapshot_after_bytes": 8 << 20}
    async with local_cluster(small_disk, 1, **settings) as cluster:
        await cluster.elect(1)
        node = cluster[1]
        fill(small_disk, free_of(small_disk) - ROOM)
        for number in range(200):
            await node.submit(SetRangeInHash("key", (("field", f"{number:0>100000}"),)))
        assert node.replica.store_index > 200


def free_of(root: Path) -> int:
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize
