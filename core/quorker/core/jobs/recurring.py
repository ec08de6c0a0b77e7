"""Recurring jobs as rules of the store: declare, remove, trigger, pause, and carry out what a leader found to be due.

No schedule is evaluated here: a step of `AdvanceRecurring` is compared with the entry by numbers alone, and counts only
if nothing about the plan has changed since the leader looked. Two leaders that find the same slot due make one job: the
step that comes second no longer fits. What is due, and when, is found in `recurring_plan`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from quorker.core.jobs.enqueue import make, no_queue_room, no_room
from quorker.core.jobs.new_job import Headers
from quorker.core.jobs.outcome import NO, YES, Reply, done, rejected
from quorker.core.jobs.records import Recurring
from quorker.core.jobs.recurring_commands import (
    RECURRING_HEADER,
    SLOT_HEADER,
    SLOTS_MAX,
    AdvanceRecurring,
    PauseRecurring,
    RemoveRecurring,
    SetRecurring,
    Step,
    TriggerRecurring,
)
from quorker.core.jobs.tables import Tables

NOT_PLANNED: Final = 0

Fired: TypeAlias = tuple[str, int, str]
"""Recurring id, slot, job id."""


def set_recurring(tables: Tables, command: SetRecurring) -> Reply:
    """Value: did it change."""
    if bool(command.cron) == bool(command.every_ms):
        return rejected("bad_schedule", "exactly one of cron and every_ms must be given")
    old = tables.recurring.get(command.recurring_id)
    if old is not None and not old.error and _definition(old) == _declared(command):
        return NO
    refusal = no_room(tables, 0) or _no_recurring_room(tables, old)
    if refusal is not None:
        return refusal
    tables.put_recurring(_changed(tables, old, command))
    return YES


def _definition(entry: Recurring) -> tuple[object, ...]:
    return entry.job, entry.cron, entry.zone, entry.every_ms, entry.misfire, entry.grace_ms


def _declared(command: SetRecurring) -> tuple[object, ...]:
    return command.job, command.cron, command.zone, command.every_ms, command.misfire, command.grace_ms


def _no_recurring_room(tables: Tables, old: Recurring | None) -> Reply | None:
    count, limit = len(tables.recurring), tables.limits.max_recurring
    if old is None and count >= limit:
        return rejected("store_full", f"there are {count} recurring jobs of {limit}")
    return None


def _changed(tables: Tables, old: Recurring | None, command: SetRecurring) -> Recurring:
    """A new revision, to be planned from now; what has happened so far stays."""
    entry = old or Recurring(command.recurring_id, command.job, created_wt=tables.wt)
    return entry._replace(
        job=command.job,
        cron=command.cron,
        zone=command.zone,
        every_ms=command.every_ms,
        misfire=command.misfire,
        grace_ms=command.grace_ms,
        revision=tables.applied_index,
        anchor_wt=tables.wt,
        plan_wt=tables.wt,
        next_wt=NOT_PLANNED,
        error="",
    )


def remove_recurring(tables: Tables, command: RemoveRecurring) -> Reply:
    entry = tables.recurring.get(command.recurring_id)
    if entry is None:
        return NO
    tables.remove_recurring(entry)
    return YES


def pause_recurring(tables: Tables, command: PauseRecurring) -> Reply:
    """Value: did it change. Who paused it, when and why is kept as long as it is paused.

    Either way it loses its plan: resumed, it is planned from that moment, so the slots in between are skipped.
    """
    entry = tables.recurring.get(command.recurring_id)
    if entry is None:
        return _unknown(command.recurring_id)
    changed = entry.paused != command.paused
    if changed:
        entry = entry._replace(
            paused=command.paused,
            paused_wt=tables.wt if command.paused else 0,
            plan_wt=tables.wt,
            next_wt=NOT_PLANNED,
        )
    reason, author = (command.reason, command.author) if command.paused else ("", "")
    tables.put_recurring(entry._replace(reason=reason, author=author))
    return YES if changed else NO


def trigger_recurring(tables: Tables, command: TriggerRecurring) -> Reply:
    entry = tables.recurring.get(command.recurring_id)
    if entry is None:
        return _unknown(command.recurring_id)
    refusal = no_room(tables, 1) or no_queue_room(tables, {entry.job.queue: None})
    if refusal is not None:
        return refusal
    job_id, entry = _make_job(tables, entry, ())
    tables.put_recurring(entry)
    return done(job_id)


def _unknown(recurring_id: str) -> Reply:
    return rejected("not_found", f"there is no recurring job {recurring_id}")


def advance_recurring(tables: Tables, command: AdvanceRecurring) -> Reply:
    """Value: (recurring id, slot, job id) of each slot that fired, in order.

    Steps that do not fit any more, or find no room, are left out.
    """
    if tables.session is not None:
        return rejected("leader_only", "only the leader says what is due")
    fired: list[Fired] = []
    for step in command.steps:
        entry = tables.recurring.get(step.recurring_id)
        if entry is None or not _fits(tables, entry, step) or len(fired) + len(step.slots) > SLOTS_MAX:
            continue
        if step.slots and not has_room(tables, entry, len(step.slots)):
            continue
        fired += _advance(tables, entry, step)
    return done(tuple(fired))


def has_room(tables: Tables, entry: Recurring, jobs: int) -> bool:
    """May so many jobs of this entry be made now."""
    return no_room(tables, jobs) is None and no_queue_room(tables, {entry.job.queue: None}) is None


def _fits(tables: Tables, entry: Recurring, step: Step) -> bool:
    """Was it found for this entry as it stands, and can it be true at the wall time of this log entry."""
    same = (
        entry.is_live()
        and step.revision == entry.revision
        and step.from_wt == entry.next_wt
        and (len(step.slots) <= 1 or entry.misfire != "once")
    )
    return same and _goes_forward(entry, step) and all(slot <= tables.wt for slot in step.slots[-1:])


def _goes_forward(entry: Recurring, step: Step) -> bool:
    """From the planned slot on, each slot comes after the one before; what is not planned yet has none that is due."""
    if step.error:
        return not step.slots and not step.next_wt
    if step.from_wt == NOT_PLANNED:
        return not step.slots and step.next_wt > entry.plan_wt
    instants = (step.from_wt - 1, *step.slots)
    last = max(step.from_wt, instants[-1])
    return step.next_wt > last and all(
        before < slot for before, slot in zip(instants, step.slots, strict=False)
    )


def _advance(tables: Tables, entry: Recurring, step: Step) -> list[Fired]:
    """A slot whose unique key is taken passes with the job that has it."""
    fired: list[Fired] = []
    for slot in step.slots:
        job_id, entry = _make_job(tables, entry, ((SLOT_HEADER, str(slot)),))
        entry = entry._replace(last_slot_wt=slot)
        fired.append((entry.id, slot, job_id))
    tables.put_recurring(entry._replace(next_wt=step.next_wt, error=step.error))
    return fired


def _make_job(tables: Tables, entry: Recurring, headers: Headers) -> tuple[str, Recurring]:
    """The job, or the one that holds its unique key; and the entry with what has happened."""
    own = ((RECURRING_HEADER, entry.id), *headers)
    count = len(tables.jobs)
    job_id = make(tables, entry.job._replace(headers=(*entry.job.headers, *own)))
    if len(tables.jobs) == count:
        return job_id, entry
    return job_id, entry._replace(last_fired_wt=tables.wt, last_job_id=job_id, fired=entry.fired + 1)
