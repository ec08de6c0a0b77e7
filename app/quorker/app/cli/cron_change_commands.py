"""`quorker cron pause|resume|rm|prune`: by id, by pattern, or what code declares no more, after a look at what that would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, TypeAlias

from cyclopts import App as Program
from cyclopts import Parameter

from quorker.app.app import load_app
from quorker.app.authors import author_or_default
from quorker.app.cli.client_options import ENDLESS, ClientOptions, with_connection
from quorker.app.cli.configuration import from_environment
from quorker.app.cli.confirmation import is_agreed
from quorker.app.cli.cron_rows import CRON_HEADS, cron_cells, cron_fields
from quorker.app.cli.output import print_rows
from quorker.app.connection_host import ConnectionHost
from quorker.app.declarations import vanished
from quorker.app.errors import RecurringNotFound
from quorker.app.gateway import Submit
from quorker.app.job_plans import Plan, carry_out
from quorker.app.recurring import checked_id
from quorker.app.schedule_plans import Row, change_recurring, list_recurring, not_found
from quorker.app.settings import checked_option
from quorker.core.errors import InvalidInput, QuorkerError
from quorker.core.jobs import bounds
from quorker.core.jobs.recurring_commands import PauseRecurring, RemoveRecurring
from quorker.transport.connection import Connection

Ending: TypeAlias = Literal["changed", "unchanged", "failed"]
HEADS: Final = ("RECURRING", "OUTCOME")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sureness:
    """How sure we are when it is about many."""

    dry_run: Annotated[bool, Parameter(negative=(), help="Show what would be changed, change nothing.")] = (
        False
    )
    yes: Annotated[
        bool, Parameter(name=["--yes", "-y"], negative=(), help="Change all that match without asking.")
    ] = False


@dataclass(frozen=True, slots=True)
class Verb:
    """What is done. `unchanged`: why it may change nothing."""

    name: str
    done: str
    unchanged: str
    plan: Callable[[str], Plan[bool]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recurring job."""

    recurring_id: str
    ending: Ending
    why: str = ""
    error: QuorkerError | None = None

    def fields(self) -> dict[str, Any]:
        return {"id": self.recurring_id, "ending": self.ending, "why": self.why}


def pause(
    *ids: str,
    reason: Annotated[str, Parameter(help="Why; shown to whoever looks.")] = "",
    author: Annotated[str | None, Parameter(help="Who; default USER@HOST.")] = None,
    sure: Sureness = Sureness(),  # frozen
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Let no slot of IDS fire until they are resumed; slots that pass meanwhile are skipped.

    An id may be a pattern with * and ?. Of one that is paused already, reason and author are replaced.
    """
    by = author_or_default(author)
    checked_option("reason", reason, bounds.REASON)

    def plan(recurring_id: str) -> Plan[bool]:
        return change_recurring(PauseRecurring(recurring_id, True, reason, by), {})

    verb = Verb("pause", "paused", "it was paused already, its reason is replaced", plan)
    _change_named(verb, ids, sure, client)


def resume(
    *ids: str,
    sure: Sureness = Sureness(),
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Let IDS fire again, each from its next slot on. An id may be a pattern with * and ?."""

    def plan(recurring_id: str) -> Plan[bool]:
        return change_recurring(PauseRecurring(recurring_id, False), {})

    _change_named(Verb("resume", "resumed", "it was not paused", plan), ids, sure, client)


def rm(
    *ids: str,
    sure: Sureness = Sureness(),
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Remove IDS; jobs that they made stay. An id may be a pattern with * and ?.

    One that code declares comes back when a member with that code starts: remove it there.
    """
    _change_named(_REMOVE, ids, sure, client)


def prune(
    *,
    app: Annotated[
        str | None,
        Parameter(
            help="MODULE:app, whose code says what is still declared.", env_var=from_environment("app")
        ),
    ] = None,
    sure: Sureness = Sureness(),
    client: ClientOptions = ClientOptions(),  # noqa: B008
) -> None:
    """Remove what the code of an app once declared as recurring and declares no more."""
    if app is None:
        raise InvalidInput("whose code? Give --app MODULE:app (or QUORKER_APP)")
    loaded = load_app(app)
    rows = [row for row in _all(client) if row["id"] in vanished([row], loaded)]
    _change_many(
        _REMOVE, rows, sure, client, f"everything that app {loaded.name} ever declared, it still declares"
    )


def add_to(program: Program) -> None:
    for command in (pause, resume, rm, prune):
        program.command(command)


def _removal(recurring_id: str) -> Plan[bool]:
    if not (yield Submit(RemoveRecurring(recurring_id))):
        raise not_found(recurring_id)
    return True


_REMOVE: Final = Verb("remove", "removed", "", _removal)


def _change_named(verb: Verb, names: Sequence[str], sure: Sureness, client: ClientOptions) -> None:
    if not names:
        raise InvalidInput(
            f"which recurring jobs? Give ids, or a pattern as in `quorker cron {verb.name} 'report-*'`"
        )
    exact = [name for name in names if not _is_pattern(name)]
    for name in exact:
        checked_id(name)
    if len(exact) == len(names) and not sure.dry_run:
        _report(verb, _carry_out(verb, list(dict.fromkeys(exact)), client), client, exact)
        return
    rows = [row for row in _all(client) if any(fnmatchcase(row["id"], name) for name in names)]
    missing = sorted(set(exact) - {row["id"] for row in rows})
    if missing:
        raise not_found(", ".join(missing))
    _change_many(verb, rows, sure, client, "no recurring job matches")


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _all(client: ClientOptions) -> list[Row]:
    async def act(connection: Connection) -> list[Row]:
        return await carry_out(list_recurring("linearizable"), ConnectionHost(connection))

    return with_connection(client, act, extra_wait=ENDLESS)


def _change_many(verb: Verb, rows: list[Row], sure: Sureness, client: ClientOptions, none: str) -> None:
    if sure.dry_run:
        _show(verb, rows, client, none)
        return
    if rows and not sure.yes and not is_agreed(f"{verb.name} {_recurring_jobs(len(rows))}"):
        raise QuorkerError("nothing was changed")
    outcomes = _carry_out(verb, [row["id"] for row in rows], client) if rows else []
    _report(verb, outcomes, client, ())
    if not rows and client.output == "table":
        print(none)


def _show(verb: Verb, rows: list[Row], client: ClientOptions, none: str) -> None:
    if client.output != "table":
        print_rows(client.output, [cron_fields(row) for row in rows], CRON_HEADS, cron_cells)
    elif rows:
        print_rows(client.output, rows, CRON_HEADS, cron_cells)
        print(f"would {verb.name} {_recurring_jobs(len(rows))}; repeat without --dry-run")
    else:
        print(none)


def _carry_out(verb: Verb, ids: list[str], client: ClientOptions) -> list[Outcome]:
    async def act(connection: Connection) -> list[Outcome]:
        host = ConnectionHost(connection)
        return [await _change_one(verb, recurring_id, host) for recurring_id in ids]

    return with_connection(client, act, observer=False, extra_wait=ENDLESS)


async def _change_one(verb: Verb, recurring_id: str, host: ConnectionHost) -> Outcome:
    """An error that is not about this one (nobody leads any more) ends the command."""
    try:
        changed = await carry_out(verb.plan(recurring_id), host)
    except RecurringNotFound as error:
        return Outcome(recurring_id, "failed", str(error), error)
    return Outcome(recurring_id, "changed") if changed else Outcome(recurring_id, "unchanged", verb.unchanged)


def _report(verb: Verb, outcomes: list[Outcome], client: ClientOptions, named: Sequence[str]) -> None:
    failed = [each for each in outcomes if each.ending == "failed"]
    if len(named) == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    if client.output != "table" or outcomes:
        rows = [each.fields() for each in outcomes]
        print_rows(client.output, rows, HEADS, lambda row: (row["id"], _text(verb, row)))
    if failed:
        raise QuorkerError(f"{len(failed)} of {_recurring_jobs(len(outcomes))} could not be {verb.done}")


def _text(verb: Verb, row: Any) -> str:
    return verb.done if row["ending"] == "changed" else f"{row['ending']}: {row['why']}"


def _recurring_jobs(count: int) -> str:
    return f"{count} recurring job" if count == 1 else f"{count} recurring jobs"
