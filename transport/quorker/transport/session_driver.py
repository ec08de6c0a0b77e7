"""A client session on trio: callers park until their command is answered, a worker receives its jobs.

Shared by `node.py` (replies come from the local replica) and `client.py` (replies come over a socket). It moves no
bytes itself: its owner takes groups from `session` when `wake` is called, and feeds replies and notices back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from secrets import randbits
from typing import Any, Final

import outcome
import trio

from quorker.core.errors import ConfigurationError, QuorkerError, Rejected
from quorker.core.jobs.commands import (
    CloseSession,
    Command,
    CompleteJob,
    FailJob,
    JobGrant,
    ReleaseJob,
    Subscribe,
)
from quorker.core.session import ClientSession, Resolve, SessionConfig, SessionState
from quorker.core.worker import Worker
from quorker.transport.clock import monotonic_ms

OUTCOME_DEADLINE_MS: Final = 24 * 3600 * 1000  # an outcome is kept as long as the session lives
NONCE_BITS: Final = 62

OnCancel = Callable[[int, str], None]


class SessionDriver:
    """One session and, at most, one worker. `wake` is called whenever there is something to send."""

    def __init__(self, config: SessionConfig, wake: Callable[[], None], default_timeout: float) -> None:
        self.session = ClientSession(config, randbits(NONCE_BITS), monotonic_ms())
        self.worker: JobReceiver | None = None
        self.default_timeout = default_timeout
        self._wake = wake
        self._opened = trio.Event()
        self._closing = False

    def open(self) -> None:
        self.session.open(monotonic_ms(), randbits(NONCE_BITS))
        self._wake()

    async def wait_open(self) -> None:
        while self.session.state is not SessionState.OPEN:
            await self._opened.wait()

    async def submit(self, command: Command, timeout: float | None = None) -> Any:
        """Apply one command exactly once and return its value; see `Connection.submit`."""
        self._closing = self._closing or isinstance(command, CloseSession)
        now = monotonic_ms()
        task = trio.lowlevel.current_task()

        def resolve(value: Any, error: QuorkerError | None) -> None:
            trio.lowlevel.reschedule(task, outcome.Value(value) if error is None else outcome.Error(error))

        limit = self.default_timeout if timeout is None else timeout
        seq = self.session.submit(command, now, now + int(limit * 1000), resolve)
        self._wake()

        def abort(_: Any) -> trio.lowlevel.Abort:
            self.session.abandon(seq)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    def submit_nowait(self, command: Command, resolve: Resolve) -> None:
        now = monotonic_ms()
        self.session.submit(command, now, now + OUTCOME_DEADLINE_MS, resolve)
        self._wake()

    @property
    def lease_seconds(self) -> float:
        """See `Connection`."""
        return (self.session.lease_deadline_ms - monotonic_ms()) / 1000

    # ------------------------------------------------------------------ fed by the owner

    def on_opened(self, session_id: int) -> None:
        self.session.on_opened(session_id)
        event, self._opened = self._opened, trio.Event()
        event.set()

    def on_reply(self, seq: int, reply: Any) -> None:
        self.session.on_reply(seq, reply)
        if self.session.state is SessionState.LOST:
            self.on_lost(self.session.lost_reason)

    def on_lost(self, reason: str) -> None:
        """The session is gone: whatever it held must stop, and a new one is opened, unless this was goodbye."""
        self.session.on_lost(reason)
        if self.worker is not None:
            self.worker.on_lost(reason)
        if self._closing:
            return
        self.open()
        if self.worker is not None:
            self.worker.subscribe()

    def on_grants(self, grants: Iterable[JobGrant]) -> None:
        if self.worker is not None:
            self.worker.on_grants(grants)

    def on_cancel(self, token: int, reason: str) -> None:
        if self.worker is not None:
            self.worker.on_cancel_notice(token, reason)

    def tick(self, now_ms: int) -> None:
        self.session.tick(now_ms)
        if self.worker is not None and now_ms >= self.session.lease_deadline_ms:
            self.worker.on_lost("the lease could not be renewed in time")

    # ------------------------------------------------------------------ working

    @asynccontextmanager
    async def work(
        self, queues: Sequence[str], slots: int, on_cancel: OnCancel
    ) -> AsyncGenerator[JobReceiver]:
        if self.worker is not None:
            raise ConfigurationError(
                "this connection already works on queues: open another one for a second worker"
            )
        self.worker = JobReceiver(self, tuple(queues), slots, on_cancel)
        try:
            self.worker.subscribe()
            yield self.worker
        finally:
            self.worker = None


class JobReceiver:
    """The receiving end of a worker (see `WorkerHandle`): a thin shell around `quorker.core.worker.Worker`."""

    def __init__(
        self, driver: SessionDriver, queues: tuple[str, ...], slots: int, on_cancel: OnCancel
    ) -> None:
        self._driver = driver
        self._queues = queues
        self._slots = slots
        self._on_cancel = on_cancel
        self._worker = Worker()
        self._arrived: list[JobGrant] = []
        self._cancelled: set[int] = set()
        self._unreported = 0
        self._changed = trio.Event()

    # called by the driver

    def subscribe(self) -> None:
        slots = 0 if self._worker.stopped else self._slots
        self._driver.submit_nowait(Subscribe(self._queues, slots), lambda value, error: None)

    def on_grants(self, grants: Iterable[JobGrant]) -> None:
        started = self._worker.on_granted(grants)
        if started:
            is_first = not self._arrived  # whoever waits for more than one is woken already
            self._arrived.extend(started)
            if is_first:
                self._notify()

    def on_cancel_notice(self, token: int, reason: str) -> None:
        if not self._worker.on_cancelled(token) or token in self._cancelled:
            return
        if any(grant.token == token for grant in self._arrived):
            # Nobody runs it yet. If it is still leased to us after all, the store must not wait for its outcome.
            self._release_arrived(token)
            return
        self._cancelled.add(token)
        self._on_cancel(token, reason)

    def _release_arrived(self, token: int) -> None:
        (grant,) = (grant for grant in self._arrived if grant.token == token)
        self._arrived.remove(grant)
        self.release_nowait(grant)

    def on_lost(self, reason: str) -> None:
        for token in self._worker.give_up():
            self.on_cancel_notice(token, reason)

    # the WorkerHandle

    @property
    def running(self) -> int:
        return len(self._worker.running)

    async def receive(self) -> list[JobGrant]:
        while not self._arrived:
            if self._worker.stopped:
                raise trio.EndOfChannel
            await self._changed.wait()
        arrived, self._arrived = self._arrived, []
        return arrived

    def complete_nowait(self, grant: JobGrant, result: bytes) -> None:
        self._report(grant, CompleteJob(grant.job_id, grant.token, result))

    def fail_nowait(self, grant: JobGrant, error_type: str, message: str, trace: str) -> None:
        self._report(grant, FailJob(grant.job_id, grant.token, error_type, message, trace))

    def release_nowait(self, grant: JobGrant) -> None:
        self._report(grant, ReleaseJob(grant.job_id, grant.token))

    def report_nowait(self, grant: JobGrant, command: Command, resolve: Resolve) -> None:
        if not self._report(grant, command, resolve):
            resolve(None, Rejected("lease_lost", f"job {grant.job_id} was reported before"))

    async def stop(self) -> None:
        self._worker.stopped = True
        self._notify()
        await self._driver.submit(Subscribe(self._queues, 0))

    async def wait_reported(self) -> None:
        while self._unreported:
            await self._changed.wait()

    # inside

    def _report(self, grant: JobGrant, command: Command, resolve: Resolve | None = None) -> bool:
        self._cancelled.discard(grant.token)
        if not self._worker.on_finished(grant.token):
            return False
        self._unreported += 1

        self._driver.submit_nowait(command, partial(self._on_answer, resolve))
        return True

    def _on_answer(self, resolve: Resolve | None, value: Any, error: QuorkerError | None) -> None:
        self._unreported -= 1
        if resolve is not None:
            resolve(value, error)
        if not self._unreported:
            self._notify()

    def _notify(self) -> None:
        event, self._changed = self._changed, trio.Event()
        event.set()
