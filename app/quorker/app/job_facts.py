"""What is known of jobs, queues, workers and tasks, as records with Python's own types. What must not live here: asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Generic, TypeVar

from quorker.app.payload import call_values

T = TypeVar("T")


def instant(wall_ms: int | None, zone: tzinfo = UTC) -> datetime | None:
    """An aware datetime; None for none."""
    return datetime.fromtimestamp(wall_ms / 1000, zone) if wall_ms else None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items`, newest first, and `after`, to be passed on for the next page: "" when there is none."""

    items: tuple[T, ...]
    after: str


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One step in the life of a job."""

    state: str
    reason: str
    at: datetime | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job in a list. `args` and `kwargs` are None when they are longer than a list shows, or are no call.

    `error`: type and message of its last failure, whatever came after it. `due`: when a scheduled job becomes due.
    """

    id: str
    task: str
    queue: str
    priority: int
    state: str
    reason: str
    created: datetime | None
    changed: datetime | None
    due: datetime | None
    failures: int
    deliveries: int
    tags: tuple[str, ...]
    error: tuple[str, str] | None
    args: tuple[Any, ...] | None
    kwargs: Mapping[str, Any] | None


def job_summary(row: Mapping[str, Any]) -> JobSummary:
    args, kwargs = call_values(row)
    error = row["error"]
    return JobSummary(
        row["id"],
        row["task"],
        row["queue"],
        row["priority"],
        row["state"] or "",
        row["reason"],
        instant(row["created_wt"]),
        instant(row["state_wt"]),
        instant(row["due_wt"]),
        row["failures"],
        row["deliveries"],
        tuple(row["tags"]),
        None if error is None else (error[0], error[1]),
        None if args is None else tuple(args),
        kwargs,
    )


@dataclass(frozen=True, slots=True)
class JobDetails:
    """Everything about a job. `history`: newest first. `worker`: the process that runs it, "" when none does.

    `parent`: the job that it waits or waited for; `continuations`: those that wait for it, at most 1,000.
    """

    summary: JobSummary
    headers: Mapping[str, str]
    history: tuple[StateEntry, ...]
    worker: str
    token: int
    parent: str
    continuations: tuple[str, ...]


def job_details(found: Mapping[str, Any]) -> JobDetails:
    """Of the answer to `job_details`."""
    lease, parent = found["lease"], found["parent"]
    history = tuple(
        StateEntry(entry["name"], entry["reason"], instant(entry["at_wt"]), entry["data"])
        for entry in found["history"]
    )
    failure = next((entry.data for entry in history if entry.state == "Failed"), None)
    error = None if failure is None else (failure.get("error_type", ""), failure.get("message", ""))
    return JobDetails(
        job_summary({**found, "error": error}),
        found["headers"],
        history,
        lease["worker"] if lease else "",
        lease["token"] if lease else 0,
        parent["id"] if parent else "",
        tuple(found["continuations"]),
    )


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """`waiting`: enqueued jobs; `running`: those that were taken and are not reported."""

    name: str
    waiting: int
    running: int
    paused: bool
    paused_since: datetime | None
    reason: str
    author: str


def queue_facts(row: Mapping[str, Any]) -> QueueFacts:
    return QueueFacts(
        row["name"],
        row["length"],
        row["fetched"],
        row["paused"],
        instant(row["paused_wt"]),
        row["reason"],
        row["author"],
    )


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A process that is connected. `slots`: how many jobs it takes at a time, 0 for one that takes none."""

    name: str
    queues: tuple[str, ...]
    slots: int
    running: int
    locks: int
    since: datetime | None
    heard_seconds_ago: float


def worker_facts(row: Mapping[str, Any]) -> WorkerFacts:
    return WorkerFacts(
        row["name"],
        tuple(row["queues"]),
        row["slots"],
        row["leases"],
        row["locks"],
        instant(row["opened_wt"]),
        max(0, row["ttl_ms"] - row["expires_in_ms"]) / 1000,
    )


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest-rank percentiles in seconds."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """Over the newest `sampled` of the `total` jobs of a task that are stored: how many are in which state; how long those that
    succeeded had waited (`latency`, created to started) and worked (`duration`); None when none did."""

    task: str
    total: int
    sampled: int
    states: Mapping[str, int]
    latency: Percentiles | None
    duration: Percentiles | None


def task_figures(row: Mapping[str, Any]) -> TaskFigures:
    return TaskFigures(
        row["task"],
        row["total"],
        row["sampled"],
        row["states"],
        _percentiles(row["latency_ms"]),
        _percentiles(row["duration_ms"]),
    )


def _percentiles(found: Mapping[str, int] | None) -> Percentiles | None:
    return None if found is None else Percentiles(**{name: ms / 1000 for name, ms in found.items()})
