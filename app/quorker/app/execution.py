"""How one attempt of one job is run: as a trio task, in a thread, or in a worker process. What must not live here: which
jobs run, their leases, and how outcomes are reported (`worker_server.py`)."""

from __future__ import annotations

import time
from typing import Any, Protocol

import trio

from quorker.app.child_protocol import ChildCall
from quorker.app.children import AnswerAsk, Done, ProcessPool
from quorker.app.context import JobContext, enter_job, job_seen
from quorker.app.failure import Failure
from quorker.app.location import locate_function
from quorker.app.payload import decode_call, encode_result
from quorker.app.tasks import RegisteredTask
from quorker.core.jobs.commands import JobGrant


def timeout_seconds(grant: JobGrant) -> float | None:
    return grant.timeout_ms / 1000 if grant.timeout_ms else None


def job_context(grant: JobGrant) -> JobContext:
    """What the task may know of its job, whose timeout counts from now."""
    timeout = timeout_seconds(grant)
    deadline = None if timeout is None else time.monotonic() + timeout
    headers = dict(grant.headers)
    return job_seen(
        grant.job_id, grant.token, grant.attempt, grant.queue, grant.task, deadline, headers, grant.batch_id
    )


class RunsAttempts(Protocol):
    """Where the functions of tasks are called."""

    async def run(self, task: RegisteredTask, grant: JobGrant, job: JobContext) -> Done | Failure: ...


class Executor:
    """Runs attempts. What the function raises is raised here too, unless it ran in a worker process."""

    def __init__(self, pool: ProcessPool, answer_ask: AnswerAsk, result_bytes_max: int) -> None:
        self._pool = pool
        self._answer_ask = answer_ask
        self._result_bytes_max = result_bytes_max

    async def run(self, task: RegisteredTask, grant: JobGrant, job: JobContext) -> Done | Failure:
        """Run one attempt. The calling trio task must be used for nothing else: `current_job` is set in it."""
        if task.runs_in == "process":
            return await self._pool.run(self._child_call(task, grant, job), self._answer_ask)
        enter_job(job)
        args, kwargs = decode_call(grant.args)
        if task.runs_in == "trio":
            result = await task.function(*args, **kwargs)
        else:
            result = await _run_in_thread(task, args, kwargs)
        return Done(encode_result(result, bytes_max=self._result_bytes_max))

    def _child_call(self, task: RegisteredTask, grant: JobGrant, job: JobContext) -> ChildCall:
        module = locate_function(task.function, task.name)
        return ChildCall(
            module_name=module.name,
            module_file=module.file,
            qualname=task.function.__qualname__,
            args=grant.args,
            result_bytes_max=self._result_bytes_max,
            job_id=job.id,
            fence=job.fence,
            attempt=job.attempt,
            queue=job.queue,
            task=job.task,
            deadline=job.deadline,
            headers=dict(grant.headers),
            batch_id=grant.batch_id,
        )


async def _run_in_thread(task: RegisteredTask, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A thread cannot be killed: when the job is stopped it is left alone, and whatever it returns later is dropped."""
    return await trio.to_thread.run_sync(lambda: task.function(*args, **kwargs), abandon_on_cancel=True)
