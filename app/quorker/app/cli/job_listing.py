"""Which jobs: what is asked for, and the jobs that match, newest first and page by page out of the store's indexes.

A page begins where the one before it ended, by the store's own running number, so that jobs which come and go meanwhile
neither repeat nor hide others. What must not live here: printing, and what is done to the jobs.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter

from quorker.app.settings import checked_option
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.lifecycle import STATES
from quorker.transport.connection import Connection

PAGE_ROWS: Final = 500
NOTHING_OLDER: Final = 0
_PATTERN: Final = re.compile(r"[*?\[]")

Row = dict[str, Any]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which jobs. All that is given must hold."""

    state: Annotated[
        tuple[str, ...], Parameter(help="One of the states, e.g. failed; repeatable.", show_default=False)
    ] = ()
    task: Annotated[str | None, Parameter(help="Name of the task, or a pattern: 'send_*'.")] = None
    queue: Annotated[str | None, Parameter(help="Name of the queue.")] = None
    tag: Annotated[str | None, Parameter(help="One of the job's tags.")] = None

    @property
    def is_empty(self) -> bool:
        return not self.state and self.task is None and self.queue is None and self.tag is None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filters with their values checked."""

    states: tuple[str, ...]
    task: str | None
    queue: str | None
    tag: str | None

    def matches(self, row: Row) -> bool:
        if self.states and row["state"] not in self.states:
            return False
        if self.queue is not None and row["queue"] != self.queue:
            return False
        return self.task is None or fnmatch.fnmatchcase(row["task"], self.task)


def read_filters(given: Filters) -> Wanted:
    """Raises `InvalidInput` for what no job can have."""
    if given.queue is not None:
        checked_option("queue", given.queue, bounds.QUEUE)
    if given.tag is not None:
        checked_option("tag", given.tag, bounds.text("tag", 1, 64))
    if given.task is not None and _is_name(given.task):
        checked_option("task", given.task, bounds.TASK)
    return Wanted(read_states(given.state), given.task, given.queue, given.tag)


def read_states(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of states in any case. Raises `InvalidInput`."""
    known = {state.lower(): state for state in STATES}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise InvalidInput(f"no state {unknown[0]!r}: one of {', '.join(known)}")
    return tuple(known[name.lower()] for name in names)


def _is_name(task: str) -> bool:
    return _PATTERN.search(task) is None


class Listing:
    """The jobs that match, newest first: by their last change of state, or by creation where a tag or a task leads."""

    def __init__(self, connection: Connection, wanted: Wanted, after: str = "") -> None:
        known = _indexes(wanted)
        begun = _read_cursor(after, known)
        self._sources = [
            _Source(connection, wanted, name, query, args, begun.get(name))
            for name, (query, args) in known.items()
        ]

    async def next(self) -> Row | None:
        """The next job that matches; None when all have been seen."""
        source = await self._newest()
        return None if source is None else source.take()

    async def cursor(self) -> str:
        """Where the next page begins; "" when there is none."""
        if await self._newest() is None:
            return ""
        return ",".join([await source.position() for source in self._sources])

    async def _newest(self) -> _Source | None:
        for source in self._sources:
            await source.fill()
        ready = [source for source in self._sources if source.head is not None]
        return max(ready, key=_instant) if ready else None


def _instant(source: _Source) -> int:
    assert source.head is not None
    return int(source.head["state_wt"])


def _indexes(wanted: Wanted) -> Mapping[str, tuple[str, dict[str, Any]]]:
    """The reads that together hold every job that can match, by the name they have in a cursor."""
    if wanted.tag is not None:
        return {"tag": ("jobs_by_tag", {"tag": wanted.tag})}
    if wanted.task is not None and not wanted.states and _is_name(wanted.task):
        return {"task": ("jobs_by_task", {"task": wanted.task})}
    return {state: ("jobs_by_state", {"state": state}) for state in wanted.states or STATES}


def _read_cursor(text: str, known: Mapping[str, object]) -> dict[str, int]:
    """`Failed:77,Enqueued` as numbers; a name without one has not begun. Raises `InvalidInput`."""
    if not text:
        return {}
    parts = [part.partition(":") for part in text.split(",")]
    if {name for name, _, _ in parts} != set(known) or any(
        colon and not number.isdecimal() for _, colon, number in parts
    ):
        raise InvalidInput(
            f"--after {text!r} does not belong to this listing: repeat the filters of the listing that named it"
        )
    return {name: int(number) for name, colon, number in parts if colon}


class _Source:
    """One index, read page by page from its newest job."""

    def __init__(
        self,
        connection: Connection,
        wanted: Wanted,
        name: str,
        query: str,
        args: dict[str, Any],
        after: int | None,
    ) -> None:
        self.head: Row | None = None
        self._connection = connection
        self._wanted = wanted
        self._name = name
        self._query = query
        self._args = args
        self._after = after
        self._next: int | None = after
        self._page: list[Row] = []
        self._used = 0
        self._is_last = False

    async def fill(self) -> None:
        """Make the next job that matches the head; None when there is none."""
        while self.head is None:
            while self._used < len(self._page) and not self._wanted.matches(self._page[self._used]):
                self._used += 1
            if self._used < len(self._page):
                self.head = self._page[self._used]
            elif self._is_last:
                return
            else:
                await self._turn_page()

    async def _turn_page(self) -> None:
        self._after = self._next
        page = await read_page(self._connection, self._query, self._args, self._after)
        self._page, self._used, self._next = page["rows"], 0, page["next"]
        self._is_last = self._next is None

    def take(self) -> Row:
        assert self.head is not None
        row, self.head = self.head, None
        self._used += 1
        return row

    async def position(self) -> str:
        number = await self._number()
        return self._name if number is None else f"{self._name}:{number}"

    async def _number(self) -> int | None:
        if self._used == 0:
            return NOTHING_OLDER if self._is_last and not self._page else self._after
        if self._used == len(self._page):
            return NOTHING_OLDER if self._next is None else self._next
        used = {row["id"] for row in self._page[: self._used]}
        return await number_after(self._connection, self._query, self._args, self._after, used)


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
