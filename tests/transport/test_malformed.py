"""S1 over real sockets: whatever bytes arrive, in whatever state of a connection, the node goes on serving."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from quorker.core.raft.messages import AppendEntries, Entry, Heartbeat
from quorker.core.wire.frames import Outgoing
from quorker.core.wire.handshake import PROOF, Hello
from quorker.core.wire.records import pack
from quorker.core.wire.requests import (
    Attach,
    Cancel,
    Ping,
    Propose,
    ProposeRefused,
    Query,
    Role,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotResult,
    Speech,
    StatusRequest,
    Submit,
    Wait,
    encode,
)
from quorker.jepsen_like.loopback import SECRET, Door, RawDialler, hello_of
from quorker.sim.bare.wire_corpus import WireCorpus
from quorker.transport.endpoint import Endpoint
from quorker.transport.sockets import dial_tcp, open_tcp

pytestmark = pytest.mark.trio

CLIENT = hello_of(7, role=Role.CLIENT)
CLIENT_SAYS: list[Speech] = [
    Ping(1, 2),
    Attach(5, 3),
    Submit(1, pack([5, 0, [[1, [64]]]])),
    Query(1, "job", b"\x80", True, 7, 1000),
    StatusRequest(1),
    Wait(1, "0000000000001", 1000, 0),
    Cancel(1),
]
MEMBER_SAYS: list[Speech] = [
    Heartbeat(2, 1, 5, 4),
    AppendEntries(2, 1, 5, 4, 5, (Entry(5, 5, b"data"), Entry(5, 6, b"more")), 4, 1),
    Propose(Role.CLIENT, (pack([5, 0, [[1, [64]]]]),)),
    ProposeRefused(5, (1, 2), "NOT_LEADER", 2, 10),
    SnapshotChunk(1, 0, b"bytes"),
    SnapshotEnd(1, 5, b"s" * 32),
    SnapshotResult(1, True, True, 5, ""),
]


@asynccontextmanager
async def real_door(*secrets: bytes) -> AsyncGenerator[tuple[Door, Endpoint]]:
    door = Door(*secrets)
    bound, listeners = await open_tcp(Endpoint("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        await door.open(nursery, *listeners)
        yield door, bound
        nursery.cancel_scope.cancel()


async def throw(bound: Endpoint, stream_bytes: bytes, hello: Hello | None = None) -> None:
    """Dial, greet if asked to, send all of it, and wait until the node has hung up."""
    with trio.fail_after(10):
        stream = await dial_tcp(bound)
        async with stream:
            dialler = RawDialler(stream, hello or CLIENT, ())
            if hello is not None:
                await dialler.greet()
                assert dialler.machine.established is not None
            try:
                await stream.send_all(stream_bytes)
                await stream.send_eof()
            except trio.BrokenResourceError:
                return  # it hung up in the middle
            await dialler.wait_closed()


async def assert_serves(door: Door, bound: Endpoint, *secrets: bytes) -> None:
    before = len(door.recorder.named("request"))
    async with await dial_tcp(bound) as stream:
        client = RawDialler(stream, CLIENT, secrets)
        await client.greet()
        await client.send(encode(StatusRequest(77)))
        await door.recorder.wait_named("request", before + 1)
    assert door.recorder.named("request")[-1][1] == StatusRequest(77)


async def test_strangers_achieve_nothing() -> None:
    valid: list[Outgoing] = [
        RawDialler(trio.testing.memory_stream_pair()[0], CLIENT, ()).machine.start(),
        (PROOF, pack([b"p" * 32])),
        encode(StatusRequest(1)),
    ]
    async with real_door(SECRET) as (door, bound):
        for stream_bytes in WireCorpus(3, valid).streams(150):
            await throw(bound, stream_bytes)
        assert door.recorder.events == []
        await assert_serves(door, bound, SECRET)
        assert not door.listener.counts.strangers


@pytest.mark.parametrize(
    ("hello", "records"), [(CLIENT, CLIENT_SAYS), (hello_of(2), MEMBER_SAYS)], ids=["client", "member"]
)
async def test_whoever_is_in_achieves_no_more_than_its_role(hello: Hello, records: list[Speech]) -> None:
    """No secret here, so that frames carry no tags and reach the decoders."""
    valid = [encode(record) for record in records]
    async with real_door() as (door, bound):
        for number, stream_bytes in enumerate(WireCorpus(4, valid).streams(150)):
            nonce = number.to_bytes(32, "little")
            await throw(bound, stream_bytes, replace(hello, nonce=nonce))
        await assert_serves(door, bound)
        await door.recorder.wait_until(lambda: door.listener.counts.clients + door.listener.counts.peers == 0)
        assert door.listener.events["handler failed"] == 0


async def test_the_valid_streams_themselves_are_heard() -> None:
    """The tests above can fail: undamaged, all of it arrives."""
    async with real_door() as (door, bound):
        async with await dial_tcp(bound) as stream:
            member = RawDialler(stream, hello_of(2), ())
            await member.greet()
            await member.send(*(encode(record) for record in MEMBER_SAYS))
            got = await door.recorder.wait_named("message", len(MEMBER_SAYS))
        assert [message for _, message in got] == MEMBER_SAYS
