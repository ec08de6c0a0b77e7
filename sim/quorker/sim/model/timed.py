"""The naive job store with what time does to it, in pieces as the leader proposes it: timeouts, schedules, retention.

Like `naive_jobs`, it shares no rule with `quorker.core.jobs`. Time is given from outside, entry by entry.
"""

from __future__ import annotations

from collections import defaultdict
from hashlib import blake2b

from quorker.core.jobs.new_job import RetryPolicy
from quorker.sim.model.batches import NaiveBatches
from quorker.sim.model.jobs import ENDED, RELEASES, NaiveJob, NaiveSession

GRACE_MS = 30_000
PIECE = 500


class NaiveTimed(NaiveBatches):
    """`piece`: how many records one maintenance command touches. `grace_ms`: how late a report may come."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = defaultdict(list)
        self.now_wt = 0
        self.piece, self.grace_ms = PIECE, GRACE_MS
        self.deadlines: dict[str, int] = {}
        self.closed: list[int] = []  # sessions, in the entry at hand
        self.touched: dict[str, None] = {}  # jobs, in the entry at hand

    @property
    def wt(self) -> int:
        return self.now_wt

    # ------------------------------------------------------------------ jobs

    def start(self, job: NaiveJob) -> None:
        due = self.wt + job.spec.delay_ms if job.spec.at_wt is None else job.spec.at_wt
        if due > self.wt:
            self.enter(job, "Scheduled", due=due)
        else:
            self.enter(job, "Enqueued")
            self.put(job)

    def move(self, job: NaiveJob, state: str, *, due: int = 0) -> None:
        was = job.state
        if was in ENDED and job.id in self.unresolved:
            self.unresolved.remove(job.id)
        super().move(job, state, due=due)
        self.touched[job.id] = None
        if self.ended and self.ended[-1] == job.id and self.children(job.id):
            self.leave_unresolved(job.id)
        self.ended.clear()
        self.follow(job, was)

    def grant(self, session: NaiveSession, job: NaiveJob) -> None:
        super().grant(session, job)
        if job.spec.timeout_ms:
            self.deadlines[job.id] = self.lt + job.spec.timeout_ms + self.grace_ms

    def let_go(self, job_id: str) -> None:
        super().let_go(job_id)
        self.deadlines.pop(job_id, None)

    def fail(self, job: NaiveJob, token: int, final: bool) -> str:
        self.let_go(job.id)
        return self.spend_attempt(job, token, final)

    def spend_attempt(self, job: NaiveJob, token: int, final: bool) -> str:
        job.failures += 1
        policy = job.spec.retry or RetryPolicy()
        is_over = final or job.failures > policy.attempts
        if is_over and policy.on_exceed == "fail":
            self.enter(job, "Failed")
            job.reported = token
            return job.state
        self.remember(job, "Failed")
        if is_over:
            self.enter(job, "Deleted")
        elif delay := retry_delay(policy, job):
            self.enter(job, "Scheduled", due=self.wt + delay)
        else:
            self.enter(job, "Enqueued")
            self.put(job)
        return job.state

    def end_session(self, session: NaiveSession, *, lost: bool) -> None:
        super().end_session(session, lost=lost)
        self.closed.append(session.id)

    # ------------------------------------------------------------------ continuations

    def settle(self) -> None:
        self.resolve(self.piece)
        super().settle()

    def resolve(self, budget: int) -> int:
        """Deal with so many continuations of ended jobs, those of the one that ended first first."""
        spent = 0
        while self.unresolved and spent < budget:
            parent_id = self.unresolved[0]
            state = self.state_of(parent_id) or ""
            decided = [child for child in self.children(parent_id) if is_decided(child, state)]
            for child in decided[: budget - spent]:
                self.decide(child, state)
            spent += min(len(decided), budget - spent)
            if spent < budget:
                self.unresolved.remove(parent_id)
        return spent

    # ------------------------------------------------------------------ time, in pieces

    def release_due(self) -> int:
        scheduled = [job for job in self.jobs.values() if job.due]
        first = sorted(scheduled, key=lambda job: (job.due, job.entered))[: self.piece]
        due = [job for job in first if job.due <= self.wt]
        for job in due:
            self.enter(job, "Enqueued")
            self.put(job)
        return len(due) + self.resolve(self.piece)

    def time_out(self) -> int:
        late = sorted((at, self.jobs[job_id].token, job_id) for job_id, at in self.deadlines.items())
        due = [entry for entry in late[: self.piece] if entry[0] <= self.lt]
        for _, token, job_id in due:
            job = self.jobs[job_id]
            self.withdraw(job)
            self.spend_attempt(job, token, final=False)
        return len(due)

    def evict_piece(self) -> tuple[int, int]:
        """(jobs, queue entries): continuations that still wait for an old job are deleted before it, and count."""
        old = [job for job in self.jobs.values() if job.expires]
        held = self.all_held()
        free = [job for job in old if job.id not in held]
        rows = sorted((job.expires, job.created, job.id) for job in free)[: self.piece]
        evicted = orphans = spent = 0
        for expires, _, job_id in rows:
            if expires > self.lt or spent >= self.piece or job_id in self.unresolved:
                break
            if self.jobs[job_id].expires != expires:
                continue
            waiting = self.children(job_id)
            for child in waiting[: self.piece - spent]:
                self.enter(child, "Deleted")
            spent += 1 + min(len(waiting), self.piece - spent)
            if self.children(job_id):
                break
            orphans += self.drop(job_id)
            evicted += 1
        return evicted, orphans

    def all_held(self) -> set[str | int]:
        """Ids of jobs that somebody holds: they are not evicted."""
        return {held for session in self.sessions.values() for held in session.held}

    def drop(self, job_id: str) -> int:
        """Returns how many places in queues it leaves."""
        job = self.jobs.pop(job_id)
        self.touched[job_id] = None
        if self.unique.get(job.spec.unique_key) == (job_id, 0):
            del self.unique[job.spec.unique_key]
        self.bury(job)
        return self.unput(job_id)

    def expire_keys(self) -> int:
        due = sorted((held[1], key) for key, held in self.unique.items() if held[1])[: self.piece]
        gone = [key for expires, key in due if expires <= self.lt]
        for key in gone:
            del self.unique[key]
        return len(gone)

    def expire_locks(self) -> int:
        due = sorted((lock.expires, name) for name, lock in self.locks.items() if lock.expires)[: self.piece]
        gone = [name for expires, name in due if expires <= self.lt]
        for name in gone:
            self.pass_on(name)
        return len(gone)


def retry_delay(policy: RetryPolicy, job: NaiveJob) -> int:
    """Milliseconds; without a list the curve of the original, whose jitter is drawn from the id and the failure."""
    nth = job.failures
    if policy.delays_ms:
        return policy.delays_ms[min(nth, len(policy.delays_ms)) - 1]
    jitter = int.from_bytes(blake2b(f"{job.id}:{nth}".encode(), digest_size=8).digest(), "big") % 30
    return ((nth - 1) ** 4 + 15 + jitter * nth) * 1000


def is_decided(child: NaiveJob, parent_state: str) -> bool:
    """The end of the parent releases the child, or it can never be released any more."""
    return parent_state in RELEASES[child.spec.on] or parent_state in ("Succeeded", "Deleted")
