"""What ends by log time: jobs and batches past their retention, unique keys, collections, locks; in pieces, from ordered rows.

Nothing here scans: the first rows of each order are the ones that are due. Leases are in `maintenance`.
"""

from __future__ import annotations

from quorker.core.jobs.batch_members import forget
from quorker.core.jobs.continuations import forsake
from quorker.core.jobs.records import Job
from quorker.core.jobs.tables import Tables


def next_retention(tables: Tables) -> int | None:
    """The earliest log time at which something ends, or None."""
    firsts = (
        tables.index.retention.first(),
        tables.unique_expiry.first(),
        tables.lock_expiry.first(),
        tables.batch_expiry.first(),
    )
    instants = [row[0] for row in firsts if row is not None]
    collection = tables.collections.next_due()
    return min(instants if collection is None else [*instants, collection], default=None)


def evict_jobs(tables: Tables, limit: int) -> tuple[int, int]:
    """Evict up to `limit` jobs that have reached their expiry and that nobody holds. Returns (jobs, queue entries).

    Continuations that still wait for an evicted job are deleted first, and count as well.
    """
    evicted = orphans = spent = 0
    for expires_lt, _, job_id in tables.index.retention.page(0, limit):
        if expires_lt > tables.lt or spent >= limit or job_id in tables.unresolved:
            break  # continuations of an end that is not dealt with are released first
        if tables.jobs[job_id].expires_lt != expires_lt:
            continue  # it was a continuation of one before it
        spent += 1 + forsake(tables, job_id, limit - spent)
        if job_id in tables.index.children:
            break  # the next piece goes on with them
        orphans += evict(tables, tables.jobs[job_id])
        evicted += 1
    return evicted, orphans


def evict(tables: Tables, job: Job) -> int:
    """Remove a job and its queue entries; returns how many of these there were."""
    orphans = tables.take_from_queues(job.id)
    key = job.spec.unique_key
    unique = tables.unique_keys.get(key) if key else None
    if unique is not None and unique.job_id == job.id and not unique.expires_lt:
        tables.remove_unique_key(unique)
    tables.remove_job(job)
    if job.spec.batch_id:
        forget(tables, job.spec.batch_id, job.state)
    return orphans


def evict_batches(tables: Tables, limit: int) -> int:
    """Evict up to `limit` batches that have ended long ago; whatever still waits for one is deleted first. Returns how many."""
    evicted = spent = 0
    for expires_lt, batch_id in tables.batch_expiry.page(0, limit):
        batch = tables.batches[batch_id]
        reference = batch.reference
        if expires_lt > tables.lt or spent >= limit or reference in tables.unresolved:
            break
        spent += 1 + forsake(tables, reference, limit - spent)
        if reference in tables.index.children:
            break  # the next piece goes on with them
        tables.remove_batch(batch)
        evicted += 1
    return evicted


def expire_unique_keys(tables: Tables, limit: int) -> int:
    due = [key for expires_lt, key in tables.unique_expiry.page(0, limit) if expires_lt <= tables.lt]
    for key in due:
        tables.remove_unique_key(tables.unique_keys[key])
    return len(due)
