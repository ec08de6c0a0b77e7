"""`app.schedules`: recurring jobs made, changed and looked at while the cluster runs, in plain and in async code. What must
not live here: what that asks of the store (`schedule_plans.py`), and declarations in code (`declarations.py`)."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from quorker.app.authors import author_or_default
from quorker.app.calls import Call
from quorker.app.filters import FilterChain
from quorker.app.gateway import Gateway, Submit, refuse_blocking
from quorker.app.job_plans import Plan, carry_out, carry_out_blocking
from quorker.app.recurring import Declaration, checked_id, definition, read_timing
from quorker.app.recurring_job import RecurringJob, coming_slots, recurring_job
from quorker.app.results import JobHandle
from quorker.app.schedule_plans import change_recurring, list_recurring, read_recurring
from quorker.app.settings import Duration, Misfire, checked_option
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.recurring_commands import (
    PauseRecurring,
    RemoveRecurring,
    SetRecurring,
    TriggerRecurring,
)
from quorker.transport.clock import wall_ms

T = TypeVar("T")

NEXT_SLOTS: Final = 5
_SLOTS: Final = bounds.whole("slots", 1, 10_000)


class ScheduleHost(Protocol):
    """What schedules need of their app."""

    @property
    def declared(self) -> Mapping[str, Declaration]: ...
    def gateway(self) -> Gateway: ...
    def filters_for(self, task: str) -> FilterChain: ...


class Schedules:
    """The recurring jobs of the cluster, by id. Methods with an `a` in front are for async code.

    All but `set`, `remove` and `list` raise `RecurringNotFound` for an id that the cluster does not know.
    """

    def __init__(self, host: ScheduleHost) -> None:
        self._host = host

    def set(
        self,
        recurring_id: str,
        call: Call[Any],
        *,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str | None = None,
        misfire: Misfire = "once",
        grace: Duration | None = None,
    ) -> bool:
        """Make it, or give it another definition: `set("nightly", report.call(7), cron="0 3 * * *", tz="Europe/Berlin")`.

        Either `cron` in the zone `tz` (default UTC), or `every` (seconds or a timedelta). `misfire`: what becomes of
        slots that passed while nobody could fire them: "once" makes one job for all of them, "all" one for each, "skip"
        one for each that is at most `grace` late (default a minute). Returns whether it changed; only then it is planned
        anew, from now on. A pause and the history stay. Raises `InvalidInput`.
        """
        refuse_blocking("await app.schedules.aset(...)")
        command = _definition(recurring_id, call, cron, every, tz, misfire, grace)
        return bool(self._do(_submit(command)))

    async def aset(
        self,
        recurring_id: str,
        call: Call[Any],
        *,
        cron: str | None = None,
        every: Duration | None = None,
        tz: str | None = None,
        misfire: Misfire = "once",
        grace: Duration | None = None,
    ) -> bool:
        """Like `set`, for async code."""
        command = _definition(recurring_id, call, cron, every, tz, misfire, grace)
        return bool(await self._ado(_submit(command)))

    def remove(self, recurring_id: str) -> bool:
        """Fire no more. Jobs that were made stay. Returns whether it was there. One that is declared in code comes back
        when a member with that code starts."""
        refuse_blocking("await app.schedules.aremove(...)")
        return bool(self._do(_submit(RemoveRecurring(checked_id(recurring_id)))))

    async def aremove(self, recurring_id: str) -> bool:
        """Like `remove`, for async code."""
        return bool(await self._ado(_submit(RemoveRecurring(checked_id(recurring_id)))))

    def trigger(self, recurring_id: str) -> JobHandle[Any]:
        """Make a job of it now; its plan stays, and so does a pause. The job has no slot."""
        refuse_blocking("await app.schedules.atrigger(...)")
        return JobHandle(self._do(self._change(TriggerRecurring(checked_id(recurring_id)))), self._host)

    async def atrigger(self, recurring_id: str) -> JobHandle[Any]:
        """Like `trigger`, for async code."""
        plan = self._change(TriggerRecurring(checked_id(recurring_id)))
        return JobHandle(await self._ado(plan), self._host)

    def pause(self, recurring_id: str, *, reason: str = "", author: str | None = None) -> bool:
        """Let no slot fire until it is resumed; those that pass meanwhile are skipped. `author`: default USER@HOST.

        Returns whether it changed; of one that is paused, reason and author are replaced.
        """
        refuse_blocking("await app.schedules.apause(...)")
        return bool(self._do(self._change(_pause(recurring_id, reason, author))))

    async def apause(self, recurring_id: str, *, reason: str = "", author: str | None = None) -> bool:
        """Like `pause`, for async code."""
        return bool(await self._ado(self._change(_pause(recurring_id, reason, author))))

    def resume(self, recurring_id: str) -> bool:
        """Let it fire again, from its next slot on. Returns whether it changed."""
        refuse_blocking("await app.schedules.aresume(...)")
        return bool(self._do(self._change(PauseRecurring(checked_id(recurring_id), False))))

    async def aresume(self, recurring_id: str) -> bool:
        """Like `resume`, for async code."""
        return bool(await self._ado(self._change(PauseRecurring(checked_id(recurring_id), False))))

    def get(self, recurring_id: str) -> RecurringJob:
        """What the cluster knows of it now."""
        refuse_blocking("await app.schedules.aget(...)")
        return recurring_job(self._do(self._read(recurring_id)))

    async def aget(self, recurring_id: str) -> RecurringJob:
        """Like `get`, for async code."""
        return recurring_job(await self._ado(self._read(recurring_id)))

    def list(self) -> builtins.list[RecurringJob]:
        """All of the cluster, by id."""
        refuse_blocking("await app.schedules.alist()")
        return [recurring_job(row) for row in self._do(list_recurring())]

    async def alist(self) -> builtins.list[RecurringJob]:
        """Like `list`, for async code."""
        return [recurring_job(row) for row in await self._ado(list_recurring())]

    def next(self, recurring_id: str, count: int = NEXT_SLOTS) -> builtins.list[datetime]:
        """Its next slots, in the zone of its expression; none while it is paused."""
        refuse_blocking("await app.schedules.anext(...)")
        wanted = checked_option("count", count, _SLOTS)
        return coming_slots(self._do(self._read(recurring_id)), wanted, wall_ms())

    async def anext(self, recurring_id: str, count: int = NEXT_SLOTS) -> builtins.list[datetime]:
        """Like `next`, for async code."""
        wanted = checked_option("count", count, _SLOTS)
        return coming_slots(await self._ado(self._read(recurring_id)), wanted, wall_ms())

    # ------------------------------------------------------------------ the way into the store

    def _change(self, command: PauseRecurring | TriggerRecurring) -> Plan[Any]:
        return change_recurring(command, self._host.declared)

    def _read(self, recurring_id: str) -> Plan[dict[str, Any]]:
        return read_recurring(checked_id(recurring_id), self._host.declared)

    def _do(self, plan: Plan[T]) -> T:
        return carry_out_blocking(plan, self._host.gateway())

    async def _ado(self, plan: Plan[T]) -> T:
        return await carry_out(plan, self._host.gateway())


def _definition(
    recurring_id: str,
    call: Call[Any],
    cron: str | None,
    every: Duration | None,
    tz: str | None,
    misfire: Misfire,
    grace: Duration | None,
) -> SetRecurring:
    if call.parent is not None:
        raise InvalidInput(f"recurring job {recurring_id!r}: its call waits for another one, which is no job")
    return definition(checked_id(recurring_id), call.job, read_timing(cron, every, tz, misfire, grace))


def _pause(recurring_id: str, reason: str, author: str | None) -> PauseRecurring:
    checked_option("reason", reason, bounds.REASON)
    return PauseRecurring(checked_id(recurring_id), True, reason, author_or_default(author))


def _submit(command: SetRecurring | RemoveRecurring) -> Plan[Any]:
    return (yield Submit(command))
