"""Whether a job that is next in its queue may start: limits and rates under its key, and the end of its patience.

Decided wherever a job is taken out of a queue, by the times of the entry at hand, and by maintenance for jobs that
nobody takes. A job that has started once is never too late again. Which lines stand open is kept by `limiters`.
"""

from __future__ import annotations

from quorker.core.jobs.lifecycle import DELETED
from quorker.core.jobs.new_job import StartRules
from quorker.core.jobs.records import Job, Queue
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import enter


def may_start(tables: Tables, queue: Queue, job: Job, rules: StartRules) -> bool:
    """The job was taken out of the queue. If it may not start, it ends, or goes where it has to wait."""
    start_by_wt = tables.start_by.get(job.id, 0)
    if 0 < start_by_wt <= tables.wt:
        tables.next_token()  # so that one entry does not end more than it could grant
        expire(tables, job)
        return False
    if rules.key and not tables.limiters.admits(rules):  # its place was there before the job was
        tables.append_to_queue(queue.name, job.spec.priority, job.id)
        return False
    return True


def started_under(tables: Tables, job: Job) -> str:
    """The job starts now: it uses up its rate, and is not late any more. Returns its key, "" for none."""
    rules = job.spec.start
    if rules is None:
        return ""
    tables.set_start_by(job.id, 0)
    if rules.rate:
        tables.limiters.spend(rules, tables.lt)
    return rules.key


def expire(tables: Tables, job: Job) -> None:
    """Too late: deleted, whatever it waited for."""
    data = (("start_by_wt", tables.start_by[job.id]),)
    tables.take_from_queues(job.id)
    enter(tables, job, DELETED, "expired: not started in time", data)


def expire_late(tables: Tables, limit: int) -> int:
    """End up to `limit` jobs that have not started in time. Returns how many."""
    due = [job_id for start_by_wt, job_id in tables.late.page(0, limit) if start_by_wt <= tables.wt]
    for job_id in due:
        expire(tables, tables.jobs[job_id])
    return len(due)


def open_due(tables: Tables) -> None:
    """Keys whose rate allows another start by now; in pieces."""
    tables.limiters.open_due(tables.lt, tables.limits.piece)
    tables.stir_opened()
