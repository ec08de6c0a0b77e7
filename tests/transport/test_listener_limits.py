"""The listener's limits: one below, at and above each; deadlines by the test's clock; what a stranger may cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from quorker.core.wire.frames import FrameWriter, WireLimits
from quorker.core.wire.handshake import Hello, Reason
from quorker.core.wire.records import pack
from quorker.core.wire.requests import Role, StatusRequest, Submit, encode
from quorker.jepsen_like.loopback import SECRET, Door, RawDialler, hello_of
from quorker.transport.listener import LOCAL, ConnectionCounts
from quorker.transport.stream import READ_BYTES

CLIENT = hello_of(7, role=Role.CLIENT)
LIMITS = WireLimits()


# ---------------------------------------------------------------------- counting, without a network


def test_strangers_of_one_address() -> None:
    counts = ConnectionCounts(LIMITS)
    assert [counts.try_enter("192.0.2.1") for _ in range(9)] == [True] * 8 + [False]
    assert counts.try_enter("192.0.2.2")
    counts.leave("192.0.2.1")
    assert counts.try_enter("192.0.2.1")
    assert not counts.try_enter("192.0.2.1")


def test_strangers_in_all() -> None:
    counts = ConnectionCounts(LIMITS)
    entered = [counts.try_enter(f"192.0.2.{number}") for number in range(65)]
    assert entered == [True] * 64 + [False]
    counts.leave("192.0.2.0")
    assert counts.try_enter("192.0.2.200")


def test_processes_of_this_machine_share_the_whole_allowance() -> None:
    counts = ConnectionCounts(LIMITS)
    assert [counts.try_enter(LOCAL) for _ in range(65)] == [True] * 64 + [False]


def test_nothing_is_kept_of_addresses_that_left() -> None:
    counts = ConnectionCounts(LIMITS)
    for number in range(1000):
        counts.try_enter(f"address {number}")
        counts.leave(f"address {number}")
    assert not counts.strangers


def test_clients_cannot_take_the_places_of_members() -> None:
    counts = ConnectionCounts(LIMITS)
    for clients in range(960):
        assert counts.has_room_for(Role.CLIENT), clients
        counts.add(Role.CLIENT, 1)
    assert not counts.has_room_for(Role.CLIENT)
    assert not counts.has_room_for(Role.OBSERVER)
    for peers in range(64):
        assert counts.has_room_for(Role.PEER), peers
        counts.add(Role.PEER, 1)
    assert not counts.has_room_for(Role.PEER)


# ---------------------------------------------------------------------- over connections


async def open_door(nursery: trio.Nursery, limits: WireLimits = LIMITS) -> Door:
    door = Door(SECRET, limits=limits)
    await door.open(nursery)
    return door


async def is_closed(dialler: RawDialler) -> bool:
    closed = False

    async def wait() -> None:
        nonlocal closed
        await dialler.wait_closed()
        closed = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return closed


@pytest.mark.trio
async def test_the_65th_stranger_is_turned_away_without_a_word(nursery: trio.Nursery) -> None:
    door = await open_door(nursery)
    strangers = [door.dial(CLIENT, SECRET) for _ in range(65)]
    await trio.testing.wait_all_tasks_blocked()
    assert [await is_closed(stranger) for stranger in strangers] == [False] * 64 + [True]
    assert door.listener.events["turned away"] == 1
    await strangers[0].greet()  # whoever proves itself makes room
    await trio.testing.wait_all_tasks_blocked()
    assert (await door.enter(CLIENT, SECRET)).machine.established is not None


@pytest.mark.trio
async def test_clients_over_the_limit_are_told_and_members_still_get_in(nursery: trio.Nursery) -> None:
    door = await open_door(nursery, replace(LIMITS, connections_max=4, peer_reserve=2))
    clients = [await door.enter(CLIENT, SECRET) for _ in range(3)]
    assert [client.machine.established is not None for client in clients] == [True, True, False]
    assert clients[2].machine.refusal is not None
    assert clients[2].machine.refusal.reason is Reason.TOO_MANY_CONNECTIONS
    members = [await door.enter(hello_of(node), SECRET) for node in (2, 3, 4)]
    assert [member.machine.established is not None for member in members] == [True, True, False]
    await trio.aclose_forcefully(clients[0].stream)
    await door.recorder.wait_named("gone")
    await trio.testing.wait_all_tasks_blocked()
    assert (await door.enter(CLIENT, SECRET)).machine.established is not None


@pytest.mark.trio
@pytest.mark.parametrize("sent", [b"", b"\x01", FrameWriter(4096).frame(1, b"")[:-1]])
async def test_a_stranger_has_five_seconds(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock, sent: bytes
) -> None:
    door = await open_door(nursery)
    stranger = door.dial(CLIENT, SECRET)
    await stranger.stream.send_all(sent)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(4.9)
    await trio.testing.wait_all_tasks_blocked()
    assert not await is_closed(stranger)
    mock_clock.jump(0.2)
    await stranger.wait_closed()
    assert not door.listener.counts.strangers


@pytest.mark.trio
async def test_a_drop_at_a_time_does_not_buy_more_time(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """Slowloris: the deadline is for the whole handshake, not for each byte."""
    door = await open_door(nursery)
    stranger = door.dial(CLIENT, SECRET)
    hello = FrameWriter(4096).join([stranger.machine.start()])
    for byte in hello[:49]:
        await stranger.stream.send_all(bytes([byte]))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.1)
    await trio.testing.wait_all_tasks_blocked()
    assert not await is_closed(stranger)
    mock_clock.jump(0.2)
    await stranger.wait_closed()


@pytest.mark.trio
async def test_a_client_that_falls_silent_is_hung_up_on(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    door = await open_door(nursery)
    client = await door.enter(CLIENT, SECRET)
    await trio.testing.wait_all_tasks_blocked()
    for number in (1, 2, 3):
        mock_clock.jump(14.9)
        await client.send(encode(StatusRequest(number)))
        await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(15.1)
    await client.wait_closed()
    await door.recorder.wait_named("gone")


@pytest.mark.trio
@pytest.mark.parametrize(("size", "read"), [(4095, True), (4096, True), (4097, False)])
async def test_the_first_frames_have_at_most_4_kib(nursery: trio.Nursery, size: int, read: bool) -> None:
    """A frame that is read is refused for what is in it; a longer one for its length, which is all it may say."""
    door = await open_door(nursery)
    stranger = door.dial(CLIENT, SECRET)
    frame = FrameWriter(1 << 20).frame(1, b"x" * size)
    await stranger.stream.send_all(frame[: len(frame) - (0 if read else size)])
    await stranger.wait_closed()
    assert door.listener.events["ProtocolError"] == 1


@pytest.mark.trio
@pytest.mark.parametrize(
    ("hello", "kind", "limit"),
    [(CLIENT, 33, LIMITS.frame_client_bytes), (hello_of(2), 17, LIMITS.frame_peer_bytes)],
    ids=["client", "member"],
)
async def test_a_frame_of_a_role_over_its_limit_ends_the_connection(
    nursery: trio.Nursery, hello: Hello, kind: int, limit: int
) -> None:
    door = await open_door(nursery)
    dialler = await door.enter(hello, SECRET)
    await dialler.send((kind, b"x" * (limit + 1)))
    await dialler.wait_closed()
    assert door.listener.events["ProtocolError"] == 1


def group_of(size: int) -> bytes:
    return pack([5, 0, [[1, b"x" * size]]])


@pytest.mark.trio
@pytest.mark.parametrize("below", [1, 0])
async def test_a_frame_of_a_client_up_to_its_limit_is_heard(nursery: trio.Nursery, below: int) -> None:
    door = await open_door(nursery)
    client = await door.enter(CLIENT, SECRET)
    overhead = len(encode(Submit(1, group_of(70_000)))[1]) - 70_000
    group = group_of(LIMITS.frame_client_bytes - overhead - below)
    await client.send(encode(Submit(1, group)))
    ((_, request),) = await door.recorder.wait_named("request")
    assert request == Submit(1, group)


class CountingStream(trio.abc.Stream):
    """Offers endless bytes and counts how many were taken."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.taken = 0
        self.closed = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = (self.data * 20)[: max_bytes or 1]
        self.taken += len(piece)
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed.set()
        await trio.lowlevel.checkpoint()


@pytest.mark.trio
@pytest.mark.parametrize(
    "data",
    [
        bytes(READ_BYTES),
        b"\xff" * READ_BYTES,
        FrameWriter(4096).frame(1, bytes(4096)) * 20,
        FrameWriter(4096).join([encode(StatusRequest(1))] * 1000),
        FrameWriter(4096).join(
            [RawDialler(trio.testing.memory_stream_pair()[0], CLIENT, ()).machine.start()] * 500
        ),
    ],
    ids=["zeros", "ones", "large frames", "requests", "hellos"],
)
async def test_a_stranger_is_read_in_small_pieces_and_not_for_long(
    nursery: trio.Nursery, data: bytes
) -> None:
    """S1: a few reads of 64 KiB at the most, whatever is offered."""
    door = await open_door(nursery)
    stream = CountingStream(data)
    door.memory.offer(stream)
    await stream.closed.wait()
    assert stream.taken <= 4 * READ_BYTES
