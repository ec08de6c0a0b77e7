"""Whether recurring jobs keep their promises (J13, T6): judged by what was applied, with arithmetic of its own.

An entry's slots are multiples of a period, counted from where it was declared, or from the epoch for the few cron
expressions that clients use. It sees each command once and each slot that fired, and knows nothing of plans and steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from quorker.core.jobs.commands import (
    AdvanceRecurring,
    PauseRecurring,
    RemoveRecurring,
    SetRecurring,
    TriggerRecurring,
)
from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Reply
from quorker.sim.oracles.checks import Violation

ONCE: Final = "a slot fires once [J13]"
REAL: Final = "only slots of its schedule [J13]"
NOT_EARLY: Final = "no slot before it is due [J13]"
AS_DECLARED: Final = "missed slots as declared [J13]"
PERIODS_MS: Final = {"* * * * * *": 1_000, "*/2 * * * * *": 2_000}
PATIENCE_MS: Final = 500


@dataclass(slots=True)
class Schedule:
    """`period_ms`: 0 for one that never fires. `floor_wt`: no slot up to then may fire any more; 0 while paused."""

    period_ms: int
    anchor_wt: int
    misfire: str
    grace_ms: int
    floor_wt: int
    paused: bool = False

    def is_slot(self, instant: int) -> bool:
        return self.period_ms > 0 and (instant - self.anchor_wt) % self.period_ms == 0

    def after(self, instant: int) -> int:
        return instant + self.period_ms - (instant - self.anchor_wt) % self.period_ms


class Schedules:
    """`last`: the newest slot that fired, by id, for good: time goes on also for one that is removed and comes back."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._entries: dict[str, Schedule] = {}
        self._last: dict[str, int] = {}
        self._terms: dict[str, int] = {}
        self._made: dict[str, tuple[tuple[str, str], ...]] = {}  # job -> what its headers must say

    # ------------------------------------------------------------------ the log, once

    def on_command(self, command: Any, reply: Reply, wt: int, term: int) -> None:
        """One command about recurring jobs, and what the store said to it."""
        if reply[0]:
            return
        value: Any = reply[1]
        match command:
            case SetRecurring() if value:
                self._on_declared(command, wt)
            case RemoveRecurring(name) if value:
                del self._entries[name]
            case PauseRecurring(name, paused) if value:
                self._entries[name].paused = paused
                self._entries[name].floor_wt = wt
            case TriggerRecurring(name):
                self._made.setdefault(value, (("quorker-recurring", name),))
            case AdvanceRecurring(steps):
                self._on_advanced(value, wt, term)
                if len(value) < sum(len(step.slots) for step in steps):
                    self._note("step of a schedule that no longer fits")
            case _:
                pass

    def _on_declared(self, command: SetRecurring, wt: int) -> None:
        known = self._entries.get(command.recurring_id)
        period_ms = command.every_ms or PERIODS_MS.get(command.cron, 0)
        self._entries[command.recurring_id] = Schedule(
            period_ms,
            wt if command.every_ms else 0,
            command.misfire,
            command.grace_ms,
            wt,
            known is not None and known.paused,
        )

    def _on_advanced(self, fired: Any, wt: int, term: int) -> None:
        for name, slot, job_id in fired:
            schedule = self._entries.get(name)
            if schedule is None or schedule.paused:
                raise Violation(REAL, f"{name} fires {slot} at {wt} and is {schedule}")
            self._judge(name, schedule, slot, wt)
            self._last[name] = slot
            if self._terms.setdefault(name, term) != term:
                self._note("slot fired by the next leader")
            self._terms[name] = term
            self._made.setdefault(job_id, (("quorker-recurring", name), ("quorker-slot", str(slot))))

    def _judge(self, name: str, schedule: Schedule, slot: int, wt: int) -> None:
        last = self._last.get(name, 0)
        if slot <= last:
            raise Violation(ONCE, f"{name} fires {slot} after {last}")
        if not schedule.is_slot(slot) or slot <= schedule.floor_wt:
            raise Violation(REAL, f"{name} fires {slot} and is {schedule}")
        if slot > wt:
            raise Violation(NOT_EARLY, f"{name} fires {slot} at {wt}")
        first = schedule.after(max(last, schedule.floor_wt))
        if slot > first:
            self._note("missed slots made up for")
        if not _is_as_declared(schedule, first, slot, wt):
            raise Violation(AS_DECLARED, f"{name} fires {slot} at {wt}, {first} was next, and is {schedule}")

    # ------------------------------------------------------------------ what comes of it

    def on_granted(self, grant: JobGrant) -> None:
        """A job says what it was made for; whoever runs it may rely on that."""
        headers = self._made.get(grant.job_id)
        if headers is not None and grant.headers != headers:
            raise Violation(REAL, f"{grant.job_id} is of {headers} and says {grant.headers}")

    def owed(self, wall_ms: int, since_wt: int) -> list[str]:
        """Entries that should have fired by this wall clock, and since that instant, and have not."""
        return [
            f"{name} after {self._last.get(name, 0)}"
            for name, schedule in self._entries.items()
            if _must_fire(schedule) and self._is_late(name, schedule, wall_ms, since_wt)
        ]

    def _is_late(self, name: str, schedule: Schedule, wall_ms: int, since_wt: int) -> bool:
        last = self._last.get(name, 0)
        due = schedule.after(max(last, schedule.floor_wt))
        return last <= since_wt or due <= wall_ms - PATIENCE_MS


def _is_as_declared(schedule: Schedule, first: int, slot: int, wt: int) -> bool:
    """`first`: the slot after the last one that fired."""
    if schedule.misfire == "all":
        return slot == first
    if schedule.misfire == "once":
        return schedule.after(slot) > wt
    before = slot - schedule.period_ms
    return slot >= wt - schedule.grace_ms and (slot == first or before < wt - schedule.grace_ms)


def _must_fire(schedule: Schedule) -> bool:
    """It is due within a few seconds again and again, and late slots are not lost."""
    soon = 0 < schedule.period_ms <= max(PERIODS_MS.values())
    return soon and not schedule.paused and (schedule.misfire != "skip" or schedule.grace_ms > PATIENCE_MS)
