"""`quorker server ls` and `quorker lock ls`: who works, and who holds what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter

from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.output import Fields, duration_text, instant_text, print_rows
from quorker.app.cli.store_pages import all_rows
from quorker.transport.connection import Connection

SERVER_HEADS: Final = ("SERVER", "SESSION", "QUEUES", "SLOTS", "BUSY", "LOCKS", "SINCE (UTC)", "LAST HEARD")
LOCK_HEADS: Final = ("LOCK", "HOLDER", "TOKEN", "SINCE (UTC)", "ENDS", "WAITING")

server_program = client_program("server", "Look at the processes that work.")
lock_program = client_program("lock", "Look at the locks that are held.")


@server_program.command(name="ls")
def list_servers(
    *,
    all: Annotated[  # noqa: A002  # the name of the option
        bool, Parameter(negative=(), help="Also processes that take no jobs: they enqueue, or hold locks.")
    ] = False,
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """List the processes that take jobs: from which queues, how many at a time, how many now."""
    found = with_connection(client, _servers, extra_wait=ENDLESS)
    print_rows(client.output, [row for row in found if all or row["slots"]], SERVER_HEADS, _server_cells)


async def _servers(connection: Connection) -> list[dict[str, Any]]:
    """Sessions, and servers that announced themselves without one (`session` is null), in one form."""
    sessions = await all_rows(connection, "sessions")
    announced = (await connection.query("servers", {})).value
    now_lt = (await connection.query("clock", {})).value["lt"]
    return [_of_session(row) for row in sessions] + [_of_announced(row, now_lt) for row in announced]


def _of_session(row: Fields) -> dict[str, Any]:
    return {
        "name": row["name"],
        "session": row["id"],
        "queues": row["queues"],
        "slots": row["slots"],
        "busy": row["leases"],
        "locks": row["locks"],
        "since_wt": row["opened_wt"],
        "heard_ms_ago": max(0, row["ttl_ms"] - row["expires_in_ms"]),
    }


def _of_announced(row: Fields, now_lt: int) -> dict[str, Any]:
    return {
        "name": row["server_id"],
        "session": None,
        "queues": row["queues"],
        "slots": row["worker_count"],
        "busy": None,
        "locks": None,
        "since_wt": row["started_wt"],
        "heard_ms_ago": max(0, now_lt - row["heartbeat_lt"]),
    }


def _server_cells(row: Fields) -> Sequence[object]:
    return (
        row["name"],
        "" if row["session"] is None else row["session"],
        ", ".join(row["queues"]),
        row["slots"],
        "" if row["busy"] is None else row["busy"],
        "" if row["locks"] is None else row["locks"],
        instant_text(row["since_wt"]),
        f"{duration_text(row['heard_ms_ago'])} ago",
    )


@lock_program.command(name="ls")
def list_locks(*, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """List the locks that are held: by whom, under which token, until when, and how many wait."""
    found = with_connection(client, _locks, extra_wait=ENDLESS)
    print_rows(client.output, found, LOCK_HEADS, _lock_cells)


async def _locks(connection: Connection) -> list[dict[str, Any]]:
    return await all_rows(connection, "locks")


def _lock_cells(row: Fields) -> Sequence[object]:
    ends = row["expires_in_ms"]
    return (
        row["resource"],
        row["worker"] or row["owner"] or row["session"],
        row["token"],
        instant_text(row["granted_wt"]),
        "with its session" if ends is None else f"in {duration_text(max(0, ends))}",
        row["waiting"],
    )
