"""What a simulated client asks for of recurring jobs: it declares, edits, pauses, resumes, triggers and removes two of them.

All clients mean the same two, as processes do that declare what is due when they start. What must come of it is for the
oracles to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from quorker.core.errors import QuorkerError
from quorker.core.jobs import commands as c
from quorker.core.jobs.bounds import MISFIRE
from quorker.core.jobs.commands import Command
from quorker.sim.cases.case import Case, FaultKind, OpKind

PATIENCE_MS: Final = 600
NAMES: Final = ("tick", "tock")
ACTS: Final = ("every", "cron", "pause", "resume", "trigger", "remove")
MISFIRES: Final[tuple[MISFIRE, ...]] = ("once", "all", "skip")
INTERVALS_MS: Final = tuple(range(20, 340, 20))
GRACES_MS: Final = (0, 50, 200, 1_000)
CRONS: Final = ("* * * * * *", "*/2 * * * * *")
BAD_CRON: Final = "61 * * * *"
RETRIES: Final = c.RetryPolicy(attempts=2, delays_ms=(20, 40))
CAUGHT_UP_MAX: Final = (
    100  # so many slots are missed by the clocks of a case at most, where each is made up for
)
_JUMPS: Final = (
    FaultKind.WALL_JUMP,
    FaultKind.WALL_STEP,
    FaultKind.WALL_STROBE,
    FaultKind.CLIENT_WALL_JUMP,
)


class Asking(Protocol):
    """The client and its session."""

    def submit(
        self, command: Command, patience_ms: int, resolve: Callable[[Any, QuorkerError | None], None] | None
    ) -> None: ...


class RecurringAsks:
    """One client's wishes about recurring jobs."""

    def __init__(self, client: Asking, case: Case) -> None:
        self._client = client
        self._least_ms = spread_ms(case) // CAUGHT_UP_MAX

    def ways(self) -> dict[OpKind, Callable[[int], object]]:
        return {OpKind.RECUR: self._recur}

    def _recur(self, dice: int) -> None:
        self._client.submit(self._command(dice), PATIENCE_MS, None)

    def _command(self, dice: int) -> Command:
        name, act = NAMES[dice & 1], dice >> 1 & 7
        match ACTS[act] if act < len(ACTS) else "every":
            case "pause" | "resume" as word:
                return c.PauseRecurring(name, word == "pause", "maintenance", "somebody")
            case "trigger":
                return c.TriggerRecurring(name)
            case "remove":
                return c.RemoveRecurring(name)
            case word:
                return self._declare(name, dice, by_cron=word == "cron")

    def _declare(self, name: str, dice: int, *, by_cron: bool) -> Command:
        misfire = MISFIRES[(dice >> 4 & 3) % len(MISFIRES)]
        nth, grace_ms = dice >> 6 & 15, GRACES_MS[dice >> 10 & 3]
        least_ms = self._least_ms if misfire == "all" else 0
        unique_key = "recurring" if dice >> 13 & 7 == 7 else ""
        queue = "other" if dice >> 12 & 1 else "default"
        job = c.NewJob(name, queue=queue, retry=RETRIES, unique_key=unique_key)
        if by_cron and least_ms <= 1_000:
            cron = BAD_CRON if nth == len(INTERVALS_MS) - 1 else CRONS[nth & 1]
            return c.SetRecurring(name, job, cron, "UTC", 0, misfire, grace_ms)
        return c.SetRecurring(name, job, "", "UTC", max(INTERVALS_MS[nth], least_ms), misfire, grace_ms)


def spread_ms(case: Case) -> int:
    """How far apart the wall clocks of a case come, at most: so much time may pass at once."""
    offsets = [0, *(clock.wall_offset_ms for clock in case.clocks)]
    jumps = sum(abs(fault.amount) for fault in case.plan if fault.kind in _JUMPS)
    return max(offsets) - min(offsets) + jumps
