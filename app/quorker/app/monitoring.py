"""`app.monitoring`: what is going on in the cluster, in plain and in async code. Every read costs what it returns, however
many jobs are stored. What must not live here: how jobs are searched (`job_search.py`), and any change."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypeVar

from quorker.app.gateway import Gateway, Query, refuse_blocking
from quorker.app.job_facts import (
    JobDetails,
    JobSummary,
    Page,
    QueueFacts,
    TaskFigures,
    WorkerFacts,
    job_details,
    job_summary,
    queue_facts,
    task_figures,
    worker_facts,
)
from quorker.app.job_plans import Plan, carry_out, carry_out_blocking, read_job
from quorker.app.job_search import TASK_PATTERN, JobSearch, condition, search_page
from quorker.app.settings import JobState, checked_option, checked_states, instant_ms
from quorker.app.tasks import RegisteredTask
from quorker.core.jobs import bounds
from quorker.core.jobs.queries_search import SAMPLE_MAX

T = TypeVar("T")

ROWS: Final = 500
JOBS_PER_PAGE: Final = 50
_COUNT: Final = bounds.whole("limit", 1, 10_000)
_FORMS: Final = {"day": "%Y-%m-%d", "hour": "%Y-%m-%d-%H"}

States = JobState | Sequence[JobState]
Ended = Literal["succeeded", "failed", "deleted"]
Unit = Literal["day", "hour"]


class MonitoringHost(Protocol):
    """What monitoring needs of its app."""

    @property
    def tasks(self) -> Mapping[str, RegisteredTask]: ...
    def gateway(self) -> Gateway: ...


class Monitoring:
    """Reads about jobs, queues, workers and tasks. Methods with an `a` in front are for async code."""

    def __init__(self, host: MonitoringHost) -> None:
        self._host = host

    def jobs(
        self,
        *,
        state: States = (),
        task: str = "",
        queue: str = "",
        tag: str = "",
        error: str = "",
        where: Mapping[str, object] | None = None,
        created: tuple[datetime | None, datetime | None] = (None, None),
        changed: tuple[datetime | None, datetime | None] = (None, None),
        limit: int = JOBS_PER_PAGE,
        after: str = "",
    ) -> Page[JobSummary]:
        """Jobs for which everything holds that is given, newest first: by their last change of state, or by creation where
        a task or a tag says most.

        `task`: a name or a pattern as in "send_*". `error`: part of the type or message of the last failure, in any case.
        `where`: arguments and their values, {"user_id": 42, "order.lines[0].sku": "x1", "args[0]": 7}; positional arguments
        have names where this app has the task. `created`, `changed`: from (included) and until (not included), aware
        datetimes or None. `after`: that of the page before. Raises `InvalidInput`.
        """
        refuse_blocking("await app.monitoring.ajobs(...)")
        search = _search(state, task, queue, tag, error, where, created, changed)
        return self._do(self._page(search, limit, after))

    async def ajobs(
        self,
        *,
        state: States = (),
        task: str = "",
        queue: str = "",
        tag: str = "",
        error: str = "",
        where: Mapping[str, object] | None = None,
        created: tuple[datetime | None, datetime | None] = (None, None),
        changed: tuple[datetime | None, datetime | None] = (None, None),
        limit: int = JOBS_PER_PAGE,
        after: str = "",
    ) -> Page[JobSummary]:
        """Like `jobs`, for async code."""
        search = _search(state, task, queue, tag, error, where, created, changed)
        return await self._ado(self._page(search, limit, after))

    def job(self, job_id: str) -> JobDetails:
        """Everything about a job. Raises `JobNotFound`."""
        refuse_blocking("await app.monitoring.ajob(...)")
        return self._do(_job(job_id))

    async def ajob(self, job_id: str) -> JobDetails:
        """Like `job`, for async code."""
        return await self._ado(_job(job_id))

    def statistics(self) -> Mapping[str, int]:
        """How many of everything: jobs by state, queues, servers. `succeeded` and `deleted` count from the beginning."""
        refuse_blocking("await app.monitoring.astatistics()")
        return self._do(_read("statistics"))

    async def astatistics(self) -> Mapping[str, int]:
        """Like `statistics`, for async code."""
        return await self._ado(_read("statistics"))

    def history(
        self, what: Ended, unit: Unit = "hour", count: int = 24
    ) -> builtins.list[tuple[datetime, int]]:
        """How many jobs ended so, in each of the last `count` days or hours (UTC, at most 31 and 24 are kept), newest first."""
        refuse_blocking("await app.monitoring.ahistory(...)")
        return self._do(_history(what, unit, count))

    async def ahistory(
        self, what: Ended, unit: Unit = "hour", count: int = 24
    ) -> builtins.list[tuple[datetime, int]]:
        """Like `history`, for async code."""
        return await self._ado(_history(what, unit, count))

    def queues(self) -> builtins.list[QueueFacts]:
        """The queues by name."""
        refuse_blocking("await app.monitoring.aqueues()")
        return self._do(_all(queue_facts, "queues", first=0))

    async def aqueues(self) -> builtins.list[QueueFacts]:
        """Like `queues`, for async code."""
        return await self._ado(_all(queue_facts, "queues", first=0))

    def workers(self) -> builtins.list[WorkerFacts]:
        """The processes that are connected, the one that is so for longest first."""
        refuse_blocking("await app.monitoring.aworkers()")
        return self._do(_all(worker_facts, "sessions"))

    async def aworkers(self) -> builtins.list[WorkerFacts]:
        """Like `workers`, for async code."""
        return await self._ado(_all(worker_facts, "sessions"))

    def tasks(self) -> Mapping[str, int]:
        """The tasks of the jobs that are stored, by name, and how many jobs each has."""
        refuse_blocking("await app.monitoring.atasks()")
        return dict(self._do(_all(_name_and_jobs, "tasks")))

    async def atasks(self) -> Mapping[str, int]:
        """Like `tasks`, for async code."""
        return dict(await self._ado(_all(_name_and_jobs, "tasks")))

    def task(self, name: str, *, sample: int = SAMPLE_MAX) -> TaskFigures:
        """Figures over the newest `sample` jobs of a task: states, and percentiles of how long jobs waited and worked."""
        refuse_blocking("await app.monitoring.atask(...)")
        return self._do(_task(name, sample))

    async def atask(self, name: str, *, sample: int = SAMPLE_MAX) -> TaskFigures:
        """Like `task`, for async code."""
        return await self._ado(_task(name, sample))

    def _do(self, plan: Plan[T]) -> T:
        return carry_out_blocking(plan, self._host.gateway())

    async def _ado(self, plan: Plan[T]) -> T:
        return await carry_out(plan, self._host.gateway())

    def _page(self, search: JobSearch, limit: int, after: str) -> Plan[Page[JobSummary]]:
        checked_option("limit", limit, _COUNT)
        rows, following = yield from search_page(search, limit, after, self._names)
        return Page(tuple(map(job_summary, rows)), following)

    def _names(self, task: str) -> Sequence[str]:
        registered = self._host.tasks.get(task)
        if registered is None:
            return ()
        parameters = registered.signature.parameters.values()
        return [
            each.name
            for each in parameters
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]


def _search(
    state: States,
    task: str,
    queue: str,
    tag: str,
    error: str,
    where: Mapping[str, object] | None,
    created: tuple[datetime | None, datetime | None],
    changed: tuple[datetime | None, datetime | None],
) -> JobSearch:
    for name, value, check in (
        ("task", task, TASK_PATTERN),
        ("queue", queue, bounds.QUEUE),
        ("tag", tag, bounds.text("tag", 1, 64)),
        ("error", error, bounds.NAME),
    ):
        if value:
            checked_option(name, value, check)
    return JobSearch(
        states=checked_states("state", state),
        task=task,
        queue=queue,
        tag=tag,
        error=error,
        where=tuple(condition(path, value) for path, value in (where or {}).items()),
        created_from=_wall_ms("created", created[0]),
        created_until=_wall_ms("created", created[1]),
        changed_from=_wall_ms("changed", changed[0]),
        changed_until=_wall_ms("changed", changed[1]),
    )


def _wall_ms(name: str, at: datetime | None) -> int | None:
    return None if at is None else instant_ms(at, name)


def _read(query: str, **args: Any) -> Plan[Any]:
    return (yield Query(query, args))


def _all(of: Callable[[Mapping[str, Any]], T], query: str, **args: Any) -> Plan[builtins.list[T]]:
    """Every row of a read in pages by rank. What comes or goes meanwhile may shift a row out of sight."""
    found: builtins.list[T] = []
    while True:
        page = yield Query(query, {**args, "start": len(found), "count": ROWS})
        found += map(of, page)
        if len(page) < ROWS:
            return found


def _job(job_id: str) -> Plan[JobDetails]:
    checked_option("job id", job_id, bounds.JOB_ID)
    return job_details((yield from read_job(job_id, "job_details")))


def _history(what: Ended, unit: Unit, count: int) -> Plan[builtins.list[tuple[datetime, int]]]:
    rows = yield Query("history", {"what": what, "unit": unit, "count": count})
    return [(datetime.strptime(label, _FORMS[unit]).replace(tzinfo=UTC), number) for label, number in rows]


def _name_and_jobs(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["task"], row["jobs"]


def _task(name: str, sample: int) -> Plan[TaskFigures]:
    checked_option("task", name, bounds.TASK)
    return task_figures((yield Query("task_figures", {"task": name, "sample": sample})))
