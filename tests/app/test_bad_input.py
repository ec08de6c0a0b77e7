"""Mistakes around directories, identities, ports and missing members, as people make them on the command line.

Each ends with the documented exit code and a message that names both sides; none shows a traceback. Mistakes in a
single option are in `test_cli.py`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from quorker.app.cli import main
from quorker.app.loopback_addresses import free_addresses
from quorker.core.errors import EXIT_CORRUPT, EXIT_NO_QUORUM, EXIT_REFUSED, EXIT_USAGE
from quorker.jepsen_like.calls import enqueue
from quorker.jepsen_like.processes import ProcessCluster, process_cluster
from quorker.jepsen_like.recorded_tasks import RECORDED_APP
from quorker.transport.client import open_client

pytestmark = pytest.mark.trio

# Everything that is imported late is imported before the change of user, who may not be able to read it.
PROGRAM = """
import os, sys
from quorker.app.cli import main
import quorker.app.cli.program, quorker.transport.node_start, quorker.jepsen_like.recorded_tasks
user = int(sys.argv[1])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
raise SystemExit(main(sys.argv[2:]))
"""
ROOT = 0
NOBODY = 65534
PATIENCE_SECONDS = 120
IDLE = ("--workers", "0")


class Ran(NamedTuple):
    """One command: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    def is_refusal(self, code: int) -> bool:
        """One line says why; log lines may come before it."""
        last = self.err.splitlines()[-1]
        return self.code == code and last.startswith("quorker: ") and "Traceback" not in self.err


async def node(*arguments: str, user: int = ROOT) -> Ran:
    """`quorker node` that ends by itself."""
    command = [sys.executable, "-c", PROGRAM, str(user), "node", RECORDED_APP, *IDLE, *arguments]
    run = partial(
        subprocess.run, command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    ended = await trio.to_thread.run_sync(partial(run, timeout=PATIENCE_SECONDS))
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def quorker(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    code = main(arguments)
    out, err = capsys.readouterr()
    return Ran(code, out, err)


def member_options(cluster: ProcessCluster, number: int, data: Path, address: str = "") -> list[str]:
    """As the members of this cluster are started, from another directory or at another address."""
    own = address or cluster.addresses[number]
    members = [f"{each}={own if each == number else at}" for each, at in cluster.addresses.items()]
    options = ["--id", str(number), "--data", str(data), "--listen", own, "--members", ",".join(members)]
    return [*options, "--profile", "fast"]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    async with process_cluster(tmp_path, options=IDLE) as running:
        await running.wait_leader()
        for number in running.addresses:  # the others know its directory once it could say so
            async with open_client([running.addresses[number]], name=f"client-{number}") as client:
                await enqueue(client)
        await running.wait_leader()
        yield running


# ---------------------------------------------------------------------- ports and directories


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = await node("--listen", address, "--data", str(tmp_path / "data"))
    assert ran.code == EXIT_USAGE
    said = f"cannot listen on {address}: another process listens there: stop it, or choose another port"
    assert ran.err == f"quorker: {said}\n"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="quorker-test-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


async def test_a_directory_of_another_user_or_without_write_permission_is_refused(open_path: Path) -> None:
    if os.geteuid() != ROOT:
        pytest.skip("only root can become another user")
    ours, theirs = open_path / "ours", open_path / "theirs"
    ours.mkdir(mode=0o700)
    ran = await node("--data", str(ours), user=NOBODY)
    assert ran == Ran(EXIT_USAGE, "", f"quorker: data directory {ours} belongs to user 0, not to {NOBODY}\n")
    theirs.mkdir(mode=0o500)
    os.chown(theirs, NOBODY, NOBODY)
    ran = await node("--data", str(theirs), user=NOBODY)
    assert ran.is_refusal(EXIT_USAGE), ran
    assert f"data directory {theirs} cannot be used: {theirs}/LOCK: Permission denied" in ran.err
    ran = await node("--data", str(theirs / "below"), user=NOBODY)
    assert ran.is_refusal(EXIT_USAGE), ran
    assert f"{theirs}/below: Permission denied" in ran.err


async def test_a_damaged_log_of_a_single_member_names_file_and_offset(tmp_path: Path) -> None:
    async with process_cluster(tmp_path, 1, options=IDLE) as cluster:
        async with open_client(list(cluster.addresses.values()), name="client") as client:
            await enqueue(client, args=b"find me here")
        await cluster.stop(1)
        (segment,) = (cluster.data_path(1) / "wal").glob("*.wal")
        damaged = bytearray(segment.read_bytes())
        damaged[damaged.index(b"find me here")] ^= 1
        segment.write_bytes(damaged)
        ran = await node(*member_options(cluster, 1, cluster.data_path(1)))
    assert ran.is_refusal(EXIT_CORRUPT), ran
    assert f"wal/{segment.name} is damaged at byte " in ran.err
    assert segment.read_bytes() == damaged, "nothing was changed"


# ---------------------------------------------------------------------- identities


async def test_two_members_with_one_id(cluster: ProcessCluster, tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    ran = await node(*member_options(cluster, 2, tmp_path / "second", address))
    assert ran.is_refusal(EXIT_REFUSED), ran
    assert "duplicate node: node 2 was last seen with data directory" in ran.err
    assert cluster.running == [1, 2, 3], "the first one is left alone"


async def test_a_member_of_another_cluster(cluster: ProcessCluster, tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    ran = await node(*member_options(cluster, 2, tmp_path / "other", address), "--cluster", "other")
    assert ran.is_refusal(EXIT_REFUSED), ran
    assert "wrong cluster" in ran.err
    await cluster.stop(2)
    ran = await node(*member_options(cluster, 2, cluster.data_path(2)), "--cluster", "other")
    assert ran.is_refusal(EXIT_REFUSED), ran
    assert f"{cluster.data_path(2)}: the data directory belongs to cluster" in ran.err


async def test_a_wiped_directory(cluster: ProcessCluster) -> None:
    await cluster.kill(3)
    shutil.rmtree(cluster.data_path(3))
    ran = await node(*member_options(cluster, 3, cluster.data_path(3)))
    assert ran.is_refusal(EXIT_REFUSED), ran
    assert "two members share one id, or its directory was replaced" in ran.err


async def test_a_directory_moved_to_another_id(cluster: ProcessCluster) -> None:
    await cluster.kill(2, 3)
    ran = await node(*member_options(cluster, 2, cluster.data_path(3)))
    assert ran.is_refusal(EXIT_REFUSED), ran
    assert "belongs to node 3, but this is node 2: a directory is never moved to another node id" in ran.err


async def test_a_copied_directory(cluster: ProcessCluster, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    await cluster.kill(3)
    shutil.copytree(cluster.data_path(3), copy, ignore=shutil.ignore_patterns("*.sock"))
    await cluster.start(3)
    await cluster.wait_leader()
    (address,) = free_addresses(1)
    ran = await node(*member_options(cluster, 3, copy, address))
    assert ran.is_refusal(EXIT_REFUSED), ran
    assert "of node 3: its data directory was copied" in ran.err


# ---------------------------------------------------------------------- no quorum


async def test_one_member_of_three_says_that_it_is_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with process_cluster(tmp_path, start=False, options=IDLE) as cluster:
        await cluster.start(1)
        ask = partial(quorker, capsys)
        here = ("--address", cluster.addresses[1], "--timeout", "1")
        ran = await trio.to_thread.run_sync(partial(ask, "status", *here))
        assert (ran.code, ran.err) == (EXIT_NO_QUORUM, "")
        assert "leader   none known" in ran.out
        ran = await trio.to_thread.run_sync(partial(ask, "job", "enqueue", "deliver", *here))
        assert ran.is_refusal(EXIT_NO_QUORUM), ran
        assert "no leader was reached before the deadline: the command was never sent" in ran.err
        ran = await trio.to_thread.run_sync(partial(ask, "job", "show", "0" * 13, *here))
        assert ran.is_refusal(EXIT_NO_QUORUM), ran
        assert "node 1 found no leader with a majority behind it within 0.9 s" in ran.err
