"""What is due of the recurring jobs, as the leader finds it by its wall clock, in bounded steps; and when to look again.

Here schedules are evaluated, so nothing that is applied may depend on this module: every member compares the numbers of
a step, `recurring` says how. An entry that is not planned is planned first; a slot fires when its instant has come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from quorker.core.jobs import cron
from quorker.core.jobs.bounds import INSTANT_MAX, REASON_CHARS_MAX
from quorker.core.jobs.cron import BadSchedule
from quorker.core.jobs.enqueue import no_room
from quorker.core.jobs.records import Recurring
from quorker.core.jobs.recurring import NOT_PLANNED, has_room
from quorker.core.jobs.recurring_commands import SLOTS_MAX, STEPS_MAX, Step
from quorker.core.jobs.tables import Tables

EVALUATIONS_MAX: Final = (
    200  # of schedules, by one look; each may take a tenth of a millisecond, the leader's only thread
)
SLOTS_PER_STEP_MAX: Final = 50

After: TypeAlias = Callable[[int], int]
"""The first slot after an instant."""


class _Clock:
    """Counts how often a schedule is evaluated."""

    def __init__(self) -> None:
        self.spent = 0

    def of(self, entry: Recurring) -> After:
        if entry.every_ms:
            return lambda instant: _next_of_interval(entry.anchor_wt, entry.every_ms, instant)
        return lambda instant: self._evaluate(entry, instant)

    def _evaluate(self, entry: Recurring, instant: int) -> int:
        self.spent += 1
        return cron.next_slot(entry.cron, entry.zone, instant)


def _next_of_interval(anchor_wt: int, every_ms: int, instant: int) -> int:
    """Slots are whole intervals after the anchor, which is none itself."""
    found = anchor_wt + (max(0, instant - anchor_wt) // every_ms + 1) * every_ms
    if found > INSTANT_MAX:
        raise BadSchedule(f"every {every_ms} ms: the next one is beyond the end of time")
    return found


def next_slot_due(tables: Tables) -> int | None:
    """The earliest wall time at which `due_steps` has something, or None. One without room for its jobs waits for a
    change of the store, not for a time."""
    is_full = no_room(tables, 1) is not None
    for next_wt, recurring_id in tables.recurring_plan:
        if next_wt == NOT_PLANNED:
            return next_wt
        if is_full:
            return None
        if has_room(tables, tables.recurring[recurring_id], 1):
            return next_wt
    return None


def due_steps(tables: Tables, wt: int) -> tuple[Step, ...]:
    """What the leader should propose at this wall time, the entry that waits longest first."""
    clock, steps = _Clock(), list[Step]()
    room = _room(tables)
    for next_wt, recurring_id in tables.recurring_plan:
        if next_wt > wt or len(steps) >= STEPS_MAX or clock.spent >= EVALUATIONS_MAX:
            break
        entry = tables.recurring[recurring_id]
        if next_wt != NOT_PLANNED:
            if room <= 0:
                break
            if not has_room(tables, entry, 1):
                continue
        step = _step(entry, wt, min(room, SLOTS_PER_STEP_MAX), clock.of(entry))
        room -= len(step.slots)
        steps.append(step)
    return tuple(steps)


def _room(tables: Tables) -> int:
    """How many jobs one command may make now."""
    if no_room(tables, 1) is not None:
        return 0
    return min(tables.limits.piece, SLOTS_MAX, tables.limits.max_jobs - len(tables.jobs))


def _step(entry: Recurring, wt: int, limit: int, after: After) -> Step:
    try:
        slots, next_wt = _due(entry, wt, limit, after)
    except BadSchedule as error:
        return Step(entry.id, entry.revision, entry.next_wt, (), NOT_PLANNED, str(error)[:REASON_CHARS_MAX])
    return Step(entry.id, entry.revision, entry.next_wt, slots, next_wt)


def _due(entry: Recurring, wt: int, limit: int, after: After) -> tuple[tuple[int, ...], int]:
    """The slots to fire, and the next one to plan."""
    if entry.next_wt == NOT_PLANNED:
        return (), after(entry.plan_wt)
    if entry.misfire == "once":
        return _latest(entry.next_wt, wt, after)
    first = entry.next_wt
    if entry.misfire == "skip" and first < wt - entry.grace_ms:
        first = after(wt - entry.grace_ms - 1)
    return _each(first, wt, limit, after)


def _latest(first: int, wt: int, after: After) -> tuple[tuple[int, ...], int]:
    """The last slot that is due stands for all. It is found by halving, which takes as many steps for a year as the
    seconds of a year have bits."""
    following = after(first)
    if following > wt:
        return (first,), following
    latest, low, high = following, following, wt
    while low < high:
        middle = (low + high) // 2
        following = after(middle)
        if following > wt:
            high = middle
        else:
            latest = low = following
    return (latest,), after(latest)


def _each(first: int, wt: int, limit: int, after: After) -> tuple[tuple[int, ...], int]:
    slots: list[int] = []
    while first <= wt and len(slots) < limit:
        slots.append(first)
        first = after(first)
    return tuple(slots), first
