"""A worker's thinking half: which granted jobs run here, and which must stop because they are no longer ours.

The state machine dispatches jobs to a session's free slots; this file remembers what arrived, so that a grant seen
twice runs once, and decides what to cancel when the session is lost or its local deadline passes (guarantee T3).
Running anything is the business of `quorker.app`; renewing the session is `quorker.core.session`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from quorker.core.jobs.commands import JobGrant


@dataclass(slots=True)
class Worker:
    """The jobs of one session that run in this process, by token."""

    running: dict[int, JobGrant] = field(default_factory=dict[int, JobGrant])
    stopped: bool = False
    _highest_token: int = 0

    def on_granted(self, grants: Iterable[JobGrant]) -> list[JobGrant]:
        """The grants that must be started now. Tokens only grow, so anything old was seen before."""
        started = [
            grant for grant in grants if grant.token not in self.running and grant.token > self._highest_token
        ]
        for grant in started:
            self.running[grant.token] = grant
            self._highest_token = max(self._highest_token, grant.token)
        return started

    def on_finished(self, token: int) -> bool:
        """The job of this token ended here; True when it was still ours to report."""
        return self.running.pop(token, None) is not None

    def on_cancelled(self, token: int) -> bool:
        """The store took this job away from us; True when it is running and must be stopped."""
        return token in self.running

    def give_up(self) -> list[int]:
        """The session is lost or past its local deadline: the tokens of all jobs that must stop now."""
        return list(self.running)
