"""How a read of the store is declared: its arguments with their checks, and the function that answers it.

A query is total: for any tables and any arguments it returns what msgpack can pack, or raises `QueryError`. Queries
never change anything. What they read stands in `queries_collections`, `queries_jobs` and `queries_monitoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import BadCommand, Check

PAGE_ROWS_MAX: Final = 10_000
"""The longest page; whoever wants more asks again."""


class QueryError(InvalidInput):
    """The query is not known, or an argument is out of its bounds. `reason` says which and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Argument(NamedTuple):
    """One named argument; `default` is used when it is left out, unless it is REQUIRED."""

    check: Check[Any]
    default: Any


REQUIRED: Final = object()
Answerer: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Query:
    """`answer(tables, *arguments)`, the arguments in the order of their declaration."""

    answer: Answerer
    arguments: Mapping[str, Argument] = field(default_factory=dict[str, Argument])


def need(check: Check[Any]) -> Argument:
    return Argument(check, REQUIRED)


def maybe(check: Check[Any], default: Any) -> Argument:
    return Argument(check, default)


def checked_arguments(query: Query, given: Any) -> list[Any]:
    """The arguments in order, out of a dict of any content. Raises `QueryError`."""
    if not _is_dict(given):
        raise QueryError("arguments: must be a mapping of names to values")
    unknown = [name for name in given if name not in query.arguments]
    if unknown:
        raise QueryError(f"arguments: {str(unknown[0])[:100]!r} is not known here")
    return [_checked(name, argument, given) for name, argument in query.arguments.items()]


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _checked(name: str, argument: Argument, given: Mapping[Any, Any]) -> Any:
    if name not in given:
        if argument.default is REQUIRED:
            raise QueryError(f"{name}: is missing")
        return argument.default
    try:
        return argument.check(given[name])
    except BadCommand as error:
        raise QueryError(error.reason) from None


KEY: Final = need(bounds.KEY)
VALUE: Final = need(bounds.MEMBER)
JOB_ID: Final = need(bounds.text("job id", 1, 64))
QUEUE: Final = need(bounds.text("queue name", 1, bounds.QUEUE_CHARS_MAX))
RANK: Final = need(bounds.whole("rank", -(2**63), bounds.INT64_MAX))
SCORE: Final = need(bounds.real("score"))
NAME: Final = need(bounds.NAME)
TOKEN: Final = need(bounds.TOKEN)
START: Final = maybe(bounds.whole("start", 0, 2**62), 0)
COUNT: Final = maybe(bounds.whole("count", 0, bounds.INT64_MAX), 20)
NEWEST_FIRST: Final = maybe(bounds.flag("newest_first"), True)
CURSOR: Final = maybe(bounds.maybe(bounds.whole("after", 0, bounds.INT64_MAX)), None)


def page_end(start: int, count: int) -> int:
    """Where a page ends (exclusive). Python's numbers do not overflow, so any start and count will do."""
    return start + min(count, PAGE_ROWS_MAX)
