"""The naive job store with limits on when jobs start: so many at a time, so often, and not too late.

A queue is one list here, and who may start is found by walking it: the first that no limit stands in the way of, where
nobody passes another of the same key. The rate is the schoolbook form of the generic cell rate algorithm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from quorker.core.jobs.new_job import StartRules
from quorker.core.jobs.store import JobStore
from quorker.sim.model.jobs import NaiveJob, NaiveSession
from quorker.sim.model.timed import NaiveTimed

BEFORE_ITS_START = ("Enqueued", "Scheduled", "Awaiting")


class NaiveStarts(NaiveTimed):
    """`used_until`: by key, when all that has started would have started evenly, in microseconds of log time.

    `shut`: by key, the log time at which the next job with a rate may start. `wakes`: by key, when it is looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used_until: dict[str, int] = {}
        self.shut: set[str] = set()
        self.wakes: dict[str, int] = {}

    # ------------------------------------------------------------------ who may start

    def first(self, queue: str) -> tuple[int, int, str] | None:
        held_up: set[str] = set()
        for place in self.queues[queue]:
            rules = self.rules_of(place[2])
            if not rules.key or (rules.key not in held_up and self.has_room(rules)):
                return place
            held_up.add(rules.key)
        return None

    def rules_of(self, job_id: str) -> StartRules:
        job = self.jobs.get(job_id)
        return job.spec.start or StartRules() if job is not None else StartRules()

    def has_room(self, rules: StartRules) -> bool:
        if rules.limit and self.holders_of(rules.key) >= rules.limit:
            return False
        return not rules.rate or rules.key not in self.shut

    def holders_of(self, key: str) -> int:
        """How many of its jobs are in somebody's hands."""
        held = [held for session in self.sessions.values() for held in session.held if isinstance(held, str)]
        return sum(self.rules_of(job_id).key == key for job_id in held)

    def begin(self, job: NaiveJob) -> None:
        """A job starts: it is not late any more, and its key is shut for as long as its rate says."""
        job.start_by = 0
        rules = self.rules_of(job.id)
        if not rules.rate:
            return
        key, now = rules.key, self.lt * 1000
        each = (rules.rate_ms * 1000 + rules.rate - 1) // rules.rate
        self.used_until[key] = max(self.used_until.get(key, 0), now) + each
        free = self.used_until[key] - each * (rules.burst - 1)
        if free > now:
            self.shut.add(key)
            self.wakes[key] = (free + 999) // 1000
        else:
            self.shut.discard(key)
            self.wakes[key] = (self.used_until[key] + 999) // 1000

    def open_keys(self) -> None:
        """At the beginning of each entry: a piece of the keys whose time has come."""
        rows = sorted((at, key) for key, at in self.wakes.items())[: self.piece]
        for at, key in rows:
            if at > self.lt:
                break
            self.shut.discard(key)
            del self.wakes[key]
            if self.used_until[key] > self.lt * 1000:
                self.wakes[key] = (self.used_until[key] + 999) // 1000

    def grant(self, session: NaiveSession, job: NaiveJob) -> None:
        super().grant(session, job)
        self.begin(job)

    # ------------------------------------------------------------------ too late

    def start(self, job: NaiveJob) -> None:
        """It is enqueued or scheduled for the first time: from then on it may start."""
        rules = job.spec.start or StartRules()
        due = self.wt + job.spec.delay_ms if job.spec.at_wt is None else job.spec.at_wt
        if rules.within_ms and not job.deliveries:
            limit = max(due, self.wt) + rules.within_ms
            job.start_by = min(job.start_by or limit, limit)
        super().start(job)

    def move(self, job: NaiveJob, state: str, *, due: int = 0) -> None:
        super().move(job, state, due=due)
        if state not in BEFORE_ITS_START:
            job.start_by = 0

    def revive(self, job: NaiveJob) -> None:
        super().revive(job)
        job.start_by = 0

    def is_late(self, job: NaiveJob) -> bool:
        if not 0 < job.start_by <= self.wt:
            return False
        self.unput(job.id)
        self.enter(job, "Deleted")
        return True

    # ------------------------------------------------------------------ the end

    def compare_starts(self, store: JobStore, agree: Callable[[str, object, object], None]) -> None:
        told: Any = store.query("limits", {"count": 1000})
        places = [entry[2] for entries in self.queues.values() for entry in entries]
        waiting = Counter(self.rules_of(job_id).key for job_id in places)
        keys = {job.spec.start.key for job in self.jobs.values() if job.spec.start is not None} | set(
            self.wakes
        )
        used = [
            key for key in sorted(keys) if key and (self.holders_of(key) or waiting[key] or key in self.wakes)
        ]
        expected = [
            (key, self.holders_of(key), waiting[key], self.wakes[key] if key in self.shut else 0)
            for key in used
        ]
        agree(
            "limits", [(row["key"], row["holders"], row["waiting"], row["next_lt"]) for row in told], expected
        )
        late = {job.id: job.start_by for job in self.jobs.values() if job.start_by}
        agree("what may be too late", store.start_by, late)

    def release_due(self) -> int:
        waiting = sorted((job.start_by, job.id) for job in self.jobs.values() if job.start_by)
        late = [job_id for _, job_id in waiting[: self.piece] if self.is_late(self.jobs[job_id])]
        return len(late) + super().release_due()
