"""Reads of jobs: one of them, its details, and pages of them by state, task, tag, schedule and queue.

Pages come from indexes; what they cost depends on what they return and skip, not on how many jobs there are. A page is
asked for by rank (`start`), which may shift under changes, or by cursor (`after`, the `next` of the page before), which
does not. Entries of queues and sets that name a job that is gone are shown as (id, None).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final, TypeAlias

from quorker.core.jobs import bounds
from quorker.core.jobs.lifecycle import AWAITING, ENQUEUED
from quorker.core.jobs.limiters import Line
from quorker.core.jobs.queries_form import (
    COUNT,
    CURSOR,
    JOB_ID,
    KEY,
    NAME,
    NEWEST_FIRST,
    QUEUE,
    START,
    Query,
    need,
    page_end,
)
from quorker.core.jobs.records import Job, Lease, Place, Queue, StateRecord
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.timeline import Timeline

ARGS_SHOWN_BYTES: Final = 1024
SCHEDULE_SET: Final = "schedule"

Fields: TypeAlias = dict[str, Any]
Entry: TypeAlias = tuple[str, Fields | None]
"""(job id, summary), or (id, None) when the job is gone."""


# One job ----------------------------------------------------------------------------------------------------------


def job(tables: Tables, job_id: str) -> Fields | None:
    """What the contract reads of a job: call, state (None before the first), parameters; and its result."""
    found = tables.jobs.get(job_id)
    if found is None:
        return None
    return {
        "id": found.id,
        "task": found.spec.task,
        "args": found.spec.args,
        "queue": found.spec.queue,
        "state": found.current.name if found.current else None,
        "created_wt": found.created_wt,
        "parameters": dict(found.parameters),
        "result": found.result,
    }


def state(tables: Tables, job_id: str) -> Fields | None:
    """The current state; None when the job is missing or has none."""
    found = tables.jobs.get(job_id)
    return None if found is None or found.current is None else _state_fields(found.current)


def job_parameter(tables: Tables, job_id: str, name: str) -> str | None:
    """None for a missing job, a missing name and a null value alike."""
    found = tables.jobs.get(job_id)
    return dict(found.parameters).get(name) if found else None


def job_parameters(tables: Tables, job_id: str) -> dict[str, str | None] | None:
    """None for a missing job."""
    found = tables.jobs.get(job_id)
    return dict(found.parameters) if found else None


def job_details(tables: Tables, job_id: str) -> Fields | None:
    """Everything about a job, history newest first. `expires_in_ms`: None for never.

    `leases`: how many hold it; `lease`: that of the worker which runs it, or None. `waits_for_limit`: is it in a line that
    its key leaves no room for. `start_by_wt`: when it is deleted unless it has started, 0 for never.
    """
    found = tables.jobs.get(job_id)
    if found is None:
        return None
    lease = tables.leases.get(found.token)
    return summary(found) | {
        "args": found.spec.args,
        "timeout_ms": found.spec.timeout_ms,
        "headers": dict(found.spec.headers),
        "tags": found.spec.tags,
        "unique_key": found.spec.unique_key,
        "retry": _retry_fields(found),
        "parameters": dict(found.parameters),
        "history": [_state_fields(record) for record in reversed(found.history)],
        "result": found.result,
        "expires_in_ms": found.expires_lt - tables.lt if found.expires_lt else None,
        "leases": tables.index.held.get(job_id, 0),
        "lease": _lease_fields(tables, lease) if lease else None,
        "queues": sorted({place.queue for place in tables.places.get(job_id, ())}),
        "parent": _parent_fields(tables, found),
        "limit_key": found.spec.start.key if found.spec.start else "",
        "waits_for_limit": _waits_for_limit(tables, found),
        "start_by_wt": tables.start_by.get(job_id, 0),
        "continuations": list(islice(tables.index.children.get(job_id, ()), 1000)),
        "batch": found.spec.batch_id or None,
    }


def _waits_for_limit(tables: Tables, of: Job) -> bool:
    """Every place that it has is in a line which stands still, or behind the first of one."""
    places = tables.places.get(of.id, ())
    return bool(places) and all(_is_held_up(tables, place) for place in places)


def _is_held_up(tables: Tables, place: Place) -> bool:
    if not place.key:
        return False
    return tables.limiters.by_key[place.key].lines[place.queue].offer is None


def _retry_fields(of: Job) -> Fields | None:
    policy = of.spec.retry
    if policy is None:
        return None
    return {
        "attempts": policy.attempts,
        "delays_ms": policy.delays_ms,
        "base_ms": policy.base_ms,
        "cap_ms": policy.cap_ms,
        "on_exceed": policy.on_exceed,
    }


def _state_fields(record: StateRecord) -> Fields:
    return {"name": record.name, "reason": record.reason, "at_wt": record.at_wt, "data": dict(record.data)}


def _lease_fields(tables: Tables, lease: Lease) -> Fields:
    session = tables.sessions.get(lease.session)
    return {
        "token": lease.token,
        "job_id": lease.job_id,
        "queue": lease.queue,
        "session": lease.session,
        "worker": session.name if session else "",
        "kind": lease.kind.name.lower(),
        "since_wt": lease.since_wt,
    }


def summary(of: Job) -> Fields:
    current = of.current
    return {
        "id": of.id,
        "task": of.spec.task,
        "args": of.spec.args[:ARGS_SHOWN_BYTES],
        "args_size": len(of.spec.args),
        "queue": of.spec.queue,
        "priority": of.spec.priority,
        "created_wt": of.created_wt,
        "state": current.name if current else None,
        "reason": current.reason if current else "",
        "state_wt": current.at_wt if current else 0,
        "data": dict(current.data) if current else {},
        "failures": of.failures,
        "deliveries": of.deliveries,
        "due_wt": of.due_wt,
    }


def _parent_fields(tables: Tables, of: Job) -> Fields | None:
    """The parent with its state *now*; None when the job is no continuation."""
    named = dict(of.current.data) if of.current and of.current.name == AWAITING else {}
    parent_id = of.spec.parent_id or named.get("parent_id") or named.get("ParentId")
    if type(parent_id) is not str:
        return None
    return {"id": parent_id, "state": tables.state_of_parent(parent_id)}


# Pages ------------------------------------------------------------------------------------------------------------


def jobs_by_state(
    tables: Tables, state_name: str, start: int, count: int, newest_first: bool, after: int | None
) -> Fields:
    """Jobs in the order they entered their current state. A page: {rows, next, total}."""
    page = _page(tables, tables.index.states.get(state_name), start, count, newest_first, after)
    if state_name == AWAITING:
        for row in page["rows"]:
            row["parent"] = _parent_fields(tables, tables.jobs[row["id"]])
    return page | {"next": _next(tables, page["rows"], count, by_state=True)}


def jobs_by_task(
    tables: Tables, task: str, start: int, count: int, newest_first: bool, after: int | None
) -> Fields:
    """Jobs in order of creation. A page as for a state."""
    return page_by_creation(tables, tables.index.tasks.get(task), start, count, newest_first, after)


def jobs_by_tag(
    tables: Tables, tag: str, start: int, count: int, newest_first: bool, after: int | None
) -> Fields:
    """Jobs in order of creation. A page as for a state."""
    return page_by_creation(tables, tables.index.tags.get(tag), start, count, newest_first, after)


def page_by_creation(
    tables: Tables, timeline: Timeline | None, start: int, count: int, newest_first: bool, after: int | None
) -> Fields:
    page = _page(tables, timeline, start, count, newest_first, after)
    return page | {"next": _next(tables, page["rows"], count, by_state=False)}


def _page(
    tables: Tables, timeline: Timeline | None, start: int, count: int, newest_first: bool, after: int | None
) -> Fields:
    if timeline is None:
        return {"rows": [], "total": 0}
    if after is None:
        ids: Iterable[str] = timeline.page(start, page_end(start, count), newest_first)
    else:
        rows = timeline.before(after) if newest_first else timeline.after(after)
        ids = [job_id for _, job_id in islice(rows, page_end(0, count))]
    return {"rows": [summary(tables.jobs[job_id]) for job_id in ids], "total": len(timeline)}


def _next(tables: Tables, rows: list[Fields], count: int, by_state: bool) -> int | None:
    """The cursor of the following page; None when this one was not full."""
    if not rows or len(rows) < page_end(0, count):
        return None
    last = tables.jobs[rows[-1]["id"]]
    return last.order if by_state else last.created


def state_count(tables: Tables, state_name: str) -> int:
    return tables.index.count(state_name)


def scheduled_jobs(tables: Tables, start: int, count: int) -> list[Entry]:
    """What is due next, soonest first: scheduled jobs, and the members `id` or `queue:id` of the set `schedule`."""
    stop = page_end(start, count)
    if not tables.collections.sets.size(SCHEDULE_SET):
        page = tables.index.schedule.page(start, stop)
        return [_due_entry(tables, due_wt, job_id) for due_wt, _, job_id in page]
    due = merge(_scheduled_natively(tables), _scheduled_in_set(tables), key=itemgetter(0))
    return [_due_entry(tables, due_wt, job_id) for due_wt, job_id in islice(due, start, stop)]


def scheduled_count(tables: Tables) -> int:
    return len(tables.index.schedule) + tables.collections.sets.size(SCHEDULE_SET)


def _scheduled_natively(tables: Tables) -> Iterator[tuple[int, str]]:
    return ((due_wt, job_id) for due_wt, _, job_id in tables.index.schedule)


def _scheduled_in_set(tables: Tables) -> Iterator[tuple[int, str]]:
    """(due in ms, job id). Scores are seconds, the resolution that the set's users know."""
    for score, member in tables.collections.sets.each(SCHEDULE_SET):
        due_ms = min(max(score * 1000.0, 0.0), float(bounds.INSTANT_MAX))
        yield int(due_ms), member.rpartition(":")[2]


def _due_entry(tables: Tables, due_wt: int, job_id: str) -> Entry:
    found = tables.jobs.get(job_id)
    return job_id, None if found is None else summary(found) | {"due_wt": due_wt}


def enqueued_jobs(tables: Tables, queue: str, start: int, count: int) -> list[Entry]:
    """The entries of a queue from its head. `in_state`: is the job still Enqueued, as its place says."""
    found = tables.queues.get(queue)
    if found is None:
        return []
    entries = _entries_with_lines if found.lined else _entries
    ids = entries(tables, found, start, page_end(start, count))
    return [_queue_entry(tables, job_id) for job_id in ids]


def _queue_entry(tables: Tables, job_id: str) -> Entry:
    found = tables.jobs.get(job_id)
    return job_id, None if found is None else summary(found) | {"in_state": found.state == ENQUEUED}


def _entries_with_lines(tables: Tables, queue: Queue, start: int, stop: int) -> list[str]:
    """The same, with the lines of keys among the lanes: in the order in which all would start if there were no limits."""
    lines = (limiter.lines.get(queue.name) for limiter in tables.limiters.by_key.values())
    orders = [_in_line(line) for line in lines if line is not None]
    return [job_id for _, _, job_id in islice(merge(_in_lanes(queue), *orders), start, stop)]


def _in_line(line: Line) -> Iterator[tuple[int, int, str]]:
    return ((negative, position, line.entries[position][0]) for negative, position in line.rows)


def _in_lanes(queue: Queue) -> Iterator[tuple[int, int, str]]:
    for priority in queue.priorities:
        lane = queue.lanes[priority]
        for position, job_id in chain(reversed(lane.front.items()), lane.back):
            yield -priority, position, job_id


def _entries(_: Tables, queue: Queue, start: int, stop: int) -> list[str]:
    """Job ids of rank `start` (inclusive) to `stop` (exclusive), most urgent priority first, heads first."""
    found: list[str] = []
    for priority in queue.priorities:
        lane = queue.lanes[priority]
        front = len(lane.front)
        if start < front:
            found.extend(islice(reversed(lane.front.values()), max(start, 0), max(stop, 0)))
        if stop > front:
            found.extend(lane.back.page(max(start - front, 0), stop - front))
        start -= len(lane)
        stop -= len(lane)
    return found


def fetched_jobs(tables: Tables, queue: str, start: int, count: int) -> list[Entry]:
    """What was taken from a queue and is still held. A row is a job's summary with its `lease`."""
    found = tables.queues.get(queue)
    if found is None:
        return []
    tokens = islice(found.fetched, start, page_end(start, count))
    return [_fetched_entry(tables, tables.leases[token]) for token in tokens]


def _fetched_entry(tables: Tables, lease: Lease) -> Entry:
    found = tables.jobs.get(lease.job_id)
    if found is None:
        return lease.job_id, None
    return lease.job_id, summary(found) | {"lease": _lease_fields(tables, lease)}


def queue_counts(tables: Tables, queue: str) -> tuple[int, int]:
    """(waiting, fetched)."""
    found = tables.queues.get(queue)
    return (found.length, len(found.fetched)) if found else (0, 0)


def has_waiting(tables: Tables, queues: tuple[str, ...]) -> bool:
    """Is there anything to fetch from one of the queues now."""
    found = (tables.queues.get(name) for name in queues)
    return any(queue is not None and queue.has_next and not queue.paused for queue in found)


def unique_key_holder(tables: Tables, key: str) -> str | None:
    """The id of the job that holds an idempotency key."""
    unique = tables.unique_keys.get(key)
    return unique.job_id if unique else None


_PAGE: Final = {"start": START, "count": COUNT, "newest_first": NEWEST_FIRST, "after": CURSOR}

QUERIES: Final[dict[str, Query]] = {
    "job": Query(job, {"job_id": JOB_ID}),
    "state": Query(state, {"job_id": JOB_ID}),
    "job_parameter": Query(job_parameter, {"job_id": JOB_ID, "name": NAME}),
    "job_parameters": Query(job_parameters, {"job_id": JOB_ID}),
    "job_details": Query(job_details, {"job_id": JOB_ID}),
    "jobs_by_state": Query(jobs_by_state, {"state": need(bounds.STATE), **_PAGE}),
    "jobs_by_task": Query(jobs_by_task, {"task": need(bounds.TASK), **_PAGE}),
    "jobs_by_tag": Query(jobs_by_tag, {"tag": need(bounds.text("tag", 1, 64)), **_PAGE}),
    "state_count": Query(state_count, {"state": need(bounds.STATE)}),
    "scheduled_jobs": Query(scheduled_jobs, {"start": START, "count": COUNT}),
    "scheduled_count": Query(scheduled_count),
    "enqueued_jobs": Query(enqueued_jobs, {"queue": QUEUE, "start": START, "count": COUNT}),
    "fetched_jobs": Query(fetched_jobs, {"queue": QUEUE, "start": START, "count": COUNT}),
    "queue_counts": Query(queue_counts, {"queue": QUEUE}),
    "has_waiting": Query(has_waiting, {"queues": need(bounds.QUEUES)}),
    "unique_key_holder": Query(unique_key_holder, {"key": KEY}),
}
