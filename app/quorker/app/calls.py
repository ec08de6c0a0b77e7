"""A call of a task that is no job yet, so that several become jobs in one command, or one follows another job. What must
not live here: how the command reaches the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quorker.app.settings import After, checked_option
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.commands import Command, EnqueueJobs, NewJob, encode
from quorker.core.session import GROUP_BYTES_MAX
from quorker.core.wire.records import pack

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Call(Generic[R_co]):
    """Made by `task.call(...)`. `parent`: the call whose job this one waits for, which must be enqueued with it."""

    job: NewJob
    parent: Call[Any] | None = None

    def then(self, call: Call[T], on: After = "success") -> Call[T]:
        """The other call as one that waits until the job of this one has ended as `on` says."""
        return Call(call.waiting(on), self)

    def following(self, job_id: str, on: After) -> NewJob:
        """The job that waits for one which exists."""
        return self.waiting(on)._replace(parent_id=job_id)

    def waiting(self, on: After) -> NewJob:
        """The job that will wait for one which is still to be named. Raises `InvalidInput` if it waits for one already."""
        if self.job.parent_id or self.parent is not None:
            raise InvalidInput(
                f"the call of {self.job.task} waits for a job already: it can wait for one only"
            )
        return self.job._replace(on=checked_option("on", on, bounds.condition))


def command_of(calls: Iterable[Call[Any]]) -> EnqueueJobs:
    """The command that makes jobs of all calls or of none. Raises `InvalidInput`."""
    jobs: list[NewJob] = []
    positions: dict[Call[Any], int] = {}
    for position, call in enumerate(calls):
        jobs.append(_job_at(position, call, positions))
        positions[call] = position
    if not 1 <= len(jobs) <= bounds.JOBS_PER_COMMAND_MAX:
        raise InvalidInput(
            f"enqueue_many got {len(jobs)} calls: one command makes 1 to {bounds.JOBS_PER_COMMAND_MAX} jobs, "
            f"all or none; split them"
        )
    command = EnqueueJobs(tuple(jobs))
    require_size(command, f"the {len(jobs)} calls of enqueue_many", "split them")
    return command


def require_size(command: Command, what: str, advice: str) -> None:
    """Raises `InvalidInput` when it is too large for one command."""
    size = len(pack(encode(command)))
    if size > GROUP_BYTES_MAX:
        raise InvalidInput(
            f"{what} have {size} bytes: one command has at most {GROUP_BYTES_MAX}; "
            f"{advice}, or store large arguments elsewhere"
        )


def _job_at(position: int, call: Call[Any], positions: dict[Call[Any], int]) -> NewJob:
    if call in positions:
        raise InvalidInput(
            f"call {position} of enqueue_many is call {positions[call]} again: make another one with task.call(...)"
        )
    if call.parent is None:
        return call.job
    if call.parent not in positions:
        raise InvalidInput(
            f"call {position} of enqueue_many ({call.job.task}) waits for a call of {call.parent.job.task} that does "
            f"not stand before it in the list"
        )
    return call.job._replace(parent_id=f"#{positions[call.parent]}")
