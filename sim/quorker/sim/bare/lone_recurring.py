"""A lone store with one recurring job: how tests declare it and look at what it did. What must not live here: rules."""

from __future__ import annotations

from typing import Any, Final

from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.recurring_commands import SetRecurring
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

SECOND: Final = 1000
TICK: Final = NewJob("tick")


def every(ms: int = SECOND, **fields: Any) -> SetRecurring:
    return SetRecurring("r", fields.pop("job", TICK), every_ms=ms, **fields)


def declare(lone: LoneStore, command: SetRecurring) -> None:
    """Declared and planned."""
    assert lone.do(command) is True
    lone.maintain()


def row(lone: LoneStore, recurring_id: str = "r") -> dict[str, Any]:
    found: Any = lone.store.query("recurring:get", {"id": recurring_id})
    return dict(found)


def slots(lone: LoneStore, recurring_id: str = "r") -> list[int]:
    """Of the jobs there are, in order of creation, in ms after the beginning."""
    headers = [dict(job.spec.headers) for job in lone.store.jobs.values()]
    return [
        int(each["quorker-slot"]) - FIRST_WT
        for each in headers
        if each.get("quorker-recurring") == recurring_id and "quorker-slot" in each
    ]
