"""Jobs run: results, failures, retries, timeouts, cancellation, shutdown. On a store in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from quorker.app import (
    NO_RETRY,
    App,
    Attached,
    BlockingCall,
    JobCancelled,
    JobFailed,
    JobHandle,
    JobNotFound,
    JobPending,
    Retry,
    current_job,
)
from quorker.app.front_door import WorkPlan, attach
from quorker.core.jobs.commands import EnqueueJobs, NewJob, OpenSession, ReplaceSessions
from quorker.transport.memory import MemoryStore

pytestmark = pytest.mark.trio
Serve = Callable[..., AbstractAsyncContextManager[Attached]]


async def details(attached: Attached, job: JobHandle[Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await attached.connection.query("job_details", {"job_id": job.id})).value
    return found


async def test_an_async_task_runs_and_its_result_comes_back(app: App, serve: Serve) -> None:
    @app.task
    async def double(x: int, *, plus: int = 0) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * x + plus

    async with serve(app):
        job = await double.aenqueue(4, plus=1)
        assert await job.aresult() == 9
        assert await job.astate() == "Succeeded"
    assert await double(3) == 6


async def test_a_plain_task_runs_in_another_process(app: App, serve: Serve, plain: Any) -> None:
    register: Any = app.task
    whoami = register(queue="heavy")(plain.whoami)
    async with serve(app):
        job = await whoami.aenqueue()
        job_id, fence, attempt, queue, task, pid = await job.aresult()
    assert (job_id, attempt, queue, task) == (job.id, 1, "heavy", "whoami")
    assert fence > 0
    assert pid > 0


async def test_a_thread_task_runs_in_this_process(app: App, serve: Serve) -> None:
    threads: list[threading.Thread] = []

    @app.task(runs_in="thread")
    def here() -> str:
        threads.append(threading.current_thread())
        return current_job.id

    async with serve(app):
        job = await here.aenqueue()
        assert await job.aresult() == job.id
    assert threads != [threading.main_thread()]


async def test_the_context_tells_fence_attempt_and_deadline(app: App, serve: Serve) -> None:
    @app.task(timeout=30, queue="mail")
    async def report() -> list[Any]:
        left = current_job.seconds_left()
        assert left is not None
        assert 0 < left <= 30
        return [current_job.id, current_job.fence, current_job.attempt, current_job.queue, current_job.task]

    async with serve(app) as attached:
        first, second = await report.aenqueue(), await report.aenqueue()
        one, two = await first.aresult(), await second.aresult()
        lived = await details(attached, first)
    assert one[0] == first.id
    assert one[2:] == [1, "mail", "report"]
    assert 0 < one[1] < two[1]
    assert dict(lived["history"][0]["data"])["token"] == one[1]


async def test_two_jobs_at_once_have_their_own_context(app: App, serve: Serve) -> None:
    both = trio.Event()
    seen: list[str] = []

    @app.task
    async def meet() -> str:
        seen.append(current_job.id)
        if len(seen) == 2:
            both.set()
        await both.wait()
        return current_job.id

    async with serve(app):
        first, second = await meet.aenqueue(), await meet.aenqueue()
        assert await first.aresult() == first.id
        assert await second.aresult() == second.id


async def test_no_more_jobs_at_once_than_slots(app: App, serve: Serve) -> None:
    running, most = 0, 0

    @app.task
    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await wait_all_tasks_blocked()
        running -= 1

    async with serve(app, workers=3):
        for job in [await work.aenqueue() for _ in range(10)]:
            await job.aresult()
    assert most == 3


async def test_a_failure_is_retried_and_then_final(app: App, serve: Serve, memory: MemoryStore) -> None:
    attempts: list[int] = []

    @app.task(retry=Retry(max=2, delays=[1, 5]))
    async def flaky() -> None:
        attempts.append(current_job.attempt)
        raise ConnectionError(f"attempt {current_job.attempt}")

    async with serve(app):
        job = await flaky.aenqueue()
        await wait_all_tasks_blocked()
        assert await job.astate() == "Scheduled"
        memory.advance(1000)
        await wait_all_tasks_blocked()
        assert attempts == [1, 2]
        memory.advance(5000)
        with pytest.raises(JobFailed, match=r"ConnectionError: attempt 3") as caught:
            await job.aresult()
    assert attempts == [1, 2, 3]
    assert caught.value.error_type == "ConnectionError"
    assert "raise ConnectionError" in caught.value.trace


async def test_a_retry_can_succeed(app: App, serve: Serve, memory: MemoryStore) -> None:
    @app.task(retry=Retry(max=1, delays=[60]))
    async def second_time_lucky() -> int:
        if current_job.attempt == 1:
            raise OSError("not yet")
        return current_job.attempt

    async with serve(app):
        job = await second_time_lucky.aenqueue()
        await wait_all_tasks_blocked()
        memory.advance(60_000)
        assert await job.aresult() == 2


@pytest.mark.parametrize(
    ("retry", "state"),
    [
        (Retry(on=[OSError]), "Scheduled"),
        (Retry(not_on=[OSError]), "Failed"),
        (Retry(on=[LookupError]), "Failed"),
        (NO_RETRY, "Failed"),
    ],
)
async def test_only_the_wanted_exceptions_are_retried(
    app: App, serve: Serve, retry: Retry, state: str
) -> None:
    @app.task(retry=retry)
    async def break_down() -> None:
        raise ConnectionResetError("gone")

    async with serve(app):
        job = await break_down.aenqueue()
        await wait_all_tasks_blocked()
        assert await job.astate() == state


async def test_a_final_failure_frees_its_slot(app: App, serve: Serve) -> None:
    @app.task(retry=Retry(on=[KeyError]))
    async def break_down() -> None:
        raise ValueError

    async with serve(app, workers=1):
        for _ in range(3):
            with pytest.raises(JobFailed):
                await (await break_down.aenqueue()).aresult()


async def test_retry_rules_reach_worker_processes(app: App, serve: Serve, plain: Any) -> None:
    register: Any = app.task
    fail = register(retry=Retry(on=[LookupError]))(plain.fail)
    async with serve(app):
        with pytest.raises(JobFailed, match="ConnectionResetError: gone"):
            await (await fail.aenqueue("gone")).aresult()


@pytest.mark.parametrize(
    "error", [SystemExit(3), ExceptionGroup("two", [ValueError(), KeyError()]), GeneratorExit()]
)
async def test_whatever_a_task_raises_is_its_failure(app: App, serve: Serve, error: BaseException) -> None:
    @app.task(retry=NO_RETRY)
    async def raise_it() -> None:
        raise error

    @app.task
    async def fine() -> None: ...

    async with serve(app):
        with pytest.raises(JobFailed, match=type(error).__name__):
            await (await raise_it.aenqueue()).aresult()
        await (await fine.aenqueue()).aresult()


async def test_an_async_task_is_stopped_at_its_timeout(
    app: App, serve: Serve, autojump_clock: trio.abc.Clock
) -> None:
    @app.task(timeout=2, retry=NO_RETRY)
    async def sleep_long() -> None:
        await trio.sleep_forever()

    async with serve(app):
        job = await sleep_long.aenqueue()
        with pytest.raises(JobFailed, match=r"JobTimeout: sleep_long was stopped after 2\.0 s, its timeout"):
            await job.aresult()
    assert trio.current_time() < 60


async def test_a_nursery_inside_a_task_does_not_hide_the_timeout(
    app: App, serve: Serve, autojump_clock: trio.abc.Clock
) -> None:
    @app.task(timeout=2, retry=NO_RETRY)
    async def sleep_twice() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    async with serve(app):
        with pytest.raises(JobFailed, match="JobTimeout"):
            await (await sleep_twice.aenqueue()).aresult()


async def test_an_error_on_the_way_out_of_a_timeout_is_a_failure(
    app: App, serve: Serve, autojump_clock: trio.abc.Clock
) -> None:
    @app.task(timeout=2, retry=NO_RETRY)
    async def clean_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the cleanup")

    async with serve(app):
        with pytest.raises(JobFailed, match="ValueError: in the cleanup"):
            await (await clean_up_badly.aenqueue()).aresult()


async def test_a_worker_process_is_killed_at_the_timeout(app: App, serve: Serve, plain: Any) -> None:
    register: Any = app.task
    busy = register(timeout=0.2, retry=NO_RETRY)(plain.busy)
    add = register(plain.add)
    async with serve(app):
        with pytest.raises(JobFailed, match="JobTimeout: busy was stopped"):
            await (await busy.aenqueue(600.0)).aresult()
        assert await (await add.aenqueue(1, 2)).aresult() == 3


async def test_a_thread_is_left_alone_at_the_timeout(app: App, serve: Serve) -> None:
    release = threading.Event()

    @app.task(timeout=0.05, retry=NO_RETRY, runs_in="thread")
    def wait() -> None:
        release.wait(60)

    async with serve(app):
        with pytest.raises(JobFailed, match="a thread cannot be killed"):
            await (await wait.aenqueue()).aresult()
    release.set()


async def test_deleting_a_running_job_stops_it(app: App, serve: Serve) -> None:
    started, stopped = trio.Event(), trio.Event()

    @app.task
    async def run_on() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()

    async with serve(app):
        job = await run_on.aenqueue()
        await started.wait()
        assert await job.acancel()
        await stopped.wait()
        with pytest.raises(JobCancelled, match=f"job {job.id} was deleted"):
            await job.aresult()
        assert not await job.acancel()


async def test_deleting_a_job_kills_its_worker_process(app: App, serve: Serve, plain: Any) -> None:
    register: Any = app.task
    busy = register(plain.busy)
    add = register(plain.add)
    async with serve(app, workers=1):
        job = await busy.aenqueue(600.0)
        await wait_all_tasks_blocked()
        await job.acancel()
        assert await (await add.aenqueue(1, 2)).aresult() == 3


async def test_a_lost_lease_stops_the_job_and_the_next_holder_has_a_higher_fence(
    app: App, memory: MemoryStore
) -> None:
    runs: list[tuple[int, str]] = []
    first_runs, first_stopped = trio.Event(), trio.Event()

    @app.task
    async def work() -> int:
        fence = current_job.fence
        if not runs:
            first_runs.set()
            try:
                await trio.sleep_forever()
            finally:
                runs.append((fence, "stopped"))
                first_stopped.set()
        runs.append((fence, "finished"))
        return fence

    plan = WorkPlan(1, None, 1.0)
    async with attach(app, memory.connect("one"), plan):
        job = await work.aenqueue()
        await first_runs.wait()
        async with attach(app, memory.connect("two"), plan):
            # A new process opens a session under the name of the first one, which ends that one.
            opened = memory.apply(0, 0, 10**9, OpenSession("one", 1000))
            memory.apply(int(opened[1]), 0, 1, ReplaceSessions())
            await first_stopped.wait()
            assert await job.aresult() == runs[1][0]
    assert [what for _, what in runs] == ["stopped", "finished"]
    assert runs[0][0] < runs[1][0]


async def test_an_unknown_task_fails_with_what_is_known(app: App, serve: Serve) -> None:
    @app.task
    async def send_welcome() -> None: ...

    async with serve(app) as attached:
        new = NewJob("send_welcom", b"\x92\x90\x80", retry=NO_RETRY.policy())
        (job_id,) = await attached.connection.submit(EnqueueJobs((new,)))
        with pytest.raises(JobFailed, match=r"no task 'send_welcom' .*close to it: send_welcome"):
            await app.job(job_id).aresult()


@pytest.mark.parametrize("args", [b"", b"\xc1", b"\x92\x91\x01\x80"])
async def test_bad_arguments_fail_the_job_only(app: App, serve: Serve, args: bytes) -> None:
    @app.task(retry=NO_RETRY)
    async def takes_nothing() -> None: ...

    async with serve(app) as attached:
        new = NewJob("takes_nothing", args, retry=NO_RETRY.policy())
        (job_id,) = await attached.connection.submit(EnqueueJobs((new,)))
        with pytest.raises(JobFailed):
            await app.job(job_id).aresult()
        await (await takes_nothing.aenqueue()).aresult()


async def test_a_result_that_cannot_be_stored_fails_the_job(app: App, serve: Serve) -> None:
    @app.task(retry=NO_RETRY)
    async def give_a_set() -> set[int]:
        return {1}

    async with serve(app):
        with pytest.raises(JobFailed, match="result: set is not encodable"):
            await (await give_a_set.aenqueue()).aresult()


async def test_results_that_are_not_there(app: App, serve: Serve, autojump_clock: trio.abc.Clock) -> None:
    @app.task
    async def later() -> None: ...

    async with serve(app):
        job = await later.using(delay=60).aenqueue()
        with pytest.raises(JobPending, match=r"has not ended within 3 s") as caught:
            await job.aresult(timeout=3)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(JobNotFound, match="no job 0000000000000 in this cluster"):
            await app.job("0000000000000").aresult()
        with pytest.raises(JobNotFound):
            await app.job("0000000000000").astate()
        with pytest.raises(JobNotFound):
            await app.job("0000000000000").acancel()


async def test_options_reach_the_store(app: App, serve: Serve, memory: MemoryStore) -> None:
    @app.task(queue="mail", priority=3, timeout=9, retry=Retry(max=7, base=2, cap=60))
    async def send(to: str) -> str:
        return to

    async with serve(app, workers=0) as attached:
        job = await send.using(delay=5, tags=["a", "b"], unique="k").aenqueue("x")
        assert await send.using(unique="k").aenqueue("y") == job
        found = await details(attached, job)
        later = await send.using(after=job, on="any").aenqueue("z")
        assert await later.astate() == "Awaiting"
    assert found["queue"] == "mail"
    assert found["priority"] == 3
    assert found["timeout_ms"] == 9000
    assert found["due_wt"] == memory.wt + 5000
    assert found["tags"] == ["a", "b"]
    assert found["retry"] == {
        "attempts": 7,
        "delays_ms": [],
        "base_ms": 2000,
        "cap_ms": 60_000,
        "on_exceed": "fail",
    }


async def test_a_continuation_runs_after_its_parent(app: App, serve: Serve) -> None:
    order: list[str] = []

    @app.task
    async def note(what: str) -> None:
        order.append(what)

    async with serve(app):
        first = await note.using(delay=0.0).aenqueue("first")
        await (await note.using(after=first).aenqueue("second")).aresult()
    assert order == ["first", "second"]


async def test_shutdown_lets_running_jobs_end(app: App, serve: Serve, autojump_clock: trio.abc.Clock) -> None:
    started = trio.Event()

    @app.task
    async def take_ten_seconds() -> str:
        started.set()
        await trio.sleep(10)
        return "done"

    async with serve(app, workers=1):
        job = await take_ten_seconds.aenqueue()
        waiting = await take_ten_seconds.aenqueue()
        await started.wait()
    async with serve(app, workers=0):
        assert await job.aresult() == "done"
        assert await waiting.astate() == "Enqueued"


async def test_shutdown_gives_back_what_does_not_end(
    app: App, serve: Serve, autojump_clock: trio.abc.Clock
) -> None:
    started, attempts = trio.Event(), list[int]()

    @app.task
    async def outlast() -> str:
        attempts.append(current_job.attempt)
        started.set()
        if len(attempts) == 1:
            await trio.sleep(100)
        return "done"

    async with serve(app, grace=3.0) as attached:
        job = await outlast.aenqueue()
        await started.wait()
    assert trio.current_time() < 10
    async with serve(app, workers=0) as attached:
        found = await details(attached, job)
        assert (found["state"], found["failures"]) == ("Enqueued", 0)
    async with serve(app):
        assert await job.aresult() == "done"
    assert attempts == [1, 1]


async def test_a_failing_body_gives_jobs_back_at_once(
    app: App, serve: Serve, autojump_clock: trio.abc.Clock
) -> None:
    started, jobs = trio.Event(), list[JobHandle[None]]()

    @app.task
    async def outlast() -> None:
        started.set()
        await trio.sleep(1000)

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with serve(app):
            jobs.append(await outlast.aenqueue())
            await started.wait()
            raise ValueError
    assert trio.current_time() < 5
    async with serve(app, workers=0):
        assert await jobs[0].astate() == "Enqueued"


async def test_tasks_may_enqueue_from_wherever_they_run(app: App, serve: Serve, plain: Any) -> None:
    @app.task
    async def leaf(x: int) -> int:
        return x

    @app.task
    async def from_trio() -> int:
        return await (await leaf.aenqueue(1)).aresult()

    @app.task(runs_in="thread")
    def from_thread() -> int:
        return leaf.enqueue(2).result()

    async with serve(app):
        assert await (await from_trio.aenqueue()).aresult() == 1
        assert await (await from_thread.aenqueue()).aresult() == 2
    async with serve(plain.app):
        assert await (await plain.from_process.aenqueue(3)).aresult() == 3
        assert await (await plain.lost_in_process.aenqueue()).aresult() == "JobNotFound: 0000000000000"
        refused = await (await plain.refused_in_process.aenqueue()).aresult()
    assert refused == ["not_found", "there is no job 0000000000000"]


async def test_a_blocking_call_in_async_code_says_what_to_write(app: App, serve: Serve) -> None:
    @app.task
    async def noop() -> None: ...

    async with serve(app):
        with pytest.raises(
            BlockingCall, match=r"you are in trio code.*write `await noop\.aenqueue\(\.\.\.\)`"
        ):
            noop.enqueue()
        job = await noop.aenqueue()
        for call, instead in ((job.state, "astate"), (job.result, "aresult"), (job.cancel, "acancel")):
            with pytest.raises(BlockingCall, match=instead):
                call()
