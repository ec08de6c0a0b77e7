"""Bugs of when jobs start: limits under keys, rates, and jobs that must not start late."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from quorker.core.jobs import dispatch, schedule
from quorker.core.jobs.limiters import Limiter, Limiters
from quorker.core.jobs.limits import DEFAULT_LIMITS, Limits
from quorker.core.jobs.new_job import StartRules
from quorker.core.jobs.records import Job, Lease, LeaseKind, Queue
from quorker.core.jobs.store import JobStore
from quorker.core.jobs.tables import Tables
from quorker.sim.mutants.cases import limited
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in

MODEL: Final = ("witness [C1]",)
LIMIT: Final = ("within its limit [J21]",)
RATE: Final = ("within its rate [J22]",)
LATE: Final = ("not too late [J23]",)
STUCK: Final = ("liveness", "store invariant", *MODEL)


@bug(
    "A limit lets one more run than it says.",
    known="off by one; Sidekiq and Solid Queue count before they add",
    oracles=LIMIT,
    budget=20,
    case=limited,
)
def limits_are_off_by_one(patch: Patch) -> None:
    def admits(self: Limiter, limit: int, rated: bool) -> bool:
        return bool(admit(self, limit + 1 if limit else 0, rated))

    admit = patch.replace(Limiter, "admits", admits)


@bug(
    "Jobs that are pulled do not count under their key.",
    known="a limit that is checked on one of two ways to a job",
    oracles=(*LIMIT, *MODEL, "store invariant"),
    budget=20,
    case=limited,
)
def pulled_jobs_do_not_count(patch: Patch) -> None:
    def enter_lease(self: Tables, lease: Lease) -> None:
        enter(self, lease._replace(limit_key="") if lease.kind is LeaseKind.PULLED else lease)

    enter = patch.replace(Tables, "enter_lease", enter_lease)


@bug(
    "Nobody looks at the line of a key when a lease ends.",
    known="Solid Queue: blocked executions that only a sweep releases",
    oracles=STUCK,
    budget=20,
    case=limited,
)
def lines_are_not_opened(patch: Patch) -> None:
    def let_go(self: Limiters, key: str) -> None:
        self.by_key[key].holders -= 1

    patch.replace(Limiters, "let_go", let_go)


@bug(
    "A lease that ends with its session goes on counting: its key is full for good.",
    known="semaphores that leak with a dead worker (Solid Queue, gue, sidekiq-limit_fetch)",
    oracles=(*STUCK, "replicas are equal [C5]"),
    budget=20,
    case=limited,
)
def dead_holders_go_on_counting(patch: Patch) -> None:
    def remove_lease(self: Tables, lease: Lease) -> None:
        ends = lease.session and not self.sessions[lease.session].slots
        if ends and lease.limit_key:
            self.limiters.hold(lease.limit_key)
        remove(self, lease)

    remove = patch.replace(Tables, "remove_lease", remove_lease)


@bug(
    "A start counts from when it comes, not from when the one before allowed it: bursts are free.",
    known="token buckets that forget what was borrowed",
    oracles=RATE,
    budget=20,
    case=limited,
)
def bursts_are_free(patch: Patch) -> None:
    def spend(self: Limiters, rules: StartRules, lt: int) -> None:
        self.of(rules.key).tat_us = 0
        use_up(self, rules, lt)

    use_up = patch.replace(Limiters, "spend", spend)


@bug(
    "The time between two starts is rounded down, and a millisecond too short.",
    oracles=(*RATE, *MODEL),
    budget=20,
    case=limited,
)
def intervals_are_rounded_down(patch: Patch) -> None:
    def interval_us(self: StartRules) -> int:
        return max(1, self.rate_ms * 1000 // self.rate - 1000)

    patch.replace(StartRules, "interval_us", property(interval_us))


@bug(
    "A snapshot does not hold how much of a rate is used up.",
    known="rate limits in the memory of a process: a restart is a fresh start",
    oracles=("replicas are equal [C5]", "store invariant", *RATE, *MODEL),
    budget=20,
    case=limited,
)
def rates_are_not_in_snapshots(patch: Patch) -> None:
    def restore(chunks: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> JobStore:
        store: JobStore = rebuild(chunks, limits)
        for limiter in list(store.limiters.by_key.values()):
            limiter.closed = False
        return store

    rebuild = patch.replace(JobStore, "restore", restore)


@bug(
    "Whether a job is too late is looked at by maintenance alone.",
    known="Celery: expires is checked by the worker, after the job was taken",
    oracles=LATE,
    budget=20,
    case=limited,
)
def late_jobs_start(patch: Patch) -> None:
    def may_start(tables: Tables, queue: Queue, job: Job, rules: StartRules) -> bool:
        return job.id in tables.start_by or bool(may(tables, queue, job, rules))

    may = patch.replace(dispatch, "may_start", may_start)


@bug(
    "The leader does not see that jobs are too late: those that nobody takes wait for ever.",
    oracles=MODEL,
    budget=20,
    case=limited,
)
def late_jobs_are_not_ended(patch: Patch) -> None:
    patch.replace(schedule, "expire_late", always(0))


@bug(
    "A job that has started once can still be too late: its retry is thrown away.",
    known="Hangfire LatencyTimeout: each state election counts from the creation",
    oracles=(*MODEL, "store invariant"),
    budget=20,
    case=limited,
)
def retries_are_too_late(patch: Patch) -> None:
    def set_start_by(self: Tables, job_id: str, start_by_wt: int) -> None:
        job = self.jobs.get(job_id)
        if start_by_wt or job is None or job.state != "Processing":
            change(self, job_id, start_by_wt)

    change = patch.replace(Tables, "set_start_by", set_start_by)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
