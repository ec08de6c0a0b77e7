"""A task: a function with a name and options. Calling it runs it here; enqueueing it makes a job for some worker. What
must not live here: the registry (`app.py`), connections, and the running of jobs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeAlias, TypeVar

from quorker.app.batches import BatchHandle
from quorker.app.calls import Call
from quorker.app.errors import BadPayload
from quorker.app.filters import Filter, FilterChain
from quorker.app.gateway import Gateway, Submit, refuse_blocking
from quorker.app.job_plans import carry_out, carry_out_blocking, make_jobs, why_not_made
from quorker.app.limits import Limit, Rate, StartPlan, read_limits, start_plan
from quorker.app.payload import encode_call
from quorker.app.results import JobHandle
from quorker.app.settings import After, CallOptions, Duration, Retry, RunsIn, read_options
from quorker.core.errors import InvalidInput, Rejected
from quorker.core.frozen import new_tuple
from quorker.core.jobs.commands import EnqueueJobs, NewJob

P = ParamSpec("P")
R = TypeVar("R")


def new_job(task: str, args: bytes, option: CallOptions) -> NewJob:
    """The job of a call that is already encoded."""
    return NewJob(task, args, *fields_of(option))


def fields_of(option: CallOptions) -> tuple[Any, ...]:
    """What stands behind the name and the arguments of a job."""
    return (
        option.queue,
        option.priority,
        option.timeout_ms,
        option.retry,
        option.delay_ms,
        option.at_wt,
        option.unique_key,
        option.unique_ms,
        option.parent_id,
        option.on,
        option.retry_headers + option.headers,
        option.tags,
        option.retention_ms,
        option.batch_id,
    )


def arities(signature: inspect.Signature) -> range:
    """The numbers of positional arguments that are sure to be a whole call: asking the signature takes long."""
    parameters = signature.parameters.values()
    if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters):
        return range(0)
    positional = [
        each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(each.default is each.empty for each in positional)
    return range(required, len(positional) + 1)


class TaskHost(Protocol):
    """What a task needs of its app."""

    @property
    def payload_bytes_max(self) -> int: ...

    def gateway(self) -> Gateway: ...
    def filters_for(self, task: str) -> FilterChain: ...


@dataclass(frozen=True, slots=True, eq=False)
class Task(Generic[P, R]):
    """A registered function. `P` are its parameters, `R` what a job of it results in."""

    host: TaskHost = field(repr=False)
    name: str
    function: Callable[..., Any] = field(repr=False)
    runs_in: RunsIn
    options: CallOptions
    signature: inspect.Signature = field(repr=False)
    filters: tuple[Filter, ...] = field(default=(), repr=False)
    _arities: range = field(init=False, repr=False)
    _fields: tuple[Any, ...] = field(init=False, repr=False)  # of every job of it, behind its arguments
    _keyed: StartPlan | None = field(init=False, repr=False)  # its limit key is made of the arguments

    def __post_init__(self) -> None:
        plan = start_plan(self.name, self.signature, self.options)
        start = None if plan is None else plan.fixed
        object.__setattr__(self, "_arities", arities(self.signature))
        fields = new_job("", b"", self.options)._replace(start=start)[2:]  # with every default behind them
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_keyed", plan if start is None else None)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Make a job; returns when a majority of the members has it on disk. For plain code.

        Raises `BadPayload`, `NotConnected`, `NotApplied` (no effect), `Unknown` (perhaps), `JobNotFound` (what it shall
        wait for), `Rejected`.
        """
        refuse_blocking(f"await {self.name}.aenqueue(...)")
        job = self.new_job(*args, **kwargs)
        batch = self.options.batch
        if batch is not None and batch.is_open:
            collected: JobHandle[R] = batch.collect(job)
            return collected
        command = EnqueueJobs((job if batch is None else job._replace(batch_id=batch.id),))
        plan = make_jobs(command, self.host.filters_for)
        return JobHandle(carry_out_blocking(plan, self.host.gateway())[0], self.host)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Like `enqueue`, for trio and asyncio code."""
        job = self.new_job(*args, **kwargs)
        batch = self.options.batch
        if batch is not None and batch.is_open:
            collected: JobHandle[R] = batch.collect(job)
            return collected
        command = EnqueueJobs((job if batch is None else job._replace(batch_id=batch.id),))
        if self.host.filters_for(self.name).is_for_clients:
            ids = await carry_out(make_jobs(command, self.host.filters_for), self.host.gateway())
            return JobHandle(ids[0], self.host)
        try:  # what a program does most: a plan of it would cost three tasks' worth of turns
            ids = await self.host.gateway().request(Submit(command))
        except Rejected as refused:
            raise why_not_made(refused) from None
        return JobHandle(ids[0], self.host)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """A call that is no job yet, for `app.enqueue_many` and `job.then`. Raises `BadPayload` for wrong arguments."""
        job, batch = self.new_job(*args, **kwargs), self.options.batch
        if batch is None:
            return Call(job)
        if batch.is_open:
            raise InvalidInput(
                f"a call of {self.name} with using(batch=...) is collected by enqueue, not by call, while its block lasts"
            )
        return Call(job._replace(batch_id=batch.id))

    def new_job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """The job that `enqueue` would make, for a command of several. Raises `BadPayload` for wrong arguments."""
        if kwargs or len(args) not in self._arities:
            self._require_call(args, kwargs)
        packed = encode_call(args, kwargs, bytes_max=self.host.payload_bytes_max)
        job: NewJob = new_tuple(NewJob, (self.name, packed, *self._fields))
        return job if self._keyed is None else job._replace(start=self._keyed.rules_of(args, kwargs))

    def _require_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadPayload(f"{self.name}{self.signature} cannot be called like this: {error}") from None

    def with_options(self, changes: dict[str, Any]) -> Self:
        """A copy with other `CallOptions`."""
        return replace(self, options=replace(self.options, **changes))

    def using(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        timeout: Duration | None = None,
        retry: Retry | None = None,
        unique: str | None = None,
        unique_for: Duration | None = None,
        after: JobHandle[Any] | BatchHandle | str | None = None,
        on: After | None = None,
        tags: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        retention: Duration | None = None,
        concurrency: Limit | int | None = None,
        mutex: bool | None = None,
        rate: Rate | str | None = None,
        expires: Duration | datetime | None = None,
        batch: BatchHandle | str | None = None,
    ) -> Self:
        """A copy of this task whose jobs are enqueued with these options. Durations are seconds or timedeltas.

        `delay` or `at` (an aware datetime): not before then. `unique`: while a job with this key has not ended (or for
        `unique_for`), enqueueing returns that job. `after`: wait until that job, or batch, ends as `on` says. `headers`: words
        that travel with the job, see `current_job.headers`. `retention`: how long to keep the job once it has succeeded
        or was deleted. `concurrency`, `mutex`, `rate`, `expires`: see `App.task`. `batch`: the job is a member of it, see
        `app.batch`. Raises `InvalidInput`.
        """
        given = {
            "queue": queue,
            "priority": priority,
            "delay": delay,
            "at": at,
            "timeout": timeout,
            "retry": retry,
            "unique": unique,
            "unique_for": unique_for,
            "after": after,
            "on": on,
            "tags": tags,
            "headers": headers,
            "retention": retention,
            "batch": batch,
        }
        limits = read_limits(concurrency, mutex, rate, expires)
        return self.with_options(read_options(given) | limits)


RegisteredTask: TypeAlias = Task[..., Any]


class PlainTask(Task[P, R]):
    """A task made of a plain function."""

    __slots__ = ()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, as if it were no task."""
        result: R = self.function(*args, **kwargs)
        return result


class AsyncTask(Task[P, R]):
    """A task made of an `async def` function."""

    __slots__ = ()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The function's coroutine, to be awaited here, as if it were no task."""
        coroutine: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return coroutine
