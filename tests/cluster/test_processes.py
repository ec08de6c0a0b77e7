"""Members as processes: killed, frozen, stopped, restarted, and never left behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from quorker.app.member_process import MemberNotStarted
from quorker.core.errors import EXIT_OK, EXIT_USAGE
from quorker.jepsen_like.calls import count_up, read_counter
from quorker.jepsen_like.processes import ProcessCluster, process_cluster
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.client import open_client

pytestmark = pytest.mark.trio

IDLE = ("--workers", "0")
STARTER = """
import sys
from pathlib import Path
import trio
from quorker.jepsen_like.processes import process_cluster

async def main():
    async with process_cluster(Path(sys.argv[1]), 2, options=("--workers", "0")) as cluster:
        cluster.pause(2)
        print(*cluster.addresses.values(), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    async with process_cluster(tmp_path, options=IDLE) as running:
        yield running


async def count_once(cluster: ProcessCluster, *nodes: int) -> None:
    async with open_client([cluster.addresses[node] for node in nodes], name="counter") as client:
        await count_up(client)


async def total(cluster: ProcessCluster, node: int) -> int:
    async with open_client([cluster.addresses[node]], name="reader") as client:
        return await read_counter(client, consistency="linearizable")


async def test_a_killed_leader_is_followed_by_another_and_comes_back(cluster: ProcessCluster) -> None:
    first = await cluster.wait_leader()
    await count_once(cluster, first)
    await cluster.kill(first)
    assert first not in cluster.running
    second = await cluster.wait_leader(first)
    await count_once(cluster, second)
    await cluster.start(first)
    await cluster.wait_leader()
    assert await total(cluster, first) == 2
    await cluster.wait_applied_equally()


async def test_a_frozen_leader_loses_its_office_and_follows_when_it_thaws(cluster: ProcessCluster) -> None:
    first = await cluster.wait_leader()
    cluster.pause(first)
    second = await cluster.wait_leader(first)
    await count_once(cluster, second)
    cluster.resume(first)
    assert await total(cluster, first) == 1
    assert await cluster.wait_leader() in cluster.addresses


async def test_a_member_that_is_asked_to_stop_does_so_and_a_restart_finds_everything(tmp_path: Path) -> None:
    async with process_cluster(tmp_path, 1, options=IDLE) as cluster:
        await count_once(cluster, 1)
        assert await cluster.stop(1) == EXIT_OK
        assert cluster.running == []
        await cluster.start(1)
        await cluster.restart(1)
        assert await total(cluster, 1) == 1
        await cluster.kill(1)
        await cluster.start(1)
        assert await total(cluster, 1) == 1


async def test_a_signal_is_the_exit_code(tmp_path: Path) -> None:
    async with process_cluster(tmp_path, 1, options=IDLE) as cluster:
        cluster[1].kill()
        assert await cluster[1].wait_ended() == -signal.SIGKILL


async def test_a_member_that_cannot_start_says_why(tmp_path: Path) -> None:
    async with process_cluster(tmp_path, 1, start=False, options=("--tls-key", "x")) as cluster:
        with pytest.raises(MemberNotStarted, match="TLS needs --tls-certificate") as raised:
            await cluster.start(1)
        assert raised.value.code == EXIT_USAGE
        assert cluster.running == []


def is_listening(address: str) -> bool:
    """The kernel answers for a frozen process too."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def start_starter(directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STARTER, str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_no_member_outlives_a_starter_that_is_killed(tmp_path: Path) -> None:
    """Not even a frozen one, which could not notice by itself."""
    with start_starter(tmp_path) as starter:
        assert starter.stdout is not None
        addresses = (await trio.to_thread.run_sync(starter.stdout.readline)).split()
        assert len(addresses) == 2
        assert all(map(is_listening, addresses))
        starter.kill()
    await wait_until(lambda: not any(map(is_listening, addresses)), "both members are gone")


async def test_nothing_is_left_when_the_block_raises(tmp_path: Path) -> None:
    addresses: list[str] = []

    async def fail() -> None:
        async with process_cluster(tmp_path, 2, options=IDLE) as cluster:
            addresses.extend(cluster.addresses.values())
            cluster.pause(1)
            raise LookupError("of the test")

    with pytest.raises(LookupError, match="of the test"):
        await fail()
    assert not any(map(is_listening, addresses))
