"""`quorker task ls|show`: the tasks of the jobs that are stored, and how long their jobs wait and work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter

from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.output import Fields, print_fields, print_json, print_rows
from quorker.app.cli.store_pages import all_rows
from quorker.app.settings import checked_option
from quorker.core.errors import InvalidInput, QuorkerError
from quorker.core.jobs import bounds
from quorker.core.jobs.queries_search import SAMPLE_MAX
from quorker.transport.connection import Connection

HEADS: Final = ("TASK", "JOBS")

task_program = client_program("task", "Look at tasks: how many jobs they have, how long these wait and work.")


@task_program.command(name="ls")
def list_tasks(*, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """List the tasks of the jobs that are stored, and how many jobs each has."""
    found = with_connection(client, _tasks, extra_wait=ENDLESS)
    print_rows(client.output, found, HEADS, _cells)


async def _tasks(connection: Connection) -> list[dict[str, Any]]:
    return await all_rows(connection, "tasks")


def _cells(row: Fields) -> Sequence[object]:
    return row["task"], row["jobs"]


@task_program.command
def show(
    task: str,
    *,
    sample: Annotated[
        int, Parameter(help=f"Over the newest so many jobs, at most {SAMPLE_MAX}.")
    ] = SAMPLE_MAX,
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Show figures over the newest jobs of TASK: their states, and how long those that succeeded waited and worked."""
    checked_option("task", task, bounds.TASK)
    if not 1 <= sample <= SAMPLE_MAX:
        raise InvalidInput(f"--sample {sample}: give 1 to {SAMPLE_MAX} jobs")

    async def read(connection: Connection) -> Any:
        return (await connection.query("task_figures", {"task": task, "sample": sample})).value

    found = with_connection(client, read)
    if not found["total"]:
        raise QuorkerError(
            f"no job of a task {task!r} is stored; `quorker task ls` lists the tasks that have some"
        )
    if client.output != "table":
        print_json(found, client.output)
    else:
        print_fields(_figures(found))


def _figures(found: Fields) -> list[tuple[str, object]]:
    states = ", ".join(f"{count} {name}" for name, count in found["states"].items())
    return [
        ("task", found["task"]),
        ("jobs", f"{found['total']}, of which the newest {found['sampled']} are looked at"),
        ("states", states),
        ("waited", _spread(found["latency_ms"])),
        ("worked", _spread(found["duration_ms"])),
    ]


def _spread(found: Mapping[str, int] | None) -> str:
    if found is None:
        return "none has succeeded"
    return ", ".join(f"{name} {ms} ms" for name, ms in found.items())
