"""Jobs that a simulated client asks for under limits: a few keys that all clients share, and jobs that must not be late.

Each key has its own rules, which the seed of the run decides; one has jobs that all want something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from quorker.core.errors import QuorkerError
from quorker.core.jobs.commands import Command, EnqueueJobs
from quorker.core.jobs.new_job import NewJob, StartRules
from quorker.sim.oracles.job_checks import Order
from quorker.sim.world.randomness import Stream

PATIENCE_MS: Final = 600
KEYS: Final = ("mutex", "pool", "rate", "both", "mixed", "")


class Asking(Protocol):
    """The client: what it knows, and how it asks."""

    id: int
    known_jobs: list[str]

    def wall_ms(self) -> int: ...

    def new_job(self, dice: int) -> tuple[NewJob, Order]: ...

    def submit(
        self, command: Command, patience_ms: int, resolve: Callable[[Any, QuorkerError | None], None] | None
    ) -> None: ...

    def on_enqueued(self, orders: Sequence[Order], value: Any, error: QuorkerError | None) -> None: ...


class LimitedAsks:
    """One client's wishes of this kind."""

    def __init__(self, client: Asking, seed: int) -> None:
        self._client = client
        self._seed = seed

    def ask(self, dice: int) -> None:
        """One to three jobs under limits, in one command."""
        draw = Stream(self._seed, "asks, limited", self._client.id, dice)
        made = [self._limited(draw) for _ in range(draw.between(1, 3))]
        jobs, orders = tuple(job for job, _ in made), [order for _, order in made]
        self._client.submit(
            EnqueueJobs(jobs),
            PATIENCE_MS,
            lambda value, error: self._client.on_enqueued(orders, value, error),
        )

    def _limited(self, draw: Stream) -> tuple[NewJob, Order]:
        job, order = self._client.new_job(draw.below(1 << 16) | 1)
        key = draw.choice(KEYS)
        within_ms, by_wt = 0, 0
        if not key or draw.chance(250_000):
            within_ms = draw.between(1, 800)
            by_wt = max(0, self._client.wall_ms() + draw.between(-50, 800)) if draw.chance(300_000) else 0
        rules = self._rules(draw, key)._replace(within_ms=within_ms, by_wt=by_wt)
        if self._client.known_jobs and draw.chance(150_000):
            job = job._replace(parent_id=draw.choice(self._client.known_jobs[-4:]), on="any")
        return job._replace(start=rules), order

    def _rules(self, draw: Stream, key: str) -> StartRules:
        """Those of the key; of the mixed one anything at all."""
        if key != "mixed":
            draw = Stream(self._seed, "rules of a key", key)
        limit, rate, rate_ms = draw.between(2, 3), draw.between(1, 5), draw.between(20, 150)
        burst = draw.between(1, 3)
        match key:
            case "mutex":
                return StartRules(key, 1)
            case "pool":
                return StartRules(key, limit)
            case "rate":
                return StartRules(key, 0, rate, rate_ms, burst)
            case "both":
                return StartRules(key, limit, rate, rate_ms, burst)
            case "mixed":
                return draw.choice((StartRules(key, limit - 1), StartRules(key, 0, rate, rate_ms, burst)))
            case _:
                return StartRules()
