"""`app.testing()`: jobs run when told, on a clock that moves when told, and end as they would on a worker."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
import trio.lowlevel

from quorker.app import (
    NO_RETRY,
    App,
    BadPayload,
    BlockingCall,
    JobCancelled,
    JobFailed,
    JobPending,
    LockLost,
    LockTimeout,
    NotConnected,
    Retry,
    current_job,
)
from quorker.app.testing import AppUnderTest, TestingStopped
from quorker.core.errors import ConfigurationError, InvalidInput

# ---------------------------------------------------------------------- plain code


def test_nothing_runs_before_it_is_told_to(app: App, quorker: AppUnderTest) -> None:
    ran: list[int] = []

    @app.task
    def note(number: int) -> int:
        ran.append(number)
        return number * 2

    jobs = [note.enqueue(number) for number in range(3)]
    assert (ran, jobs[0].state()) == ([], "Enqueued")
    assert quorker.drain() == 3
    assert ran == [0, 1, 2]
    assert [job.result() for job in jobs] == [0, 2, 4]
    assert quorker.drain() == 0


def test_async_tasks_and_plain_ones_run_on_this_thread(app: App, quorker: AppUnderTest) -> None:
    threads: list[threading.Thread] = []

    @app.task
    async def on_trio() -> str:
        await trio.lowlevel.checkpoint()
        threads.append(threading.current_thread())
        return current_job.id

    @app.task
    def in_a_process() -> str:
        threads.append(threading.current_thread())
        return current_job.id

    @app.task(runs_in="thread")
    def in_a_thread() -> str:
        threads.append(threading.current_thread())
        return current_job.id

    jobs = [on_trio.enqueue(), in_a_process.enqueue(), in_a_thread.enqueue()]
    quorker.drain()
    assert [job.result() for job in jobs] == [job.id for job in jobs]
    assert set(threads) == {threading.current_thread()}
    assert current_job.get() is None


def test_a_delayed_job_waits_for_the_clock(app: App, quorker: AppUnderTest) -> None:
    @app.task
    def welcome(user_id: int) -> str:
        return f"hello {user_id}"

    job = welcome.using(delay=3600).enqueue(42)
    quorker.advance(minutes=59, seconds=59)
    assert (quorker.drain(), job.state()) == (0, "Scheduled")
    quorker.advance(seconds=1)
    assert job.state() == "Enqueued"
    quorker.drain()
    (row,) = quorker.jobs(state="succeeded", task="welcome")
    assert (row.args, row.result, row.history) == (
        (42,),
        "hello 42",
        ("Scheduled", "Enqueued", "Processing", "Succeeded"),
    )
    assert quorker.jobs(state="failed") == []


def test_the_clock_begins_where_it_is_told_to(app: App) -> None:
    @app.task
    def noop() -> None: ...

    with app.testing(start=datetime(2027, 3, 1, tzinfo=UTC)) as quorker:
        job = noop.using(at=datetime(2027, 3, 2, tzinfo=UTC)).enqueue()
        quorker.advance(days=1)
        assert quorker.now == datetime(2027, 3, 2, tzinfo=UTC)
        assert job.state() == "Enqueued"
        assert quorker.jobs()[0].created == datetime(2027, 3, 1, tzinfo=UTC)
    with app.testing() as one:
        first = one.now
    with app.testing() as other:
        assert other.now == first
        assert other.jobs() == []


def test_a_failure_is_retried_as_in_production(app: App, quorker: AppUnderTest) -> None:
    attempts: list[int] = []

    @app.task(retry=Retry(max=2, delays=[60, 3600]))
    def flaky() -> None:
        attempts.append(current_job.attempt)
        raise ConnectionError(f"attempt {current_job.attempt}")

    job = flaky.enqueue()
    quorker.drain()
    (row,) = quorker.jobs(state="scheduled")
    assert (row.failures, row.error_type, row.message) == (1, "ConnectionError", "attempt 1")
    assert row.due is not None
    assert (row.due - quorker.now).total_seconds() == 60
    quorker.advance(minutes=1)
    quorker.drain()
    assert quorker.run(hours=1) == 1
    with pytest.raises(JobFailed, match="ConnectionError: attempt 3") as caught:
        job.result()
    assert attempts == [1, 2, 3]
    assert 'raise ConnectionError(f"attempt' in caught.value.trace
    assert quorker.jobs(state="Failed")[0].history.count("Failed") == 3


def test_retry_rules_decide_here_too(app: App, quorker: AppUnderTest) -> None:
    @app.task(retry=Retry(on=[OSError]))
    def break_down() -> None:
        raise ValueError

    job = break_down.enqueue()
    quorker.drain()
    assert job.state() == "Failed"


def test_a_result_that_cannot_be_encoded_is_a_failure(app: App, quorker: AppUnderTest) -> None:
    @app.task(retry=NO_RETRY)
    def give_a_set() -> set[int]:
        return {1}

    job = give_a_set.enqueue()
    with pytest.raises(JobFailed, match="BadPayload: result: set is not encodable"):
        job.result()
    with pytest.raises(BadPayload):
        give_a_set.enqueue(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # wrong on purpose


def test_waiting_for_a_result_lets_the_workers_work(app: App, quorker: AppUnderTest) -> None:
    @app.task
    def noop() -> int:
        return 1

    assert noop.enqueue().result() == 1
    late = noop.using(delay=60).enqueue()
    with pytest.raises(JobPending, match="nothing more runs unless time passes"):
        late.result()
    gone = noop.using(delay=60).enqueue()
    assert gone.cancel()
    with pytest.raises(JobCancelled):
        gone.result()


def test_continuations_and_unique_keys(app: App, quorker: AppUnderTest) -> None:
    order: list[str] = []

    @app.task(retry=NO_RETRY)
    def note(what: str) -> None:
        order.append(what)
        if what == "bad":
            raise ValueError

    first = note.enqueue("first")
    first.then(note.call("second"))
    bad = note.enqueue("bad")
    bad.then(note.call("never"))
    bad.then(note.call("sorry"), on="failure")
    once = note.using(unique="k", delay=60)
    assert once.enqueue("x") == once.enqueue("y")
    quorker.drain()
    assert sorted(order) == ["bad", "first", "second", "sorry"]
    assert order.index("first") < order.index("second")
    assert [row.args for row in quorker.jobs(state="awaiting")] == [("never",)]
    assert len(quorker.jobs(state=["scheduled"])) == 1


def test_tasks_enqueue_further_jobs(app: App, quorker: AppUnderTest) -> None:
    @app.task
    async def leaf(x: int) -> int:
        return x

    @app.task
    def from_plain() -> str:
        return leaf.enqueue(1).id

    @app.task
    async def from_trio() -> int:
        with pytest.raises(BlockingCall, match=r"await leaf\.aenqueue"):
            leaf.enqueue(3)
        return await (await leaf.aenqueue(2)).aresult()

    plain, on_trio = from_plain.enqueue(), from_trio.enqueue()
    assert quorker.drain() == 4
    assert app.job(plain.result()).result() == 1
    assert on_trio.result() == 2


def test_a_plain_task_may_run_a_loop_of_its_own(app: App, quorker: AppUnderTest) -> None:
    @app.task
    async def leaf() -> int:
        return 5

    @app.task
    def with_asyncio() -> str:
        async def inner() -> str:
            await asyncio.sleep(0)
            return (await leaf.aenqueue()).id

        return asyncio.run(inner())

    job = with_asyncio.enqueue()
    quorker.drain()
    assert app.job(job.result()).result() == 5


def test_a_plain_task_cannot_wait_for_another_job(app: App, quorker: AppUnderTest) -> None:
    @app.task
    def leaf() -> None: ...

    @app.task(retry=NO_RETRY)
    def wait() -> None:
        leaf.enqueue().result()

    job = wait.enqueue()
    with pytest.raises(JobFailed, match=r"JobPending: .* it cannot wait for another job"):
        job.result()


def test_a_task_cannot_drain(app: App, quorker: AppUnderTest) -> None:
    @app.task(retry=NO_RETRY)
    def drain() -> None:
        quorker.drain()

    with pytest.raises(JobFailed, match="ConfigurationError: jobs are being run already"):
        drain.enqueue().result()


def test_only_the_queues_of_the_app_are_worked_on(app: App, quorker: AppUnderTest) -> None:
    @app.task
    def noop() -> None: ...

    job = noop.using(queue="nobodys").enqueue()
    assert (quorker.drain(), job.state()) == (0, "Enqueued")
    with app.testing(queues=["nobodys"]) as other:
        noop.using(queue="nobodys").enqueue()
        noop.enqueue()
        assert other.drain() == 1
        assert [row.queue for row in other.jobs(state="enqueued")] == ["default"]
        assert len(other.jobs(queue="nobodys")) == 1


def test_queues_and_priorities_order_what_runs(app: App, quorker: AppUnderTest) -> None:
    order: list[str] = []

    @app.task(queue="urgent")
    def urgent(what: str) -> None:
        order.append(what)

    @app.task
    def usual(what: str) -> None:
        order.append(what)

    for name, priority in (("c", 0), ("d", -5), ("b", 5)):
        usual.using(priority=priority, tags=["x"]).enqueue(name)
    urgent.using(headers={"tenant": "t"}).enqueue("a")
    quorker.drain()
    assert order == ["a", "b", "c", "d"]
    assert [row.args for row in quorker.jobs(tag="x")] == [("c",), ("d",), ("b",)]
    assert quorker.jobs(task="urgent")[0].headers == {"tenant": "t"}


# ---------------------------------------------------------------------- time


def test_a_sleeping_task_moves_the_clock(app: App, quorker: AppUnderTest) -> None:
    seen: list[str] = []

    @app.task
    async def sleep() -> None:
        await trio.sleep(7200)
        seen.append("woke")

    @app.task
    def between() -> None:
        seen.append("between")

    began, start = time.monotonic(), quorker.now
    sleep.enqueue()
    between.using(delay=3600).enqueue()
    assert quorker.drain() == 2
    assert seen == ["between", "woke"]
    assert (quorker.now - start).total_seconds() == 7200
    assert time.monotonic() - began < 60


def test_an_async_task_is_stopped_at_its_timeout(app: App, quorker: AppUnderTest) -> None:
    @app.task(timeout=30, retry=NO_RETRY)
    async def outlast() -> None:
        await trio.sleep(3600)

    start = quorker.now
    with pytest.raises(JobFailed, match=r"JobTimeout: outlast was stopped after 30\.0 s"):
        outlast.enqueue().result()
    assert (quorker.now - start).total_seconds() == 30


def test_a_year_of_daily_jobs(app: App, quorker: AppUnderTest) -> None:
    days: list[datetime] = []

    @app.task
    def daily() -> None:
        days.append(quorker.now)
        daily.using(delay=86_400).enqueue()

    daily.enqueue()
    assert quorker.run(days=365) == 366
    assert [(day - days[0]).days for day in days] == list(range(366))


def test_a_year_of_a_recurring_job(app: App, quorker: AppUnderTest) -> None:
    days: list[datetime] = []

    @app.recurring("0 3 * * *", tz="Europe/Berlin")
    def nightly() -> None:
        assert current_job.slot == quorker.now
        days.append(quorker.now)

    assert quorker.run(days=365) == 365
    assert {day.astimezone(ZoneInfo("Europe/Berlin")).hour for day in days} == {3}
    assert {day.hour for day in days} == {1, 2}


def test_what_the_code_declared_before_recurs_and_what_the_test_removes_does_not(app: App) -> None:
    @app.recurring("@hourly", id="one")
    @app.recurring("@hourly", id="two")
    @app.task
    def note() -> str | None:
        return current_job.recurring_id

    with app.testing() as quorker:
        assert [each.id for each in app.schedules.list()] == ["one", "two"]
        assert app.schedules.remove("one") is True
        assert app.schedules.pause("two", author="ann") is True
        assert quorker.run(hours=2) == 0
        assert app.schedules.trigger("two").result() == "two"
        assert app.schedules.resume("two") is True
        assert quorker.run(hours=2) == 2


def test_an_endless_loop_is_stopped_and_named(app: App, quorker: AppUnderTest) -> None:
    @app.task
    def again() -> None:
        again.enqueue()

    @app.task
    async def again_async() -> None:
        await again_async.aenqueue()

    again.enqueue()
    with pytest.raises(TestingStopped, match=r"^50 attempts were made, .*again 50 times.* Give it a delay"):
        quorker.drain(limit=50)
    with pytest.raises(TestingStopped, match=r"^200 attempts were made"):
        quorker.run(days=1, limit=200)
    assert {row.state for row in quorker.jobs(task="again")} == {"Succeeded", "Enqueued"}
    again.enqueue()
    again_async.enqueue()
    with pytest.raises(TestingStopped, match="again_async"):
        quorker.drain(limit=50)


def test_a_job_that_waits_for_ever_is_named(app: App, quorker: AppUnderTest) -> None:
    @app.task
    async def wait() -> None:
        await trio.sleep_forever()

    @app.task
    async def poll() -> None:
        for _ in range(1_000_000):
            await trio.sleep(1)

    job = wait.enqueue()
    with pytest.raises(TestingStopped, match=rf"wait \({job.id}\): waits for what never comes"):
        quorker.drain()
    assert job.state() == "Enqueued"
    job.cancel()
    poll.enqueue()
    with pytest.raises(TestingStopped, match=r"poll .* sleeps again and again"):
        quorker.drain()


def test_an_interrupt_is_not_the_failure_of_a_job(app: App, quorker: AppUnderTest) -> None:
    @app.task
    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupt.enqueue()
    with pytest.raises(KeyboardInterrupt):
        quorker.drain()


# ---------------------------------------------------------------------- locks


def test_locks_exclude_and_end(app: App, quorker: AppUnderTest) -> None:
    with app.lock("a") as held:
        with pytest.raises(LockTimeout, match="nothing else runs that could free it"), app.lock("a"):
            pass
        assert not held.is_lost
    with app.lock("a") as again:
        assert again.fence > held.fence
    lock = app.lock("b", ttl=60)
    short = lock.__enter__()
    quorker.advance(minutes=2)
    assert short.is_lost
    with pytest.raises(LockLost, match="its time to live is over"):
        short.check()
    with pytest.raises(LockLost, match="nobody holds b"):
        lock.__exit__(None, None, None)


def test_jobs_stand_in_line_for_a_lock(app: App, quorker: AppUnderTest) -> None:
    order: list[str] = []

    @app.task(retry=NO_RETRY)
    async def work(name: str, timeout: float | None = None) -> None:
        async with app.lock("a", timeout=timeout):
            order.append(f"{name} in")
            await trio.sleep(60)
            order.append(f"{name} out")

    work.enqueue("one")
    work.enqueue("two")
    late = work.enqueue("late", 1)
    quorker.drain()
    assert order == ["one in", "one out", "two in", "two out"]
    with pytest.raises(JobFailed, match="LockTimeout: a did not become free within 1 s"):
        late.result()
    with app.lock("a", timeout=0):
        pass


# ---------------------------------------------------------------------- async code


async def check_in_async_code() -> None:
    app = App("async")

    @app.task(retry=Retry(max=1, delays=[60]))
    async def double(x: int) -> int:
        await trio.lowlevel.checkpoint()
        if current_job.attempt == 1 and x < 0:
            raise ValueError
        return 2 * x

    @app.task
    def plain(x: int) -> str:
        return double.enqueue(x).id

    with app.testing() as quorker:
        with pytest.raises(BlockingCall, match=r"await quorker\.adrain"):
            quorker.drain()
        with pytest.raises(BlockingCall, match=r"await quorker\.arun"):
            quorker.run(days=1)
        job = await plain.aenqueue(4)
        assert await quorker.adrain() == 2
        assert await app.job(await job.aresult()).aresult() == 8
        assert await (await double.aenqueue(5)).aresult() == 10
        late = await double.aenqueue(-1)
        with pytest.raises(JobPending):
            await late.aresult()
        assert await quorker.arun(minutes=1) == 1
        assert await late.aresult() == -2
        async with app.lock("a"):
            with pytest.raises(LockTimeout):
                await app.lock("a").__aenter__()
    with pytest.raises(NotConnected):
        await double.aenqueue(1)


@pytest.mark.trio
async def test_on_trio() -> None:
    await check_in_async_code()


def test_on_asyncio() -> None:
    asyncio.run(check_in_async_code())


@pytest.mark.trio
async def test_on_trio_jobs_sleep_by_the_clock_of_the_test(
    app: App, quorker: AppUnderTest, autojump_clock: trio.abc.Clock
) -> None:
    @app.task
    async def sleep() -> None:
        await trio.sleep(3600)

    await sleep.aenqueue()
    assert await quorker.adrain() == 1
    assert trio.current_time() == 3600


@pytest.mark.trio
async def test_two_may_wait_for_results_at_once(app: App, quorker: AppUnderTest) -> None:
    release = trio.Event()

    @app.task
    async def wait() -> int:
        await release.wait()
        return 1

    jobs = [await wait.aenqueue() for _ in range(3)]
    got: list[Any] = []

    async def result(number: int) -> None:
        got.append(await jobs[number].aresult())

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(result, number)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert got == [1, 1, 1]


# ---------------------------------------------------------------------- mistakes


def test_what_is_not_open_says_so(app: App) -> None:
    @app.task
    def noop() -> None: ...

    closed = app.testing()
    with pytest.raises(ConfigurationError, match=r"with app\.testing\(\) as quorker"):
        closed.drain()
    with closed, pytest.raises(ConfigurationError, match="open already"):
        closed.__enter__()
    with pytest.raises(NotConnected):
        noop.enqueue()


def test_bad_values_are_named(app: App, quorker: AppUnderTest) -> None:
    with pytest.raises(InvalidInput, match=r"there is no state 'done': write enqueued, "):
        quorker.jobs(state="done")
    with pytest.raises(InvalidInput, match="the time to pass"):
        quorker.advance(hours=-1)
    with pytest.raises(InvalidInput, match="limit is 0"):
        quorker.drain(limit=0)
    with pytest.raises(InvalidInput, match="no time zone"):
        app.testing(start=datetime(2027, 1, 1))  # wrong on purpose
