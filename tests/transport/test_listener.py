"""The listener: who is served how, what may be said by whom, and that no mistake ends more than its connection."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from quorker.core.errors import ProtocolError, StorageFailed
from quorker.core.raft.messages import Heartbeat, InstallSnapshot, SnapshotMeta
from quorker.core.wire import requests
from quorker.core.wire.frames import FrameWriter, WireLimits
from quorker.core.wire.handshake import Hello, Party, Reason, cluster_id_of
from quorker.core.wire.records import pack
from quorker.core.wire.requests import (
    Answer,
    Failed,
    Failure,
    Notice,
    Pong,
    Propose,
    Query,
    Reply,
    Role,
    SnapshotBegin,
    Speech,
    StatusRequest,
    Submit,
    Unsupported,
    encode,
)
from quorker.jepsen_like.loopback import SECRET, Door, RawDialler, hello_of, party_of

pytestmark = pytest.mark.trio

GROUP = pack([5, 0, [[1, [64]]]])
BEAT = Heartbeat(2, 1, 5, 4)
CLIENT = hello_of(7, role=Role.CLIENT)
OBSERVER = hello_of(8, role=Role.OBSERVER)


@pytest.fixture
async def door(nursery: trio.Nursery) -> Door:
    door = Door(SECRET)
    await door.open(nursery)
    return door


async def answer_of(dialler: RawDialler) -> Speech:
    with trio.fail_after(10):
        frame = await dialler.receive()
    assert frame is not None
    return requests.decode(*frame)


async def assert_serves(door: Door) -> None:
    """The node lives: a member gets in and is heard."""
    before = len(door.recorder.named("message"))
    member = await door.enter(hello_of(9), SECRET)
    await member.send(encode(Heartbeat(9, 1, 5, 4)))
    await door.recorder.wait_named("message", before + 1)
    await trio.aclose_forcefully(member.stream)


# ---------------------------------------------------------------------- served


async def test_a_member_is_heard_and_known_by_its_number(door: Door) -> None:
    member = await door.enter(hello_of(2), SECRET)
    assert await door.recorder.wait_named("connected") == [(2,)]
    await member.send(encode(BEAT), encode(Propose(Role.CLIENT, (GROUP,))))
    got = await door.recorder.wait_named("message", 2)
    assert got == [(2, BEAT), (2, Propose(Role.CLIENT, (GROUP,)))]
    assert door.recorder.wakes == 1, "one wake brings everything that arrived together"


async def test_a_client_is_heard_and_answered(door: Door) -> None:
    client = await door.enter(CLIENT, SECRET)
    await client.send(encode(Submit(1, GROUP)), encode(StatusRequest(2)))
    got = await door.recorder.wait_named("request", 2)
    assert [request for _, request in got] == [Submit(1, GROUP), StatusRequest(2)]
    link = door.recorder.clients[0]
    assert (link.role, link.name) == (Role.CLIENT, "client 7")
    link.send(Reply(9, b"\x90"), Notice(5, "job", b"\x90"))
    assert await answer_of(client) == Reply(9, b"\x90")
    assert await answer_of(client) == Notice(5, "job", b"\x90")
    await trio.aclose_forcefully(client.stream)
    assert await door.recorder.wait_named("gone") == [(link,)]
    link.send(Reply(9, b"\x90"))  # nobody hears it, and nothing happens


async def test_an_observer_reads(door: Door) -> None:
    observer = await door.enter(OBSERVER, SECRET)
    await observer.send(encode(Query(1, "job", b"\x80", False, 0, 1000)))
    await door.recorder.wait_named("request")


async def test_a_member_that_dials_again_gives_its_first_connection_up(door: Door) -> None:
    first = await door.enter(hello_of(2), SECRET)
    await door.recorder.wait_named("connected")
    second = await door.enter(replace(hello_of(2), nonce=b"x" * 32), SECRET)
    await first.wait_closed()
    await second.send(encode(BEAT))
    await door.recorder.wait_named("message")
    assert door.listener.counts.peers == 1


async def test_a_kind_of_a_later_version_is_answered_and_the_rest_is_heard(door: Door) -> None:
    client = await door.enter(CLIENT, SECRET)
    await client.send((200, b"whatever"), encode(Unsupported(77)), encode(Submit(1, GROUP)))
    assert await answer_of(client) == Unsupported(200)
    assert [request for _, request in await door.recorder.wait_named("request")] == [Submit(1, GROUP)]


async def test_pings_are_answered_without_the_handler(door: Door) -> None:
    client = await door.enter(CLIENT, SECRET)
    await client.send(encode(requests.Ping(3, 99)))
    answer = await answer_of(client)
    assert isinstance(answer, Pong)
    assert (answer.number, answer.echoed_clock_ms) == (3, 99)
    assert door.recorder.wakes == 0


# ---------------------------------------------------------------------- refused, and told why


@pytest.mark.parametrize(
    ("hello", "secrets", "reason"),
    [
        (hello_of(2), (b"another secret of 32 bytes......",), Reason.BAD_PROOF),
        (hello_of(2), (), Reason.BAD_PROOF),
        (
            replace(hello_of(2), party=replace(party_of(2), cluster_id=cluster_id_of("x"))),
            (SECRET,),
            Reason.WRONG_CLUSTER,
        ),
        (replace(CLIENT, party=Party(cluster_id_of("x"))), (SECRET,), Reason.WRONG_CLUSTER),
        (replace(hello_of(2), to=3), (SECRET,), Reason.WRONG_NODE),
        (hello_of(10), (SECRET,), Reason.UNKNOWN_MEMBER),
        (hello_of(1), (SECRET,), Reason.DUPLICATE_NODE),
        (replace(hello_of(2), proto_min=9, proto_max=9), (SECRET,), Reason.VERSION),
    ],
)
async def test_mistakes_are_refused_with_the_reason(
    door: Door, hello: Hello, secrets: tuple[bytes, ...], reason: Reason
) -> None:
    dialler = await door.enter(hello, *secrets)
    assert dialler.machine.refusal is not None
    assert dialler.machine.refusal.reason is reason
    await dialler.wait_closed()
    assert door.recorder.events == []
    await assert_serves(door)


async def test_a_second_directory_of_one_member_is_refused_with_an_alarm(door: Door) -> None:
    await door.enter(hello_of(2), SECRET)
    copy = replace(hello_of(2), party=replace(party_of(2), dir_uuid=b"other directory."))
    dialler = await door.enter(copy, SECRET)
    assert dialler.machine.refusal is not None
    assert dialler.machine.refusal.reason is Reason.DUPLICATE_NODE
    assert len(door.alarms) == 1


async def test_the_unix_socket_needs_no_secret_and_lets_no_member_in(nursery: trio.Nursery) -> None:
    door = Door(SECRET, private=True)
    await door.open(nursery)
    assert (await door.enter(CLIENT)).machine.established is not None
    member = await door.enter(hello_of(2))
    assert member.machine.refusal is not None
    assert member.machine.refusal.reason is Reason.WRONG_ROLE


# ---------------------------------------------------------------------- what a role may not say


@pytest.mark.parametrize(
    ("hello", "record"),
    [
        (CLIENT, BEAT),
        (CLIENT, Propose(Role.PEER, (GROUP,))),
        (OBSERVER, Submit(1, GROUP)),
        (OBSERVER, requests.Attach(5, 3)),
        (OBSERVER, BEAT),
        (hello_of(2), Submit(1, GROUP)),
        (CLIENT, Reply(1, b"\x90")),
        (hello_of(2), Heartbeat(3, 1, 5, 4)),  # speaks for another member
        (hello_of(2), Heartbeat(2, 3, 5, 4)),  # to another member
        (hello_of(2), SnapshotBegin(1, InstallSnapshot(3, 1, 5, SnapshotMeta()))),
    ],
)
async def test_what_a_role_may_not_say_ends_its_connection(door: Door, hello: Hello, record: Speech) -> None:
    dialler = await door.enter(hello, SECRET)
    await dialler.send(encode(record))
    await dialler.wait_closed()
    assert door.recorder.named("message") == door.recorder.named("request") == []
    await assert_serves(door)


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", b"\xdd\xff\xff\xff\xff"])
@pytest.mark.parametrize(("hello", "kind"), [(CLIENT, 33), (hello_of(2), 16), (hello_of(2), 19)])
async def test_malformed_records_end_their_connection(
    door: Door, hello: Hello, kind: int, payload: bytes
) -> None:
    dialler = await door.enter(hello, SECRET)
    await dialler.send((kind, payload))
    await dialler.wait_closed()
    assert door.listener.events["ProtocolError"] == 1
    await assert_serves(door)


async def test_replayed_and_untagged_frames_end_their_connection(door: Door) -> None:
    for attempt in range(2):
        member = await door.enter(replace(hello_of(2), nonce=bytes([attempt]) * 32), SECRET)
        frame = member.writer.join([encode(BEAT)])
        await member.stream.send_all(frame)
        await door.recorder.wait_named("message", attempt + 1)
        await member.stream.send_all(frame if attempt == 0 else FrameWriter(1000).join([encode(BEAT)]))
        await member.wait_closed()
    assert len(door.recorder.named("message")) == 2


def numbered(kind: str, number: int) -> Speech:
    if kind == "status":
        return StatusRequest(number)
    return Submit(number, GROUP) if kind == "submit" else Query(number, "job", b"\x80", False, 0, 9)


@pytest.mark.parametrize("numbers", [(1, 1), (2, 1), (0,)])
@pytest.mark.parametrize("kind", ["status", "submit", "query"])
async def test_numbers_of_requests_grow(door: Door, numbers: tuple[int, ...], kind: str) -> None:
    """So that no two unanswered requests are ever confused."""
    client = await door.enter(CLIENT, SECRET)
    await client.send(*(encode(numbered(kind, number)) for number in numbers))
    await client.wait_closed()
    assert door.recorder.named("request") == []
    await assert_serves(door)


# ---------------------------------------------------------------------- mistakes of this node


@pytest.mark.parametrize("error", [RuntimeError("our bug"), ProtocolError("so it says"), OSError(5, "no")])
@pytest.mark.parametrize(("hello", "record"), [(CLIENT, Submit(1, GROUP)), (hello_of(2), BEAT)])
async def test_the_error_of_a_handler_ends_one_connection(
    door: Door, hello: Hello, record: Speech, error: Exception
) -> None:
    other = await door.enter(OBSERVER, SECRET)
    dialler = await door.enter(hello, SECRET)
    door.recorder.fail_with = error
    await dialler.send(encode(record))
    await dialler.wait_closed()
    await other.send(encode(StatusRequest(1)))
    await door.recorder.wait_named("request")
    await assert_serves(door)


async def test_a_failed_disk_ends_the_node() -> None:
    """Guarantee D4: the one error that is not kept in its connection."""

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            door = Door(SECRET)
            await door.open(nursery)
            member = await door.enter(hello_of(2), SECRET)
            door.recorder.fail_with = StorageFailed("fsync")
            await member.send(encode(BEAT))
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        await run()
    assert raised.group_contains(StorageFailed)


# ---------------------------------------------------------------------- clients that take too little


async def test_a_client_that_lets_answers_pile_up_is_disconnected(nursery: trio.Nursery) -> None:
    """And everybody else is served meanwhile. Memory streams take everything, so the queue is what overflows here."""
    door = Door(SECRET, limits=WireLimits(client_queued_messages_max=10))
    await door.open(nursery)
    client = await door.enter(CLIENT, SECRET)
    await door.recorder.wait_named("client")
    link = door.recorder.clients[0]
    for number in range(11):
        link.send(Answer(number, 1, 0, b"\xc0"))
    link.send(Answer(99, 1, 0, b"\xc0"))
    await door.recorder.wait_named("gone")
    await client.wait_closed()
    await assert_serves(door)


async def test_an_answer_that_fits_no_frame_becomes_an_error(nursery: trio.Nursery) -> None:
    door = Door(SECRET, limits=WireLimits(frame_answer_bytes=1000))
    await door.open(nursery)
    client = await door.enter(CLIENT, SECRET)
    await door.recorder.wait_named("client")
    door.recorder.clients[0].send(Answer(5, 1, 0, b"x" * 1000))
    answer = await answer_of(client)
    assert isinstance(answer, Failed)
    assert (answer.request, answer.failure, answer.reason) == (5, Failure.REJECTED, "answer_too_large")
