"""Reads of batches of jobs: one of them, pages of them, and pages of their members; as in `queries_jobs` by rank or cursor."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from quorker.core.jobs import bounds
from quorker.core.jobs.queries_form import COUNT, CURSOR, NEWEST_FIRST, START, Query, need, page_end
from quorker.core.jobs.queries_jobs import Fields, page_by_creation
from quorker.core.jobs.records import JobBatch
from quorker.core.jobs.tables import Tables


def batch(tables: Tables, batch_id: str) -> Fields | None:
    """How far a batch is; None when it is not there. Of its callbacks, `state` is None of one that has expired."""
    found = tables.batches.get(batch_id)
    if found is None:
        return None
    return _batch_fields(found) | {
        "expires_in_ms": found.expires_lt - tables.lt if found.expires_lt else None,
        "callbacks": [_callback_fields(tables, job_id) for job_id in found.callbacks],
    }


def _batch_fields(of: JobBatch) -> Fields:
    return {
        "id": of.id,
        "name": of.name,
        "state": of.state,
        "created_wt": of.created_wt,
        "completed_wt": of.completed_wt,
        "total": of.total,
        "pending": of.pending,
        "succeeded": of.succeeded,
        "failed": of.failed,
        "deleted": of.deleted,
        "quarantined": of.quarantined,
    }


def _callback_fields(tables: Tables, job_id: str) -> Fields:
    job = tables.jobs.get(job_id)
    if job is None:
        return {"id": job_id, "task": "", "on": "", "state": None}
    return {"id": job_id, "task": job.spec.task, "on": job.spec.on, "state": job.state}


def batches(tables: Tables, start: int, count: int, newest_first: bool, after: int | None) -> Fields:
    """Batches in order of creation. A page: {rows, next, total}."""
    line = tables.batch_line
    if after is None:
        ids: Iterable[str] = line.page(start, page_end(start, count), newest_first)
    else:
        rows = line.before(after) if newest_first else line.after(after)
        ids = [batch_id for _, batch_id in islice(rows, page_end(0, count))]
    found = [tables.batches[batch_id] for batch_id in ids]
    is_full = found and len(found) == page_end(0, count)
    return {
        "rows": [_batch_fields(each) for each in found],
        "next": found[-1].created if is_full else None,
        "total": len(line),
    }


def jobs_by_batch(
    tables: Tables, batch_id: str, start: int, count: int, newest_first: bool, after: int | None
) -> Fields:
    """The members that are still there, in order of creation. A page as for a state."""
    return page_by_creation(tables, tables.index.batches.get(batch_id), start, count, newest_first, after)


_BATCH_ID: Final = need(bounds.text("batch id", 1, 64))
_PAGE: Final[dict[str, Any]] = {
    "start": START,
    "count": COUNT,
    "newest_first": NEWEST_FIRST,
    "after": CURSOR,
}

QUERIES: Final[dict[str, Query]] = {
    "batch": Query(batch, {"batch_id": _BATCH_ID}),
    "batches": Query(batches, _PAGE),
    "jobs_by_batch": Query(jobs_by_batch, {"batch_id": _BATCH_ID, **_PAGE}),
}
