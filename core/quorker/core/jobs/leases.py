"""How a hold on a job ends: reported, given back, taken away, or lost with its worker.

Every path frees the slot and removes the lease before the job moves on, so no job is ever Processing without a lease or
leased without being Processing. The outcome of the job itself is decided in `reports` and `sessions`.
"""

from __future__ import annotations

from quorker.core.jobs.dispatch import offer_slots
from quorker.core.jobs.lifecycle import ENDED, ENQUEUED, QUARANTINED
from quorker.core.jobs.outcome import Cancelled, Notice
from quorker.core.jobs.records import Job, Lease, LeaseKind
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import enter


def free(tables: Tables, lease: Lease) -> None:
    """The lease ends; its slot, if it took one, is offered again."""
    tables.remove_lease(lease)
    if lease.kind == LeaseKind.DISPATCHED:
        session = tables.sessions[lease.session]
        session.busy -= 1
        offer_slots(tables, session)


def revoke(tables: Tables, job: Job, reason: str) -> None:
    """The job is taken away from whoever runs it, and they are told to stop."""
    lease = tables.leases.get(job.token)
    if lease is None:
        return
    tables.outcome.notices.append(Notice(lease.session, "cancel", Cancelled(lease.token, job.id, reason)))
    free(tables, lease)


def give_back(tables: Tables, lease: Lease, reason: str) -> None:
    """Back to the head of its queue; nothing is held against the job. What has ended stays as it is, expiry and all."""
    free(tables, lease)
    job = tables.jobs.get(lease.job_id)
    if job is None:
        return
    if lease.kind == LeaseKind.FETCHED:
        _return_fetched(tables, lease, job)
    else:
        enter(tables, job, ENQUEUED, reason)
        tables.return_to_queue(lease.queue, job.spec.priority, job.id)


def _return_fetched(tables: Tables, lease: Lease, job: Job) -> None:
    """The contract leaves the state alone, and a job that is worked on again does not expire."""
    if job.state in ENDED:
        return
    if job.expires_lt:
        tables.change_job(job, job._replace(expires_lt=0))
    tables.return_to_queue(lease.queue, job.spec.priority, job.id)


def lose(tables: Tables, lease: Lease, reason: str) -> None:
    """The worker vanished with the job. Once too often, and the job is quarantined: it may be what kills workers.

    The first time it returns to the head of its queue; after that to the tail, not to be first in line for ever.
    """
    job = tables.jobs.get(lease.job_id)
    if job is None or job.state in ENDED:
        free(tables, lease)
        return
    lost = job.lost + 1
    if lost >= tables.limits.max_lost_deliveries:
        free(tables, lease)
        quarantine(tables, tables.jobs[job.id], lost, reason)
    elif lease.kind == LeaseKind.FETCHED:
        tables.change_job(job, job._replace(lost=lost))
        give_back(tables, lease, reason)
    else:
        free(tables, lease)
        enter(tables, tables.jobs[job.id], ENQUEUED, reason, lost=lost)
        if lost == 1:
            tables.return_to_queue(lease.queue, job.spec.priority, job.id)
        else:
            tables.append_to_queue(lease.queue, job.spec.priority, job.id)


def quarantine(tables: Tables, job: Job, lost: int, reason: str) -> None:
    revoke(tables, job, reason)  # a contract's fetch may have been beside a dispatch
    tables.take_from_queues(job.id)
    enter(tables, job, QUARANTINED, f"lost {lost} deliveries, the last one because {reason}", lost=lost)
