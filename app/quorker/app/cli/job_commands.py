"""`quorker job enqueue|show|ls`: make jobs and look at them. What changes them stands in `job_change_commands.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from quorker.app.app import load_app
from quorker.app.cli import job_change_commands
from quorker.app.cli.client_options import ENDLESS, ClientOptions, client_program, with_connection
from quorker.app.cli.configuration import from_environment
from quorker.app.cli.job_listing import Listing, SearchFilters, read_search
from quorker.app.cli.job_rows import JOB_HEADS, job_cells, job_fields
from quorker.app.cli.line_values import argument, keywords, seconds, waiting_time
from quorker.app.cli.output import (
    Format,
    call_text,
    instant_text,
    print_fields,
    print_json,
    print_note,
    print_rows,
)
from quorker.app.connection_host import ConnectionHost
from quorker.app.errors import JobNotFound
from quorker.app.job_search import Row
from quorker.app.payload import PAYLOAD_BYTES_MAX, encode_call
from quorker.app.results import JobHandle
from quorker.app.settings import CallOptions, checked_option, read_options
from quorker.app.tasks import new_job
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.core.jobs.recurring_commands import RECURRING_HEADER, SLOT_HEADER
from quorker.transport.clock import wall_ms
from quorker.transport.connection import Connection

job_program = client_program("job", "Make jobs, look at them and change them.")
job_change_commands.add_to(job_program)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueOptions:
    """How the job is enqueued. Durations: 90, 90s, 10m, 2h, 1d."""

    kw: Annotated[tuple[str, ...], Parameter(help="A keyword argument, name=value; repeatable.")] = ()
    queue: str | None = None
    priority: int | None = None
    delay: Annotated[str | None, Parameter(help="Not before so long from now.")] = None
    at: Annotated[
        datetime | None, Parameter(help="Not before this instant, with an offset: 2027-01-01T12:00:00+00:00.")
    ] = None
    job_timeout: Annotated[str | None, Parameter(help="Stop each attempt after so long.")] = None
    unique: Annotated[str | None, Parameter(help="No second job while one with this key has not ended.")] = (
        None
    )
    after: Annotated[str | None, Parameter(help="Wait until this job has succeeded.")] = None
    tags: Annotated[tuple[str, ...], Parameter(name="--tag")] = ()
    app: Annotated[
        str | None,
        Parameter(
            help="MODULE:app, to check the call and take the task's own options.",
            env_var=from_environment("app"),
        ),
    ] = None
    wait: Annotated[
        float | None, Parameter(help="Wait up to so many seconds for the result and print it.")
    ] = None


@job_program.command
def enqueue(
    task: str,
    *args: str,
    job: EnqueueOptions = EnqueueOptions(),
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Make a job of TASK and print its id.

    Arguments are read as JSON where they are JSON, and as text otherwise: 42, true, '[1, 2]', hello.
    Without --app the name is taken as it is: a job of a task that no worker has fails and is tried again.
    """
    if job.wait is not None:
        waiting_time(job.wait, "--wait")
    new = _new_job(task, [argument(text) for text in args], keywords(job.kw), job)
    job_id, due = with_connection(client, lambda connection: _enqueue(connection, new), observer=False)
    if job.wait is not None:
        _print_result(job_id, client, job.wait)
    elif client.output != "table":
        print_json({"id": job_id, "due_wt": due}, client.output)
    else:
        print(f"{job_id}  " + (f"scheduled for {instant_text(due)} UTC" if due else "enqueued"))
    if job.app is None and job.wait is None:
        print_note(f"whether a worker has a task {task!r} was not checked: --app MODULE:app does that")


async def _enqueue(connection: Connection, new: NewJob) -> tuple[str, int]:
    job_id: str = (await connection.submit(EnqueueJobs((new,))))[0]
    found = (await connection.query("job_details", {"job_id": job_id})).value
    return job_id, found["due_wt"] if found else 0


def _print_result(job_id: str, client: ClientOptions, wait: float) -> None:
    async def result(connection: Connection) -> Any:
        job: JobHandle[Any] = JobHandle(job_id, ConnectionHost(connection))
        return await job.aresult(wait)

    value = with_connection(client, result, extra_wait=wait)
    if client.output != "table":
        print_json({"id": job_id, "result": value}, client.output)
    else:
        print(f"{job_id}  succeeded: {value!r}")


@job_program.command
def show(*ids: str, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """Show everything about jobs: the call, the history, who runs it, its result or error."""
    if not ids:
        raise InvalidInput("which jobs? `quorker job ls` lists them")
    for job_id in ids:
        checked_option("job id", job_id, bounds.JOB_ID)

    async def act(connection: Connection) -> list[Row | None]:
        return [await _details(connection, job_id) for job_id in ids]

    found = with_connection(client, act, extra_wait=ENDLESS)
    rows = [row for row in found if row is not None]
    _print_details(rows, len(ids), client.output)
    missing = [job_id for job_id, row in zip(ids, found, strict=True) if row is None]
    if missing:
        raise JobNotFound(
            f"no job {', '.join(missing)} in this cluster: it was never enqueued here, or it has expired"
        )


def _print_details(rows: list[Row], asked: int, output: Format) -> None:
    """One job that was asked for is one document, several are a list of them."""
    if output == "json" and asked > 1:
        print_json([job_fields(row) for row in rows])
    elif output != "table":
        for row in rows:
            print_json(job_fields(row), output)
    else:
        for number, row in enumerate(rows):
            print("\n" * (number > 0), end="")
            _print_job(row)


async def _details(connection: Connection, job_id: str) -> Row | None:
    answer = await connection.query("job_details", {"job_id": job_id}, consistency="linearizable")
    found: Row | None = answer.value
    return found


def _print_job(found: dict[str, Any]) -> None:
    lease, parent = found["lease"], found["parent"]
    fields = [
        ("job", found["id"]),
        ("call", call_text(found["task"], found["args"])),
        ("state", found["state"] + (f" ({found['reason']})" if found["reason"] else "")),
        ("queue", f"{found['queue']}, priority {found['priority']}"),
        ("attempts", f"{found['failures']} failed, {found['deliveries']} started"),
        ("created", f"{instant_text(found['created_wt'])} UTC"),
        ("due", f"{instant_text(found['due_wt'])} UTC" if found["due_wt"] else ""),
        ("runs at", f"{lease['worker']}, token {lease['token']}" if lease else ""),
        ("after", f"{parent['id']} ({parent['state'] or 'gone'})" if parent else ""),
        ("recurring", _recurring_text(found["headers"])),
        ("limit", _limit_text(found)),
        ("expires", f"{instant_text(found['start_by_wt'])} UTC" if found["start_by_wt"] else ""),
        ("batch", found["batch"] or ""),
        ("tags", ", ".join(found["tags"])),
    ]
    print_fields([(name, value) for name, value in fields if value])
    print("history (newest first)")
    for entry in found["history"]:
        print(f"  {instant_text(entry['at_wt'])}  {entry['name']}  {_entry_text(entry)}".rstrip())
    trace = next((entry["data"]["trace"] for entry in found["history"] if entry["data"].get("trace")), "")
    if trace:
        print(f"last error\n{trace.rstrip()}")


def _recurring_text(headers: dict[str, str]) -> str:
    """Of which recurring job it is one, and for which slot; "" for other jobs."""
    recurring_id, slot = headers.get(RECURRING_HEADER, ""), headers.get(SLOT_HEADER, "")
    if not recurring_id:
        return ""
    return (
        f"{recurring_id}, slot {instant_text(int(slot))} UTC"
        if slot.isdecimal()
        else f"{recurring_id}, triggered"
    )


def _limit_text(found: dict[str, Any]) -> str:
    key = found["limit_key"]
    return f"{key}, and waits for it" if found["waits_for_limit"] else key


def _entry_text(entry: dict[str, Any]) -> str:
    data = {name: value for name, value in entry["data"].items() if name != "trace"}
    return "  ".join([entry["reason"], *(f"{name}={value}" for name, value in data.items())]).strip()


@job_program.command(name="ls")
def list_jobs(
    *,
    which: SearchFilters = SearchFilters(),  # noqa: B008
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    after: Annotated[
        str, Parameter(help="Go on where the listing ended that named this.", show_default=False)
    ] = "",
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """List jobs, the newest change first; where --tag or --task says most, the newest job first.

    When there are more, a line on stderr names the --after of the next page.
    """
    wanted = read_search(which, wall_ms())
    if limit < 1:
        raise InvalidInput(f"--limit {limit}: show at least one job")

    async def act(connection: Connection) -> str:
        return await _list(Listing(connection, wanted, after), limit, client.output)

    rest = with_connection(client, act, extra_wait=ENDLESS)
    if rest:
        print_note(f"there are more; the next page is --after {rest}")


async def _list(listing: Listing, limit: int, output: Format) -> str:
    """Prints the page and returns where the next one begins."""
    rows, rest = await listing.page(limit)
    shown = rows if output == "table" else [job_fields(row) for row in rows]
    print_rows(output, shown, JOB_HEADS, job_cells)
    return rest


def _new_job(task: str, args: list[Any], kwargs: dict[str, Any], job: EnqueueOptions) -> NewJob:
    given = {
        "queue": job.queue,
        "priority": job.priority,
        "delay": None if job.delay is None else seconds(job.delay),
        "at": job.at,
        "timeout": None if job.job_timeout is None else seconds(job.job_timeout),
        "unique": job.unique,
        "after": job.after,
        "tags": job.tags or None,
    }
    options = read_options(given)
    if job.app is None:
        checked_option("task", task, bounds.TASK)
        packed = encode_call(args, kwargs, bytes_max=PAYLOAD_BYTES_MAX)
        return new_job(task, packed, CallOptions(**options))
    app = load_app(job.app)
    if task not in app.tasks:
        raise InvalidInput(f"{job.app} has no task {task!r}: it has {', '.join(sorted(app.tasks)) or 'none'}")
    registered = app.tasks[task]
    return registered.with_options(options).new_job(*args, **kwargs)
