"""`quorker tail`: changes of jobs as they happen.

The store numbers every change of state, and its index of each state is read from the last number that was seen: a look
costs what is new. Nothing is asked but the time of the log while the log stands still. What must not live here: how a job is shown.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from operator import itemgetter
from typing import Annotated, Any, Final

import trio
from cyclopts import Parameter

from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.job_listing import NOTHING_OLDER, Filters, Wanted, number_after, read_filters, read_page
from quorker.app.cli.job_rows import job_fields, row_call
from quorker.app.cli.output import Format, instant_text, print_json, print_note
from quorker.app.job_search import Row
from quorker.core.errors import InvalidInput
from quorker.core.jobs.lifecycle import STATES
from quorker.transport.connection import Connection

INTERVAL_MIN: Final = 1.0
INTERVAL_MAX: Final = 3600.0
STATE_CHARS: Final = max(map(len, STATES))

tail_program = client_program("tail")


@tail_program.default
def tail(
    *,
    which: Filters = Filters(),  # noqa: B008
    interval: Annotated[float, Parameter(help="Look every so many seconds, at least 1.")] = INTERVAL_MIN,
    count: Annotated[int | None, Parameter(help="End after so many lines.")] = None,
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Follow the jobs: a line for every change of state from now on, until Ctrl-C.

    A job that went through several states between two looks is shown in the last of them; `quorker job show` has its
    whole history. With -o json, as with jsonl, every line is a document.
    """
    wanted = read_filters(which)
    if not INTERVAL_MIN <= interval <= INTERVAL_MAX:  # not a number is neither
        raise InvalidInput(f"--interval {interval:g}: give {INTERVAL_MIN:g} to {INTERVAL_MAX:g} seconds")
    if count is not None and count < 1:
        raise InvalidInput(f"--count {count}: show at least one change")
    show = _printer(client.output, math.inf if count is None else count)
    with_connection(client, lambda connection: follow(connection, wanted, interval, show), extra_wait=ENDLESS)


def _printer(output: Format, left: float) -> Callable[[list[Row]], bool]:
    def show(rows: list[Row]) -> bool:
        nonlocal left
        for row in rows[: int(min(left, len(rows)))]:
            if output == "table":
                print(_line(row))
            else:
                print_json(job_fields(row), "jsonl")
        sys.stdout.flush()
        left -= len(rows)
        return left > 0

    return show


def _line(row: Row) -> str:
    reason = f"  ({row['reason']})" if row["reason"] else ""
    return f"{instant_text(row['state_wt'])}  {row['id']}  {row['state']:{STATE_CHARS}}  {row['queue']}  {row_call(row)}{reason}"


async def follow(
    connection: Connection, wanted: Wanted, interval: float, show: Callable[[list[Row]], bool]
) -> None:
    """Show what changes from now on, in the order of the changes, until `show` says that it is enough."""
    states = wanted.states or STATES
    seen = {state: await _newest(connection, state) for state in states}
    seen_index = 0
    print_note("following the jobs (Ctrl-C ends)")
    while True:
        index = (await connection.query("clock", {})).applied_index
        if index != seen_index:
            seen_index = index
            rows = [row for state in states for row in await _since(connection, state, seen)]
            if not show(sorted(filter(wanted.matches, rows), key=itemgetter("state_wt"))):
                return
        await trio.sleep(interval)


async def _newest(connection: Connection, state: str) -> int:
    """The number of the last change into a state."""
    page = await read_page(connection, "jobs_by_state", {"state": state}, None, 1)
    return NOTHING_OLDER if page["next"] is None else int(page["next"])


async def _since(connection: Connection, state: str, seen: dict[str, int]) -> list[Row]:
    """The jobs that came into a state since, and are in it still. Moves the number on."""
    found: list[Row] = []
    while True:
        page = await _page(connection, state, seen[state])
        found.extend(page["rows"])
        if page["next"] is None:
            seen[state] = await _last_of(connection, state, seen[state], page["rows"])
            return found
        seen[state] = page["next"]


async def _page(connection: Connection, state: str, after: int) -> dict[str, Any]:
    return await read_page(connection, "jobs_by_state", {"state": state}, after, newest_first=False)


async def _last_of(connection: Connection, state: str, after: int, rows: list[Row]) -> int:
    shown = {row["id"] for row in rows}
    last = await number_after(connection, "jobs_by_state", {"state": state}, after, shown, newest_first=False)
    return after if last is None else last
