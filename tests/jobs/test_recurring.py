"""Recurring jobs: what each command does and refuses, what becomes of slots, and what waits for room."""

from __future__ import annotations

import pytest

from quorker.core.errors import Rejected
from quorker.core.jobs.bounds import INSTANT_MAX
from quorker.core.jobs.commands import (
    AdvanceRecurring,
    DeleteJob,
    NewJob,
    PauseRecurring,
    RemoveRecurring,
    SetRecurring,
    TriggerRecurring,
    decode,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.recurring_commands import STEPS_MAX
from quorker.core.jobs.recurring_plan import EVALUATIONS_MAX, SLOTS_PER_STEP_MAX
from quorker.sim.bare.lone_recurring import SECOND, TICK, declare, every, row, slots
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

MINUTE = 60 * SECOND
YEAR = 365 * 24 * 60 * MINUTE


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


# Declaring ---------------------------------------------------------------------------------------------------------


def test_an_entry_is_planned_and_fires_when_its_slots_come(lone: LoneStore) -> None:
    declare(lone, every())
    assert row(lone)["next_wt"] == FIRST_WT + SECOND
    lone.pass_time(SECOND - 1)
    assert not lone.store.jobs
    lone.pass_time(1)
    lone.pass_time(SECOND)
    assert slots(lone) == [1000, 2000]
    assert row(lone)["next_wt"] == FIRST_WT + 3000
    assert lone.pass_time(SECOND - 1) == 0, "nothing is written but when something fires"


def test_a_job_is_the_template_with_two_more_headers(lone: LoneStore) -> None:
    job = NewJob("t", b"x", "mail", 5, headers=(("own", "1"),), tags=("red",))
    declare(lone, every(job=job))
    lone.pass_time(SECOND)
    (made,) = lone.store.jobs.values()
    own = (("own", "1"), ("quorker-recurring", "r"), ("quorker-slot", str(FIRST_WT + SECOND)))
    assert made.spec == job._replace(headers=own)
    assert made.state == "Enqueued"


def test_cron_slots_fire_in_the_zone(lone: LoneStore) -> None:
    declare(lone, SetRecurring("r", TICK, "0 9 * * *", "Asia/Tokyo"))
    assert row(lone)["next_wt"] == FIRST_WT + 24 * 60 * MINUTE, (
        "9 o'clock there is midnight UTC, and that is now"
    )
    declare(lone, SetRecurring("r", TICK, "30 9 * * *", "Asia/Tokyo"))
    lone.pass_time(30 * MINUTE)
    assert slots(lone) == [30 * MINUTE]


def test_the_same_definition_changes_nothing(lone: LoneStore) -> None:
    declare(lone, every())
    before = row(lone)
    lone.advance(500)
    assert lone.do(every()) is False
    assert lone.maintain() == 0
    assert row(lone) == before


@pytest.mark.parametrize(
    "changed",
    [
        every(job=NewJob("tock")),
        every(2000),
        every(misfire="all"),
        every(grace_ms=1),
        SetRecurring("r", TICK, "* * * * *"),
    ],
)
def test_a_changed_definition_is_planned_anew_from_now_and_keeps_its_history(
    lone: LoneStore, changed: SetRecurring
) -> None:
    declare(lone, every())
    lone.pass_time(SECOND)
    before = row(lone)
    lone.advance(300)
    declare(lone, changed)
    after = row(lone)
    assert after["revision"] > before["revision"]
    expected = MINUTE if changed.cron else 1300 + changed.every_ms
    assert (after["anchor_wt"], after["next_wt"]) == (FIRST_WT + 1300, FIRST_WT + expected)
    for kept in ("created_wt", "last_slot_wt", "last_fired_wt", "last_job_id", "fired"):
        assert after[kept] == before[kept] != 0


@pytest.mark.parametrize(("cron", "every_ms"), [("", 0), ("* * * * *", 1000)])
def test_exactly_one_schedule_is_needed(lone: LoneStore, cron: str, every_ms: int) -> None:
    with pytest.raises(Rejected, match="bad_schedule"):
        lone.do(SetRecurring("r", TICK, cron, every_ms=every_ms))
    assert not lone.store.recurring


def test_a_schedule_that_cannot_be_evaluated_rests_with_its_error(lone: LoneStore) -> None:
    declare(lone, SetRecurring("r", TICK, "0 0 * * *", "Mars/Phobos"))
    entry = row(lone)
    assert "Mars/Phobos" in entry["error"]
    assert entry["next_wt"] is None
    assert lone.store.next_due() == (None, None)
    assert lone.pass_time(YEAR) == 0


def test_what_rests_is_tried_again_when_the_same_is_declared(lone: LoneStore) -> None:
    bad = SetRecurring("r", TICK, "61 * * * *")
    declare(lone, bad)
    first = row(lone)
    declare(lone, bad)
    assert row(lone)["revision"] > first["revision"]
    assert row(lone)["error"] == first["error"] != ""
    declare(lone, every())
    assert row(lone)["error"] == ""
    lone.pass_time(SECOND)
    assert len(slots(lone)) == 1


def test_at_the_end_of_the_calendar_an_entry_rests(lone: LoneStore) -> None:
    declare(lone, every(2**40))
    lone.do(SetRecurring("cron", TICK, "* * * * *"))
    lone.wt = INSTANT_MAX
    lone.maintain()
    assert lone.store.query("recurring:get", {"id": "r"})["error"]  # type: ignore[index]  # a row
    assert lone.store.query("recurring:get", {"id": "cron"})["error"]  # type: ignore[index]  # a row


def test_their_number_is_limited() -> None:
    lone = LoneStore(Limits(max_recurring=2))
    for name in ("a", "b"):
        lone.do(SetRecurring(name, TICK, every_ms=1000))
    with pytest.raises(Rejected, match="2 recurring jobs of 2"):
        lone.do(SetRecurring("c", TICK, every_ms=1000))
    assert lone.do(SetRecurring("b", TICK, every_ms=2000)) is True
    assert lone.do(RemoveRecurring("a")) is True
    assert lone.do(SetRecurring("c", TICK, every_ms=1000)) is True


def test_a_store_without_room_takes_no_new_definitions() -> None:
    lone = LoneStore(Limits(max_state_bytes=10_000))
    lone.enqueue(NewJob("t", b"x" * 10_000))
    with pytest.raises(Rejected, match="store_full"):
        lone.do(every())


# Removing, triggering, pausing -------------------------------------------------------------------------------------


def test_a_removed_entry_fires_no_more_and_its_jobs_stay(lone: LoneStore) -> None:
    declare(lone, every())
    lone.pass_time(SECOND)
    assert lone.do(RemoveRecurring("r")) is True
    assert lone.do(RemoveRecurring("r")) is False
    assert lone.pass_time(MINUTE) == 0
    assert slots(lone) == [1000]
    assert lone.store.state_bytes == sum(job.size for job in lone.store.jobs.values()) + 1800


def test_a_trigger_makes_a_job_now_and_leaves_the_plan(lone: LoneStore) -> None:
    declare(lone, every())
    lone.advance(300)
    job_id = lone.do(TriggerRecurring("r"))
    assert lone.job(job_id).spec.headers == (("quorker-recurring", "r"),)
    entry = row(lone)
    assert (entry["last_job_id"], entry["last_fired_wt"], entry["fired"]) == (job_id, FIRST_WT + 300, 1)
    assert (entry["next_wt"], entry["last_slot_wt"]) == (FIRST_WT + SECOND, None)
    lone.pass_time(700)
    assert slots(lone) == [1000]


def test_a_trigger_works_while_paused_and_needs_room(lone: LoneStore) -> None:
    declare(lone, every())
    lone.do(PauseRecurring("r", True))
    assert lone.do(TriggerRecurring("r")) in lone.store.jobs
    full = LoneStore(Limits(max_jobs=1, max_queues=1))
    full.do(every(job=NewJob("t", queue="other")))
    full.enqueue()
    with pytest.raises(Rejected, match="store_full"):
        full.do(TriggerRecurring("r"))


@pytest.mark.parametrize("command", [TriggerRecurring("r"), PauseRecurring("r", True)])
def test_an_unknown_entry_is_named(lone: LoneStore, command: TriggerRecurring | PauseRecurring) -> None:
    with pytest.raises(Rejected, match="no recurring job r"):
        lone.do(command)


def test_while_paused_nothing_fires_and_the_slots_that_pass_are_skipped(lone: LoneStore) -> None:
    declare(lone, every(misfire="all"))
    lone.pass_time(SECOND)
    assert lone.do(PauseRecurring("r", True, "smtp down", "ann")) is True
    entry = row(lone)
    assert (entry["paused"], entry["reason"], entry["author"]) == (True, "smtp down", "ann")
    assert (entry["paused_wt"], entry["next_wt"]) == (FIRST_WT + SECOND, None)
    assert lone.pass_time(5500) == 0
    assert lone.do(PauseRecurring("r", False)) is True
    lone.pass_time(SECOND)
    assert slots(lone) == [1000, 7000], "still on the grid of its anchor"
    entry = row(lone)
    assert (entry["paused"], entry["paused_wt"], entry["reason"], entry["author"]) == (False, None, "", "")


def test_a_pause_said_twice_changes_only_who_and_why(lone: LoneStore) -> None:
    declare(lone, every())
    assert lone.do(PauseRecurring("r", False)) is False
    assert row(lone)["next_wt"] == FIRST_WT + SECOND
    lone.do(PauseRecurring("r", True, "why"))
    lone.advance(10)
    assert lone.do(PauseRecurring("r", True, "other", "bob")) is False
    entry = row(lone)
    assert (entry["reason"], entry["author"], entry["paused_wt"]) == ("other", "bob", FIRST_WT)


def test_a_pause_outlives_a_new_definition(lone: LoneStore) -> None:
    declare(lone, every())
    lone.do(PauseRecurring("r", True, "why"))
    declare(lone, every(500))
    assert row(lone)["paused"] is True
    assert lone.pass_time(MINUTE) == 0


# Misfire -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_ms", [999, 1000, 5500, 7000, YEAR])
def test_once_makes_one_job_for_all_slots_and_it_has_the_latest(lone: LoneStore, late_ms: int) -> None:
    declare(lone, every(7 * SECOND))
    lone.pass_time(7 * SECOND + late_ms)
    latest = (7 * SECOND + late_ms) // 7000 * 7000
    assert slots(lone) == [latest]
    assert row(lone)["next_wt"] == FIRST_WT + latest + 7000


def test_the_latest_slot_of_a_year_of_cron_is_found_in_few_looks(lone: LoneStore) -> None:
    declare(lone, SetRecurring("r", TICK, "17 * * * * *"))
    lone.advance(YEAR)
    lone.maintain()
    assert slots(lone) == [YEAR - 43 * SECOND]


def test_all_makes_one_job_for_each_slot_in_pieces_the_oldest_first(lone: LoneStore) -> None:
    declare(lone, every(misfire="all"))
    count = 2 * SLOTS_PER_STEP_MAX + 10
    assert lone.pass_time(count * SECOND) == 3
    assert slots(lone) == [1000 * nth for nth in range(1, count + 1)]


def test_skip_makes_jobs_only_for_slots_within_the_grace(lone: LoneStore) -> None:
    declare(lone, every(misfire="skip", grace_ms=2000))
    lone.pass_time(10_000)
    assert slots(lone) == [8000, 9000, 10_000]
    lone.pass_time(1000)
    assert slots(lone) == [8000, 9000, 10_000, 11_000]


def test_skip_with_a_short_grace_may_fire_nothing_and_goes_on(lone: LoneStore) -> None:
    declare(lone, every(misfire="skip", grace_ms=100))
    lone.pass_time(1500)
    assert slots(lone) == []
    assert row(lone)["next_wt"] == FIRST_WT + 2000
    lone.pass_time(600)
    assert slots(lone) == [2000]


def test_a_unique_key_that_is_taken_lets_a_slot_pass_without_a_job(lone: LoneStore) -> None:
    declare(lone, every(job=NewJob("t", unique_key="u")))
    lone.pass_time(SECOND)
    lone.pass_time(SECOND)
    assert slots(lone) == [1000]
    entry = row(lone)
    assert (entry["fired"], entry["last_slot_wt"], entry["last_fired_wt"]) == (
        1,
        FIRST_WT + 2000,
        FIRST_WT + 1000,
    )
    assert lone.do(TriggerRecurring("r")) == entry["last_job_id"]


def test_many_that_are_due_at_once_go_in_one_entry(lone: LoneStore) -> None:
    for nth in range(50):
        lone.do(SetRecurring(f"r{nth}", TICK, every_ms=1000))
    lone.maintain()
    lone.advance(SECOND)
    (wire,) = lone.store.due(lone.lt, lone.wt)
    command = decode(wire)
    assert isinstance(command, AdvanceRecurring)
    assert len(command.steps) == 50


def test_one_look_evaluates_few_schedules_and_takes_few_steps() -> None:
    lone = LoneStore(careful=False)
    count = max(EVALUATIONS_MAX, STEPS_MAX) + 10
    for nth in range(count):
        lone.do(SetRecurring(f"r{nth:04}", TICK, "* * * * *"))
    command = decode(lone.store.due(lone.lt, lone.wt)[0])
    assert isinstance(command, AdvanceRecurring)
    assert len(command.steps) == EVALUATIONS_MAX
    lone.maintain()
    lone.pass_time(MINUTE)
    assert len(lone.store.jobs) == count
    for nth in range(count):
        lone.do(SetRecurring(f"r{nth:04}", TICK, every_ms=10))
    command = decode(lone.store.due(lone.lt, lone.wt)[0])
    assert isinstance(command, AdvanceRecurring)
    assert len(command.steps) == STEPS_MAX


# Room --------------------------------------------------------------------------------------------------------------


def test_a_full_store_makes_slots_late_and_loses_none() -> None:
    lone = LoneStore(Limits(max_jobs=2, deleted_ttl_ms=0, succeeded_ttl_ms=0))
    declare(lone, every(misfire="all"))
    lone.pass_time(5000)
    assert slots(lone) == [1000, 2000]
    assert lone.store.next_due() == (None, None), "nothing to do before something changes"
    assert lone.store.due(0, lone.wt + YEAR) == []
    done = slots(lone)
    while len(done) < 5:
        finish_all(lone)
        lone.maintain()
        done += slots(lone)
    assert done == [1000, 2000, 3000, 4000, 5000]


def finish_all(lone: LoneStore) -> None:
    for job_id in list(lone.store.jobs):
        lone.do(DeleteJob(job_id))
    lone.advance(1)


def test_a_full_store_still_plans_what_is_new_and_tries_what_has_room() -> None:
    lone = LoneStore(Limits(max_queues=1))
    lone.enqueue()
    declare(lone, every(job=NewJob("t", queue="other")))
    lone.do(SetRecurring("s", TICK, every_ms=2000))
    lone.maintain()
    lone.advance(1000)
    assert lone.store.next_due()[1] == FIRST_WT + 2000, "the one before it has no queue"
    assert lone.store.due(lone.lt, lone.wt) == []
    lone.pass_time(1000)
    assert (slots(lone), slots(lone, "s")) == ([], [2000])


def test_without_space_on_the_disk_no_leader_makes_jobs(lone: LoneStore) -> None:
    declare(lone, every())
    lone.advance(SECOND)
    assert lone.store.due(lone.lt, lone.wt, has_space=False) == []
    assert lone.store.next_due(has_space=False) == (None, None)
    assert lone.store.next_due() == (None, FIRST_WT + SECOND)
    assert len(lone.store.due(lone.lt, lone.wt)) == 1
