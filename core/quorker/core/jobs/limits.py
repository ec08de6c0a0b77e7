"""The limits of the store, and what counts against them. They are replicated state: every member decides alike.

A member's configured limits take effect through the log (`SetLimits`), because a decision that one member makes
differently makes it diverge. Sizes are estimates in bytes that depend on the records alone. Time is in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from quorker.core.jobs.bounds import DURATION_MAX, INT64_MAX

_SECOND: Final = 1000
_DAY: Final = 24 * 3600 * _SECOND


@dataclass(frozen=True, slots=True)
class Limits:
    """`reserve_percent`: collections may use so much of `max_state_bytes`, so that finishing work fits when new jobs
    do not. `timeout_grace_ms`: how long after its timeout a job's worker may take to report it. `piece`: how many
    records one maintenance command touches."""

    max_jobs: int = 1_000_000
    max_state_bytes: int = 3 * 2**29
    reserve_percent: int = 125
    max_lost_deliveries: int = 10
    history_max: int = 50
    succeeded_ttl_ms: int = _DAY
    deleted_ttl_ms: int = _DAY
    failed_ttl_ms: int = 7 * _DAY
    invisibility_ms: int = 300 * _SECOND
    timeout_grace_ms: int = 30 * _SECOND
    max_sessions: int = 10_000
    max_session_leases: int = 1024
    max_session_locks: int = 1024
    max_queues: int = 10_000
    max_locks: int = 100_000
    piece: int = 500
    max_recurring: int = 10_000
    max_batches: int = 100_000

    def values(self) -> tuple[int, ...]:
        """In the order of the fields: what `SetLimits` carries."""
        return tuple(getattr(self, each.name) for each in fields(self))

    @classmethod
    def from_values(cls, values: Sequence[int]) -> Limits:
        """Missing values are defaults. Raises ValueError when one is out of bounds, or not known here."""
        known = fields(cls)
        if len(values) > len(known):
            raise ValueError("more limits than this version knows")
        for each, value in zip(known, values, strict=False):
            low, high = _BOUNDS.get(each.name, (1, INT64_MAX))
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{each.name} must be from {low} to {high}")
        return cls(*values)


_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "reserve_percent": (100, 1000),
    "history_max": (1, 50),
    "succeeded_ttl_ms": (0, DURATION_MAX),
    "deleted_ttl_ms": (0, DURATION_MAX),
    "failed_ttl_ms": (0, DURATION_MAX),
    "invisibility_ms": (1, DURATION_MAX),
    "timeout_grace_ms": (0, DURATION_MAX),
    "max_queues": (1, 1_000_000),
    "max_session_leases": (1, 1024),
    "max_session_locks": (1, 1024),
    "piece": (1, 10_000),
}

DEFAULT_LIMITS: Final = Limits()
