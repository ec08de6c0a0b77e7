"""Batches as users make them: all at the end of a block or nothing, callbacks that run once, on one member and on three."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from quorker.app import (
    NO_RETRY,
    App,
    Batch,
    BatchCounts,
    BatchNotFound,
    BatchPending,
    BlockingCall,
    Enqueued,
    Enqueuing,
    Filter,
    JobHandle,
    JobNotFound,
    current_job,
)
from quorker.app.gateway import Query
from quorker.core.errors import InvalidInput, Rejected
from quorker.core.jobs.bounds import CALLBACKS_MAX, JOBS_PER_COMMAND_MAX
from quorker.core.session import GROUP_BYTES_MAX
from quorker.jepsen_like.processes import ProcessCluster, process_cluster

NOBODY = "0" * 13
app = App("batches")


@app.task
async def double(x: int) -> int:
    return 2 * x


@app.task
def double_in_a_process(x: int) -> int:
    return 2 * x


@app.task(retry=NO_RETRY)
async def fail() -> None:
    raise ValueError("no way")


@app.task
async def report(about: str = "all") -> str:
    return f"report of {about}"


@app.task
async def spread(x: int) -> str | None:
    """Adds a member to its own batch while it runs."""
    await double.using(batch=current_job.batch_id).aenqueue(x)
    return current_job.batch_id


@app.task
def spread_from_a_process(x: int) -> str | None:
    double.using(batch=current_job.batch_id).enqueue(x)
    return current_job.batch_id


@app.task
async def hold() -> None:
    await trio.sleep_forever()


@pytest.fixture
def working(tmp_path: Path) -> Iterator[None]:
    with app.node(tmp_path, profile="fast", workers=2):
        yield


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[None]:
    """A member without workers."""
    with app.node(tmp_path, profile="fast", workers=0):
        yield


def known_jobs() -> int:
    found: dict[str, int] = app.gateway().request_blocking(Query("statistics", {}))
    return found["jobs"]


# ------------------------------------------------------------------ making


def test_the_jobs_of_a_block_and_their_callbacks_are_made_at_its_end(working: None) -> None:
    with app.batch("import", then=report) as batch:
        jobs = [double.using(batch=batch).enqueue(x) for x in range(3)]
        jobs.append(double_in_a_process.using(batch=batch).enqueue(3))
        assert known_jobs() == 0
    assert [job.result(timeout=30) for job in jobs] == [0, 2, 4, 6]
    assert batch.wait_ended(timeout=30) == BatchCounts("Succeeded", 4, 0, 4, 0, 0, 0)
    assert [each.result(timeout=30) for each in batch.callbacks] == ["report of all"]
    assert batch.jobs == jobs
    assert app.batch_by_id(batch.id).counts() == batch.counts()


async def use_async_code(directory: Path) -> None:
    async with app.node(directory, profile="fast", workers=2):
        async with app.batch("import", then=[report, report.call("more")], finally_=double.call(4)) as batch:
            jobs = [await double.using(batch=batch).aenqueue(x) for x in range(3)]
        assert [await job.aresult(timeout=30) for job in jobs] == [0, 2, 4]
        assert (await batch.await_ended(timeout=30)).state == "Succeeded"
        told = [await each.aresult(timeout=30) for each in batch.callbacks]
        assert told == ["report of all", "report of more", 8]
        assert (await batch.acounts()).total == 3
        assert await batch.acancel() == 0


def test_a_batch_on_trio(tmp_path: Path) -> None:
    trio.run(use_async_code, tmp_path)


def test_a_batch_on_asyncio(tmp_path: Path) -> None:
    asyncio.run(use_async_code(tmp_path))


def test_nothing_is_made_when_the_block_raises(idle: None) -> None:
    batch = app.batch("import", then=report)

    def fill() -> None:
        with batch:
            double.using(batch=batch).enqueue(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert known_jobs() == 0
    with pytest.raises(InvalidInput, match="batch 'import' has no id"):
        _ = batch.id
    with pytest.raises(InvalidInput, match="has had its block"), batch:
        raise AssertionError


def test_an_empty_batch_calls_back_at_once(working: None) -> None:
    with app.batch("empty", then=report, on_failure=fail) as batch:
        pass
    then, failed = batch.callbacks
    assert then.result(timeout=30) == "report of all"
    assert failed.state() == "Deleted"


def test_a_job_of_the_block_is_no_job_before_its_end(idle: None) -> None:
    with app.batch("import") as batch:
        job = double.using(batch=batch).enqueue(1)
        assert job != double.using(batch=batch).enqueue(1)
        for ask in (job.state, job.result, job.delete, lambda: job.then(report.call())):
            with pytest.raises(InvalidInput, match=r"this job is not made yet.*batch 'import'"):
                ask()
        with pytest.raises(InvalidInput, match="collected by enqueue, not by call"):
            double.using(batch=batch).call(1)
        with pytest.raises(InvalidInput, match="has had its block"), batch:
            raise AssertionError
    assert job.state() == "Enqueued"


def test_jobs_of_a_block_may_wait_for_each_other(working: None) -> None:
    with app.batch("import") as batch:
        first = double.using(batch=batch).enqueue(1)
        second = double.using(batch=batch, after=first).enqueue(2)
        third = report.using(batch=batch, after=second, on="failure").enqueue()
    assert second.result(timeout=30) == 4
    counts = batch.wait_ended(timeout=30)
    assert (counts.state, counts.succeeded, counts.deleted) == ("Failed", 2, 1)
    assert third.state() == "Deleted"


def test_a_job_of_another_block_is_not_there_yet(idle: None) -> None:
    with app.batch("one") as one, app.batch("two") as two:
        job = double.using(batch=one).enqueue(1)
        with pytest.raises(InvalidInput, match="a job of batch 'two' waits for a job of another batch"):
            double.using(batch=two, after=job).enqueue(1)
        with pytest.raises(JobNotFound):
            double.using(after=job).enqueue(1)
        with pytest.raises(InvalidInput, match="batch 'one' has no id"):
            double.using(batch=two, after=one)


def test_a_batch_that_is_refused_leaves_nothing(idle: None) -> None:
    double.using(unique="taken").enqueue(0)

    def fill() -> None:
        with app.batch("import", then=report) as batch:
            double.using(batch=batch).enqueue(1)
            double.using(batch=batch, unique="taken").enqueue(2)

    with pytest.raises(Rejected, match="unique key taken"):
        fill()
    with pytest.raises(JobNotFound, match="nothing was enqueued"), app.batch("import") as batch:
        double.using(batch=batch, after=NOBODY).enqueue(1)
    assert known_jobs() == 1


# ------------------------------------------------------------------ limits


def test_a_batch_has_room_for_one_command(idle: None) -> None:
    with app.batch("large") as batch:
        some = double.using(batch=batch)
        for x in range(JOBS_PER_COMMAND_MAX):
            some.enqueue(x)
        with pytest.raises(InvalidInput, match=f"has {JOBS_PER_COMMAND_MAX} jobs.*current_job.batch_id"):
            some.enqueue(0)
    assert batch.counts().total == JOBS_PER_COMMAND_MAX


def test_a_batch_is_not_too_large_for_its_command(idle: None) -> None:
    def fill() -> None:
        with app.batch("heavy") as batch:
            for _ in range(13):
                report.using(batch=batch).enqueue("x" * 65_000)

    with pytest.raises(InvalidInput, match=f"at most {GROUP_BYTES_MAX}"):
        fill()
    assert known_jobs() == 0


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: app.batch(""), "name"),
    (lambda: app.batch("x", then=[report] * (CALLBACKS_MAX + 1)), f"at most {CALLBACKS_MAX}"),
    (lambda: app.batch("x", then=double.call(1).then(report.call())), "waits for a job already"),
    (lambda: app.batch("x", retention=-1), "retention"),
    (lambda: app.batch_by_id("short"), "batch id"),
    (lambda: double.using(batch="short"), "batch"),
    (lambda: double.using(after="#1-0"), "after"),
]


@pytest.mark.parametrize(("act", "told"), BAD)
def test_bad_input_is_told(act: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        act()


def test_a_callback_that_needs_arguments_is_told() -> None:
    with pytest.raises(InvalidInput, match="double"):
        app.batch("x", then=double)  # type: ignore[arg-type]  # what is tested


def test_blocking_calls_are_refused_in_async_code(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(BlockingCall, match=r"async with app\.batch"), app.batch("x"):
            raise AssertionError
        batch = app.batch_by_id(NOBODY)
        for ask, instead in (
            (batch.counts, "acounts"),
            (batch.wait_ended, "await_ended"),
            (batch.cancel, "acancel"),
        ):
            with pytest.raises(BlockingCall, match=instead):
                ask()

    trio.run(main)


# ------------------------------------------------------------------ ending


def test_a_member_that_fails_and_succeeds_after_all(working: None) -> None:
    with app.batch(
        "import", then=report, on_failure=report.call("failures"), finally_=report.call("end")
    ) as batch:
        double.using(batch=batch).enqueue(1)
        failing = fail.using(batch=batch).enqueue()
    counts = batch.wait_ended(timeout=30)
    assert (counts.state, counts.succeeded, counts.failed) == ("Failed", 1, 1)
    then, failed, last = batch.callbacks
    assert failed.result(timeout=30) == "report of failures"
    assert last.result(timeout=30) == "report of end"
    assert then.state() == "Awaiting"
    failing.delete()
    assert batch.counts().deleted == 1
    assert then.state() == "Awaiting"


def test_who_waits_in_vain_is_told(idle: None) -> None:
    with app.batch("import") as batch:
        for x in range(3):
            double.using(batch=batch).enqueue(x)
    with pytest.raises(BatchPending, match=r"3 of 3 jobs of batch \w+ had not ended within 0.05 s"):
        batch.wait_ended(timeout=0.05)
    assert batch.cancel() == 3
    assert batch.wait_ended() == BatchCounts("Failed", 3, 0, 0, 0, 3, 0)
    assert batch.cancel() == 0


def test_a_running_member_is_called_off(working: None) -> None:
    with app.batch("import", finally_=report) as batch:
        hold.using(batch=batch).enqueue()
    assert batch.cancel() == 1
    assert batch.callbacks[0].result(timeout=30) == "report of all"


def test_a_batch_that_nobody_knows(idle: None) -> None:
    unknown = app.batch_by_id(NOBODY)
    for ask in (unknown.counts, unknown.wait_ended, unknown.cancel):
        with pytest.raises(BatchNotFound, match=f"no batch {NOBODY}"):
            ask()
    for task in (double.using(batch=unknown), double.using(batch=NOBODY), double.using(after=unknown)):
        with pytest.raises(JobNotFound, match=NOBODY):
            task.enqueue(1)


def test_a_batch_is_forgotten_after_its_retention(working: None) -> None:
    with app.batch("import", retention=0.001) as batch:
        pass
    wait_until_gone(batch)


def wait_until_gone(batch: Batch) -> None:
    while True:
        try:
            batch.counts()
        except BatchNotFound:
            return


# ------------------------------------------------------------------ joining and waiting


@pytest.mark.parametrize("task", [spread, spread_from_a_process])
def test_a_member_adds_members_while_it_runs(working: None, task: Any) -> None:
    with app.batch("import", then=report) as batch:
        job = task.using(batch=batch).enqueue(5)
    assert job.result(timeout=60) == batch.id
    assert batch.wait_ended(timeout=30).succeeded == 2
    assert batch.callbacks[0].result(timeout=30) == "report of all"


def test_jobs_join_a_batch_until_it_has_ended(idle: None) -> None:
    with app.batch("import") as batch:
        double.using(batch=batch).enqueue(0)
    double.using(batch=batch).enqueue(1)
    double.using(batch=batch.id).enqueue(2)
    app.enqueue_many([double.using(batch=batch).call(3), double.using(batch=batch).call(4)])
    assert batch.counts().total == 5
    assert len(batch.jobs) == 1
    batch.cancel()
    with pytest.raises(Rejected, match=f"batch {batch.id} is Failed"):
        double.using(batch=batch).enqueue(6)


def test_a_job_outside_of_a_batch_has_none(working: None) -> None:
    assert current_batch.enqueue().result(timeout=30) is None


@app.task
async def current_batch() -> str | None:
    return current_job.batch_id


def test_a_job_waits_for_a_batch(working: None) -> None:
    with app.batch("import") as batch:
        double.using(batch=batch).enqueue(1)
    late: JobHandle[str] = report.using(after=batch, on="any").enqueue("batch")
    assert late.result(timeout=30) == "report of batch"
    with pytest.raises(Rejected, match="never deleted"):
        report.using(after=batch, on="deleted").enqueue()


# ------------------------------------------------------------------ three members


three = App("recorded")


@three.task(queue="three")
async def one_of_many(x: int) -> int:
    return x


@three.task(queue="three")
async def gather() -> str:
    return "all"


async def leader_dies_between(cluster: ProcessCluster) -> None:
    first = await cluster.wait_leader()
    addresses = list(cluster.addresses.values())
    async with three.connect(*addresses, workers=0):
        async with three.batch("import", then=gather) as batch:
            jobs = [await one_of_many.using(batch=batch).aenqueue(x) for x in range(20)]
        await cluster.kill(first)
        async with three.connect(*addresses, workers=4):
            assert (await batch.await_ended(timeout=60)).succeeded == 20
            assert await batch.callbacks[0].aresult(timeout=60) == "all"
        async with three.batch("second", then=gather) as second:
            await one_of_many.using(batch=second).aenqueue(1)
        await cluster.start(first)
        await cluster.wait_leader()
        async with three.connect(cluster.addresses[first], workers=1):
            assert await second.callbacks[0].aresult(timeout=60) == "all"
            assert (await batch.acounts()).succeeded == 20
        assert [await job.aresult(timeout=30) for job in jobs] == list(range(20))


def test_the_leader_is_killed_between_the_making_and_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with process_cluster(tmp_path, options=("--workers", "0")) as cluster:
            await leader_dies_between(cluster)

    trio.run(main)


# ------------------------------------------------------------------ filters


class Stamp(Filter):
    """Puts a word on every job that is enqueued, and remembers which ids these got."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def enqueuing(self, call: Enqueuing) -> None:
        call.change(headers={"stamp": call.task})

    def enqueued(self, call: Enqueued) -> None:
        self.made.append(call.job_id)


def test_members_and_callbacks_pass_the_filters_when_they_are_made(tmp_path: Path) -> None:
    stamped, stamp = App("stamped"), Stamp()
    stamped.add_filter(stamp)

    @stamped.task
    async def read_stamp() -> str:
        return current_job.headers["stamp"]

    with stamped.node(tmp_path, profile="fast", workers=1):
        with stamped.batch("import", then=read_stamp) as batch:
            job = read_stamp.using(batch=batch).enqueue()
            assert stamp.made == []
        assert batch.callbacks[0].result(timeout=30) == job.result(timeout=30) == "read_stamp"
        assert sorted(stamp.made) == sorted([job.id, batch.callbacks[0].id])


class Gathering(Filter):
    """Puts every job into a batch."""

    def __init__(self) -> None:
        self.batch: Batch | None = None

    def enqueuing(self, call: Enqueuing) -> None:
        if self.batch is not None:
            call.change(batch=self.batch)


def test_a_filter_may_put_a_job_into_a_batch_that_is_made(tmp_path: Path) -> None:
    gathered, gathering = App("gathered"), Gathering()
    gathered.add_filter(gathering)
    once = gathered.task(name="once")(double.function)
    with gathered.node(tmp_path, profile="fast", workers=0):
        with gathered.batch("import") as batch:
            once.using(batch=batch).enqueue(1)
            gathering.batch = batch
            with pytest.raises(InvalidInput, match="has no id"):
                once.enqueue(2)
            gathering.batch = None
        gathering.batch = batch
        once.enqueue(3)
        assert batch.counts().total == 2
