"""Real members with damaged, wiped and older directories: they come back as voters, and nothing is lost or voted twice."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quorker.core.errors import EXIT_CORRUPT, ConfigurationError, CorruptionError, IdentityMismatch
from quorker.core.raft.effects import Role
from quorker.core.raft.messages import Forgotten
from quorker.jepsen_like.calls import enqueue
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.node_start import open_node

pytestmark = pytest.mark.trio

SETTINGS: dict[str, Any] = {"segment_bytes": 1 << 16, "snapshot_after_entries": 20, "keep_entries": 5}


class Damaged:
    """A cluster of three that holds jobs, some in snapshots, and what is done to the disk of a stopped member."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.jobs: list[str] = []

    async def fill(self) -> None:
        await self.cluster.elect(1)
        for _ in range(70):
            self.jobs += await enqueue(self.cluster[1], args=bytes(4_000))
        await self.cluster.wait_equal()
        await wait_until(
            lambda: all(node.replica.raft.first_index > 10 for node in self.cluster.nodes), "logs are trimmed"
        )

    def directory(self, number: int) -> Path:
        return self.cluster.configs[number].data_dir

    def files(self, number: int, pattern: str) -> list[Path]:
        return sorted(self.directory(number).glob(pattern))

    def flip(self, path: Path, offset: int) -> bytes:
        """Flip one bit; returns the file as it is now."""
        content = bytearray(path.read_bytes())
        content[offset] ^= 4
        path.write_bytes(content)
        return bytes(content)

    def kept_aside(self, number: int, contents: Sequence[bytes]) -> bool:
        there = [path.read_bytes() for path in self.files(number, "*/*.damaged-*")]
        return all(content in there for content in contents)

    async def wait_voter(self, number: int) -> None:
        node = self.cluster[number]
        await wait_until(lambda: not node.status_now().rejoining, f"node {number} has its say again")
        assert node.replica.raft.hard_state.forgotten is Forgotten.NOTHING

    async def check(self, number: int) -> None:
        """It is a voter again that can be relied upon: with it and one other, everything is there and goes on."""
        await self.wait_voter(number)
        await self.cluster.wait_equal()
        other = next(each for each in (3, 2, 1) if each != number)
        await self.cluster.stop(next(each for each in (1, 2, 3) if each not in (number, other)))
        self.jobs += await enqueue(self.cluster[other])
        await self.cluster.wait_equal()
        assert set(self.jobs) <= set(self.cluster[number].replica.store.jobs)


@pytest.fixture
async def damaged(tmp_path: Path) -> AsyncIterator[Damaged]:
    async with local_cluster(tmp_path, **SETTINGS) as cluster:
        damaged = Damaged(cluster)
        await damaged.fill()
        yield damaged


async def test_a_flipped_bit_in_a_sealed_segment(damaged: Damaged) -> None:
    await damaged.cluster.stop(3)
    contents = [damaged.flip(damaged.files(3, "wal/*.wal")[-1], 2_000)]
    await damaged.cluster.start(3)
    assert damaged.kept_aside(3, contents)
    await damaged.check(3)


async def test_a_leader_whose_log_is_damaged(damaged: Damaged) -> None:
    await damaged.cluster.stop(1)
    contents = [damaged.flip(path, 500) for path in damaged.files(1, "wal/*.wal")]
    await damaged.cluster.start(1)
    assert damaged.kept_aside(1, contents)
    await damaged.check(1)


async def test_a_damaged_snapshot_goes_back_to_the_one_before(damaged: Damaged) -> None:
    await damaged.cluster.stop(3)
    damaged.flip(damaged.files(3, "snap/*.snap")[-1], 5_000)
    await damaged.cluster.start(3)
    assert not damaged.files(3, "*/*.damaged-*")
    await damaged.check(3)


async def test_both_snapshots_damaged(damaged: Damaged) -> None:
    await damaged.cluster.stop(3)
    contents = [damaged.flip(path, 5_000) for path in damaged.files(3, "snap/*.snap")]
    assert len(contents) == 2
    await damaged.cluster.start(3)
    assert damaged.kept_aside(3, contents)
    await damaged.check(3)


async def test_log_and_snapshots_damaged(damaged: Damaged) -> None:
    await damaged.cluster.stop(3)
    contents = [
        damaged.flip(path, 700) for path in damaged.files(3, "*/*.snap") + damaged.files(3, "*/*.wal")
    ]
    await damaged.cluster.start(3)
    assert damaged.kept_aside(3, contents)
    await damaged.check(3)


async def test_it_has_no_vote_while_another_is_missing_and_the_mark_survives(damaged: Damaged) -> None:
    """A majority of the others is both of them: with one alone, the damaged member is not counted, ever."""
    cluster = damaged.cluster
    await cluster.stop(2, 3)
    damaged.flip(damaged.files(3, "wal/*.wal")[-1], 2_000)
    await cluster.start(3)
    for _ in range(2):
        assert cluster[3].status_now().rejoining == "entries"
        raft = cluster[3].replica.raft
        votes = raft.voted_for
        raft.campaign()
        cluster[3].driver.wake()
        await wait_until(lambda: cluster[1].replica.raft.role is not Role.LEADER, "node 1 gives up leading")
        await wait_until(lambda: cluster[1].replica.raft.role is Role.PRE_CANDIDATE, "node 1 asks for votes")
        assert (raft.role, raft.voted_for) == (Role.FOLLOWER, votes)
        await cluster.restart(3)
    await cluster.start(2)
    await damaged.wait_voter(3)
    await cluster.wait_equal()


async def test_a_wiped_directory_is_refused_until_somebody_vouches_for_it(damaged: Damaged) -> None:
    cluster = damaged.cluster
    await cluster.stop(3)
    shutil.rmtree(damaged.directory(3))
    await cluster.start(3)
    refused = await cluster.wait_failed(3)
    assert isinstance(refused, IdentityMismatch)
    cluster.configs[3] = replace(cluster.configs[3], rejoin=True)
    shutil.rmtree(damaged.directory(3))
    await cluster.start(3)
    assert cluster[3].status_now().rejoining == "promises"
    await damaged.check(3)
    cluster.configs[3] = replace(cluster.configs[3], rejoin=False)
    await cluster.restart(3)
    await cluster.wait_leader()
    await cluster.wait_equal()


async def test_a_wiped_member_that_missed_nothing_but_the_first_snapshot(tmp_path: Path) -> None:
    """What the others send it then is the empty snapshot with which the cluster began."""
    async with local_cluster(tmp_path) as cluster:
        await cluster.elect(1)
        jobs = await enqueue(cluster[1])
        await cluster.stop(3)
        shutil.rmtree(cluster.configs[3].data_dir)
        cluster.configs[3] = replace(cluster.configs[3], rejoin=True)
        await cluster.start(3)
        await wait_until(lambda: not cluster[3].status_now().rejoining, "node 3 has its say again")
        await cluster.wait_equal()
        assert set(jobs) <= set(cluster[3].replica.store.jobs)


async def test_an_older_image_is_refused_until_somebody_vouches_for_it(
    damaged: Damaged, tmp_path: Path
) -> None:
    cluster = damaged.cluster
    await cluster.stop(3)
    shutil.copytree(damaged.directory(3), tmp_path / "image")
    for _ in range(2):
        await cluster.start(3)
        await wait_until(lambda: bool(cluster[3].session_id), "node 3 has a session")
        damaged.jobs += await enqueue(cluster[3], args=bytes(4_000))
        await cluster.stop(3)
    shutil.rmtree(damaged.directory(3))
    shutil.copytree(tmp_path / "image", damaged.directory(3))
    await cluster.start(3)
    assert isinstance(await cluster.wait_failed(3), IdentityMismatch)
    cluster.configs[3] = replace(cluster.configs[3], rejoin=True)
    await cluster.start(3)
    assert cluster[3].status_now().rejoining == "promises"
    await damaged.check(3)


async def test_an_older_image_that_nobody_vouches_for_is_named(
    damaged: Damaged, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Copied while its process ran, and put back after that has ended: the directory was opened as often as it says."""
    cluster = damaged.cluster
    shutil.copytree(damaged.directory(3), tmp_path / "image", ignore=shutil.ignore_patterns("*.sock", "LOCK"))
    for _ in range(30):
        damaged.jobs += await enqueue(cluster[1], args=bytes(4_000))
    await cluster.wait_equal()
    await cluster.stop(3)
    shutil.rmtree(damaged.directory(3))
    shutil.copytree(tmp_path / "image", damaged.directory(3))
    await cluster.start(3)
    await wait_until(
        lambda: "disk of node 3 went back from" in caplog.text, "the disk that went back is named"
    )
    await damaged.check(3)


async def test_a_single_member_refuses_and_touches_nothing(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, 1, **SETTINGS) as cluster:
        damaged = Damaged(cluster)
        await damaged.fill()
        await cluster.stop(1)
        content = damaged.flip(path := damaged.files(1, "wal/*.wal")[-1], 2_000)
        with pytest.raises(CorruptionError, match=r"n1/wal/.*\.wal is damaged at byte \d+") as caught:
            async with open_node(cluster.configs[1]):
                pass
        assert caught.value.exit_code == EXIT_CORRUPT
        assert path.read_bytes() == content
        assert not damaged.files(1, "*/*.damaged-*")


async def test_two_members_cannot_help_each_other(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, 2, **SETTINGS) as cluster:
        damaged = Damaged(cluster)
        await damaged.fill()
        await cluster.stop(2)
        damaged.flip(damaged.files(2, "wal/*.wal")[-1], 2_000)
        with pytest.raises(CorruptionError):
            async with open_node(cluster.configs[2]):
                pass
        cluster.configs[2] = replace(cluster.configs[2], rejoin=True)
        with pytest.raises(ConfigurationError, match="it takes 3"):
            async with open_node(cluster.configs[2]):
                pass
