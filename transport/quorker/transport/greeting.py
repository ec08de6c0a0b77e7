"""Opens a connection's conversation: TLS where it is used, then the handshake, all under one deadline.

The handshake decides in `quorker.core.wire.handshake`; here its frames are carried, randomness is drawn, and the
certificate of whoever dialled is held against the member it claims to be.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any, Final, Protocol

import trio

from quorker.core.raft.messages import NOBODY, NodeId
from quorker.core.wire.frames import Frame, FrameReader, FrameWriter, Outgoing, WireLimits
from quorker.core.wire.handshake import (
    INSTANCE_BYTES,
    NONCE_BYTES,
    Acceptor,
    Admit,
    Dialler,
    Hello,
    Party,
    Reason,
    Refusal,
)
from quorker.core.wire.requests import Role
from quorker.transport.stream import ConnectionLost, FrameStream, Pipe, StreamConfig, innermost, pipe_over
from quorker.transport.tls import Tls, certificate_names, names_node, wrap_accepted, wrap_dialled

INSTANCE: Final = token_bytes(
    INSTANCE_BYTES
)  # tells this process from another one started from a copied directory


class ConnectionRefused(Exception):
    """One side refused the other, with a reason. Never leaves `quorker.transport`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.reason.value}: {refusal.detail}")
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Credentials:
    """What this process shows and demands on every connection. Two secrets while one replaces the other."""

    secrets: tuple[bytes, ...] = ()
    tls: Tls | None = None
    limits: WireLimits = field(default_factory=WireLimits)


@dataclass(frozen=True, slots=True)
class Destination:
    """Whom a dialling side means to reach. `private`: a unix socket, protected by its file mode instead of proofs."""

    role: Role
    party: Party
    host: str = ""
    to: NodeId = NOBODY
    name: str = ""
    private: bool = False


class _Machine(Protocol):
    @property
    def is_over(self) -> bool: ...

    @property
    def refusal(self) -> Refusal | None: ...

    def receive(self, kind: int, payload: bytes | memoryview) -> Outgoing | None: ...


async def greet_dialled(
    stream: trio.abc.Stream,
    credentials: Credentials,
    destination: Destination,
    admit: Callable[[Party], Refusal | None] | None = None,
) -> FrameStream:
    """The dialling side. Returns once WELCOME was read. Raises `ConnectionRefused`, `ConnectionLost`, `ProtocolError`.

    `admit` judges who was reached. The caller closes the stream beneath, forcefully, whatever happens.
    """
    limits = credentials.limits
    secrets = () if destination.private else credentials.secrets
    hello = Hello(
        destination.role, destination.party, token_bytes(NONCE_BYTES), destination.to, destination.name
    )
    tls = None if destination.private else credentials.tls
    machine = Dialler(hello, secrets, tags=tls is None, admit=admit)
    with _deadline(limits):
        if tls is not None:
            stream = await _tls_handshake(wrap_dialled(stream, tls, destination.host))
        pipe = pipe_over(stream)
        reader = FrameReader(limits.frame_unauthenticated_bytes)
        await _converse(pipe, reader, limits, machine, machine.start())
    established = machine.established
    assert established is not None
    is_peer = destination.role is Role.PEER
    reader.secure(limits.frame_peer_bytes if is_peer else limits.frame_answer_bytes, established.receive_key)
    send_limit = limits.frame_peer_bytes if is_peer else limits.frame_client_bytes
    config = StreamConfig(limits, send_limit, limits.queued_messages_max, limits.queued_bytes_max, pings=True)
    return FrameStream(pipe, reader, established, config)


async def greet_accepted(
    stream: trio.abc.Stream,
    credentials: Credentials,
    party: Party,
    connection: int,
    admit: Admit,
    host_of: Callable[[NodeId], str | None],
) -> FrameStream:
    """The accepting side; raises as above. `admit` is asked after the proof; `host_of` says where members live."""
    limits = credentials.limits
    with _deadline(limits):
        if credentials.tls is not None:
            stream = await _tls_handshake(wrap_accepted(stream, credentials.tls))
            admit = _certified(admit, stream, host_of)
        nonce = token_bytes(NONCE_BYTES)
        machine = Acceptor(party, credentials.secrets, nonce, connection, admit, tags=credentials.tls is None)
        pipe = pipe_over(stream)
        reader = FrameReader(limits.frame_unauthenticated_bytes)
        await _converse(pipe, reader, limits, machine, None)
    established = machine.established
    assert established is not None
    if established.role is Role.PEER:
        reader.secure(limits.frame_peer_bytes, established.receive_key)
        queued, queued_bytes = limits.queued_messages_max, limits.queued_bytes_max
    else:
        reader.secure(limits.frame_client_bytes, established.receive_key)
        queued, queued_bytes = limits.client_queued_messages_max, limits.client_queued_bytes_max
    config = StreamConfig(limits, limits.frame_answer_bytes, queued, queued_bytes, pings=False)
    return FrameStream(pipe, reader, established, config)


@contextmanager
def _deadline(limits: WireLimits) -> Generator[None]:
    """`trio.fail_after` for a whole handshake, with the error of this package."""
    with trio.move_on_after(limits.handshake_ms / 1000) as scope:
        yield
    if scope.cancelled_caught:
        raise ConnectionLost(f"no handshake within {limits.handshake_ms} ms")


async def _tls_handshake(stream: trio.SSLStream[trio.abc.Stream]) -> trio.abc.Stream:
    try:
        await stream.do_handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:  # SSLError is an OSError
        raise ConnectionLost(f"tls: {innermost(error)}") from error
    return stream


async def _converse(
    pipe: Pipe, reader: FrameReader, limits: WireLimits, machine: _Machine, first: Outgoing | None
) -> None:
    """Carry frames until the handshake is over. What arrived behind it stays in `reader`."""
    writer = FrameWriter(limits.frame_unauthenticated_bytes)
    if first is not None:
        await pipe.write_all(writer.frame(*first))
    while not machine.is_over:
        kind, payload = await _next_frame(pipe, reader)
        answer = machine.receive(kind, payload)
        if answer is not None:
            await pipe.write_all(writer.frame(*answer))
    if machine.refusal is not None:
        raise ConnectionRefused(machine.refusal)


async def _next_frame(pipe: Pipe, reader: FrameReader) -> Frame:
    while (frame := reader.pull()) is None:
        data = await pipe.receive()
        if not data:
            raise ConnectionLost("the other side closed the connection during the handshake")
        reader.push(data)
    return frame


def _certified(admit: Admit, stream: trio.abc.Stream, host_of: Callable[[NodeId], str | None]) -> Admit:
    """`admit`, but first a member's certificate has to name the member."""

    shown: Any = stream  # trio passes the calls of the ssl module on, without types

    def judge(hello: Hello) -> Refusal | None:
        certificate: Mapping[str, Any] = shown.getpeercert() or {}
        node = hello.party.node_id
        if hello.role is Role.PEER and not names_node(certificate, node, host_of(node)):
            names = ", ".join(certificate_names(certificate)) or "nothing"
            return Refusal(
                Reason.WRONG_CERTIFICATE, f"the certificate names {names}, which is not node {node}"
            )
        return admit(hello)

    return judge
