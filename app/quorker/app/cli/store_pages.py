"""Reads of the store that answer in pages by rank, put together. Jobs have cursors of their own: `job_listing.py`."""

from __future__ import annotations

from typing import Any, Final

from quorker.transport.connection import Connection

ROWS: Final = 500


async def all_rows(connection: Connection, query: str, **args: Any) -> list[dict[str, Any]]:
    """Every row of a read that takes `start` and `count`. What comes or goes meanwhile may shift a row out of sight."""
    found: list[dict[str, Any]] = []
    while True:
        page = (await connection.query(query, {**args, "start": len(found), "count": ROWS})).value
        found.extend(page)
        if len(page) < ROWS:
            return found
