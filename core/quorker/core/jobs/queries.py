"""Every read of the job store, by name. Reads never change anything and answer from indexes, not by scanning jobs.

`run` is total: it returns what msgpack can pack, or raises `QueryError`. What each query returns is said where it is
defined: `queries_batches`, `queries_collections`, `queries_jobs`, `queries_monitoring`, `queries_recurring`,
`queries_search`.
"""

from __future__ import annotations

from typing import Any, Final

from quorker.core.jobs import (
    queries_batches,
    queries_collections,
    queries_jobs,
    queries_monitoring,
    queries_recurring,
    queries_search,
)
from quorker.core.jobs.queries_form import Query, QueryError, checked_arguments
from quorker.core.jobs.tables import Tables

__all__ = ["QUERIES", "QueryError", "check", "run"]

QUERIES: Final[dict[str, Query]] = {
    **queries_collections.QUERIES,
    **queries_jobs.QUERIES,
    **queries_monitoring.QUERIES,
    **queries_recurring.QUERIES,
    **queries_batches.QUERIES,
    **queries_search.QUERIES,
}


def run(tables: Tables, name: object, arguments: object) -> Any:
    """The value of a query. Raises `QueryError` for an unknown name or wrong arguments, and nothing else."""
    query = _query(name)
    return query.answer(tables, *checked_arguments(query, arguments))


def check(name: object, arguments: object) -> None:
    """Raises `QueryError` where `run` would for the arguments alone; saves asking."""
    checked_arguments(_query(name), arguments)


def _query(name: object) -> Query:
    query = QUERIES.get(name) if isinstance(name, str) else None
    if query is None:
        raise QueryError(f"query: {str(name)[:100]!r} is not known here")
    return query
