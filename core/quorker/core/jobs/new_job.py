"""A job as its submitter asks for it, and as a worker is given it.

The records are frozen and travel unchanged: the store keeps the `NewJob` it was sent. What happens to a job in between
must not live here. Units: `*_ms` is a duration in milliseconds, `*_wt` an instant in milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import ON, ON_EXCEED, checked
from quorker.core.jobs.wire_form import from_wire

Headers: TypeAlias = tuple[tuple[str, str], ...]

_DURATION = checked(bounds.DURATION)
_TASK = checked(bounds.TASK)
_QUEUE = checked(bounds.QUEUE)
_ARGS = checked(bounds.ARGS)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed job runs again: `attempts` times after the first run, then `on_exceed`.

    `delays_ms` (the last one repeats) wins over `base_ms` (doubled each time, at most `cap_ms`); with neither, retry n
    waits Hangfire's round((n-1)**4 + 15 + r*n) seconds, r in 0..29 drawn from the job id and n.
    """

    attempts: int = field(default=10, metadata=checked(bounds.whole("attempts", 0, bounds.RETRIES_MAX)))
    delays_ms: tuple[int, ...] = field(
        default=(), metadata=checked(bounds.many("delays", bounds.DURATION, 0, bounds.PAIRS_MAX))
    )
    base_ms: int = field(default=0, metadata=_DURATION)
    cap_ms: int = field(default=0, metadata=_DURATION)
    on_exceed: ON_EXCEED = field(default="fail", metadata=checked(bounds.on_exceed))


def retry_policy_from_wire(value: Any) -> RetryPolicy:
    """A `RetryPolicy` out of its array. Raises `BadCommand`."""
    return from_wire(RetryPolicy, bounds.array("retry policy", value))


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job to enqueue. Also kept in the store, unchanged, as what was asked for.

    `at_wt` (not before this instant) wins over `delay_ms`. `unique_key`: while another job holds the key, no job is
    made and the holder's id is returned; the key is held for `unique_ms` of log time, or with 0 until the job ends.
    `parent_id`: the job waits for that one to end as `on` says; `#k` means the k-th job (from 0) of the same command.
    `retention_ms`: how long to keep it after it succeeded or was deleted; 0 means the store's default.
    """

    task: str = field(metadata=_TASK)
    args: bytes = field(default=b"", metadata=_ARGS)
    queue: str = field(default="default", metadata=_QUEUE)
    priority: int = field(
        default=0, metadata=checked(bounds.whole("priority", -bounds.PRIORITY_MAX, bounds.PRIORITY_MAX))
    )
    timeout_ms: int = field(default=0, metadata=_DURATION)
    retry: RetryPolicy | None = field(default=None, metadata=checked(bounds.maybe(retry_policy_from_wire)))
    delay_ms: int = field(default=0, metadata=_DURATION)
    at_wt: int | None = field(default=None, metadata=checked(bounds.maybe(bounds.INSTANT)))
    unique_key: str = field(default="", metadata=checked(bounds.text("unique key", 0, bounds.KEY_CHARS_MAX)))
    unique_ms: int = field(default=0, metadata=_DURATION)
    parent_id: str = field(default="", metadata=checked(bounds.PARENT_ID))
    on: ON = field(default="success", metadata=checked(bounds.condition))
    headers: Headers = field(default=(), metadata=checked(bounds.HEADERS))
    tags: tuple[str, ...] = field(default=(), metadata=checked(bounds.TAGS))
    retention_ms: int = field(default=0, metadata=_DURATION)


@dataclass(frozen=True, slots=True)
class JobGrant:
    """A job in the hands of a worker. `token` fences all it reports; `attempt` counts from 1, a lost or released
    delivery does not raise it; `deliveries` counts every grant, this one included."""

    job_id: str = field(metadata=checked(bounds.JOB_ID))
    token: int = field(metadata=checked(bounds.TOKEN))
    queue: str = field(metadata=checked(bounds.QUEUE))
    task: str = field(metadata=checked(bounds.TASK))
    args: bytes = field(metadata=checked(bounds.ARGS))
    attempt: int = field(metadata=checked(bounds.TOKEN))
    timeout_ms: int = field(metadata=_DURATION)
    created_wt: int = field(metadata=checked(bounds.INSTANT))
    deliveries: int = field(metadata=checked(bounds.TOKEN))
    headers: Headers = field(default=(), metadata=checked(bounds.HEADERS))


def new_job_from_wire(value: Any) -> NewJob:
    """A `NewJob` out of its array. Raises `BadCommand`."""
    return from_wire(NewJob, bounds.array("job", value))


def grant_to_wire(grant: JobGrant) -> tuple[Any, ...]:
    """The fields of a grant, in order."""
    return (
        grant.job_id,
        grant.token,
        grant.queue,
        grant.task,
        grant.args,
        grant.attempt,
        grant.timeout_ms,
        grant.created_wt,
        grant.deliveries,
        grant.headers,
    )


def grant_from_wire(value: Any) -> JobGrant:
    """A grant back out of its array, as a client receives it. Raises `BadCommand`."""
    return from_wire(JobGrant, bounds.array("grant", value))
