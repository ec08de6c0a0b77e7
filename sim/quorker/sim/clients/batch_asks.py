"""What a simulated client asks for in batches: jobs with callbacks that wait for their end, further members, calling off.

Each way is dealt its details by an integer of the case. What must come of it is for the oracles to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from quorker.core.errors import QuorkerError
from quorker.core.jobs import commands as c
from quorker.core.jobs.bounds import ON
from quorker.core.jobs.commands import Command
from quorker.sim.cases.case import OpKind
from quorker.sim.oracles.job_checks import Order
from quorker.sim.world.randomness import Stream

PATIENCE_MS: Final = 600
KEPT: Final = 4  # of the newest batches that it made
BRIEF_MS: Final = 150
CONDITIONS: Final[tuple[ON, ...]] = ("success", "success", "any", "failure")
ONCE: Final = c.RetryPolicy(attempts=0)
NO_RETRY_PPM: Final = 300_000
UNIQUE_PPM: Final = 50_000
AFTER_ANOTHER_PPM: Final = 200_000
BRIEF_PPM: Final = 200_000


class Asking(Protocol):
    """The client: its session, and the jobs that it knows."""

    id: int
    known_jobs: list[str]

    def submit(
        self, command: Command, patience_ms: int, resolve: Callable[[Any, QuorkerError | None], None] | None
    ) -> None: ...

    def new_job(self, dice: int) -> tuple[c.NewJob, Order]: ...

    def on_enqueued(self, orders: Any, value: Any, error: QuorkerError | None) -> None: ...


class BatchAsks:
    """One client's batches."""

    def __init__(self, client: Asking, seed: int) -> None:
        self._client = client
        self._seed = seed
        self._made: list[str] = []

    def ways(self) -> dict[OpKind, Callable[[int], object]]:
        return {OpKind.BATCH: self._batch, OpKind.JOIN: self._join, OpKind.CALL_OFF: self._call_off}

    def forget(self) -> None:
        """The process is gone, and what it knew."""
        self._made.clear()

    def _batch(self, dice: int) -> None:
        """Up to four members, some of which wait for another, or for another batch; up to three callbacks."""
        draw = self._draw("make", dice)
        drawn = [self._member(draw, place) for place in range(draw.below(5))]
        callbacks = [self._client.new_job(draw.below(1 << 12) | 1) for _ in range(draw.between(0, 3))]
        waiting = tuple([job._replace(on=draw.choice(CONDITIONS)) for job, _ in callbacks])
        orders = [order for _, order in (*drawn, *callbacks)]
        for order in orders:
            order.batch = orders
        members = tuple([job for job, _ in drawn])
        retention_ms = BRIEF_MS if draw.chance(BRIEF_PPM) else 0
        command = c.EnqueueBatch(f"batch of c{self._client.id}", members, waiting, retention_ms)

        def on_answer(value: Any, error: QuorkerError | None) -> None:
            if error is not None:
                self._client.on_enqueued(orders, None, error)
                return
            batch_id, ids, callback_ids = value
            self._made = [*self._made, batch_id][-KEPT:]
            self._client.on_enqueued(orders, (*ids, *callback_ids), None)

        self._client.submit(command, PATIENCE_MS, on_answer)

    def _member(self, draw: Stream, place: int) -> tuple[c.NewJob, Order]:
        job, order = self._client.new_job(draw.below(1 << 12) | 1)
        if draw.chance(NO_RETRY_PPM):
            job = job._replace(retry=ONCE)
        if draw.chance(UNIQUE_PPM):
            order.shared = True  # when it joins, a member of that batch may stand for it
            job = job._replace(unique_key=f"batch {draw.below(2)}")
        if draw.chance(BRIEF_PPM):
            order.brief = True
            job = job._replace(retention_ms=BRIEF_MS)
        if draw.chance(AFTER_ANOTHER_PPM):
            job = job._replace(parent_id=self._before(draw, place), on=draw.choice(CONDITIONS))
        return job, order

    def _before(self, draw: Stream, place: int) -> str:
        """Another member, a batch that is there already, or nothing."""
        options = [f"#{draw.below(place)}"] if place else [""]
        return draw.choice([*options, *[f"batch#{batch_id}" for batch_id in self._made]])

    def _join(self, dice: int) -> None:
        """One more member; perhaps one that waits for another batch."""
        if not self._made:
            return
        draw = self._draw("join", dice)
        job, order = self._member(draw, 0)
        job = job._replace(batch_id=draw.choice(self._made))
        self._client.submit(
            c.EnqueueJobs((job,)),
            PATIENCE_MS,
            lambda value, error: self._client.on_enqueued((order,), value, error),
        )

    def _call_off(self, dice: int) -> None:
        if self._made:
            self._cancel(self._made[dice % len(self._made)], 0)

    def _cancel(self, batch_id: str, after: int) -> None:
        def on_answer(value: Any, error: QuorkerError | None) -> None:
            if error is None and value[1] is not None:
                self._cancel(batch_id, value[1])

        self._client.submit(c.CancelBatch(batch_id, after), PATIENCE_MS, on_answer)

    def _draw(self, way: str, dice: int) -> Stream:
        return Stream(self._seed, "asks in batches", way, self._client.id, dice)
