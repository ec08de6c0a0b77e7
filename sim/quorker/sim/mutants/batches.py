"""Bugs of batches of jobs: callbacks that come too early, twice or never, and batches that are made by halves."""

from __future__ import annotations

from typing import Final

from quorker.core.jobs import batch_members, enqueue, job_batches, retention, transitions
from quorker.core.jobs import store as job_store
from quorker.core.jobs.commands import EnqueueBatch
from quorker.core.jobs.continuations import make_available
from quorker.core.jobs.lifecycle import ENQUEUED
from quorker.core.jobs.outcome import Reply
from quorker.core.jobs.records import JobBatch
from quorker.core.jobs.tables import Tables
from quorker.core.jobs.transitions import enter
from quorker.sim.mutants.cases import in_batches
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.oracles.batch_checks import COME, LAST, WHOLE

MODEL: Final = ("witness [C1]",)


@bug(
    "With the last but one member that ends, the callbacks come.",
    known="celery 5612, 1881, 2324, 1662: chords that fire early or never",
    oracles=(LAST, *MODEL),
    budget=20,
    case=in_batches,
)
def callbacks_come_early(patch: Patch) -> None:
    def recount(tables: Tables, batch_id: str, before: str, after: str) -> None:
        count(tables, batch_id, before, after)
        batch = tables.batches.get(batch_id)
        if batch is not None and batch.pending == 1 and batch.succeeded:
            for job_id in list(tables.index.children.get(batch.reference, ())):
                make_available(tables, tables.jobs[job_id], "all but one have ended")

    count = patch.replace(transitions, "recount", recount)


@bug(
    "A batch whose last member fails leaves its callbacks waiting.",
    known="celery 5612, 1881, 2324, 1662: chords that fire early or never",
    oracles=(COME, *MODEL, "store invariant"),
    budget=20,
    case=in_batches,
)
def callbacks_never_come(patch: Patch) -> None:
    def settle(tables: Tables, old: JobBatch, new: JobBatch) -> None:
        count(tables, old, new)
        if new.failed > old.failed:
            tables.unresolved.pop(new.reference, None)

    count = patch.replace(batch_members, "settle_batch", settle)


@bug(
    "A batch that has ended again, after a member was tried once more, starts its callbacks once more.",
    oracles=(LAST, *MODEL),
    budget=60,
    case=in_batches,
)
def callbacks_come_again(patch: Patch) -> None:
    def recount(tables: Tables, batch_id: str, before: str, after: str) -> None:
        count(tables, batch_id, before, after)
        batch = tables.batches.get(batch_id)
        if batch is None or batch.pending or batch_members.COUNTED.get(after) is None:
            return
        ended = [job_id for job_id in batch.callbacks if job_id in tables.jobs]
        for job in [tables.jobs[job_id] for job_id in ended if tables.jobs[job_id].state == "Succeeded"]:
            enter(tables, job, ENQUEUED, "its batch has ended again")
            tables.append_to_queue(job.spec.queue, job.spec.priority, job.id)

    count = patch.replace(transitions, "recount", recount)


@bug(
    "A batch that is refused for one of its members leaves those that were made before.",
    known="enqueueing in a loop, without a transaction",
    oracles=(WHOLE, *MODEL),
    budget=60,
    case=in_batches,
)
def refused_batches_are_half_made(patch: Patch) -> None:
    def enqueue_batch(tables: Tables, command: EnqueueBatch) -> Reply:
        reply: Reply = make(tables, command)
        if reply[0] and reply[1] == "key_held":
            enqueue.make_jobs(tables, tuple([job for job in command.jobs if not job.unique_key][:1]))
        return reply

    make = patch.replace_item(job_store.HANDLERS, EnqueueBatch.OP, enqueue_batch)


@bug(
    "A member that has expired is no longer counted: what was deleted is forgotten, and the rest has succeeded.",
    known="counters that are computed from what is left",
    oracles=(LAST, *MODEL, "store invariant"),
    budget=200,
    case=in_batches,
)
def expired_members_do_not_count(patch: Patch) -> None:
    def forget(tables: Tables, batch_id: str, state: str) -> None:
        batch, kind = tables.batches.get(batch_id), batch_members.COUNTED.get(state, "pending")
        if batch is not None:
            batch_members.settle_batch(tables, batch, batch._replace(**{kind: getattr(batch, kind) - 1}))

    patch.replace(retention, "forget", forget)


@bug(
    "A member may wait for a key that another job has: the batch waits for one job less.",
    oracles=(*MODEL, "one job per key"),
    budget=60,
    case=in_batches,
)
def members_are_stood_for_by_others(patch: Patch) -> None:
    patch.replace(job_batches, "held_key", always(None))


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
