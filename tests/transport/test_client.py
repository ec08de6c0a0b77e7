"""A client against members that share one store: it finds one, fails over, applies once, and its errors are honest."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from quorker.core.errors import (
    Busy,
    ConfigurationError,
    IdentityMismatch,
    InvalidInput,
    NotApplied,
    Rejected,
    Unknown,
)
from quorker.core.jobs.commands import DeleteJob, EnqueueJobs, JobGrant, KeepAlive, NewJob
from quorker.core.raft.messages import Heartbeat
from quorker.core.session import SessionState
from quorker.core.wire.frames import Outgoing
from quorker.core.wire.records import pack, unpack
from quorker.core.wire.requests import (
    AGE_UNKNOWN,
    Answer,
    Attach,
    Cancel,
    Failed,
    Failure,
    Notice,
    Query,
    Reply,
    Role,
    StatusRequest,
    Submit,
    Unsupported,
    Wait,
    encode,
)
from quorker.jepsen_like.loopback import SECRET
from quorker.jepsen_like.loopback_members import Member, Members, Mood
from quorker.transport import client as client_module
from quorker.transport.client import Client, open_client
from quorker.transport.sockets import open_unix

pytestmark = pytest.mark.trio

NOTICE = encode(Notice(1, "", b""))[0]
ENQUEUE = EnqueueJobs((NewJob(task="send", args=b"args", queue="default"),))


@asynccontextmanager
async def cluster(count: int = 3, *secrets: bytes) -> AsyncGenerator[Members]:
    members = Members(count, *secrets)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await members.start(nursery)
            yield members
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def attached(members: Members, **options: Any) -> AsyncGenerator[Client]:
    """A client whose session is open, and that has said all it says of its own accord."""
    async with open_client(members.addresses, cluster="loopback", **options) as client:
        await client.driver.wait_open()
        await client.submit(KeepAlive(), timeout=10)
        yield client


def reached(members: Members, client: Client) -> Member:
    """The member that the client is connected to."""
    remote = client.route.remote
    assert remote is not None
    return members.all[remote.node_id - 1]


def jobs_in(members: Members) -> int:
    return len(members.store.jobs)


def on_cancel(token: int, reason: str) -> None:
    pytest.fail(f"job {token} was cancelled: {reason}")


# ---------------------------------------------------------------------- one member


@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "secret"])
async def test_commands_and_reads(secret: bytes | None) -> None:
    async with (
        cluster(1, *([secret] if secret else [])) as members,
        attached(members, secret=secret) as client,
    ):
        (job_id,) = await client.submit(ENQUEUE)
        answer = await client.query("state", {"job_id": job_id})
        assert answer.value is not None
        assert answer.applied_index == members.store.applied_index
        assert answer.age_ms == 7
        assert client.session_id in members.store.sessions
        status = await client.status()
        assert (status.node_id, status.members, status.role) == (1, (1, 2, 3), "leader")


async def test_commands_of_one_turn_leave_as_one_group() -> None:
    async with cluster(1) as members, attached(members) as client:
        before = len(members.all[0].named("request"))
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client.submit, ENQUEUE)
        requests = [request for _, request in members.all[0].named("request")[before:]]
        assert [type(request) for request in requests] == [Submit]
        assert jobs_in(members) == 50


async def test_a_rejection_is_passed_on() -> None:
    async with cluster(1) as members, attached(members) as client:
        with pytest.raises(Rejected):
            await client.submit(DeleteJob("0000000000000", ("Succeeded",)))


async def test_goodbye_ends_the_session() -> None:
    async with cluster(1) as members:
        async with attached(members) as client:
            session = client.session_id
        assert session not in members.store.sessions


async def test_goodbye_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GOODBYE_SECONDS", 0.01)
    async with cluster(1) as members, attached(members):
        members.all[0].mood = Mood.DEAF


async def test_a_process_beside_the_data_uses_the_unix_socket(tmp_path: Path) -> None:
    """Without the secret: whoever may open the socket may speak."""
    async with cluster(1, SECRET) as members, trio.open_nursery() as nursery:
        listener = await open_unix(tmp_path / "quorker.sock")
        member = Member(members, 2, (SECRET,))
        await member.start(nursery, listener)
        async with open_client([f"unix:{tmp_path / 'quorker.sock'}"], cluster="loopback") as client:
            await client.submit(ENQUEUE)
        await member.stop()
    assert jobs_in(members) == 1


async def test_an_observer_reads_and_opens_no_session() -> None:
    async with cluster(1) as members:
        async with open_client(members.addresses, observer=True) as client:
            assert (await client.status()).node_id == 1
            assert (await client.query("queue_counts", {"queue": "default"})).value is not None
            with pytest.raises(InvalidInput, match="only observes"):
                await client.submit(ENQUEUE)
        assert members.all[0].clients[0].role is Role.OBSERVER
        assert not members.store.sessions


# ---------------------------------------------------------------------- failing over


@pytest.mark.parametrize("mood", [Mood.MUTE, Mood.DEAF], ids=["applied", "not applied"])
async def test_a_command_whose_member_dies_is_applied_once(mood: Mood) -> None:
    """C2: whether or not it was applied before the connection broke."""
    async with cluster() as members, attached(members) as client, trio.open_nursery() as nursery:
        member = reached(members, client)
        member.mood = mood
        submitted: list[Any] = []

        async def submit() -> None:
            submitted.append(await client.submit(ENQUEUE))

        before = len(member.named("request"))
        nursery.start_soon(submit)
        await member.wait_named("request", before + 1)
        assert jobs_in(members) == (1 if mood is Mood.MUTE else 0)
        await member.stop()
    assert jobs_in(members) == 1
    assert [list(ids) for ids in submitted] == [list(members.store.jobs)]


async def test_the_session_survives_its_member() -> None:
    async with cluster() as members, attached(members) as client:
        session = client.session_id
        for _ in range(2):
            await reached(members, client).stop()
            await client.submit(ENQUEUE)
        assert client.session_id == session
        assert jobs_in(members) == 2


async def test_a_read_whose_member_dies_is_asked_again_not_behind_what_was_seen() -> None:
    async with cluster() as members, attached(members) as client, trio.open_nursery() as nursery:
        await client.submit(ENQUEUE)
        seen, member = members.store.applied_index, reached(members, client)
        member.mood = Mood.DEAF
        nursery.start_soon(client.query, "queue_counts", {"queue": "default"})
        await member.wait_until(lambda: any(isinstance(each, Query) for _, each in member.named("request")))
        await member.stop()
    asked = [each for other in members.all for _, each in other.named("request") if isinstance(each, Query)]
    assert [query.min_index for query in asked] == [seen, seen]


async def test_a_member_without_a_leader_is_asked_again_until_it_has_one() -> None:
    async with cluster(1) as members, attached(members) as client, trio.open_nursery() as nursery:
        member = members.all[0]
        member.mood = Mood.REFUSE
        before = len(member.named("request"))
        nursery.start_soon(client.submit, ENQUEUE)
        await member.wait_named("request", before + 3)
        assert jobs_in(members) == 0
        member.mood = Mood.SERVE
    assert jobs_in(members) == 1


async def test_a_member_that_gets_nowhere_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "STUCK_MS", 20)
    async with cluster() as members, attached(members) as client:
        first = reached(members, client)
        first.mood = Mood.DEAF
        await client.submit(ENQUEUE)
        assert reached(members, client) is not first


NONSENSE: dict[str, Outgoing] = {
    "no record": (48, b"\xc1"),
    "replies that are none": encode(Reply(1, b"\xc0")),
    "a session without a number": encode(Reply(1, pack([[0, 1, [0, None]]]))),  # 1 stands for the nonce
    "a grant that is none": encode(Notice(1, "job", pack([1]))),  # 1 stands for the session
    "a token that is none": encode(Notice(1, "cancel", pack(["1", "0", "why"]))),
    "a request": encode(StatusRequest(1)),
    "a message of Raft": encode(Heartbeat(1, 2, 3, 4)),
}


@pytest.mark.parametrize("frame", NONSENSE.values(), ids=NONSENSE)
async def test_a_member_that_talks_nonsense_is_left(frame: Outgoing) -> None:
    async with cluster(2) as members, attached(members) as client:
        client.driver.session.nonce = 1
        kind, payload = frame
        if kind == NOTICE:
            payload = pack([client.session_id, *unpack(payload)[1:]])
        first, seen = reached(members, client), client.route.connections
        first.clients[-1]._stream.send(((kind, payload),))  # pyright: ignore[reportPrivateUsage]  # on purpose
        while client.route.connections == seen:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await client.submit(ENQUEUE)
        assert reached(members, client) is not first
        assert jobs_in(members) == 1


async def test_what_a_later_version_says_is_passed_over() -> None:
    async with cluster(1) as members, attached(members) as client:
        link = members.all[0].clients[0]
        link._stream.send(((200, b"?"), encode(Unsupported(99))))  # pyright: ignore[reportPrivateUsage]
        link.send(Notice(client.session_id, "something new", pack(None)), Notice(99, "job", pack(None)))
        await client.submit(ENQUEUE)
        assert client.route.connections == 1


async def test_a_mistake_of_ours_ends_one_connection() -> None:
    """Such as a function of the user's that raises when it is told of a cancelled job."""

    def fail(token: int, reason: str) -> None:
        raise ZeroDivisionError

    async with (
        cluster(2) as members,
        attached(members) as client,
        client.worker(["default"], 1, fail) as worker,
    ):
        (job_id,) = await client.submit(ENQUEUE)
        await worker.receive()
        await client.submit(DeleteJob(job_id))
        await client.submit(ENQUEUE)
        assert client.route.connections == 2


async def test_a_group_that_failed_as_a_whole_is_sent_again() -> None:
    async with cluster(1) as members, attached(members) as client, trio.open_nursery() as nursery:
        member = members.all[0]
        member.mood = Mood.DEAF
        before = len(member.named("request"))
        nursery.start_soon(client.submit, ENQUEUE)
        for number, failure in enumerate((Failure.NOT_APPLIED, Failure.UNKNOWN, Failure.BUSY), 1):
            got = await member.wait_named("request", before + number)
            member.clients[0].send(Failed(got[-1][1].request, failure, "LEADER_CHANGED", "", 1, 0))
        await member.wait_named("request", before + 4)
        member.mood = Mood.SERVE
        member.clients[0].send(Failed(0, Failure.UNKNOWN, "LEADER_CHANGED", "", 0, 0))
    assert jobs_in(members) == 1


async def test_a_session_that_cannot_be_opened_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster(1) as members:
        member = members.all[0]
        member.mood = Mood.DEAF
        async with open_client(members.addresses) as client:
            await member.wait_named("request")
            nonce = client.driver.session.nonce
            member.clients[0].send(Reply(1, pack([[0, nonce, [1, "full", "too many sessions"]]])))
            await trio.testing.wait_all_tasks_blocked(0.01)
            member.mood = Mood.SERVE
            client.driver.session.on_route_changed()  # what the timer does after two seconds
            await client.submit(ENQUEUE)
    assert "too many sessions" in caplog.text


# ---------------------------------------------------------------------- honest errors


async def test_what_was_never_sent_was_not_applied() -> None:
    async with cluster(1) as members, attached(members) as client:
        await members.all[0].stop()
        while client.route.is_up:
            await trio.testing.wait_all_tasks_blocked(0.001)
        with pytest.raises(NotApplied, match="never sent"):
            await client.submit(ENQUEUE, timeout=0.05)


async def test_what_was_sent_and_not_answered_is_unknown() -> None:
    async with cluster(1) as members, attached(members) as client:
        members.all[0].mood = Mood.DEAF
        with pytest.raises(Unknown, match="no reply before the deadline"):
            await client.submit(ENQUEUE, timeout=0.05)
        members.all[0].mood = Mood.SERVE


async def test_a_session_that_expired_leaves_its_commands_unknown_and_is_replaced() -> None:
    async with cluster(1) as members, attached(members) as client:
        session, member = client.session_id, members.all[0]
        member.mood = Mood.DEAF
        errors: list[Exception] = []

        async def submit() -> None:
            with pytest.raises(Unknown) as raised:
                await client.submit(ENQUEUE)
            errors.append(raised.value)

        before = len(member.named("request"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            await member.wait_named("request", before + 1)
            member.mood = Mood.SERVE
            members.pass_time(60_000)
        assert "session ended" in str(errors[0])
        await client.driver.wait_open()
        assert client.session_id > session
        await client.submit(ENQUEUE)
        assert jobs_in(members) == 1


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure.NOT_APPLIED, NotApplied),
        (Failure.UNKNOWN, NotApplied),  # a read that failed changed nothing
        (Failure.REJECTED, Rejected),
        (Failure.BUSY, Busy),
    ],
)
async def test_a_read_that_fails_says_why(failure: Failure, error: type[Exception]) -> None:
    async with cluster(1) as members, attached(members) as client:
        member = members.all[0]
        member.mood = Mood.DEAF

        async def fail() -> None:
            await member.wait_until(lambda: isinstance(member.events[-1][-1], Query))
            number = member.events[-1][-1].request
            member.clients[0].send(Failed(number, failure, "the_reason", "detail", 5, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            with pytest.raises(error, match="the_reason"):
                await client.query("state", {"job_id": "0000000000000"}, consistency="linearizable")
        member.mood = Mood.SERVE


async def test_a_read_without_an_answer_was_not_applied() -> None:
    async with cluster(1) as members, attached(members, default_timeout=0.05) as client:
        members.all[0].mood = Mood.DEAF
        with pytest.raises(NotApplied, match="no member answered"):
            await client.query("state", {"job_id": "0000000000000"})
        await members.all[0].wait_until(lambda: isinstance(members.all[0].events[-1][-1], Cancel))
        members.all[0].mood = Mood.SERVE


async def test_late_and_unasked_answers_are_ignored() -> None:
    async with cluster(1) as members, attached(members) as client:
        members.all[0].clients[0].send(
            Answer(999, 1, 0, b"\xc0"), Failed(998, Failure.UNKNOWN, "LEADER_CHANGED", "", 0, 1)
        )
        await client.submit(ENQUEUE)


# ---------------------------------------------------------------------- working


async def test_a_worker_gets_jobs_and_reports_them() -> None:
    async with (
        cluster(1) as members,
        attached(members) as client,
        client.worker(["default"], 2, on_cancel) as worker,
    ):
        (job_id,) = await client.submit(ENQUEUE)
        (grant,) = await worker.receive()
        assert (grant.job_id, grant.args) == (job_id, b"args")
        worker.complete_nowait(grant, b"done")
        await worker.wait_reported()
        job = members.store.jobs[job_id]
        assert job.state == "Succeeded"
        await worker.stop()
        with pytest.raises(trio.EndOfChannel):
            await worker.receive()


async def test_a_grant_that_was_lost_on_its_way_comes_again() -> None:
    """The member dies after the state machine granted the job and before it told anybody."""
    async with (
        cluster() as members,
        attached(members) as client,
        client.worker(["default"], 1, on_cancel) as worker,
    ):
        await client.submit(ENQUEUE)
        (first,) = await worker.receive()
        worker.complete_nowait(first, b"")
        await worker.wait_reported()
        member = reached(members, client)
        member.mood = Mood.MUTE
        seen = len(member.named("request"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.submit, ENQUEUE)
            await member.wait_named("request", seen + 1)
            await member.stop()
        (second,) = await worker.receive()
        assert second.token > first.token
        assert [
            each for other in members.all for _, each in other.named("request") if isinstance(each, Attach)
        ]
        worker.complete_nowait(second, b"")
        await worker.wait_reported()
    assert {job.state for job in members.store.jobs.values()} == {"Succeeded"}


async def test_a_job_deleted_while_it_runs_is_cancelled() -> None:
    cancelled: list[int] = []
    async with (
        cluster(1) as members,
        attached(members) as client,
        client.worker(["default"], 1, lambda token, reason: cancelled.append(token)) as worker,
    ):
        (job_id,) = await client.submit(ENQUEUE)
        (grant,) = await worker.receive()
        await client.submit(DeleteJob(job_id))
        assert cancelled == [grant.token]


async def test_a_worker_whose_session_expired_stops_its_jobs() -> None:
    cancelled: list[int] = []
    async with (
        cluster(1) as members,
        attached(members) as client,
        client.worker(["default"], 1, lambda token, reason: cancelled.append(token)) as worker,
    ):
        await client.submit(ENQUEUE)
        (grant,) = await worker.receive()
        members.pass_time(60_000)
        (again,) = await receive_another(worker, grant)
        assert cancelled == [grant.token]
        assert again.job_id == grant.job_id
        worker.complete_nowait(again, b"")
        await worker.wait_reported()


async def receive_another(worker: Any, grant: JobGrant) -> list[JobGrant]:
    grants: list[JobGrant] = await worker.receive()
    assert all(each.token != grant.token for each in grants)
    return grants


# ---------------------------------------------------------------------- waiting for a job


async def test_waiting_survives_a_member() -> None:
    async with cluster() as members, attached(members) as client, trio.open_nursery() as nursery:
        (job_id,) = await client.submit(ENQUEUE)
        first = reached(members, client)
        nursery.start_soon(client.wait_finished, job_id, 15)
        await first.wait_until(lambda: bool(first.waits))
        assert first.waits[0][1].min_index == members.store.applied_index
        await first.stop()
        with trio.fail_after(10):
            while not client.route.is_up or not reached(members, client).waits:
                await trio.testing.wait_all_tasks_blocked(0.001)
        reached(members, client).finish_waits()


async def test_waiting_too_long_is_an_error_and_is_taken_back() -> None:
    async with cluster(1) as members, attached(members) as client:
        (job_id,) = await client.submit(ENQUEUE)
        with pytest.raises(trio.TooSlowError):
            await client.wait_finished(job_id, 0.05)
        wait = next(each for _, each in members.all[0].named("request") if isinstance(each, Wait))
        await members.all[0].wait_until(lambda: members.all[0].events[-1][-1] == Cancel(wait.request))


# ---------------------------------------------------------------------- getting in


async def test_any_member_will_do() -> None:
    async with cluster() as members:
        await members.all[0].stop()
        await members.all[2].stop()
        async with attached(members) as client:
            assert reached(members, client) is members.all[1]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"secret": b"another secret of many bytes"}, ConfigurationError, "does not know the secret"),
        ({}, ConfigurationError, "requires a secret"),
        ({"secret": SECRET, "cluster": "staging"}, IdentityMismatch, "wrong cluster"),
        ({"secret": b"short"}, ConfigurationError, "at least 16 random bytes"),
    ],
)
async def test_a_refusal_by_all_is_raised_as_it_was_named(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    async with cluster(2, SECRET) as members:
        with pytest.raises(error, match=words):
            async with open_client(members.addresses, **options):
                pytest.fail("it got in")


async def test_nobody_there_is_not_applied() -> None:
    async with cluster(2) as members:
        for member in members.all:
            await member.stop()
        with pytest.raises(NotApplied, match="no member answered within"):
            async with open_client(members.addresses, default_timeout=0.2):
                pytest.fail("it got in")


@pytest.mark.parametrize("addresses", [[], ["nowhere"], ["db1:0"], ["unix:relative"]])
async def test_addresses_are_checked_first(addresses: list[str]) -> None:
    with pytest.raises(InvalidInput):
        async with open_client(addresses):
            pytest.fail("it got in")


async def test_something_else_that_listens_there_is_named(nursery: trio.Nursery) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"220 mail.example.org ESMTP\r\n")
            await stream.receive_some()

    listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, speak, 0)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(Exception, match=f"127.0.0.1:{port}: frame of kind"):
        async with open_client([f"127.0.0.1:{port}"], default_timeout=5):
            pytest.fail("it got in")


async def test_the_error_of_the_block_passes_unchanged() -> None:
    async with cluster(1) as members:
        with pytest.raises(ZeroDivisionError):
            async with attached(members):
                raise ZeroDivisionError
        assert members.store.sessions, "nothing was said about its end: the session expires"


async def test_state_before_the_session_is_open() -> None:
    async with cluster(1) as members:
        members.all[0].mood = Mood.DEAF
        async with open_client(members.addresses) as client:
            assert client.session_id == 0
            assert client.driver.session.state is SessionState.OPENING


async def test_an_answer_may_be_larger_than_anything_a_client_may_say_and_of_unknown_age() -> None:
    async with cluster(1) as members, attached(members) as client:
        member, page = members.all[0], b"x" * (8 << 20)
        member.mood = Mood.DEAF

        async def answer() -> None:
            await member.wait_until(lambda: isinstance(member.events[-1][-1], Query))
            member.clients[0].send(Answer(member.events[-1][-1].request, 1, AGE_UNKNOWN, pack(page)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            got = await client.query("state", {"job_id": "0000000000000"})
            assert (got.value, got.age_ms) == (page, -1)
        member.mood = Mood.SERVE
