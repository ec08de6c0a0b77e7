"""A job as its submitter sees it: its id, its state, its result, and what can be done to it. What must not live here: what
that asks of the store (`job_plans.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from quorker.app.calls import Call
from quorker.app.filters import FilterChain
from quorker.app.gateway import Gateway, refuse_blocking
from quorker.app.job_plans import (
    carry_out,
    carry_out_blocking,
    change_job,
    job_result,
    job_state,
    make_jobs,
)
from quorker.app.settings import After, Duration, JobState, checked_states, start_instant
from quorker.core.frozen import record
from quorker.core.jobs.commands import DeleteJob, EnqueueJobs, RequeueJob, RescheduleJob
from quorker.core.jobs.lifecycle import UNFINISHED

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

WAIT_SECONDS: Final = 60.0
Expected = JobState | Sequence[JobState]


class JobHost(Protocol):
    """What a job handle needs of its app."""

    def gateway(self) -> Gateway: ...
    def filters_for(self, task: str) -> FilterChain: ...


@record
class JobHandle(Generic[R_co]):
    """A job by its id. Two handles of one job are equal. Methods with an `a` in front are for async code.

    All raise `JobNotFound` for an id that the cluster does not know.
    """

    id: str
    host: JobHost = field(repr=False, compare=False)

    def state(self) -> str:
        """One of "Enqueued", "Scheduled", "Awaiting", "Processing", "Succeeded", "Failed", "Deleted", "Quarantined".

        A job that failed and will be retried is Scheduled.
        """
        refuse_blocking("await job.astate()")
        return carry_out_blocking(job_state(self.id), self.host.gateway())

    async def astate(self) -> str:
        """Like `state`, for async code."""
        return await carry_out(job_state(self.id), self.host.gateway())

    def result(self, timeout: float = WAIT_SECONDS) -> R_co:
        """Wait up to `timeout` seconds for the job to end and return what the task returned.

        Raises `JobFailed`, `JobCancelled`, or `JobPending` (a TimeoutError) when the time is up.
        """
        refuse_blocking("await job.aresult()")
        result: R_co = carry_out_blocking(job_result(self.id, timeout), self.host.gateway())
        return result

    async def aresult(self, timeout: float = WAIT_SECONDS) -> R_co:
        """Like `result`, for async code."""
        result: R_co = await carry_out(job_result(self.id, timeout), self.host.gateway())
        return result

    def cancel(self) -> bool:
        """Delete the job unless it has ended; where it runs it is stopped. False when it had ended before."""
        refuse_blocking("await job.acancel()")
        return carry_out_blocking(change_job(DeleteJob(self.id, UNFINISHED)), self.host.gateway())

    async def acancel(self) -> bool:
        """Like `cancel`, for async code."""
        return await carry_out(change_job(DeleteJob(self.id, UNFINISHED)), self.host.gateway())

    def delete(self, *, expected: Expected = ()) -> bool:
        """Delete the job, whatever its state; where it runs it is stopped. A deleted job is kept for its retention.

        `expected`: only in one of these states. Returns whether it changed.
        """
        refuse_blocking("await job.adelete()")
        command = DeleteJob(self.id, checked_states("expected", expected))
        return carry_out_blocking(change_job(command), self.host.gateway())

    async def adelete(self, *, expected: Expected = ()) -> bool:
        """Like `delete`, for async code."""
        command = DeleteJob(self.id, checked_states("expected", expected))
        return await carry_out(change_job(command), self.host.gateway())

    def requeue(self, *, expected: Expected = ()) -> bool:
        """Let the job run now, from the tail of its queue. One that had ended has all its attempts before it again.

        `expected`: only in one of these states. Returns whether it changed: not when it is enqueued already.
        """
        refuse_blocking("await job.arequeue()")
        command = RequeueJob(self.id, checked_states("expected", expected))
        return carry_out_blocking(change_job(command), self.host.gateway())

    async def arequeue(self, *, expected: Expected = ()) -> bool:
        """Like `requeue`, for async code."""
        command = RequeueJob(self.id, checked_states("expected", expected))
        return await carry_out(change_job(command), self.host.gateway())

    def reschedule(
        self, *, delay: Duration | None = None, at: datetime | None = None, expected: Expected = ()
    ) -> bool:
        """Let the job run not before `delay` from now, or `at` an instant (an aware datetime); exactly one is given.

        `expected`: only in one of these states. Returns whether it changed.
        """
        refuse_blocking("await job.areschedule(...)")
        command = RescheduleJob(self.id, *start_instant(delay, at), checked_states("expected", expected))
        return carry_out_blocking(change_job(command), self.host.gateway())

    async def areschedule(
        self, *, delay: Duration | None = None, at: datetime | None = None, expected: Expected = ()
    ) -> bool:
        """Like `reschedule`, for async code."""
        command = RescheduleJob(self.id, *start_instant(delay, at), checked_states("expected", expected))
        return await carry_out(change_job(command), self.host.gateway())

    def then(self, call: Call[T], on: After = "success") -> JobHandle[T]:
        """Enqueue a call that waits until this job has ended as `on` says; if it has, the call need not wait."""
        refuse_blocking("await job.athen(...)")
        plan = make_jobs(EnqueueJobs((call.following(self.id, on),)), self.host.filters_for)
        return JobHandle(carry_out_blocking(plan, self.host.gateway())[0], self.host)

    async def athen(self, call: Call[T], on: After = "success") -> JobHandle[T]:
        """Like `then`, for async code."""
        plan = make_jobs(EnqueueJobs((call.following(self.id, on),)), self.host.filters_for)
        return JobHandle((await carry_out(plan, self.host.gateway()))[0], self.host)
