"""Bugs of recurring jobs: which slots fire, how often, when, and what becomes of those that were missed."""

from __future__ import annotations

from typing import Final

from quorker.core.jobs import maintenance, recurring, recurring_plan
from quorker.core.jobs.commands import PauseRecurring, Step
from quorker.core.jobs.outcome import Reply
from quorker.core.jobs.records import Recurring
from quorker.core.jobs.recurring_plan import After
from quorker.core.jobs.store import HANDLERS
from quorker.core.jobs.tables import Tables
from quorker.sim.mutants.cases import keeping_time
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in

ONCE: Final = "a slot fires once [J13]"
REAL: Final = "only slots of its schedule [J13]"
NOT_EARLY: Final = "no slot before it is due [J13]"
AS_DECLARED: Final = "missed slots as declared [J13]"
EARLY_MS: Final = 40


@bug(
    "What a leader found to be due fires, whatever has been declared since.",
    known="schedulers that lock the schedule while they look, and not until they write",
    oracles=(ONCE, REAL, AS_DECLARED, "witness [C1]"),
    budget=20,
    case=keeping_time,
)
def steps_are_not_compared(patch: Patch) -> None:
    def fits(tables: Tables, entry: Recurring, step: Step) -> bool:
        return entry.is_live()

    patch.replace(recurring, "_fits", fits)


@bug(
    "Slots that passed while nobody led are lost: what is planned next comes after the present moment.",
    known="dkron, and every scheduler that keeps its plan in memory",
    oracles=(AS_DECLARED,),
    budget=20,
    case=keeping_time,
)
def a_new_plan_begins_now(patch: Patch) -> None:
    def each(first: int, wt: int, limit: int, after: After) -> tuple[tuple[int, ...], int]:
        return ((first,), after(wt)) if first <= wt else ((), first)

    patch.replace(recurring_plan, "_each", each)


@bug(
    "Where one job is to stand for all missed slots, there is one for each.",
    known="celery beat after a long stop",
    oracles=(AS_DECLARED,),
    budget=20,
    case=keeping_time,
)
def once_fires_all(patch: Patch) -> None:
    def latest(first: int, wt: int, after: After) -> tuple[tuple[int, ...], int]:
        return (first,), after(first)

    patch.replace(recurring_plan, "_latest", latest)


@bug(
    "A paused entry goes on firing.",
    oracles=(REAL, "witness [C1]", "store invariant"),
    budget=20,
    case=keeping_time,
)
def pauses_are_forgotten(patch: Patch) -> None:
    def is_live(self: Recurring) -> bool:
        return not self.error

    patch.replace(Recurring, "is_live", is_live)


@bug(
    "Whoever resumes an entry starts it from the beginning, so slots fire that have fired before.",
    oracles=(ONCE, REAL),
    budget=20,
    case=keeping_time,
)
def resumed_entries_begin_anew(patch: Patch) -> None:
    def pause(tables: Tables, command: PauseRecurring) -> Reply:
        reply: Reply = handle(tables, command)
        entry = tables.recurring.get(command.recurring_id)
        if entry is not None and not entry.paused and reply == (0, True):
            tables.put_recurring(entry._replace(plan_wt=entry.anchor_wt))
        return reply

    handle = patch.replace_item(HANDLERS, PauseRecurring.OP, pause)


@bug(
    "Slots fire a little before their time.",
    known="timers that are rounded to the nearest tick",
    oracles=(NOT_EARLY,),
    budget=20,
    case=keeping_time,
)
def slots_fire_early(patch: Patch) -> None:
    def due_early(tables: Tables, wt: int) -> tuple[Step, ...]:
        steps: tuple[Step, ...] = due_steps(tables, wt + EARLY_MS)
        return steps

    def fits_early(tables: Tables, entry: Recurring, step: Step) -> bool:
        tables.wt += EARLY_MS
        try:
            return bool(fits(tables, entry, step))
        finally:
            tables.wt -= EARLY_MS

    due_steps = patch.replace(maintenance, "due_steps", due_early)
    fits = patch.replace(recurring, "_fits", fits_early)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
