"""Which jobs the command line finds and follows, over a store in memory: pages, filters, and changes in between."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from quorker.app.cli import job_listing
from quorker.app.cli.job_changes import CANCEL, DELETE, REQUEUE, Outcome, Target, change_all, change_one
from quorker.app.cli.job_listing import Filters, Listing, Row, read_filters
from quorker.app.cli.tail_command import follow
from quorker.core.errors import InvalidInput, NotApplied
from quorker.core.jobs.commands import Command, DeleteJob, EnqueueJobs, FetchJobs, NewJob, RequeueJob
from quorker.transport.memory import MemoryConnection, MemoryStore

pytestmark = pytest.mark.trio

LATER_MS = 3_600_000


async def enqueue(memory: MemoryStore, connection: MemoryConnection, *jobs: NewJob) -> list[str]:
    """Each at an instant of its own."""
    ids: list[str] = []
    for job in jobs:
        memory.advance(10)
        ids += await connection.submit(EnqueueJobs((job,)))
    return ids


async def take(listing: Listing, limit: int) -> list[Row]:
    rows: list[Row] = []
    while len(rows) < limit and (row := await listing.next()) is not None:
        rows.append(row)
    return rows


async def ids_by_page(connection: MemoryConnection, filters: Filters, limit: int) -> list[list[str]]:
    """All pages, each of a listing of its own that goes on where the last one ended."""
    pages: list[list[str]] = []
    after = ""
    while True:
        listing = Listing(connection, read_filters(filters), after)
        pages.append([row["id"] for row in await take(listing, limit)])
        after = await listing.cursor()
        if not after:
            return pages


async def some_jobs(memory: MemoryStore, connection: MemoryConnection) -> list[str]:
    """20 jobs of two tasks in three states, the oldest change first."""
    jobs = [
        NewJob(("send", "count")[number % 2], b"", ("mail", "default")[number % 3 == 0], tags=("t",))
        for number in range(20)
    ]
    ids = await enqueue(memory, connection, *jobs)
    deleted = ids[::4]
    for job_id in deleted:
        memory.advance(10)
        await connection.submit(DeleteJob(job_id))
    return [job_id for job_id in ids if job_id not in deleted] + deleted


@pytest.mark.parametrize("page_rows", [1, 3, 500])
@pytest.mark.parametrize("limit", [1, 2, 7, 20, 100])
async def test_pages_neither_repeat_nor_hide(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, page_rows: int, limit: int
) -> None:
    monkeypatch.setattr(job_listing, "PAGE_ROWS", page_rows)
    connection = memory.connect()
    changed = await some_jobs(memory, connection)
    pages = await ids_by_page(connection, Filters(), limit)
    assert [job_id for page in pages for job_id in page] == changed[::-1]
    assert all(len(page) == limit for page in pages[:-1])


@pytest.mark.parametrize("page_rows", [2, 500])
@pytest.mark.parametrize(
    "filters",
    [
        Filters(state=("deleted",)),
        Filters(state=("Deleted", "enqueued"), task="send"),
        Filters(task="s*"),
        Filters(task="send"),
        Filters(tag="t", queue="mail"),
        Filters(tag="t", state=("enqueued",), task="count"),
        Filters(queue="nothing"),
        Filters(tag="nothing"),
    ],
)
async def test_all_filters_hold_on_every_page(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, page_rows: int, filters: Filters
) -> None:
    connection = memory.connect()
    await some_jobs(memory, connection)
    everything = await take(Listing(connection, read_filters(Filters())), 100)
    wanted = read_filters(filters)
    expected = {row["id"] for row in everything if wanted.matches(row) and filters.tag != "nothing"}
    monkeypatch.setattr(job_listing, "PAGE_ROWS", page_rows)
    pages = await ids_by_page(connection, filters, 3)
    found = [job_id for page in pages for job_id in page]
    assert sorted(found) == sorted(expected)


async def test_jobs_that_leave_between_pages_hide_no_others(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they leave between the page and the question where it ended."""
    connection = memory.connect()
    ids = await enqueue(memory, connection, *[NewJob("send", b"")] * 10)
    wanted = read_filters(Filters(state=("enqueued",)))
    listing = Listing(connection, wanted)
    assert [row["id"] for row in await take(listing, 4)] == ids[:5:-1]
    for gone in (ids[9], ids[6], ids[3]):
        await connection.submit(DeleteJob(gone))
    rest = await take(Listing(connection, wanted, await listing.cursor()), 100)
    assert [row["id"] for row in rest] == [ids[5], ids[4], *ids[2::-1]]


async def test_a_cursor_of_another_listing_is_refused(memory: MemoryStore) -> None:
    for after in ("Failed:1", "Enqueued:x", "Enqueued:-1", ",", "Enqueued:1,Enqueued:2,Failed"):
        with pytest.raises(InvalidInput, match="does not belong to this listing"):
            Listing(memory.connect(), read_filters(Filters(state=("enqueued",))), after)


# Changes ----------------------------------------------------------------------------------------------------------


async def test_a_job_that_left_its_state_is_skipped_and_says_why(memory: MemoryStore) -> None:
    connection = memory.connect()
    (job_id,) = await enqueue(memory, connection, NewJob("send", b"", delay_ms=LATER_MS))
    assert (await change_one(connection, REQUEUE, Target(job_id, ("Failed",)))).ending == "skipped"
    assert await change_one(connection, CANCEL, Target(job_id, ("Scheduled",))) == Outcome(job_id, "changed")
    assert await change_one(connection, DELETE, Target(job_id, ())) == Outcome(
        job_id, "unchanged", "it is Deleted already"
    )
    assert await change_one(connection, CANCEL, Target(job_id, CANCEL.states)) == Outcome(
        job_id, "skipped", "it is Deleted"
    )
    assert (await change_one(connection, DELETE, Target("0" * 13, ()))).ending == "failed"


class SoonSilent(MemoryConnection):
    """Takes so many commands, then answers no more."""

    takes = 0

    async def submit(self, command: Command, *, timeout: float | None = None) -> Any:
        if self.takes == 0:
            raise NotApplied("no leader")
        self.takes -= 1
        return await super().submit(command, timeout=timeout)


async def test_when_the_cluster_falls_silent_every_job_is_accounted_for(memory: MemoryStore) -> None:
    connection = memory.connect()
    ids = await enqueue(memory, connection, *[NewJob("send", b"")] * 200)
    silent = SoonSilent(memory, memory.connect().session_id, LATER_MS)
    silent.takes = 50
    outcomes: list[Outcome] = []
    await change_all(silent, DELETE, [Target(job_id, ()) for job_id in ids], outcomes.append)
    assert sorted(each.job_id for each in outcomes) == sorted(ids)
    assert sum(each.ending == "changed" for each in outcomes) == 50
    whys = [each.why for each in outcomes if each.ending == "failed"]
    assert set(whys) == {"no leader", "not tried: the cluster had stopped answering"}
    deleted = {
        row["id"] for row in await take(Listing(connection, read_filters(Filters(state=("deleted",)))), 999)
    }
    assert deleted == {each.job_id for each in outcomes if each.ending == "changed"}


# Following --------------------------------------------------------------------------------------------------------


class Watcher:
    """Follows a store in the background; `see(n)` waits for n more changes."""

    def __init__(self, connection: MemoryConnection, filters: Filters) -> None:
        self._connection = connection
        self._wanted = read_filters(filters)
        self._send, self._receive = trio.open_memory_channel[tuple[str, str]](1000)
        self.looks = 0

    async def run(self) -> None:
        await follow(self._connection, self._wanted, 1.0, self._show)

    def _show(self, rows: list[Row]) -> bool:
        self.looks += 1
        for row in rows:
            self._send.send_nowait((row["id"], row["state"]))
        return True

    async def see(self, count: int) -> list[tuple[str, str]]:
        return [await self._receive.receive() for _ in range(count)]


@pytest.mark.parametrize("page_rows", [1, 2, 500])
async def test_changes_are_shown_once_and_in_order(
    memory: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    page_rows: int,
    nursery: trio.Nursery,
) -> None:
    monkeypatch.setattr(job_listing, "PAGE_ROWS", page_rows)
    connection = memory.connect()
    before = await enqueue(memory, connection, NewJob("send", b""), NewJob("send", b"", delay_ms=LATER_MS))
    watcher = Watcher(memory.connect(), Filters())
    nursery.start_soon(watcher.run)
    await trio.testing.wait_all_tasks_blocked()
    assert watcher.looks == 1
    ids = await enqueue(memory, connection, *[NewJob("send", b"")] * 5)
    memory.advance(10)
    await connection.submit(DeleteJob(before[1]))
    changes = [*((job_id, "Enqueued") for job_id in ids), (before[1], "Deleted")]
    assert await watcher.see(6) == changes
    memory.advance(10)
    await connection.submit(DeleteJob(ids[0]))
    memory.advance(10)
    await connection.submit(RequeueJob(ids[0]))
    assert await watcher.see(1) == [(ids[0], "Enqueued")]  # the last of its states
    memory.advance(10)
    (job_id,) = await enqueue(memory, connection, NewJob("count", b""))
    assert await watcher.see(1) == [(job_id, "Enqueued")]


async def test_only_what_is_wanted_is_followed(
    memory: MemoryStore, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    connection = memory.connect()
    watcher = Watcher(memory.connect(), Filters(state=("processing",), task="s*"))
    nursery.start_soon(watcher.run)
    await trio.testing.wait_all_tasks_blocked()
    ids = await enqueue(memory, connection, NewJob("count", b""), NewJob("send", b""), NewJob("send", b""))
    await connection.submit(FetchJobs(("default",), 3))
    assert sorted(await watcher.see(2)) == [(ids[1], "Processing"), (ids[2], "Processing")]


async def test_while_the_log_stands_still_only_the_time_is_asked_for(
    memory: MemoryStore, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    connection = Counted(memory, memory.connect().session_id, LATER_MS)
    connection.asked = []
    nursery.start_soon(follow, connection, read_filters(Filters()), 5.0, go_on)
    await trio.testing.wait_all_tasks_blocked()
    connection.asked.clear()
    await trio.sleep(52)
    assert connection.asked == ["clock"] * 10


def go_on(_: list[Row]) -> bool:
    return True


class Counted(MemoryConnection):
    """Notes what is read."""

    asked: list[str]

    async def query(self, name: str, args: dict[str, Any], *, consistency: Any = "local") -> Any:
        self.asked.append(name)
        return await super().query(name, args, consistency=consistency)
