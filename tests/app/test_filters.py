"""Filters: what they see, what they may decide, in which order they run, and what an error in one of them does."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from quorker.app import (
    NO_RETRY,
    App,
    Applied,
    Attached,
    Call,
    Election,
    Enqueued,
    Enqueuing,
    Filter,
    GiveBack,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Performed,
    Performing,
    Retry,
    current_job,
)
from quorker.app.testing import AppUnderTest
from quorker.core.errors import ConfigurationError, InvalidInput
from quorker.core.jobs.commands import NewJob
from quorker.transport.memory import MemoryStore

Serve = Callable[..., AbstractAsyncContextManager[Attached]]


class Recorder(Filter):
    """Writes down which hook was called with what."""

    def __init__(self, seen: list[str], name: str = "", order: int = 0) -> None:
        self.seen = seen
        self.name = name
        self.order = order

    def enqueuing(self, call: Enqueuing) -> None:
        self.seen.append(f"{self.name}enqueuing {call.task}")

    def enqueued(self, call: Enqueued) -> None:
        self.seen.append(
            f"{self.name}enqueued {call.task} {type(call.error).__name__ if call.error else 'ok'}"
        )

    def performing(self, attempt: Performing) -> None:
        self.seen.append(f"{self.name}performing {attempt.job.attempt}")

    def performed(self, attempt: Performed) -> None:
        self.seen.append(
            f"{self.name}performed {attempt.failure.kind if attempt.failure else attempt.result}"
        )

    def electing(self, election: Election) -> None:
        self.seen.append(f"{self.name}electing {type(election.outcome).__name__}")

    def applied(self, change: Applied) -> None:
        self.seen.append(f"{self.name}applied {change.state}")


class AsyncRecorder(Filter):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def enqueuing(self, call: Enqueuing) -> None:
        self.seen.append("enqueuing")

    async def enqueued(self, call: Enqueued) -> None:
        self.seen.append(f"enqueued {bool(call.job_id)}")

    async def performing(self, attempt: Performing) -> None:
        await trio.lowlevel.checkpoint()
        self.seen.append("performing")

    async def performed(self, attempt: Performed) -> None:
        await trio.lowlevel.checkpoint()
        self.seen.append("performed")

    async def electing(self, election: Election) -> None:
        await trio.lowlevel.checkpoint()
        self.seen.append("electing")

    async def applied(self, change: Applied) -> None:
        await trio.lowlevel.checkpoint()
        self.seen.append(f"applied {change.state}")


# ---------------------------------------------------------------------- when and in which order


def test_every_hook_is_called_at_its_place(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []
    app.add_filter(Recorder(seen))

    @app.task(retry=Retry(max=1, delays=[60]))
    def flaky() -> int:
        seen.append("running")
        if current_job.attempt == 1:
            raise ValueError
        return 7

    flaky.enqueue()
    assert seen == ["enqueuing flaky", "enqueued flaky ok"]
    seen.clear()
    quorker.run(minutes=1)
    assert seen == [
        "performing 1",
        "running",
        "performed ValueError",
        "electing Fail",
        "applied Scheduled",
        "performing 2",
        "running",
        "performed 7",
        "electing Succeed",
        "applied Succeeded",
    ]


def test_what_comes_before_runs_in_order_and_what_comes_after_the_other_way(
    app: App, quorker: AppUnderTest
) -> None:
    seen: list[str] = []

    @app.task(filters=[Recorder(seen, "task "), Recorder(seen, "early ", order=-1)])
    def noop() -> None: ...

    app.add_filter(Recorder(seen, "app "))
    app.add_filter(Recorder(seen, "late ", order=99))
    noop.enqueue()
    quorker.drain()
    for hook, is_after in (
        ("enqueuing", False),
        ("enqueued", True),
        ("performing", False),
        ("performed", True),
        ("electing", False),
        ("applied", True),
    ):
        names = [line.split()[0] for line in seen if line.split()[1] == hook]
        expected = ["early", "app", "task", "late"]
        assert names == (expected[::-1] if is_after else expected), hook


def test_filters_of_a_task_are_for_its_jobs_alone(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []

    @app.task(filters=[Recorder(seen)])
    def watched() -> None: ...

    @app.task
    def other() -> None: ...

    other.enqueue()
    quorker.drain()
    assert seen == []
    watched.using(queue="default").enqueue()
    quorker.drain()
    assert len(seen) == 6


async def check_async_hooks(seen: list[str]) -> None:
    app = App("async-hooks")
    app.add_filter(AsyncRecorder(seen))

    @app.task
    async def noop() -> None: ...

    with app.testing() as quorker:
        job = await noop.aenqueue()
        await job.athen(noop.call())
        await app.aenqueue_many([noop.call()])
        await quorker.adrain()


ASYNC_TRACE = ["enqueuing", "enqueued True"] * 3 + [
    "performing",
    "performed",
    "electing",
    "applied Succeeded",
] * 3


@pytest.mark.trio
async def test_hooks_may_be_async_on_trio() -> None:
    seen: list[str] = []
    await check_async_hooks(seen)
    assert seen == ASYNC_TRACE


def test_async_client_hooks_run_on_asyncio_too() -> None:
    seen: list[str] = []

    class OnAsyncio(Filter):
        async def enqueuing(self, call: Enqueuing) -> None:
            await asyncio.sleep(0)
            seen.append(call.task)

    app = App("asyncio-hooks")
    app.add_filter(OnAsyncio())

    @app.task
    async def noop() -> None: ...

    async def enqueue() -> None:
        with app.testing():
            await noop.aenqueue()

    asyncio.run(enqueue())
    assert seen == ["noop"]


def test_an_async_client_hook_in_plain_code_says_what_to_do(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []

    @app.task(filters=[AsyncRecorder(seen)])
    def noop() -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"AsyncRecorder\.enqueuing is async .*`await \.\.\.aenqueue"
    ):
        noop.enqueue()
    assert (seen, quorker.jobs()) == ([], [])


# ---------------------------------------------------------------------- around enqueueing


class Tenant(Filter):
    def enqueuing(self, call: Enqueuing) -> None:
        call.change(headers={"tenant": tenant.get()}, queue=f"of-{tenant.get()}", priority=7)


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def test_options_can_be_changed_before_a_job_is_enqueued(app: App) -> None:
    app.add_filter(Tenant())

    @app.task(retry=Retry(max=3, not_on=[KeyError]), queue="mail")
    def send(to: str) -> str:
        return current_job.headers["tenant"]

    with app.testing(queues=["of-acme"]) as quorker:
        acme = tenant.set("acme")
        jobs = [
            send.enqueue("x"),
            send.using(headers={"trace": "1"}).enqueue("y"),
            *app.enqueue_many([send.call("z")]),
        ]
        jobs.append(jobs[0].then(send.call("w")))
        quorker.drain()
        rows = quorker.jobs()
        assert [job.result() for job in jobs] == ["acme"] * 4
        tenant.reset(acme)
    assert {(row.queue, row.priority, row.headers["tenant"]) for row in rows} == {("of-acme", 7, "acme")}
    assert rows[1].headers["trace"] == "1"


def test_retry_rules_survive_a_change_of_headers(app: App, quorker: AppUnderTest) -> None:
    app.add_filter(Tenant())

    @app.task(retry=Retry(max=3, not_on=[KeyError]))
    def fail() -> None:
        raise KeyError

    class Slower(Filter):
        order = 1

        def enqueuing(self, call: Enqueuing) -> None:
            call.change(retry=Retry(max=5, delays=[9]), queue="default")

    job = fail.enqueue()
    assert job.state() == "Enqueued"
    with app.testing(queues=["of-nobody", "default"]) as other:
        assert fail.enqueue().state() == "Enqueued"
        other.drain()
        assert other.jobs()[0].state == "Failed"
        app.add_filter(Slower())
        again = fail.enqueue()
        other.drain()
        assert again.state() == "Scheduled"


def test_bad_changes_are_refused(app: App, quorker: AppUnderTest) -> None:
    class Bad(Filter):
        def enqueuing(self, call: Enqueuing) -> None:
            call.change(priority=1000)

    @app.task(filters=[Bad()])
    def noop() -> None: ...

    with pytest.raises(InvalidInput, match="priority=1000"):
        noop.enqueue()


def test_every_option_of_a_call_can_be_changed_or_is_refused_with_its_name(
    app: App, quorker: AppUnderTest
) -> None:
    @app.task
    def noop() -> None: ...

    values: dict[str, Any] = {"at": datetime(2027, 1, 1, tzinfo=UTC), "retry": NO_RETRY, "on": "any"}
    values |= {"queue": "q", "unique": "u", "tags": ["t"], "headers": {"a": "b"}, "after": "0000000000000"}
    for name in inspect.signature(noop.using).parameters:
        call, refused = Enqueuing(NewJob("noop")), ""
        try:
            call.change(**{name: values.get(name, 5)})
        except InvalidInput as error:
            refused = str(error)
        assert name in refused or call.job != NewJob("noop"), name
        assert len(call.job) == len(NewJob._fields)


def test_an_error_before_refuses_the_whole_command(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []

    class Guard(Filter):
        def enqueuing(self, call: Enqueuing) -> None:
            args, kwargs = call.arguments()
            if args == ["bad"]:
                raise PermissionError(f"not {args[0]} with {kwargs}")

    @app.task(filters=[Recorder(seen), Guard()])
    def noop(what: str) -> None: ...

    calls: list[Call[None]] = [noop.call("good"), noop.call("bad")]
    with pytest.raises(PermissionError, match=r"not bad with {}"):
        app.enqueue_many(calls)
    assert quorker.jobs() == []
    assert seen == ["enqueuing noop"] * 2 + ["enqueued noop PermissionError"] * 2


def test_what_the_store_refuses_is_told_to_the_filter(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []

    @app.task(filters=[Recorder(seen)])
    def noop() -> None: ...

    with pytest.raises(JobNotFound):
        noop.using(after="0000000000000").enqueue()
    assert seen == ["enqueuing noop", "enqueued noop JobNotFound"]


# ---------------------------------------------------------------------- around attempts


def test_a_filter_may_cancel_a_job(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []
    ran: list[int] = []

    class Stale(Filter):
        def performing(self, attempt: Performing) -> None:
            if attempt.arguments()[0] == [1]:
                attempt.cancel("nobody wants it any more")

    @app.task(filters=[Recorder(seen, "outer "), Stale(), Recorder(seen, "inner ")])
    def work(number: int) -> None:
        ran.append(number)

    unwanted, wanted = work.enqueue(1), work.enqueue(2)
    follower = unwanted.then(work.call(3), on="deleted")
    seen.clear()
    quorker.drain()
    assert ran == [2, 3]
    assert (wanted.state(), follower.state()) == ("Succeeded", "Succeeded")
    with pytest.raises(JobCancelled, match="nobody wants it any more"):
        unwanted.result()
    assert seen[:3] == ["outer performing 1", "outer performed None", "outer electing Delete"]
    quorker.advance(days=2)
    assert quorker.jobs(state="deleted") == []


def test_context_variables_reach_the_task(app: App, quorker: AppUnderTest) -> None:
    class Restore(Filter):
        def performing(self, attempt: Performing) -> None:
            tenant.set(attempt.job.headers["tenant"])
            assert current_job.id == attempt.job.id

    app.add_filter(Restore())

    @app.task
    async def on_trio() -> str:
        return tenant.get()

    @app.task(runs_in="thread")
    def in_a_thread() -> str:
        return tenant.get()

    assert on_trio.using(headers={"tenant": "a"}).enqueue().result() == "a"
    assert in_a_thread.using(headers={"tenant": "b"}).enqueue().result() == "b"


def test_an_error_before_an_attempt_is_its_failure(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []

    class Broken(Filter):
        def performing(self, attempt: Performing) -> None:
            raise ConnectionError("no database")

    @app.task(retry=Retry(max=1, delays=[60]), filters=[Recorder(seen, "outer "), Broken(), Recorder(seen)])
    def never() -> None:
        raise AssertionError("it ran")

    job = never.enqueue()
    seen.clear()
    quorker.drain()
    (row,) = quorker.jobs(state="scheduled")
    assert (row.error_type, row.message) == ("ConnectionError", "no database")
    assert seen[:3] == ["outer performing 1", "outer performed ConnectionError", "outer electing Fail"]
    quorker.run(minutes=1)
    with pytest.raises(JobFailed, match="no database"):
        job.result()


def test_errors_after_change_nothing_and_are_logged(
    app: App, quorker: AppUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    class Careless(Filter):
        def enqueued(self, call: Enqueued) -> None:
            raise ValueError("one")

        def performed(self, attempt: Performed) -> None:
            raise ValueError("two")

        def electing(self, election: Election) -> None:
            election.fail(retry=False)
            raise ValueError("three")

        async def applied(self, change: Applied) -> None:
            raise ValueError("four")

    @app.task(filters=[Careless()])
    def work() -> int:
        return 1

    with caplog.at_level(logging.ERROR, "quorker.filters"):
        assert work.enqueue().result() == 1
    logged = [record.getMessage().split(" raised")[0].rsplit(".", 1)[1] for record in caplog.records]
    assert logged == ["enqueued", "performed", "electing", "applied"]
    assert "Careless.electing raised; it is ignored" in caplog.text


# ---------------------------------------------------------------------- on a worker of its own


@pytest.mark.trio
async def test_filters_run_around_worker_processes(app: App, serve: Serve, plain: Any) -> None:
    seen: list[str] = []
    register: Any = app.task
    add = register(filters=[Recorder(seen)])(plain.add)
    async with serve(app):
        assert await (await add.aenqueue(1, 2)).aresult() == 3
        await trio.testing.wait_all_tasks_blocked()
    assert seen[2:] == ["performing 1", "performed 3", "electing Succeed", "applied Succeeded"]


@pytest.mark.trio
async def test_a_stopped_job_is_given_back_without_an_election(
    app: App, serve: Serve, autojump_clock: trio.abc.Clock
) -> None:
    stopped: list[str] = []
    outcomes: list[object] = []
    started = trio.Event()

    class Watch(Filter):
        def performed(self, attempt: Performed) -> None:
            stopped.append(attempt.stopped)

        def electing(self, election: Election) -> None:
            raise AssertionError("there is nothing to decide")

        def applied(self, change: Applied) -> None:
            outcomes.append(change.outcome)

    @app.task(filters=[Watch()])
    async def outlast() -> None:
        started.set()
        await trio.sleep_forever()

    async with serve(app, grace=1.0):
        job = await outlast.aenqueue()
        await started.wait()
    assert (stopped, outcomes) == (["the worker shuts down"], [GiveBack()])
    async with serve(app, workers=0):
        assert await job.astate() == "Enqueued"


@pytest.mark.trio
async def test_a_worker_that_is_torn_down_ends_what_filters_have_begun(app: App, serve: Serve) -> None:
    seen: list[str] = []
    started = trio.Event()

    class Open(Filter):
        async def performing(self, attempt: Performing) -> None:
            seen.append("open")

        async def performed(self, attempt: Performed) -> None:
            await trio.lowlevel.checkpoint()
            seen.append("closed")

    @app.task(filters=[Open()])
    async def outlast() -> None:
        started.set()
        await trio.sleep_forever()

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with serve(app):
            await outlast.aenqueue()
            await started.wait()
            raise ValueError
    assert seen == ["open", "closed"]


@pytest.mark.trio
async def test_a_timeout_covers_the_hooks_before(
    app: App, serve: Serve, memory: MemoryStore, autojump_clock: trio.abc.Clock
) -> None:
    class Slow(Filter):
        async def performing(self, attempt: Performing) -> None:
            await trio.sleep(100)

    @app.task(timeout=2, retry=NO_RETRY, filters=[Slow()])
    async def never() -> None: ...

    async with serve(app):
        with pytest.raises(JobFailed, match="JobTimeout"):
            await (await never.aenqueue()).aresult()


# ---------------------------------------------------------------------- mistakes


def test_what_is_no_filter_is_refused(app: App) -> None:
    with pytest.raises(ConfigurationError, match=r"add_filter got .*: make an instance"):
        app.add_filter(Recorder)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
    with pytest.raises(ConfigurationError, match="filters got"):

        @app.task(filters=[print])  # type: ignore[list-item]  # pyright: ignore  # wrong on purpose
        def noop() -> None: ...


def test_an_app_without_filters_costs_nothing(app: App, quorker: AppUnderTest) -> None:
    chain = app.filters_for("noop")
    assert (chain.is_for_clients, chain.around_attempts, chain.applied) == (False, [], ())
    assert len(chain.electing) == 1
