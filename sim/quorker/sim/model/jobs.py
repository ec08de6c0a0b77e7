"""The job store said in the simplest way: plain lists that are scanned and sorted, to judge the real one by.

It follows the rules of sessions, dispatch, reports, retries, continuations, unique keys and locks as a user would state
them, one command at a time. Ids and tokens are told to it. It must share no code with `quorker.core.jobs` but the
records that commands are made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from quorker.core.jobs.new_job import NewJob

FIRST_WT: Final = 1_800_000_000_000
DAY_MS: Final = 24 * 3600 * 1000
ENDED: Final = ("Succeeded", "Deleted", "Failed", "Quarantined")
STATES: Final = (*ENDED, "Enqueued", "Scheduled", "Processing", "Awaiting")
RUNNABLE: Final = ("Enqueued", "Scheduled", "Processing")  # a place in a queue of any other job leads nowhere
HISTORY_MAX: Final = 50
RELEASES: Final = {
    "success": ("Succeeded",),
    "failure": ("Failed", "Quarantined"),
    "deleted": ("Deleted",),
    "any": ENDED,
}
LOST_MAX: Final = 10


@dataclass
class NaiveJob:
    id: str
    spec: NewJob
    parent: str
    created: int
    state: str = ""
    entered: int = 0
    failures: int = 0
    deliveries: int = 0
    lost: int = 0
    due: int = 0
    expires: int = 0
    token: int = 0  # of the lease, while Processing
    reported: int = 0  # the token under which the present state was reported
    start_by: int = 0  # wall time at which it is too late for its first start
    taken_from: str = ""  # the queue out of which it was granted last
    history: list[str] = field(default_factory=list[str])
    parameters: dict[str, str | None] = field(default_factory=dict[str, str | None])


@dataclass
class NaiveSession:
    id: int
    ttl: int
    expires: int
    queues: tuple[str, ...] = ()
    slots: int = 0
    dispatched: list[str] = field(default_factory=list[str])  # job ids that take a slot
    held: list[str | int] = field(default_factory=list[str | int])
    """Ids of granted jobs, and tokens of what was fetched by contract, in the order in which they were given."""


@dataclass
class NaiveLock:
    session: int
    token: int
    ticket: int
    expires: int
    granted: int
    waiters: list[tuple[int, int, int]] = field(
        default_factory=list[tuple[int, int, int]]
    )  # ticket, session, ttl
    owner: str = ""  # of a lock that was taken by contract


class Naive:
    """The rules, the long way round."""

    def __init__(self) -> None:
        self.lt = 0
        self.lost_max = LOST_MAX
        self.changes = 0
        self.history_max = HISTORY_MAX
        self.jobs: dict[str, NaiveJob] = {}
        self.queues: dict[str, list[tuple[int, int, str]]] = {"q1": [], "q2": []}  # -priority, place, job
        self.paused: set[str] = set()
        self.sessions: dict[int, NaiveSession] = {}
        self.turns: list[int] = []  # sessions with a free slot, the next one first
        self.unique: dict[str, tuple[str, int]] = {}
        self.locks: dict[str, NaiveLock] = {}
        self.stats = {"succeeded": 0, "failed": 0, "deleted": 0}
        self.ended: list[str] = []
        self.granted: list[tuple[int, str]] = []
        self.cancelled: list[tuple[int, str]] = []
        self.lock_granted: list[tuple[int, str]] = []

    @property
    def wt(self) -> int:
        return FIRST_WT + self.lt

    def change(self) -> int:
        self.changes += 1
        return self.changes

    # states

    def enter(self, job: NaiveJob, state: str, *, due: int = 0) -> None:
        """A change of state by the store's own lifecycle: it counts, and sets when the job is evicted."""
        if job.state in ("Succeeded", "Deleted"):
            self.stats[job.state.lower()] -= 1
        job.token = job.expires = 0
        self.move(job, state, due=due)
        if state in ENDED:
            self.end(job)

    def move(self, job: NaiveJob, state: str, *, due: int = 0) -> None:
        """What any change of state does, whoever asks for it."""
        was = job.state
        job.state, job.entered, job.due, job.reported = state, self.change(), due, 0
        self.remember(job, state)
        if was in ENDED and job.spec.unique_key and not job.spec.unique_ms:
            self.unique.setdefault(job.spec.unique_key, (job.id, 0))
        if state in ENDED:
            self.ended.append(job.id)
            if self.unique.get(job.spec.unique_key) == (job.id, 0):
                del self.unique[job.spec.unique_key]

    def remember(self, job: NaiveJob, state: str) -> None:
        job.history = [*job.history, state][-self.history_max :]

    def end(self, job: NaiveJob) -> None:
        ttl = {"Failed": 7 * DAY_MS, "Quarantined": None}.get(job.state, job.spec.retention_ms or DAY_MS)
        job.expires = 0 if ttl is None else self.lt + ttl
        if job.state != "Quarantined":
            self.stats[job.state.lower()] += 1

    def put(self, job: NaiveJob, *, head: bool = False, queue: str = "") -> None:
        self.place(queue or job.spec.queue, job.spec.priority, job.id, head=head)

    def place(self, queue: str, priority: int, job_id: str, *, head: bool = False) -> None:
        rank = -self.change() if head else self.change()
        entries = self.queues[queue]
        entries.append((-priority, rank, job_id))
        entries.sort()

    def unput(self, job_id: str) -> int:
        """Returns how many places it had."""
        before = sum(map(len, self.queues.values()))
        for name, entries in self.queues.items():
            self.queues[name] = [entry for entry in entries if entry[2] != job_id]
        return before - sum(map(len, self.queues.values()))

    def is_queued(self, job_id: str) -> bool:
        return any(entry[2] == job_id for entries in self.queues.values() for entry in entries)

    def take(self, queue: str) -> NaiveJob | None:
        """The first that can run and that nobody runs; places that lead nowhere are dropped on the way."""
        while (place := self.first(queue)) is not None:
            self.queues[queue].remove(place)
            job = self.jobs.get(place[2])
            if job is None or job.state not in RUNNABLE or self.holder(job.id) is not None:
                continue
            if not self.is_late(job):
                job.taken_from = queue
                return job
        return None

    def first(self, queue: str) -> tuple[int, int, str] | None:
        """The first place that no limit stands in the way of."""
        return self.queues[queue][0] if self.queues[queue] else None

    def is_late(self, job: NaiveJob) -> bool:
        """Then it ends instead of being started."""
        return False

    def start(self, job: NaiveJob) -> None:
        due = self.wt + job.spec.delay_ms
        if due > self.wt:
            self.enter(job, "Scheduled", due=due)
        else:
            self.enter(job, "Enqueued")
            self.put(job)

    # the end of every apply

    def settle(self) -> None:
        while self.ended:
            self.release_children(self.ended.pop(0))
        while (offer := self.next_offer()) is not None:
            session, queue = offer
            job = self.take(queue)
            if job is None:
                continue
            self.turns.remove(session.id)
            session.dispatched.append(job.id)
            self.grant(session, job)
            self.offer_slot(session)
            self.granted.append((session.id, job.id))

    def next_offer(self) -> tuple[NaiveSession, str] | None:
        for session_id in self.turns:
            session = self.sessions[session_id]
            for queue in session.queues:
                if queue not in self.paused and self.first(queue) is not None:
                    return session, queue
        return None

    def offer_slot(self, session: NaiveSession) -> None:
        if session.id not in self.turns and len(session.dispatched) < session.slots:
            self.turns.append(session.id)

    def grant(self, session: NaiveSession, job: NaiveJob) -> None:
        self.enter(job, "Processing")
        job.deliveries += 1
        session.held.append(job.id)

    def children(self, parent_id: str) -> list[NaiveJob]:
        waiting = [job for job in self.jobs.values() if job.state == "Awaiting" and job.parent == parent_id]
        return sorted(waiting, key=lambda job: job.entered)

    def release_children(self, parent_id: str) -> None:
        for child in self.children(parent_id):
            self.decide(child, self.jobs[parent_id].state)

    def decide(self, child: NaiveJob, parent_state: str) -> None:
        if parent_state in RELEASES[child.spec.on]:
            self.start(child)
        elif parent_state in ("Succeeded", "Deleted"):
            self.enter(child, "Deleted")

    # leases

    def holder(self, job_id: str) -> NaiveSession | None:
        return next((session for session in self.sessions.values() if job_id in session.held), None)

    def let_go(self, job_id: str) -> None:
        session = self.holder(job_id)
        assert session is not None
        session.held.remove(job_id)
        if job_id in session.dispatched:
            session.dispatched.remove(job_id)
            self.offer_slot(session)

    def withdraw(self, job: NaiveJob) -> None:
        self.revoke(job)
        self.unput(job.id)

    def revoke(self, job: NaiveJob) -> None:
        """It is taken away from whoever runs it."""
        session = self.holder(job.id)
        if session is not None:
            self.cancelled.append((session.id, job.id))
            self.let_go(job.id)

    def lose(self, job: NaiveJob) -> None:
        self.let_go(job.id)
        job.lost += 1
        if job.lost >= self.lost_max:
            self.unput(job.id)
            self.enter(job, "Quarantined")
            return
        self.enter(job, "Enqueued")
        self.put(job, head=job.lost == 1, queue=job.taken_from)

    def give_back(self, job: NaiveJob) -> None:
        self.let_go(job.id)
        self.enter(job, "Enqueued")
        self.put(job, head=True, queue=job.taken_from)

    def end_session(self, session: NaiveSession, *, lost: bool) -> None:
        session.slots = 0
        if session.id in self.turns:
            self.turns.remove(session.id)
        for held in reversed(list(session.held)):
            if held in session.held:  # a job that is quarantined is taken from all
                self.part_with(held, lost=lost)
        for lock in self.locks.values():
            lock.waiters = [waiter for waiter in lock.waiters if waiter[1] != session.id]
        own = [(lock.granted, name) for name, lock in self.locks.items() if lock.session == session.id]
        for _, name in sorted(own):
            if not self.locks[name].expires:
                self.pass_on(name)
        del self.sessions[session.id]

    def part_with(self, held: str | int, *, lost: bool) -> None:
        (self.lose if lost else self.give_back)(self.jobs[str(held)])

    # reports

    def refusal(self, job_id: str, token: int) -> str | None:
        job = self.jobs.get(job_id)
        if job is None:
            return "not_found"
        if token and job.token == token:
            return None
        return "wrong_state" if token and job.reported == token else "lease_lost"

    def complete(self, job: NaiveJob, token: int) -> None:
        self.let_go(job.id)
        self.enter(job, "Succeeded")
        job.reported = token

    def fail(self, job: NaiveJob, token: int, final: bool) -> str:
        self.let_go(job.id)
        job.failures += 1
        policy = job.spec.retry
        assert policy is not None
        if final or job.failures > policy.attempts:
            self.enter(job, "Failed" if policy.on_exceed == "fail" else "Deleted")
            job.reported = token if job.state == "Failed" else 0
        elif policy.delays_ms[0]:
            self.enter(job, "Scheduled", due=self.wt + policy.delays_ms[0])
        else:
            self.enter(job, "Enqueued")
            self.put(job)
        return job.state

    def revive(self, job: NaiveJob) -> None:
        if job.state in ENDED:
            job.failures = job.lost = 0
        self.withdraw(job)

    # locks

    def pass_on(self, name: str) -> None:
        lock = self.locks.pop(name)
        if lock.waiters:
            ticket, session, ttl = lock.waiters[0]
            expires = self.lt + ttl if ttl else 0
            self.locks[name] = NaiveLock(session, 0, ticket, expires, self.change(), lock.waiters[1:])
            self.lock_granted.append((session, name))

    def expire_lock(self, name: str) -> None:
        if name in self.locks and 0 < self.locks[name].expires <= self.lt:
            self.pass_on(name)

    # time

    def is_due(self) -> bool:
        return (
            any(session.expires <= self.lt for session in self.sessions.values())
            or any(0 < job.due <= self.wt for job in self.jobs.values())
            or any(0 < job.expires <= self.lt for job in self.jobs.values())
            or any(0 < lock.expires <= self.lt for lock in self.locks.values())
            or any(0 < expires <= self.lt for _, expires in self.unique.values())
        )

    def maintain(self) -> None:
        """One round of a leader: sessions end, scheduled jobs start, old jobs go, keys and locks expire."""
        gone = [session for session in self.sessions.values() if session.expires <= self.lt]
        for session in sorted(gone, key=lambda session: (session.expires, session.id)):
            self.end_session(session, lost=True)
        due = [job for job in self.jobs.values() if 0 < job.due <= self.wt]
        for job in sorted(due, key=lambda job: (job.due, job.entered)):
            self.enter(job, "Enqueued")
            self.put(job)
        self.evict()
        self.unique = {key: held for key, held in self.unique.items() if not 0 < held[1] <= self.lt}
        expired = [(lock.expires, name) for name, lock in self.locks.items() if 0 < lock.expires <= self.lt]
        for _, name in sorted(expired):
            self.pass_on(name)

    def evict(self) -> None:
        old = [job for job in self.jobs.values() if 0 < job.expires <= self.lt]
        for job in sorted(old, key=lambda job: (job.expires, job.created)):
            for child in self.children(job.id):
                self.enter(child, "Deleted")
            del self.jobs[job.id]
            if self.unique.get(job.spec.unique_key) == (job.id, 0):
                del self.unique[job.spec.unique_key]
