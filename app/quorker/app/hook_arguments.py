"""What each hook of a filter is given: what it may look at, and what it may decide. What must not live here: the order of
filters and the calling of hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quorker.app.context import JobContext
from quorker.app.failure import MESSAGE_CHARS_MAX, Failure
from quorker.app.limits import LIMIT_OPTIONS
from quorker.app.outcomes import Delete, Fail, GiveBack, Outcome, Succeed
from quorker.app.payload import decode_call, decode_result, encode_result
from quorker.app.settings import is_kept, own_headers, read_options
from quorker.core.errors import InvalidInput
from quorker.core.jobs.bounds import RESULT_BYTES_MAX
from quorker.core.jobs.commands import JobGrant, NewJob


class Enqueuing:
    """A job before it is enqueued. Raise to refuse it: nothing is sent then, not of the others of its command either."""

    def __init__(self, job: NewJob) -> None:
        self.job = job

    @property
    def task(self) -> str:
        return self.job.task

    @property
    def queue(self) -> str:
        return self.job.queue

    @property
    def headers(self) -> Mapping[str, str]:
        return own_headers(self.job.headers)

    @property
    def tags(self) -> tuple[str, ...]:
        return self.job.tags

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments, decoded anew: changing them changes nothing."""
        return decode_call(self.job.args)

    def change(self, **options: Any) -> None:
        """Options as `task.using` takes them. Headers are added to those that are there. Raises `InvalidInput`."""
        added = options.pop("headers", None)
        if added is not None:
            options["headers"] = {**self.headers, **added}
        limits = [name for name in options if name in LIMIT_OPTIONS]
        if limits:
            raise InvalidInput(
                f"a filter cannot change {', '.join(limits)}: say it where the job is enqueued"
            )
        found = read_options(options)
        batch = found.pop("batch", None)
        if batch is not None:
            found["batch_id"] = batch.id  # raises as long as its block lasts
        kept = tuple(pair for pair in self.job.headers if is_kept(pair[0]))
        kept = found.pop("retry_headers", kept)
        own = found.pop("headers", tuple(self.headers.items()))
        if not found.keys() <= set(NewJob._fields):
            raise InvalidInput(
                f"a filter cannot change {', '.join(options)}: say it where the job is enqueued"
            )
        self.job = self.job._replace(**found, headers=kept + own)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A job after the attempt to enqueue it: its id, or "" and the error."""

    task: str
    headers: Mapping[str, str]
    job_id: str
    error: BaseException | None


class Performing:
    """An attempt before it runs. Raise to let it fail; `cancel` to delete the job instead."""

    def __init__(self, job: JobContext, args: bytes) -> None:
        self.job = job
        self._args = args
        self.cancelled: str | None = None

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments, decoded anew: changing them changes nothing."""
        return decode_call(self._args)

    def cancel(self, reason: str) -> None:
        """Do not run it: delete the job. Filters that come later are not asked."""
        self.cancelled = reason


@dataclass(frozen=True, slots=True)
class Performed:
    """An attempt after it ran. `failure`: None if the task returned; `stopped`: why it was told to stop, "" if it was not."""

    job: JobContext
    seconds: float
    packed: bytes | None
    failure: Failure | None
    stopped: str

    @property
    def result(self) -> Any:
        """What the task returned; None if it did not."""
        return None if self.packed is None else decode_result(self.packed)


class Election:
    """The decision what the store shall make of an attempt: `outcome` is what it would be told now."""

    def __init__(self, grant: JobGrant, job: JobContext, outcome: Outcome) -> None:
        self.job = job
        self.outcome = outcome
        self.all_headers = grant.headers
        self._failure = outcome.failure if isinstance(outcome, Fail) else None

    @property
    def failure(self) -> Failure | None:
        """What the attempt failed with, whatever the outcome shall be."""
        return self._failure

    def succeed(self, result: Any = None) -> None:
        """Let the job succeed with this result. Raises `BadPayload`."""
        self.outcome = Succeed(encode_result(result, bytes_max=RESULT_BYTES_MAX))

    def fail(self, *, retry: bool, message: str = "") -> None:
        """Let the attempt fail: with its own failure, or if it has none with this message."""
        failure = self._failure or Failure(
            ("FailedByFilter",), (message or "a filter let it fail")[:MESSAGE_CHARS_MAX], ""
        )
        self.outcome = Fail(failure, retry)

    def delete(self, reason: str) -> None:
        """Delete the job. A failure is kept in its history."""
        self.outcome = Delete(reason, self._failure)

    def give_back(self) -> None:
        """Let it run again at once, at the head of its queue; no attempt is spent."""
        self.outcome = GiveBack()


@dataclass(frozen=True, slots=True)
class Applied:
    """The store's answer: the `state` that the job is in now, or the `error` ("lease_lost": the job is in other hands)."""

    job: JobContext
    outcome: Outcome
    state: str
    error: Exception | None
