"""Batches of jobs as users make and see them: `app.batch(...)` collects the jobs of a block and makes them in one command.

What must not live here: what a batch asks of the store once it is there (`batch_plans.py`), and tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias, TypeVar

from quorker.app.batch_plans import BatchCounts, cancel_batch, make_batch, read_counts, wait_until_ended
from quorker.app.calls import Call, require_size
from quorker.app.filters import FilterChain
from quorker.app.gateway import Gateway, refuse_blocking
from quorker.app.job_plans import Plan, carry_out, carry_out_blocking
from quorker.app.results import WAIT_SECONDS, JobHandle
from quorker.app.settings import After
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.commands import EnqueueBatch, NewJob
from quorker.core.jobs.records import BATCH_REFERENCE

T = TypeVar("T")
_numbers: Final = count(1)
BLOCK_IN_ASYNC: Final = "async with app.batch(...):"


class Callable0(Protocol):
    """A task that can be called without arguments."""

    def call(self) -> Call[Any]: ...


Callback: TypeAlias = Call[Any] | Callable0
"""What runs when a batch ends: a task without arguments, or `task.call(...)`."""
Callbacks: TypeAlias = Callback | Sequence[Callback] | None


class BatchHost(Protocol):
    """What a batch needs of its app."""

    def gateway(self) -> Gateway: ...
    def filters_for(self, task: str) -> FilterChain: ...


class Unmade:
    """In the place of an app, for the handle of a job that is not made yet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def gateway(self) -> Gateway:
        raise self._refusal()

    def filters_for(self, task: str) -> FilterChain:
        raise self._refusal()

    def _refusal(self) -> InvalidInput:
        return InvalidInput(
            f"this job is not made yet: the jobs of batch {self._name!r} are made together at the end of its block"
        )


class BatchHandle:
    """A batch by its id. Methods with an `a` in front are for async code.

    All raise `BatchNotFound` for one that the cluster does not know (any more).
    """

    def __init__(self, host: BatchHost, batch_id: str) -> None:
        self._host = host
        self._id = batch_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._id!r})"

    @property
    def id(self) -> str:
        """Names the batch everywhere, for ever."""
        return self._id

    @property
    def parent_id(self) -> str:
        """How a job that waits for the batch names it."""
        return BATCH_REFERENCE + self.id

    def counts(self) -> BatchCounts:
        """How many members there are, and how they have ended."""
        refuse_blocking("await batch.acounts()")
        return self._carry_out(read_counts(self.id))

    async def acounts(self) -> BatchCounts:
        """Like `counts`, for async code."""
        return await carry_out(read_counts(self.id), self._host.gateway())

    def wait_ended(self, timeout: float = WAIT_SECONDS) -> BatchCounts:
        """Wait up to `timeout` seconds until no member is pending; returns the counts, whatever they are.

        Raises `BatchPending` (a TimeoutError) when the time is up. Callbacks may still be to come.
        """
        refuse_blocking("await batch.await_ended()")
        return self._carry_out(wait_until_ended(self.id, timeout))

    async def await_ended(self, timeout: float = WAIT_SECONDS) -> BatchCounts:
        """Like `wait_ended`, for async code."""
        return await carry_out(wait_until_ended(self.id, timeout), self._host.gateway())

    def cancel(self) -> int:
        """Delete the members that have not ended; where they run they are stopped. Returns how many."""
        refuse_blocking("await batch.acancel()")
        return self._carry_out(cancel_batch(self.id))

    async def acancel(self) -> int:
        """Like `cancel`, for async code."""
        return await carry_out(cancel_batch(self.id), self._host.gateway())

    def _carry_out(self, plan: Plan[T]) -> T:
        return carry_out_blocking(plan, self._host.gateway())


class Batch(BatchHandle):
    """Made by `app.batch(...)`: `with` it in plain code, `async with` it on trio and asyncio.

    In the block, `task.using(batch=b).enqueue(...)` only collects; at its end all is made in one command, or nothing.
    When the block raises, nothing is made. Afterwards the same call makes one more job that joins the batch, until that
    has ended. `jobs` are the handles of the members made with it, `callbacks` those of its callbacks.
    """

    def __init__(
        self, host: BatchHost, name: str, callbacks: tuple[tuple[Callbacks, After], ...], retention_ms: int
    ) -> None:
        super().__init__(host, "")
        self.name = name
        self.jobs: list[JobHandle[Any]] = []
        self.callbacks: list[JobHandle[Any]] = []
        self._specs: list[NewJob] = []
        self._waiting = tuple([job for given, on in callbacks for job in _waiting(given, on)])
        if len(self._waiting) > bounds.CALLBACKS_MAX:
            raise InvalidInput(
                f"batch {name!r} has {len(self._waiting)} callbacks: at most {bounds.CALLBACKS_MAX} wait for its end"
            )
        self._retention_ms = retention_ms
        self._unmade = Unmade(name)
        self._prefix = f"#{next(_numbers)}-"  # of the names that jobs have until they are made
        self._is_open = False

    @property
    def id(self) -> str:
        """Names the batch everywhere, for ever; there is none before the end of the block."""
        if not self._id:
            raise InvalidInput(f"batch {self.name!r} has no id: it is made at the end of its block")
        return self._id

    @property
    def is_open(self) -> bool:
        """Are jobs being collected."""
        return self._is_open

    def collect(self, job: NewJob) -> JobHandle[Any]:
        """The handle of a job that is made at the end of the block. `task.using(batch=b).enqueue(...)` calls it."""
        if len(self._specs) >= bounds.JOBS_PER_COMMAND_MAX:
            raise InvalidInput(
                f"batch {self.name!r} has {len(self._specs)} jobs, more do not fit into one command: let a member add "
                f"further ones while it runs, with task.using(batch=current_job.batch_id).enqueue(...)"
            )
        handle: JobHandle[Any] = JobHandle(f"{self._prefix}{len(self._specs)}", self._unmade)
        self._specs.append(self._naming(job))
        self.jobs.append(handle)
        return handle

    def _naming(self, job: NewJob) -> NewJob:
        """The job as it must stand in the command, where jobs name each other by their place."""
        if not job.parent_id.startswith("#"):
            return job
        if not job.parent_id.startswith(self._prefix):
            raise InvalidInput(
                f"a job of batch {self.name!r} waits for a job of another batch, which is not made yet: wait for the end "
                f"of its block"
            )
        return job._replace(parent_id=f"#{job.parent_id.removeprefix(self._prefix)}")

    # ------------------------------------------------------------------ the block

    def __enter__(self) -> Self:
        refuse_blocking(BLOCK_IN_ASYNC)
        return self._open()

    async def __aenter__(self) -> Self:
        return self._open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        if error is None:
            self._made(self._carry_out(make_batch(self._command(), self._host.filters_for)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        if error is None:
            self._made(
                await carry_out(make_batch(self._command(), self._host.filters_for), self._host.gateway())
            )

    def _open(self) -> Self:
        if self._is_open or self._id or self._specs:
            raise InvalidInput(f"batch {self.name!r} has had its block: make another one with app.batch(...)")
        self._is_open = True
        return self

    def _command(self) -> EnqueueBatch:
        """Raises `InvalidInput` when it is too large for one command."""
        command = EnqueueBatch(self.name, tuple(self._specs), self._waiting, self._retention_ms)
        require_size(command, f"the {len(self._specs)} jobs of batch {self.name!r}", "make several batches")
        return command

    def _made(self, ids: tuple[str, Sequence[str], Sequence[str]]) -> None:
        self._id = ids[0]
        for handle, job_id in zip(self.jobs, ids[1], strict=True):
            object.__setattr__(handle, "id", job_id)  # until now nobody could do anything with it
            object.__setattr__(handle, "host", self._host)
        self.callbacks = [JobHandle(job_id, self._host) for job_id in ids[2]]


def _waiting(given: Callbacks, on: After) -> Iterable[NewJob]:
    if given is None:
        return []
    callbacks = given if isinstance(given, Sequence) else [given]
    calls = [each if isinstance(each, Call) else each.call() for each in callbacks]
    return [call.waiting(on) for call in calls]
