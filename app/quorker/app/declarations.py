"""What the code of an app declares as recurring is made so when a member is up, and what it declares no more is reported.

Every process of an app declares the same, so all but the first change nothing. Nothing is removed here: an older version
of the code may still run elsewhere, and what it declares would come and go. What must not live here: the decorator
(`app.py`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import trio

from quorker.app.connection_host import ConnectionHost
from quorker.app.gateway import Submit
from quorker.app.job_plans import Plan, carry_out
from quorker.app.recurring import Declaration
from quorker.app.recurring_job import managing_app
from quorker.app.schedule_plans import list_recurring
from quorker.core.errors import OperationError, Rejected
from quorker.core.jobs.recurring_commands import SetRecurring
from quorker.transport.connection import Connection

T = TypeVar("T")

logger = logging.getLogger("quorker.recurring")

AGAIN_SECONDS: Final = 1.0


class Declaring(Protocol):
    """What is needed of an app."""

    name: str

    @property
    def declared(self) -> Mapping[str, Declaration]: ...


@asynccontextmanager
async def declaring(app: Declaring, connection: Connection) -> AsyncGenerator[None]:
    """Declare in the background while the body runs: there may be no leader yet, and none for long."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_declare, app, connection)
        yield
        nursery.cancel_scope.cancel()


async def _declare(app: Declaring, connection: Connection) -> None:
    async with trio.open_nursery() as nursery:  # all at once, so that they share an entry
        for declaration in app.declared.values():
            nursery.start_soon(_make_so, declaration.command, connection)
    for recurring_id in vanished(await _until_answered(list_recurring, connection), app):
        logger.warning(
            "recurring job %s was declared by the code of app %s, which does not declare it any more; it goes on firing "
            "until `quorker cron prune` or `quorker cron rm %s`",
            recurring_id,
            app.name,
            recurring_id,
        )


async def _make_so(command: SetRecurring, connection: Connection) -> None:
    try:
        await _until_answered(_set(command), connection)
    except Rejected as refused:
        logger.error("recurring job %s is not stored: %s", command.recurring_id, refused)


def _set(command: SetRecurring) -> Callable[[], Plan[Any]]:
    def plan() -> Plan[Any]:
        return (yield Submit(command))

    return plan


async def _until_answered(plan: Callable[[], Plan[T]], connection: Connection) -> T:
    """What is asked here may be asked twice, and there may be no leader for long."""
    while True:
        try:
            return await carry_out(plan(), ConnectionHost(connection))
        except Rejected:
            raise
        except OperationError as error:
            logger.debug("asking again about recurring jobs: %s", error)
        await trio.sleep(AGAIN_SECONDS)


def vanished(rows: Iterable[Mapping[str, Any]], app: Declaring) -> list[str]:
    """The ids of those that the code of this app once declared and declares no more."""
    return [row["id"] for row in rows if managing_app(row) == app.name and row["id"] not in app.declared]
