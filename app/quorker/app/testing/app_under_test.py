"""`app.testing()`: an app with a job store of its own, in memory, and a clock that its test moves. What must not live here:
how jobs are run (`draining.py`) and how calls reach the store (`memory_gateway.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self

import trio
from trio.testing import MockClock

from quorker.app.failure import sole_member
from quorker.app.front_door import Attachable
from quorker.app.gateway import async_library, refuse_blocking
from quorker.app.settings import JobState, milliseconds
from quorker.app.testing.draining import Draining, DrainPlan
from quorker.app.testing.job_rows import JobRow, instant, row_of
from quorker.app.testing.memory_gateway import MemoryGateway
from quorker.core.errors import ConfigurationError, InvalidInput
from quorker.core.jobs.bounds import RESULT_BYTES_MAX
from quorker.core.jobs.lifecycle import STATES
from quorker.core.jobs.recurring_commands import SetRecurring
from quorker.transport.memory import MemoryConnection, MemoryStore

ATTEMPTS_MAX: Final = 10_000
_STATES: Final = {name.lower(): name for name in STATES}


def open_memory(start_wt: int | None) -> MemoryStore:
    """An empty store whose wall clock begins there, or at a fixed instant."""
    return MemoryStore() if start_wt is None else MemoryStore(wt=start_wt)


class AppUnderTest:
    """Made by `app.testing()`. Nothing runs and no time passes but by the calls here. In async code: those with an `a`."""

    def __init__(self, app: Attachable, memory: MemoryStore, queues: tuple[str, ...] | None) -> None:
        self._app = app
        self._memory = memory
        self._queues = queues
        self._opened: tuple[MemoryConnection, MemoryGateway] | None = None
        self._declared: dict[str, SetRecurring] = {}
        self._is_draining = False

    def __enter__(self) -> Self:
        if self._opened is not None:
            raise ConfigurationError("this app.testing() is open already: call app.testing() again")
        self._app.load_imports()
        connection = self._memory.connect("testing")
        gateway = MemoryGateway(self._memory, connection, self)
        self._opened = (connection, gateway)
        self._app.add_gateway(gateway)
        self._declare(connection)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opened is not None
        self._app.remove_gateway(self._opened[1])
        self._opened = None

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> datetime:
        """The wall clock of the store, in UTC."""
        return instant(self._memory.wt)

    def advance(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
    ) -> None:
        """Let time pass. What becomes due is enqueued at its instant, as a leader would do it, but no job runs."""
        self._declare(self._connection())
        self._memory.advance(_ms(days, hours, minutes, seconds, milliseconds))

    # ------------------------------------------------------------------ running jobs

    @property
    def is_draining(self) -> bool:
        """Do jobs run right now."""
        return self._is_draining

    def drain(self, *, limit: int = ATTEMPTS_MAX) -> int:
        """Run jobs until none is runnable now. Returns the number of attempts. For plain code.

        What a task raises is a failure of its job, retried when time has passed. More than `limit` attempts without
        that the clock moves raise `TestingStopped`. A task that sleeps moves the clock.
        """
        refuse_blocking("await quorker.adrain()")
        return self._drain_here(limit)

    async def adrain(self, *, limit: int = ATTEMPTS_MAX) -> int:
        """Like `drain`, for async code. On trio jobs run in the loop of the test, where they sleep by its clock."""
        return await self._drain_anywhere(limit)

    def run(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
        limit: int = ATTEMPTS_MAX,
    ) -> int:
        """Let time pass and run every job as it becomes runnable. Returns the number of attempts. For plain code."""
        refuse_blocking("await quorker.arun(...)")
        return self._drain_here(limit, _ms(days, hours, minutes, seconds, milliseconds))

    async def arun(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
        limit: int = ATTEMPTS_MAX,
    ) -> int:
        """Like `run`, for async code."""
        return await self._drain_anywhere(limit, _ms(days, hours, minutes, seconds, milliseconds))

    def _drain_here(self, limit: int, ms: int | None = None) -> int:
        clock = MockClock()
        draining = self._draining(limit, ms, clock)
        try:
            return trio.run(draining.run, self._app, clock=clock)
        except BaseExceptionGroup as group:
            raise sole_member(group) from None
        finally:
            self._is_draining = False

    async def _drain_anywhere(self, limit: int, ms: int | None = None) -> int:
        """An asyncio loop stands still meanwhile: async tasks run on trio, here as elsewhere."""
        if async_library() != "trio":
            return self._drain_here(limit, ms)
        draining = self._draining(limit, ms, None)
        try:
            return await draining.run(self._app)
        except BaseExceptionGroup as group:
            raise sole_member(group) from None
        finally:
            self._is_draining = False

    def _draining(self, limit: int, ms: int | None, clock: MockClock | None) -> Draining:
        connection = self._connection()
        if self._is_draining:
            raise ConfigurationError("jobs are being run already: drain() cannot be called by a task")
        if limit < 1:
            raise InvalidInput(f"limit is {limit}: allow at least one attempt")
        self._declare(connection)
        result_bytes_max = min(self._app.payload_bytes_max, RESULT_BYTES_MAX)
        queues = self._app.queues if self._queues is None else self._queues
        until_lt = None if ms is None else self._memory.lt + ms
        self._is_draining = True
        return Draining(self._memory, connection, DrainPlan(queues, result_bytes_max, limit, until_lt), clock)

    def _declare(self, connection: MemoryConnection) -> None:
        """What the code declares as recurring, as a member does it; once, also what the test declares later."""
        for recurring_id, declaration in self._app.declared.items():
            if self._declared.get(recurring_id) != declaration.command:
                self._declared[recurring_id] = declaration.command
                connection.submit_now(declaration.command)

    def _connection(self) -> MemoryConnection:
        if self._opened is None:
            raise ConfigurationError("open it first: `with app.testing() as quorker:`")
        return self._opened[0]

    # ------------------------------------------------------------------ looking

    def jobs(
        self,
        *,
        state: JobState | str | Sequence[str] = (),
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
    ) -> list[JobRow]:
        """The jobs that are in one of these states (`"failed"` or `"Failed"`), of this task, queue and tag; oldest first."""
        connection = self._connection()
        states = _states(state)
        found = [
            job
            for job in self._memory.store.jobs.values()
            if (not states or job.state in states)
            and task in (None, job.spec.task)
            and queue in (None, job.spec.queue)
            and (tag is None or tag in job.spec.tags)
        ]
        found.sort(key=lambda job: job.created)
        return [row_of(connection.query_now("job_details", {"job_id": job.id})) for job in found]


def _ms(days: float, hours: float, minutes: float, seconds: float, ms: float) -> int:
    span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=ms)
    return milliseconds(span, "the time to pass")


def _states(given: str | Sequence[str]) -> frozenset[str]:
    names = (given,) if isinstance(given, str) else tuple(given)
    unknown = [name for name in names if name.lower() not in _STATES]
    if unknown:
        raise InvalidInput(f"state: there is no state {unknown[0]!r}: write {', '.join(_STATES)}")
    return frozenset(_STATES[name.lower()] for name in names)
