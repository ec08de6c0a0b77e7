"""Recurring jobs said in the simplest way: a plain list of entries, and for each step whether it still counts.

Which slots exist is not known here; that is for `oracles/schedules` to judge. Jobs are made by whoever asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from quorker.core.jobs import commands as c

SLOTS_MAX: Final = 1_000


@dataclass
class NaiveEntry:
    """`planned`: the slot that is waited for; None before anybody has planned it. `since`: when it was declared or paused
    or resumed last. `paused` and `broken`: why it does not fire."""

    declared: tuple[Any, ...]
    revision: int
    since: int
    planned: int | None = None
    paused: bool = False
    broken: str = ""
    last_slot: int = 0
    fired: int = 0
    last_job: str = ""

    @property
    def job(self) -> c.NewJob:
        job: c.NewJob = self.declared[0]
        return job


class NaiveRecurring:
    """`make` makes a job of a template, or finds the one that its unique key stands for: (job id, is it new)."""

    def __init__(self, make: Callable[[c.NewJob, str], tuple[str, bool]]) -> None:
        self._make = make
        self.entries: dict[str, NaiveEntry] = {}

    def declare(self, command: c.SetRecurring, index: int, wt: int) -> bool:
        declared = (
            command.job,
            command.cron,
            command.zone,
            command.every_ms,
            command.misfire,
            command.grace_ms,
        )
        old = self.entries.get(command.recurring_id)
        if old is not None and old.declared == declared and not old.broken:
            return False
        entry = self.entries.setdefault(command.recurring_id, NaiveEntry(declared, index, wt))
        entry.declared, entry.revision, entry.since, entry.planned, entry.broken = (
            declared,
            index,
            wt,
            None,
            "",
        )
        return True

    def remove(self, name: str) -> bool:
        return self.entries.pop(name, None) is not None

    def pause(self, name: str, *, paused: bool, wt: int) -> bool:
        entry = self.entries[name]
        if entry.paused == paused:
            return False
        entry.paused, entry.since, entry.planned = paused, wt, None
        return True

    def trigger(self, name: str, job_id: str) -> str:
        return self._fire(self.entries[name], job_id)

    def advance(self, step: c.Step, wt: int, job_ids: list[str]) -> list[tuple[str, int, str]]:
        """What it fires; takes the ids of the jobs from the front of the list."""
        entry = self.entries.get(step.recurring_id)
        if entry is None or not counts(entry, step, wt):
            return []
        fired: list[tuple[str, int, str]] = []
        for slot in step.slots:
            job_id = self._fire(entry, job_ids.pop(0) if job_ids else f"untold {slot}")
            entry.last_slot = slot
            fired.append((step.recurring_id, slot, job_id))
        entry.planned, entry.broken = (None, step.error) if step.error else (step.next_wt, "")
        return fired

    def _fire(self, entry: NaiveEntry, job_id: str) -> str:
        job_id, is_new = self._make(entry.job, job_id)
        if is_new:
            entry.fired, entry.last_job = entry.fired + 1, job_id
        return job_id

    def rows(self) -> dict[str, Any]:
        """What must be in the store."""
        return {
            name: (
                entry.revision,
                entry.planned,
                entry.last_slot or None,
                entry.fired,
                entry.last_job,
                entry.paused,
                entry.broken,
            )
            for name, entry in sorted(self.entries.items())
        }


def counts(entry: NaiveEntry, step: c.Step, wt: int) -> bool:
    """Somebody looked at this very entry, and what was found can be true."""
    if entry.paused or entry.broken or step.revision != entry.revision:
        return False
    if step.from_wt != (entry.planned or 0) or (step.slots and step.error):
        return False
    if step.error:
        return step.next_wt == 0
    if entry.planned is None:
        return not step.slots and step.next_wt > entry.since
    if entry.declared[4] == "once" and len(step.slots) > 1:
        return False
    line = [*step.slots, step.next_wt]
    ascends = all(earlier < later for earlier, later in itertools.pairwise(line))
    is_late_enough = step.next_wt > entry.planned and line[0] >= entry.planned
    return ascends and is_late_enough and all(slot <= wt for slot in step.slots)


def told_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same of what the store says that it has."""
    named = ("revision", "next_wt", "last_slot_wt", "fired", "last_job_id", "paused", "error")
    return {row["id"]: tuple(row[name] for name in named) for row in rows}
