"""Links to the other members: dialled until they are there, again after they restarted, and never in anybody's way."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from quorker.core.raft.messages import AppendEntries, Entry, Heartbeat, HeartbeatResponse, TimeoutNow
from quorker.core.wire.handshake import Party, Reason
from quorker.core.wire.records import pack
from quorker.core.wire.requests import Propose, Role, SnapshotChunk
from quorker.core.wire.roster import Roster
from quorker.jepsen_like.loopback import SECRET, Door, MemoryNetwork, Recorder, party_of
from quorker.transport.endpoint import Endpoint
from quorker.transport.greeting import Credentials
from quorker.transport.peers import PAUSE_MAX, PAUSE_MIN, PROPOSE_BYTES, Backoff, PeerLinks
from quorker.transport.sockets import dial_tcp, open_tcp

pytestmark = pytest.mark.trio

ONE = Endpoint("node1.example.org", 7701)
GROUPS = pack([5, 0, [[1, [64]]]]), pack([6, 0, [[2, [64]]]])
APPEND = AppendEntries(2, 1, 5, 4, 5, (Entry(5, 5, b"data"),), 4, 1)


class Dialling:
    """Node 2, as far as its links."""

    def __init__(self, *secrets: bytes, dial: Any = None, party: Party | None = None) -> None:
        self.recorder = Recorder()
        self.network = MemoryNetwork()
        self.party = party or party_of(2)
        roster = Roster(self.party, range(1, 10))
        self.links = PeerLinks(
            self.party, Credentials(secrets), roster, self.recorder, dial=dial or self.network.dial, seed=1
        )

    async def start(self, nursery: trio.Nursery, **peers: Endpoint) -> None:
        self.links.set_peers({int(name[1:]): endpoint for name, endpoint in peers.items()})
        await nursery.start(self.run)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.links.run(task_status=task_status)


@asynccontextmanager
async def connected(*secrets: bytes) -> AsyncGenerator[tuple[Dialling, Door]]:
    """Node 2 has a link to node 1."""
    dialling, door = Dialling(*secrets), Door(*secrets)
    async with trio.open_nursery() as nursery:
        dialling.network.listeners[ONE] = door.memory
        await door.open(nursery)
        await dialling.start(nursery, n1=ONE)
        await dialling.recorder.wait_named("up")
        yield dialling, door
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("secrets", [(), (SECRET,)], ids=["open", "secret"])
async def test_what_is_sent_between_two_flushes_arrives_together(secrets: tuple[bytes, ...]) -> None:
    async with connected(*secrets) as (dialling, door):
        links = dialling.links
        links.send(1, APPEND)
        links.forward(1, GROUPS[0])
        links.forward(1, GROUPS[1])
        links.send(1, Heartbeat(2, 1, 5, 3))
        links.send(1, Heartbeat(2, 1, 5, 4))
        links.send(1, TimeoutNow(2, 1, 5))
        await trio.testing.wait_all_tasks_blocked()
        assert door.recorder.named("message") == []
        links.flush()
        got = [message for _, message in await door.recorder.wait_named("message", 4)]
        assert door.recorder.wakes == 1
        assert got == [
            Heartbeat(2, 1, 5, 4),
            APPEND,
            TimeoutNow(2, 1, 5),
            Propose(Role.CLIENT, (GROUPS[0], GROUPS[1])),
        ]


async def test_a_commit_index_alone_waits_for_entries_and_leaves_without_them_when_asked() -> None:
    async with connected() as (dialling, door):
        links, commit = dialling.links, replace(APPEND, entries=(), commit_index=3)
        links.send(1, commit)
        links.send(1, APPEND)
        links.flush()
        links.send(1, commit)
        links.send(1, replace(commit, commit_index=4))
        links.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert [message for _, message in door.recorder.named("message")] == [APPEND]
        links.flush_late()
        links.flush_late()
        links.send(1, TimeoutNow(2, 1, 5))
        links.flush()
        got = [message for _, message in await door.recorder.wait_named("message", 3)]
        assert got == [APPEND, replace(commit, commit_index=4), TimeoutNow(2, 1, 5)]


async def test_groups_are_joined_up_to_a_size() -> None:
    async with connected() as (dialling, door):
        size = PROPOSE_BYTES // 2 - 20
        groups = [pack([5, 0, [[number, bytes(size)]]]) for number in range(5)]
        for group in groups:
            dialling.links.forward(1, group)
        dialling.links.flush()
        got = await door.recorder.wait_named("message", 3)
        assert [len(message.groups) for _, message in got] == [2, 2, 1]
        assert [group for _, message in got for group in message.groups] == groups


async def test_a_record_said_now_comes_behind_what_waits() -> None:
    async with connected() as (dialling, door):
        dialling.links.send(1, APPEND)
        assert dialling.links.say(1, SnapshotChunk(1, 0, b"bytes"))
        got = await door.recorder.wait_named("message", 2)
        assert [message for _, message in got] == [APPEND, SnapshotChunk(1, 0, b"bytes")]
        assert await dialling.links.wait_room(1)


async def test_while_blocked_messages_drop_and_the_newest_heartbeat_stays() -> None:
    async with connected() as (dialling, door):
        links = dialling.links
        for commit in range(
            600
        ):  # no task runs in between: one message is on its way, 256 wait, the rest is lost
            links.send(1, replace(APPEND, commit_index=commit))
            links.send(1, Heartbeat(2, 1, 5, commit))
            links.send(1, HeartbeatResponse(2, 1, 5, commit))
            links.flush()
        await door.recorder.wait_named("message", 3)
        assert await links.wait_room(1)
        await trio.testing.wait_all_tasks_blocked()
        got = [message for _, message in door.recorder.named("message")]
        beats = [message.commit_index for message in got if isinstance(message, Heartbeat)]
        appends = [message.commit_index for message in got if isinstance(message, AppendEntries)]
        assert beats == [0, 599]
        assert appends == list(range(257))


async def test_nobody_is_waited_for_and_nothing_is_kept_for_whoever_is_away() -> None:
    dialling = Dialling()
    dialling.links.set_peers({1: ONE})
    for to in (1, 9):
        dialling.links.send(to, APPEND)
        dialling.links.forward(to, b"group")
        assert not dialling.links.say(to, SnapshotChunk(1, 0, b""))
        assert not await dialling.links.wait_room(to)
        assert not dialling.links.is_up(to)
    dialling.links.flush()


async def test_members_may_start_in_any_order(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Also long before anybody listens, or the name is known."""
    dialling, door = Dialling(SECRET), Door(SECRET)
    await dialling.start(nursery, n1=ONE)
    await trio.sleep(3600)
    assert dialling.recorder.events == []
    assert 3600 / PAUSE_MAX <= len(dialling.network.dialled) <= 2 * 3600 / PAUSE_MAX + 10
    dialling.network.listeners[ONE] = door.memory
    await door.open(nursery)
    assert await dialling.recorder.wait_named("up") == [(1,)]
    assert await door.recorder.wait_named("connected") == [(2,)]


async def test_a_member_that_restarted_is_found_again(nursery: trio.Nursery) -> None:
    dialling = Dialling(SECRET)
    for start in range(3):
        door = Door(SECRET)
        dialling.network.listeners[ONE] = door.memory
        async with trio.open_nursery() as running:
            await door.open(running)
            if start == 0:
                await dialling.start(nursery, n1=ONE)
            await dialling.recorder.wait_named("up", start + 1)
            dialling.links.send(1, APPEND)
            dialling.links.flush()
            await door.recorder.wait_named("message")
            del dialling.network.listeners[ONE]
            running.cancel_scope.cancel()
        await dialling.recorder.wait_named("down", start + 1)
        assert not dialling.links.is_up(1)


class Names(trio.abc.HostnameResolver):
    """A name service of the test."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        await trio.lowlevel.checkpoint()
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked.append(name)
        if name not in self.known:
            raise trio.socket.gaierror(-2, "Name or service not known")
        return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", (self.known[name], int(port)))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_names_are_resolved_at_each_attempt(nursery: trio.Nursery) -> None:
    """A member that moved keeps its name: first nobody knows it, then it is here, then there."""
    names, doors = Names(), [Door(SECRET), Door(SECRET)]
    trio.socket.set_custom_hostname_resolver(names)
    bound, first = await open_tcp(Endpoint("127.0.0.1", 0))
    _, second = await open_tcp(Endpoint("127.0.0.2", bound.port))
    dialling = Dialling(SECRET, dial=dial_tcp)
    await dialling.start(nursery, n1=Endpoint("node1.example.org", bound.port))
    with trio.fail_after(10):
        while not names.asked:
            await trio.testing.wait_all_tasks_blocked(0.01)
    async with trio.open_nursery() as running:
        await doors[0].open(running, *first)
        names.known["node1.example.org"] = "127.0.0.1"
        dialling.links.kick(1)
        await doors[0].recorder.wait_named("connected")
        names.known["node1.example.org"] = "127.0.0.2"
        running.cancel_scope.cancel()
    await doors[1].open(nursery, *second)
    await doors[1].recorder.wait_named("connected")


async def test_a_member_that_was_heard_of_is_dialled_at_once(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    dialling, door = Dialling(), Door()
    await dialling.start(nursery, n1=ONE)
    await trio.testing.wait_all_tasks_blocked()
    assert len(dialling.network.dialled) == 1
    dialling.network.listeners[ONE] = door.memory
    await door.open(nursery)
    dialling.links.kick(1)
    await dialling.recorder.wait_named("up")


async def test_members_come_and_go_and_move(nursery: trio.Nursery) -> None:
    elsewhere = Endpoint("elsewhere.example.org", 7701)
    async with connected() as (dialling, door):
        links = dialling.links
        assert links.host_of(1) == "node1.example.org"
        other = Door()
        await other.open(nursery)
        dialling.network.listeners[elsewhere] = other.memory
        links.set_peers({1: elsewhere, 2: ONE})
        await other.recorder.wait_named("connected")
        await door.recorder.wait_until(lambda: door.listener.counts.peers == 0)
        assert links.host_of(1) == "elsewhere.example.org"
        assert links.host_of(2) is None, "this node does not dial itself"
        links.set_peers({})
        await dialling.recorder.wait_named("down", 2)
        assert links.host_of(1) is None
        links.send(1, APPEND)
        links.flush()


async def test_a_refusal_is_reported_and_dialling_goes_on(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    dialling, door = Dialling(b"an old secret of many bytes....."), Door(SECRET)
    dialling.network.listeners[ONE] = door.memory
    await door.open(nursery)
    await dialling.start(nursery, n1=ONE)
    reports = await dialling.recorder.wait_named("refused", 3)
    assert {refusal.reason for _, refusal in reports} == {Reason.BAD_PROOF}
    assert dialling.recorder.named("up") == []


async def test_a_stranger_at_the_address_of_a_member_is_refused(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The address of node 3 leads to node 1."""
    dialling, door = Dialling(SECRET), Door(SECRET)
    dialling.network.listeners[ONE] = door.memory
    await door.open(nursery)
    await dialling.start(nursery, n3=ONE)
    reports = await dialling.recorder.wait_named("refused")
    assert reports[0][1].reason is Reason.WRONG_NODE


async def test_both_sides_alarm_when_a_member_runs_twice(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    door = Door(SECRET)
    await door.open(nursery)
    copies = [Dialling(SECRET, party=party_of(2, instance=name)) for name in (b"original", b"the copy")]
    for copy in copies:
        copy.network.listeners[ONE] = door.memory
        await copy.start(nursery, n1=ONE)
        await copy.recorder.wait_until(lambda copy=copy: bool(copy.recorder.events))  # type: ignore[misc]  # bound now
    assert copies[0].recorder.named("up") == [(1,)]
    assert copies[1].recorder.named("up") == []
    assert copies[1].recorder.named("refused")[0][1].reason is Reason.DUPLICATE_NODE
    assert "directory was copied" in door.alarms[0]


async def test_a_listener_that_never_answers_is_given_up(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    dialling = Dialling(SECRET)
    dialling.network.listen(ONE)  # connects, and nobody accepts
    await dialling.start(nursery, n1=ONE)
    await trio.sleep(60)
    assert 60 / 6 - 1 <= len(dialling.network.dialled) <= 60 / 5 + 1


async def test_an_error_of_ours_ends_one_attempt(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    dialling, door = Dialling(SECRET), Door(SECRET)
    attempts: list[Endpoint] = []

    async def dial(endpoint: Endpoint) -> trio.abc.Stream:
        attempts.append(endpoint)
        if len(attempts) < 3:
            raise ZeroDivisionError
        return await dialling.network.dial(endpoint)

    dialling.links._dial = dial  # pyright: ignore[reportPrivateUsage]
    dialling.network.listeners[ONE] = door.memory
    await door.open(nursery)
    await dialling.start(nursery, n1=ONE)
    await dialling.recorder.wait_named("up")


async def test_pauses_grow_to_a_limit_and_start_anew() -> None:
    backoff = Backoff(Random(7))
    full = [PAUSE_MIN, 2 * PAUSE_MIN, 4 * PAUSE_MIN, 8 * PAUSE_MIN, 16 * PAUSE_MIN, PAUSE_MAX, PAUSE_MAX]
    pauses = [backoff.next_pause() for _ in full]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, full, strict=True))
    assert len(set(pauses)) == len(pauses)
    backoff.reset()
    assert backoff.next_pause() <= PAUSE_MIN


async def test_real_sockets_between_two_loopback_addresses(nursery: trio.Nursery) -> None:
    door = Door(SECRET)
    bound, listeners = await open_tcp(Endpoint("127.0.0.1", 0))
    await door.open(nursery, *listeners)
    dialling = Dialling(SECRET, dial=partial(dial_tcp, source="127.0.0.2"))
    await dialling.start(nursery, n1=bound)
    await dialling.recorder.wait_named("up")
    for commit in range(1000):
        dialling.links.send(1, replace(APPEND, commit_index=commit))
        dialling.links.flush()
        if commit % 100 == 99:
            await dialling.links.wait_room(1)
    got = await door.recorder.wait_named("message", 1000)
    assert [message.commit_index for _, message in got] == list(range(1000))
