"""Sessions, dispatch, reports, retries, continuations, unique keys and locks against a naive model.

The model learns ids and tokens from the store; everything else must agree: replies, notices, the order of queues, every
state. Commands are repeated and the store is restarted from a snapshot at any point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quorker.core.jobs import commands as c
from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.bounds import ON
from quorker.core.jobs.outcome import LockGrant, Outcome
from quorker.core.jobs.store import JobStore
from quorker.sim.model.jobs import DAY_MS, STATES, Naive, NaiveJob, NaiveLock, NaiveSession

Pick: TypeAlias = st.DataObject
CONDITIONS: st.SearchStrategy[ON] = st.sampled_from(["success", "failure", "any", "deleted"])


@st.composite
def new_jobs(draw: st.DrawFn) -> c.NewJob:
    retry = c.RetryPolicy(
        draw(st.integers(0, 2)),
        draw(st.sampled_from([(0,), (1500,)])),
        on_exceed=draw(st.sampled_from(["fail", "delete"])),
    )
    return c.NewJob(
        "task",
        queue=draw(st.sampled_from(["q1", "q2"])),
        priority=draw(st.sampled_from([0, 0, 5])),
        retry=retry,
        delay_ms=draw(st.sampled_from([0, 0, 0, 1500])),
        unique_key=draw(st.sampled_from(["", "", "u"])),
        unique_ms=draw(st.sampled_from([0, 2000])),
        on=draw(CONDITIONS),
        retention_ms=draw(st.sampled_from([0, 3000])),
    )


QUEUES = st.sampled_from([("q1",), ("q2", "q1"), ("q1", "q2")])
MOSTLY: st.SearchStrategy[bool] = st.sampled_from([True, True, True, False])
RARELY: st.SearchStrategy[bool] = st.sampled_from([False, False, False, True])
REPORTS = st.sampled_from(["complete", "complete", "fail", "fail", "fatal", "release"])
RESOURCES = st.sampled_from(["r1", "r2"])


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = JobStore()
        self.naive = Naive()
        self.seq = 0
        self.last: tuple[int, int, c.Command, Any] | None = None
        self.tokens: list[tuple[str, int]] = []  # every (job id, token) that was ever granted
        self.highest = 0

    # applying, and learning what only the store can know

    def entry(self, session: int, numbered: Sequence[tuple[int, Any]]) -> Outcome:
        group = encode_group(session, 0, numbered)
        data = encode_entry(self.naive.lt, self.naive.wt, [group])
        outcome = self.store.apply(self.store.applied_index + 1, data)
        assert outcome.faults == []
        return outcome

    def send(self, session: int, command: c.Command) -> tuple[Any, Outcome]:
        self.seq += 1
        outcome = self.entry(session, [(self.seq, c.encode(command))])
        ((whose, seq, reply),) = outcome.replies
        assert (whose, seq) == (session, self.seq)
        if session:
            self.last = (session, self.seq, command, reply)
            self.renew(session)
        return reply, outcome

    def renew(self, session: int) -> None:
        known = self.naive.sessions[session]
        known.expires = max(known.expires, self.naive.lt + known.ttl)

    def learn(self, outcome: Outcome) -> None:
        """The model has done the same: what was told to whom must be equal; tokens are taken over."""
        naive = self.naive
        naive.settle()
        told: dict[str, list[tuple[int, Any]]] = {"job": [], "cancel": [], "lock": [], "session_closed": []}
        for notice in outcome.notices:
            told[notice.kind].append((notice.session, notice.payload))
        assert [(session, grant.job_id) for session, grant in told["job"]] == naive.granted
        assert [(session, cancel.job_id) for session, cancel in told["cancel"]] == naive.cancelled
        assert [(session, lock.resource) for session, lock in told["lock"]] == naive.lock_granted
        for notice in outcome.notices:
            if isinstance(notice.payload, c.JobGrant):
                self.learn_grant(notice.payload)
            elif isinstance(notice.payload, LockGrant):
                self.learn_lock(notice.payload)
        naive.granted, naive.cancelled, naive.lock_granted = [], [], []

    def learn_grant(self, grant: c.JobGrant) -> None:
        job = self.naive.jobs[grant.job_id]
        assert (grant.attempt, grant.deliveries) == (job.failures + 1, job.deliveries)
        job.token = self.increasing(grant.token)
        self.tokens.append((job.id, job.token))

    def learn_lock(self, lock: LockGrant) -> None:
        self.increasing(lock.token)
        held = self.naive.locks.get(lock.resource)
        if held is not None and held.ticket == lock.ticket:  # else it was lost again at once
            held.token = lock.token

    def increasing(self, token: int) -> int:
        assert token > self.highest
        self.highest = token
        return token

    def a_session(self, data: Pick) -> int:
        return data.draw(st.sampled_from(sorted(self.naive.sessions)))

    # time and restarts

    @rule(ms=st.sampled_from([1, 700, 1500, 1500, 3000, 8 * DAY_MS]))
    def time_passes(self, ms: int) -> None:
        self.pass_time(ms, list(self.naive.sessions) if ms < 3000 else [])

    @precondition(lambda self: any(job.token for job in self.naive.jobs.values()))
    @rule(data=st.data())
    def a_worker_dies(self, data: Pick) -> None:
        """It is not renewed any more, the others are."""
        busy = [session.id for session in self.naive.sessions.values() if session.held]
        dead = data.draw(st.sampled_from(busy))
        others = [session for session in self.naive.sessions if session != dead]
        self.pass_time(self.naive.sessions[dead].ttl, others)

    def pass_time(self, ms: int, alive: list[int]) -> None:
        """What is due is proposed round by round; the leader's list and the model agree when there is nothing left."""
        self.naive.lt += ms
        for session in alive:
            self.learn(self.send(session, c.KeepAlive())[1])
        for _ in range(20):
            due = self.store.due(self.naive.lt, self.naive.wt)
            assert bool(due) == (self.naive.is_due() or self.has_old_counters())
            if not due:
                return
            outcome = self.entry(0, [(0, command) for command in due])
            self.naive.maintain()
            self.learn(outcome)
        raise AssertionError("maintenance does not come to an end")

    def has_old_counters(self) -> bool:
        """The history of counts expires, which the model does not keep."""
        earliest = self.store.collections.next_due()
        return earliest is not None and earliest <= self.naive.lt

    @rule()
    def restart(self) -> None:
        before = self.store.digest()
        self.store = JobStore.restore(self.store.snapshot().chunks())
        assert self.store.digest() == before

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat(self) -> None:
        """A command that is sent again is answered again, and not applied again."""
        assert self.last is not None
        session, seq, command, reply = self.last
        outcome = self.entry(session, [(seq, c.encode(command))])
        if session in self.naive.sessions:
            assert outcome.replies == [(session, seq, reply)]
            self.renew(session)
        else:
            assert outcome.replies[0][2][1] == "session_expired"
        assert outcome.notices == []

    # sessions

    @initialize(slots=st.integers(1, 3))
    def begin_with_workers(self, slots: int) -> None:
        for queues in (("q1", "q2"), ("q2",)):
            self.open_session(3600_000)
            session = self.naive.sessions[max(self.naive.sessions)]
            self.subscribe_session(session, queues, slots)

    @precondition(lambda self: len(self.naive.sessions) < 4)
    @rule(ttl=st.sampled_from([1000, 2000, 3600_000]))
    def open_session(self, ttl: int) -> None:
        reply, outcome = self.send(0, c.OpenSession("worker", ttl))
        session = self.increasing(reply[1])
        self.naive.sessions[session] = NaiveSession(session, ttl, self.naive.lt + ttl)
        self.learn(outcome)

    @precondition(lambda self: len(self.naive.sessions) > 2)
    @rule(data=st.data())
    def close_session(self, data: Pick) -> None:
        session = self.a_session(data)
        reply, outcome = self.send(session, c.CloseSession())
        assert reply == (0, None)
        self.naive.end_session(self.naive.sessions[session], lost=False)
        self.learn(outcome)

    @precondition(lambda self: self.naive.sessions)
    @rule(data=st.data(), queues=QUEUES, slots=st.integers(0, 2))
    def subscribe(self, data: Pick, queues: tuple[str, ...], slots: int) -> None:
        self.subscribe_session(self.naive.sessions[self.a_session(data)], queues, slots)

    def subscribe_session(self, session: NaiveSession, queues: tuple[str, ...], slots: int) -> None:
        reply, outcome = self.send(session.id, c.Subscribe(queues, slots))
        assert reply == (0, None)
        session.queues, session.slots = queues, slots
        if session.id in self.naive.turns:
            self.naive.turns.remove(session.id)
        self.naive.offer_slot(session)
        self.learn(outcome)

    @precondition(lambda self: self.naive.sessions)
    @rule(data=st.data(), queues=QUEUES, limit=st.integers(1, 3))
    def fetch_jobs(self, data: Pick, queues: tuple[str, ...], limit: int) -> None:
        session = self.naive.sessions[self.a_session(data)]
        reply, outcome = self.send(session.id, c.FetchJobs(queues, limit))
        waiting = [
            entry[2] for name in queues if name not in self.naive.paused for entry in self.naive.queues[name]
        ]
        grants = [c.grant_from_wire(wire) for wire in reply[1]]
        assert [grant.job_id for grant in grants] == waiting[:limit]
        for grant in grants:
            self.naive.unput(grant.job_id)
            self.naive.grant(session, self.naive.jobs[grant.job_id])
            self.learn_grant(grant)
        self.learn(outcome)

    # jobs

    @rule(data=st.data(), specs=st.lists(new_jobs(), min_size=1, max_size=3))
    def enqueue(self, data: Pick, specs: list[c.NewJob]) -> None:
        parents = st.sampled_from(["", "", "#0", *self.naive.jobs])
        jobs = [spec._replace(parent_id=data.draw(parents)) for spec in specs]
        wrong = jobs[0].parent_id == "#0"
        reply, outcome = self.send(0, c.EnqueueJobs(tuple(jobs)))
        assert (reply[0], reply[1] == "not_found") == ((1, True) if wrong else (0, False))
        if not wrong:
            for spec, job_id in zip(jobs, reply[1], strict=True):
                self.add(spec, job_id, reply[1][0])
        self.learn(outcome)

    @precondition(lambda self: len(self.naive.jobs) == 3)
    @rule(spec=new_jobs())
    def enqueue_after_nothing(self, spec: c.NewJob) -> None:
        """All or none: the first job of the command is fine."""
        reply, outcome = self.send(0, c.EnqueueJobs((spec, spec._replace(parent_id="nothing"))))
        assert reply[1] == "not_found"
        self.learn(outcome)

    def add(self, spec: c.NewJob, job_id: str, first: str) -> None:
        naive = self.naive
        if spec.unique_key in naive.unique:
            assert job_id == naive.unique[spec.unique_key][0]
            return
        assert job_id not in naive.jobs
        parent = first if spec.parent_id == "#0" else spec.parent_id
        job = naive.jobs[job_id] = NaiveJob(job_id, spec, parent, naive.change())
        if spec.unique_key:
            naive.unique[spec.unique_key] = (job_id, naive.lt + spec.unique_ms if spec.unique_ms else 0)
        if not parent:
            naive.start(job)
            return
        naive.enter(job, "Awaiting")
        naive.decide(job, naive.jobs[parent].state)

    @precondition(lambda self: any(job.token for job in self.naive.jobs.values()))
    @rule(data=st.data(), what=REPORTS)
    def report(self, data: Pick, what: str) -> None:
        held = [(job.id, job.token) for job in self.naive.jobs.values() if job.token]
        self.send_report(*data.draw(st.sampled_from(held)), what)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), what=REPORTS)
    def report_late(self, data: Pick, what: str) -> None:
        self.send_report(*data.draw(st.sampled_from([*self.tokens[-4:], ("nothing", 1)])), what)

    def send_report(self, job_id: str, token: int, what: str) -> None:
        refusal = self.naive.refusal(job_id, token)
        reports: dict[str, c.Command] = {
            "complete": c.CompleteJob(job_id, token, b"42"),
            "fail": c.FailJob(job_id, token, "Error", "message", "trace"),
            "fatal": c.FailJob(job_id, token, "Error", "message", "trace", True),
            "release": c.ReleaseJob(job_id, token),
        }
        reply, outcome = self.send(0, reports[what])
        if refusal is not None:
            assert reply[:2] == (1, refusal)
        elif what == "complete":
            self.naive.complete(self.naive.jobs[job_id], token)
        elif what == "release":
            self.naive.give_back(self.naive.jobs[job_id])
        else:
            assert reply == (0, self.naive.fail(self.naive.jobs[job_id], token, what == "fatal"))
        self.learn(outcome)

    @precondition(lambda self: self.naive.jobs)
    @rule(data=st.data(), what=st.sampled_from(["delete", "requeue", "reschedule"]), guarded=RARELY)
    def by_hand(self, data: Pick, what: Literal["delete", "requeue", "reschedule"], guarded: bool) -> None:
        job = self.naive.jobs[data.draw(st.sampled_from(sorted(self.naive.jobs)))]
        expected = ("Failed", "Deleted", "Awaiting") if guarded else ()
        moves: dict[str, c.Command] = {
            "delete": c.DeleteJob(job.id, expected),
            "requeue": c.RequeueJob(job.id, expected),
            "reschedule": c.RescheduleJob(job.id, None, 1500, expected),
        }
        reply, outcome = self.send(0, moves[what])
        if guarded and job.state not in expected:
            assert reply == (1, "wrong_state", job.state)
        else:
            assert reply == (0, self.move(job, what))
        self.learn(outcome)

    def move(self, job: NaiveJob, what: str) -> bool:
        naive = self.naive
        if (what, job.state) in (("delete", "Deleted"), ("requeue", "Enqueued")):
            return False
        if what == "delete":
            naive.withdraw(job)
            naive.enter(job, "Deleted")
            return True
        naive.revive(job)
        if what == "requeue":
            naive.enter(job, "Enqueued")
            naive.put(job)
        else:
            naive.enter(job, "Scheduled", due=naive.wt + 1500)
        return True

    @rule(queue=st.sampled_from(["q1", "q2"]), paused=RARELY)
    def pause(self, queue: str, paused: bool) -> None:
        reply, outcome = self.send(0, c.SetQueuePaused(queue, paused))
        assert reply == (0, paused != (queue in self.naive.paused))
        (self.naive.paused.add if paused else self.naive.paused.discard)(queue)
        self.learn(outcome)

    # locks

    @precondition(lambda self: self.naive.sessions)
    @rule(data=st.data(), name=RESOURCES, ttl=st.sampled_from([0, 0, 1500]), wait=st.booleans())
    def acquire(self, data: Pick, name: str, ttl: int, wait: bool) -> None:
        session, naive = self.a_session(data), self.naive
        reply, outcome = self.send(session, c.AcquireLock(name, ttl, wait))
        if name not in naive.locks:
            assert reply[1][0] == "granted"
            token = self.increasing(reply[1][1])
            naive.locks[name] = NaiveLock(session, token, 0, naive.lt + ttl if ttl else 0, naive.change())
        elif wait:
            assert reply[1][0] == "waiting"
            naive.locks[name].waiters.append((self.increasing(reply[1][1]), session, ttl))
        else:
            assert reply[1] == "lock_held"
        self.learn(outcome)

    @precondition(lambda self: self.naive.locks)
    @rule(data=st.data(), name=RESOURCES)
    def release(self, data: Pick, name: str) -> None:
        lock = self.naive.locks.get(name)
        numbers = [] if lock is None else [lock.token, lock.ticket, *[waiter[0] for waiter in lock.waiters]]
        number = data.draw(st.sampled_from([*numbers, 1]))
        reply, outcome = self.send(0, c.ReleaseLock(name, number))
        if lock is None or number == 1 or not number:
            assert reply[1] == "lease_lost"
        elif number in (lock.token, lock.ticket):
            assert reply == (0, True)
            self.naive.pass_on(name)
        else:
            assert reply == (0, True)
            lock.waiters = [waiter for waiter in lock.waiters if waiter[0] != number]
        self.learn(outcome)

    # what must be equal at all times

    @invariant()
    def jobs_are_equal(self) -> None:
        assert len(self.store.jobs) == len(self.naive.jobs)
        for job in self.naive.jobs.values():
            found = self.store.jobs[job.id]
            real = (found.state, found.failures, found.deliveries, found.lost, found.token, found.due_wt)
            assert real == (job.state, job.failures, job.deliveries, job.lost, job.token, job.due)
            assert found.expires_lt == job.expires
        for state in STATES:
            there = sorted((job.entered, job.id) for job in self.naive.jobs.values() if job.state == state)
            page = self.store.query("jobs_by_state", {"state": state, "newest_first": False, "count": 1000})
            assert [row["id"] for row in page["rows"]] == [job_id for _, job_id in there]  # type: ignore[index]

    @invariant()
    def queues_are_equal(self) -> None:
        for name, entries in self.naive.queues.items():
            page: Any = self.store.query("enqueued_jobs", {"queue": name, "count": 1000})
            assert [job_id for job_id, _ in page] == [entry[2] for entry in entries]

    @invariant()
    def holders_are_equal(self) -> None:
        naive = self.naive
        sessions = {
            each.id: (each.slots, each.busy, list(each.leases)) for each in self.store.sessions.values()
        }
        assert sessions == {
            each.id: (
                each.slots,
                len(each.dispatched),
                [naive.jobs[str(job_id)].token for job_id in each.held],
            )
            for each in naive.sessions.values()
        }
        locks = {
            name: (lock.token, lock.session, list(lock.waiters)) for name, lock in self.store.locks.items()
        }
        assert locks == {
            name: (lock.token, lock.session, [waiter[0] for waiter in lock.waiters])
            for name, lock in naive.locks.items()
        }

    @invariant()
    def counts_are_equal(self) -> None:
        for name, count in self.naive.stats.items():
            assert self.store.query("counter", {"key": f"stats:{name}"}) == count
        assert {key: unique.job_id for key, unique in self.store.unique_keys.items()} == {
            key: job_id for key, (job_id, _) in self.naive.unique.items()
        }


StoreMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestJobStore = StoreMachine.TestCase
