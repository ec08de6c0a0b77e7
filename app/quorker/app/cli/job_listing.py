"""Which jobs: what is asked for on the command line, and the jobs that match, newest first and page by page.

A page begins where the one before it ended, by the store's own running number, so that jobs which come and go meanwhile
neither repeat nor hide others. What must not live here: printing, and what is done to the jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter

from quorker.app.cli.line_values import argument, seconds
from quorker.app.connection_host import ConnectionHost
from quorker.app.job_plans import carry_out
from quorker.app.job_search import TASK_PATTERN, Condition, JobSearch, Row, condition, search_page
from quorker.app.settings import checked_option
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.lifecycle import STATES
from quorker.core.jobs.queries_search import is_like
from quorker.transport.connection import Connection

PAGE_ROWS: Final = 500
NOTHING_OLDER: Final = 0


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which jobs. All that is given must hold."""

    state: Annotated[
        tuple[str, ...], Parameter(help="One of the states, e.g. failed; repeatable.", show_default=False)
    ] = ()
    task: Annotated[str | None, Parameter(help="Name of the task, or a pattern: 'send_*'.")] = None
    queue: Annotated[str | None, Parameter(help="Name of the queue.")] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFilters(Filters):
    """Which jobs, by more than what a change of state shows."""

    tag: Annotated[str | None, Parameter(help="One of the job's tags.")] = None
    error: Annotated[
        str | None, Parameter(help="Part of the type or message of its last failure, in any case.")
    ] = None
    where: Annotated[
        tuple[str, ...],
        Parameter(
            help="An argument and its value: user_id=42, 'args[0]=42', order.lines[0].sku=x1; repeatable.",
            show_default=False,
        ),
    ] = ()
    since: Annotated[str | None, Parameter(help="Enqueued at most so long ago: 90s, 10m, 2h, 1d.")] = None
    changed_since: Annotated[
        str | None, Parameter(help="In its present state for at most so long: 90s, 10m, 2h, 1d.")
    ] = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filters of changes with their values checked."""

    states: tuple[str, ...]
    task: str | None
    queue: str | None

    def matches(self, row: Row) -> bool:
        if self.states and row["state"] not in self.states:
            return False
        if self.queue is not None and row["queue"] != self.queue:
            return False
        return self.task is None or is_like(row["task"], self.task)


def read_filters(given: Filters) -> Wanted:
    """Raises `InvalidInput` for what no job can have."""
    if given.queue is not None:
        checked_option("queue", given.queue, bounds.QUEUE)
    if given.task is not None:
        checked_option("task", given.task, TASK_PATTERN)
    return Wanted(read_states(given.state), given.task, given.queue)


def read_search(given: SearchFilters, now_wt: int) -> JobSearch:
    """`now_wt`: the wall time, ms. Raises `InvalidInput` for what no job can have."""
    checked = read_filters(given)
    if given.tag is not None:
        checked_option("tag", given.tag, bounds.text("tag", 1, 64))
    if given.error is not None:
        checked_option("error", given.error, bounds.NAME)
    return JobSearch(
        states=checked.states,
        task=checked.task or "",
        queue=checked.queue or "",
        tag=given.tag or "",
        error=given.error or "",
        where=tuple(map(_condition, given.where)),
        created_from=_ago(given.since, now_wt),
        changed_from=_ago(given.changed_since, now_wt),
    )


def _condition(text: str) -> Condition:
    path, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"--where {text!r}: write NAME=VALUE, for instance user_id=42 or 'args[0]=42'")
    return condition(path, argument(value))


def _ago(text: str | None, now_wt: int) -> int | None:
    return None if text is None else max(0, now_wt - round(1000 * seconds(text)))


def read_states(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of states in any case. Raises `InvalidInput`."""
    known = {state.lower(): state for state in STATES}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise InvalidInput(f"no state {unknown[0]!r}: one of {', '.join(known)}")
    return tuple(known[name.lower()] for name in names)


class Listing:
    """The jobs that match, newest first: by their last change of state, or by creation where a tag or a task leads."""

    def __init__(self, connection: Connection, wanted: JobSearch, after: str = "") -> None:
        self._host = ConnectionHost(connection)
        self._wanted = wanted
        self._after = after

    async def page(self, count: int) -> tuple[list[Row], str]:
        """The next `count` jobs, and the `after` of the page behind them: "" when they are the last."""
        rows, self._after = await carry_out(search_page(self._wanted, count, self._after), self._host)
        return rows, self._after

    async def all(self) -> list[Row]:
        found: list[Row] = []
        while True:
            rows, following = await self.page(PAGE_ROWS)
            found += rows
            if not following:
                return found


async def read_page(
    connection: Connection,
    query: str,
    args: Mapping[str, Any],
    after: int | None,
    count: int | None = None,
    *,
    newest_first: bool = True,
) -> dict[str, Any]:
    """{rows, next, total} of a page; `next` only if it is full."""
    asked = {
        **args,
        "count": PAGE_ROWS if count is None else count,
        "after": after,
        "newest_first": newest_first,
    }
    page: dict[str, Any] = (await connection.query(query, asked)).value
    return page


async def number_after(
    connection: Connection,
    query: str,
    args: Mapping[str, Any],
    after: int | None,
    shown: Collection[str],
    *,
    newest_first: bool = True,
) -> int | None:
    """The number of the last of the shown jobs, which stood behind `after`. Only a full page tells the number of its last
    job: ask for exactly so many, and for fewer should some have left meanwhile."""
    count = len(shown)
    while count:
        page = await read_page(connection, query, args, after, count, newest_first=newest_first)
        rows = page["rows"]
        still = next((place for place, row in enumerate(rows) if row["id"] not in shown), len(rows))
        if page["next"] is not None and still == count:
            return int(page["next"])
        count = still
    return after
