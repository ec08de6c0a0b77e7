"""`quorker cron ls|show|next|trigger`: look at recurring jobs and make a job of one now. What changes them stands in
`cron_change_commands.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from cyclopts import Parameter

from quorker.app.cli import cron_change_commands
from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.cron_rows import CRON_HEADS, cron_cells, cron_fields, cron_lines, slot_text
from quorker.app.cli.output import Fields, Format, duration_text, print_fields, print_json, print_rows
from quorker.app.connection_host import ConnectionHost
from quorker.app.errors import RecurringNotFound
from quorker.app.job_plans import Plan, carry_out
from quorker.app.recurring import checked_id, read_timing
from quorker.app.recurring_job import coming_slots
from quorker.app.schedule_plans import (
    Row,
    change_recurring,
    find_recurring,
    list_recurring,
    not_found,
    read_recurring,
)
from quorker.app.settings import checked_option
from quorker.core.errors import InvalidInput, QuorkerError
from quorker.core.jobs import bounds
from quorker.core.jobs.recurring_commands import TriggerRecurring
from quorker.transport.clock import wall_ms
from quorker.transport.connection import Connection

T = TypeVar("T")

NEXT_HEADS: Final = ("SLOT", "UTC", "IN")
NEXT_SLOTS: Final = 5
_COUNT: Final = bounds.whole("count", 1, 10_000)

cron_program = client_program("cron", "Look at recurring jobs, trigger, pause and remove them.")
cron_change_commands.add_to(cron_program)


@cron_program.command(name="ls")
def list_all(*, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """List the recurring jobs: when they fire, when next (in their zone), how often they did, and what they call."""
    rows = _ask(client, list_recurring())
    shown = rows if client.output == "table" else [cron_fields(row) for row in rows]
    print_rows(client.output, shown, CRON_HEADS, cron_cells)


@cron_program.command
def show(*ids: str, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """Show everything about recurring jobs."""
    _checked_ids(ids)

    async def act(connection: Connection) -> list[Row | None]:
        host = ConnectionHost(connection)
        return [await carry_out(find_recurring(each), host) for each in ids]

    found = with_connection(client, act, extra_wait=ENDLESS)
    _print_details([row for row in found if row is not None], len(ids), client.output)
    missing = [each for each, row in zip(ids, found, strict=True) if row is None]
    if missing:
        raise not_found(", ".join(missing))


def _print_details(rows: list[Row], asked: int, output: Format) -> None:
    """One that was asked for is one document, several are a list of them."""
    if output == "json" and asked > 1:
        print_json([cron_fields(row) for row in rows])
    elif output != "table":
        for row in rows:
            print_json(cron_fields(row), output)
    else:
        for number, row in enumerate(rows):
            print("\n" * (number > 0), end="")
            print_fields(cron_lines(row))


@cron_program.command(name="next")
def show_next(
    recurring_id: Annotated[str | None, Parameter(name="id")] = None,
    /,
    *,
    count: Annotated[int, Parameter(name=["--count", "-n"], help="How many.")] = NEXT_SLOTS,
    cron: Annotated[
        str | None, Parameter(help="In place of an id: an expression to try out; no cluster is asked.")
    ] = None,
    tz: Annotated[str | None, Parameter(help="The zone of --cron; default UTC.")] = None,
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Show when a recurring job fires next, in its zone with the offset of each slot, in UTC, and how long that is from now."""
    checked_option("--count", count, _COUNT)
    if (recurring_id is None) == (cron is None):
        raise InvalidInput("give the id of a recurring job, or --cron with an expression to try out")
    row = (
        _tried_out(cron, tz)
        if recurring_id is None
        else _ask(client, read_recurring(checked_id(recurring_id), {}))
    )
    if recurring_id is not None and tz is not None:
        raise InvalidInput("--tz is the zone of --cron; a recurring job has its own")
    now_wt = wall_ms()
    slots = coming_slots(row, count, now_wt)
    if not slots:
        raise QuorkerError(f"{recurring_id} does not fire: it {_why_not(row)}")
    print_rows(
        client.output,
        [_slot_fields(row, slot) for slot in slots],
        NEXT_HEADS,
        lambda each: _slot_cells(each, now_wt),
    )


def _tried_out(cron: str | None, tz: str | None) -> Row:
    timing = read_timing(cron, None, tz, "once", None)
    return {
        "id": None,
        "cron": timing.cron,
        "zone": timing.zone,
        "every_ms": 0,
        "next_wt": None,
        "paused": False,
        "error": "",
    }


def _why_not(row: Fields) -> str:
    return f"has an error: {row['error']}" if row["error"] else "is paused"


def _slot_fields(row: Fields, slot: datetime) -> dict[str, Any]:
    return {"id": row["id"], "slot": slot_text(slot), "slot_wt": round(slot.timestamp() * 1000)}


def _slot_cells(each: Fields, now_wt: int) -> Sequence[object]:
    at = datetime.fromtimestamp(each["slot_wt"] / 1000, UTC)
    return each["slot"], slot_text(at.replace(tzinfo=None)), duration_text(max(0, each["slot_wt"] - now_wt))


@cron_program.command
def trigger(*ids: str, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """Make a job of each now, also while it is paused; its slots stay as they are. Prints the ids of the jobs."""
    _checked_ids(ids)

    async def act(connection: Connection) -> list[dict[str, Any]]:
        host = ConnectionHost(connection)
        return [await _triggered(each, host) for each in ids]

    rows = with_connection(client, act, observer=False, extra_wait=ENDLESS)
    done = [row for row in rows if row["job_id"]]
    print_rows(client.output, done, ("RECURRING", "JOB"), lambda row: (row["id"], row["job_id"]))
    missing = [row["id"] for row in rows if not row["job_id"]]
    if missing:
        raise not_found(", ".join(missing))


async def _triggered(recurring_id: str, host: ConnectionHost) -> dict[str, Any]:
    try:
        job_id: str | None = await carry_out(change_recurring(TriggerRecurring(recurring_id), {}), host)
    except RecurringNotFound:
        job_id = None
    return {"id": recurring_id, "job_id": job_id}


def _checked_ids(ids: Sequence[str]) -> None:
    if not ids:
        raise InvalidInput("which recurring jobs? `quorker cron ls` lists them")
    for each in ids:
        checked_id(each)


def _ask(client: ClientOptions, plan: Plan[T]) -> T:
    async def act(connection: Connection) -> T:
        return await carry_out(plan, ConnectionHost(connection))

    return with_connection(client, act, extra_wait=ENDLESS)
