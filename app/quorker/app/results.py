"""A job as its submitter sees it: its id, its state, its result.

Each call is a plan, a generator that yields what it asks of the store and is sent the answers; plain and async code
carry out the same plan. What must not live here: how an ask reaches the store.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from quorker.app.errors import JobCancelled, JobFailed, JobNotFound, JobPending
from quorker.app.gateway import Ask, Gateway, Query, Submit, WaitFinished, refuse_blocking
from quorker.app.payload import decode_result
from quorker.core.errors import QuorkerError, Rejected
from quorker.core.jobs.commands import DeleteJob
from quorker.transport.connection import Consistency

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
Plan: TypeAlias = Generator[Ask, Any, T]

UNFINISHED: Final = ("Enqueued", "Scheduled", "Awaiting", "Processing")
WAIT_SECONDS: Final = 60.0


class JobHost(Protocol):
    """What a job handle needs of its app."""

    def gateway(self) -> Gateway: ...


@dataclass(frozen=True, slots=True)
class JobHandle(Generic[R_co]):
    """A job by its id. Two handles of one job are equal. Methods with an `a` in front are for async code."""

    id: str
    host: JobHost = field(repr=False, compare=False)

    def state(self) -> str:
        """One of "Enqueued", "Scheduled", "Awaiting", "Processing", "Succeeded", "Failed", "Deleted", "Quarantined".

        A job that failed and will be retried is Scheduled. Raises `JobNotFound`.
        """
        refuse_blocking("await job.astate()")
        return carry_out_blocking(_state(self.id), self.host.gateway())

    async def astate(self) -> str:
        """Like `state`, for async code."""
        return await carry_out(_state(self.id), self.host.gateway())

    def result(self, timeout: float = WAIT_SECONDS) -> R_co:
        """Wait up to `timeout` seconds for the job to end and return what the task returned.

        Raises `JobFailed`, `JobCancelled`, `JobNotFound`, or `JobPending` (a TimeoutError) when the time is up.
        """
        refuse_blocking("await job.aresult()")
        result: R_co = carry_out_blocking(_result(self.id, timeout), self.host.gateway())
        return result

    async def aresult(self, timeout: float = WAIT_SECONDS) -> R_co:
        """Like `result`, for async code."""
        result: R_co = await carry_out(_result(self.id, timeout), self.host.gateway())
        return result

    def cancel(self) -> bool:
        """Delete the job; where it runs it is stopped. False when it had ended before."""
        refuse_blocking("await job.acancel()")
        return carry_out_blocking(_cancel(self.id), self.host.gateway())

    async def acancel(self) -> bool:
        """Like `cancel`, for async code."""
        return await carry_out(_cancel(self.id), self.host.gateway())


def carry_out_blocking(plan: Plan[T], gateway: Gateway) -> T:
    """Answer what the plan asks for, in plain code; errors are raised inside the plan."""
    step = partial(plan.send, None)
    while True:
        try:
            ask = step()
        except StopIteration as end:
            value: T = end.value
            return value
        try:
            step = partial(plan.send, gateway.request_blocking(ask))
        except QuorkerError as error:
            step = partial(plan.throw, error)


async def carry_out(plan: Plan[T], gateway: Gateway) -> T:
    """Answer what the plan asks for, in async code; errors are raised inside the plan."""
    step = partial(plan.send, None)
    while True:
        try:
            ask = step()
        except StopIteration as end:
            value: T = end.value
            return value
        try:
            step = partial(plan.send, await gateway.request(ask))
        except QuorkerError as error:
            step = partial(plan.throw, error)


def _state(job_id: str) -> Plan[str]:
    record = yield from _read(job_id)
    return str(record["state"])


def _result(job_id: str, timeout: float) -> Plan[Any]:
    """The second wait is for a job that another member made and this one had not heard of at first."""
    try:
        yield WaitFinished(job_id, timeout)
    except JobPending:
        record = yield from _read(job_id)
        if record["state"] in UNFINISHED:
            raise
    else:
        record = yield from _read(job_id)
    if record["state"] in UNFINISHED:
        yield WaitFinished(job_id, timeout)
        record = yield from _read(job_id)
    if record["state"] == "Succeeded":
        return decode_result(record["result"] or b"")
    raise _failure(job_id, (yield Query("state", {"job_id": job_id})))


def _cancel(job_id: str) -> Plan[bool]:
    try:
        return bool((yield Submit(DeleteJob(job_id, UNFINISHED))))
    except Rejected as refused:
        if refused.reason == "wrong_state":
            return False
        if refused.reason == "not_found":
            raise JobNotFound(refused.detail) from None
        raise


def _read(job_id: str) -> Plan[dict[str, Any]]:
    """A job that is unknown here may be known elsewhere: only a linearizable read can say that there is none."""
    consistencies: tuple[Consistency, ...] = ("local", "linearizable")
    for consistency in consistencies:
        record: dict[str, Any] | None = yield Query("job", {"job_id": job_id}, consistency)
        if record is not None:
            return record
    raise JobNotFound(
        f"no job {job_id} in this cluster: it was never enqueued here, or it ended long ago and has expired"
    )


def _failure(job_id: str, state: dict[str, Any] | None) -> JobFailed | JobCancelled | JobNotFound:
    if state is None:
        return JobNotFound(f"job {job_id} expired while its result was read")
    reason, data = state["reason"], state["data"]
    if state["name"] == "Deleted":
        return JobCancelled(f"job {job_id} was deleted" + (f": {reason}" if reason else ""))
    return JobFailed(
        job_id,
        data.get("error_type") or state["name"],
        data.get("message") or reason or "no reason was recorded",
        data.get("trace") or "",
    )
