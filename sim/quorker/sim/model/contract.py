"""The storage contract's operations on jobs, fetched jobs and owned locks, said in the simplest way; part of the witness.

They follow no table of states: whoever uses them has a lifecycle of its own. Their jobs, queues and locks stand among
those of the store's own lifecycle, and each may get into the hands of the other. Ids and tokens are told to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quorker.core.jobs import commands as c
from quorker.core.jobs.store import JobStore
from quorker.sim.model.batches import PENDING
from quorker.sim.model.jobs import ENDED, NaiveJob, NaiveLock
from quorker.sim.model.starts import NaiveStarts

COUNTED_IN_ORDER = (PENDING, "Succeeded", "Failed", "Deleted", "Quarantined")


@dataclass
class Fetched:
    """A job in the hands of whoever asked for the next one. `session` is 0 for somebody without."""

    job_id: str
    queue: str
    session: int
    renewed: int


class NaiveContract(NaiveStarts):
    """`fetched`: by token, what was renewed longest ago first; `fetched_under`: the limit keys of these."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: dict[int, Fetched] = {}
        self.fetched_under: dict[int, str] = {}
        self._told: Any = None  # what the store said to the operation at hand
        self._session = 0
        self._ways: dict[type[Any], Callable[[Any], Any]] = {
            c.CreateJob: self._create,
            c.SetJobParameter: self._set_parameter,
            c.SetJobState: self._set_state,
            c.AddJobState: self._add_state,
            c.ExpireJob: lambda op: self._set_expiry(op.job_id, max(1, self.lt + op.expire_in_ms)),
            c.PersistJob: lambda op: self._set_expiry(op.job_id, 0),
            c.AddToQueue: self._add_to_queue,
            c.FetchNext: self._fetch_next,
            c.AckFetched: lambda op: self._pop_fetched(op.token) is not None,
            c.RequeueFetched: self._requeue,
            c.RenewFetched: self._renew,
            c.TryLock: self._try_lock,
            c.Unlock: self._unlock,
        }

    def knows(self, kind: type[Any]) -> bool:
        return kind in self._ways

    def perform(self, op: Any, told: Any, session: int) -> Any:
        """The value of one operation. `told`: the store's value, for the id or token that only it can make."""
        self._told, self._session = told, session
        return self._ways[type(op)](op)

    # ------------------------------------------------------------------ jobs

    def _create(self, op: c.CreateJob) -> str:
        job_id = op.job_id or str(self._told)
        old = self.jobs.get(job_id)
        if old is not None and not op.job_id:
            return f"an id that no job has, unlike {job_id}"
        if old is not None:
            self.revoke(old)
            self.drop(job_id)
        job = NaiveJob(job_id, c.NewJob(op.task, op.args, op.queue), "", self.change())
        job.expires = max(1, self.lt + op.expire_in_ms)
        job.parameters = dict(op.parameters)
        self.jobs[job_id] = job
        self.touched[job_id] = None
        return job_id

    def _set_parameter(self, op: c.SetJobParameter) -> bool:
        job = self.jobs.get(op.job_id)
        if job is not None:
            job.parameters[op.name] = op.value
            self.touched[op.job_id] = None
        return job is not None

    def _set_state(self, op: c.SetJobState) -> bool:
        job = self.jobs.get(op.job_id)
        if job is None:
            return False
        if op.state != "Processing":
            self.revoke(job)
            job.token = 0
        self.move(job, op.state)
        job.start_by = 0
        if op.state == "Awaiting" and self.state_of(job.parent) in ENDED:
            self.leave_unresolved(job.parent)
        return True

    def _add_state(self, op: c.AddJobState) -> bool:
        job = self.jobs.get(op.job_id)
        if job is not None:
            self.remember(job, op.state)
        return job is not None

    def _set_expiry(self, job_id: str, expires: int) -> bool:
        job = self.jobs.get(job_id)
        if job is not None:
            job.expires = expires
        return job is not None

    # ------------------------------------------------------------------ queues

    def _add_to_queue(self, op: c.AddToQueue) -> None:
        job = self.jobs.get(op.job_id)
        self.place(op.queue, 0 if job is None else job.spec.priority, op.job_id)

    def _fetch_next(self, op: c.FetchNext) -> Any:
        open_queues = [name for name in op.queues if name not in self.paused]
        for name in open_queues:
            while (place := self.first(name)) is not None:
                self.queues[name].remove(place)
                job = self.jobs.get(place[2])
                if job is not None and not self.is_late(job):
                    return job.id, name, self._lend(job.id, name)
        return None

    def _lend(self, job_id: str, queue: str) -> int:
        token = int(self._told[2]) if self._told else 0
        if token in self.fetched:
            return 0
        self.fetched[token] = Fetched(job_id, queue, self._session, self.lt)
        self.begin(self.jobs[job_id])
        self.fetched_under[token] = self.rules_of(job_id).key
        if self._session:
            self.sessions[self._session].held.append(token)
        return token

    def _pop_fetched(self, token: int) -> Fetched | None:
        lent = self.fetched.pop(token, None)
        self.fetched_under.pop(token, None)
        if lent is not None and lent.session:
            self.sessions[lent.session].held.remove(token)
        return lent

    def _requeue(self, op: c.RequeueFetched) -> bool:
        lent = self._pop_fetched(op.token)
        if lent is not None:
            self._return(lent)
        return lent is not None

    def _return(self, lent: Fetched) -> None:
        """To the head of its queue; a job that is worked on does not expire, and one that has ended is left alone."""
        job = self.jobs.get(lent.job_id)
        if job is not None and job.state not in ENDED:
            job.expires = 0
            self.put(job, head=True, queue=lent.queue)

    def _renew(self, op: c.RenewFetched) -> bool:
        lent = self.fetched.pop(op.token, None)
        if lent is not None:
            lent.renewed = self.lt
            self.fetched[op.token] = lent
        return lent is not None

    # ------------------------------------------------------------------ what becomes of what was fetched

    def part_with(self, held: str | int, *, lost: bool) -> None:
        if isinstance(held, str):
            super().part_with(held, lost=lost)
        elif lost:
            self._lose_fetched(held)
        else:
            self._requeue(c.RequeueFetched(held))

    def _lose_fetched(self, token: int) -> None:
        """Whoever fetched the job is gone, or has not renewed it in time."""
        lent = self._pop_fetched(token)
        job = None if lent is None else self.jobs.get(lent.job_id)
        if lent is None or job is None or job.state in ENDED:
            return
        job.lost += 1
        if job.lost < self.lost_max:
            self._return(lent)
        else:
            self.withdraw(job)
            self.enter(job, "Quarantined")

    def reclaim(self, invisibility_ms: int) -> int:
        """A piece of what was not renewed for so long, of these the newest first. Returns how many."""
        stale = [token for token, lent in self.fetched.items() if lent.renewed + invisibility_ms <= self.lt]
        piece = stale[: self.piece]
        for token in reversed(piece):
            self._lose_fetched(token)
        return len(piece)

    def holders_of(self, key: str) -> int:
        return super().holders_of(key) + list(self.fetched_under.values()).count(key)

    def all_held(self) -> set[str | int]:
        return super().all_held() | {lent.job_id for lent in self.fetched.values()}

    # ------------------------------------------------------------------ locks

    def _try_lock(self, op: c.TryLock) -> int:
        self.expire_lock(op.resource)
        lock = self.locks.get(op.resource)
        if lock is None:
            expires = self.lt + max(1, op.lease_ms)
            lock = NaiveLock(0, int(self._told or 0), 0, expires, self.change(), owner=op.owner)
            self.locks[op.resource] = lock
        elif lock.owner != op.owner:
            return 0
        lock.expires = max(lock.expires, self.lt + op.lease_ms)
        return lock.token or -1  # 0 is what those are told who do not get it

    def _unlock(self, op: c.Unlock) -> bool:
        lock = self.locks.get(op.resource)
        if lock is None or lock.owner != op.owner:
            return False
        self.pass_on(op.resource)
        return True

    # ------------------------------------------------------------------ the end

    def compare(self, store: JobStore, agree: Callable[[str, object, object], None]) -> None:
        told = [(token, store.leases[token].job_id) for token in store.fetched]
        agree("fetched jobs", told, [(token, lent.job_id) for token, lent in self.fetched.items()])
        for job_id, job in self.jobs.items():
            kept = store.jobs[job_id]
            agree(f"parameters of {job_id}", dict(kept.parameters), job.parameters)
            agree(f"history of {job_id}", [record.name for record in kept.history], job.history)
            agree(f"end of {job_id}", kept.expires_lt, job.expires)
        self.compare_starts(store, agree)
        for resource, lock in self.locks.items():
            kept_lock = store.locks[resource]
            told_lock = (kept_lock.token, kept_lock.owner, kept_lock.expires_lt)
            agree(f"lock {resource}", told_lock, (lock.token, lock.owner, lock.expires))
        agree("batches", list(store.batches), list(self.batches))
        for batch_id, batch in self.batches.items():
            kept_batch, states = store.batches[batch_id], batch.states()
            agree(f"state of batch {batch_id}", kept_batch.state, batch.state())
            agree(
                f"counts of batch {batch_id}",
                kept_batch[4:9],
                tuple(states.count(state) for state in COUNTED_IN_ORDER),
            )
            agree(f"end of batch {batch_id}", kept_batch.expires_lt, batch.expires)
