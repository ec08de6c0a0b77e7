"""Filters: code of the user around the enqueueing of jobs, around their execution, and where it is decided how an attempt
ends. They run in the client and in the worker, never in the state machine: what they decide travels in a command.

What must not live here: what hooks are given (`hook_arguments.py`) and how they are called (`hooks.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from quorker.app.hook_arguments import Applied, Election, Enqueued, Enqueuing, Performed, Performing
from quorker.app.outcomes import Fail
from quorker.app.settings import may_retry

RETRY_RULES_ORDER: Final = 20

Hook: TypeAlias = Callable[[Any], Awaitable[None] | None]


class Filter:
    """A base with hooks that do nothing: override those you need, with `def` or `async def`.

    Filters run in ascending `order`; at equal order those of the app before those of the task, and as they were added.
    Hooks that come after something run the other way round. An error in `enqueuing` refuses the enqueueing and one in
    `performing` is the failure of the attempt; one in any other hook is logged and changes nothing.
    """

    order: int = 0

    def enqueuing(self, call: Enqueuing) -> Awaitable[None] | None:
        """A job is about to be enqueued, in the process that asks for it."""

    def enqueued(self, call: Enqueued) -> Awaitable[None] | None:
        """It exists now, or could not be enqueued."""

    def performing(self, attempt: Performing) -> Awaitable[None] | None:
        """An attempt is about to run, on the worker."""

    def performed(self, attempt: Performed) -> Awaitable[None] | None:
        """It has ended. Called if `performing` of this filter has returned, whatever happened then."""

    def electing(self, election: Election) -> Awaitable[None] | None:
        """The worker decides what the store shall make of the attempt."""

    def applied(self, change: Applied) -> Awaitable[None] | None:
        """The store has answered."""


class RetryRules(Filter):
    """`Retry(on=, not_on=)`: the part of a retry rule that needs the types of exceptions, which the store does not know."""

    order = RETRY_RULES_ORDER

    def electing(self, election: Election) -> None:
        outcome = election.outcome
        if isinstance(outcome, Fail) and not may_retry(election.all_headers, outcome.failure.error_types):
            election.fail(retry=False)


class FilterChain:
    """The hooks that one task's jobs pass, in order; a hook that nobody overrides costs nothing."""

    __slots__ = (
        "applied",
        "around_attempts",
        "electing",
        "elects_failures_only",
        "enqueued",
        "enqueuing",
        "filters",
    )

    def __init__(self, filters: Iterable[Filter]) -> None:
        self.filters = tuple(sorted(filters, key=lambda each: each.order))
        self.enqueuing = self._hooks("enqueuing")
        self.enqueued = self._hooks("enqueued")[::-1]
        self.electing = self._hooks("electing")
        # A success, which most attempts are, has nothing to pass where only the rules of retries are in the chain.
        self.elects_failures_only = all(isinstance(each, RetryRules) for each in self._overriding("electing"))
        self.applied = self._hooks("applied")[::-1]
        pairs = [(_hook(each, "performing"), _hook(each, "performed")) for each in self.filters]
        self.around_attempts = [pair for pair in pairs if pair != (None, None)]

    @property
    def is_for_clients(self) -> bool:
        return bool(self.enqueuing or self.enqueued)

    def _overriding(self, name: str) -> list[Filter]:
        return [each for each in self.filters if _hook(each, name) is not None]

    def _hooks(self, name: str) -> tuple[Hook, ...]:
        return tuple(getattr(each, name) for each in self._overriding(name))


def _hook(of: Filter, name: str) -> Hook | None:
    return None if getattr(type(of), name) is getattr(Filter, name) else getattr(of, name)


BUILT_IN: Final = (RetryRules(),)
NO_FILTERS: Final = FilterChain(BUILT_IN)
