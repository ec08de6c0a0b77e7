"""The monitoring half of the storage contract: what a dashboard shows, read from the indexes of the store.

Rows are dicts as the queries make them (`core/jobs/queries_jobs`, `queries_monitoring`). An entry of a queue or of the
schedule whose job is gone is (id, None), never left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from quorker.core.jobs.lifecycle import AWAITING, DELETED, FAILED, PROCESSING, SUCCEEDED

Read: TypeAlias = Callable[..., Awaitable[Any]]
Row: TypeAlias = dict[str, Any]
Entry: TypeAlias = tuple[str, Row | None]

DAYS: int = 7
HOURS: int = 24


class MonitoringApi:
    """Pages are given by the rank of their first row and a number of rows."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def statistics(self) -> dict[str, int]:
        return dict(await self._read("statistics"))

    async def queues(self) -> list[Row]:
        """By name: length, fetched, paused, and the first five entries."""
        rows = await self._read("queues", count=10_000)
        return [row | {"first": _entries(row["first"])} for row in rows]

    async def servers(self) -> list[Row]:
        return list(await self._read("servers"))

    async def job_details(self, job_id: str) -> Row | None:
        """Everything about a job, its history newest first; None when it is missing."""
        row: Row | None = await self._read("job_details", job_id=job_id)
        return row

    # ------------------------------------------------------------------ pages

    async def enqueued_jobs(self, queue: str, start: int, count: int) -> list[Entry]:
        """From the head of the queue; `in_state` tells whether the job is still Enqueued."""
        return _entries(await self._read("enqueued_jobs", queue=queue, start=start, count=count))

    async def fetched_jobs(self, queue: str, start: int, count: int) -> list[Entry]:
        """Taken and still held, with the `lease`."""
        return _entries(await self._read("fetched_jobs", queue=queue, start=start, count=count))

    async def scheduled_jobs(self, start: int, count: int) -> list[Entry]:
        """Soonest first."""
        return _entries(await self._read("scheduled_jobs", start=start, count=count))

    async def processing_jobs(self, start: int, count: int) -> list[Row]:
        """Longest running first."""
        return await self._page(PROCESSING, start, count, newest_first=False)

    async def awaiting_jobs(self, start: int, count: int) -> list[Row]:
        """Longest waiting first, each with its `parent` and the state that one is in now."""
        return await self._page(AWAITING, start, count, newest_first=False)

    async def succeeded_jobs(self, start: int, count: int) -> list[Row]:
        """Newest first."""
        return await self._page(SUCCEEDED, start, count, newest_first=True)

    async def failed_jobs(self, start: int, count: int) -> list[Row]:
        """Newest first."""
        return await self._page(FAILED, start, count, newest_first=True)

    async def deleted_jobs(self, start: int, count: int) -> list[Row]:
        """Newest first."""
        return await self._page(DELETED, start, count, newest_first=True)

    # ------------------------------------------------------------------ counts

    async def scheduled_count(self) -> int:
        return int(await self._read("scheduled_count"))

    async def enqueued_count(self, queue: str) -> int:
        return int((await self._read("queue_counts", queue=queue))[0])

    async def fetched_count(self, queue: str) -> int:
        return int((await self._read("queue_counts", queue=queue))[1])

    async def processing_count(self) -> int:
        return await self._count(PROCESSING)

    async def succeeded_list_count(self) -> int:
        return await self._count(SUCCEEDED)

    async def failed_count(self) -> int:
        return await self._count(FAILED)

    async def deleted_list_count(self) -> int:
        return await self._count(DELETED)

    async def awaiting_count(self) -> int:
        return await self._count(AWAITING)

    async def counts_by_date(self, what: str) -> dict[str, int]:
        """`succeeded`, `failed` or `deleted` on each of the last 7 UTC days, today first."""
        return dict(await self._read("history", what=what, unit="day", count=DAYS))

    async def counts_by_hour(self, what: str) -> dict[str, int]:
        """As by date, for the last 24 hours, the current one first."""
        return dict(await self._read("history", what=what, unit="hour", count=HOURS))

    # ------------------------------------------------------------------ inside

    async def _page(self, state: str, start: int, count: int, newest_first: bool) -> list[Row]:
        page = await self._read(
            "jobs_by_state", state=state, start=start, count=count, newest_first=newest_first
        )
        return list(page["rows"])

    async def _count(self, state: str) -> int:
        return int(await self._read("state_count", state=state))


def _entries(rows: Any) -> list[Entry]:
    return [(job_id, row) for job_id, row in rows]
