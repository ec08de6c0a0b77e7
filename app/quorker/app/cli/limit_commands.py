"""`quorker limit ls`: which keys limit jobs, who runs and who waits under them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.output import Fields, duration_text, print_rows
from quorker.app.cli.store_pages import all_rows
from quorker.transport.connection import Connection

HEADS: Final = ("KEY", "RUNNING", "WAITING", "NEXT START")

limit_program = client_program("limit", "Look at the keys under which jobs are limited.")


@limit_program.command(name="ls")
def list_limits(*, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """List the keys that are in use: how many jobs run, how many wait, and when a rate allows the next start.

    "now" says that no rate stands in the way; those that wait may still wait for one that runs.
    """
    found = with_connection(client, _limits, extra_wait=ENDLESS)
    print_rows(client.output, found, HEADS, _cells)


async def _limits(connection: Connection) -> list[dict[str, Any]]:
    rows = await all_rows(connection, "limits")
    now_lt = (await connection.query("clock", {})).value["lt"]
    return [
        {
            "key": row["key"],
            "running": row["holders"],
            "waiting": row["waiting"],
            "next_start_in_ms": max(0, row["next_lt"] - now_lt) if row["next_lt"] else 0,
        }
        for row in rows
    ]


def _cells(row: Fields) -> Sequence[object]:
    wait = row["next_start_in_ms"]
    return row["key"], row["running"], row["waiting"], f"in {duration_text(wait)}" if wait else "now"
