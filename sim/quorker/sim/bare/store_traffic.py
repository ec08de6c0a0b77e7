"""Made-up traffic for a job store: every command, valid more often than not, with clocks that jump. One seed, one log.

It knows nothing of what should come of it; `store_invariants` and comparing replicas are for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

from quorker.core.jobs import commands as c
from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import Command, NewJob, RetryPolicy, StartRules, encode
from quorker.core.jobs.lifecycle import STATES
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.outcome import Outcome
from quorker.core.jobs.store import JobStore

QUEUES: Final = ("default", "low", "high")
TASKS: Final = ("send", "resize", "report")
KEYS: Final = ("k1", "k2", "k3")
NAMES: Final = ("alice", "bob", "carol")
SMALL_LIMITS: Final = Limits(
    max_jobs=60,
    max_lost_deliveries=3,
    history_max=6,
    succeeded_ttl_ms=4000,
    deleted_ttl_ms=2000,
    failed_ttl_ms=6000,
    invisibility_ms=3000,
    timeout_grace_ms=100,
    max_sessions=4,
    max_session_leases=8,
    max_session_locks=2,
    max_queues=5,
    max_locks=4,
    piece=3,
    max_recurring=3,
    max_batches=4,
)


class StoreTraffic:
    """Entries for one store, made by looking at it: `entry()` gives the bytes of the next, `apply` feeds it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.store = JobStore(SMALL_LIMITS)
        self.lt = 0
        self.wt = 1_767_225_600_000
        self._nonce = 0
        self._seqs: dict[int, int] = {}
        self._makers = self._weighted()

    def entries(self, count: int) -> Iterator[tuple[bytes, Outcome]]:
        """Bytes of an entry, and what this store made of it."""
        for _ in range(count):
            data = self.entry()
            yield data, self.store.apply(self.store.applied_index + 1, data)

    def entry(self) -> bytes:
        self._tick()
        due = self.store.due(self.lt, self.wt) if self.random.random() < 0.3 else []
        groups = [encode_group(0, 0, [(0, wire) for wire in due])] if due else []
        groups += [self._group() for _ in range(self.random.randint(1, 4))]
        return encode_entry(self.lt, self.wt, groups)

    def _tick(self) -> None:
        self.lt += self.random.choice((0, 1, 50, 400))
        self.wt += self.random.choice((0, 1, 50, 400, -1000, 5000))

    def _group(self) -> bytes:
        session = self.random.choice([0, *self.store.sessions])
        if not session and self.random.random() < 0.3:
            self._nonce += self.random.randint(0, 1)
            opening = c.OpenSession(self._pick(NAMES), self.random.choice((1000, 3000)))
            return encode_group(0, 0, [(self._nonce, encode(opening))])
        numbered = [(self._seq(session), encode(self._command())) for _ in range(self.random.randint(1, 4))]
        return encode_group(session, max(0, self._seqs.get(session, 0) - 5), numbered)

    def _seq(self, session: int) -> int:
        """The next one; now and then one that was there before."""
        self._seqs[session] = seq = self._seqs.get(session, 0) + 1
        return seq if self.random.random() < 0.9 else max(0, seq - self.random.randint(1, 8))

    def _command(self) -> Command:
        return self.random.choice(self._makers)()

    # --- picking ---

    def _pick(self, among: Any) -> Any:
        return self.random.choice(list(among))

    def _flip(self) -> bool:
        return self.random.random() < 0.5

    def _ms(self) -> int:
        return self.random.choice((0, 100, 1000, 5000))

    def _job_id(self) -> str:
        return self.random.choice([*self.store.jobs, "a", "b", "ghost"])

    def _token(self) -> int:
        return self.random.choice([*self.store.leases, 0, 1])

    def _held(self) -> tuple[str, int]:
        """A job and its token; now and then not its own."""
        leases = list(self.store.leases.values())
        if not leases or self.random.random() < 0.1:
            return self._job_id(), self._token()
        lease = self.random.choice(leases)
        return lease.job_id, lease.token

    def _lock_token(self) -> tuple[str, int]:
        resource = self._pick(KEYS)
        lock = self.store.locks.get(resource)
        return resource, self._pick([0, *((lock.token, lock.ticket, *lock.waiters) if lock else ())])

    def _queues(self) -> tuple[str, ...]:
        return tuple(self.random.sample(QUEUES, self.random.randint(1, 3)))

    def _states(self) -> tuple[str, ...]:
        return tuple(self.random.sample(STATES, self.random.randint(0, 3)))

    # --- commands ---

    def _new_job(self) -> NewJob:
        r = self.random
        return NewJob(
            self._pick(TASKS),
            b"x" * r.randint(0, 20),
            self._pick(QUEUES),
            self._pick((0, 0, 0, 5, -5)),
            self._pick((0, 0, 500)),
            self._pick(
                (None, RetryPolicy(r.randint(0, 2), (0, 300)), RetryPolicy(1, (), 100, 500, "delete"))
            ),
            self._pick((0, 0, 300, 3000)),
            self._pick((None, None, self.wt + 200)),
            self._pick(("", "", *KEYS)),
            self._pick((0, 2000)),
            self._pick(("", "", self._job_id(), "#0", f"batch#{self._batch_id()}")),
            self._pick(("success", "failure", "any", "deleted")),
            self._pick(((), (("h", "v"),))),
            self._pick(((), ("t", "u"))),
            self._pick((0, 0, 50)),
            self._pick(("", "", "", self._batch_id())),
            self._start_rules() if self._flip() else None,
        )

    def _start_rules(self) -> StartRules:
        r, limit, rate = self.random, self._pick((0, 1, 2)), self._pick((0, 0, 1, 3))
        key = self._pick(KEYS) if limit or rate else ""
        within_ms, by_wt = self._pick((0, 0, 300)), self._pick((0, 0, self.wt + 500))
        return StartRules(key, limit, rate, 400 if rate else 0, r.randint(1, 3), within_ms, by_wt)

    def _parentless(self) -> NewJob:
        return self._new_job()._replace(parent_id="")

    def _batch_id(self) -> str:
        return self.random.choice([*self.store.batches, "0GHOSTGHOST00"])

    def _job_batch(self) -> Command:
        members = [self._new_job()._replace(batch_id="") for _ in range(self.random.randint(0, 3))]
        first, second = (self._parentless()._replace(batch_id="", on=on) for on in ("success", "any"))
        return c.EnqueueBatch(self._pick(NAMES), tuple(members), self._pick(((), (first,), (first, second))))

    def _contract_op(self) -> c.ContractCommand:
        return self.random.choice(self._contract())()

    def _batch(self) -> Command:
        given = self._pick(
            (
                c.JobInState(self._job_id(), self._states()),
                c.JobMissing(self._job_id()),
                c.LockHeld(*self._lock_token()),
                c.LeaseHeld(self._token()),
                c.HashFieldIs(self._pick(KEYS), "f", self._pick((None, "v"))),
                c.SetHolds(self._pick(KEYS), "v", self._flip()),
            )
        )
        ops = tuple(self._contract_op() for _ in range(self.random.randint(0, 4)))
        return c.Batch((given,) if self._flip() else (), ops)

    def _recurring(self) -> Command:
        r, recurring_id = self.random, self._pick(KEYS)
        job = self._parentless()._replace(delay_ms=0, at_wt=None)
        cron = self._pick(("", "", "* * * * * *", "*/5 * * * *", "30 2 30 2 *"))
        every_ms = 0 if cron and self._pick((True, True, True, False)) else self._pick((100, 700, 3000))
        misfire, grace_ms = self._pick(("once", "all", "skip")), self._ms()
        entry = self.store.recurring.get(recurring_id)
        revision, planned = (entry.revision, entry.next_wt) if entry else (1, self.wt)
        step = c.Step(
            recurring_id,
            self._pick((revision, revision, revision + 1)),
            self._pick((planned, planned, 0, self.wt)),
            tuple(sorted(self.wt + r.randint(-3000, 300) for _ in range(r.randint(0, 3)))),
            self._pick((0, self.wt, self.wt + 300)),
            self._pick(("", "", "", "why")),
        )
        moves: tuple[Command, ...] = (
            c.SetRecurring(recurring_id, job, cron, "UTC", every_ms, misfire, grace_ms),
            c.SetRecurring(recurring_id, c.NewJob("tick"), every_ms=500),
            c.PauseRecurring(recurring_id, self._flip(), "why", "who"),
            c.TriggerRecurring(recurring_id),
            c.AdvanceRecurring((step, step)),
            c.RemoveRecurring(recurring_id) if self._flip() else c.TriggerRecurring(recurring_id),
        )
        return r.choice(moves)

    def _weighted(self) -> list[Callable[[], Command]]:
        r = self.random
        often: list[Callable[[], Command]] = [
            lambda: c.EnqueueJobs((self._parentless(), *[self._new_job() for _ in range(r.randint(0, 2))])),
            lambda: c.CompleteJob(*self._held(), b"r" * r.randint(0, 5)),
            lambda: c.Subscribe(self._queues(), r.randint(0, 5)),
            lambda: c.FailJob(*self._held(), "E", "m" * r.randint(0, 200), "t", r.random() < 0.1),
        ]
        seldom: list[Callable[[], Command]] = [
            c.KeepAlive,
            c.CloseSession,
            lambda: c.FetchJobs(self._queues(), r.randint(1, 5)),
            lambda: c.ReleaseJob(*self._held()),
            lambda: c.DeleteJob(self._job_id(), self._states()),
            lambda: c.RequeueJob(self._job_id(), self._states()),
            lambda: c.RescheduleJob(self._job_id(), None, self._ms(), self._states()),
            lambda: c.AcquireLock(self._pick(KEYS), self._pick((0, 0, 500)), self._flip()),
            lambda: c.ReleaseLock(*self._lock_token()),
            lambda: c.SetQueuePaused(self._pick(QUEUES), r.random() < 0.3, "why", "who"),
            lambda: c.ExpireSessions(tuple(self.store.sessions)),
            lambda: c.Maintain(self._ms()),
            c.ReleaseDue,
            c.ExpireRecords,
            self._recurring,
            self._recurring,
            self._batch,
            self._contract_op,
            self._contract_op,
            self._job_batch,
            lambda: c.CancelBatch(self._batch_id(), self._pick((0, 0, self.store.order))),
        ]
        return often * 5 + seldom

    def _contract(self) -> list[Callable[[], c.ContractCommand]]:
        r, key = self.random, self._pick(KEYS)
        return [
            lambda: c.CreateJob(self._pick(("", "a", "b")), "t", b"", "default", (("p", None),), self._ms()),
            lambda: c.SetJobParameter(self._job_id(), self._pick(KEYS), self._pick((None, "v"))),
            lambda: c.SetJobState(self._job_id(), self._pick((*STATES, "Own")), "", (("K", "1"), ("k", "2"))),
            lambda: c.AddJobState(self._job_id(), self._pick(STATES), "added", ()),
            lambda: c.ExpireJob(self._job_id(), self._ms()),
            lambda: c.PersistJob(self._job_id()),
            lambda: c.AddToQueue(self._pick(QUEUES), self._job_id()),
            lambda: c.FetchNext(self._queues()),
            lambda: c.AckFetched(self._token()),
            lambda: c.RequeueFetched(self._token()),
            lambda: c.RenewFetched(self._token()),
            lambda: c.TryLock(key, self._pick(NAMES), self._ms()),
            lambda: c.Unlock(key, self._pick(NAMES)),
            lambda: c.IncrementCounter(key, r.randint(-2, 2), self._pick((None, 1000))),
            lambda: c.AddToSet(key, self._pick(NAMES), r.random()),
            lambda: c.RemoveFromSet(key, self._pick(NAMES)),
            lambda: c.ExpireSet(key, self._ms()),
            lambda: c.InsertToList(key, self._pick(NAMES)),
            lambda: c.TrimList(key, 0, r.randint(0, 5)),
            lambda: c.ExpireList(key, self._ms()),
            lambda: c.SetRangeInHash(key, (("f", self._pick((None, "v"))),)),
            lambda: c.ExpireHash(key, self._ms()),
            lambda: c.AnnounceServer(self._pick(NAMES), 1, self._queues()),
            lambda: c.RemoveTimedOutServers(self._ms()),
        ]
