"""The accepting side: lets connections in within their limits, greets them, and serves each until it ends.

Nothing that arrives on a connection, and nothing that a handler raises, ends anything but that connection, except a
failed disk, which ends the node. Deciding what requests mean is the handler's business; it is called with everything
one wake brought, and must not block.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

import trio

from quorker.core.errors import ProtocolError, StorageFailed
from quorker.core.raft.messages import NodeId
from quorker.core.wire import requests
from quorker.core.wire.frames import Frame, Outgoing, WireLimits
from quorker.core.wire.handshake import Hello, Party, Reason, Refusal
from quorker.core.wire.requests import (
    ACCEPTED_FROM,
    KNOWN,
    RAFT,
    Answer,
    ClientAnswer,
    ClientRequest,
    Encoder,
    Failed,
    Failure,
    PeerMessage,
    Query,
    Role,
    SnapshotBegin,
    Speech,
    StatusRequest,
    Submit,
    Unsupported,
    Wait,
)
from quorker.core.wire.roster import Roster
from quorker.transport.greeting import ConnectionRefused, Credentials, greet_accepted
from quorker.transport.stream import ConnectionLost, FrameStream

log = logging.getLogger("quorker.transport.listener")

NUMBERED: Final = (Submit, Query, StatusRequest, Wait)
LOCAL: Final = "local"  # the address of whatever does not come over TCP


class ConnectionHandler(Protocol):
    """What a node does with its connections. Called between two awaits of the loop; must not block or raise."""

    def on_peer_connected(self, peer: NodeId) -> None:
        """A member reached this node: it is up."""
        ...

    def on_peer_messages(self, peer: NodeId, messages: list[PeerMessage]) -> None:
        """Raft's messages among them are from `peer` and for this node; that was checked."""
        ...

    def on_client_connected(self, client: ClientLink) -> None: ...

    def on_client_requests(self, client: ClientLink, requests: list[ClientRequest]) -> None: ...

    def on_client_gone(self, client: ClientLink) -> None: ...


class ClientLink:
    """The connection of one client, as its handler sees it."""

    def __init__(self, stream: FrameStream, address: str, limits: WireLimits) -> None:
        self.role = stream.established.role
        self.name = stream.established.name
        self.number = stream.established.connection
        self.address = address
        self._stream = stream
        self._limits = limits
        self._encoder = Encoder()
        self._last_request = 0

    def check_number(self, record: ClientRequest) -> None:
        """Whatever is answered has a number of its own: they grow. Raises `ProtocolError`."""
        if not isinstance(record, NUMBERED):
            return
        if record.request <= self._last_request:
            raise ProtocolError(f"request {record.request} came after request {self._last_request}")
        self._last_request = record.request

    def __repr__(self) -> str:
        return f"<ClientLink {self.number} {self.name!r} from {self.address}>"

    def send(self, *records: ClientAnswer) -> None:
        """Never blocks. A client that lets too much pile up is disconnected: it comes back and asks again."""
        if not self._stream.send([self._fitting(record) for record in records]):
            self.close()

    def close(self) -> None:
        self._stream.close()

    def _fitting(self, record: ClientAnswer) -> Outgoing:
        kind, payload = self._encoder.encode(record)
        if len(payload) <= self._limits.frame_answer_bytes or not isinstance(record, Answer):
            return kind, payload
        detail = f"{len(payload)} bytes, at most {self._limits.frame_answer_bytes}: ask for less at once"
        return self._encoder.encode(
            Failed(record.request, Failure.REJECTED, "answer_too_large", detail, 0, 0)
        )


@dataclass(slots=True)
class ConnectionCounts:
    """Who is connected, against the limits. Pure."""

    limits: WireLimits
    strangers: Counter[str] = field(default_factory=Counter[str])  # not yet authenticated, by address
    peers: int = 0
    clients: int = 0

    def try_enter(self, address: str) -> bool:
        """A new connection, of which nothing is known but where it comes from."""
        total, per_address = self.limits.unauthenticated_max, self.limits.unauthenticated_per_address_max
        if self.strangers.total() >= total or (address != LOCAL and self.strangers[address] >= per_address):
            return False
        self.strangers[address] += 1
        return True

    def leave(self, address: str) -> None:
        """It is authenticated now, or gone."""
        self.strangers[address] -= 1
        if not self.strangers[address]:
            del self.strangers[address]

    def has_room_for(self, role: Role) -> bool:
        connections = self.peers + self.clients
        if role is Role.PEER:
            return connections < self.limits.connections_max
        return (
            connections < self.limits.connections_max
            and self.clients < self.limits.connections_max - self.limits.peer_reserve
        )

    def add(self, role: Role, number: int) -> None:
        if role is Role.PEER:
            self.peers += number
        else:
            self.clients += number


class _Door:
    """One connection's way in: judged once, and counted from then on."""

    def __init__(self, counts: ConnectionCounts, roster: Roster, private: bool) -> None:
        self.private = private
        self._counts = counts
        self._roster = roster
        self._role: Role | None = None

    def admit(self, hello: Hello) -> Refusal | None:
        if self.private and hello.role is Role.PEER:
            return Refusal(Reason.WRONG_ROLE, "members do not speak over the unix socket")
        if not self._counts.has_room_for(hello.role):
            limit = self._counts.limits.connections_max
            return Refusal(Reason.TOO_MANY_CONNECTIONS, f"this node serves at most {limit}")
        refusal = self._roster.admit(hello)
        if refusal is None:
            self._role = hello.role
            self._counts.add(hello.role, 1)
        return refusal

    def leave(self) -> None:
        if self._role is not None:
            self._counts.add(self._role, -1)


class Listener:
    """Serves every connection to this node. `events` counts what happened, by short names."""

    def __init__(
        self,
        party: Party,
        credentials: Credentials,
        roster: Roster,
        handler: ConnectionHandler,
        host_of: Callable[[NodeId], str | None],
    ) -> None:
        """`host_of` says at which host a member is expected (for certificates)."""
        self.counts = ConnectionCounts(credentials.limits)
        self.events: Counter[str] = Counter()
        self._party = party
        self._credentials = credentials
        self._roster = roster
        self._handler = handler
        self._host_of = host_of
        self._next_connection = 1
        self._peer_streams: dict[NodeId, FrameStream] = {}

    def set_party(self, party: Party) -> None:
        """What this node says of itself on connections from now on."""
        self._party = party

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        *,
        private: bool = False,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until cancelled. `private`: a unix socket, on which clients need no proof and members do not speak."""
        handle = partial(self._handle, private)

        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, handle, listeners)
            task_status.started()

    async def _handle(self, private: bool, stream: trio.abc.Stream) -> None:
        """One connection. Whatever happens in it stays in it."""
        address = _address_of(stream)
        try:
            await self._greet_and_serve(private, stream, address)
        except (ConnectionLost, ConnectionRefused, ProtocolError) as error:
            self.events[type(error).__name__] += 1
            log.info("connection from %s ended: %s", address, error)
        except StorageFailed:  # guarantee D4: this, and nothing else, ends the process
            raise
        except Exception:  # a handler's mistake must not end the node
            self.events["handler failed"] += 1
            log.exception("connection from %s ended by an error of this node", address)
        finally:
            await trio.aclose_forcefully(stream)

    async def _greet_and_serve(self, private: bool, stream: trio.abc.Stream, address: str) -> None:
        if not self.counts.try_enter(address):
            self.events["turned away"] += 1
            return
        door = _Door(self.counts, self._roster, private)
        try:
            try:
                framed = await self._greet(door, stream)
            finally:
                self.counts.leave(address)
            await self._serve(framed, address)
        finally:
            door.leave()

    async def _greet(self, door: _Door, stream: trio.abc.Stream) -> FrameStream:
        connection = self._next_connection
        self._next_connection += 1
        credentials = self._credentials
        if door.private:
            credentials = replace(credentials, secrets=(), tls=None)
        return await greet_accepted(stream, credentials, self._party, connection, door.admit, self._host_of)

    async def _serve(self, framed: FrameStream, address: str) -> None:
        try:
            if framed.established.role is Role.PEER:
                await self._serve_peer(framed)
            else:
                await self._serve_client(framed, address)
        finally:
            framed.close()

    # ------------------------------------------------------------------ members

    async def _serve_peer(self, framed: FrameStream) -> None:
        peer = framed.established.remote.node_id
        previous = self._peer_streams.get(peer)
        if previous is not None:
            previous.close()  # the member dialled again: it has given that one up
        self._peer_streams[peer] = framed
        self._handler.on_peer_connected(peer)
        try:
            await framed.run(partial(self._on_peer_frames, framed, peer))
        finally:
            if self._peer_streams.get(peer) is framed:
                del self._peer_streams[peer]

    def _on_peer_frames(self, framed: FrameStream, peer: NodeId, frames: list[Frame]) -> None:
        messages: list[Any] = []
        for kind, payload in frames:
            record = _understand(framed, Role.PEER, kind, payload)
            if record is None:
                continue
            self._check_sender(peer, kind, record)
            messages.append(record)
        if messages:
            self._handler.on_peer_messages(peer, messages)

    def _check_sender(self, peer: NodeId, kind: int, record: Any) -> None:
        """A member speaks for itself, and to this node (a confused one must not reach Raft)."""
        if isinstance(record, SnapshotBegin):
            record = record.message
        elif kind != RAFT:
            return
        if record.sender != peer or record.to != self._party.node_id:
            raise ProtocolError(f"node {peer} sent a message from {record.sender} to {record.to}")

    # ------------------------------------------------------------------ clients

    async def _serve_client(self, framed: FrameStream, address: str) -> None:
        client = ClientLink(framed, address, self._credentials.limits)
        self._handler.on_client_connected(client)
        try:
            await framed.run(partial(self._on_client_frames, framed, client))
        finally:
            self._handler.on_client_gone(client)

    def _on_client_frames(self, framed: FrameStream, client: ClientLink, frames: list[Frame]) -> None:
        records: list[Any] = []
        for kind, payload in frames:
            record = _understand(framed, client.role, kind, payload)
            if record is not None:
                client.check_number(record)
                records.append(record)
        if records:
            self._handler.on_client_requests(client, records)


def _understand(framed: FrameStream, role: Role, kind: int, payload: memoryview) -> Any:
    """The record, or None when there is nothing to do with it. Raises `ProtocolError` for what this role may not say."""
    if kind not in KNOWN:
        framed.send((requests.encode(Unsupported(kind)),))
        return None
    if kind not in ACCEPTED_FROM[role]:
        raise ProtocolError(f"a {role.name.lower()} must not send frames of kind {kind}")
    record: Speech = requests.decode(kind, payload)
    return None if isinstance(record, Unsupported) else record


def _address_of(stream: trio.abc.Stream) -> str:
    """The IP address of the other side, or `LOCAL`."""
    if not isinstance(stream, trio.SocketStream) or stream.socket.family == trio.socket.AF_UNIX:
        return LOCAL
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:  # it has gone already
        return LOCAL
