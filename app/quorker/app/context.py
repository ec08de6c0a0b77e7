"""What a running task can know about its own job: `current_job`. Works in async tasks, threads and worker processes,
because it is a context variable that the runner of each kind sets. What must not live here: how jobs are run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import field
from datetime import UTC, datetime
from typing import Final

from quorker.app.errors import NotInJob
from quorker.app.settings import own_headers
from quorker.core.frozen import record
from quorker.core.jobs.recurring_commands import RECURRING_HEADER, SLOT_HEADER


@record
class JobContext:
    """The job that runs here.

    `fence` is the fencing token of this attempt: strictly greater than that of every earlier attempt and of every
    other job started before. Hand it to what the task writes to, and let that refuse smaller ones.
    `headers` are those that the job was enqueued with. `deadline` is a `time.monotonic()` instant in seconds (None: no
    timeout); `attempt` counts from 1. `recurring_id`: of which recurring job this is one, or None; `slot`: the instant
    (UTC) for which it was made, which is earlier than now by as much as it is late; None when somebody triggered it.
    `batch_id` is that of the batch it is a member of, or None; `task.using(batch=current_job.batch_id)` adds further members.
    """

    id: str
    fence: int
    attempt: int
    queue: str
    task: str
    deadline: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    recurring_id: str | None = None
    slot: datetime | None = None
    batch_id: str | None = None


def job_seen(
    job_id: str,
    fence: int,
    attempt: int,
    queue: str,
    task: str,
    deadline: float | None,
    headers: Mapping[str, str],
    batch_id: str,
) -> JobContext:
    """What the job may know of itself, out of all headers that it has in the store."""
    return JobContext(
        job_id,
        fence,
        attempt,
        queue,
        task,
        deadline,
        own_headers(headers.items()),
        headers.get(RECURRING_HEADER),
        _instant(headers.get(SLOT_HEADER, "")),
        batch_id or None,
    )


def _instant(ms: str) -> datetime | None:
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms.isdecimal() else None


_running: ContextVar[JobContext] = ContextVar("quorker_current_job")


def enter_job(job: JobContext) -> None:
    """Make `job` the current one in this context. Runners call it in a context of their own, so nothing is undone."""
    _running.set(job)


class CurrentJob:
    """Reads the job that runs in this context; raises `NotInJob` where none does. See `JobContext`."""

    __slots__ = ()

    def get(self) -> JobContext | None:
        """The running job, or None outside of one."""
        return _running.get(None)

    @property
    def id(self) -> str:
        return self._running.id

    @property
    def fence(self) -> int:
        return self._running.fence

    @property
    def attempt(self) -> int:
        return self._running.attempt

    @property
    def queue(self) -> str:
        return self._running.queue

    @property
    def task(self) -> str:
        return self._running.task

    @property
    def deadline(self) -> float | None:
        return self._running.deadline

    @property
    def headers(self) -> Mapping[str, str]:
        return self._running.headers

    @property
    def recurring_id(self) -> str | None:
        return self._running.recurring_id

    @property
    def slot(self) -> datetime | None:
        return self._running.slot

    @property
    def batch_id(self) -> str | None:
        return self._running.batch_id

    def seconds_left(self) -> float | None:
        """Until the timeout stops this attempt; None without a timeout."""
        deadline = self._running.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def _running(self) -> JobContext:
        job = _running.get(None)
        if job is None:
            raise NotInJob(
                "current_job is set only while a task is run by a worker; use current_job.get() to ask"
            )
        return job


current_job: Final = CurrentJob()
