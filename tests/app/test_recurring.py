"""Recurring jobs of an app: declared in code, changed at run time, fired by a clock that only moves when told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from quorker.app import App, Attached, BlockingCall, RecurringNotFound, current_job
from quorker.app.declarations import declaring
from quorker.app.schedule_plans import PAGE_ROWS
from quorker.core.errors import ConfigurationError, InvalidInput, NotApplied, Rejected
from quorker.core.jobs.commands import Command, NewJob
from quorker.core.jobs.recurring_commands import SetRecurring
from quorker.transport.connection import Connection
from quorker.transport.memory import FIRST_WT, MemoryConnection, MemoryStore

Serve = Callable[..., AbstractAsyncContextManager[Attached]]
BERLIN = ZoneInfo("Europe/Berlin")
HOUR_MS = 3_600_000
Seen = list[tuple[str | None, datetime | None]]


def note_in(app: App) -> tuple[Any, Seen]:
    """A task that writes down of which recurring job it is and for which slot."""
    seen: Seen = []

    @app.task
    async def note() -> None:
        seen.append((current_job.recurring_id, current_job.slot))

    return note, seen


async def pass_time(memory: MemoryStore, ms: int) -> None:
    """What became due on the way has run when it returns."""
    memory.advance(ms)
    await wait_all_tasks_blocked()


def at(hour: int, minute: int = 0, *, day: int = 1) -> datetime:
    """On the store's first day."""
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


# ------------------------------------------------------------------ what is declared


def test_the_store_of_these_tests_begins_at_midnight() -> None:
    assert datetime.fromtimestamp(FIRST_WT / 1000, UTC) == at(0)


def test_a_function_becomes_a_task_that_recurs(app: App) -> None:
    @app.recurring(
        "0 3 * * *", tz="Europe/Berlin", queue="reports", timeout=9, tags=["night"], unique="nightly"
    )
    def nightly() -> int:
        return 7

    assert nightly() == 7
    assert (app.tasks["nightly"], nightly.options.queue, nightly.options.timeout_ms) == (
        nightly,
        "reports",
        9000,
    )
    assert (nightly.options.tags, nightly.options.unique_key) == ((), "")
    command = app.declared["nightly"].command
    assert (command.recurring_id, command.cron, command.zone) == ("nightly", "0 3 * * *", "Europe/Berlin")
    assert (command.every_ms, command.misfire, command.grace_ms) == (0, "once", 60_000)
    assert (command.job.task, command.job.queue, command.job.timeout_ms) == ("nightly", "reports", 9000)
    assert (command.job.tags, command.job.unique_key) == (("night",), "nightly")
    assert command.job.headers == (("quorker-managed", "test"),)


def test_a_task_may_recur_several_times_and_stays_what_it_is(app: App) -> None:
    @app.recurring("@daily", id="report-eu", args=["eu"], queue="slow")
    @app.recurring(
        every=timedelta(minutes=5),
        id="report-us",
        args=["us"],
        kwargs={"full": True},
        misfire="skip",
        grace=9,
    )
    @app.task(queue="reports")
    async def report(region: str, *, full: bool = False) -> str:
        return region

    assert app.tasks["report"] is report
    assert report.options.queue == "reports"
    eu, us = app.declared["report-eu"].command, app.declared["report-us"].command
    assert (eu.cron, eu.every_ms, eu.job.queue) == ("@daily", 0, "slow")
    assert (us.cron, us.every_ms, us.misfire, us.grace_ms, us.job.queue) == (
        "",
        300_000,
        "skip",
        9_000,
        "reports",
    )
    assert eu.job.args == report.new_job("eu").args
    assert us.job.args == report.new_job("us", full=True).args


WRONG: Sequence[tuple[tuple[Any, ...], dict[str, Any], str]] = (
    (("61 3 * * *",), {}, r"cron '61 3 \* \* \*': .*minute.*; write minute, hour, day of month"),
    (("0 3 * *",), {}, r"cron '0 3 \* \*': .*fields"),
    (("0 0 30 2 *",), {}, r"cron '0 0 30 2 \*': .*day-of-month"),
    (("@nightly",), {}, r"cron '@nightly': the macros are @yearly"),
    (("0 3 * * *",), {"tz": "Europe/Berlln"}, r"zone 'Europe/Berlln': not known on this machine; use a name"),
    ((), {}, r"give either a cron expression .* or every="),
    (("@daily",), {"every": 3}, r"give either a cron expression .* or every="),
    ((), {"every": 0}, r"every=0: give at least 0.01 seconds"),
    ((), {"every": -1}, r"every"),
    ((), {"every": 3, "tz": "UTC"}, r"tz='UTC' belongs to a cron expression"),
    (("@daily",), {"misfire": "never"}, r"misfire='never': write one of once, all, skip"),
    (("@daily",), {"grace": 3}, r"grace=3 has a meaning with misfire=\"skip\" only"),
    (("@daily",), {"queue": "Ä"}, r"queue='Ä'"),
    ((len,), {}, r"<built-in function len>.*write text, as in \"0 3 \* \* \*\""),
)


@pytest.mark.parametrize(("given", "named", "why"), WRONG)
def test_what_cannot_be_declared_says_why(
    app: App, given: tuple[Any, ...], named: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        app.recurring(*given, **named)


def test_a_call_that_cannot_be_made_is_refused_where_it_is_declared(app: App) -> None:
    def report(region: str) -> None: ...

    with pytest.raises(InvalidInput, match="missing a required argument: 'region'"):
        app.recurring("@daily")(report)
    with pytest.raises(InvalidInput, match=r"recurring id='night shift'.*1 to 200 characters"):
        app.recurring("@daily", id="night shift", args=["eu"])(report)
    with pytest.raises(ConfigurationError, match=r"give name= and runs_in= to @app\.task"):
        app.recurring("@daily", name="other", args=["eu"])(app.task(report))
    assert dict(app.declared) == {}


def test_an_id_can_be_taken_once_but_a_module_loaded_twice(app: App) -> None:
    def load() -> Any:
        def nightly() -> None: ...

        return nightly

    app.recurring("@daily")(load())
    app.recurring("@hourly")(load())
    assert app.declared["nightly"].command.cron == "@hourly"
    with pytest.raises(
        ConfigurationError, match=r"two recurring jobs are called 'nightly': .*; give one of them .*id="
    ):
        app.recurring("@daily")(app.tasks["nightly"])


def test_headers_that_begin_as_ours_do_are_refused(app: App) -> None:
    with pytest.raises(InvalidInput, match=r"'quorker-slot' is kept for quorker itself"):
        app.recurring("@daily", headers={"quorker-slot": "1"})


def test_a_template_has_less_room_for_headers(app: App) -> None:
    def nightly() -> None: ...

    with pytest.raises(InvalidInput, match="headers"):
        app.recurring("@daily", headers={str(number): "" for number in range(30)})(nightly)


# ------------------------------------------------------------------ how it fires


@pytest.mark.trio
async def test_the_declared_fires_at_its_slots(app: App, memory: MemoryStore, serve: Serve) -> None:
    note, seen = note_in(app)
    app.recurring("0 3 * * *", tz="Europe/Berlin")(note)
    async with serve(app) as attached, declaring(app, attached.connection):
        await wait_all_tasks_blocked()
        await pass_time(memory, 50 * HOUR_MS)
    assert {each for each, _ in seen} == {"note"}
    assert sorted(slot for _, slot in seen if slot) == [at(2), at(2, day=2), at(2, day=3)]


@pytest.mark.trio
async def test_a_plain_task_knows_its_slot_in_its_process(
    app: App, memory: MemoryStore, serve: Serve, plain: Any
) -> None:
    app.recurring(every=60, headers={"tenant": "7"})(plain.which_slot)
    async with serve(app) as attached, declaring(app, attached.connection):
        await wait_all_tasks_blocked()
        memory.advance(60_000)
        job = app.job(str((await app.schedules.aget("which_slot")).last_job))
        assert await job.aresult() == ["which_slot", at(0, 1).isoformat(), {"tenant": "7"}]
        job = await app.schedules.atrigger("which_slot")
        assert await job.aresult() == ["which_slot", None, {"tenant": "7"}]


@pytest.mark.trio
async def test_other_jobs_have_no_slot(app: App, serve: Serve) -> None:
    note, seen = note_in(app)
    async with serve(app):
        await (await note.aenqueue()).aresult()
    assert seen == [(None, None)]


@pytest.mark.trio
async def test_a_key_that_is_taken_leaves_a_slot_out(app: App, memory: MemoryStore, serve: Serve) -> None:
    """No second one while the first has not ended."""
    may_end = trio.Event()
    slots: list[datetime | None] = []

    @app.recurring(every=60, unique="one at a time")
    async def slow() -> None:
        slots.append(current_job.slot)
        await may_end.wait()

    async with serve(app) as attached, declaring(app, attached.connection):
        await wait_all_tasks_blocked()
        await pass_time(memory, 150_000)
        may_end.set()
        await wait_all_tasks_blocked()
        await pass_time(memory, 60_000)
        assert (await app.schedules.aget("slow")).fired == 2
    assert slots == [at(0, 1), at(0, 3)]


# ------------------------------------------------------------------ what many processes declare


async def declare(app: App, connection: Connection) -> None:
    async with declaring(app, connection):
        await wait_all_tasks_blocked()


@pytest.mark.trio
async def test_the_same_declaration_changes_nothing(memory: MemoryStore, serve: Serve) -> None:
    one, two = App("shop"), App("shop")
    for each in (one, two):
        each.recurring(every=60, id="tick")(note_in(each)[0])
    connection = memory.connect()
    await declare(one, connection)
    memory.advance(30_000)
    planned = (await connection.query("recurring:get", {"id": "tick"})).value
    await declare(two, memory.connect())
    assert (await connection.query("recurring:get", {"id": "tick"})).value == planned


@pytest.mark.trio
async def test_the_code_wins_over_an_edit_at_run_time_and_a_pause_stays(
    app: App, memory: MemoryStore, serve: Serve
) -> None:
    note, _ = note_in(app)
    app.recurring("@daily", id="tick")(note)
    async with serve(app) as attached:
        await declare(app, attached.connection)
        assert await app.schedules.aset("tick", note.call(), cron="@hourly") is True
        assert await app.schedules.apause("tick", reason="moved") is True
        edited = await app.schedules.aget("tick")
        assert (edited.cron, edited.managed_by) == ("@hourly", "")
        await declare(app, attached.connection)
        again = await app.schedules.aget("tick")
        assert (again.cron, again.managed_by, again.is_paused, again.reason) == (
            "@daily",
            "test",
            True,
            "moved",
        )


@pytest.mark.trio
async def test_what_the_code_declares_no_more_is_reported_and_goes_on(
    memory: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer, other = App("shop"), App("shop"), App("other")
    older.recurring("@daily", id="old")(note_in(older)[0])
    older.recurring("@daily", id="kept")(note_in(older)[0])
    newer.recurring("@daily", id="kept")(note_in(newer)[0])
    other.recurring("@daily", id="theirs")(note_in(other)[0])
    connection = memory.connect()
    with caplog.at_level(logging.WARNING):
        await declare(older, connection)
        await declare(other, connection)
        assert caplog.messages == []
        await declare(newer, connection)
    (message,) = caplog.messages
    assert "recurring job old was declared by the code of app shop" in message
    assert "`quorker cron prune`" in message
    rows = (await connection.query("recurring:list", {})).value
    assert [row["id"] for row in rows] == ["kept", "old", "theirs"]


class Moody(MemoryConnection):
    """Says what it is told to say to the first commands."""

    def __init__(self, memory: MemoryStore, session_id: int, refusals: list[Exception]) -> None:
        super().__init__(memory, session_id, 24 * HOUR_MS)
        self._refusals = refusals

    async def submit(self, command: Command, *, timeout: float | None = None) -> Any:
        await trio.lowlevel.checkpoint()
        if self._refusals:
            raise self._refusals.pop()
        return await super().submit(command, timeout=timeout)


@pytest.mark.trio
async def test_a_declaration_is_repeated_until_somebody_leads(
    app: App, memory: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    app.recurring("@daily", id="tick")(note_in(app)[0])
    connection = Moody(memory, memory.connect().session_id, [NotApplied("nobody leads")] * 5)
    async with declaring(app, connection):
        await trio.sleep(60)
    assert (await connection.query("recurring:get", {"id": "tick"})).value is not None


@pytest.mark.trio
async def test_a_declaration_that_the_store_refuses_is_an_error_in_the_log(
    app: App, memory: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    app.recurring("@daily", id="tick")(note_in(app)[0])
    connection = Moody(memory, memory.connect().session_id, [Rejected("store_full", "there is no room")])
    with caplog.at_level(logging.ERROR):
        await declare(app, connection)
    assert caplog.messages == ["recurring job tick is not stored: store_full: there is no room"]


# ------------------------------------------------------------------ at run time


@pytest.mark.trio
async def test_one_is_made_edited_and_removed_at_run_time(
    app: App, memory: MemoryStore, serve: Serve
) -> None:
    note, seen = note_in(app)
    schedules = app.schedules
    async with serve(app):
        assert await schedules.aset("tick", note.call(), every=timedelta(hours=1)) is True
        assert await schedules.aset("tick", note.call(), every=3600) is False
        await pass_time(memory, 2 * HOUR_MS)
        assert await schedules.aset("tick", note.using(queue="default").call(), cron="30 * * * *") is True
        await pass_time(memory, 2 * HOUR_MS)
        known = await schedules.aget("tick")
        assert (known.fired, known.last_slot, known.next_slot) == (4, at(3, 30), at(4, 30))
        assert (known.cron, known.every, known.tz, known.task, known.args) == (
            "30 * * * *",
            None,
            "UTC",
            "note",
            [],
        )
        assert await schedules.aremove("tick") is True
        assert await schedules.aremove("tick") is False
        await pass_time(memory, 2 * HOUR_MS)
    assert sorted(slot for _, slot in seen if slot) == [at(1), at(2), at(2, 30), at(3, 30)]


@pytest.mark.trio
async def test_a_pause_skips_and_a_trigger_does_not_wait(app: App, memory: MemoryStore, serve: Serve) -> None:
    note, seen = note_in(app)
    schedules = app.schedules
    async with serve(app):
        await schedules.aset("tick", note.call(), cron="@hourly", misfire="all")
        await pass_time(memory, HOUR_MS)
        assert await schedules.apause("tick", reason="mail is down", author="ann") is True
        assert await schedules.apause("tick", reason="still", author="bob") is False
        paused = await schedules.aget("tick")
        assert (paused.is_paused, paused.reason, paused.author) == (True, "still", "bob")
        assert (paused.paused_at, paused.next_slot, await schedules.anext("tick")) == (at(1), None, [])
        await pass_time(memory, 3 * HOUR_MS)
        job = await schedules.atrigger("tick")
        await job.aresult()
        assert await schedules.aresume("tick") is True
        assert await schedules.aresume("tick") is False
        await pass_time(memory, HOUR_MS)
    assert seen == [("tick", at(1)), ("tick", None), ("tick", at(5))]


@pytest.mark.trio
async def test_the_next_slots_are_shown_in_their_zone_across_the_clock_change(app: App, serve: Serve) -> None:
    note, _ = note_in(app)
    async with serve(app):
        await app.schedules.aset("tick", note.call(), cron="30 2 27-31 3 *", tz="Europe/Berlin")
        slots = await app.schedules.anext("tick", 4)
        assert [slot.isoformat() for slot in slots] == [
            "2026-03-27T02:30:00+01:00",
            "2026-03-28T02:30:00+01:00",
            "2026-03-29T03:00:00+02:00",  # there is no half past two on that day
            "2026-03-30T02:30:00+02:00",
        ]
        await app.schedules.aset("tick", note.call(), every=90)
        assert await app.schedules.anext("tick", 2) == [at(0, 1) + timedelta(seconds=30), at(0, 3)]
        assert await app.schedules.anext("tick", 1) == [at(0, 1) + timedelta(seconds=30)]


@pytest.mark.trio
async def test_all_of_them_are_listed_page_by_page(app: App, serve: Serve) -> None:
    note, _ = note_in(app)
    ids = [f"tick-{number:04}" for number in range(PAGE_ROWS + 1)]
    async with serve(app):
        assert await app.schedules.alist() == []
        for each in reversed(ids):
            await app.schedules.aset(each, note.call(), cron="@yearly")
        assert [each.id for each in await app.schedules.alist()] == ids


@pytest.mark.trio
async def test_one_that_is_unknown(app: App, serve: Serve) -> None:
    schedules = app.schedules
    async with serve(app):
        for ask in (schedules.aget, schedules.anext, schedules.atrigger, schedules.apause, schedules.aresume):
            with pytest.raises(RecurringNotFound, match="no recurring job nope in this cluster"):
                await ask("nope")
        with pytest.raises(InvalidInput, match="recurring id"):
            await schedules.aremove("no pe")


@pytest.mark.trio
async def test_what_is_declared_is_there_before_the_member_has_declared_it(app: App, serve: Serve) -> None:
    note, seen = note_in(app)
    app.recurring("@daily", id="one")(note)
    app.recurring("@daily", id="two")(note)
    async with serve(app):
        assert (await app.schedules.aget("one")).cron == "@daily"
        await (await app.schedules.atrigger("two")).aresult()
    assert seen == [("two", None)]


@pytest.mark.trio
async def test_calls_that_say_when_they_run_cannot_recur(app: App, serve: Serve) -> None:
    note, _ = note_in(app)
    async with serve(app):
        for call in (
            note.using(delay=3).call(),
            note.using(at=at(9)).call(),
            note.using(after="0" * 13).call(),
        ):
            with pytest.raises(InvalidInput, match="cannot have delay=, at= or after="):
                await app.schedules.aset("tick", call, cron="@daily")
        with pytest.raises(InvalidInput, match="waits for another one"):
            await app.schedules.aset("tick", note.call().then(note.call()), cron="@daily")
        with pytest.raises(InvalidInput, match="minute"):
            await app.schedules.aset("tick", note.call(), cron="x 3 * * *")


@pytest.mark.trio
async def test_blocking_calls_in_async_code_name_their_twins(app: App, serve: Serve) -> None:
    note, _ = note_in(app)
    schedules = app.schedules
    async with serve(app):
        for ask in (
            schedules.get,
            schedules.next,
            schedules.trigger,
            schedules.pause,
            schedules.resume,
            schedules.remove,
        ):
            with pytest.raises(BlockingCall, match=rf"await app.schedules.a{ask.__name__}\(\.\.\.\)"):
                ask("tick")
        with pytest.raises(BlockingCall, match=r"await app.schedules.alist\(\)"):
            schedules.list()
        with pytest.raises(BlockingCall, match=r"await app.schedules.aset\(\.\.\.\)"):
            schedules.set("tick", note.call(), every=1)


@pytest.mark.trio
async def test_what_another_program_stored_can_be_looked_at(
    app: App, memory: MemoryStore, serve: Serve
) -> None:
    async with serve(app) as attached:
        await attached.connection.submit(
            SetRecurring("odd", NewJob("note", b"\xc1"), "99 * * * *", "Nowhere/At_all")
        )
        odd = await app.schedules.aget("odd")
        assert (odd.args, odd.kwargs, odd.tz, odd.created) == (None, None, "Nowhere/At_all", at(0))
        assert "Nowhere/At_all" in odd.error
        assert (odd.next_slot, await app.schedules.anext("odd")) == (None, [])
