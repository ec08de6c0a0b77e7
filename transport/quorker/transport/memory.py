"""A job store in this process's memory with a clock that only moves when told: for tests of storage users and of apps.

Every command becomes one log entry of its own, packed and decoded like on a cluster, and what is due is proposed as a
leader would. There is no replication, no disk, and no real time but in the timeouts of waiting calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import trio

from quorker.core.errors import ConfigurationError, QuorkerError, Rejected
from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import (
    CloseSession,
    Command,
    JobGrant,
    KeepAlive,
    OpenSession,
    Subscribe,
    encode,
)
from quorker.core.jobs.lifecycle import ENDED
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.outcome import Cancelled, Notice, Outcome, Reply
from quorker.core.jobs.store import JobStore
from quorker.core.session import LEASE_SHARE, check_size
from quorker.transport.connection import Answer, Consistency, Status
from quorker.transport.session_driver import JobReceiver, OnCancel, SessionDriver

FIRST_WT: Final = 1_767_225_600_000  # 2026-01-01 UTC
SESSION_TTL_MS: Final = 24 * 3600 * 1000
MAINTENANCE_ROUNDS_MAX: Final = 10_000
NO_SESSION: Final = 0
_codec: Any = msgpack


class MemoryStore:
    """One job store and its clock, shared by any number of connections. All times in ms."""

    def __init__(self, limits: Limits | None = None, wt: int = FIRST_WT) -> None:
        self.store = JobStore(limits or Limits())
        self.lt = 0
        self.wt = wt
        self._connections: dict[int, MemoryConnection] = {}
        self._nonce = 0
        self._changed = trio.Event()

    # ------------------------------------------------------------------ connections

    def connect(self, name: str = "memory", ttl_ms: int = SESSION_TTL_MS) -> MemoryConnection:
        """A connection with a session of its own, which is renewed for as long as it neither closes nor vanishes."""
        self._nonce += 1
        reply = self.apply(NO_SESSION, 0, self._nonce, OpenSession(name, ttl_ms))
        connection = MemoryConnection(self, _value(reply), ttl_ms)
        self._connections[connection.session_id] = connection
        return connection

    def forget(self, session_id: int) -> None:
        """The session is not renewed any more, and gets no more notices."""
        self._connections.pop(session_id, None)

    # ------------------------------------------------------------------ applying

    def apply(self, session: int, acked_below: int, seq: int, command: Command) -> Reply:
        """One command as one entry. Returns its reply, after everything that has become due with it."""
        outcome = self._apply_entry(session, acked_below, [(seq, encode(command))])
        reply = next(reply for whose, number, reply in outcome.replies if (whose, number) == (session, seq))
        self.maintain()
        return reply

    def _apply_entry(self, session: int, acked_below: int, commands: list[tuple[int, Any]]) -> Outcome:
        entry = encode_entry(self.lt, self.wt, [encode_group(session, acked_below, commands)])
        outcome = self.store.apply(self.store.applied_index + 1, entry)
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        for notice in outcome.notices:
            connection = self._connections.get(notice.session)
            if connection is not None:
                connection.on_notice(notice)
        return outcome

    def maintain(self) -> None:
        """Do what a leader would propose now, until nothing is due."""
        for _ in range(MAINTENANCE_ROUNDS_MAX):
            commands = self.store.due(self.lt, self.wt)
            if not commands:
                return
            self._apply_entry(NO_SESSION, 0, [(0, command) for command in commands])
        raise AssertionError("maintenance does not come to an end")

    # ------------------------------------------------------------------ time

    def advance(self, ms: int) -> None:
        """Let time pass; what becomes due on the way happens at its instant. Live sessions are renewed."""
        end = self.lt + ms
        while self.lt < end:
            step = max(1, min(self._next_event(), end) - self.lt)
            self.lt += step
            self.wt += step
            for connection in list(self._connections.values()):
                connection.renew()
            self.maintain()

    def next_due_lt(self) -> int | None:
        """The log time of what the store waits for next, None if it waits for nothing."""
        due_lt, due_wt = self.store.next_due()
        events: list[int] = []
        if due_lt is not None:
            events.append(due_lt)
        if due_wt is not None:
            events.append(self.lt + due_wt - self.wt)
        return min(events, default=None)

    def _next_event(self) -> int:
        """The log time of the next renewal, or of what is due next."""
        due = self.next_due_lt()
        events = [connection.renewal_lt for connection in self._connections.values()]
        if due is not None:
            events.append(due)
        return min(events, default=self.lt + SESSION_TTL_MS)

    def restart(self) -> None:
        """Everything but a snapshot is lost, and read back from it."""
        view = self.store.snapshot()
        self.store = JobStore.restore(view.chunks(), self.store.limits)

    def has_ended(self, job_id: str) -> bool:
        """Is the job in a final state, or unknown."""
        job = self.store.jobs.get(job_id)
        return job is None or job.state in ENDED

    async def wait_applied(self, index: int) -> None:
        """Return once everything up to `index` is applied."""
        while self.store.applied_index < index:
            await self._changed.wait()


class MemoryConnection:
    """A `Connection` to a store in memory. One worker at a time."""

    def __init__(self, memory: MemoryStore, session_id: int, ttl_ms: int) -> None:
        self._memory = memory
        self._session_id = session_id
        self._ttl_ms = ttl_ms
        self._renewed_lt = memory.lt
        self._seq = 0
        self._receiver: JobReceiver | None = None

    @property
    def session_id(self) -> int:
        return self._session_id

    async def submit(self, command: Command, *, timeout: float | None = None) -> Any:
        """See `Connection`. Nothing can take long here: the timeout is ignored."""
        await trio.lowlevel.checkpoint()
        return self.submit_now(command)

    def submit_now(self, command: Command) -> Any:
        """Like `submit`, for code without a trio loop."""
        return _value(self._apply(command))

    def submit_nowait(self, command: Command, resolve: Callable[[Any, QuorkerError | None], None]) -> None:
        """Apply now, and hand the outcome to `resolve`."""
        reply = self._apply(command)
        if reply[0] == 0:
            resolve(reply[1], None)
        else:
            resolve(None, Rejected(reply[1], reply[2]))

    @property
    def lease_seconds(self) -> float:
        """See `Connection`; by the store's clock."""
        return (self._renewed_lt + self._ttl_ms * LEASE_SHARE - self._memory.lt) / 1000

    async def query(self, name: str, args: dict[str, Any], *, consistency: Consistency = "local") -> Answer:
        """See `Connection`. Values have passed through msgpack, as they do everywhere else."""
        await trio.lowlevel.checkpoint()
        return Answer(self.query_now(name, args), self._memory.store.applied_index, 0)

    def query_now(self, name: str, args: dict[str, Any]) -> Any:
        """The value of `query`, for code without a trio loop."""
        return _codec.unpackb(_codec.packb(self._memory.store.query(name, args)))

    async def status(self) -> Status:
        await trio.lowlevel.checkpoint()
        return self.status_now()

    def status_now(self) -> Status:
        index = self._memory.store.applied_index
        return Status(1, "memory", "leader", 1, 1, (1,), index, index, index, 0, 0, "")

    async def wait_applied(self, index: int) -> None:
        """Return once everything up to `index` is applied."""
        await self._memory.wait_applied(index)

    async def wait_finished(self, job_id: str, timeout: float) -> None:
        """See `Connection`. `timeout` is in seconds of trio's clock, not of the store's."""
        with trio.fail_after(timeout):
            while not self._memory.has_ended(job_id):
                await self.wait_applied(self._memory.store.applied_index + 1)

    @asynccontextmanager
    async def worker(
        self, queues: Sequence[str], slots: int, on_cancel: OnCancel
    ) -> AsyncGenerator[JobReceiver]:
        """See `Connection`. Leaving the block ends the subscription; jobs in hand stay with the session."""
        if self._receiver is not None:
            raise ConfigurationError("this connection already works on queues: connect another one")
        # A receiver asks no more of its driver than `submit` and `submit_nowait`.
        self._receiver = JobReceiver(cast("SessionDriver", self), tuple(queues), slots, on_cancel)
        try:
            self._receiver.subscribe()
            yield self._receiver
        finally:
            self._apply(Subscribe((), 0))
            self._receiver = None

    # ------------------------------------------------------------------ the end of a session

    async def close(self) -> None:
        """End the session: jobs and locks go back at once."""
        self._memory.forget(self._session_id)
        self._apply(CloseSession())
        await trio.lowlevel.checkpoint()

    def vanish(self) -> None:
        """Die without a word: what this session holds is lost when its time is up."""
        self._memory.forget(self._session_id)
        self._receiver = None

    # ------------------------------------------------------------------ called by the store

    @property
    def renewal_lt(self) -> int:
        return self._renewed_lt + self._ttl_ms // 3

    def renew(self) -> None:
        if self._memory.lt >= self.renewal_lt:
            self._apply(KeepAlive())

    def on_notice(self, notice: Notice) -> None:
        if self._receiver is None:
            return
        if isinstance(notice.payload, JobGrant):
            self._receiver.on_grants([notice.payload])
        elif isinstance(notice.payload, Cancelled):
            self._receiver.on_cancel_notice(notice.payload.token, notice.payload.reason)
        elif notice.kind == "session_closed":
            self._receiver.on_lost(str(notice.payload))

    def _apply(self, command: Command) -> Reply:
        check_size(command, len(_codec.packb((self._seq + 1, encode(command)))))
        self._seq += 1
        self._renewed_lt = self._memory.lt
        return self._memory.apply(self._session_id, self._seq, self._seq, command)


def _value(reply: Reply) -> Any:
    """The value of a reply. Raises `Rejected`."""
    if reply[0] == 0:
        return reply[1]
    raise Rejected(reply[1], reply[2])
