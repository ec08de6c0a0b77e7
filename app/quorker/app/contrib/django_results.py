"""A job as a Django `TaskResult`. What must not live here: reading it from the store (`django.py`)."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, ParamSpec, TypeVar, cast

from django.conf import settings
from django.utils.module_loading import import_string
from django.utils.timezone import make_naive

from quorker.app.context import JobContext
from quorker.app.contrib.django_api import (
    AnyResult,
    AnyTask,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
)
from quorker.app.payload import decode_call, decode_result
from quorker.core.jobs.lifecycle import ENDED, PROCESSING, SUCCEEDED

P = ParamSpec("P")
R = TypeVar("R")

OTHER_ERRORS: Final = "quorker.core.errors.QuorkerError"


def task_at(path: str) -> AnyTask:
    """The Django task that is registered under its path. Raises `TaskResultDoesNotExist` for what is none."""
    try:
        found: Any = import_string(path)
    except ImportError:
        found = None
    if not isinstance(found, Task):
        raise TaskResultDoesNotExist(f"{path} is no Django task")
    return cast("AnyTask", found)


def new_result(
    task: Task[P, R], job_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> TaskResult[P, R]:
    """Of a task that was enqueued just now."""
    return TaskResult(
        task=task,
        id=job_id,
        status=TaskResultStatus.READY,
        enqueued_at=now(),
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=list(args),
        kwargs=dict(kwargs),
        backend=task.backend,
        errors=[],
        worker_ids=[],
    )


def running_result(
    task: AnyTask, job: JobContext, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> AnyResult:
    """Of an attempt that starts here. Earlier workers have no names here; there are as many as attempts."""
    result = new_result(task, job.id, args, kwargs)
    start = now()
    change(
        result, status=TaskResultStatus.RUNNING, started_at=start, last_attempted_at=start, enqueued_at=None
    )
    result.worker_ids.extend([*[""] * (job.attempt - 1), f"fence {job.fence}"])
    return result


def change(result: AnyResult, **fields: Any) -> None:
    """A result is frozen for those who are given it."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)


def error_of(error_type: str, trace: str) -> TaskError:
    """Django looks the class up by its path; what is no importable class of its own is shown as one of ours."""
    path = error_type
    if "." not in error_type:
        path = f"builtins.{error_type}" if hasattr(builtins, error_type) else OTHER_ERRORS
    return TaskError(exception_class_path=path, traceback=trace)


def result_of(details: dict[str, Any], backend: str) -> AnyResult:
    """The result of what the query `job_details` says."""
    task = task_at(details["task"]).using(
        priority=details["priority"], queue_name=details["queue"], backend=backend
    )
    args, kwargs = decode_call(details["args"])
    states: list[dict[str, Any]] = details["history"][::-1]
    starts = [state for state in states if state["name"] == PROCESSING]
    result = new_result(task, details["id"], args, kwargs)
    change(
        result,
        status=_status(details["state"]),
        enqueued_at=_instant(details["created_wt"] / 1000),
        started_at=_instant(starts[0]["at_wt"] / 1000) if starts else None,
        last_attempted_at=_instant(starts[-1]["at_wt"] / 1000) if starts else None,
        finished_at=_instant(details["state_wt"] / 1000) if details["state"] in ENDED else None,
    )
    result.worker_ids.extend(str(state["data"].get("worker", "")) for state in starts)
    result.errors.extend(
        error_of(
            state["data"]["error_type"], state["data"].get("trace") or state["data"].get("message") or ""
        )
        for state in states
        if "error_type" in state["data"]
    )
    if details["state"] == SUCCEEDED:
        change(result, _return_value=decode_result(details["result"] or b""))
    return result


def now() -> datetime:
    return _instant(datetime.now(UTC).timestamp())


def _status(state: str | None) -> TaskResultStatus:
    if state == SUCCEEDED:
        return TaskResultStatus.SUCCESSFUL
    if state in ENDED:
        return TaskResultStatus.FAILED
    return TaskResultStatus.RUNNING if state == PROCESSING else TaskResultStatus.READY


def _instant(seconds: float) -> datetime:
    """As Django wants it: with a time zone if the project uses them."""
    found = datetime.fromtimestamp(seconds, UTC)
    return found if settings.USE_TZ else make_naive(found)
