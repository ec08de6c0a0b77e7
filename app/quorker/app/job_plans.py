"""What calls on jobs ask of the store, each as a plan: a generator that yields what it asks and is sent the answers.

Plain and async code carry out the same plan. What must not live here: how an ask reaches the store, and what users see of
a job (`results.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeAlias, TypeVar

from quorker.app.errors import JobCancelled, JobFailed, JobNotFound, JobPending
from quorker.app.filters import FilterChain
from quorker.app.gateway import Ask, Gateway, Query, Submit, WaitFinished
from quorker.app.hook_arguments import Enqueued, Enqueuing
from quorker.app.hooks import CallHooks, call_hooks, call_hooks_blocking
from quorker.app.payload import decode_result
from quorker.core.errors import Rejected
from quorker.core.jobs.commands import DeleteJob, EnqueueJobs, NewJob, RequeueJob, RescheduleJob
from quorker.core.jobs.lifecycle import UNFINISHED
from quorker.transport.connection import Consistency

T = TypeVar("T")
Plan: TypeAlias = Generator[Ask | CallHooks, Any, T]
Change: TypeAlias = DeleteJob | RequeueJob | RescheduleJob


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
            step = partial(plan.send, _answer_blocking(ask, gateway))
        except BaseException as error:  # noqa: BLE001  # raised again inside the plan
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
            step = partial(plan.send, await _answer(ask, gateway))
        except BaseException as error:  # noqa: BLE001  # raised again inside the plan
            step = partial(plan.throw, error)


def _answer_blocking(ask: Ask | CallHooks, gateway: Gateway) -> Any:
    return call_hooks_blocking(ask) if isinstance(ask, CallHooks) else gateway.request_blocking(ask)


async def _answer(ask: Ask | CallHooks, gateway: Gateway) -> Any:
    return await (call_hooks(ask) if isinstance(ask, CallHooks) else gateway.request(ask))


def job_state(job_id: str) -> Plan[str]:
    record = yield from read_job(job_id)
    return str(record["state"])


def job_result(job_id: str, timeout: float) -> Plan[Any]:
    """The second wait is for a job that another member made and this one had not heard of at first."""
    try:
        yield WaitFinished(job_id, timeout)
    except JobPending:
        record = yield from read_job(job_id)
        if record["state"] in UNFINISHED:
            raise
    else:
        record = yield from read_job(job_id)
    if record["state"] in UNFINISHED:
        yield WaitFinished(job_id, timeout)
        record = yield from read_job(job_id)
    if record["state"] == "Succeeded":
        return decode_result(record["result"] or b"")
    raise _failure(job_id, (yield Query("state", {"job_id": job_id})))


def change_job(command: Change) -> Plan[bool]:
    """Did it change. Not in a state that was not expected."""
    try:
        return bool((yield Submit(command)))
    except Rejected as refused:
        if refused.reason == "wrong_state":
            return False
        if refused.reason == "not_found":
            raise JobNotFound(refused.detail) from None
        raise


def make_jobs(command: EnqueueJobs, filters_for: Callable[[str], FilterChain]) -> Plan[list[str]]:
    """The ids, in order. Each job passes the filters of its task."""
    return (
        yield from through_filters(command.jobs, filters_for, lambda jobs: _submit_jobs(EnqueueJobs(jobs)))
    )


def through_filters(
    jobs: tuple[NewJob, ...],
    filters_for: Callable[[str], FilterChain],
    submit: Callable[[tuple[NewJob, ...]], Plan[list[str]]],
) -> Plan[list[str]]:
    """The ids that `submit` gives the jobs, as the filters of their tasks have left them."""
    chains = [filters_for(job.task) for job in jobs]
    if not any(chain.is_for_clients for chain in chains):
        return (yield from submit(jobs))
    calls = [Enqueuing(job) for job in jobs]
    try:
        for call, chain in zip(calls, chains, strict=True):
            yield CallHooks(chain.enqueuing, call)
        ids = yield from submit(tuple([call.job for call in calls]))
    except GeneratorExit:  # nobody carries out this plan any more
        raise
    except BaseException as error:
        yield from _tell_enqueued(calls, chains, [""] * len(calls), error)
        raise
    yield from _tell_enqueued(calls, chains, ids, None)
    return ids


def _tell_enqueued(
    calls: list[Enqueuing], chains: list[FilterChain], ids: list[str], error: BaseException | None
) -> Plan[None]:
    for call, chain, job_id in zip(calls, chains, ids, strict=True):
        yield CallHooks(chain.enqueued, Enqueued(call.task, call.headers, job_id, error), is_after=True)


def _submit_jobs(command: EnqueueJobs) -> Plan[list[str]]:
    try:
        return list((yield Submit(command)))
    except Rejected as refused:
        raise why_not_made(refused) from None


def why_not_made(refused: Rejected) -> Rejected | JobNotFound:
    """What users see of the refusal of new jobs."""
    if refused.reason == "not_found":
        return JobNotFound(f"{refused.detail}; nothing was enqueued")
    return refused


def read_job(job_id: str, query: str = "job") -> Plan[dict[str, Any]]:
    """The answer to a read of one job. Raises `JobNotFound`."""
    record: dict[str, Any] | None = yield from read_anywhere(query, {"job_id": job_id})
    if record is None:
        raise JobNotFound(
            f"no job {job_id} in this cluster: it was never enqueued here, or it ended long ago and has expired"
        )
    return record


def read_anywhere(query: str, args: dict[str, Any]) -> Plan[Any]:
    """What is unknown here may be known elsewhere: only a linearizable read can say that there is none, with None."""
    consistencies: tuple[Consistency, ...] = ("local", "linearizable")
    for consistency in consistencies:
        found = yield Query(query, args, consistency)
        if found is not None:
            return found
    return None


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
