"""What people and callers do to jobs and queues: delete, requeue, reschedule, pause; and set the limits of the store.

Jobs may be required to be in certain states; a running job is taken away from its worker, which is told to stop.
"""

from __future__ import annotations

from quorker.core.jobs.commands import DeleteJob, RequeueJob, RescheduleJob, SetLimits, SetQueuePaused
from quorker.core.jobs.enqueue import no_queue_room
from quorker.core.jobs.leases import revoke
from quorker.core.jobs.lifecycle import DELETED, ENDED, ENQUEUED, SCHEDULED
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.outcome import NO, OK, YES, Reply, rejected
from quorker.core.jobs.records import Job
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import KEEP, enter


def delete_job(tables: Tables, command: DeleteJob) -> Reply:
    job = tables.jobs.get(command.job_id)
    refusal = _unexpected(job, command.job_id, command.expected_states)
    if job is None or refusal is not None:
        return refusal or OK
    if job.state == DELETED:
        return NO
    enter(tables, withdraw(tables, job, "deleted"), DELETED, "deleted by hand")
    return YES


def requeue_job(tables: Tables, command: RequeueJob) -> Reply:
    """At the tail of its queue, at once."""
    job = tables.jobs.get(command.job_id)
    refusal = _unexpected(job, command.job_id, command.expected_states)
    if job is None or refusal is not None:
        return refusal or OK
    if job.state == ENQUEUED and job.id in tables.places:
        return NO
    refusal = no_queue_room(tables, {job.spec.queue: None})
    if refusal is not None:
        return refusal
    job = _revive(tables, job, ENQUEUED, "requeued")
    tables.append_to_queue(job.spec.queue, job.spec.priority, job.id)
    return YES


def reschedule_job(tables: Tables, command: RescheduleJob) -> Reply:
    job = tables.jobs.get(command.job_id)
    refusal = _unexpected(job, command.job_id, command.expected_states)
    if job is None or refusal is not None:
        return refusal or OK
    due_wt = tables.wt + command.delay_ms if command.at_wt is None else command.at_wt
    _revive(tables, job, SCHEDULED, "rescheduled", max(1, due_wt))
    return YES


def _unexpected(job: Job | None, job_id: str, expected_states: tuple[str, ...]) -> Reply | None:
    if job is None:
        return rejected("not_found", f"there is no job {job_id}")
    if expected_states and job.state not in expected_states:
        return rejected("wrong_state", job.state)
    return None


def withdraw(tables: Tables, job: Job, reason: str) -> Job:
    """Out of its worker's hands and out of all queues."""
    revoke(tables, job, reason)
    tables.take_from_queues(job.id)
    return tables.jobs[job.id]


def _revive(tables: Tables, job: Job, state: str, why: str, due_wt: int = 0) -> Job:
    """A job that had ended starts anew: all its attempts are before it, and lost deliveries are forgiven."""
    counted = 0 if job.state in ENDED else KEEP
    data = (("due_wt", due_wt),) if due_wt else ()
    job = withdraw(tables, job, why)
    tables.set_start_by(job.id, 0)  # whoever moves it by hand has decided when it runs
    return enter(tables, job, state, f"{why} by hand", data, due_wt=due_wt, failures=counted, lost=counted)


def set_queue_paused(tables: Tables, command: SetQueuePaused) -> Reply:
    """Value: did it change. Who paused it, when and why is kept as long as it is paused."""
    queue = tables.queues.get(command.queue)
    if queue is None:
        refusal = no_queue_room(tables, {command.queue: None})
        if refusal is not None or not command.paused:
            return refusal or NO
        queue = tables.queue(command.queue)
    changed = queue.paused != command.paused
    queue.paused = command.paused
    queue.reason = command.reason if command.paused else ""
    queue.author = command.author if command.paused else ""
    queue.paused_wt = (tables.wt if changed else queue.paused_wt) if command.paused else 0
    tables.stirred[queue.name] = None
    return YES if changed else NO


def set_limits(tables: Tables, command: SetLimits) -> Reply:
    try:
        tables.limits = Limits.from_values(command.values)
    except ValueError as error:
        return rejected("bad_limits", str(error))
    return OK
