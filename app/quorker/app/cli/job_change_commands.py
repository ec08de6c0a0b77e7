"""`quorker job requeue|delete|cancel`: by id, or every job that matches, after a look at what that would be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from cyclopts import App as Program
from cyclopts import Parameter

from quorker.app.cli.client_options import ENDLESS, ClientOptions, with_connection
from quorker.app.cli.confirmation import is_agreed
from quorker.app.cli.job_changes import CANCEL, DELETE, REQUEUE, Outcome, Target, Verb, change_all
from quorker.app.cli.job_listing import Listing, SearchFilters, read_search, read_states
from quorker.app.cli.job_rows import JOB_HEADS, job_cells, job_fields
from quorker.app.cli.output import print_json, print_rows, print_table
from quorker.app.job_search import JobSearch, Row
from quorker.app.settings import checked_option
from quorker.core.errors import InvalidInput, QuorkerError
from quorker.core.jobs import bounds
from quorker.core.jobs.lifecycle import STATES
from quorker.transport.clock import wall_ms
from quorker.transport.connection import Connection

PREVIEW_ROWS: Final = 20


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(SearchFilters):
    """Which jobs when no ids are given, and how sure we are."""

    limit: Annotated[int | None, Parameter(help="At most so many, the newest of those that match.")] = None
    dry_run: Annotated[bool, Parameter(negative=(), help="Show what would be changed, change nothing.")] = (
        False
    )
    yes: Annotated[
        bool, Parameter(name=["--yes", "-y"], negative=(), help="Change all that match without asking.")
    ] = False


@dataclass(frozen=True, slots=True)
class _Order:
    """One command line, read."""

    verb: Verb
    ids: tuple[str, ...]
    states: tuple[str, ...]
    given: Selection
    client: ClientOptions


def requeue(
    *ids: str,
    which: Selection = Selection(),  # frozen
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Let jobs run now, from the tail of their queues, with all their attempts before them again.

    Give IDs, or filters for all that match. With IDs, --state says in which states they may be.
    """
    _change(REQUEUE, ids, which, client)


def delete(
    *ids: str,
    which: Selection = Selection(),
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Delete jobs, whatever their state; one that runs is stopped.

    Give IDs, or filters for all that match. With IDs, --state says in which states they may be.
    """
    _change(DELETE, ids, which, client)


def cancel(
    *ids: str,
    which: Selection = Selection(),
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Delete jobs unless they have ended; one that runs is stopped.

    Give IDs, or filters for all that match. With IDs, --state says in which states they may be.
    """
    _change(CANCEL, ids, which, client)


def add_to(program: Program) -> None:
    for command in (requeue, delete, cancel):
        program.command(command)


def _change(verb: Verb, ids: tuple[str, ...], given: Selection, client: ClientOptions) -> None:
    states = read_states(given.state)
    ended = [state for state in states if verb.states and state not in verb.states]
    if ended:
        raise InvalidInput(
            f"--state {ended[0].lower()}: {verb.name} is for jobs that have not ended; see `quorker job delete`"
        )
    order = _Order(verb, tuple(dict.fromkeys(ids)), states or verb.states, given, client)
    if ids:
        _change_named(order)
    else:
        _change_matching(order)


# By id ------------------------------------------------------------------------------------------------------------


def _change_named(order: _Order) -> None:
    for job_id in order.ids:
        checked_option("job id", job_id, bounds.JOB_ID)
    given = order.given
    if replace(given, state=(), dry_run=False, yes=False) != Selection():
        raise InvalidInput("give ids or filters: with ids only --state is allowed, as what they must be in")
    if given.dry_run:
        _show_named(order)
    else:
        _carry_out(order, [Target(job_id, order.states) for job_id in order.ids])


def _show_named(order: _Order) -> None:
    found = with_connection(
        order.client, lambda connection: _details(connection, order.ids), extra_wait=ENDLESS
    )
    missing = [job_id for job_id, row in zip(order.ids, found, strict=True) if row is None]
    rows = [row for row in found if row is not None and (not order.states or row["state"] in order.states)]
    _show(order, rows, len(rows))
    if missing:
        raise QuorkerError(f"unknown: {', '.join(missing)}")


async def _details(connection: Connection, ids: tuple[str, ...]) -> list[Row | None]:
    return [(await connection.query("job_details", {"job_id": job_id})).value for job_id in ids]


# By filter --------------------------------------------------------------------------------------------------------


def _change_matching(order: _Order) -> None:
    wanted, limit = _wanted(order), order.given.limit

    async def matching(connection: Connection) -> list[Row]:
        listing = Listing(connection, wanted)
        return await listing.all() if limit is None else (await listing.page(limit))[0]

    rows = with_connection(order.client, matching, extra_wait=ENDLESS)
    if order.given.dry_run:
        _show(order, rows[:PREVIEW_ROWS] if order.client.output == "table" else rows, len(rows))
    elif rows and not order.given.yes and not is_agreed(f"{order.verb.name} {_jobs(len(rows))}"):
        raise QuorkerError("nothing was changed")
    else:
        _carry_out(order, [Target(row["id"], (row["state"],)) for row in reversed(rows)])


def _wanted(order: _Order) -> JobSearch:
    """A job's state decides what a change means for it, so many are changed only in states that were named."""
    verb, given = order.verb, order.given
    if replace(given, limit=None, dry_run=False, yes=False) == Selection():
        raise InvalidInput(f"which jobs? Give ids, or filters as in `quorker job {verb.name} --state failed`")
    if not order.states:
        named = ", ".join(state.lower() for state in STATES)
        raise InvalidInput(f"to {verb.name} all that match, say in which states, with --state: {named}")
    if given.limit is not None and given.limit < 1:
        raise InvalidInput(f"--limit {given.limit}: {verb.name} at least one job")
    return replace(read_search(given, wall_ms()), states=order.states)


def _show(order: _Order, rows: list[Row], total: int) -> None:
    output = order.client.output
    if output != "table" or rows:
        shown = rows if output == "table" else [job_fields(row) for row in rows]
        print_rows(output, shown, JOB_HEADS, job_cells)
    if output == "table":
        note = f" (the first {len(rows)} are shown)" if len(rows) < total else ""
        would = f"would {order.verb.name} {_jobs(total)}{note}; repeat without --dry-run"
        print(would if total else "no job matches")


# Both -------------------------------------------------------------------------------------------------------------


def _carry_out(order: _Order, targets: list[Target]) -> None:
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if order.client.output == "jsonl":
            print_json(_fields(outcome), "jsonl")

    async def act(connection: Connection) -> None:
        await change_all(connection, order.verb, targets, note)

    if targets:
        with_connection(order.client, act, observer=False, extra_wait=ENDLESS)
    places = {target.job_id: place for place, target in enumerate(targets)}
    _report(order, sorted(outcomes, key=lambda outcome: places[outcome.job_id]))


def _report(order: _Order, outcomes: list[Outcome]) -> None:
    """A job that left its state before its turn no longer matches the filter; one that was named should have been in it."""
    failed = [
        each for each in outcomes if each.ending == "failed" or (order.ids and each.ending == "skipped")
    ]
    if len(order.ids) == 1 and failed:
        raise failed[0].error or QuorkerError(
            f"job {failed[0].job_id} was not {order.verb.done}: {failed[0].why}"
        )
    if order.client.output == "json":
        print_json([_fields(outcome) for outcome in outcomes])
    elif order.client.output == "table":
        _print_outcomes(order, outcomes)
    if failed:
        raise QuorkerError(f"{len(failed)} of {_jobs(len(outcomes))} could not be {order.verb.done}")


def _print_outcomes(order: _Order, outcomes: list[Outcome]) -> None:
    shown = outcomes if order.ids else [each for each in outcomes if each.ending != "changed"]
    if shown:
        print_table(("JOB", "OUTCOME"), [(each.job_id, _text(order.verb, each)) for each in shown])
    if not order.ids:
        changed = sum(each.ending == "changed" for each in outcomes)
        print(f"{order.verb.done} {_jobs(changed)}" if outcomes else "no job matches")


def _text(verb: Verb, outcome: Outcome) -> str:
    return verb.done if outcome.ending == "changed" else f"{outcome.ending}: {outcome.why}"


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {"id": outcome.job_id, "ending": outcome.ending, "why": outcome.why}


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"
