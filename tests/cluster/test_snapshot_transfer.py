"""Snapshots on their way to another member, and everything that can come between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from quorker.core.raft.messages import AppendResponse, Message, SnapshotMeta
from quorker.core.wire.requests import PeerMessage, SnapshotChunk
from quorker.core.wire.snapshot_store import SnapshotWriter
from quorker.core.wire.storage import LogStorage
from quorker.core.wire.storage_errors import DiskFull
from quorker.jepsen_like.calls import enqueue
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.jepsen_like.waiting import wait_until
from quorker.transport import snapshots
from quorker.transport.node import Node
from quorker.transport.node_network import NodeNetwork

pytestmark = pytest.mark.trio


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Node 1 leads, node 2 follows, and node 3 will need a snapshot of 20 chunks when it starts."""
    settings: dict[str, Any] = {"segment_bytes": 1 << 20, "snapshot_after_entries": 20, "keep_entries": 2}
    async with local_cluster(tmp_path, start=False, **settings) as running:
        await running.start(1, 2)
        await running.elect(1)
        for _ in range(25):
            await enqueue(running[1], args=bytes(100_000))
        await running.wait_equal()
        await wait_until(lambda: trimmed(running[1]) and trimmed(running[2]), "both logs are trimmed")
        yield running


def trimmed(node: Node) -> bool:
    return node.replica.raft.first_index > 2


def network(node: Node) -> NodeNetwork:
    return cast("NodeNetwork", node.driver.links)


class Lossy:
    """Swallows chunks from the third on, and tells when that has begun. The sender believes that they were sent."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.losing = trio.Event()
        self.heals = False
        self._chunks = 0
        self._say: Callable[[int, PeerMessage], bool] = network(node).links.say
        monkeypatch.setattr(network(node).links, "say", self.say)

    def say(self, to: int, record: PeerMessage) -> bool:
        self._chunks += isinstance(record, SnapshotChunk)
        if isinstance(record, SnapshotChunk) and self._chunks > 2 and not self.heals:
            self.losing.set()
            return True
        return self._say(to, record)


async def test_the_next_leader_starts_anew_when_the_first_one_leaves_in_the_middle(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy = Lossy(cluster[1], monkeypatch)
    await cluster.start(3)
    await lossy.losing.wait()
    await cluster.stop(1)
    await cluster.wait_leader(1)
    await cluster.wait_equal()


async def test_a_receiver_that_restarts_in_the_middle_is_sent_it_again_at_once(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "TRANSFER_SECONDS", 1_000)
    lossy = Lossy(cluster[1], monkeypatch)
    await cluster.start(3)
    await lossy.losing.wait()
    await cluster.stop(3)
    lossy.heals = True
    await cluster.start(3)
    await cluster.wait_leader()
    await cluster.wait_equal()


async def test_a_transfer_without_progress_is_given_up_and_repeated(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "TRANSFER_SECONDS", 0.2)
    lossy = Lossy(cluster[1], monkeypatch)
    await cluster.start(3)
    await lossy.losing.wait()
    lossy.heals = True
    await cluster.wait_leader()
    await cluster.wait_equal()


async def test_it_does_not_matter_when_the_receivers_answer_to_raft_is_lost(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.start(3)
    send: Callable[[int, Message], None] = network(cluster[3]).links.send
    lost: list[Any] = []

    def lose_one(to: int, message: Message) -> None:
        if isinstance(message, AppendResponse) and not message.rejected and not lost:
            lost.append(message)
        else:
            send(to, message)

    monkeypatch.setattr(network(cluster[3]).links, "send", lose_one)
    await cluster.wait_leader()
    await cluster.wait_equal()
    assert lost
    assert lost[0].index > 2, "it was the answer to the snapshot"


@pytest.mark.parametrize("step", ["receive_snapshot", "add"])
async def test_a_receiver_without_room_refuses_and_keeps_its_connections(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The connection carries heartbeats too: it must not break, and the snapshot comes when there is room."""
    full = [True]
    owner: Any = LogStorage if step == "receive_snapshot" else SnapshotWriter
    original: Callable[..., Any] = getattr(owner, step)

    def without_room(*args: Any) -> Any:
        is_bootstrap = isinstance(args[1], SnapshotMeta) and args[1].index == 1
        if full and not is_bootstrap:
            full.pop()
            raise DiskFull("no space left")
        return original(*args)

    monkeypatch.setattr(owner, step, without_room)
    await cluster.start(3)
    await cluster.wait_leader()
    connections: list[int] = []
    monkeypatch.setattr(network(cluster[1]), "on_peer_up", connections.append)
    await cluster.wait_equal()
    assert not full
    assert 3 not in connections
