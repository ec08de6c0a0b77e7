"""`quorker job enqueue|show|ls`: make jobs and look at them."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from cyclopts import App as Program
from cyclopts import Parameter

from quorker.app.app import load_app
from quorker.app.cli.client_options import ClientOptions, config_of, with_connection
from quorker.app.cli.line_values import argument, keywords, seconds, waiting_time
from quorker.app.cli.output import call_text, instant_text, print_fields, print_json, print_table, shortened
from quorker.app.errors import JobNotFound
from quorker.app.gateway import Ask, perform
from quorker.app.payload import PAYLOAD_BYTES_MAX, encode_call
from quorker.app.results import JobHandle
from quorker.app.settings import CallOptions, checked_option, read_options
from quorker.app.tasks import new_job
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.core.jobs.lifecycle import STATES
from quorker.transport.connection import Connection

PAGE_ROWS: Final = 500

job_program = Program(
    name="job", help="Make jobs and look at them.", config=config_of("client"), result_action="return_value"
)


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
        str | None, Parameter(help="MODULE:app, to check the call and take the task's own options.")
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
    """
    if job.wait is not None:
        waiting_time(job.wait, "--wait")
    new = _new_job(task, [argument(text) for text in args], keywords(job.kw), job)
    job_id, due = with_connection(client, lambda connection: _enqueue(connection, new), observer=False)
    if job.wait is not None:
        _print_result(job_id, client, job.wait)
    elif client.output == "json":
        print_json({"id": job_id, "due_wt": due})
    else:
        print(f"{job_id}  " + (f"scheduled for {instant_text(due)} UTC" if due else "enqueued"))


async def _enqueue(connection: Connection, new: NewJob) -> tuple[str, int]:
    job_id: str = (await connection.submit(EnqueueJobs((new,))))[0]
    found = (await connection.query("job_details", {"job_id": job_id})).value
    return job_id, found["due_wt"] if found else 0


def _print_result(job_id: str, client: ClientOptions, wait: float) -> None:
    async def result(connection: Connection) -> Any:
        job: JobHandle[Any] = JobHandle(job_id, ConnectionHost(connection))
        return await job.aresult(wait)

    value = with_connection(client, result, extra_wait=wait)
    if client.output == "json":
        print_json({"id": job_id, "result": value})
    else:
        print(f"{job_id}  succeeded: {value!r}")


@dataclass(frozen=True, slots=True)
class ConnectionHost:
    """Lets a job handle use a bare connection."""

    connection: Connection

    def gateway(self) -> ConnectionHost:
        return self

    async def request(self, ask: Ask) -> Any:
        return await perform(self.connection, ask)

    def request_blocking(self, ask: Ask) -> Any:
        raise NotImplementedError("the command line waits in async code only")


@job_program.command
def show(job_id: str, *, client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """Show everything about one job: its call, its history, who runs it, its result or error."""
    checked_option("job id", job_id, bounds.JOB_ID)
    found = with_connection(client, lambda connection: _details(connection, job_id))
    if client.output == "json":
        print_json(found)
    else:
        _print_job(found)


async def _details(connection: Connection, job_id: str) -> dict[str, Any]:
    answer = await connection.query("job_details", {"job_id": job_id}, consistency="linearizable")
    found: dict[str, Any] | None = answer.value
    if found is None:
        raise JobNotFound(f"no job {job_id} in this cluster: it was never enqueued here, or it has expired")
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
        ("tags", ", ".join(found["tags"])),
    ]
    print_fields([(name, value) for name, value in fields if value])
    print("history (newest first)")
    for entry in found["history"]:
        print(f"  {instant_text(entry['at_wt'])}  {entry['name']}  {_entry_text(entry)}".rstrip())
    trace = next((entry["data"]["trace"] for entry in found["history"] if entry["data"].get("trace")), "")
    if trace:
        print(f"last error\n{trace.rstrip()}")


def _entry_text(entry: dict[str, Any]) -> str:
    data = {name: value for name, value in entry["data"].items() if name != "trace"}
    return "  ".join([entry["reason"], *(f"{name}={value}" for name, value in data.items())]).strip()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which jobs. Patterns: 'send_*'."""

    state: Annotated[tuple[str, ...], Parameter(help="One of the states, e.g. failed; repeatable.")] = ()
    task: Annotated[str | None, Parameter(help="Name or pattern of the task.")] = None
    queue: str | None = None
    limit: Annotated[int, Parameter(help="At most so many, the newest first.")] = 50


@job_program.command(name="ls")
def list_jobs(*, which: Filters = Filters(), client: ClientOptions = ClientOptions()) -> None:  # noqa: B008
    """List jobs by state, task and queue."""
    states = _states(which.state)
    if which.limit < 1:
        raise InvalidInput(f"--limit {which.limit}: show at least one job")
    found = with_connection(client, lambda connection: _list(connection, states, which))
    if client.output == "json":
        print_json(found)
        return
    rows = [
        (
            row["id"],
            row["state"] or "",
            row["queue"],
            row["failures"],
            instant_text(row["state_wt"]),
            shortened(
                call_text(row["task"], row["args"]) if row["args_size"] <= len(row["args"]) else row["task"],
                60,
            ),
        )
        for row in found
    ]
    print_table(("JOB", "STATE", "QUEUE", "FAILED", "SINCE (UTC)", "CALL"), rows)


def _states(wanted: tuple[str, ...]) -> tuple[str, ...]:
    known = {state.lower(): state for state in STATES}
    unknown = [state for state in wanted if state.lower() not in known]
    if unknown:
        raise InvalidInput(f"no state {unknown[0]!r}: one of {', '.join(known)}")
    return tuple(known[state.lower()] for state in wanted) or STATES


async def _list(connection: Connection, states: tuple[str, ...], which: Filters) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for state in states:
        async for row in _rows(connection, state):
            if len(found) >= which.limit:
                return found
            if _matches(row, which):
                found.append(row)
    return found


async def _rows(connection: Connection, state: str) -> AsyncGenerator[dict[str, Any]]:
    cursor: int | None = None
    while True:
        page = (
            await connection.query("jobs_by_state", {"state": state, "count": PAGE_ROWS, "after": cursor})
        ).value
        for row in page["rows"]:
            yield row
        cursor = page["next"]
        if cursor is None:
            return


def _matches(row: dict[str, Any], which: Filters) -> bool:
    if which.queue is not None and row["queue"] != which.queue:
        return False
    return which.task is None or fnmatch.fnmatchcase(row["task"], which.task)


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
