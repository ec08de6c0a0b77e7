"""What a simulated client asks of the store beside plain jobs and locks: chains, batches, pulling, pauses, reads.

Each way is dealt its details by an integer of the case. What the answers must be is for the oracles to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from quorker.core.errors import QuorkerError
from quorker.core.jobs import commands as c
from quorker.core.jobs.bounds import ON
from quorker.core.jobs.commands import Command
from quorker.sim.cases.case import Case, OpKind
from quorker.sim.clients.batch_asks import BatchAsks
from quorker.sim.clients.contract_asks import Asking as ContractAsking
from quorker.sim.clients.contract_asks import ContractAsks
from quorker.sim.clients.limited_asks import LimitedAsks
from quorker.sim.clients.recurring_asks import RecurringAsks
from quorker.sim.oracles.job_checks import JobOracles, Order
from quorker.sim.world.line import Line, Query
from quorker.sim.world.randomness import Stream

PATIENCE_MS: Final = 600
PULL_PATIENCE_MS: Final = 24 * 3600 * 1000  # whoever pulled jobs must learn which
QUEUES: Final = ("default", "other")
KEYS: Final = ("one", "two")
CONDITIONS: Final[tuple[ON, ...]] = ("success", "any", "any", "deleted")
BRIEF_MS: Final = 150
PRECONDITIONS: Final[tuple[c.Precondition, ...]] = (
    c.SetHolds("one", "a"),
    c.HashFieldIs("one", "a", None),
    c.JobMissing("nobody"),
)


class Asking(ContractAsking, Protocol):
    """The client: its session, its line, what it knows."""

    line: Line | None
    seen: int

    @property
    def oracles(self) -> JobOracles: ...

    def wall_ms(self) -> int: ...

    def new_job(self, dice: int) -> tuple[c.NewJob, Order]: ...

    def on_enqueued(self, orders: Any, value: Any, error: QuorkerError | None) -> None: ...

    def on_grant(self, grant: c.JobGrant) -> None: ...


class Asks:
    """One client's further wishes, and the reads that it waits for."""

    def __init__(self, client: Asking, case: Case) -> None:
        self._client = client
        self._seed = case.seed
        self._by_contract = ContractAsks(client, case.seed)
        self._recurring = RecurringAsks(client, case)
        self._in_batches = BatchAsks(client, case.seed)
        self._limited = LimitedAsks(client, case.seed)
        self._reads: dict[int, tuple[Query, int]] = {}  # number -> what it must not be older than
        self._numbers = 0

    def ways(self) -> dict[OpKind, Callable[[int], object]]:
        return {
            OpKind.CHAIN: self._chain,
            OpKind.BRIEF: self._brief,
            OpKind.RESCHEDULE: self._reschedule,
            OpKind.PAUSE_QUEUE: self._pause_queue,
            OpKind.PULL: self._pull,
            OpKind.COLLECT: self._collect,
            OpKind.LEASED_LOCK: self._leased_lock,
            OpKind.READ_LOCAL: lambda dice: self._read(dice, linearizable=False),
            OpKind.READ_LINEAR: lambda dice: self._read(dice, linearizable=True),
            OpKind.READ_JOB: self._read_job,
            OpKind.LIMITED: self._limited.ask,
            **self._by_contract.ways(),
            **self._recurring.ways(),
            **self._in_batches.ways(),
        }

    # ------------------------------------------------------------------ jobs

    def _chain(self, dice: int) -> None:
        """Three jobs in one command, each waiting for another: the second for the first or for an older job."""
        draw = self._draw(dice)
        first, *rest = (self._client.new_job(draw.below(1 << 16) | 1) for _ in range(3))
        older = [*self._client.known_jobs[-4:], "#0"]
        jobs, orders = [first[0]], [first[1]]
        for place, (job, order) in enumerate(rest):
            parent = draw.choice(older) if not place else f"#{draw.below(2)}"
            jobs.append(job._replace(parent_id=parent, on=draw.choice(CONDITIONS)))
            orders.append(order)
        self._enqueue(jobs, orders)

    def _brief(self, dice: int) -> None:
        """One that is forgotten soon after it ended, scheduled by this client's own wall clock or not at all."""
        job, order = self._client.new_job(dice | 1)
        order.brief = True
        at_wt = self._client.wall_ms() + (dice & 127) if dice & 1024 else None
        unique = f"brief {dice >> 5 & 1}" if dice & 16 else ""
        order.shared = bool(unique)
        job = job._replace(retention_ms=BRIEF_MS, at_wt=at_wt, unique_key=unique, unique_ms=dice & 255)
        self._enqueue([job], [order])

    def _enqueue(self, jobs: list[c.NewJob], orders: list[Order]) -> None:
        self._client.submit(
            c.EnqueueJobs(tuple(jobs)),
            PATIENCE_MS,
            lambda value, error: self._client.on_enqueued(orders, value, error),
        )

    def _reschedule(self, dice: int) -> None:
        if self._client.known_jobs:
            job_id = self._client.known_jobs[dice % len(self._client.known_jobs)]
            states = ("Scheduled", "Failed", "Enqueued") if dice & 1024 else ()
            command = c.RescheduleJob(job_id, delay_ms=dice & 127, expected_states=states)
            self._client.submit(command, PATIENCE_MS, None)

    def _pause_queue(self, dice: int) -> None:
        command = c.SetQueuePaused(QUEUES[dice & 1], bool(dice & 2), "maintenance", f"c{self._client.id}")
        self._client.submit(command, PATIENCE_MS, None)

    def _pull(self, dice: int) -> None:
        def on_answer(value: Any, error: QuorkerError | None) -> None:
            for wire in value if error is None else ():
                self._client.on_grant(c.grant_from_wire(wire))

        command = c.FetchJobs(QUEUES[: 1 + (dice & 1)], 1 + (dice >> 1 & 3))
        self._client.submit(command, PULL_PATIENCE_MS, on_answer)

    # ------------------------------------------------------------------ collections and locks

    def _collect(self, dice: int) -> None:
        """A few operations, all or none; now and then on a condition."""
        draw = self._draw(dice)
        ops = tuple(self._operation(draw) for _ in range(draw.between(1, 4)))
        conditions: tuple[c.Precondition, ...] = ()
        if draw.chance(300_000):
            place = draw.below(len(PRECONDITIONS))
            conditions = PRECONDITIONS[place : place + 1]
        single: Command = ops[0]
        command = single if draw.chance(200_000) else c.Batch(conditions, ops)
        self._client.submit(command, PATIENCE_MS, None)

    def _operation(self, draw: Stream) -> c.ContractCommand:
        key, value, short_ms = draw.choice(KEYS), draw.choice(("a", "b", "c")), draw.between(0, 400)
        options: tuple[c.ContractCommand, ...] = (
            c.IncrementCounter(key, draw.between(-2, 3)),
            c.IncrementCounter(key, 1, short_ms),
            c.IncrementCounter(key, 1),
            c.AddToSet(key, value, float(draw.below(3))),
            c.AddRangeToSet(key, (value, "d")),
            c.RemoveFromSet(key, value),
            c.RemoveSet(key),
            c.ExpireSet(key, short_ms),
            c.PersistSet(key),
            c.InsertToList(key, value),
            c.RemoveFromList(key, value),
            c.TrimList(key, 0, draw.below(4)),
            c.ExpireList(key, short_ms),
            c.PersistList(key),
            c.SetRangeInHash(key, ((value, draw.choice((None, "x"))),)),
            c.RemoveHash(key),
            c.ExpireHash(key, short_ms),
            c.PersistHash(key),
            c.AnnounceServer(f"server {key}", 2, QUEUES),
            c.Heartbeat(f"server {key}"),
            c.RemoveTimedOutServers(short_ms),
            c.RemoveServer(f"server {key}"),
        )
        return draw.choice(options)

    def _leased_lock(self, dice: int) -> None:
        """It ends by itself; half of the time it is let go before."""
        resource = f"leased {dice & 1}"

        def on_answer(value: Any, error: QuorkerError | None) -> None:
            if error is None and dice & 4:
                self._client.submit(c.ReleaseLock(resource, value[1]), PATIENCE_MS, None)

        command = c.AcquireLock(resource, ttl_ms=20 + (dice >> 3 & 255), wait=bool(dice & 2))
        self._client.submit(command, PATIENCE_MS, on_answer)

    # ------------------------------------------------------------------ reads

    def _read(self, dice: int, *, linearizable: bool) -> None:
        client = self._client
        name, about = "counter", KEYS[dice & 1]
        if dice & 2 and client.known_jobs:
            name, about = "state", client.known_jobs[dice % len(client.known_jobs)]
        self._query(name, about, linearizable=linearizable)

    def _read_job(self, dice: int) -> None:
        """Its data as the contract wants them, with its parameters."""
        self._query("job", self._by_contract.some_job(dice >> 1), linearizable=bool(dice & 1))

    def _query(self, name: str, about: str, *, linearizable: bool) -> None:
        client = self._client
        line = client.line
        if line is None:
            return
        self._numbers += 1
        query = Query(self._numbers, name, about, linearizable, client.seen)
        floor = client.oracles.real_time.newest if linearizable else client.seen
        self._reads[query.number] = (query, floor)
        line.to_member(line.member.on_query, line, query)

    def on_answer(self, number: int, index: int, value: object) -> None:
        """It is as new as it has to be; its value was judged where it was read."""
        del value
        asked = self._reads.pop(number, None)
        if asked is None:
            return
        query, floor = asked
        real_time = self._client.oracles.real_time
        real_time.on_read(index, floor, linearizable=query.linearizable)
        self._client.seen = max(self._client.seen, index)

    def forget(self) -> None:
        """The process is gone; answers to it go nowhere."""
        self._reads.clear()
        self._by_contract.forget()
        self._in_batches.forget()

    def _draw(self, dice: int) -> Stream:
        return Stream(self._seed, "asks", self._client.id, dice)
