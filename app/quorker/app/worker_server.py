"""The worker of one connection: starts what the store grants, stops what is no longer ours, reports how it ended.

Leases, retries and which job comes next are decided by the store and by the session; this file only runs jobs and says
what happened. What must not live here: how a function is run (`execution.py`).
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias, cast

import trio

from quorker.app.children import Done
from quorker.app.context import JobContext
from quorker.app.elections import FilteredAttempt, elect, tell_applied
from quorker.app.execution import RunsAttempts, job_context, timeout_seconds
from quorker.app.failure import Failure, describe
from quorker.app.filters import FilterChain
from quorker.app.outcomes import Delete, Fail, GiveBack, Outcome, Succeed, command_of
from quorker.app.tasks import RegisteredTask
from quorker.core.errors import OperationError, QuorkerError
from quorker.core.jobs.commands import JobGrant
from quorker.transport.connection import Connection, WorkerHandle

logger = logging.getLogger("quorker.worker")

SHUTDOWN_SECONDS: Final = 15.0
REPORT_SECONDS: Final = 5.0
TEAR_DOWN_SECONDS: Final = 1.0
SHUT_DOWN: Final = "the worker shuts down"

FiltersFor: TypeAlias = Callable[[str], FilterChain]
"""Those of a task, which may be unknown, by its name."""


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
    deleted: int = 0


class WorkerServer:
    """Runs the jobs of one worker handle. Opened by `serve_jobs`."""

    def __init__(
        self, tasks: Mapping[str, RegisteredTask], executor: RunsAttempts, filters_for: FiltersFor
    ) -> None:
        self.counts = WorkerCounts()
        self._tasks = tasks
        self._executor = executor
        self._filters_for = filters_for
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
            chain = self._filters_for(job.grant.task)
            context = job_context(job.grant)
            outcome = await self._outcome(job, context, chain)
            await self._report(job.grant, context, outcome, chain, handle)
        except BaseException:
            handle.release_nowait(job.grant)  # the whole worker is torn down: the job is not to blame
            raise
        finally:
            del self._running[job.grant.token]
            if not self._running:
                self._changed.set()
                self._changed = trio.Event()

    async def _outcome(self, job: RunningJob, context: JobContext, chain: FilterChain) -> Outcome:
        task = self._tasks.get(job.grant.task)
        if task is None:
            ended: Done | Failure | Delete = _unknown_task(job.grant.task, self._tasks)
        else:
            ended = await self._attempt(job, task, context, chain)
        if job.stop_reason and not isinstance(ended, Done):
            # No longer ours: then the store refuses this as stale. Or shutting down: then the next worker has it now.
            return GiveBack()
        return await elect(chain, job.grant, context, ended)

    async def _attempt(
        self, job: RunningJob, task: RegisteredTask, context: JobContext, chain: FilterChain
    ) -> Done | Failure | Delete:
        """Run within the timeout. A job that was told to stop ends as a failure too; `_outcome` tells them apart."""
        timeout = timeout_seconds(job.grant)
        if timeout is not None:
            job.scope.deadline = trio.current_time() + timeout
        filtered = FilteredAttempt(chain, job.grant, context)
        ended: Done | Failure | Delete | None = None
        try:
            with job.scope:
                ended = await filtered.run(partial(self._executor.run, task, job.grant, context))
        except BaseException as error:
            if not _is_of_the_task(error):
                await filtered.follow_in_haste("the worker ends")
                raise
            ended = describe(error)
        ended = _timed_out(task, timeout) if ended is None else ended
        await filtered.follow(ended, job.stop_reason)
        return ended

    async def _report(
        self,
        grant: JobGrant,
        context: JobContext,
        outcome: Outcome,
        chain: FilterChain,
        handle: WorkerHandle,
    ) -> None:
        """Tell the store; what it answers is waited for only where a filter wants to know."""
        self._count(grant, outcome)
        answer = Answer(grant)
        handle.report_nowait(grant, command_of(outcome, grant), answer.set)
        if chain.applied:
            await answer.arrived.wait()
            await tell_applied(chain, context, outcome, answer.value, answer.error)

    def _count(self, grant: JobGrant, outcome: Outcome) -> None:
        match outcome:
            case Succeed():
                self.counts.succeeded += 1
            case Fail(failure):
                self.counts.failed += 1
                logger.info(
                    "job %s (%s) failed: %s: %s", grant.job_id, grant.task, failure.kind, failure.message
                )
            case Delete(reason):
                self.counts.deleted += 1
                logger.info("job %s (%s) is deleted by a filter: %s", grant.job_id, grant.task, reason)
            case GiveBack():
                self.counts.given_back += 1


class Answer:
    """What the store says to an outcome. Refusals are logged: the job is in other hands, or has been reported before."""

    def __init__(self, grant: JobGrant) -> None:
        self.arrived = trio.Event()
        self.value: Any = None
        self.error: QuorkerError | None = None
        self._grant = grant

    def set(self, value: Any, error: QuorkerError | None) -> None:
        self.value, self.error = value, error
        if error is not None:
            logger.info(
                "the outcome of job %s (%s) is not stored: %s", self._grant.job_id, self._grant.task, error
            )
        self.arrived.set()


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
    filters_for: FiltersFor,
    queues: Sequence[str],
    slots: int,
    shutdown_seconds: float = SHUTDOWN_SECONDS,
) -> AsyncGenerator[WorkerServer]:
    """Run jobs of these queues, `slots` at a time, while the body runs; then shut down gracefully.

    Torn down by cancellation or an error, it stops all jobs at once and gives them back.
    """
    server = WorkerServer(tasks, executor, filters_for)
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
