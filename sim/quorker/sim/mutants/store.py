"""Bugs of the state machine: jobs, tokens, queues and snapshots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from quorker.core.jobs import control, dispatch, enqueue, leases, maintenance, sessions
from quorker.core.jobs import store as job_store
from quorker.core.jobs.commands import CompleteJob, EnqueueJobs, FailJob, ReleaseDue, ReleaseJob
from quorker.core.jobs.lifecycle import TAKEABLE
from quorker.core.jobs.limits import DEFAULT_LIMITS, Limits
from quorker.core.jobs.outcome import Outcome, Reply
from quorker.core.jobs.records import Job, Lease, Queue
from quorker.core.jobs.store import JobStore
from quorker.core.jobs.tables import Tables
from quorker.sim.model.witness import Witness
from quorker.sim.mutants.cases import busy
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in

FENCED: Final = ("fenced [T4]",)
ONE_HOLDER: Final = ("one holder [J3]",)
DIFFERENT: Final = ("replicas are equal [C5]",)
UNFINISHED: Final = ("liveness", "store invariant")
MODEL: Final = ("witness [C1]",)  # it knows at once what must be granted, cancelled and kept


def by_the_present_token(tables: Tables, command: Any) -> Any:
    """The report as if it came from whoever holds the job now."""
    job = tables.jobs.get(command.job_id)
    return replace(command, token=job.token) if job is not None and job.token else command


@bug(
    "A completion is accepted from whoever once held the job.",
    known="River, Oban, Faktory, NATS 4786",
    oracles=FENCED,
    budget=20,
    case=busy,
)
def stale_reports_are_accepted(patch: Patch) -> None:
    def complete(tables: Tables, command: CompleteJob) -> Reply:
        reply: Reply = judge(tables, by_the_present_token(tables, command))
        return reply

    judge = patch.replace_item(job_store.HANDLERS, CompleteJob.OP, complete)


@bug(
    "A failure is accepted from whoever once held the job.",
    known="River 1302, Oban",
    oracles=FENCED,
    budget=100,
    case=busy,
)
def stale_failures_are_accepted(patch: Patch) -> None:
    def fail(tables: Tables, command: FailJob) -> Reply:
        reply: Reply = judge(tables, by_the_present_token(tables, command))
        return reply

    judge = patch.replace_item(job_store.HANDLERS, FailJob.OP, fail)


@bug(
    "A job is given back by whoever once held it.",
    known="Faktory, asynq 1089",
    oracles=FENCED,
    budget=100,
    case=busy,
)
def stale_releases_are_accepted(patch: Patch) -> None:
    def release(tables: Tables, command: ReleaseJob) -> Reply:
        reply: Reply = judge(tables, by_the_present_token(tables, command))
        return reply

    judge = patch.replace_item(job_store.HANDLERS, ReleaseJob.OP, release)


@bug(
    "A job that is granted stays at the head of its queue, for the next one who asks.",
    known="double fetch after a decision on a local read",
    oracles=(*ONE_HOLDER, "not too late [J23]"),
    budget=20,
    case=busy,
)
def granted_jobs_stay_in_the_queue(patch: Patch) -> None:
    def take_next(tables: Tables, queue: Queue) -> Job | None:
        while queue.has_next:
            job = tables.jobs.get(tables.pop_from_queue(queue))
            if job is not None and job.state in TAKEABLE:
                if tables.applied_index % 8 == 3:
                    tables.return_to_queue(queue.name, job.spec.priority, job.id)
                return job
        return None

    patch.replace(dispatch, "take_next", take_next)


@bug(
    "Entries share their tokens with their neighbours in the log.",
    known="locks without fences",
    oracles=("tokens grow [C6]", "started once"),
    budget=20,
    case=busy,
)
def tokens_are_used_again(patch: Patch) -> None:
    def begin(self: Tables, index: int, outcome: Outcome) -> None:
        start(self, index & ~1, outcome)

    start = patch.replace(Tables, "begin", begin)


@bug(
    "A running job that is requeued by hand is not taken from its worker.",
    oracles=(*ONE_HOLDER, *FENCED, *MODEL),
    budget=20,
    case=busy,
)
def requeued_jobs_are_not_revoked(patch: Patch) -> None:
    patch.replace(control, "revoke", always(None))


@bug(
    "What an enqueue has acknowledged is sometimes not there.",
    known="dkron 998, NATS 7549",
    oracles=("acknowledged is not lost [J1]", *MODEL),
    budget=20,
    case=busy,
)
def acknowledged_jobs_are_dropped(patch: Patch) -> None:
    def drop(tables: Tables, command: EnqueueJobs) -> Reply:
        reply: Reply = enqueue.enqueue_jobs(tables, command)
        for job_id in reply[1] if reply[0] == 0 and tables.applied_index % 16 == 3 else ():
            if tables.jobs[job_id].state == "Enqueued":
                tables.take_from_queues(job_id)
                tables.remove_job(tables.jobs[job_id])
        return reply

    patch.replace_item(job_store.HANDLERS, EnqueueJobs.OP, drop)


@bug(
    "A job whose worker vanished is not put back into its queue.",
    known="dkron 1210: jobs stop after an election",
    oracles=(*UNFINISHED, *MODEL),
    budget=20,
    case=busy,
)
def lost_jobs_are_not_put_back(patch: Patch) -> None:
    def lose(tables: Tables, lease: Lease, _: str) -> None:
        leases.free(tables, lease)

    patch.replace(sessions, "lose", lose)


@bug(
    "A slot that has become free is not offered again: after a while nobody is given anything.",
    known="NATS 4736 and 7680, stuck consumers",
    oracles=(*UNFINISHED, *MODEL),
    budget=20,
    case=busy,
)
def slots_leak(patch: Patch) -> None:
    patch.replace(leases, "offer_slots", always(None))


@bug(
    "A job that comes into a queue wakes nobody.",
    oracles=(*UNFINISHED, *MODEL),
    budget=20,
    case=busy,
)
def new_jobs_wake_nobody(patch: Patch) -> None:
    def append_to_queue(self: Tables, name: str, priority: int, job_id: str) -> None:
        stirred = dict(self.stirred)
        append(self, name, priority, job_id)
        self.stirred = stirred

    append = patch.replace(Tables, "append_to_queue", append_to_queue)


@bug(
    "The leader does not see that scheduled jobs are due.",
    known="dkron 998: jobs stop after an election",
    oracles=UNFINISHED,
    budget=20,
    case=busy,
)
def scheduled_jobs_never_start(patch: Patch) -> None:
    patch.replace(maintenance, "next_start", always(None))


@bug(
    "Scheduled jobs start when the next maintenance comes, due or not.",
    known="a scheduler with a clock of its own",
    oracles=("not before it is due [T6]",),
    budget=20,
    case=busy,
)
def scheduled_jobs_start_early(patch: Patch) -> None:
    def release_due(tables: Tables, command: ReleaseDue) -> Reply:
        wt, tables.wt = tables.wt, 1 << 52
        reply: Reply = release(tables, command)
        tables.wt = wt
        return reply

    release = patch.replace_item(job_store.HANDLERS, ReleaseDue.OP, release_due)


@bug(
    "A job has timed out long before the time that it was given.",
    oracles=("no overlap [T3]", "witness [C1]"),
    budget=100,
    case=busy,
)
def timeouts_come_early(patch: Patch) -> None:
    def add_lease(self: Tables, lease: Lease) -> None:
        if lease.deadline_lt:
            given_ms = lease.deadline_lt - lease.since_lt
            lease = lease._replace(deadline_lt=lease.since_lt + given_ms // 8)
        add(self, lease)

    add = patch.replace(Tables, "add_lease", add_lease)


@bug(
    "A unique key is not looked up: each request makes a job of its own.",
    known="idempotency keys kept beside the store",
    oracles=("one job per key",),
    budget=100,
    case=busy,
)
def unique_keys_are_not_looked_up(patch: Patch) -> None:
    patch.replace(enqueue, "_holder", always(None))


@bug(
    "A deleted job stays in its queue, and is run all the same.",
    known="a queue and a record that are changed apart",
    oracles=("entries make sense", "witness [C1]"),
    budget=250,
    case=busy,
)
def deleted_jobs_run(patch: Patch) -> None:
    def take_next(tables: Tables, queue: Queue) -> Job | None:
        while queue.has_next:
            job = tables.jobs.get(tables.pop_from_queue(queue))
            if job is not None and not job.token:
                return job
        return None

    patch.replace(Tables, "take_from_queues", always(0))
    patch.replace(dispatch, "take_next", take_next)


@bug(
    "A deleted job stays in its queue: it would not be run, but is there twice when somebody requeues it.",
    oracles=("witness [C1]",),
    budget=100,
    case=busy,
)
def deleted_jobs_stay_in_the_queue(patch: Patch) -> None:
    def withdraw(tables: Tables, job: Job, reason: str) -> Job:
        leases.revoke(tables, job, reason)
        return tables.jobs[job.id]

    patch.replace(control, "withdraw", withdraw)


@bug(
    "A store that was rebuilt from a snapshot has forgotten how often jobs had failed.",
    known="retry counters beside the state",
    oracles=(*DIFFERENT, *MODEL),
    budget=20,
    case=busy,
)
def failures_are_not_in_snapshots(patch: Patch) -> None:
    def restore(chunks: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> JobStore:
        store: JobStore = rebuild(chunks, limits)
        for job in list(store.jobs.values()):
            store.jobs[job.id] = job._replace(failures=0)
        return store

    rebuild = patch.replace(JobStore, "restore", restore)


@bug(
    "A snapshot is encoded while the store goes on.",
    known="etcd 13766: a state that is newer than its index",
    oracles=DIFFERENT,
    budget=20,
    case=busy,
)
def snapshots_are_not_copies(patch: Patch) -> None:
    class Live:
        """A view that looks only when it is asked."""

        def __init__(self, store: JobStore) -> None:
            self._store = store

        def chunks(self) -> Iterable[bytes]:
            chunks: Iterable[bytes] = take(self._store).chunks()
            return chunks

    def snapshot(self: JobStore) -> Live:
        return Live(self)

    take = patch.replace(JobStore, "snapshot", snapshot)


@bug(
    "Some completions are booked as returns, so the job runs again, while no model looks at what the store answers.",
    known="at-least-once queues without a record of what has ended",
    oracles=("completed once [J7]",),
    budget=20,
    case=busy,
)
def completed_jobs_run_again_unwatched(patch: Patch) -> None:
    release = job_store.HANDLERS[ReleaseJob.OP]

    def complete(tables: Tables, command: CompleteJob) -> Reply:
        if tables.applied_index % 4 == 3:
            return release(tables, ReleaseJob(command.job_id, command.token))
        reply: Reply = judge(tables, command)
        return reply

    judge = patch.replace_item(job_store.HANDLERS, CompleteJob.OP, complete)
    for look in ("on_entry", "on_read", "compare"):
        patch.replace(Witness, look, always(None))


@bug(
    "The replies of an entry are sorted by session, not left in the order of its commands.",
    known="replies that are matched by their place",
    oracles=("answers in order",),
    budget=20,
    case=busy,
)
def replies_are_sorted(patch: Patch) -> None:
    def apply_and_sort(self: JobStore, index: int, data: bytes) -> Outcome:
        outcome: Outcome = apply(self, index, data)
        outcome.replies.sort(key=lambda reply: reply[:2])
        return outcome

    apply = patch.replace(JobStore, "apply", apply_and_sort)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
