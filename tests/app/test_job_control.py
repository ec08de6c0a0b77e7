"""Jobs as their submitter controls them, on a real member: options, several at once, continuations, what is done to a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from quorker.app import (
    NO_RETRY,
    App,
    AsyncTask,
    BlockingCall,
    Call,
    JobCancelled,
    JobHandle,
    JobNotFound,
    JobPending,
    Retry,
    current_job,
)
from quorker.app.gateway import Query
from quorker.app.loopback_addresses import free_addresses
from quorker.core.errors import InvalidInput
from quorker.core.jobs.bounds import HEADERS_MAX, JOBS_PER_COMMAND_MAX
from quorker.core.session import GROUP_BYTES_MAX

Members = Callable[..., AbstractAsyncContextManager[None]]

NOBODY = "0" * 13
app = App("control")


@app.task
async def double(x: int) -> int:
    return 2 * x


@app.task
async def echo(text: str) -> str:
    return text


@app.task(retry=NO_RETRY)
async def fail() -> None:
    raise ValueError("no way")


@app.task(retry=Retry(on=[OSError]))
async def headers() -> dict[str, str]:
    return dict(current_job.headers)


@app.task
def headers_in_a_process() -> dict[str, str]:
    return dict(current_job.headers)


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[None]:
    """A member without workers."""
    with app.node(tmp_path, profile="fast", workers=0):
        yield


@pytest.fixture
def working(tmp_path: Path) -> Iterator[None]:
    with app.node(tmp_path, profile="fast", workers=2):
        yield


# ------------------------------------------------------------------ several at once


def test_many_are_made_in_one_command_and_in_order(working: None) -> None:
    jobs = app.enqueue_many([double.call(x) for x in range(10)])
    assert [job.result(timeout=30) for job in jobs] == [2 * x for x in range(10)]


def test_all_or_none(idle: None) -> None:
    orphan = double.using(after=NOBODY)
    with pytest.raises(JobNotFound, match=f"no job {NOBODY} to wait for; nothing was enqueued"):
        app.enqueue_many([double.using(unique="first").call(1), orphan.call(2)])
    one, other = app.enqueue_many([double.using(unique="first").call(1), double.call(2)])
    assert one.state() == other.state() == "Enqueued"
    assert app.gateway().request_blocking(Query("statistics", {}))["jobs"] == 2


def test_a_command_has_one_to_a_thousand_calls(idle: None) -> None:
    with pytest.raises(InvalidInput, match="got 0 calls"):
        app.enqueue_many([])
    with pytest.raises(InvalidInput, match=f"got {JOBS_PER_COMMAND_MAX + 1} calls: one command makes 1 to"):
        app.enqueue_many(double.call(x) for x in range(JOBS_PER_COMMAND_MAX + 1))
    assert len(app.enqueue_many(double.call(x) for x in range(JOBS_PER_COMMAND_MAX))) == JOBS_PER_COMMAND_MAX


def test_a_command_may_be_so_large(tmp_path: Path) -> None:
    """What is allowed also gets through the narrower door of a client."""
    text = "x" * 60_000
    fitting = GROUP_BYTES_MAX // (len(text) + 100)
    with app.node(tmp_path, profile="fast", workers=0) as node, app.connect(node.address):
        assert len(app.enqueue_many(echo.call(text) for _ in range(fitting))) == fitting
        with pytest.raises(
            InvalidInput, match=f"bytes: one command has at most {GROUP_BYTES_MAX}; split them"
        ):
            app.enqueue_many(echo.call(text) for _ in range(fitting + 1))


def test_calls_that_wait_for_each_other_stand_in_order(idle: None) -> None:
    first = double.call(1)
    second = first.then(double.call(2))
    with pytest.raises(InvalidInput, match=r"call 0 of enqueue_many \(double\) waits for a call of double"):
        app.enqueue_many([second, first])
    with pytest.raises(InvalidInput, match="call 1 of enqueue_many is call 0 again"):
        app.enqueue_many([first, first])
    with pytest.raises(InvalidInput, match="can wait for one only"):
        first.then(second)
    with pytest.raises(InvalidInput, match="can wait for one only"):
        first.then(double.using(after=NOBODY).call(3))
    with pytest.raises(InvalidInput, match="must be success, failure, any or deleted"):
        first.then(double.call(3), on="never")  # type: ignore[arg-type]  # the mistake that is tested


# ------------------------------------------------------------------ continuations


def test_a_tree_of_calls_in_one_command(working: None) -> None:
    root = fail.call()
    calls: list[Call[Any]] = [
        root,
        root.then(double.call(1)),
        root.then(double.call(2), on="failure"),
        root.then(double.call(3), on="any"),
    ]
    _, on_success, on_failure, on_any = app.enqueue_many(calls)
    assert on_failure.result(timeout=30) == 4
    assert on_any.result(timeout=30) == 6
    assert on_success.state() in ("Awaiting", "Deleted")


def test_a_job_is_followed_by_another(idle: None) -> None:
    first = double.enqueue(1)
    second = first.then(double.call(2))
    third = second.then(double.call(3), on="deleted")
    assert (second.state(), third.state()) == ("Awaiting", "Awaiting")
    assert second.delete()
    assert third.state() == "Enqueued"
    with pytest.raises(JobNotFound, match=f"no job {NOBODY} to wait for"):
        app.job(NOBODY).then(double.call(1))
    with pytest.raises(JobNotFound, match=f"no job {NOBODY} to wait for"):
        double.using(after=NOBODY).enqueue(1)


# ------------------------------------------------------------------ headers and tags


def test_headers_reach_the_task(working: None) -> None:
    given = {"trace": "00-ab", "tenant": "7"}
    assert headers.using(headers=given).enqueue().result(timeout=30) == given
    assert headers_in_a_process.using(headers=given).enqueue().result(timeout=60) == given
    assert headers.enqueue().result(timeout=30) == {}


def test_headers_and_rules_of_retry_live_side_by_side() -> None:
    job = double.using(headers={"a": "1"}).using(retry=Retry(on=[OSError])).new_job(1)
    assert job.headers == (("retry-on", "OSError"), ("a", "1"))
    most = {str(number): "" for number in range(HEADERS_MAX - 2)}
    assert (
        len(double.using(headers=most, retry=Retry(on=[OSError], not_on=[OSError])).new_job(1).headers) == 32
    )
    with pytest.raises(InvalidInput, match="must have 0 to 30 items"):
        double.using(headers=most | {"one": "more"})
    with pytest.raises(InvalidInput, match="'retry-on' is kept for quorker itself"):
        double.using(headers={"retry-on": "x"})


# ------------------------------------------------------------------ what is done to a job


def test_delete(idle: None) -> None:
    job = double.enqueue(1)
    assert job.delete(expected="Failed") is False
    assert job.state() == "Enqueued"
    assert job.delete(expected=["Failed", "Enqueued"]) is True
    assert job.delete() is False
    with pytest.raises(JobCancelled):
        job.result(timeout=10)


def test_requeue_makes_a_deleted_job_run(working: None) -> None:
    job = double.using(delay=3600).enqueue(4)
    assert job.delete()
    assert job.requeue(expected="Scheduled") is False
    assert job.requeue() is True
    assert job.result(timeout=30) == 8


def test_reschedule(idle: None) -> None:
    job = double.enqueue(1)
    assert job.requeue() is False
    assert job.reschedule(delay=timedelta(hours=1))
    assert job.state() == "Scheduled"
    assert job.reschedule(at=datetime(2020, 1, 1, tzinfo=UTC), expected="Enqueued") is False
    assert job.requeue()
    assert job.reschedule(at=datetime(2999, 1, 1, tzinfo=UTC))
    assert job.state() == "Scheduled"
    with pytest.raises(InvalidInput, match="give either delay= "):
        job.reschedule()
    with pytest.raises(InvalidInput, match="give either delay= "):
        job.reschedule(delay=1, at=datetime(2999, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="has no time zone"):
        job.reschedule(at=datetime(2999, 1, 1))  # the mistake that is tested


def test_a_state_that_does_not_exist_is_named(idle: None) -> None:
    job = double.enqueue(1)
    with pytest.raises(InvalidInput, match="expected: there is no state 'enqueued': write Enqueued, "):
        job.delete(expected="enqueued")  # type: ignore[arg-type]  # the mistake that is tested


def test_an_unknown_job_is_no_pending_one(idle: None) -> None:
    unknown: JobHandle[int] = app.job(NOBODY)
    with pytest.raises(JobPending):
        double.enqueue(1).result(timeout=0.01)
    for act in (unknown.state, unknown.result, unknown.cancel, unknown.delete, unknown.requeue):
        with pytest.raises(JobNotFound, match=f"no job {NOBODY}"):
            act()
    with pytest.raises(JobNotFound, match=f"no job {NOBODY}"):
        unknown.reschedule(delay=1)


# ------------------------------------------------------------------ async code


async def all_of_it() -> None:
    first, second = await app.aenqueue_many([double.call(1), double.using(delay=3600).call(2)])
    assert await first.aresult() == 2
    assert await second.adelete(expected="Scheduled")
    assert await second.areschedule(delay=1800)
    assert await second.arequeue()
    assert await second.aresult() == 4
    third = await second.athen(double.call(3))
    assert await third.aresult() == 6
    for act in (
        first.delete,
        first.requeue,
        lambda: first.reschedule(delay=1),
        lambda: first.then(double.call(1)),
    ):
        with pytest.raises(BlockingCall, match=r"write `await job\.a"):
            act()
    with pytest.raises(BlockingCall, match=r"write `await app\.aenqueue_many"):
        app.enqueue_many([double.call(1)])


def test_in_asyncio_code(working: None) -> None:
    asyncio.run(all_of_it())


def test_in_trio_code(working: None) -> None:
    trio.run(all_of_it)


@pytest.mark.trio
async def test_on_three_members(members: Members) -> None:
    """A job of one member is controlled on another, and what it is followed by is made there."""
    addresses = dict(enumerate(free_addresses(3), 1))
    apps = {node_id: App("three") for node_id in addresses}
    async with members(apps, addresses):
        tasks: dict[int, AsyncTask[[int], int]] = {
            node_id: own.task(name="double")(double.function) for node_id, own in apps.items()
        }
        jobs = await apps[1].aenqueue_many([tasks[1].call(1), tasks[1].call(2)])
        with trio.fail_after(60):
            assert await apps[2].job(jobs[0].id).areschedule(delay=3600)
            follower = await apps[3].job(jobs[0].id).athen(tasks[3].call(3), on="deleted")
            assert await apps[1].job(follower.id).astate() == "Awaiting"
            assert await apps[3].job(jobs[0].id).adelete(expected="Scheduled")
            assert await apps[2].job(follower.id).adelete(expected="Enqueued")
            with pytest.raises(JobCancelled):
                await apps[1].job(follower.id).aresult()
