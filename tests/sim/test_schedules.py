"""The oracle of recurring jobs rejects hand-made logs that break a promise, and accepts their lawful twins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from quorker.core.jobs import commands as c
from quorker.core.jobs.new_job import JobGrant
from quorker.sim.cases.case import Case, ClockKnobs, Fault, FaultKind
from quorker.sim.clients.recurring_asks import ACTS, spread_ms
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.schedules import Schedules

DECLARED = 50
"""The wall time at which the entry is declared; its period is 100, so its slots are 150, 250, 350, ..."""


class Log:
    """What was applied, at which wall time and in which term."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.schedules = Schedules(lambda what: self.notes.update([what]))
        self.term = 1
        self._jobs = 0

    def declare(
        self, wt: int = DECLARED, *, cron: str = "", misfire: Any = "once", grace_ms: int = 0
    ) -> None:
        every_ms = 0 if cron else 100
        command = c.SetRecurring("r", c.NewJob("t"), cron, "UTC", every_ms, misfire, grace_ms)
        self.schedules.on_command(command, (0, True), wt, self.term)

    def pause(self, wt: int, *, paused: bool) -> None:
        self.schedules.on_command(c.PauseRecurring("r", paused), (0, True), wt, self.term)

    def fire(self, *slots: int, at: int, found: int = 0) -> None:
        """One entry; `found`: how many more slots the leader had found."""
        fired: list[tuple[str, int, str]] = []
        for slot in slots:
            self._jobs += 1
            fired.append(("r", slot, f"J{self._jobs}"))
        step = c.Step("r", 1, 1, (*slots, *[at] * found), at + 100)
        self.schedules.on_command(c.AdvanceRecurring((step,)), (0, tuple(fired)), at, self.term)

    def grant(self, job_id: str, **headers: str) -> None:
        shown = tuple((f"quorker-{name}", value) for name, value in headers.items())
        self.schedules.on_granted(JobGrant(job_id, 1, "default", "t", b"", 1, 0, 0, 1, shown))


@pytest.fixture
def log() -> Log:
    return Log()


def rejects(oracle: str, act: Callable[[], object]) -> None:
    with pytest.raises(Violation, match=f"^{re.escape(oracle)}: "):
        act()


def test_lawful_slots_are_accepted(log: Log) -> None:
    log.declare()
    log.fire(150, at=150)
    log.fire(450, at=460)
    log.grant("J1", recurring="r", slot="150")
    assert log.notes == Counter({"missed slots made up for": 1})
    log.term = 3
    log.fire(550, at=551)
    assert log.notes["slot fired by the next leader"] == 1


def test_a_slot_that_fires_twice(log: Log) -> None:
    log.declare()
    log.fire(150, at=150)
    rejects("a slot fires once [J13]", lambda: log.fire(150, at=160))


def test_a_slot_that_fires_after_a_later_one(log: Log) -> None:
    log.declare(misfire="skip", grace_ms=1000)
    log.fire(150, 250, at=250)
    rejects("a slot fires once [J13]", lambda: log.fire(150, at=251))


def test_a_slot_that_fires_again_although_its_entry_was_removed_and_came_back(log: Log) -> None:
    log.declare()
    log.fire(150, at=150)
    log.schedules.on_command(c.RemoveRecurring("r"), (0, True), 150, 1)
    log.declare(50)
    rejects("a slot fires once [J13]", lambda: log.fire(150, at=160))


@pytest.mark.parametrize("slot", [151, 200, 50])
def test_an_instant_that_is_no_slot(log: Log, slot: int) -> None:
    log.declare()
    rejects("only slots of its schedule [J13]", lambda: log.fire(slot, at=250))


def test_an_instant_that_is_no_slot_of_a_cron_expression(log: Log) -> None:
    log.declare(cron="*/2 * * * * *")
    log.fire(2000, at=2100)
    rejects("only slots of its schedule [J13]", lambda: log.fire(3000, at=3100))


def test_a_schedule_that_never_fires_and_does(log: Log) -> None:
    log.declare(cron="61 * * * *")
    rejects("only slots of its schedule [J13]", lambda: log.fire(2000, at=2100))


def test_a_slot_of_what_was_declared_before(log: Log) -> None:
    log.declare()
    log.declare(100)
    rejects("only slots of its schedule [J13]", lambda: log.fire(150, at=150))


def test_a_slot_of_what_nobody_has_declared(log: Log) -> None:
    rejects("only slots of its schedule [J13]", lambda: log.fire(150, at=150))
    log.declare()
    log.schedules.on_command(c.RemoveRecurring("r"), (0, True), 140, 1)
    rejects("only slots of its schedule [J13]", lambda: log.fire(150, at=150))


def test_a_slot_while_it_is_paused(log: Log) -> None:
    log.declare()
    log.pause(140, paused=True)
    rejects("only slots of its schedule [J13]", lambda: log.fire(150, at=150))


def test_a_slot_that_passed_while_it_was_paused(log: Log) -> None:
    log.declare(misfire="all")
    log.pause(140, paused=True)
    log.pause(260, paused=False)
    rejects("only slots of its schedule [J13]", lambda: log.fire(250, at=260))
    log.fire(350, at=350)


def test_a_pause_outlives_a_new_declaration(log: Log) -> None:
    log.declare()
    log.pause(60, paused=True)
    log.declare(70)
    rejects("only slots of its schedule [J13]", lambda: log.fire(170, at=170))


def test_a_slot_before_its_time(log: Log) -> None:
    log.declare()
    rejects("no slot before it is due [J13]", lambda: log.fire(150, at=149))


def test_all_that_leaves_one_out(log: Log) -> None:
    log.declare(misfire="all")
    log.fire(150, 250, at=260)
    rejects("missed slots as declared [J13]", lambda: log.fire(450, at=460))


def test_once_that_fires_an_old_one(log: Log) -> None:
    log.declare(misfire="once")
    rejects("missed slots as declared [J13]", lambda: log.fire(150, at=250))


def test_skip_that_fires_what_is_too_late(log: Log) -> None:
    log.declare(misfire="skip", grace_ms=150)
    log.fire(150, at=300)
    rejects("missed slots as declared [J13]", lambda: log.fire(250, at=401))


def test_skip_that_leaves_out_what_was_not_too_late(log: Log) -> None:
    log.declare(misfire="skip", grace_ms=150)
    rejects("missed slots as declared [J13]", lambda: log.fire(250, at=300))
    log.fire(350, at=420)


def test_a_job_that_names_another_slot_than_it_was_made_for(log: Log) -> None:
    log.declare()
    log.fire(150, at=150)
    rejects("only slots of its schedule [J13]", lambda: log.grant("J1", recurring="r", slot="250"))
    rejects("only slots of its schedule [J13]", lambda: log.grant("J1"))
    log.schedules.on_command(c.TriggerRecurring("r"), (0, "J9"), 160, 1)
    rejects("only slots of its schedule [J13]", lambda: log.grant("J9", recurring="r", slot="150"))
    log.grant("J9", recurring="r")


def test_a_step_that_no_longer_fitted_is_noted(log: Log) -> None:
    log.declare()
    log.fire(at=150, found=1)
    assert log.notes == Counter({"step of a schedule that no longer fits": 1})


def test_what_was_refused_counts_for_nothing(log: Log) -> None:
    log.schedules.on_command(c.PauseRecurring("r", True), (1, "not_found", ""), 10, 1)
    log.schedules.on_command(c.SetRecurring("r", c.NewJob("t")), (1, "bad_schedule", ""), 10, 1)
    assert log.schedules.owed(10**6, 0) == []


def test_an_entry_that_does_not_go_on_is_owed(log: Log) -> None:
    log.declare()
    assert log.schedules.owed(60, 50) == ["r after 0"], "it has not fired since then"
    log.fire(150, at=150)
    assert log.schedules.owed(749, 149) == []
    assert log.schedules.owed(750, 149) == ["r after 150"]
    assert log.schedules.owed(200, 150) == ["r after 150"]
    log.pause(760, paused=True)
    assert log.schedules.owed(10**6, 10**6) == []


@pytest.mark.parametrize(("grace_ms", "is_owed"), [(0, False), (1000, True)])
def test_what_may_be_skipped_is_owed_only_with_grace(log: Log, grace_ms: int, is_owed: bool) -> None:
    log.declare(misfire="skip", grace_ms=grace_ms)
    assert bool(log.schedules.owed(10_000, 50)) is is_owed


def test_how_far_clocks_come_apart_is_what_is_set_and_all_jumps() -> None:
    jumps = (Fault(0, FaultKind.WALL_JUMP, 1, amount=-30), Fault(0, FaultKind.CLIENT_WALL_JUMP, 1, amount=12))
    other = (Fault(0, FaultKind.CRASH, 1, amount=999),)
    case = Case(1, clocks=(ClockKnobs(0, -5), ClockKnobs(0, 3)), plan=jumps + other)
    assert spread_ms(case) == 50
    assert spread_ms(Case(1)) == 0
    assert len(ACTS) <= 8, "three bits of the dice"
