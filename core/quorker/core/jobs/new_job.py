"""A job as its submitter asks for it, and as a worker is given it.

The records are immutable and travel unchanged: the store keeps the `NewJob` it was sent. They are named tuples because
there is one for every job, and these are made and packed fastest. What happens to a job in between must not live here.
Units: `*_ms` is a duration in milliseconds, `*_wt` an instant in milliseconds since the epoch.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

from quorker.core.frozen import new_tuple
from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import ON, ON_EXCEED
from quorker.core.jobs.wire_form import Wire, declare, from_wire

DEFAULT_QUEUE: Final = "default"

Headers: TypeAlias = tuple[tuple[str, str], ...]


class RetryPolicy(NamedTuple):
    """When a failed job runs again: `attempts` times after the first run, then `on_exceed`.

    `delays_ms` (the last one repeats) wins over `base_ms` (doubled each time, at most `cap_ms`); with neither, retry n
    waits Hangfire's round((n-1)**4 + 15 + r*n) seconds, r in 0..29 drawn from the job id and n.
    """

    attempts: int = 10
    delays_ms: tuple[int, ...] = ()
    base_ms: int = 0
    cap_ms: int = 0
    on_exceed: ON_EXCEED = "fail"


class StartRules(NamedTuple):
    """When a job may start. With a `key`: while fewer than `limit` jobs of it are in workers' hands (0: any number), and
    at most `rate` times in `rate_ms` of log time, evenly, with `burst` at once after a pause (rate 0: any time).

    Its first start must be sooner than `within_ms` after it could have started at the earliest, and before the instant
    `by_wt`; else it is deleted (0: any time will do).
    """

    key: str = ""
    limit: int = 0
    rate: int = 0
    rate_ms: int = 0
    burst: int = 1
    within_ms: int = 0
    by_wt: int = 0

    @property
    def interval_us(self) -> int:
        """Between two starts, rounded up, so that no stretch of `rate_ms` has more than `rate`."""
        return -(-self.rate_ms * 1000 // self.rate)


class NewJob(NamedTuple):
    """One job to enqueue. Also kept in the store, unchanged, as what was asked for.

    `at_wt` (not before this instant) wins over `delay_ms`. `unique_key`: while another job holds the key, no job is
    made and the holder's id is returned; the key is held for `unique_ms` of log time, or with 0 until the job ends.
    `parent_id`: the job waits for that one to end as `on` says; `#k` means the k-th job (from 0) of the same command,
    `batch#ID` a batch of jobs. `retention_ms`: how long to keep it after it succeeded or was deleted; 0 means the store's
    default. `batch_id`: the batch that it is a member of. `start`: limits under a key, and how late is too
    late.
    """

    task: str
    args: bytes = b""
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    timeout_ms: int = 0
    retry: RetryPolicy | None = None
    delay_ms: int = 0
    at_wt: int | None = None
    unique_key: str = ""
    unique_ms: int = 0
    parent_id: str = ""
    on: ON = "success"
    headers: Headers = ()
    tags: tuple[str, ...] = ()
    retention_ms: int = 0
    batch_id: str = ""
    start: StartRules | None = None


_PLAIN: Final = tuple(NewJob("", b""))[3:]  # all that comes after the queue, left out


class JobGrant(NamedTuple):
    """A job in the hands of a worker. `token` fences all it reports; `attempt` counts from 1, a lost or released
    delivery does not raise it; `deliveries` counts every grant, this one included."""

    job_id: str
    token: int
    queue: str
    task: str
    args: bytes
    attempt: int
    timeout_ms: int
    created_wt: int
    deliveries: int
    headers: Headers = ()
    batch_id: str = ""


def retry_policy_from_wire(value: Any) -> RetryPolicy:
    """A `RetryPolicy` out of its array. Raises `BadCommand`."""
    return from_wire(RetryPolicy, bounds.array("retry policy", value))


def start_rules_from_wire(value: Any) -> StartRules:
    """`StartRules` out of their array: a key limits something, and nothing is limited without one. Raises `BadCommand`."""
    rules = from_wire(StartRules, bounds.array("start rules", value))
    if bool(rules.key) != bool(rules.limit or rules.rate):
        bounds.refuse("limit key", "goes with a limit or a rate, and they with it")
    if bool(rules.rate) != bool(rules.rate_ms) or rules.rate > rules.rate_ms:
        bounds.refuse("rate", "must be from 1 to as many starts as its time has milliseconds")
    return rules


def new_job_from_wire(value: Any) -> NewJob:
    """A `NewJob` out of its array. Raises `BadCommand`."""
    return from_wire(NewJob, bounds.array("job", value))


def plain_job(value: Any) -> NewJob | None:
    """What `new_job_from_wire` makes of a task, its arguments and perhaps a queue, all else left out: nearly every job,
    and a third of the time. None for anything else, be it good or bad."""
    if type(value) is not list or not 2 <= len(value) <= 3:  # pyright: ignore[reportUnknownArgumentType]  # any list
        return None
    task, args, queue = value if len(value) == 3 else (*value, DEFAULT_QUEUE)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if type(task) is not str or type(args) is not bytes or type(queue) is not str:  # pyright: ignore[reportUnknownArgumentType]
        return None
    if len(args) > bounds.ARGS_BYTES_MAX or not bounds.is_task(task) or not bounds.is_queue(queue):
        return None
    made: NewJob = new_tuple(NewJob, (task, args, queue, *_PLAIN))
    return made


def plain_to_wire(job: NewJob) -> Wire | None:
    """The same array as `to_wire` gives, in a third of the time, of a job that `plain_job` reads back; None for others."""
    if job[3:] != _PLAIN or not job.args:
        return None
    return [job.task, job.args] if job.queue == DEFAULT_QUEUE else [job.task, job.args, job.queue]


def grant_to_wire(grant: JobGrant) -> tuple[Any, ...]:
    """The fields of a grant, in order; the batch only of a member of one."""
    return tuple(grant) if grant.batch_id else tuple(grant[:-1])


def grant_from_wire(value: Any) -> JobGrant:
    """A grant back out of its array, as a client receives it. Raises `BadCommand`."""
    return from_wire(JobGrant, bounds.array("grant", value))


declare(
    RetryPolicy,
    bounds.whole("attempts", 0, bounds.RETRIES_MAX),
    bounds.many("delays", bounds.DURATION, 0, bounds.PAIRS_MAX),
    bounds.DURATION,
    bounds.DURATION,
    bounds.on_exceed,
)
declare(
    StartRules,
    bounds.text("limit key", 0, bounds.KEY_CHARS_MAX),
    bounds.whole("limit", 0, bounds.START_LIMIT_MAX),
    bounds.whole("rate", 0, bounds.START_LIMIT_MAX),
    bounds.whole("rate time", 0, bounds.RATE_MS_MAX),
    bounds.whole("burst", 1, bounds.BURST_MAX),
    bounds.DURATION,
    bounds.INSTANT,
)
declare(
    NewJob,
    bounds.TASK,
    bounds.ARGS,
    bounds.QUEUE,
    bounds.whole("priority", -bounds.PRIORITY_MAX, bounds.PRIORITY_MAX),
    bounds.DURATION,
    bounds.maybe(retry_policy_from_wire),
    bounds.DURATION,
    bounds.maybe(bounds.INSTANT),
    bounds.text("unique key", 0, bounds.KEY_CHARS_MAX),
    bounds.DURATION,
    bounds.PARENT_ID,
    bounds.condition,
    bounds.HEADERS,
    bounds.TAGS,
    bounds.DURATION,
    bounds.MAYBE_BATCH_ID,
    bounds.maybe(start_rules_from_wire),
)
declare(
    JobGrant,
    bounds.JOB_ID,
    bounds.TOKEN,
    bounds.QUEUE,
    bounds.TASK,
    bounds.ARGS,
    bounds.TOKEN,
    bounds.DURATION,
    bounds.INSTANT,
    bounds.TOKEN,
    bounds.HEADERS,
    bounds.MAYBE_BATCH_ID,
)
