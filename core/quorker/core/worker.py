"""A worker's thinking half: which granted jobs run here, and which must stop because they are no longer ours.

The state machine dispatches jobs to a session's free slots; this file remembers what arrived, so that a grant seen
twice runs once, and decides what to cancel when the session is lost or its local deadline passes (guarantee T3).
Running anything is the business of `quorker.app`; renewing the session is `quorker.core.session`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from quorker.core.jobs.commands import JobGrant

SEEN_MAX: Final = 4096  # four times what one session may hold at once


@dataclass(slots=True)
class Worker:
    """The jobs of one session that run in this process, by token."""

    running: dict[int, JobGrant] = field(default_factory=dict[int, JobGrant])
    stopped: bool = False
    _seen: dict[int, None] = field(default_factory=dict[int, None])  # the newest tokens, as they came
    _seen_to: int = 0  # whatever is not above this is taken for seen

    def on_granted(self, grants: Iterable[JobGrant]) -> list[JobGrant]:
        """The grants that must be started now, each once.

        They need not come in order: a member that took over a snapshot tells what it had skipped after what is new.
        """
        started: list[JobGrant] = []
        for grant in grants:
            if grant.token > self._seen_to and grant.token not in self._seen:
                self.running[grant.token] = grant
                self._remember(grant.token)
                started.append(grant)
        return started

    def _remember(self, token: int) -> None:
        self._seen[token] = None
        if len(self._seen) > SEEN_MAX:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            self._seen_to = max(self._seen_to, oldest)

    def on_finished(self, token: int) -> bool:
        """The job of this token ended here; True when it was still ours to report."""
        return self.running.pop(token, None) is not None

    def on_cancelled(self, token: int) -> bool:
        """The store took this job away from us; True when it is running and must be stopped."""
        return token in self.running

    def give_up(self) -> list[int]:
        """The session is lost or past its local deadline: the tokens of all jobs that must stop now."""
        return list(self.running)
