"""Framed streams: nothing waits, nothing grows without bound, and silence ends."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from quorker.core.errors import ProtocolError
from quorker.core.wire import requests
from quorker.core.wire.frames import Frame, FrameReader, FrameWriter, Outgoing, WireLimits
from quorker.core.wire.handshake import Established, Party
from quorker.core.wire.requests import Ping, Pong, Role
from quorker.transport.stream import ConnectionLost, FrameStream, StreamConfig, pipe_over

pytestmark = pytest.mark.trio

LIMITS = WireLimits()
LIMIT = 1 << 20
KEYS = pytest.mark.parametrize("key", [None, b"k" * 32], ids=["plain", "tagged"])


def framed(
    stream: trio.abc.Stream,
    key: bytes | None = None,
    *,
    messages: int = 256,
    queued: int = 16 << 20,
    pings: bool = False,
    limit: int = LIMIT,
) -> FrameStream:
    established = Established(1, Role.PEER, Party(), "", 1, key, key)
    config = StreamConfig(LIMITS, limit, messages, queued, pings)
    return FrameStream(pipe_over(stream), FrameReader(LIMIT, key), established, config)


@asynccontextmanager
async def socket_pair(
    send_buffer: int | None = None,
) -> AsyncGenerator[tuple[trio.SocketStream, trio.SocketStream]]:
    near, far = trio.socket.socketpair()
    if send_buffer is not None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    streams = trio.SocketStream(near), trio.SocketStream(far)
    try:
        yield streams
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


class Collector:
    """What a framed stream delivered, wake by wake."""

    def __init__(self) -> None:
        self.wakes: list[list[Outgoing]] = []
        self.changed = trio.Event()

    def __call__(self, frames: list[Frame]) -> None:
        self.wakes.append([(kind, bytes(payload)) for kind, payload in frames])
        self.changed.set()

    @property
    def frames(self) -> list[Outgoing]:
        return [frame for wake in self.wakes for frame in wake]

    async def wait(self, count: int) -> list[Outgoing]:
        with trio.fail_after(10):
            while len(self.frames) < count:
                self.changed = trio.Event()
                await self.changed.wait()
        return self.frames


def ignore(_: list[Frame]) -> None:
    """Nothing is expected."""


@KEYS
async def test_frames_sent_together_arrive_in_one_wake(nursery: trio.Nursery, key: bytes | None) -> None:
    async with socket_pair() as (near, far):
        sender, receiver, got = framed(near, key), framed(far, key), Collector()
        assert sender.send([(20, b"one"), (21, b""), (22, b"three")])
        nursery.start_soon(receiver.run, got)
        assert await got.wait(3) == [(20, b"one"), (21, b""), (22, b"three")]
        assert len(got.wakes) == 1
        sender.close()
        receiver.close()


@KEYS
async def test_what_the_kernel_does_not_take_follows_in_order(
    nursery: trio.Nursery, key: bytes | None
) -> None:
    frames = [(20, bytes([number]) * 50_000) for number in range(100)]
    async with socket_pair(send_buffer=4096) as (near, far):
        sender, receiver, got = framed(near, key), framed(far, key), Collector()
        nursery.start_soon(sender.run, ignore)
        assert all([sender.send([frame]) for frame in frames])  # noqa: C419  # all are sent, whatever is returned
        assert sender.is_blocked
        nursery.start_soon(receiver.run, got)
        assert await got.wait(len(frames)) == frames
        assert await sender.wait_room()
        assert not sender.is_blocked
        sender.close()
        receiver.close()


@pytest.mark.parametrize(("extra", "taken"), [(-1, True), (0, True), (1, False)])
async def test_the_queue_is_bounded_by_messages(extra: int, taken: bool) -> None:
    near, _ = trio.testing.memory_stream_pair()
    sender = framed(near, messages=10)
    assert sender.send([(20, b"in flight")])
    assert sender.send([(20, b"x")] * (10 + extra)) is taken
    assert sender.dropped == (0 if taken else 10 + extra)


@pytest.mark.parametrize(("extra", "taken"), [(-1, True), (0, True), (1, False)])
async def test_the_queue_is_bounded_by_bytes(extra: int, taken: bool) -> None:
    near, _ = trio.testing.memory_stream_pair()
    sender = framed(near, queued=1000)
    assert sender.send([(20, b"in flight")])
    assert sender.send([(20, b"x" * 500)])
    assert sender.send([(20, b"x" * (500 + extra))]) is taken


async def test_too_large_a_payload_is_dropped_and_nothing_else() -> None:
    near, _ = trio.testing.memory_stream_pair()
    sender = framed(near, limit=100)
    assert sender.send([(20, b"x" * 100)])
    assert not sender.send([(20, b"x" * 101)])
    assert sender.dropped == 1


async def test_the_newest_heartbeat_overtakes_the_queue(nursery: trio.Nursery) -> None:
    near, far = trio.testing.memory_stream_pair()
    sender, receiver, got = framed(near), framed(far), Collector()
    sender.send([(20, b"in flight")])
    sender.send([(20, b"queued")])
    for beat in (b"old", b"older", b"newest"):
        sender.send_latest(0, (30, beat))
    sender.send_latest(1, (31, b"response"))
    nursery.start_soon(sender.run, ignore)
    nursery.start_soon(receiver.run, got)
    assert await got.wait(4) == [(20, b"in flight"), (30, b"newest"), (31, b"response"), (20, b"queued")]
    sender.close()
    receiver.close()


async def test_silence_ends_a_connection(mock_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    receiver, lost = framed(near), trio.Event()

    async def run() -> None:
        with pytest.raises(ConnectionLost, match="15000 ms"):
            await receiver.run(ignore)
        lost.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(14.9)
        await far.send_all(FrameWriter(LIMIT).frame(20, b"I am here"))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(14.9)
        await trio.testing.wait_all_tasks_blocked()
        assert not lost.is_set()
        mock_clock.jump(0.2)
        await lost.wait()


async def test_a_side_that_takes_nothing_ends_a_connection(mock_clock: trio.testing.MockClock) -> None:
    near, _ = trio.testing.lockstep_stream_pair()
    sender, lost = framed(near), trio.Event()

    async def run() -> None:
        with pytest.raises(ConnectionLost, match="took nothing for 10000 ms"):
            await sender.run(ignore)
        lost.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        sender.send([(20, b"x" * 100)])
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(9.9)
        await trio.testing.wait_all_tasks_blocked()
        assert not lost.is_set()
        mock_clock.jump(0.2)
        await lost.wait()
    assert not sender.send([(20, b"late")])


async def test_the_dialling_side_pings_and_learns_the_round_trip(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    dialled, accepted = framed(near, pings=True), framed(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialled.run, ignore)
        nursery.start_soon(accepted.run, ignore)
        await trio.sleep(100)  # of the test's clock: far more than silence is suffered
        assert dialled.last_pong is not None
        assert dialled.last_pong.number == 100 / (LIMITS.ping_ms / 1000) - 1
        assert dialled.rtt_ms is not None
        dialled.close()
        accepted.close()


async def test_pings_are_answered_and_not_delivered(nursery: trio.Nursery) -> None:
    near, far = trio.testing.memory_stream_pair()
    receiver, got = framed(far), Collector()
    nursery.start_soon(receiver.run, got)
    ping = requests.encode(Ping(7, 1234))
    await near.send_all(FrameWriter(LIMIT).join([ping, (20, b"message"), ping]))
    assert await got.wait(1) == [(20, b"message")]
    reader = FrameReader(LIMIT)
    frames = reader.feed(bytes(await near.receive_some()))
    pong = requests.decode(*frames[0])
    assert isinstance(pong, Pong)
    assert (pong.number, pong.echoed_clock_ms) == (7, 1234)
    receiver.close()


@pytest.mark.parametrize("error", [ValueError("a handler's mistake"), ProtocolError("bad")])
async def test_the_error_of_a_handler_comes_out_alone(error: Exception) -> None:
    near, far = trio.testing.memory_stream_pair()
    receiver = framed(far, pings=True)

    def fail(_: list[Frame]) -> None:
        raise error

    await near.send_all(FrameWriter(LIMIT).frame(20, b"x"))
    with pytest.raises(type(error)) as raised:
        await receiver.run(fail)
    assert raised.value is error


async def test_damaged_bytes_end_a_connection() -> None:
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(b"\x01\x00\x00\x00\x14\x00\x00\x00\x00x")
    with pytest.raises(ProtocolError, match="checksum"):
        await framed(far).run(ignore)


async def test_the_end_of_the_other_side_is_no_error() -> None:
    near, far = trio.testing.memory_stream_pair()
    await near.aclose()
    stream = framed(far)
    await stream.run(ignore)
    assert not stream.send([(20, b"late")])
    assert not await stream.wait_room()


async def test_closing_from_outside_is_no_error(nursery: trio.Nursery) -> None:
    _, far = trio.testing.memory_stream_pair()
    stream = framed(far)
    nursery.start_soon(stream.run, ignore)
    await trio.testing.wait_all_tasks_blocked()
    stream.close()
    stream.close()


async def test_whoever_waits_for_room_hears_of_the_end(nursery: trio.Nursery) -> None:
    near, _ = trio.testing.lockstep_stream_pair()
    heard: list[bool] = []
    stream = framed(near)
    nursery.start_soon(stream.run, ignore)
    stream.send([(20, b"never taken")])

    async def wait() -> None:
        heard.append(await stream.wait_room())

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert heard == []
    stream.close()
    await trio.testing.wait_all_tasks_blocked()
    assert heard == [False]


async def test_a_socket_reset_by_the_other_side_is_a_lost_connection() -> None:
    async with socket_pair() as (near, far):
        sender = framed(near)
        await far.aclose()
        sender.send([(20, b"x")])
        assert not sender.send([(20, b"y")])
        with pytest.raises(ConnectionLost):
            await sender.run(ignore)


async def test_bytes_that_came_behind_the_handshake_are_delivered(nursery: trio.Nursery) -> None:
    _, far = trio.testing.memory_stream_pair()
    stream, got = framed(far), Collector()
    stream._reader.push(FrameWriter(LIMIT).frame(20, b"early"))  # pyright: ignore[reportPrivateUsage]
    nursery.start_soon(stream.run, got)
    assert await got.wait(1) == [(20, b"early")]
    stream.close()


async def test_a_connection_that_says_nothing_ends_and_one_that_speaks_stays(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The idle time counts from the last bytes that came, whenever that was looked at before."""
    near, far = trio.testing.memory_stream_pair()
    receiver, got = framed(far), Collector()
    idle_seconds = LIMITS.read_idle_ms / 1000

    async def speak() -> None:
        for _ in range(3):
            await trio.sleep(0.9 * idle_seconds)
            await near.send_all(FrameWriter(LIMIT).frame(20, b"here"))

    nursery.start_soon(speak)
    start = trio.current_time()
    with pytest.raises(ConnectionLost, match="nothing was heard"):
        await receiver.run(got)
    assert len(got.frames) == 3
    assert trio.current_time() - start == pytest.approx(3.7 * idle_seconds, rel=0.01)
