"""A recurring job as users write it: when it fires, which call it makes, and the check of both before anything is sent.

What must not live here: when it fires next and whether it does (the store and its leader decide), and how calls reach the
store (`schedules.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from quorker.app.settings import MANAGED, Duration, Misfire, checked_option, milliseconds
from quorker.core.errors import InvalidInput
from quorker.core.jobs.commands import BadCommand, NewJob, decode, encode
from quorker.core.jobs.cron import check
from quorker.core.jobs.recurring_commands import EVERY_MIN_MS, RECURRING_ID, SetRecurring

MISFIRES: Final = ("once", "all", "skip")
GRACE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Timing:
    """When it fires, in the units of `SetRecurring`: by a cron expression in a zone, or every so many milliseconds."""

    cron: str
    zone: str
    every_ms: int
    misfire: Misfire
    grace_ms: int


class Declaration(NamedTuple):
    """A recurring job that stands in the code, and the function of its task."""

    command: SetRecurring
    function: Callable[..., Any]


def read_timing(
    cron: str | None, every: Duration | None, tz: str | None, misfire: Misfire, grace: Duration | None
) -> Timing:
    """Raises `InvalidInput` naming the expression, the field and what to do."""
    if misfire not in MISFIRES:
        raise InvalidInput(f"misfire={misfire!r}: write one of {', '.join(MISFIRES)}")
    if grace is not None and misfire != "skip":
        raise InvalidInput(
            f'grace={grace!r} has a meaning with misfire="skip" only: how late a slot may fire'
        )
    grace_ms = milliseconds(GRACE_SECONDS if grace is None else grace, "grace")
    if (cron is None) == (every is None):
        raise InvalidInput('give either a cron expression ("0 3 * * *") or every= (seconds or a timedelta)')
    if cron is not None:
        return Timing(*_checked_cron(cron, "UTC" if tz is None else tz), 0, misfire, grace_ms)
    assert every is not None
    if tz is not None:
        raise InvalidInput(f"tz={tz!r} belongs to a cron expression: every= counts elapsed time, in no zone")
    every_ms = milliseconds(every, "every")
    if every_ms < EVERY_MIN_MS:
        raise InvalidInput(f"every={every!r}: give at least {EVERY_MIN_MS / 1000} seconds")
    return Timing("", "UTC", every_ms, misfire, grace_ms)


def _checked_cron(cron: Any, tz: Any) -> tuple[str, str]:
    """The expression and its zone. Raises `InvalidInput` naming both, the field that is wrong, and what can stand there."""
    if not isinstance(cron, str) or not isinstance(tz, str):
        raise InvalidInput(f'cron={cron!r}, tz={tz!r}: write text, as in "0 3 * * *" and "Europe/Berlin"')
    check(cron, tz)
    return cron, tz


def definition(recurring_id: str, job: NewJob, timing: Timing) -> SetRecurring:
    """The command that makes it so. Raises `InvalidInput` for what the store would refuse."""
    if job.at_wt is not None or job.delay_ms or job.parent_id:
        raise InvalidInput(
            f"recurring job {recurring_id!r}: its calls are made when they are due, so the call cannot have delay=, at= "
            f"or after="
        )
    command = SetRecurring(
        recurring_id, job, timing.cron, timing.zone, timing.every_ms, timing.misfire, timing.grace_ms
    )
    try:
        decode(encode(command))
    except BadCommand as error:
        raise InvalidInput(f"recurring job {recurring_id!r}: {error.reason}") from None
    return command


def declaration(
    recurring_id: str, job: NewJob, timing: Timing, app: str, function: Callable[..., Any]
) -> Declaration:
    """One that stands in the code of this app, which is marked in a header. Raises `InvalidInput`."""
    marked = job._replace(headers=(*job.headers, (MANAGED, app)))
    return Declaration(definition(checked_id(recurring_id), marked, timing), function)


def checked_id(recurring_id: Any) -> str:
    """Raises `InvalidInput`."""
    return checked_option("recurring id", recurring_id, RECURRING_ID)
