"""What a task can be configured with, as users write it, and its check: retry rules, durations, options of a call. What
must not live here: the decision to retry, which the state machine takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar

from quorker.app.failure import qualified_name
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.commands import BadCommand, NewJob, RetryPolicy
from quorker.core.jobs.lifecycle import STATES

if TYPE_CHECKING:
    from quorker.app.limits import Limit, Rate

T = TypeVar("T")
Duration: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""
ErrorKind: TypeAlias = type[BaseException] | str
RunsIn: TypeAlias = Literal["trio", "thread", "process"]
After: TypeAlias = Literal["success", "failure", "any", "deleted"]
Misfire: TypeAlias = Literal["once", "all", "skip"]

JobState: TypeAlias = Literal[
    "Enqueued", "Scheduled", "Awaiting", "Processing", "Succeeded", "Failed", "Deleted", "Quarantined"
]

RETRY_ON: Final = "retry-on"
RETRY_NOT_ON: Final = "retry-not-on"
KEPT_HEADERS: Final = "quorker-"  # what the names of our own headers begin with
MANAGED: Final = "quorker-managed"


def milliseconds(value: Duration, what: str) -> int:
    """A duration as whole milliseconds. Raises `InvalidInput` for a negative, endless or overlong one."""
    seconds: Any = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        raise InvalidInput(f"{what} is {value!r}: give seconds (a number) or a timedelta")
    return checked_option(what, round(seconds * 1000), bounds.DURATION)


def instant_ms(value: datetime, what: str) -> int:
    """Milliseconds since the epoch. Raises `InvalidInput` for a datetime without a time zone."""
    if value.utcoffset() is None:
        raise InvalidInput(f"{what}={value!r} has no time zone: write datetime(..., tzinfo=UTC)")
    return checked_option(what, round(value.timestamp() * 1000), bounds.INSTANT)


def start_instant(delay: Duration | None, at: datetime | None) -> tuple[int | None, int]:
    """`at_wt` and `delay_ms` of a command, out of the one of both that is given. Raises `InvalidInput`."""
    if (delay is None) == (at is None):
        raise InvalidInput("give either delay= (seconds or a timedelta) or at= (a datetime with a time zone)")
    if at is not None:
        return instant_ms(at, "at"), 0
    assert delay is not None
    return None, milliseconds(delay, "delay")


def checked_states(what: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of states. Raises `InvalidInput` for one that no job can have."""
    names = (given,) if isinstance(given, str) else tuple(given)
    unknown = [name for name in names if name not in STATES]
    if unknown:
        raise InvalidInput(f"{what}: there is no state {unknown[0]!r}: write {', '.join(STATES)}")
    return names


def checked_option(what: str, value: Any, check: bounds.Check[T]) -> T:
    """`value` within the bounds of a command, or `InvalidInput` saying which option of which value is out of them."""
    try:
        return check(value)
    except BadCommand as error:
        raise InvalidInput(f"{what}={value!r}: {error.reason}") from None


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is repeated.

    `max` retries follow the first attempt. With nothing else given, retry n waits round((n-1)**4 + 15 + r*n) seconds
    with r drawn from 0..29 (Hangfire's curve). `base` waits base * 2**(n-1), at most `cap`; `delays` is a list of
    waits, the last one repeats. Durations are seconds or timedeltas.
    `on`: only these exception types (and subclasses) are retried; `not_on`: all but these. Names count as well:
    `"requests.exceptions.Timeout"`. `on_exceed`: "fail" keeps the job as Failed, "delete" deletes it.
    """

    max: int = 10
    base: Duration | None = None
    cap: Duration | None = None
    delays: Sequence[Duration] = ()
    on: Sequence[ErrorKind] = ()
    not_on: Sequence[ErrorKind] = ()
    on_exceed: Literal["fail", "delete"] = "fail"

    def policy(self) -> RetryPolicy:
        """The part that the state machine decides by. Raises `InvalidInput`."""
        if self.delays and self.base is not None:
            raise InvalidInput("Retry takes either base (and cap) or delays, not both")
        if self.cap is not None and self.base is None:
            raise InvalidInput("Retry(cap=...) needs a base: without one the waits are Hangfire's")
        checked_option("Retry(on_exceed)", self.on_exceed, bounds.on_exceed)
        return RetryPolicy(
            checked_option("Retry(max)", self.max, bounds.whole("attempts", 0, bounds.RETRIES_MAX)),
            tuple(milliseconds(delay, "Retry(delays)") for delay in self.delays),
            0 if self.base is None else milliseconds(self.base, "Retry(base)"),
            0 if self.cap is None else milliseconds(self.cap, "Retry(cap)"),
            self.on_exceed,
        )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The part that the worker decides by: names of exception types, as headers of the job."""
        found = ((RETRY_ON, _names(self.on)), (RETRY_NOT_ON, _names(self.not_on)))
        headers = tuple((name, value) for name, value in found if value)
        checked_option("Retry(on, not_on)", headers, bounds.HEADERS)
        return headers


NO_RETRY: Final = Retry(max=0)


def may_retry(headers: Sequence[tuple[str, str]], error_types: Sequence[str]) -> bool:
    """Whether the job's `on` and `not_on` allow a retry after an error of these types (a class and its bases)."""
    for name, value in headers:
        hit = any(kind in error_types for kind in value.split())
        if (name == RETRY_ON and not hit) or (name == RETRY_NOT_ON and hit):
            return False
    return True


def own_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Those that the user gave, without those of `Retry` and of recurring jobs."""
    return {name: value for name, value in headers if not is_kept(name)}


def is_kept(name: object) -> bool:
    """Is it quorker's own header, not the user's."""
    return name in (RETRY_ON, RETRY_NOT_ON) or str(name).startswith(KEPT_HEADERS)


def _names(kinds: Sequence[ErrorKind]) -> str:
    return " ".join(kind if isinstance(kind, str) else qualified_name(kind) for kind in kinds)


class Collector(Protocol):
    """A batch: it collects jobs while its block lasts, and has an id afterwards."""

    @property
    def id(self) -> str: ...
    @property
    def is_open(self) -> bool: ...
    def collect(self, job: NewJob) -> Any: ...


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How one job of a task is enqueued, in the units of `NewJob`."""

    queue: str = "default"
    priority: int = 0
    timeout_ms: int = 0
    retry: RetryPolicy | None = None
    delay_ms: int = 0
    at_wt: int | None = None
    unique_key: str = ""
    unique_ms: int = 0
    parent_id: str = ""
    on: After = "success"
    tags: tuple[str, ...] = ()
    retention_ms: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    retry_headers: tuple[tuple[str, str], ...] = ()
    concurrency: Limit | None = None
    rate: Rate | None = None
    expires_ms: int = 0
    expires_wt: int = 0
    batch_id: str = ""
    batch: Collector | None = None


def read_options(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of `CallOptions` for options as users write them; None means not given. Raises `InvalidInput`."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            found.update(_READERS[name](value))
    return found


def _read_retry(value: Retry) -> dict[str, Any]:
    return {"retry": value.policy(), "retry_headers": value.headers()}


def _read_headers(value: Mapping[str, str]) -> dict[str, Any]:
    taken = [name for name in value if is_kept(name)]
    if taken:
        raise InvalidInput(
            f"headers: {taken[0]!r} is kept for quorker itself, as are retry-on, retry-not-on and all names that begin "
            f"with {KEPT_HEADERS}; choose another name"
        )
    return {"headers": checked_option("headers", tuple(value.items()), _OWN_HEADERS)}


def _read_after(value: Any) -> dict[str, Any]:
    """A job, a job that is collected for the same batch, or a batch that is there."""
    parent_id = getattr(value, "parent_id", None) or getattr(value, "id", value)
    is_ours = type(parent_id) is str and parent_id != value
    return {"parent_id": checked_option("after", parent_id, bounds.PARENT_ID if is_ours else bounds.JOB_ID)}


def _read_batch(value: Any) -> dict[str, Any]:
    """A batch whose block goes on is asked again when the job is enqueued."""
    if hasattr(value, "collect"):
        return {"batch": value, "batch_id": ""}
    batch_id = checked_option("batch", getattr(value, "id", value), bounds.BATCH_ID)
    return {"batch": None, "batch_id": batch_id}


def _read_priority(value: int) -> dict[str, Any]:
    limit = bounds.PRIORITY_MAX
    return {"priority": checked_option("priority", value, bounds.whole("priority", -limit, limit))}


_OWN_HEADERS: Final = bounds.many(
    "headers", bounds.HEADER, 0, bounds.HEADERS_MAX - len((RETRY_ON, RETRY_NOT_ON))
)
_READERS: Final[dict[str, Callable[[Any], dict[str, Any]]]] = {
    "queue": lambda value: {"queue": checked_option("queue", value, bounds.QUEUE)},
    "priority": _read_priority,
    "timeout": lambda value: {"timeout_ms": milliseconds(value, "timeout")},
    "retry": _read_retry,
    "delay": lambda value: {"delay_ms": milliseconds(value, "delay"), "at_wt": None},
    "at": lambda value: {"at_wt": instant_ms(value, "at"), "delay_ms": 0},
    "unique": lambda value: {"unique_key": checked_option("unique", value, bounds.KEY)},
    "unique_for": lambda value: {"unique_ms": milliseconds(value, "unique_for")},
    "after": _read_after,
    "batch": _read_batch,
    "on": lambda value: {"on": checked_option("on", value, bounds.condition)},
    "tags": lambda value: {"tags": checked_option("tags", tuple(value), bounds.TAGS)},
    "headers": _read_headers,
    "retention": lambda value: {"retention_ms": milliseconds(value, "retention")},
}
