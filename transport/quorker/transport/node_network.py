"""Between a node and its connections: what members and clients say reaches the right part, and answers go out.

Implements the listener's `ConnectionHandler`, the links' `PeerEvents` and the drive loop's `Links`.
"""

from __future__ import annotations

from collections.abc import Callable

from quorker.core.raft.messages import InstallSnapshot, Message, NodeId
from quorker.core.wire.handshake import Reason, Refusal
from quorker.core.wire.requests import (
    ClientRequest,
    PeerMessage,
    Propose,
    ProposeRefused,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotResult,
)
from quorker.transport.clock import monotonic_ms
from quorker.transport.gateway import ClientHost, Start
from quorker.transport.listener import ClientLink
from quorker.transport.node import Node
from quorker.transport.peers import PeerLinks
from quorker.transport.snapshots import SnapshotMover

OWN_FAULT = (Reason.DUPLICATE_NODE, Reason.ROLLED_BACK, Reason.WRONG_CLUSTER)


class NodeNetwork:
    """All traffic of one node. `links` and `mover` are set before anything runs."""

    def __init__(self, node: Node, start: Start, on_refused: Callable[[NodeId, Refusal], None]) -> None:
        self._node = node
        self._start = start
        self._on_refused = on_refused
        self._clients: dict[ClientLink, ClientHost] = {}
        self.links: PeerLinks
        self.mover: SnapshotMover

    # ------------------------------------------------------------------ Links, for the drive loop

    def send(self, to: NodeId, message: Message) -> None:
        if isinstance(message, InstallSnapshot):
            self.mover.send(message)
        else:
            self.links.send(to, message)

    def forward(self, to: NodeId, group: bytes) -> None:
        self.links.forward(to, group)

    def flush_late(self) -> None:
        self.links.flush_late()

    def flush(self) -> None:
        self.links.flush()
        dirty = self._node.dirty_hosts
        if dirty:
            hosts = list(dirty.values())
            dirty.clear()
            for host in hosts:
                host.flush()

    # ------------------------------------------------------------------ Channel, for snapshots

    def send_record(self, to: NodeId, record: PeerMessage) -> bool:
        return self.links.say(to, record)

    async def wait_room(self, to: NodeId) -> bool:
        return await self.links.wait_room(to)

    def refuse_forwarded(
        self, origin: NodeId, session_id: int, seqs: tuple[int, ...], reason: str, retry_after_ms: int
    ) -> None:
        leader = self._node.replica.raft.leader
        self.links.say(origin, ProposeRefused(session_id, seqs, reason, leader, retry_after_ms))

    # ------------------------------------------------------------------ PeerEvents

    def on_peer_up(self, peer: NodeId) -> None:
        self._node.driver.wake()

    def on_peer_down(self, peer: NodeId) -> None:
        """Groups forwarded to a leader that is gone are sent again, once there is a way to one."""
        raft = self._node.replica.raft
        self._node.replica.peer_unreachable(peer)
        self.mover.on_peer_down(peer)
        if peer == raft.leader:
            self._node.hosts.on_route_changed()
        self._node.driver.wake()

    def on_peer_refused(self, peer: NodeId, refusal: Refusal) -> None:
        self._on_refused(peer, refusal)

    # ------------------------------------------------------------------ ConnectionHandler

    def on_peer_connected(self, peer: NodeId) -> None:
        self.links.kick(peer)

    def on_peer_messages(self, peer: NodeId, messages: list[PeerMessage]) -> None:
        self._node.replica.observe_time(monotonic_ms())
        for message in messages:
            match message:
                case Propose(_, groups):
                    for group in groups:
                        self._node.replica.submit(group, peer)
                case ProposeRefused():
                    self._node.hosts.on_refused(
                        message.session, message.seqs, message.reason, message.retry_after_ms
                    )
                case SnapshotBegin():
                    self.mover.on_begin(peer, message)
                case SnapshotChunk():
                    self.mover.on_chunk(peer, message)
                case SnapshotEnd():
                    self.mover.on_end(peer, message)
                case SnapshotResult():
                    self.mover.on_result(message)
                case _:
                    self._node.replica.receive(message)
        self._node.driver.wake()

    def on_client_connected(self, client: ClientLink) -> None:
        self._clients[client] = ClientHost(self._node, client, self._start)

    def on_client_requests(self, client: ClientLink, requests: list[ClientRequest]) -> None:
        host = self._clients[client]
        for request in requests:
            host.on_request(request)

    def on_client_gone(self, client: ClientLink) -> None:
        host = self._clients.pop(client, None)
        if host is not None:
            host.close()
