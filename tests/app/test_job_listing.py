"""Which jobs the command line finds and follows, over a store in memory: pages, filters, and changes in between."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
import trio
import trio.testing

from quorker.app.cli import job_listing
from quorker.app.cli.job_changes import CANCEL, DELETE, REQUEUE, Outcome, Target, change_all, change_one
from quorker.app.cli.job_listing import Filters, Listing, SearchFilters, read_filters, read_search
from quorker.app.cli.tail_command import follow
from quorker.app.connection_host import ConnectionHost
from quorker.app.job_plans import carry_out
from quorker.app.job_search import JobSearch, Row, search_page
from quorker.app.payload import decode_call, encode_call
from quorker.core.errors import InvalidInput, NotApplied
from quorker.core.jobs.commands import Command, DeleteJob, EnqueueJobs, FetchJobs, NewJob, RequeueJob
from quorker.transport.memory import MemoryConnection, MemoryStore

pytestmark = pytest.mark.trio

LATER_MS = 3_600_000
NOW = 1_800_000_000_000


async def enqueue(memory: MemoryStore, connection: MemoryConnection, *jobs: NewJob) -> list[str]:
    """Each at an instant of its own."""
    ids: list[str] = []
    for job in jobs:
        memory.advance(10)
        ids += await connection.submit(EnqueueJobs((job,)))
    return ids


def wanted(**given: Any) -> JobSearch:
    return read_search(SearchFilters(**given), NOW)


async def found(connection: MemoryConnection, **given: Any) -> list[str]:
    return [row["id"] for row in await Listing(connection, wanted(**given)).all()]


async def ids_by_page(connection: MemoryConnection, search: JobSearch, limit: int) -> list[list[str]]:
    """All pages, each of a listing of its own that goes on where the last one ended."""
    pages: list[list[str]] = []
    after = ""
    while True:
        rows, after = await Listing(connection, search, after).page(limit)
        pages.append([row["id"] for row in rows])
        if not after:
            return pages


async def some_jobs(memory: MemoryStore, connection: MemoryConnection) -> list[str]:
    """20 jobs of two tasks in three states, the oldest change first."""
    jobs = [
        NewJob(
            ("send", "count")[number % 2],
            call(number=number),
            ("mail", "default")[number % 3 == 0],
            tags=("t",),
        )
        for number in range(20)
    ]
    ids = await enqueue(memory, connection, *jobs)
    deleted = ids[::4]
    for job_id in deleted:
        memory.advance(10)
        await connection.submit(DeleteJob(job_id))
    return [job_id for job_id in ids if job_id not in deleted] + deleted


@pytest.mark.parametrize("limit", [1, 2, 7, 20, 100])
async def test_pages_neither_repeat_nor_hide(memory: MemoryStore, limit: int) -> None:
    connection = memory.connect()
    changed = await some_jobs(memory, connection)
    pages = await ids_by_page(connection, JobSearch(), limit)
    assert [job_id for page in pages for job_id in page] == changed[::-1]
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


@pytest.mark.parametrize(
    "given",
    [
        {"state": ("deleted",)},
        {"state": ("Deleted", "enqueued"), "task": "send"},
        {"task": "s*"},
        {"task": "send"},
        {"tag": "t", "queue": "mail"},
        {"tag": "t", "state": ("enqueued",), "task": "count"},
        {"where": ("number=7",)},
        {"where": ("number=7",), "state": ("enqueued",)},
        {"queue": "nothing"},
        {"tag": "nothing"},
    ],
)
async def test_all_filters_hold_on_every_page(memory: MemoryStore, given: dict[str, Any]) -> None:
    connection = memory.connect()
    await some_jobs(memory, connection)
    pages = await ids_by_page(connection, wanted(**given), 3)
    ids = [job_id for page in pages for job_id in page]
    assert len(ids) == len(set(ids))
    everything = await Listing(connection, JobSearch()).all()
    assert set(ids) == {row["id"] for row in everything if fits(row, given)}


def fits(row: Row, given: dict[str, Any]) -> bool:
    """As a person would check it."""
    states = [state.capitalize() for state in given.get("state", [row["state"]])]
    number = decode_call(row["args"])[1]["number"]
    return (
        row["state"] in states
        and fnmatchcase(row["task"], given.get("task", "*"))
        and row["queue"] == given.get("queue", row["queue"])
        and given.get("tag", "t") in row["tags"]
        and ("where" not in given or number == 7)
    )


async def test_jobs_that_leave_between_pages_hide_no_others(memory: MemoryStore) -> None:
    connection = memory.connect()
    ids = await enqueue(memory, connection, *[NewJob("send", b"")] * 10)
    search = wanted(state=("enqueued",))
    rows, after = await Listing(connection, search).page(4)
    assert [row["id"] for row in rows] == ids[:5:-1]
    for gone in (ids[9], ids[6], ids[3]):
        await connection.submit(DeleteJob(gone))
    rest, after = await Listing(connection, search, after).page(100)
    assert [row["id"] for row in rest] == [ids[5], ids[4], *ids[2::-1]]
    assert after == ""


async def test_there_is_no_next_page_when_nothing_behind_matches(memory: MemoryStore) -> None:
    connection = memory.connect()
    ids = await enqueue(memory, connection, *[NewJob("send", b"")] * 3, NewJob("count", b""))
    rows, after = await Listing(connection, wanted(task="count", state=("enqueued",))).page(1)
    assert ([row["id"] for row in rows], after) == ([ids[3]], "")


async def test_a_place_to_go_on_from_must_be_one(memory: MemoryStore) -> None:
    for after in ("Failed:1", "changed:x", "changed:-1", ",", "created"):
        with pytest.raises(InvalidInput, match="is no place to go on from"):
            await Listing(memory.connect(), JobSearch(), after).page(1)


# Search -----------------------------------------------------------------------------------------------------------


def call(*args: object, **kwargs: object) -> bytes:
    return encode_call(args, kwargs, bytes_max=1 << 16)


async def test_arguments_are_compared_as_values(memory: MemoryStore) -> None:
    connection = memory.connect()
    order = {"id": 7, "lines": [{"sku": "x1"}, {"sku": "y2"}]}
    jobs = [
        NewJob("send", call(42, user="ann")),
        NewJob("send", call(42.0, user="ann", order=order)),
        NewJob("send", call(True, user="bob", text="user ann 42")),
        NewJob("send", b"no call at all"),
        NewJob("send", call("x" * 3000, user="carl")),
    ]
    whole, real, flag, _, long = await enqueue(memory, connection, *jobs)
    assert await found(connection, where=("args[0]=42",)) == [whole]
    assert await found(connection, where=("args[0]=42.0",)) == [real, whole]
    assert await found(connection, where=("args[0]=true",)) == [flag]
    assert await found(connection, where=("user=ann",)) == [real, whole]
    assert await found(connection, where=("order.lines[1].sku=y2", "user=ann")) == [real]
    assert await found(connection, where=("order.lines[2].sku=y2",)) == []
    assert await found(connection, where=("user.name=ann",)) == []
    assert await found(connection, where=("user=carl",)) == [long]


async def test_parameters_of_a_known_task_have_names(memory: MemoryStore) -> None:
    connection = memory.connect()
    by_place, by_name = await enqueue(
        memory, connection, NewJob("send", call("ann")), NewJob("send", call(user="ann"))
    )
    search = wanted(where=("user=ann",))
    rows, _ = await carry_out(
        search_page(search, 9, names={"send": ("user",)}.__getitem__), ConnectionHost(connection)
    )
    assert [row["id"] for row in rows] == [by_name, by_place]


async def test_how_long_ago(memory: MemoryStore) -> None:
    connection = memory.connect()
    old, new = await enqueue(memory, connection, NewJob("send", b""), NewJob("send", b""))
    (row,) = [row for row in await Listing(connection, JobSearch()).all() if row["id"] == new]
    search = read_search(SearchFilters(since="1s"), row["created_wt"] + 1000)
    assert [each["id"] for each in await Listing(connection, search).all()] == [new]
    memory.advance(10)
    await connection.submit(DeleteJob(old))
    search = read_search(SearchFilters(changed_since="1s"), row["created_wt"] + 1001)
    assert [each["id"] for each in await Listing(connection, search).all()] == [old]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"where": ("user",)}, "NAME=VALUE"),
        ({"where": ("user id=7",)}, "names no argument"),
        ({"where": ("args[x]=7",)}, "names no argument"),
        ({"since": "soon"}, "no duration"),
        ({"error": ""}, "error"),
        ({"task": "send[mail]"}, "task"),
        ({"tag": "x" * 65}, "tag"),
    ],
)
async def test_a_bad_filter_says_what_to_write(given: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        wanted(**given)


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
    deleted = set(await found(connection, state=("deleted",)))
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
