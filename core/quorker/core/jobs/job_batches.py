"""Batches of jobs: members and the jobs that wait for their end, made together; and calling off what has not ended.

How a batch follows its members is in `batch_members`, what its end does to those that wait in `continuations`, when
it is forgotten in `retention`. (A `Batch` is something else: contract operations of one transaction.)
"""

from __future__ import annotations

from itertools import islice

from quorker.core.jobs.batch_members import settle_batch
from quorker.core.jobs.commands import CancelBatch, EnqueueBatch
from quorker.core.jobs.control import withdraw
from quorker.core.jobs.enqueue import held_key, make_jobs, no_place, no_room
from quorker.core.jobs.lifecycle import DELETED, ENDED
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.outcome import Reply, done, rejected
from quorker.core.jobs.records import JobBatch
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.timeline import Timeline
from quorker.core.jobs.transitions import enter


def enqueue_batch(tables: Tables, command: EnqueueBatch) -> Reply:
    """Value: (batch id, ids of its members, ids of its callbacks). All of it or nothing."""
    refusal = _no_batch_room(tables, command)
    if refusal is not None:
        return refusal
    batch_id = tables.new_job_id()
    # It counts itself as pending until all is made, so that it cannot end half-made, and an empty one ends all the same.
    batch = JobBatch(
        batch_id, command.name, tables.next_order(), tables.wt, pending=1, retention_ms=command.retention_ms
    )
    tables.add_batch(batch)
    members = make_jobs(tables, tuple([spec._replace(batch_id=batch_id) for spec in command.jobs]))
    callbacks = make_jobs(tables, tuple([_waiting(spec, batch) for spec in command.callbacks]))
    batch = tables.batches[batch_id]
    settle_batch(tables, batch, batch._replace(pending=batch.pending - 1, callbacks=callbacks))
    return done((batch_id, members, callbacks))


def _waiting(spec: NewJob, batch: JobBatch) -> NewJob:
    return spec._replace(parent_id=batch.reference)


def _no_batch_room(tables: Tables, command: EnqueueBatch) -> Reply | None:
    jobs = (*command.jobs, *command.callbacks)
    if len(tables.batches) >= tables.limits.max_batches:
        return rejected(
            "store_full", f"there are {len(tables.batches)} batches of {tables.limits.max_batches}"
        )
    return no_room(tables, len(jobs)) or no_place(tables, jobs) or held_key(tables, jobs)


def cancel_batch(tables: Tables, command: CancelBatch) -> Reply:
    """Value: (how many were deleted, where the next piece begins, or None at the end)."""
    if command.batch_id not in tables.batches:
        return rejected("not_found", f"there is no batch {command.batch_id}")
    members = tables.index.batches.get(command.batch_id, Timeline())
    limit = tables.limits.piece
    piece = list(islice(members.after(command.after), limit))
    going_on = [job_id for _, job_id in piece if tables.jobs[job_id].state not in ENDED]
    for job_id in going_on:
        enter(tables, withdraw(tables, tables.jobs[job_id], "deleted"), DELETED, "deleted with its batch")
    return done((len(going_on), piece[-1][0] if len(piece) == limit else None))
