"""What every way into the job store looks like: a member node, a client of one, or a store in memory.

Only the shape stands here. `node.py`, `client.py` and `memory.py` implement it; `quorker.app` and the storage
contract are written against it, so both run on all three.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from quorker.core.jobs.commands import Command, JobGrant
from quorker.core.session import Resolve

Consistency: TypeAlias = Literal["local", "linearizable"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a query: `value` as of `applied_index`. Everything acknowledged anywhere more than `age_ms` before the
    answer, by the answering member's clock, is in it; -1 if that member has no proof yet."""

    value: Any
    applied_index: int
    age_ms: int


@dataclass(frozen=True, slots=True)
class Status:
    """Health of one member (Hangfire's GetHealth and more). Times in milliseconds; None where unknown."""

    node_id: int
    cluster_id: str
    role: str
    term: int
    leader: int
    members: tuple[int, ...]
    commit_index: int
    applied_index: int
    last_index: int
    lag: int | None  # entries in its log that it has not applied; None without a leader: nobody here can tell
    leader_contact_age_ms: int | None
    faulted: str  # "" when healthy, else why
    version: str = ""
    contradiction: str = ""  # where members differed in their state, since this one was started
    rejoining: str = ""  # what this member may have forgotten, and has no vote for; "" when it has one
    learners: tuple[int, ...] = ()  # members without a vote
    followers: tuple[tuple[int, int], ...] = ()  # at the leader: (node, entries it is not known to hold)


class WorkerHandle(Protocol):
    """The receiving end of a worker: jobs arrive, their outcomes go back. All `_nowait` calls only queue a command;
    the session keeps it until it is answered, across leader changes."""

    async def receive(self) -> Sequence[JobGrant]:
        """Wait for granted jobs (at least one). Raises `trio.EndOfChannel` once stopped and drained of grants."""
        ...

    def complete_nowait(self, grant: JobGrant, result: bytes) -> None: ...

    def fail_nowait(self, grant: JobGrant, error_type: str, message: str, trace: str) -> None: ...

    def report_nowait(self, grant: JobGrant, command: Command, resolve: Resolve) -> None:
        """Any other outcome; `resolve(value, error)` is called with what the store says. The command must hold the grant's
        token, for the store to refuse it when the job is in other hands."""
        ...

    def release_nowait(self, grant: JobGrant) -> None:
        """Give the job back to the head of its queue without spending an attempt."""
        ...

    async def stop(self) -> None:
        """Take no more jobs; returns when the store has agreed. Running jobs go on and may still be reported."""
        ...

    async def wait_reported(self) -> None:
        """Wait until every outcome queued so far is answered by the store."""
        ...


class Connection(Protocol):
    """A way into the job store, with one session of its own. Safe to share between tasks of one trio loop."""

    @property
    def session_id(self) -> int: ...

    def submit(self, command: Command, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Apply one command exactly once; returns its value.

        `timeout` in seconds (None: the connection's default). Raises `Rejected` when the state machine refuses,
        `NotApplied` or `Busy` when it definitely has no effect, `Unknown` when it may have, and `InvalidInput` at once
        for a command that is too large to be sent.
        """
        ...

    def submit_nowait(self, command: Command, resolve: Resolve) -> None:
        """Like `submit`, but the session asks for as long as it lives: `resolve(value, error)` is called on its loop."""
        ...

    @property
    def lease_seconds(self) -> float:
        """How long the session surely lives from now, by this process's own clock: what it holds must stop then (T3)."""
        ...

    async def query(self, name: str, args: dict[str, Any], *, consistency: Consistency = "local") -> Answer:
        """Read. `local` is monotonic and sees this session's own acknowledged writes."""
        ...

    async def status(self) -> Status: ...

    async def wait_finished(self, job_id: str, timeout: float) -> None:
        """Return when the job has reached a final state (or is unknown); raise `trio.TooSlowError` after `timeout` s."""
        ...

    def worker(
        self, queues: Sequence[str], slots: int, on_cancel: Callable[[int, str], None]
    ) -> AbstractAsyncContextManager[WorkerHandle]:
        """Subscribe to queues (first is most urgent) with `slots` jobs at a time.

        `on_cancel(token, reason)` is called when a running job must stop: deleted, or its lease is no longer ours.
        """
        ...
