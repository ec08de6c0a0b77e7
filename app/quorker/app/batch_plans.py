"""What batches of jobs ask of the store, each as a plan (see `job_plans`). What must not live here: what users see of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final

from quorker.app.errors import BatchNotFound, BatchPending, JobPending
from quorker.app.filters import FilterChain
from quorker.app.gateway import Query, Submit, WaitFinished
from quorker.app.job_plans import Plan, through_filters, why_not_made
from quorker.core.errors import Rejected
from quorker.core.frozen import record
from quorker.core.jobs.commands import CancelBatch, EnqueueBatch, NewJob
from quorker.core.jobs.lifecycle import ENDED
from quorker.transport.connection import Consistency

PAGE_ROWS: Final = 200


@record
class BatchCounts:
    """`state`: "Pending"; "Succeeded" when all members have; "Failed" when none is pending and one has not succeeded.

    A member that failed, was deleted or quarantined may be requeued: then the batch is pending again.
    """

    state: str
    total: int
    pending: int
    succeeded: int
    failed: int
    deleted: int
    quarantined: int


def make_batch(
    command: EnqueueBatch, filters_for: Callable[[str], FilterChain]
) -> Plan[tuple[str, list[str], list[str]]]:
    """(batch id, ids of its members, ids of its callbacks). Each job passes the filters of its task."""
    batch_ids: list[str] = []
    count = len(command.jobs)

    def submit(jobs: tuple[NewJob, ...]) -> Plan[list[str]]:
        try:
            answer = yield Submit(replace(command, jobs=jobs[:count], callbacks=jobs[count:]))
        except Rejected as refused:
            raise why_not_made(refused) from None
        batch_ids.append(answer[0])
        return [*answer[1], *answer[2]]

    ids = yield from through_filters((*command.jobs, *command.callbacks), filters_for, submit)
    return batch_ids[0], ids[:count], ids[count:]


def read_batch(batch_id: str) -> Plan[dict[str, Any]]:
    """One that is unknown here may be known elsewhere: only a linearizable read can say that there is none."""
    consistencies: tuple[Consistency, ...] = ("local", "linearizable")
    for consistency in consistencies:
        found: dict[str, Any] | None = yield Query("batch", {"batch_id": batch_id}, consistency)
        if found is not None:
            return found
    raise BatchNotFound(
        f"no batch {batch_id} in this cluster: it was never made here, or it ended long ago and has expired"
    )


def read_counts(batch_id: str) -> Plan[BatchCounts]:
    found = yield from read_batch(batch_id)
    return BatchCounts(*[found[each.name] for each in fields(BatchCounts)])


def wait_until_ended(batch_id: str, timeout: float) -> Plan[BatchCounts]:
    """All members have to end, so it waits for one after the other; who joins or is requeued meanwhile is waited for too."""
    deadline = time.monotonic() + timeout
    while True:
        counts = yield from read_counts(batch_id)
        if not counts.pending:
            return counts
        if time.monotonic() > deadline:
            raise BatchPending(
                f"{counts.pending} of {counts.total} jobs of batch {batch_id} had not ended within {timeout:g} s"
            )
        with suppress(JobPending):
            yield from _wait_for_members(batch_id, deadline)


def _wait_for_members(batch_id: str, deadline: float) -> Plan[None]:
    after: int | None = 0
    while after is not None:
        page = yield Query(
            "jobs_by_batch",
            {"batch_id": batch_id, "count": PAGE_ROWS, "newest_first": False, "after": after},
        )
        for row in page["rows"]:
            if row["state"] not in ENDED:
                yield WaitFinished(row["id"], max(0.0, deadline - time.monotonic()))
        after = page["next"]


def cancel_batch(batch_id: str) -> Plan[int]:
    """How many were deleted, piece by piece."""
    deleted, after = 0, 0
    while after is not None:
        try:
            count, after = yield Submit(CancelBatch(batch_id, after))
        except Rejected as refused:
            raise BatchNotFound(refused.detail) from None
        deleted += count
    return deleted
