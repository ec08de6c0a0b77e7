"""The naive job store with what time does to it, in pieces as the leader proposes it: timeouts, schedules, retention.

Like `naive_jobs`, it shares no rule with `quorker.core.jobs`. Time is given from outside, entry by entry.
"""

from __future__ import annotations

from collections import defaultdict

from quorker.sim.model.jobs import RELEASES, Naive, NaiveJob, NaiveSession

GRACE_MS = 30_000
PIECE = 500


class NaiveTimed(Naive):
    """`piece`: how many records one maintenance command touches. `grace_ms`: how late a report may come."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = defaultdict(list)
        self.now_wt = 0
        self.piece, self.grace_ms = PIECE, GRACE_MS
        self.deadlines: dict[str, int] = {}
        self.closed: list[int] = []  # sessions, in the entry at hand
        self.touched: dict[str, None] = {}  # jobs, in the entry at hand
        self.unresolved: list[str] = []  # jobs that ended, whose continuations are not all dealt with

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

    def enter(self, job: NaiveJob, state: str, *, due: int = 0) -> None:
        if job.id in self.unresolved:
            self.unresolved.remove(job.id)
        super().enter(job, state, due=due)
        self.touched[job.id] = None
        if self.ended and self.ended[-1] == job.id and self.children(job.id):
            self.unresolved.append(job.id)
        self.ended.clear()

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
        policy = job.spec.retry
        assert policy is not None
        if final or job.failures > policy.attempts:
            self.enter(job, "Failed" if policy.on_exceed == "fail" else "Deleted")
            job.reported = token if job.state == "Failed" else 0
            return job.state
        delay = policy.delays_ms[min(job.failures, len(policy.delays_ms)) - 1]
        if delay:
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
            parent = self.jobs[self.unresolved[0]]
            decided = [child for child in self.children(parent.id) if is_decided(child, parent.state)]
            for child in decided[: budget - spent]:
                self.decide(child, parent.state)
            spent += min(len(decided), budget - spent)
            if spent < budget:
                self.unresolved.remove(parent.id)
        return spent

    # ------------------------------------------------------------------ time, in pieces

    def release_due(self) -> int:
        scheduled = [job for job in self.jobs.values() if job.state == "Scheduled"]
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
        rows = sorted((job.expires, job.created, job.id) for job in old)[: self.piece]
        evicted = spent = 0
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
            self.drop(job_id)
            evicted += 1
        return evicted, 0  # what has ended stands in no queue

    def drop(self, job_id: str) -> None:
        job = self.jobs.pop(job_id)
        self.touched[job_id] = None
        if self.unique.get(job.spec.unique_key) == (job_id, 0):
            del self.unique[job.spec.unique_key]

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


def is_decided(child: NaiveJob, parent_state: str) -> bool:
    """The end of the parent releases the child, or it can never be released any more."""
    return parent_state in RELEASES[child.spec.on] or parent_state in ("Succeeded", "Deleted")
