"""`quorker queue ls|pause|resume`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter

from quorker.app.authors import author_or_default
from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.output import Fields, instant_text, print_rows
from quorker.app.cli.store_pages import all_rows
from quorker.app.settings import checked_option
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.commands import SetQueuePaused
from quorker.transport.connection import Connection

HEADS: Final = ("QUEUE", "WAITING", "RUNNING", "PAUSED", "SINCE (UTC)", "BY", "REASON")

queue_program = client_program("queue", "Look at queues, pause and resume them.")


@queue_program.command(name="ls")
def list_queues(*, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """List the queues that are known: what waits, what runs, what is paused, by whom and why."""
    found = with_connection(client, _queues, extra_wait=ENDLESS)
    print_rows(client.output, found, HEADS, _cells)


async def _queues(connection: Connection) -> list[dict[str, Any]]:
    rows = await all_rows(connection, "queues", first=0)
    return [{name: value for name, value in row.items() if name != "first"} for row in rows]


def _cells(row: Fields) -> Sequence[object]:
    return (
        row["name"],
        row["length"],
        row["fetched"],
        "yes" if row["paused"] else "no",
        instant_text(row["paused_wt"]),
        row["author"],
        row["reason"],
    )


@queue_program.command
def pause(
    *queues: str,
    reason: Annotated[str, Parameter(help="Why; shown to whoever looks.")] = "",
    author: Annotated[str | None, Parameter(help="Who; default USER@HOST.")] = None,
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Take nothing more from QUEUES until they are resumed; running jobs go on, new ones wait.

    Of a queue that is paused already, reason and author are replaced.
    """
    by = author_or_default(author)
    checked_option("reason", reason, bounds.REASON)
    _set(queues, [SetQueuePaused(name, True, reason, by) for name in queues], client)


@queue_program.command
def resume(*queues: str, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """Let jobs be taken from QUEUES again."""
    _set(queues, [SetQueuePaused(name, False) for name in queues], client)


def _set(queues: tuple[str, ...], commands: list[SetQueuePaused], client: ClientOptions) -> None:
    if not queues:
        raise InvalidInput("which queues? `quorker queue ls` lists them")
    for name in queues:
        checked_option("queue", name, bounds.QUEUE)

    async def act(connection: Connection) -> list[dict[str, Any]]:
        known = {row["name"] for row in await _queues(connection)}
        return [await _set_one(connection, command, known) for command in commands]

    rows = with_connection(client, act, observer=False, extra_wait=ENDLESS)
    if client.output == "table":
        for row in rows:
            print(f"{row['name']}  {_outcome_text(row)}")
    else:
        print_rows(client.output, rows, HEADS, _cells)


async def _set_one(connection: Connection, command: SetQueuePaused, known: set[str]) -> dict[str, Any]:
    changed = bool(await connection.submit(command))
    return {
        "name": command.queue,
        "paused": command.paused,
        "changed": changed,
        "was_known": command.queue in known,
    }


def _outcome_text(row: Fields) -> str:
    done = "paused" if row["paused"] else "resumed"
    if not row["was_known"]:
        return (
            f"{done if row['changed'] else 'was not paused'} (nothing has used a queue of this name so far)"
        )
    if row["changed"]:
        return done
    return "was paused already, its reason is replaced" if row["paused"] else "was not paused"
