"""What a simulated client asks for by the storage contract: jobs with a lifecycle of its own, fetched jobs, owned locks.

It does what a worker of the original does, in many commands and with crashes between them, and beside that anything at
all, one by one or in a batch. What the answers must be is for the oracles to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from quorker.core.errors import QuorkerError
from quorker.core.jobs import commands as c
from quorker.core.jobs.commands import Command
from quorker.sim.cases.case import OpKind
from quorker.sim.world.randomness import Stream

PATIENCE_MS: Final = 600
KEPT: Final = 4  # of the newest tokens and ids that it was told
OWN_IDS: Final = ("own-0", "own-1", "own-2")
QUEUES: Final = ("contract", "contract", "default", "other")
OF_A_WORKER: Final = (("contract",), ("contract", "default"), ("other", "contract"))
STATES: Final = (
    "Enqueued", "Scheduled", "Processing", "Succeeded", "Failed", "Deleted", "Awaiting", "Odd", "Odder",
)  # fmt: skip
RESOURCES: Final = ("owned", "leased 0", "leased 1")
OWNERS: Final = ("one", "two")
STRANGERS_PPM: Final = 150_000  # jobs of the store's own lifecycle that it meddles with
END_WELL, RENEW, REQUEUE = 5, 7, 9  # ways to go on with a fetched job, of ten; the rest forget it


class Asking(Protocol):
    """The client: its session, and the jobs that it knows."""

    id: int
    known_jobs: list[str]

    def submit(
        self, command: Command, patience_ms: int, resolve: Callable[[Any, QuorkerError | None], None] | None
    ) -> None: ...

    def later(self, wait_ms: int, act: Callable[[], None]) -> None: ...


class ContractAsks:
    """One client's wishes by contract. `_tokens` of what it fetched, `_lock_tokens` of what it locked, `_made` job ids."""

    def __init__(self, client: Asking, seed: int) -> None:
        self._client = client
        self._seed = seed
        self._tokens: list[int] = []
        self._lock_tokens: list[int] = []
        self._made: list[str] = []

    def ways(self) -> dict[OpKind, Callable[[int], object]]:
        return {
            OpKind.CONTRACT: self._anything,
            OpKind.OFFER: self._offer,
            OpKind.FETCH: self._fetch,
            OpKind.OWNED_LOCK: self._owned_lock,
        }

    def forget(self) -> None:
        """The process is gone, and what it knew."""
        self._tokens.clear()
        self._lock_tokens.clear()
        self._made.clear()

    def some_job(self, dice: int) -> str:
        """One of those that it may have made."""
        known = (*OWN_IDS, *self._made)
        return known[dice % len(known)]

    # ------------------------------------------------------------------ as the original does

    def _offer(self, dice: int) -> None:
        """Create a job that would expire, then enqueue it in a transaction: half-made jobs vanish by themselves."""
        draw = self._draw("offer", dice)
        queue, expire_ms = draw.choice(QUEUES), draw.between(200, 3_000)
        create = c.CreateJob("", "task", b"contract", queue, (("culture", "de"),), expire_ms)

        def on_created(value: Any, error: QuorkerError | None) -> None:
            if error is None:
                steps = (
                    c.SetJobState(value, "Enqueued", "", ()),
                    c.PersistJob(value),
                    c.AddToQueue(queue, value),
                )
                self._learn((create,), (value,))
                self._submit(c.Batch((c.JobInState(value, ("",)),), steps))

        self._submit(create, on_created)

    def _fetch(self, dice: int) -> None:
        """Take the next job, and be at work for a while."""
        draw = self._draw("fetch", dice)
        fetch = c.FetchNext(draw.choice(OF_A_WORKER))

        def on_fetched(value: Any, error: QuorkerError | None) -> None:
            if error is None and value is not None:
                job_id, _, token = value
                self._learn((fetch,), (value,))
                if draw.chance(600_000):
                    self._submit(
                        c.SetJobState(job_id, "Processing", "", (("server", f"c{self._client.id}"),))
                    )
                self._client.later(draw.between(1, 400), lambda: self._go_on(draw, job_id, token))

        self._submit(fetch, on_fetched)

    def _go_on(self, draw: Stream, job_id: str, token: int) -> None:
        way = draw.below(10)
        if way < END_WELL:
            done = (
                c.SetJobState(job_id, "Succeeded", "", (("latency", "1"),)),
                c.ExpireJob(job_id, draw.between(0, 400)),
                c.AckFetched(token),
            )
            self._submit(c.Batch((c.LeaseHeld(token),), done))
        elif way < RENEW:
            self._submit(c.RenewFetched(token))
            self._client.later(draw.between(1, 400), lambda: self._go_on(draw, job_id, token))
        elif way < REQUEUE:
            self._submit(c.RequeueFetched(token))

    def _owned_lock(self, dice: int) -> None:
        """Take it or renew it, and mostly let it go before it ends by itself."""
        draw = self._draw("owned lock", dice)
        resource, owner = draw.choice(RESOURCES), draw.choice(OWNERS)
        take = c.TryLock(resource, owner, draw.between(0, 400))

        def on_answer(value: Any, error: QuorkerError | None) -> None:
            if error is None:
                self._learn((take,), (value,))
            if not error and value and draw.chance(700_000):
                self._client.later(draw.between(1, 200), lambda: self._submit(c.Unlock(resource, owner)))

        self._submit(take, on_answer)

    # ------------------------------------------------------------------ anything at all

    def _anything(self, dice: int) -> None:
        """A few operations in an order that makes no sense, all or none; now and then on a condition."""
        draw = self._draw("contract", dice)
        ops = tuple(self._operation(draw) for _ in range(draw.between(1, 4)))
        conditions: tuple[c.Precondition, ...] = ()
        if draw.chance(300_000):
            conditions = (self._condition(draw),)
        if draw.chance(300_000):
            self._submit(ops[0], lambda value, error: self._on_done(ops[:1], (value,), error))
        else:
            self._submit(c.Batch(conditions, ops), lambda value, error: self._on_done(ops, value, error))

    def _on_done(self, ops: Sequence[Any], values: Any, error: QuorkerError | None) -> None:
        if error is None:
            self._learn(ops, values)

    def _operation(self, draw: Stream) -> c.ContractCommand:
        job_id, token, queue = self._job(draw), draw.choice((1, *self._tokens)), draw.choice(QUEUES)
        state, short_ms, value = draw.choice(STATES), draw.between(0, 400), draw.choice(("a", "b", None))
        resource, owner = draw.choice(RESOURCES), draw.choice(OWNERS)
        options: tuple[c.ContractCommand, ...] = (
            c.CreateJob(
                draw.choice((*OWN_IDS, "")), "task", b"contract", queue, (("p", value),), short_ms * 8
            ),
            c.CreateJob(draw.choice(OWN_IDS), "task", b"again", queue, (), short_ms * 8),
            c.SetJobParameter(job_id, draw.choice(("p", "q")), value),
            c.SetJobState(job_id, state, "", (("k", value), ("K", "last"))),
            c.SetJobState(job_id, "Enqueued", "", ()),
            c.AddJobState(job_id, state, "on the way", ()),
            c.ExpireJob(job_id, short_ms * 2),
            c.PersistJob(job_id),
            c.AddToQueue(queue, job_id),
            c.AddToQueue(queue, job_id),
            c.FetchNext(draw.choice(OF_A_WORKER)),
            c.AckFetched(token),
            c.RequeueFetched(token),
            c.RenewFetched(token),
            c.TryLock(resource, owner, short_ms),
            c.Unlock(resource, owner),
            c.AddToSet("one", job_id, float(draw.below(3))),
        )
        return draw.choice(options)

    def _condition(self, draw: Stream) -> c.Precondition:
        job_id = self._job(draw)
        options: tuple[c.Precondition, ...] = (
            c.JobInState(job_id, ("", "Enqueued", "Odd")),
            c.JobMissing(job_id),
            c.LockHeld(draw.choice(RESOURCES), draw.choice((1, *self._lock_tokens))),
            c.LeaseHeld(draw.choice((1, *self._tokens))),
            c.SetHolds("one", job_id, draw.chance(500_000)),
        )
        return draw.choice(options)

    def _job(self, draw: Stream) -> str:
        strangers = self._client.known_jobs
        is_stranger = draw.chance(STRANGERS_PPM)
        number = draw.below(1 << 16)
        return strangers[number % len(strangers)] if is_stranger and strangers else self.some_job(number)

    # ------------------------------------------------------------------ what it knows

    def _learn(self, ops: Sequence[Any], values: Sequence[Any]) -> None:
        """Ids and tokens out of answers, the newest few."""
        for op, value in zip(ops, values, strict=True):
            if isinstance(op, c.CreateJob) and not op.job_id:
                self._made = [*self._made, value][-KEPT:]
            elif isinstance(op, c.FetchNext) and value is not None:
                self._tokens = [*self._tokens, value[2]][-KEPT:]
            elif isinstance(op, c.TryLock) and value:
                self._lock_tokens = [*self._lock_tokens, value][-KEPT:]

    def _submit(
        self, command: Command, resolve: Callable[[Any, QuorkerError | None], None] | None = None
    ) -> None:
        self._client.submit(command, PATIENCE_MS, resolve)

    def _draw(self, way: str, dice: int) -> Stream:
        return Stream(self._seed, "asks by contract", way, self._client.id, dice)
