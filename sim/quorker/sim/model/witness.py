"""The witness: an independent model that replays the log, command by command, and must give every reply and notice.

This is linearizability as a check instead of a search: every reply has its place in the log, so the model needs no
guessing. It knows ids and tokens only from what the store said, and shares no rule with it; the rules are those of
`jobs`, `timed`, `contract` and `collections`. That places in the log respect real time is checked in `real_time`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from quorker.core.jobs import commands as c
from quorker.core.jobs.batch import Entry, decode_group
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.outcome import Outcome, Reply
from quorker.core.jobs.store import JobStore
from quorker.sim.model.batches import BATCH, NaiveBatch
from quorker.sim.model.collections import NaiveCollections
from quorker.sim.model.contract import NaiveContract
from quorker.sim.model.jobs import NaiveJob, NaiveLock, NaiveSession
from quorker.sim.model.recurring import NaiveRecurring, told_rows
from quorker.sim.oracles.checks import Violation

WINDOW: Final = 4096
ORACLE: Final = "witness [C1]"
JobData: TypeAlias = tuple[str, dict[str, str | None]] | None
"""State and parameters of a job; None when it is not there."""


class Witness:
    """Replays entries in the order of the log. `value_at` tells what a counter or a job was at an earlier index."""

    def __init__(self) -> None:
        self.naive = NaiveContract()
        self.collections = NaiveCollections()
        self.recurring = NaiveRecurring(self._make_or_find)
        self.index = 0
        self.replies: dict[int, dict[int, Reply]] = {}  # session -> sequence -> reply
        self.acked: dict[int, int] = {}
        self.nonces: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self._past: dict[str, list[tuple[int, JobData]]] = {}
        self._told: Reply = (0, None)  # what the store said to the command at hand
        self._session = 0
        self._seq = 0
        self._ways: dict[type[Any], Callable[[Any], Reply]] = {
            c.OpenSession: self._open,
            c.ReplaceSessions: self._replace,
            c.CloseSession: self._close,
            c.KeepAlive: lambda _: (0, None),
            c.ExpireSessions: self._expire_sessions,
            c.Subscribe: self._subscribe,
            c.FetchJobs: self._fetch,
            c.EnqueueJobs: self._enqueue,
            c.CompleteJob: self._complete,
            c.FailJob: self._fail,
            c.ReleaseJob: self._release,
            c.DeleteJob: self._delete,
            c.RequeueJob: self._requeue,
            c.RescheduleJob: self._reschedule,
            c.AcquireLock: self._acquire,
            c.ReleaseLock: self._unlock,
            c.ReleaseDue: lambda _: (0, self.naive.release_due()),
            c.ExpireRecords: self._expire_records,
            c.Maintain: self._maintain,
            c.SetQueuePaused: self._pause,
            c.SetLimits: self._limit,
            c.ClaimDigest: self._claim,
            c.Batch: self._batch,
            c.SetRecurring: self._set_recurring,
            c.RemoveRecurring: lambda command: (0, self.recurring.remove(command.recurring_id)),
            c.TriggerRecurring: self._trigger_recurring,
            c.PauseRecurring: self._pause_recurring,
            c.AdvanceRecurring: self._advance_recurring,
            c.EnqueueBatch: self._enqueue_batch,
            c.CancelBatch: self._cancel_batch,
        }

    # ------------------------------------------------------------------ entries

    def on_entry(self, index: int, batch: Entry, outcome: Outcome) -> None:
        """Replay one entry, and compare all that it led to."""
        self.index = index
        naive = self.naive
        naive.lt, naive.now_wt = max(naive.lt, batch.lt), max(naive.now_wt, batch.wt)
        naive.open_keys()
        self.collections.lt = naive.lt
        naive.granted, naive.cancelled, naive.lock_granted, naive.closed = [], [], [], []
        replies = iter(outcome.replies)
        for group_data in batch.groups:
            group = decode_group(group_data)
            self._renew(group.session, group.acked_below)
            for seq, wire in group.commands:
                self._told = next(replies)[2]
                reply = self._answer(group.session, seq, wire)
                self._agree(f"reply to {seq} of session {group.session}", brief(self._told), brief(reply))
        naive.settle()
        self._compare_notices(outcome)
        self.collections.log(index)
        for job_id in naive.touched:
            job = naive.jobs.get(job_id)
            data = None if job is None else (job.state, dict(job.parameters))
            self._past.setdefault(job_id, []).append((index, data))
        naive.touched.clear()

    def on_read(self, name: str, about: str, index: int, value: Any) -> None:
        """A read that reflects the log up to `index` must have this value."""
        if name == "counter":
            expected: object = self.collections.counter_at(about, index)
        elif name == "job":
            expected = self._data_at(about, index)
            value = None if value is None else (value["state"] or "", value["parameters"])
        else:
            expected = (self._data_at(about, index) or ("",))[0]
            value = "" if value is None else value["name"]
        if value != expected:
            raise Violation(
                ORACLE, f"{name} of {about} at {index} is read as {value!r}, must be {expected!r}"
            )

    def _data_at(self, job_id: str, index: int) -> JobData:
        past = [data for at, data in self._past.get(job_id, []) if at <= index]
        return past[-1] if past else None

    def _renew(self, session_id: int, acked_below: int) -> None:
        session = self.naive.sessions.get(session_id)
        if session is not None:
            session.expires = max(session.expires, self.naive.lt + session.ttl)
            self.acked[session_id] = max(self.acked[session_id], acked_below)

    def _answer(self, session_id: int, seq: int, wire: Any) -> Reply:
        """Each sequence of a session applies once, and is answered alike as often as it is asked."""
        self._session, self._seq = session_id, seq
        if not session_id:
            return self._perform(wire)
        if session_id not in self.naive.sessions:
            return (1, "session_expired", "")
        known = self.replies[session_id].get(seq)
        if known is not None and seq >= self.acked[session_id]:
            return known
        if seq < self.acked[session_id]:
            return (1, "stale_sequence", "")
        reply = self._perform(wire)
        self.replies.setdefault(session_id, {})[seq] = self._told
        return reply

    def _perform(self, wire: Any) -> Reply:
        command: Any = c.decode(wire)
        way = self._ways.get(command.__class__)
        if way is not None:
            return way(command)
        return (0, self._operate(command, None if self._told[0] else self._told[1]))

    def _operate(self, op: Any, told: Any) -> Any:
        """The value of an operation of the storage contract; `told`: what the store says that it is."""
        if self.naive.knows(op.__class__):
            return self.naive.perform(op, told, self._session)
        return self.collections.perform(op)

    def replays(self, kind: type[Any]) -> bool:
        return kind in self._ways or self.naive.knows(kind) or self.collections.knows(kind)

    def _agree(self, what: str, told: object, expected: object) -> None:
        if told != expected:
            raise Violation(ORACLE, f"{what} at {self.index} is {told}, must be {expected}")

    def _compare_notices(self, outcome: Outcome) -> None:
        naive = self.naive
        told: dict[str, list[tuple[int, Any]]] = {"job": [], "cancel": [], "lock": [], "session_closed": []}
        for notice in outcome.notices:
            told[notice.kind].append((notice.session, notice.payload))
        self._agree("grants", [(to, grant.job_id) for to, grant in told["job"]], naive.granted)
        self._agree("cancels", [(to, cancel.job_id) for to, cancel in told["cancel"]], naive.cancelled)
        self._agree("locks", [(to, lock.resource) for to, lock in told["lock"]], naive.lock_granted)
        self._agree("ends of sessions", [to for to, _ in told["session_closed"]], naive.closed)
        for _, grant in told["job"]:
            self._learn(grant)
        for _, lock in told["lock"]:
            held = naive.locks.get(lock.resource)
            if held is not None and held.ticket == lock.ticket:
                held.token = lock.token

    def _learn(self, grant: c.JobGrant) -> None:
        job = self.naive.jobs.get(grant.job_id)
        if job is None or job.state != "Processing":
            raise Violation(ORACLE, f"{grant.job_id} is granted at {self.index} and is {job}")
        self._agree(
            f"grant of {grant.job_id}", (grant.attempt, grant.deliveries), (job.failures + 1, job.deliveries)
        )
        job.token = grant.token

    # ------------------------------------------------------------------ sessions

    def _open(self, command: c.OpenSession) -> Reply:
        known = self.nonces.get(self._seq)
        if known in self.naive.sessions:
            return (0, known)
        session_id = int(self._told[1])
        self.nonces[self._seq], self.names[session_id] = session_id, command.name
        self.acked[session_id], self.replies[session_id] = 0, {}
        self.naive.sessions[session_id] = NaiveSession(
            session_id, command.ttl_ms, self.naive.lt + command.ttl_ms
        )
        return (0, session_id)

    def _own(self) -> NaiveSession:
        return self.naive.sessions[self._session]

    def _replace(self, _: c.ReplaceSessions) -> Reply:
        name = self.names[self._session]
        older = [each for each in self.naive.sessions if each < self._session and self.names[each] == name]
        for session_id in older:
            self.naive.end_session(self.naive.sessions[session_id], lost=True)
        return (0, len(older))

    def _close(self, _: c.CloseSession) -> Reply:
        self.naive.end_session(self._own(), lost=False)
        return (0, None)

    def _expire_sessions(self, command: c.ExpireSessions) -> Reply:
        ended = 0
        for session_id in command.session_ids:
            session = self.naive.sessions.get(session_id)
            if session is not None and session.expires <= self.naive.lt:
                self.naive.end_session(session, lost=True)
                ended += 1
        return (0, ended)

    def _subscribe(self, command: c.Subscribe) -> Reply:
        session = self._own()
        session.queues, session.slots = command.queues, command.slots
        if session.id in self.naive.turns:
            self.naive.turns.remove(session.id)
        self.naive.offer_slot(session)
        return (0, None)

    def _fetch(self, command: c.FetchJobs) -> Reply:
        session, naive = self._own(), self.naive
        taken: list[str] = []
        for name in [name for name in command.queues if name not in naive.paused]:
            while len(taken) < command.limit and (job := naive.take(name)) is not None:
                naive.grant(session, job)
                taken.append(job.id)
        grants = [c.grant_from_wire(wire) for wire in self._told[1]]
        self._agree("fetched jobs", [grant.job_id for grant in grants], taken)
        for grant in grants:
            self._learn(grant)
        return self._told

    # ------------------------------------------------------------------ jobs

    def _enqueue(self, command: c.EnqueueJobs) -> Reply:
        refusal = self.naive.parent_refusal(command.jobs) or self.naive.joining_refusal(command.jobs)
        if refusal is not None:
            return (1, refusal, "")
        return (0, self._make_all(command.jobs, self._told[1]))

    def _make_all(self, jobs: tuple[c.NewJob, ...], ids: Any) -> tuple[str, ...]:
        made: list[str] = []
        for spec, job_id in zip(jobs, ids, strict=True):
            made.append(self._make(spec, job_id, made))
        return tuple(made)

    def _make(self, spec: c.NewJob, job_id: str, made: list[str]) -> str:
        naive = self.naive
        holder = naive.unique.get(spec.unique_key)
        if holder is not None and not 0 < holder[1] <= naive.lt:
            return holder[0]
        if job_id in naive.jobs:
            raise Violation(ORACLE, f"{job_id} is made again at {self.index}")
        parent = made[int(spec.parent_id[1:])] if spec.parent_id[:1] == "#" else spec.parent_id
        job = naive.jobs[job_id] = NaiveJob(job_id, spec, parent, naive.change())
        job.start_by = spec.start.by_wt if spec.start is not None else 0
        if spec.unique_key:
            naive.unique[spec.unique_key] = (job_id, naive.lt + spec.unique_ms if spec.unique_ms else 0)
        naive.join(job)
        if not parent:
            naive.start(job)
        else:
            naive.enter(job, "Awaiting")
            state = naive.state_of(parent)
            if state is None:  # it stood for a unique key, and is evicted
                naive.enter(job, "Deleted")
            else:
                naive.decide(job, state)
        return job_id

    def _enqueue_batch(self, command: c.EnqueueBatch) -> Reply:
        """It is a batch when all of it is there, so no end of a member is seen before."""
        naive, jobs = self.naive, (*command.jobs, *command.callbacks)
        refusal = naive.parent_refusal(jobs) or naive.key_refusal(jobs)
        if refusal is not None:
            return (1, refusal, "")
        if self._told[0]:
            raise Violation(ORACLE, f"a batch at {self.index} is answered {self._told}, must be made")
        told: Any = self._told[1]
        batch_id, ids, callback_ids = str(told[0]), told[1], told[2]
        batch = naive.batches[batch_id] = NaiveBatch(batch_id, command.name, [], command.retention_ms)
        members = self._make_all(tuple([job._replace(batch_id=batch_id) for job in command.jobs]), ids)
        waiting = tuple([job._replace(parent_id=BATCH + batch_id) for job in command.callbacks])
        callbacks = self._make_all(waiting, callback_ids)
        naive.is_made(batch)
        return (0, (batch_id, members, callbacks))

    def _cancel_batch(self, command: c.CancelBatch) -> Reply:
        batch = self.naive.batches.get(command.batch_id)
        if batch is None:
            return (1, "not_found", "")
        told: Any = (0, None) if self._told[0] else self._told[1]
        return (0, self.naive.cancel(batch, command.after, told[1]))

    def _report(self, job_id: str, token: int, act: Callable[[NaiveJob], Reply]) -> Reply:
        refusal = self.naive.refusal(job_id, token)
        return (1, refusal, "") if refusal is not None else act(self.naive.jobs[job_id])

    def _complete(self, command: c.CompleteJob) -> Reply:
        def complete(job: NaiveJob) -> Reply:
            self.naive.complete(job, command.token)
            return (0, None)

        return self._report(command.job_id, command.token, complete)

    def _fail(self, command: c.FailJob) -> Reply:
        return self._report(
            command.job_id,
            command.token,
            lambda job: (0, self.naive.fail(job, command.token, command.final)),
        )

    def _release(self, command: c.ReleaseJob) -> Reply:
        def give_back(job: NaiveJob) -> Reply:
            self.naive.give_back(job)
            return (0, None)

        return self._report(command.job_id, command.token, give_back)

    def _moved(
        self, command: Any, is_done: Callable[[NaiveJob], bool], move: Callable[[NaiveJob], None]
    ) -> Reply:
        job = self.naive.jobs.get(command.job_id)
        if job is None:
            return (1, "not_found", "")
        if command.expected_states and job.state not in command.expected_states:
            return (1, "wrong_state", "")
        if is_done(job):
            return (0, False)
        move(job)
        return (0, True)

    def _delete(self, command: c.DeleteJob) -> Reply:
        def delete(job: NaiveJob) -> None:
            self.naive.withdraw(job)
            self.naive.enter(job, "Deleted")

        return self._moved(command, lambda job: job.state == "Deleted", delete)

    def _requeue(self, command: c.RequeueJob) -> Reply:
        def requeue(job: NaiveJob) -> None:
            self.naive.revive(job)
            self.naive.enter(job, "Enqueued")
            self.naive.put(job)

        is_there = self.naive.is_queued(command.job_id)
        return self._moved(command, lambda job: is_there and job.state == "Enqueued", requeue)

    def _reschedule(self, command: c.RescheduleJob) -> Reply:
        due = self.naive.wt + command.delay_ms if command.at_wt is None else command.at_wt

        def reschedule(job: NaiveJob) -> None:
            self.naive.revive(job)
            self.naive.enter(job, "Scheduled", due=max(1, due))

        return self._moved(command, lambda _: False, reschedule)

    def _pause(self, command: c.SetQueuePaused) -> Reply:
        changes = command.paused != (command.queue in self.naive.paused)
        (self.naive.paused.add if command.paused else self.naive.paused.discard)(command.queue)
        return (0, changes)

    # ------------------------------------------------------------------ recurring jobs

    def _make_or_find(self, spec: c.NewJob, job_id: str) -> tuple[str, bool]:
        count = len(self.naive.jobs)
        found = self._make(spec, job_id, [])
        return found, len(self.naive.jobs) > count

    def _set_recurring(self, command: c.SetRecurring) -> Reply:
        if bool(command.cron) == bool(command.every_ms):
            return (1, "bad_schedule", "")
        return (0, self.recurring.declare(command, self.index, self.naive.wt))

    def _trigger_recurring(self, command: c.TriggerRecurring) -> Reply:
        if command.recurring_id not in self.recurring.entries:
            return (1, "not_found", "")
        return (0, self.recurring.trigger(command.recurring_id, str(self._told[1])))

    def _pause_recurring(self, command: c.PauseRecurring) -> Reply:
        if command.recurring_id not in self.recurring.entries:
            return (1, "not_found", "")
        changed = self.recurring.pause(command.recurring_id, paused=command.paused, wt=self.naive.wt)
        return (0, changed)

    def _advance_recurring(self, command: c.AdvanceRecurring) -> Reply:
        """Only the store can make ids; which slots fire is for the model to say."""
        if self._session:
            return (1, "leader_only", "")
        told: Any = self._told[1] if not self._told[0] else ()
        job_ids = [job_id for _, _, job_id in told]
        fired = [
            each for step in command.steps for each in self.recurring.advance(step, self.naive.wt, job_ids)
        ]
        return (0, tuple(fired))

    # ------------------------------------------------------------------ locks

    def _acquire(self, command: c.AcquireLock) -> Reply:
        naive = self.naive
        naive.expire_lock(command.resource)
        lock = naive.locks.get(command.resource)
        if lock is None:
            token = self._number("granted")
            expires = naive.lt + command.ttl_ms if command.ttl_ms else 0
            naive.locks[command.resource] = NaiveLock(self._session, token, 0, expires, naive.change())
            return (0, ("granted", token))
        if not command.wait:
            return (1, "lock_held", "")
        ticket = self._number("waiting")
        lock.waiters.append((ticket, self._session, command.ttl_ms))
        return (0, ("waiting", ticket))

    def _number(self, word: str) -> int:
        """The token or ticket that only the store can make. Where it said something else, it differs from the model."""
        match self._told:
            case (0, (said, int(number))) if said == word:
                return int(number)
            case told:
                raise Violation(ORACLE, f"reply to a lock at {self.index} is {told}, must be {word}")

    def _unlock(self, command: c.ReleaseLock) -> Reply:
        lock = self.naive.locks.get(command.resource)
        if lock is None:
            return (1, "lease_lost", "")
        if any(waiter[0] == command.token for waiter in lock.waiters):
            lock.waiters = [waiter for waiter in lock.waiters if waiter[0] != command.token]
            return (0, True)
        if command.token not in (lock.token, lock.ticket):
            return (1, "lease_lost", "")
        self.naive.pass_on(command.resource)
        return (0, True)

    # ------------------------------------------------------------------ time, limits, collections

    def _expire_records(self, _: c.ExpireRecords) -> Reply:
        jobs = sum(self.naive.evict_piece())
        keys, locks = self.naive.expire_keys(), self.naive.expire_locks()
        return (0, jobs + keys + locks + self.naive.evict_batches() + self._expire_collections())

    def _expire_collections(self) -> int:
        return self.collections.expire(self.naive.piece)

    def _maintain(self, command: c.Maintain) -> Reply:
        """How many queues are dropped is the store's own affair: an empty one cannot be told from one that is gone."""
        evicted, orphans = self.naive.evict_piece()
        self.naive.expire_keys()
        collections = self._expire_collections()
        locks = self.naive.expire_locks()
        reclaimed = self.naive.reclaim(command.invisibility_ms) + self.naive.time_out()
        return (0, (evicted, orphans, reclaimed, locks, collections, self._told[1][5]))

    def _claim(self, _: c.ClaimDigest) -> Reply:
        return (0, None)

    def _limit(self, command: c.SetLimits) -> Reply:
        limits = Limits.from_values(command.values)
        self.naive.piece, self.naive.grace_ms = limits.piece, limits.timeout_grace_ms
        self.naive.history_max = limits.history_max
        return (0, None)

    def _batch(self, command: c.Batch) -> Reply:
        for precondition in command.preconditions:
            if not self._holds(precondition):
                return (1, "precondition_failed", "")
        told: Any = self._told[1] if not self._told[0] else ()
        if len(told) != len(command.ops):
            raise Violation(ORACLE, f"reply to a batch of {len(command.ops)} at {self.index} is {self._told}")
        values = [self._operate(op, value) for op, value in zip(command.ops, told, strict=True)]
        return (0, tuple(values))

    def _holds(self, precondition: c.Precondition) -> bool:
        match precondition:
            case c.JobInState(job_id, states):
                job = self.naive.jobs.get(job_id)
                return job is not None and job.state in states
            case c.JobMissing(job_id):
                return job_id not in self.naive.jobs
            case c.LockHeld(resource, token):
                lock = self.naive.locks.get(resource)
                return lock is not None and lock.token == token and not 0 < lock.expires <= self.naive.lt
            case c.LeaseHeld(token):
                dispatched = any(job.token == token for job in self.naive.jobs.values() if job.token)
                return dispatched or token in self.naive.fetched
            case _:
                return self.collections.holds(precondition)

    # ------------------------------------------------------------------ the end

    def compare(self, store: JobStore) -> None:
        """Every job is in exactly one state [J17], queues are in order [J11], and nothing else is there."""
        naive = self.naive
        self._agree("place in the log", store.applied_index, self.index)
        self._agree(
            "jobs",
            {job.id: (job.state, job.failures, job.deliveries, job.lost) for job in store.jobs.values()},
            {job.id: (job.state, job.failures, job.deliveries, job.lost) for job in naive.jobs.values()},
        )
        for name in [name for name, entries in naive.queues.items() if entries]:
            page: Any = store.query("enqueued_jobs", {"queue": name, "count": 1000})
            self._agree(f"queue {name}", [job_id for job_id, _ in page], [e[2] for e in naive.queues[name]])
        self._agree("sessions", sorted(store.sessions), sorted(naive.sessions))
        self._agree("locks", sorted(store.locks), sorted(naive.locks))
        naive.compare(store, self._agree)
        rows: Any = store.query("recurring:list", {"limit": 1000})
        self._agree("recurring jobs", told_rows(rows), self.recurring.rows())
        for state, count in naive.stats.items():
            self._agree(f"count of {state}", store.query("counter", {"key": f"stats:{state}"}), count)
        self.collections.compare(store, self._agree)


def brief(reply: Any) -> Any:
    """A reply without what is only for people to read."""
    return (1, reply[1]) if reply[0] else (0, as_tuple(reply[1]))


def as_tuple(value: Any) -> Any:
    """Lists and tuples alike, however deep."""
    return tuple(map(as_tuple, value)) if value.__class__ in (list, tuple) else value
