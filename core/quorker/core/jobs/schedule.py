"""What wall time brings: scheduled jobs that are due, jobs that were not started in time; in pieces, the earliest first."""

from __future__ import annotations

from quorker.core.jobs.commands import ReleaseDue
from quorker.core.jobs.continuations import resolve
from quorker.core.jobs.lifecycle import ENQUEUED
from quorker.core.jobs.outcome import Reply, done
from quorker.core.jobs.start_rules import expire_late
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import enter


def next_start(tables: Tables) -> int | None:
    """The earliest wall time (ms) at which a scheduled job is due or a waiting one too late, or None."""
    firsts = (tables.index.schedule.first(), tables.late.first())
    return min((row[0] for row in firsts if row is not None), default=None)


def release_due(tables: Tables, command: ReleaseDue) -> Reply:
    """Value: how many jobs moved. Decided by the wall time of this entry, which no submitter can set."""
    limit = tables.limits.piece
    expired = expire_late(tables, limit)
    rows = tables.index.schedule.page(0, limit)
    due = [job_id for due_wt, _, job_id in rows if due_wt <= tables.wt]
    for job_id in due:
        job = tables.jobs[job_id]
        reason = f"retry {job.failures}" if job.failures else "due"
        job = enter(tables, job, ENQUEUED, reason)
        tables.append_to_queue(job.spec.queue, job.spec.priority, job_id)
    return done(expired + len(due) + resolve(tables, limit))
