"""`app.monitoring` over an app with a store in memory: searches, pages, counts and figures, in plain and in async code."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from quorker.app import NO_RETRY, App, BlockingCall, JobNotFound
from quorker.app.testing import AppUnderTest
from quorker.core.errors import InvalidInput

app = App("monitored")


@app.task(queue="mail", retry=NO_RETRY)
async def send(user: int, /, greeting: str = "hello", **more: Any) -> str:
    if user < 0:
        raise LookupError(f"no user {user}")
    return greeting


@app.task
async def count(items: list[int]) -> int:
    return len(items)


@pytest.fixture
def shop() -> Iterator[AppUnderTest]:
    with app.testing() as shop:
        yield shop


def ids(page: Any) -> list[str]:
    return [job.id for job in page.items]


def test_parameters_have_their_names_however_they_were_passed(shop: AppUnderTest) -> None:
    by_place = send.enqueue(7, "hi")
    by_name = send.enqueue(7, greeting="hi")
    other = send.enqueue(8, greeting="ho", text="hi")
    assert ids(app.monitoring.jobs(where={"user": 7})) == [by_name.id, by_place.id]
    assert ids(app.monitoring.jobs(where={"greeting": "hi"})) == [by_name.id, by_place.id]
    assert ids(app.monitoring.jobs(where={"text": "hi", "user": 8})) == [other.id]


def test_a_search_reads_on_until_its_page_is_full(shop: AppUnderTest) -> None:
    wanted = [count.enqueue([number]) for number in range(12) for _ in range(50)][::50]
    page = app.monitoring.jobs(where={"items": [11]}, limit=7)
    assert len(page.items) == 7
    following = app.monitoring.jobs(where={"items": [11]}, limit=100, after=page.after)
    assert (len(following.items), following.after) == (43, "")
    (first,) = app.monitoring.jobs(
        where={"items[0]": 0}, limit=100, created=(None, shop.now + timedelta(1))
    ).items[-1:]
    assert first.id == wanted[0].id


def test_a_job_in_a_list_and_in_full(shop: AppUnderTest) -> None:
    job = send.using(tags=["import"], priority=3).enqueue(-1)
    child = job.then(count.call([1]), on="failure")
    before = app.monitoring.job(child.id)
    assert (before.parent, before.summary.state) == (job.id, "Awaiting")
    assert app.monitoring.job(job.id).continuations == (child.id,)
    shop.drain()
    (row,) = app.monitoring.jobs(tag="import").items
    assert (row.task, row.queue, row.priority, row.state) == ("send", "mail", 3, "Failed")
    assert (row.args, row.kwargs, row.tags, row.failures) == ((-1,), {}, ("import",), 1)
    assert row.error == ("LookupError", "no user -1")
    assert row.created == shop.now
    details = app.monitoring.job(job.id)
    assert details.summary == row
    assert details.history[0].data["message"] == "no user -1"
    assert details.worker == ""


def test_what_runs_says_where(shop: AppUnderTest) -> None:
    send.enqueue(1)
    workers = app.monitoring.workers()
    assert all(worker.heard_seconds_ago >= 0 for worker in workers)
    assert [worker.running for worker in workers] == [0] * len(workers)


def test_arguments_that_a_list_does_not_show(shop: AppUnderTest) -> None:
    job = send.enqueue(1, "x" * 5000)
    (row,) = app.monitoring.jobs(where={"greeting": "x" * 5000}).items
    assert (row.id, row.args, row.kwargs) == (job.id, None, None)


def test_an_unknown_job(shop: AppUnderTest) -> None:
    with pytest.raises(JobNotFound, match="0000000000000"):
        app.monitoring.job("0" * 13)


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"state": "Odd"}, "state"),
        ({"task": "send[1]"}, "task"),
        ({"queue": "A B"}, "queue"),
        ({"where": {"a-b": 1}}, "names no argument"),
        ({"created": (datetime(2026, 1, 1), None)}, "time zone"),  # that is what is refused
        ({"limit": 0}, "limit"),
        ({"after": "here"}, "no place to go on from"),
    ],
)
def test_a_bad_search_says_what_is_wrong(shop: AppUnderTest, asked: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        app.monitoring.jobs(**asked)


def test_history_of_days_and_hours(shop: AppUnderTest) -> None:
    send.enqueue(1)
    shop.drain()
    hours = app.monitoring.history("succeeded")
    days = app.monitoring.history("succeeded", "day", 3)
    assert [number for _, number in hours] == [1] + [0] * 23
    assert [number for _, number in days] == [1, 0, 0]
    assert days[0][0] == shop.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with pytest.raises(InvalidInput, match="unit"):
        app.monitoring.history("succeeded", "week")  # type: ignore[arg-type]  # that is what is refused


def test_every_read_has_a_twin_for_async_code(shop: AppUnderTest) -> None:
    async def main() -> None:
        job = await send.aenqueue(1)
        monitoring = app.monitoring
        assert ids(await monitoring.ajobs(task="send")) == [job.id]
        assert (await monitoring.ajob(job.id)).summary.id == job.id
        assert (await monitoring.astatistics())["enqueued"] == 1
        assert [number for _, number in await monitoring.ahistory("failed", count=1)] == [0]
        assert [queue.waiting for queue in await monitoring.aqueues()] == [1]
        assert await monitoring.aworkers() == monitoring_workers
        assert await monitoring.atasks() == {"send": 1}
        assert (await monitoring.atask("send")).total == 1
        with pytest.raises(BlockingCall, match=r"await app\.monitoring\.ajobs"):
            monitoring.jobs()

    monitoring_workers = app.monitoring.workers()
    trio.run(main)
