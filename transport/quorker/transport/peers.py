"""The way to the other members: one outgoing connection to each, dialled again and again, and what is sent on it.

Two connections stand between two members; each sends on the one it dialled and hears on the other (`listener.py`).
Sending never waits: what a member cannot take is dropped, which Raft tolerates, but for the newest heartbeat, which
has a place of its own. Names are resolved at each attempt. What messages mean must not live here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Final, Protocol

import trio

from quorker.core.errors import ProtocolError
from quorker.core.raft.messages import AppendEntries, Heartbeat, HeartbeatResponse, Message, NodeId
from quorker.core.wire.frames import Frame, Outgoing
from quorker.core.wire.handshake import Party, Refusal
from quorker.core.wire.requests import Encoder, PeerMessage, Propose, Role
from quorker.core.wire.roster import Roster
from quorker.transport.endpoint import Endpoint
from quorker.transport.greeting import ConnectionRefused, Credentials, Destination, greet_dialled
from quorker.transport.sockets import dial_tcp
from quorker.transport.stream import ConnectionLost, FrameStream

log = logging.getLogger("quorker.transport.peers")

PAUSE_MIN: Final = 0.05  # seconds
PAUSE_MAX: Final = 1.0
DIAL_SECONDS_MAX: Final = 5.0
PROPOSE_BYTES: Final = 1 << 20  # groups of commands are joined up to here

Dial = Callable[[Endpoint], Awaitable[trio.abc.Stream]]


class PeerEvents(Protocol):
    """What a node hears of its outgoing connections. Must not block or raise."""

    def on_peer_up(self, peer: NodeId) -> None: ...

    def on_peer_down(self, peer: NodeId) -> None:
        """What was sent to it lately may be lost."""
        ...

    def on_peer_refused(self, peer: NodeId, refusal: Refusal) -> None:
        """One of the two sides refuses the other; dialling goes on, but an operator has to look."""
        ...


class Backoff:
    """Pauses between attempts: doubling, with jitter so that members do not march in step."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._next = PAUSE_MIN

    def next_pause(self) -> float:
        """Seconds."""
        pause, self._next = self._next, min(2 * self._next, PAUSE_MAX)
        return pause * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._next = PAUSE_MIN


class _Link:
    """One member: where it is, the connection to it while there is one, and what leaves at the next flush."""

    def __init__(self, peer: NodeId, endpoint: Endpoint, backoff: Backoff) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.backoff = backoff
        self.stream: FrameStream | None = None
        self.scope = trio.CancelScope()
        self.kicked = trio.Event()
        self.last_error = ""
        self.messages: list[Outgoing] = []
        self.beats: dict[int, Outgoing] = {}  # the newest heartbeat and heartbeat response
        self.commit: AppendEntries | None = None  # brings nothing but a commit index
        self.groups: list[bytes] = []
        self.groups_bytes = 0

    def forget_unsent(self) -> None:
        self.messages.clear()
        self.beats.clear()
        self.commit = None
        self.groups.clear()
        self.groups_bytes = 0

    def flush(self, encoder: Encoder) -> None:
        self.pack_groups(encoder)
        stream, frames, beats = self.stream, self.messages, self.beats
        self.messages, self.beats = [], {}
        if stream is None:
            return
        if not stream.is_blocked:
            stream.send([*beats.values(), *frames])
            return
        for slot, frame in beats.items():
            stream.send_latest(slot, frame)
        if frames:
            stream.send(frames)

    def pack_groups(self, encoder: Encoder) -> None:
        if self.groups:
            self.messages.append(encoder.encode(Propose(Role.CLIENT, tuple(self.groups))))
            self.groups.clear()
            self.groups_bytes = 0


class PeerLinks:
    """The outgoing half of a node's network. `run` it in a task; everything else is immediate."""

    def __init__(
        self,
        party: Party,
        credentials: Credentials,
        roster: Roster,
        events: PeerEvents,
        *,
        dial: Dial = dial_tcp,
        seed: int | None = None,
    ) -> None:
        """`dial` opens a stream to an endpoint, or raises OSError. `seed`: of the jitter (None: any)."""
        self._party = party
        self._credentials = credentials
        self._roster = roster
        self._events = events
        self._dial = dial
        self._random = Random(seed)
        self._encoder = Encoder()
        self._links: dict[NodeId, _Link] = {}
        self._unflushed: dict[NodeId, _Link] = {}
        self._late: dict[NodeId, _Link] = {}
        self._nursery: trio.Nursery | None = None

    # ------------------------------------------------------------------ who

    def set_party(self, party: Party) -> None:
        """What this node says of itself on connections from now on."""
        self._party = party

    def set_peers(self, peers: Mapping[NodeId, Endpoint]) -> None:
        """Keep a connection to exactly these from now on. This node itself may be among them and is passed over."""
        for peer, link in list(self._links.items()):
            if peer not in peers:
                link.scope.cancel()
                del self._links[peer]
                self._unflushed.pop(peer, None)
                self._late.pop(peer, None)
        for peer, endpoint in sorted(peers.items()):
            if peer != self._party.node_id:
                self._set_peer(peer, endpoint)

    def _set_peer(self, peer: NodeId, endpoint: Endpoint) -> None:
        link = self._links.get(peer)
        if link is None:
            link = self._links[peer] = _Link(peer, endpoint, Backoff(self._random))
            if self._nursery is not None:
                self._nursery.start_soon(self._keep, link)
        elif link.endpoint != endpoint:
            link.endpoint = endpoint
            if link.stream is not None:
                link.stream.close()
            self.kick(peer)

    def host_of(self, peer: NodeId) -> str | None:
        """The host at which this member is expected, or None."""
        link = self._links.get(peer)
        return None if link is None else link.endpoint.host

    def is_up(self, peer: NodeId) -> bool:
        link = self._links.get(peer)
        return link is not None and link.stream is not None

    def rtt_ms(self, peer: NodeId) -> int | None:
        """The last measured round trip, or None."""
        link = self._links.get(peer)
        return None if link is None or link.stream is None else link.stream.rtt_ms

    def kick(self, peer: NodeId) -> None:
        """This member was just heard of: dial now instead of pausing."""
        link = self._links.get(peer)
        if link is not None:
            link.backoff.reset()
            link.kicked.set()

    # ------------------------------------------------------------------ sending

    def send(self, to: NodeId, message: Message) -> None:
        """Leaves at the next `flush`. Lost when the member is not connected or takes too little."""
        link = self._links.get(to)
        if link is None or link.stream is None:
            return
        if isinstance(message, AppendEntries):
            self._send_append(link, message)
            return
        frame = self._encoder.encode(message)
        if isinstance(message, Heartbeat):
            link.beats[0] = frame
        elif isinstance(message, HeartbeatResponse):
            link.beats[1] = frame
        else:
            link.messages.append(frame)
        self._unflushed[to] = link

    def _send_append(self, link: _Link, message: AppendEntries) -> None:
        """A commit index alone may wait: the next entries bring it along, and one packet is saved. Most do so, hence
        it is not encoded before it leaves."""
        if message.entries:
            link.commit = None
            link.messages.append(self._encoder.encode(message))
            self._unflushed[link.peer] = link
        else:
            link.commit = message
            self._late[link.peer] = link

    def forward(self, to: NodeId, group: bytes) -> None:
        """A group of commands for the leader; leaves at the next `flush`, joined with others."""
        link = self._links.get(to)
        if link is None or link.stream is None:
            return
        if link.groups_bytes + len(group) > PROPOSE_BYTES:
            link.pack_groups(self._encoder)
        link.groups.append(group)
        link.groups_bytes += len(group)
        self._unflushed[to] = link

    def say(self, to: NodeId, record: PeerMessage) -> bool:
        """Send this now, behind everything that waits for a flush; False when it was not taken."""
        link = self._links.get(to)
        if link is None or link.stream is None:
            return False
        link.flush(self._encoder)
        return link.stream.send((self._encoder.encode(record),))

    async def wait_room(self, to: NodeId) -> bool:
        """Wait until the kernel has taken everything sent to this member; False when it is not connected.

        Snapshots are sent at this pace, so that they neither fill the queue nor delay heartbeats.
        """
        link = self._links.get(to)
        if link is None or link.stream is None:
            return False
        return await link.stream.wait_room()

    def flush_late(self) -> None:
        """Commit indexes that found nothing to travel with leave now, with everything else."""
        late, self._late = self._late, {}
        for link in late.values():
            if link.commit is not None:
                link.messages.append(self._encoder.encode(link.commit))
                link.commit = None
                self._unflushed[link.peer] = link
        self.flush()

    def flush(self) -> None:
        """Everything sent since the last flush leaves now, in one piece for each member, but for `flush_late`."""
        unflushed, self._unflushed = self._unflushed, {}
        for link in unflushed.values():
            link.flush(self._encoder)

    # ------------------------------------------------------------------ dialling

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep dialling until cancelled. Starts without any peer being there, or its name being known."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for link in self._links.values():
                    nursery.start_soon(self._keep, link)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _keep(self, link: _Link) -> None:
        with link.scope:
            while True:
                await self._attempt(link)
                link.kicked = trio.Event()
                with trio.move_on_after(link.backoff.next_pause()):
                    await link.kicked.wait()

    async def _attempt(self, link: _Link) -> None:
        """One connection from dial to end. No error of one connection ends the node."""
        try:
            await self._connect_and_report(link)
        except (OSError, ConnectionLost, ProtocolError) as error:
            self._note(link, str(error) or type(error).__name__)
        except Exception:
            log.exception(
                "connection to node %s at %s ended by an error of this node", link.peer, link.endpoint
            )

    async def _connect_and_report(self, link: _Link) -> None:
        try:
            await self._connect(link)
        except ConnectionRefused as error:
            self._note(link, str(error))
            self._events.on_peer_refused(link.peer, error.refusal)

    def _note(self, link: _Link, error: str) -> None:
        if error != link.last_error:
            log.info("node %s at %s: %s", link.peer, link.endpoint, error)
        link.last_error = error

    async def _connect(self, link: _Link) -> None:
        stream: trio.abc.Stream | None = None
        with trio.move_on_after(DIAL_SECONDS_MAX):
            stream = await self._dial(link.endpoint)
        if stream is None:
            raise ConnectionLost(f"nobody answered within {DIAL_SECONDS_MAX} s")
        destination = Destination(Role.PEER, self._party, link.endpoint.host, to=link.peer)
        try:
            framed = await greet_dialled(stream, self._credentials, destination, self._roster.admit_member)
            await self._use(link, framed)
        finally:
            await trio.aclose_forcefully(stream)

    async def _use(self, link: _Link, framed: FrameStream) -> None:
        link.stream = framed
        link.last_error = ""
        link.backoff.reset()
        log.info("connected to node %s at %s", link.peer, link.endpoint)
        try:
            self._events.on_peer_up(link.peer)
            await framed.run(_ignore)
        finally:
            framed.close()
            link.stream = None
            link.forget_unsent()
            self._events.on_peer_down(link.peer)


def _ignore(_: list[Frame]) -> None:
    """Members answer on the connections that they dialled; pings are dealt with below."""
