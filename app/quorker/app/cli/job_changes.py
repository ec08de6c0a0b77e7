"""Requeue, delete or cancel many jobs: each is one compare-and-set of the store, many are under way at a time.

A job that was found by a filter is changed only while it is still in the state in which it was found. What must not live
here: which jobs are meant, and what is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import trio

from quorker.app.connection_host import ConnectionHost
from quorker.app.errors import JobNotFound
from quorker.app.job_plans import Change, carry_out, change_job
from quorker.core.errors import OperationError, QuorkerError, Rejected
from quorker.core.jobs.commands import DeleteJob, RequeueJob
from quorker.core.jobs.lifecycle import UNFINISHED
from quorker.transport.connection import Connection

UNDER_WAY_MAX: Final = 64

Ending: TypeAlias = Literal["changed", "unchanged", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Verb:
    """What is done. `states`: where it makes sense, () for anywhere."""

    name: str
    done: str
    command: Callable[[str, tuple[str, ...]], Change]
    states: tuple[str, ...] = ()


REQUEUE: Final = Verb("requeue", "requeued", RequeueJob)
DELETE: Final = Verb("delete", "deleted", DeleteJob)
CANCEL: Final = Verb("cancel", "cancelled", DeleteJob, UNFINISHED)


@dataclass(frozen=True, slots=True)
class Target:
    """A job, and the states in which it may be changed; () for any."""

    job_id: str
    expected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job: changed; unchanged, because it was so already; skipped, because it was in another state
    than expected; or failed, with the error."""

    job_id: str
    ending: Ending
    why: str = ""
    error: QuorkerError | None = None


async def change_all(
    connection: Connection, verb: Verb, targets: Sequence[Target], on_outcome: Callable[[Outcome], None]
) -> None:
    """Change each; `on_outcome` hears of all of them as they end. Once the cluster does not answer, the rest is not tried."""
    left = iter(targets)
    async with trio.open_nursery() as nursery:
        for _ in range(min(UNDER_WAY_MAX, len(targets))):
            nursery.start_soon(_change_some, connection, verb, left, on_outcome)
    for target in left:
        on_outcome(Outcome(target.job_id, "failed", "not tried: the cluster had stopped answering"))


async def _change_some(
    connection: Connection, verb: Verb, left: Iterator[Target], on_outcome: Callable[[Outcome], None]
) -> None:
    for target in left:
        outcome = await change_one(connection, verb, target)
        on_outcome(outcome)
        if isinstance(outcome.error, OperationError) and not isinstance(outcome.error, Rejected):
            return


async def change_one(connection: Connection, verb: Verb, target: Target) -> Outcome:
    command = verb.command(target.job_id, target.expected)
    try:
        if await carry_out(change_job(command), ConnectionHost(connection)):
            return Outcome(target.job_id, "changed")
        return await _unchanged(connection, target)
    except QuorkerError as error:
        return Outcome(target.job_id, "failed", str(error), error)


async def _unchanged(connection: Connection, target: Target) -> Outcome:
    found = (await connection.query("state", {"job_id": target.job_id})).value
    if found is None:
        raise JobNotFound(f"job {target.job_id} has expired meanwhile")
    if target.expected and found["name"] not in target.expected:
        return Outcome(target.job_id, "skipped", f"it is {found['name']}")
    return Outcome(target.job_id, "unchanged", f"it is {found['name']} already")
