"""The worker of one connection: starts what the store grants, stops what is no longer ours, reports how it ended.

Leases, retries and which job comes next are decided by the store and by the session; this file only runs jobs and says
what happened. What must not live here: how a function is run (`execution.py`).
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast

import trio

from quorker.app.children import Done
from quorker.app.execution import RunsAttempts, job_context
from quorker.app.failure import Failure, describe
from quorker.app.settings import may_retry
from quorker.app.tasks import RegisteredTask
from quorker.core.errors import OperationError
from quorker.core.jobs.commands import FailJob, JobGrant
from quorker.transport.connection import Connection, WorkerHandle

logger = logging.getLogger("quorker.worker")

SHUTDOWN_SECONDS: Final = 15.0
REPORT_SECONDS: Final = 5.0
TEAR_DOWN_SECONDS: Final = 1.0
FINAL_REPORT_SECONDS: Final = 24 * 3600.0
SHUT_DOWN: Final = "the worker shuts down"


@dataclass(slots=True, eq=False)
class RunningJob:
    """A job that runs here, and why it was told to stop ("": it was not)."""

    grant: JobGrant
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    stop_reason: str = ""

    def stop(self, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason
        self.scope.cancel()


@dataclass(slots=True)
class WorkerCounts:
    """What this worker has done so far."""

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    given_back: int = 0


class WorkerServer:
    """Runs the jobs of one worker handle. Opened by `serve_jobs`."""

    def __init__(
        self, connection: Connection, tasks: Mapping[str, RegisteredTask], executor: RunsAttempts
    ) -> None:
        self.counts = WorkerCounts()
        self._connection = connection
        self._tasks = tasks
        self._executor = executor
        self._running: dict[int, RunningJob] = {}
        self._changed = trio.Event()

    @property
    def running(self) -> list[JobGrant]:
        """The jobs that run here now."""
        return [job.grant for job in self._running.values()]

    def on_cancel(self, token: int, reason: str) -> None:
        """The job of this token was deleted, or its lease is no longer ours: stop it."""
        job = self._running.get(token)
        if job is not None:
            logger.warning("stopping job %s (%s): %s", job.grant.job_id, job.grant.task, reason)
            job.stop(reason or "no longer ours")

    async def receive(self, handle: WorkerHandle, nursery: trio.Nursery) -> None:
        """Start every job that arrives, until the handle is stopped."""
        while True:
            try:
                grants = await handle.receive()
            except trio.EndOfChannel:
                return
            for grant in grants:
                job = self._running[grant.token] = RunningJob(grant)
                nursery.start_soon(self._run, job, handle)

    async def shut_down(
        self, handle: WorkerHandle, grace: float, report_within: float = REPORT_SECONDS
    ) -> None:
        """Take no more jobs, let the running ones end within `grace` seconds, then stop and give back the others.

        What has to be reported is given up after `report_within` seconds: without a quorum it may never be answered.
        """
        with trio.move_on_after(report_within):
            await _stop_quietly(handle)
        with trio.move_on_after(grace):
            await self._wait_idle()
        for job in list(self._running.values()):
            job.stop(SHUT_DOWN)
        with trio.move_on_after(report_within):
            await self._wait_idle()
            await handle.wait_reported()

    async def _wait_idle(self) -> None:
        while self._running:
            await self._changed.wait()

    async def _run(self, job: RunningJob, handle: WorkerHandle) -> None:
        try:
            self.counts.started += 1
            task = self._tasks.get(job.grant.task)
            if task is None:
                outcome: Done | Failure = _unknown_task(job.grant.task, self._tasks)
            else:
                outcome = await self._attempt(job, task)
            await self._report(job, outcome, handle)
        except BaseException:
            handle.release_nowait(job.grant)  # the whole worker is torn down: the job is not to blame
            raise
        finally:
            del self._running[job.grant.token]
            if not self._running:
                self._changed.set()
                self._changed = trio.Event()

    async def _attempt(self, job: RunningJob, task: RegisteredTask) -> Done | Failure:
        """Run within the timeout. A job that was told to stop ends as a failure too; `_report` tells them apart."""
        timeout = job.grant.timeout_ms / 1000 if job.grant.timeout_ms else None
        if timeout is not None:
            job.scope.deadline = trio.current_time() + timeout
        outcome: Done | Failure | None = None
        try:
            with job.scope:
                outcome = await self._executor.run(task, job.grant, job_context(job.grant, timeout))
        except BaseException as error:
            if not _is_of_the_task(error):
                raise
            outcome = describe(error)
        return _timed_out(task, timeout) if outcome is None else outcome

    async def _report(self, job: RunningJob, outcome: Done | Failure, handle: WorkerHandle) -> None:
        grant = job.grant
        if isinstance(outcome, Done):
            self.counts.succeeded += 1
            handle.complete_nowait(grant, outcome.result)
        elif job.stop_reason:
            # No longer ours: then the store refuses this as stale. Or shutting down: then the next worker has it now.
            self.counts.given_back += 1
            handle.release_nowait(grant)
        else:
            self.counts.failed += 1
            logger.info("job %s (%s) failed: %s: %s", grant.job_id, grant.task, outcome.kind, outcome.message)
            await self._report_failure(grant, outcome, handle)

    async def _report_failure(self, grant: JobGrant, failure: Failure, handle: WorkerHandle) -> None:
        if may_retry(grant.headers, failure.error_types):
            handle.fail_nowait(grant, failure.kind, failure.message, failure.trace)
            return
        final = FailJob(grant.job_id, grant.token, failure.kind, failure.message, failure.trace, final=True)
        try:
            await self._connection.submit(final, timeout=FINAL_REPORT_SECONDS)
        except OperationError as error:
            logger.warning("the failure of job %s (%s) is not stored: %s", grant.job_id, grant.task, error)
        handle.release_nowait(
            grant
        )  # frees the handle; refused as stale by the store, for the job has failed


def _is_of_the_task(error: BaseException) -> bool:
    """Everything is, also SystemExit, but what ends this worker itself."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_is_of_the_task(member) for member in group.exceptions)
    return not isinstance(error, (trio.Cancelled, KeyboardInterrupt))


async def _stop_quietly(handle: WorkerHandle) -> None:
    try:
        await handle.stop()
    except OperationError as error:
        logger.warning("the store did not confirm that this worker takes no more jobs: %s", error)


def _timed_out(task: RegisteredTask, timeout: float | None) -> Failure:
    left = (
        " (a thread cannot be killed: it goes on, its result is dropped)" if task.runs_in == "thread" else ""
    )
    return Failure(
        ("JobTimeout", "TimeoutError"), f"{task.name} was stopped after {timeout} s, its timeout{left}", ""
    )


def _unknown_task(name: str, tasks: Mapping[str, RegisteredTask]) -> Failure:
    close = difflib.get_close_matches(name, tasks, n=3)
    hint = (
        f"close to it: {', '.join(close)}"
        if close
        else f"registered here: {', '.join(sorted(tasks)) or 'none'}"
    )
    return Failure(
        ("TaskNotRegistered",),
        f"no task {name!r} is registered on this worker ({hint}); is its module imported, and is it the newest code?",
        "",
    )


@asynccontextmanager
async def serve_jobs(
    connection: Connection,
    tasks: Mapping[str, RegisteredTask],
    executor: RunsAttempts,
    queues: Sequence[str],
    slots: int,
    shutdown_seconds: float = SHUTDOWN_SECONDS,
) -> AsyncGenerator[WorkerServer]:
    """Run jobs of these queues, `slots` at a time, while the body runs; then shut down gracefully.

    Torn down by cancellation or an error, it stops all jobs at once and gives them back.
    """
    server = WorkerServer(connection, tasks, executor)
    async with connection.worker(queues, slots, server.on_cancel) as handle, trio.open_nursery() as jobs:
        jobs.start_soon(server.receive, handle, jobs)
        try:
            yield server
            await server.shut_down(handle, shutdown_seconds)
        except BaseException:
            with trio.CancelScope(shield=True):
                await server.shut_down(handle, 0.0, TEAR_DOWN_SECONDS)
            raise
        jobs.cancel_scope.cancel()
