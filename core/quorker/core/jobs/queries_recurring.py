"""Reads about recurring jobs: one entry, and pages of them by id. A page has only the beginning of long arguments.

An instant is None where there is none: `next_wt` while an entry is paused, rests or is not planned yet.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from quorker.core.jobs import bounds
from quorker.core.jobs.queries_form import PAGE_ROWS_MAX, Query, maybe, need
from quorker.core.jobs.queries_jobs import ARGS_SHOWN_BYTES
from quorker.core.jobs.records import Recurring
from quorker.core.jobs.tables import Tables


def recurring_list(tables: Tables, after: str, limit: int) -> list[dict[str, Any]]:
    """Entries by id, those above `after`; the id of the last one asks for the next page."""
    rows = islice(tables.recurring_ids.since((after,)), limit + 1)
    ids = [recurring_id for (recurring_id,) in rows if recurring_id != after]
    entries = [tables.recurring[recurring_id] for recurring_id in ids[:limit]]
    return [_fields(entry) | {"args": entry.job.args[:ARGS_SHOWN_BYTES]} for entry in entries]


def recurring_get(tables: Tables, recurring_id: str) -> dict[str, Any] | None:
    found = tables.recurring.get(recurring_id)
    return _fields(found) if found else None


def _fields(entry: Recurring) -> dict[str, Any]:
    return {
        "id": entry.id,
        "cron": entry.cron,
        "zone": entry.zone,
        "every_ms": entry.every_ms,
        "misfire": entry.misfire,
        "grace_ms": entry.grace_ms,
        "task": entry.job.task,
        "args": entry.job.args,
        "args_size": len(entry.job.args),
        "queue": entry.job.queue,
        "priority": entry.job.priority,
        "unique_key": entry.job.unique_key,
        "tags": entry.job.tags,
        "headers": dict(entry.job.headers),
        "revision": entry.revision,
        "created_wt": entry.created_wt,
        "anchor_wt": entry.anchor_wt,
        "next_wt": entry.next_wt or None,
        "last_slot_wt": entry.last_slot_wt or None,
        "last_fired_wt": entry.last_fired_wt or None,
        "last_job_id": entry.last_job_id,
        "fired": entry.fired,
        "paused": entry.paused,
        "paused_wt": entry.paused_wt or None,
        "reason": entry.reason,
        "author": entry.author,
        "error": entry.error,
    }


_ID: Final = bounds.text("recurring id", 1, 200)

QUERIES: Final[dict[str, Query]] = {
    "recurring:list": Query(
        recurring_list,
        {
            "after": maybe(bounds.text("after", 0, 200), ""),
            "limit": maybe(bounds.whole("limit", 1, PAGE_ROWS_MAX), 100),
        },
    ),
    "recurring:get": Query(recurring_get, {"id": need(_ID)}),
}
