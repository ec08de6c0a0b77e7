"""What the members of a batch do to it: joining, ending, being revived, being evicted. It keeps count, and knows its end.

Its end leaves it in `unresolved`, like that of a job for which others wait. Making a batch, and the jobs that wait for
one, must not live here.
"""

from __future__ import annotations

from typing import Final

from quorker.core.jobs.lifecycle import DELETED, FAILED, QUARANTINED, SUCCEEDED
from quorker.core.jobs.records import JobBatch
from quorker.core.jobs.tables import Tables

COUNTED: Final = {SUCCEEDED: "succeeded", FAILED: "failed", DELETED: "deleted", QUARANTINED: "quarantined"}
"""By state of a member; in any other state it is pending."""


def join(tables: Tables, batch_id: str) -> None:
    """One more member, which has not ended. The batch is there, and has not ended (the caller knows)."""
    batch = tables.batches[batch_id]
    tables.change_batch(batch, batch._replace(pending=batch.pending + 1))


def recount(tables: Tables, batch_id: str, before: str, after: str) -> None:
    """A member has gone from one state to another."""
    was, now = COUNTED.get(before, "pending"), COUNTED.get(after, "pending")
    batch = tables.batches.get(batch_id)
    if batch is not None and was != now:
        counts = {was: getattr(batch, was) - 1, now: getattr(batch, now) + 1}
        settle_batch(tables, batch, batch._replace(**counts))


def forget(tables: Tables, batch_id: str, state: str) -> None:
    """A member is no longer there. It counts as what it was; one that had no end will never have one."""
    if state not in COUNTED:
        recount(tables, batch_id, state, DELETED)


def settle_batch(tables: Tables, old: JobBatch, new: JobBatch) -> None:
    """With its last pending member the batch ends; with one that is revived it goes on, as if it had never ended."""
    tables.unresolved.pop(new.reference, None)
    if new.pending:
        new = new._replace(completed_wt=0, expires_lt=0)
    else:
        limits = tables.limits
        ttl = limits.succeeded_ttl_ms if new.state == SUCCEEDED else limits.failed_ttl_ms
        expires_lt = max(1, tables.lt + (new.retention_ms or ttl))
        new = new._replace(completed_wt=old.completed_wt or tables.wt, expires_lt=expires_lt)
        if new.reference in tables.index.children:
            tables.unresolved[new.reference] = None
    tables.change_batch(old, new)
