"""A job as a test looks at it. What must not live here: choosing which ones, and changing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from quorker.app.payload import decode_call, decode_result
from quorker.app.settings import own_headers
from quorker.core.jobs.lifecycle import SUCCEEDED


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it was when it was asked for; `state` as `job.state()` says it. `history`: its states, the first one first.

    `failures`: attempts that failed. `error_type`, `message` and `trace` are those of the newest failure, "" without one.
    `result`: None unless it succeeded. `due`: when it will be enqueued, None unless it is Scheduled.
    """

    id: str
    task: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queue: str
    priority: int
    state: str
    reason: str
    failures: int
    error_type: str
    message: str
    trace: str
    result: Any
    headers: Mapping[str, str]
    tags: tuple[str, ...]
    created: datetime
    due: datetime | None
    history: tuple[str, ...]


def instant(wt: int) -> datetime:
    return datetime.fromtimestamp(wt / 1000, UTC)


def row_of(details: dict[str, Any]) -> JobRow:
    """The row of what the query `job_details` says."""
    args, kwargs = decode_call(details["args"]) if details["args"] else ([], {})
    error = _newest_error(details["history"])
    return JobRow(
        id=details["id"],
        task=details["task"],
        args=tuple(args),
        kwargs=kwargs,
        queue=details["queue"],
        priority=details["priority"],
        state=details["state"] or "",
        reason=details["reason"],
        failures=details["failures"],
        error_type=error.get("error_type", ""),
        message=error.get("message", ""),
        trace=error.get("trace", ""),
        result=decode_result(details["result"] or b"") if details["state"] == SUCCEEDED else None,
        headers=own_headers(tuple(details["headers"].items())),
        tags=tuple(details["tags"]),
        created=instant(details["created_wt"]),
        due=instant(details["due_wt"]) if details["due_wt"] else None,
        history=tuple(state["name"] for state in reversed(details["history"])),
    )


def _newest_error(history: list[dict[str, Any]]) -> dict[str, Any]:
    """A retry keeps its failure in the history, before the state that it led to."""
    data: list[dict[str, Any]] = [state["data"] for state in history]
    return next((each for each in data if "error_type" in each), dict[str, Any]())
