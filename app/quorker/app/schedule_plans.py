"""What calls on recurring jobs ask of the store, each as a plan that plain and async code carry out. What must not live
here: how an ask reaches the store, and what users see of a recurring job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from quorker.app.errors import RecurringNotFound
from quorker.app.gateway import Query, Submit
from quorker.app.job_plans import Plan, read_anywhere
from quorker.app.recurring import Declaration
from quorker.core.errors import Rejected
from quorker.core.jobs.recurring_commands import PauseRecurring, TriggerRecurring
from quorker.transport.connection import Consistency

Row: TypeAlias = dict[str, Any]
Change: TypeAlias = PauseRecurring | TriggerRecurring

PAGE_ROWS: Final = 500


def change_recurring(command: Change, declared: Mapping[str, Declaration]) -> Plan[Any]:
    """The value of the command. What the code of this process declares is made first if it is not there yet: the
    declarations of a member reach the store only when there is a leader."""
    try:
        return (yield Submit(command))
    except Rejected as refused:
        if refused.reason != "not_found":
            raise
    if command.recurring_id not in declared:
        raise not_found(command.recurring_id)
    yield Submit(declared[command.recurring_id].command)
    return (yield Submit(command))


def read_recurring(recurring_id: str, declared: Mapping[str, Declaration]) -> Plan[Row]:
    """One that is unknown here may be known elsewhere, or be declared in a moment."""
    row = yield from find_recurring(recurring_id)
    if row is None and recurring_id in declared:
        yield Submit(declared[recurring_id].command)
        row = yield from find_recurring(recurring_id)
    if row is None:
        raise not_found(recurring_id)
    return row


def find_recurring(recurring_id: str) -> Plan[Row | None]:
    """None when there is none in the whole cluster."""
    row: Row | None = yield from read_anywhere("recurring:get", {"id": recurring_id})
    return row


def list_recurring(consistency: Consistency = "local") -> Plan[list[Row]]:
    """All of them, by id."""
    rows: list[Row] = []
    while True:
        after = rows[-1]["id"] if rows else ""
        page: list[Row] = yield Query("recurring:list", {"after": after, "limit": PAGE_ROWS}, consistency)
        rows += page
        if len(page) < PAGE_ROWS:
            return rows


def not_found(recurring_id: str) -> RecurringNotFound:
    return RecurringNotFound(f"no recurring job {recurring_id} in this cluster: `quorker cron ls` lists them")
