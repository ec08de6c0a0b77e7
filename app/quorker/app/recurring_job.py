"""A recurring job as the store knows it: its definition, what it did so far, and when it fires next. What must not live
here: how it is read or changed (`schedules.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from quorker.app.job_facts import instant
from quorker.app.payload import call_values
from quorker.app.settings import MANAGED, Misfire
from quorker.core.frozen import record
from quorker.core.jobs import bounds
from quorker.core.jobs.cron import BadSchedule, slots
from quorker.core.jobs.cron import zone_of as known_zone


@record
class RecurringJob:
    """A recurring job as of one moment. Instants have a time zone: that of the cron expression.

    Either `cron` (in the zone `tz`) or `every` says when. `next_slot`: the next slot, None while it is paused, before its
    first plan is made, and when `error` says why there is none. `last_slot`: the last one that made a job, `last_fired`
    when it did, `last_job` the id of that job; the latter two tell of triggers by hand as well, which have no slot.
    `args` and `kwargs` are None in a list where they are longer than 1 KiB, and when what the store holds is no call.
    `managed_by`: the app whose code declares it, or "".
    """

    id: str
    cron: str
    tz: str
    every: timedelta | None
    misfire: Misfire
    grace: timedelta
    task: str
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    queue: str
    priority: int
    created: datetime
    next_slot: datetime | None
    last_slot: datetime | None
    last_fired: datetime | None
    last_job: str | None
    fired: int
    is_paused: bool
    paused_at: datetime | None
    reason: str
    author: str
    error: str
    managed_by: str


def recurring_job(row: Mapping[str, Any]) -> RecurringJob:
    """Out of a row of the store."""
    zone = zone_of(row)
    args, kwargs = call_values(row)
    return RecurringJob(
        id=row["id"],
        cron=row["cron"],
        tz=row["zone"],
        every=timedelta(milliseconds=row["every_ms"]) if row["every_ms"] else None,
        misfire=row["misfire"],
        grace=timedelta(milliseconds=row["grace_ms"]),
        task=row["task"],
        args=args,
        kwargs=kwargs,
        queue=row["queue"],
        priority=row["priority"],
        created=datetime.fromtimestamp(row["created_wt"] / 1000, zone),
        next_slot=instant(row["next_wt"], zone),
        last_slot=instant(row["last_slot_wt"], zone),
        last_fired=instant(row["last_fired_wt"], zone),
        last_job=row["last_job_id"] or None,
        fired=row["fired"],
        is_paused=row["paused"],
        paused_at=instant(row["paused_wt"], zone),
        reason=row["reason"],
        author=row["author"],
        error=row["error"],
        managed_by=managing_app(row),
    )


def coming_slots(row: Mapping[str, Any], count: int, now_wt: int) -> list[datetime]:
    """The next slots in the zone of the expression; none while it is paused or has an error. One that the leader has not
    planned yet will be planned from now."""
    if row["paused"] or row["error"]:
        return []
    zone = zone_of(row)
    planned: int | None = row["next_wt"]
    if row["every_ms"]:
        found = _intervals(planned or _first_interval(row, now_wt), row["every_ms"], count)
    elif planned is None:
        found = slots(row["cron"], row["zone"], now_wt, bounds.INSTANT_MAX, count)
    else:
        found = [planned, *slots(row["cron"], row["zone"], planned, bounds.INSTANT_MAX, count - 1)]
    return [datetime.fromtimestamp(slot / 1000, zone) for slot in found]


def _first_interval(row: Mapping[str, Any], now_wt: int) -> int:
    anchor, every = row["anchor_wt"], row["every_ms"]
    first: int = anchor + (max(0, now_wt - anchor) // every + 1) * every
    return first


def _intervals(first: int, every_ms: int, count: int) -> list[int]:
    return [first + number * every_ms for number in range(count)]


def managing_app(row: Mapping[str, Any]) -> str:
    """The app whose code declares it; "" for one that was made at run time."""
    return str(row["headers"].get(MANAGED, ""))


def zone_of(row: Mapping[str, Any]) -> tzinfo:
    """UTC where this machine, unlike the one that made it, does not know the zone."""
    try:
        return known_zone(row["zone"])
    except BadSchedule:
        return UTC
