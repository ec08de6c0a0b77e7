"""How recurring jobs are shown: the columns of a table, the lines of one, and their fields in JSON. What must not live here:
how they are found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cronsim import CronSim, CronSimError

from quorker.app.cli.job_rows import row_call
from quorker.app.cli.output import Fields, call_text
from quorker.app.payload import call_values
from quorker.app.recurring_job import managing_app, zone_of

CRON_HEADS: Final = ("RECURRING", "WHEN", "NEXT", "FIRED", "STATE", "CALL")
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms"))


def cron_cells(row: Fields) -> Sequence[object]:
    """One line of a listing."""
    return (
        row["id"],
        when_text(row),
        zoned_text(row, "next_wt"),
        row["fired"],
        _state(row),
        row_call(row),
    )


def _state(row: Fields) -> str:
    if row["error"]:
        return "error"
    return "paused" if row["paused"] else "active"


def when_text(row: Fields) -> str:
    """`0 3 * * * Europe/Berlin`, or `every 90 s`."""
    if row["cron"]:
        return f"{row['cron']} {row['zone']}"
    size, unit = next((size, unit) for size, unit in _UNITS if row["every_ms"] % size == 0)
    return f"every {row['every_ms'] // size} {unit}"


def _in_words(row: Fields) -> str:
    """What a cron expression means; "" for one that cannot be said, as a macro or an interval."""
    try:
        return CronSim(row["cron"], datetime.now(UTC)).explain()
    except CronSimError:
        return ""


def zoned_text(row: Fields, name: str) -> str:
    """An instant to the second with the offset of its schedule's zone; "" for none."""
    return (
        datetime.fromtimestamp(row[name] / 1000, zone_of(row)).isoformat(" ", "seconds") if row[name] else ""
    )


def slot_text(slot: datetime) -> str:
    """To the second, or finer where it is no whole one: 2026-11-26 03:00:00+01:00."""
    return slot.isoformat(" ", "milliseconds" if slot.microsecond else "seconds")


def cron_lines(row: Fields) -> list[tuple[str, str]]:
    """Everything about one, a name and a value a line."""
    misfire = row["misfire"] + (f", at most {row['grace_ms']} ms late" if row["misfire"] == "skip" else "")
    manager = managing_app(row)
    lines = [
        ("recurring", row["id"]),
        ("call", call_text(row["task"], row["args"])),
        ("when", when_text(row)),
        ("in words", _in_words(row)),
        ("misfire", misfire),
        ("queue", f"{row['queue']}, priority {row['priority']}"),
        ("unique", row["unique_key"]),
        ("tags", ", ".join(row["tags"])),
        ("managed by", f"the code of app {manager}" if manager else ""),
        ("state", _state_text(row)),
        ("created", zoned_text(row, "created_wt")),
        ("next", zoned_text(row, "next_wt")),
        ("last slot", zoned_text(row, "last_slot_wt")),
        ("last fired", zoned_text(row, "last_fired_wt")),
        ("last job", row["last_job_id"]),
        ("fired", f"{row['fired']} times" if row["fired"] != 1 else "once"),
    ]
    return [(name, value) for name, value in lines if value]


def _state_text(row: Fields) -> str:
    if row["error"]:
        return f"error: {row['error']}; it rests until it is set again"
    if not row["paused"]:
        return "active"
    by = f" by {row['author']}" if row["author"] else ""
    return f"paused since {zoned_text(row, 'paused_wt')}{by}" + (
        f": {row['reason']}" if row["reason"] else ""
    )


def cron_fields(row: Fields) -> dict[str, Any]:
    """For programs: the arguments as values, both null where the row was cut or what the store holds is no call."""
    args, kwargs = call_values(row)
    return {**row, "args": args, "kwargs": kwargs, "managed_by": managing_app(row)}
