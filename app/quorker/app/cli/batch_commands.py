"""`quorker batch ls|show|jobs|cancel`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter

from quorker.app.batches import BatchHandle
from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.job_listing import read_page, read_states
from quorker.app.cli.job_rows import JOB_HEADS, job_cells, job_fields
from quorker.app.cli.output import (
    Fields,
    duration_text,
    instant_text,
    print_fields,
    print_json,
    print_note,
    print_rows,
)
from quorker.app.connection_host import ConnectionHost
from quorker.app.errors import BatchNotFound
from quorker.app.settings import checked_option
from quorker.core.jobs import bounds
from quorker.transport.connection import Connection

HEADS: Final = ("BATCH", "STATE", "JOBS", "PENDING", "SUCCEEDED", "FAILED", "DELETED", "MADE (UTC)", "NAME")

batch_program = client_program("batch", "Look at batches of jobs, and call them off.")


@batch_program.command(name="ls")
def list_batches(
    *,
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    after: Annotated[
        int | None, Parameter(help="Go on where the listing ended that named this.", show_default=False)
    ] = None,
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """List batches, the newest first: how many jobs each has, and how these have ended.

    When there are more, a line on stderr names the --after of the next page.
    """
    checked_option("--limit", limit, bounds.whole("limit", 1, 10_000))

    async def act(connection: Connection) -> dict[str, Any]:
        return await read_page(connection, "batches", {}, after, limit)

    page = with_connection(client, act, extra_wait=ENDLESS)
    print_rows(client.output, page["rows"], HEADS, _cells)
    if page["next"] is not None:
        print_note(f"there may be more; the next page is --after {page['next']}")


def _cells(row: Fields) -> Sequence[object]:
    return (
        row["id"],
        row["state"],
        row["total"],
        row["pending"],
        row["succeeded"],
        row["failed"] + row["quarantined"],
        row["deleted"],
        instant_text(row["created_wt"]),
        row["name"],
    )


@batch_program.command
def show(batch: str, *, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """Show a batch: how its jobs have ended, and what became of its callbacks."""
    checked_option("batch id", batch, bounds.BATCH_ID)

    async def act(connection: Connection) -> Fields | None:
        answer = await connection.query("batch", {"batch_id": batch}, consistency="linearizable")
        found: Fields | None = answer.value
        return found

    found = with_connection(client, act)
    if found is None:
        raise BatchNotFound(f"no batch {batch} in this cluster: it was never made here, or it has expired")
    if client.output == "table":
        _print_batch(found)
    else:
        print_json(found, client.output)


def _print_batch(found: Fields) -> None:
    expires = found["expires_in_ms"]
    counts = ("pending", "succeeded", "failed", "deleted", "quarantined")
    fields = [
        ("batch", found["id"]),
        ("name", found["name"]),
        ("state", found["state"]),
        ("jobs", f"{found['total']}: " + ", ".join(f"{found[each]} {each}" for each in counts)),
        ("made", f"{instant_text(found['created_wt'])} UTC"),
        ("ended", f"{instant_text(found['completed_wt'])} UTC" if found["completed_wt"] else ""),
        ("expires", f"in {duration_text(max(0, expires))}" if expires is not None else ""),
    ]
    print_fields([(name, value) for name, value in fields if value])
    if found["callbacks"]:
        print("callbacks")
    for each in found["callbacks"]:
        print(
            f"  {each['id']}  on {each['on'] or '?'}  {each['state'] or 'expired'}  {each['task']}".rstrip()
        )


@batch_program.command
def jobs(
    batch: str,
    *,
    state: Annotated[
        tuple[str, ...], Parameter(help="One of the states, e.g. failed; repeatable.", show_default=False)
    ] = (),
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """List the jobs of a batch that are still there, in the order in which they were made."""
    checked_option("batch id", batch, bounds.BATCH_ID)
    states = read_states(state)

    async def act(connection: Connection) -> list[dict[str, Any]]:
        return [row async for row in _members(connection, batch) if not states or row["state"] in states]

    found = with_connection(client, act, extra_wait=ENDLESS)
    rows = found if client.output == "table" else [job_fields(row) for row in found]
    print_rows(client.output, rows, JOB_HEADS, job_cells)


async def _members(connection: Connection, batch: str) -> AsyncGenerator[dict[str, Any]]:
    after: int | None = 0
    while after is not None:
        page = await read_page(connection, "jobs_by_batch", {"batch_id": batch}, after, newest_first=False)
        for row in page["rows"]:
            yield row
        after = page["next"]


@batch_program.command
def cancel(batch: str, *, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """Delete the jobs of a batch that have not ended; running ones are stopped."""
    checked_option("batch id", batch, bounds.BATCH_ID)

    async def act(connection: Connection) -> int:
        return await BatchHandle(ConnectionHost(connection), batch).acancel()

    deleted = with_connection(client, act, observer=False, extra_wait=ENDLESS)
    if client.output == "table":
        print(f"{batch}  {deleted} {'job' if deleted == 1 else 'jobs'} deleted")
    else:
        print_json({"id": batch, "deleted": deleted}, client.output)
