"""The commands for recurring jobs, numbers 84 to 88: declare, remove, trigger, pause; and how the leader advances plans.

An entry is a template of a job with a schedule: a cron expression in a zone, or a fixed interval. Nobody but the leader
evaluates schedules, when it proposes: time zone data may differ between members. What it found travels as numbers in
`AdvanceRecurring`, and all members compare numbers only. What a command does must not live here.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from quorker.core.frozen import record
from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import checked, refuse
from quorker.core.jobs.new_job import NewJob, new_job_from_wire
from quorker.core.jobs.wire_form import declare, from_wire

RECURRING_HEADER: Final = "quorker-recurring"
"""On every job made from an entry: its id."""
SLOT_HEADER: Final = "quorker-slot"
"""On every job made for a slot: the slot's instant, in ms since the epoch."""

OWN_HEADERS: Final = (RECURRING_HEADER, SLOT_HEADER)
CRON_CHARS_MAX: Final = 200
EVERY_MIN_MS: Final = 10
STEPS_MAX: Final = 500
SLOTS_MAX: Final = 1000
"""Jobs that one command may make for slots."""

RECURRING_ID: Final = bounds.matching("recurring id", "[A-Za-z0-9_.:-]", 200)
ZONE: Final = bounds.matching("zone", "[A-Za-z0-9_+/-]", 64)
_INSTANT = bounds.INSTANT


def _every(value: Any) -> int:
    """0: the schedule is a cron expression."""
    if type(value) is int and value == 0:
        return value
    return bounds.whole("every", EVERY_MIN_MS, bounds.DURATION_MAX)(value)


def _template(value: Any) -> NewJob:
    """A job that is made anew for every slot: when it runs and what it waits for is not its own affair."""
    job = new_job_from_wire(value)
    if job.start is not None and job.start.by_wt:
        refuse("job", "a recurring job has no instant at which it is too late: say how long after its slot")
    if job.at_wt is not None or job.delay_ms or job.parent_id or job.batch_id:
        refuse(
            "job",
            "a recurring job has no at_wt, no delay, no parent and no batch: its schedule says when it runs",
        )
    if len(job.headers) > bounds.HEADERS_MAX - len(OWN_HEADERS):
        refuse("headers", f"a recurring job may have {bounds.HEADERS_MAX - len(OWN_HEADERS)} of its own")
    if any(name in OWN_HEADERS for name, _ in job.headers):
        refuse("headers", f"{' and '.join(OWN_HEADERS)} are set by the store")
    return job


class Step(NamedTuple):
    """How the plan of one entry goes on: `slots` are due and become jobs, `next_wt` is the next one after them.

    It counts only for the entry as the leader saw it: that `revision`, planned for `from_wt` (0: not planned yet).
    `error`: the schedule has no next instant, and why; `next_wt` is 0 then and the entry rests.
    """

    recurring_id: str
    revision: int
    from_wt: int
    slots: tuple[int, ...]
    next_wt: int
    error: str = ""


declare(
    Step,
    RECURRING_ID,
    bounds.TOKEN,
    _INSTANT,
    bounds.many("slots", _INSTANT, 0, SLOTS_MAX),
    _INSTANT,
    bounds.text("error", 0, bounds.REASON_CHARS_MAX),
)


def step_from_wire(value: Any) -> Step:
    """A `Step` out of its array. Raises `BadCommand`."""
    return from_wire(Step, bounds.array("step", value))


@record
class SetRecurring:
    """Declare an entry, or change it. Value: did it change. Exactly one of `cron` and `every_ms` is its schedule.

    The same again changes nothing (unless the entry rests after an error: then it is tried again). A change gives a new
    revision, which is planned from this moment; what has happened so far and a pause stay. `misfire`: what becomes of
    slots that pass while nobody can fire them: one job for all of them, one for each, or, of those older than
    `grace_ms`, none.
    """

    OP: ClassVar[int] = 84
    recurring_id: str = field(metadata=checked(RECURRING_ID))
    job: NewJob = field(metadata=checked(_template))
    cron: str = field(default="", metadata=checked(bounds.text("cron", 0, CRON_CHARS_MAX)))
    zone: str = field(default="UTC", metadata=checked(ZONE))
    every_ms: int = field(default=0, metadata=checked(_every))
    misfire: bounds.MISFIRE = field(default="once", metadata=checked(bounds.misfire))
    grace_ms: int = field(default=60_000, metadata=checked(bounds.DURATION))


@record
class RemoveRecurring:
    """Value: was it there. Jobs that it has made stay."""

    OP: ClassVar[int] = 85
    recurring_id: str = field(metadata=checked(RECURRING_ID))


@record
class TriggerRecurring:
    """Make its job now, whatever the plan and even while it is paused. Value: the job's id."""

    OP: ClassVar[int] = 86
    recurring_id: str = field(metadata=checked(RECURRING_ID))


@record
class PauseRecurring:
    """While paused no slot fires, and those that pass are skipped. Value: did it change."""

    OP: ClassVar[int] = 87
    recurring_id: str = field(metadata=checked(RECURRING_ID))
    paused: bool = field(metadata=checked(bounds.flag("paused")))
    reason: str = field(default="", metadata=checked(bounds.REASON))
    author: str = field(default="", metadata=checked(bounds.text("author", 0, bounds.NAME_CHARS_MAX)))


@record
class AdvanceRecurring:
    """What the leader found to be due. Value: (recurring id, slot, job id) of each slot that fired.

    A step that came second has no effect.
    """

    OP: ClassVar[int] = 88
    steps: tuple[Step, ...] = field(metadata=checked(bounds.many("steps", step_from_wire, 1, STEPS_MAX)))


RecurringCommand: TypeAlias = (
    SetRecurring | RemoveRecurring | TriggerRecurring | PauseRecurring | AdvanceRecurring
)
