"""One attempt on a worker with the filters around it, and the election of its outcome. What must not live here: how a
function is called (`execution.py`), and how the store is told (`worker_server.py`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from quorker.app.children import Done
from quorker.app.context import JobContext, enter_job
from quorker.app.failure import Failure
from quorker.app.filters import FilterChain, Hook
from quorker.app.hook_arguments import Applied, Election, Performed, Performing
from quorker.app.hooks import CallHooks, call_hook, call_hooks, log_error
from quorker.app.outcomes import Delete, Fail, GiveBack, Outcome, Succeed
from quorker.core.errors import QuorkerError
from quorker.core.jobs.commands import JobGrant
from quorker.core.jobs.lifecycle import DELETED, ENQUEUED, SUCCEEDED

_STATES: Final[dict[type, str]] = {Succeed: SUCCEEDED, Delete: DELETED, GiveBack: ENQUEUED}
AFTER_SECONDS: Final = 1.0  # for async hooks of an attempt whose worker is torn down


class FilteredAttempt:
    """The hooks of one attempt."""

    def __init__(self, chain: FilterChain, grant: JobGrant, job: JobContext) -> None:
        self._chain = chain
        self._grant = grant
        self._job = job
        self._to_follow: list[Hook] = []
        self._began = trio.current_time()

    async def run(self, attempt: Callable[[], Awaitable[Done | Failure]]) -> Done | Failure | Delete:
        """How it ended; `Delete` if a filter cancelled it. Raises what a hook before it or the task raises."""
        enter_job(self._job)
        if not self._chain.around_attempts:
            return await attempt()
        performing = Performing(self._job, self._grant.args)
        for before, after in self._chain.around_attempts:
            if before is not None:
                await call_hook(before, performing)
            if after is not None:
                self._to_follow.insert(0, after)
            if performing.cancelled is not None:
                return Delete(performing.cancelled)
        return await attempt()

    async def follow(self, ended: Done | Failure | Delete | None, stopped: str) -> None:
        """`stopped`: why it was told to stop, if it was. The hooks after it, of those filters whose hook before it has returned."""
        if not self._to_follow:
            return
        packed = ended.result if isinstance(ended, Done) else None
        failure = ended if isinstance(ended, Failure) else None
        seconds = trio.current_time() - self._began
        performed = Performed(self._job, seconds, packed, failure, stopped)
        await call_hooks(CallHooks(tuple(self._to_follow), performed, is_after=True))

    async def follow_in_haste(self, stopped: str) -> None:
        """The same while the worker is torn down. Cannot be cancelled, but may not take long."""
        with trio.move_on_after(AFTER_SECONDS, shield=True):
            await self.follow(None, stopped)


async def elect(
    chain: FilterChain, grant: JobGrant, job: JobContext, ended: Done | Failure | Delete
) -> Outcome:
    """What the store shall make of the attempt. A hook that raises has decided nothing."""
    if chain.elects_failures_only and isinstance(ended, Done):
        return Succeed(ended.result)
    election = Election(grant, job, _first_candidate(ended))
    for hook in chain.electing:
        before = election.outcome
        try:
            await call_hook(hook, election)
        except Exception:  # noqa: BLE001  # user code
            log_error(hook)
            election.outcome = before
    return election.outcome


def _first_candidate(ended: Done | Failure | Delete) -> Outcome:
    match ended:
        case Done(result):
            return Succeed(result)
        case Failure():
            return Fail(ended)
        case Delete():
            return ended


async def tell_applied(
    chain: FilterChain, job: JobContext, outcome: Outcome, value: Any, error: QuorkerError | None
) -> None:
    """`value`: the store's answer, which names the state of a job that failed."""
    state = "" if error is not None else _STATES.get(type(outcome)) or str(value)
    await call_hooks(CallHooks(chain.applied, Applied(job, outcome, state, error), is_after=True))
