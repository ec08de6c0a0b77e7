"""Stand-ins around the network layer: a listener in memory, and a node that only writes down what reaches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from quorker.core.raft.messages import NodeId
from quorker.core.wire.frames import FrameReader, FrameWriter, Outgoing, WireLimits
from quorker.core.wire.handshake import NONCE_BYTES, Dialler, Hello, Party, Refusal, cluster_id_of
from quorker.core.wire.requests import ClientRequest, PeerMessage, Role
from quorker.core.wire.roster import Roster
from quorker.transport.endpoint import Endpoint
from quorker.transport.greeting import Credentials
from quorker.transport.listener import ClientLink, Listener
from quorker.transport.tls import Tls

READ_BYTES = 64 << 10


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what `connect` makes. Nothing real is touched, so that a test's clock decides alone."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](1_000)

    def connect(self) -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        self.offer(far)
        return near

    def offer(self, stream: trio.abc.Stream) -> None:
        """Let this very stream be accepted."""
        self._send.send_nowait(stream)

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        await self._receive.aclose()


class MemoryNetwork:
    """Listeners by endpoint; dialling where nobody listens is refused, as on a real network."""

    def __init__(self) -> None:
        self.listeners: dict[Endpoint, MemoryListener] = {}
        self.dialled: list[Endpoint] = []

    def listen(self, endpoint: Endpoint) -> MemoryListener:
        listener = self.listeners[endpoint] = MemoryListener()
        return listener

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialled.append(endpoint)
        if endpoint not in self.listeners:
            raise ConnectionRefusedError(f"nobody listens on {endpoint}")
        return self.listeners[endpoint].connect()


class Recorder:
    """A `ConnectionHandler` and `PeerEvents` that remembers; `fail_with` makes it raise at the next message."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.clients: list[ClientLink] = []
        self.wakes = 0
        self.fail_with: Exception | None = None
        self._changed = trio.Event()

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_until(self, reached: Callable[[], bool]) -> None:
        """Checked whenever something was noted. A test that waits for what never comes fails after 10 s."""
        with trio.fail_after(10):
            while not reached():
                await self._changed.wait()

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == name]

    async def wait_named(self, name: str, count: int = 1) -> list[tuple[Any, ...]]:
        await self.wait_until(lambda: len(self.named(name)) >= count)
        return self.named(name)

    def _maybe_fail(self) -> None:
        self.wakes += 1
        if self.fail_with is not None:
            error, self.fail_with = self.fail_with, None
            raise error

    def on_peer_connected(self, peer: NodeId) -> None:
        self._note("connected", peer)

    def on_peer_messages(self, peer: NodeId, messages: list[PeerMessage]) -> None:
        self._maybe_fail()
        for message in messages:
            self._note("message", peer, message)

    def on_client_connected(self, client: ClientLink) -> None:
        self.clients.append(client)
        self._note("client", client)

    def on_client_requests(self, client: ClientLink, requests: list[ClientRequest]) -> None:
        self._maybe_fail()
        for request in requests:
            self._note("request", client, request)

    def on_client_gone(self, client: ClientLink) -> None:
        self._note("gone", client)

    def on_peer_up(self, peer: NodeId) -> None:
        self._note("up", peer)

    def on_peer_down(self, peer: NodeId) -> None:
        self._note("down", peer)

    def on_peer_refused(self, peer: NodeId, refusal: Refusal) -> None:
        self._note("refused", peer, refusal)


class RawDialler:
    """A dialling side in slow motion, frame by frame, for tests that misbehave at a chosen place."""

    def __init__(self, stream: trio.abc.Stream, hello: Hello, secrets: tuple[bytes, ...]) -> None:
        self.stream = stream
        self.machine = Dialler(hello, secrets)
        self.reader = FrameReader(1 << 20)
        self.writer = FrameWriter(1 << 25)

    async def send(self, *frames: Outgoing) -> None:
        await self.stream.send_all(self.writer.join(frames))

    async def receive(self) -> Outgoing | None:
        """The next frame, or None at the end of the stream, however it ended."""
        while (frame := self.reader.pull()) is None:
            try:
                data = bytes(await self.stream.receive_some(READ_BYTES))
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.reader.push(data)
        return frame[0], bytes(frame[1])

    async def greet(self) -> None:
        """The whole handshake, or as much of it as the other side goes along with."""
        await self.send(self.machine.start())
        while not self.machine.is_over:
            frame = await self.receive()
            if frame is None:
                return
            answer = self.machine.receive(*frame)
            if answer is not None:
                await self.send(answer)
        established = self.machine.established
        if established is not None:
            self.reader.secure(1 << 25, established.receive_key)
            self.writer = FrameWriter(1 << 25, established.send_key)

    async def wait_closed(self) -> None:
        """Until the other side has hung up."""
        while await self.receive() is not None:
            pass


CLUSTER = cluster_id_of("loopback")
SECRET = b"the secret of all members, 32 b."


def party_of(node: NodeId, *, incarnation: int = 1, instance: bytes = b"instance") -> Party:
    return Party(CLUSTER, node, bytes([node]) * 16, incarnation, instance)


def hello_of(node: NodeId, to: NodeId = 1, role: Role = Role.PEER) -> Hello:
    party = party_of(node) if role is Role.PEER else Party(CLUSTER)
    return Hello(role, party, bytes([node]) * NONCE_BYTES, to, f"{role.name.lower()} {node}")


class Door:
    """Node 1 of nodes 1..9, as far as its listener: what reaches it stands in `recorder`."""

    def __init__(
        self, *secrets: bytes, tls: Tls | None = None, limits: WireLimits | None = None, private: bool = False
    ) -> None:
        self.recorder = Recorder()
        self.alarms: list[str] = []
        self.roster = Roster(party_of(1), range(1, 10), self.alarms.append)
        credentials = Credentials(secrets, tls, limits or WireLimits())
        self.listener = Listener(party_of(1), credentials, self.roster, self.recorder, host_of_node)
        self.memory = MemoryListener()
        self.private = private

    async def open(self, nursery: trio.Nursery, *listeners: trio.abc.Listener[Any]) -> None:
        """Serve in memory, or on these listeners."""

        async def serve(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            accepted = listeners or (self.memory,)
            await self.listener.serve(accepted, private=self.private, task_status=task_status)

        await nursery.start(serve)

    def dial(self, hello: Hello, *secrets: bytes) -> RawDialler:
        return RawDialler(self.memory.connect(), hello, secrets)

    async def enter(self, hello: Hello, *secrets: bytes) -> RawDialler:
        """Dial and greet; the caller looks at what came of it."""
        dialler = self.dial(hello, *secrets)
        await dialler.greet()
        return dialler


def host_of_node(node: NodeId) -> str:
    return f"node{node}.example.org"
