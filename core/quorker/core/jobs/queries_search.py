"""Reads that look for jobs by several properties at once, and figures over the jobs of one task.

A search walks the narrowest index that holds every match, newest first, and looks at a bounded number of jobs per call:
it may return few rows, or none, together with the place where the next call goes on. So what a call costs depends
neither on how many jobs there are nor on how rare a match is. Arguments are opaque here: a search compares bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import Check, refuse
from quorker.core.jobs.lifecycle import FAILED, STATES, SUCCEEDED
from quorker.core.jobs.queries_form import START, Query, maybe, need, page_end
from quorker.core.jobs.queries_jobs import summary
from quorker.core.jobs.records import Job, StateData
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.timeline import Timeline

EXAMINED_MAX: Final = 5_000
ROWS_MAX: Final = 500
NEEDLES_MAX: Final = 16
NEEDLE_BYTES_MAX: Final = 1024
SAMPLE_MAX: Final = 2_000
CREATED: Final = "created"
CHANGED: Final = "changed"
SHARES: Final = (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("max", 100))

Fields: TypeAlias = dict[str, Any]
Cursor: TypeAlias = tuple[str, int]


class Wanted(NamedTuple):
    """What a job must be like. Empty texts, empty tuples and None ask for nothing; all that is asked must hold.

    `task`: a name, or a pattern as in `is_like`. `error`: part of the type or message of the last failure, in any
    case. `args_hold`: byte strings that must all occur in the arguments. Times are wall times in ms, the first of a pair
    included and the second not: of the job's creation, and of the change into its present state.
    """

    states: tuple[str, ...]
    task: str
    queue: str
    tag: str
    created_from: int | None
    created_until: int | None
    changed_from: int | None
    changed_until: int | None
    error: str
    args_hold: tuple[bytes, ...]

    def holds_for(self, job: Job) -> bool:
        spec, current = job.spec, job.current
        if self.states and (current is None or current.name not in self.states):
            return False
        if self.task and not is_like(spec.task, self.task):
            return False
        if (self.queue and spec.queue != self.queue) or (self.tag and self.tag not in spec.tags):
            return False
        if not _is_between(self.created_from, job.created_wt, self.created_until):
            return False
        if not _is_between(self.changed_from, current.at_wt if current else 0, self.changed_until):
            return False
        if not all(needle in spec.args for needle in self.args_hold):
            return False
        return not self.error or self.error.casefold() in _error_text(job).casefold()


def _is_between(low: int | None, instant: int, high: int | None) -> bool:
    return (low is None or low <= instant) and (high is None or instant < high)


def search_jobs(
    tables: Tables, count: int, examine: int, after: Cursor | None, *asked: Any
) -> dict[str, Any]:
    """Jobs that match, newest first: {rows, next, examined, by}.

    `by` says in which order: "created", or "changed" (into their present state). `next`: pass it as `after` to go on, None
    when everything has been looked at. A row is a job's summary with `tags` and with `error`, the (type, message) of
    its last failure or None.
    """
    wanted = Wanted(*asked)
    by, timelines = _leading(tables, wanted, after[0] if after else None)
    number = after[1] if after else bounds.INT64_MAX
    rows: list[Fields] = []
    examined = 0
    for place, job_id in islice(_newest_first(timelines, number), examine):
        examined, number = examined + 1, place
        job = tables.jobs[job_id]
        if wanted.holds_for(job):
            rows.append(_row(job))
            if len(rows) == count:
                break
    is_done = examined < examine and len(rows) < count
    return {"rows": rows, "next": None if is_done else (by, number), "examined": examined, "by": by}


def _row(job: Job) -> Fields:
    failure = last_failure(job)
    error = None if failure is None else _type_and_message(failure)
    return summary(job) | {"tags": job.spec.tags, "error": error}


def is_like(name: str, pattern: str) -> bool:
    """Does the name match a pattern in which `*` stands for any text and `?` for any one character.

    Only the last star is ever tried again, so the cost is bounded by the product of the lengths.
    """
    at, place, star, resumed = 0, 0, -1, 0
    while at < len(name):
        sign = pattern[place] if place < len(pattern) else ""
        if sign == "*":
            star, resumed = place, at
            place += 1
        elif sign == "?" or sign == name[at]:
            at, place = at + 1, place + 1
        elif star < 0:
            return False
        else:
            resumed += 1
            at, place = resumed, star + 1
    return not pattern[place:].strip("*")


def _leading(tables: Tables, wanted: Wanted, by: str | None) -> tuple[str, list[Timeline]]:
    """The index to walk: whichever holds fewer jobs; in the middle of a search, the one that it began with."""
    created = _by_creation(tables, wanted)
    changed = [tables.index.states.get(name) for name in wanted.states or tuple(tables.index.states)]
    by_change = [timeline for timeline in changed if timeline is not None]
    if by is None:
        is_narrower = created is not None and _size(created) <= _size(by_change)
        by = CREATED if is_narrower else CHANGED
    return (CREATED, created or []) if by == CREATED else (CHANGED, by_change)


def _by_creation(tables: Tables, wanted: Wanted) -> list[Timeline] | None:
    """None when no index by creation holds all that can match."""
    if wanted.tag:
        timeline = tables.index.tags.get(wanted.tag)
        return [] if timeline is None else [timeline]
    if wanted.task:
        return [timeline for name, timeline in tables.index.tasks.items() if is_like(name, wanted.task)]
    return None


def _size(timelines: Iterable[Timeline]) -> int:
    return sum(timeline.size for timeline in timelines)


def _newest_first(timelines: list[Timeline], below: int) -> Iterator[tuple[int, str]]:
    if len(timelines) == 1:
        return timelines[0].before(below)
    return merge(*(timeline.before(below) for timeline in timelines), reverse=True)


# Failures ---------------------------------------------------------------------------------------------------------


def last_failure(job: Job) -> StateData | None:
    """The data of the last failure in a job's history, whatever came after it."""
    return next((record.data for record in reversed(job.history) if record.name == FAILED), None)


def _type_and_message(data: StateData) -> tuple[str, str]:
    """Jobs of the contract name them as its users do."""
    found = dict(data)
    kind = found.get("error_type") or found.get("ExceptionType") or ""
    message = found.get("message") or found.get("ExceptionMessage") or ""
    return str(kind), str(message)


def _error_text(job: Job) -> str:
    failure = last_failure(job)
    return "" if failure is None else ": ".join(_type_and_message(failure))


# Tasks ------------------------------------------------------------------------------------------------------------


def tasks(tables: Tables, start: int, count: int) -> list[Fields]:
    """The tasks of the jobs that are stored, by name, each with how many of them there are."""
    names = sorted(tables.index.tasks)[start : page_end(start, count)]
    return [{"task": name, "jobs": tables.index.tasks[name].size} for name in names]


def task_figures(tables: Tables, task: str, sample: int) -> Fields:
    """Figures over the newest `sample` jobs of a task that are still stored: {task, total, sampled, states, latency_ms,
    duration_ms}.

    `latency_ms` (created to started) and `duration_ms` (started to succeeded) are over those of them that succeeded: the
    nearest-rank percentiles p50, p90, p95, p99 and max; None when there are none.
    """
    timeline = tables.index.tasks.get(task)
    ids = timeline.page(0, sample, newest_first=True) if timeline else []
    jobs = [tables.jobs[job_id] for job_id in ids]
    states: dict[str, int] = dict.fromkeys(STATES, 0)
    for job in jobs:
        states[job.state] = states.get(job.state, 0) + 1
    done = [dict(job.current.data) for job in jobs if job.current and job.current.name == SUCCEEDED]
    return {
        "task": task,
        "total": timeline.size if timeline else 0,
        "sampled": len(jobs),
        "states": {name: number for name, number in states.items() if name and number},
        "latency_ms": _percentiles(data.get("latency_ms") for data in done),
        "duration_ms": _percentiles(data.get("duration_ms") for data in done),
    }


def _percentiles(values: Iterable[object]) -> dict[str, int] | None:
    ordered = sorted(value for value in values if type(value) is int)
    if not ordered:
        return None
    return {name: ordered[max(0, -(-share * len(ordered) // 100) - 1)] for name, share in SHARES}


# Arguments --------------------------------------------------------------------------------------------------------


def _cursor(value: Any) -> Cursor:
    items = bounds.array("after", value)
    if len(items) != 2 or items[0] not in (CREATED, CHANGED) or type(items[0]) is not str:
        refuse("after", "must be the `next` of the page before")
    return items[0], bounds.TOKEN(items[1])


_ANY_TEXT: Final[Check[str]] = bounds.text("text", 0, bounds.NAME_CHARS_MAX)
_WHEN: Final = maybe(bounds.maybe(bounds.INSTANT), None)

QUERIES: Final[dict[str, Query]] = {
    "search_jobs": Query(
        search_jobs,
        {
            "count": maybe(bounds.whole("count", 1, ROWS_MAX), 20),
            "examine": maybe(bounds.whole("examine", 1, EXAMINED_MAX), EXAMINED_MAX),
            "after": maybe(bounds.maybe(_cursor), None),
            "states": maybe(bounds.STATES, ()),
            "task": maybe(_ANY_TEXT, ""),
            "queue": maybe(_ANY_TEXT, ""),
            "tag": maybe(_ANY_TEXT, ""),
            "created_from": _WHEN,
            "created_until": _WHEN,
            "changed_from": _WHEN,
            "changed_until": _WHEN,
            "error": maybe(_ANY_TEXT, ""),
            "args_hold": maybe(
                bounds.many("args_hold", bounds.binary("args_hold", NEEDLE_BYTES_MAX), 0, NEEDLES_MAX), ()
            ),
        },
    ),
    "tasks": Query(tasks, {"start": START, "count": maybe(bounds.whole("count", 0, bounds.INT64_MAX), 20)}),
    "task_figures": Query(
        task_figures,
        {
            "task": need(bounds.text("task", 1, bounds.TASK_CHARS_MAX)),
            "sample": maybe(bounds.whole("sample", 1, SAMPLE_MAX), SAMPLE_MAX),
        },
    ),
}
