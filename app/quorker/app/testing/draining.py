"""Running what is runnable, on a trio loop, with the worker that production has, until nothing moves any more.

One job runs at a time, in the order in which the store grants them; only when all that run wait for something is one more
let in. When nothing runs and something sleeps, the clock moves to the earliest alarm: that of the loop and that of the
store together, if the loop is ours. What must not live here: which loop it is (`app_under_test.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from quorker.app.front_door import Attachable
from quorker.app.testing.inline import InlineExecutor, TestingStopped
from quorker.app.worker_server import WorkerServer, serve_jobs
from quorker.core.jobs.commands import JobGrant, Subscribe
from quorker.transport.memory import MemoryConnection, MemoryStore

SLOTS_MAX: Final = 20
DAY_MS: Final = 24 * 3600 * 1000
NAPS_MAX: Final = 1_000  # of one drain: enough for any work, too many for a loop that waits in vain


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """`attempts_max` before the clock moves; `until_lt`: let time pass up to there, None not to."""

    queues: tuple[str, ...]
    result_bytes_max: int
    attempts_max: int
    until_lt: int | None = None


class Draining:
    """One drain. `clock` is the loop's, if it may be moved; a loop of somebody else keeps its own time."""

    def __init__(
        self, memory: MemoryStore, connection: MemoryConnection, plan: DrainPlan, clock: MockClock | None
    ) -> None:
        self._memory = memory
        self._connection = connection
        self._plan = plan
        self._clock = clock
        self._scope = trio.CancelScope()
        self._executor = InlineExecutor(plan.result_bytes_max, plan.attempts_max, self._stop)
        self._stopped: BaseException | None = None
        self._slots = 1
        self._naps = 0
        self._patient_lt = memory.lt + DAY_MS

    async def run(self, app: Attachable) -> int:
        """The number of attempts that were made. Raises `TestingStopped`."""
        with self._scope:
            serving = serve_jobs(
                self._connection,
                app.tasks,
                self._executor,
                app.filters_for,
                self._plan.queues,
                self._slots,
                0.0,
            )
            async with serving as server:
                await self._let_time_pass(server)
            return server.counts.started
        assert self._stopped is not None
        raise self._stopped

    def _stop(self, why: BaseException) -> None:
        self._stopped = why
        self._subscribe(0)  # what is given back stays in its queue
        self._scope.cancel()

    def _subscribe(self, slots: int) -> None:
        self._connection.submit_now(Subscribe(self._plan.queues, slots))

    async def _let_time_pass(self, server: WorkerServer) -> None:
        await self._until_idle(server)
        end = self._plan.until_lt
        while end is not None and self._memory.lt < end:
            due = self._memory.next_due_lt()
            self._memory.advance(max(1, min(end, end if due is None else due) - self._memory.lt))
            self._executor.start_anew()
            self._naps = 0
            self._patient_lt = self._memory.lt + DAY_MS
            await self._until_idle(server)

    async def _until_idle(self, server: WorkerServer) -> None:
        while True:
            await wait_all_tasks_blocked()
            if not server.running:
                return
            if not self._let_one_more_in():
                await self._sleep(server)

    def _let_one_more_in(self) -> bool:
        """Those that run wait, perhaps for one that stands in the queue."""
        queues = [self._memory.store.queues.get(name) for name in self._plan.queues]
        if self._slots == SLOTS_MAX or not any(queue is not None and queue.length for queue in queues):
            return False
        before = len(self._memory.store.leases)
        self._subscribe(self._slots + 1)
        if len(self._memory.store.leases) == before:
            self._subscribe(self._slots)
            return False
        self._slots += 1
        return True

    async def _sleep(self, server: WorkerServer) -> None:
        if self._clock is None:  # something outside, or time itself, wakes them
            await self._memory.wait_applied(self._memory.store.applied_index + 1)
            return
        step = self._ms_to_next_alarm()
        self._naps += 1
        if step is None or self._naps > NAPS_MAX:
            self._stop(_why_stuck(server.running))
            await trio.sleep_forever()
        assert step is not None
        self._clock.jump(step / 1000)
        await wait_all_tasks_blocked()  # the worker's own timeout comes before the store's
        self._memory.advance(step)
        self._executor.start_anew()

    def _ms_to_next_alarm(self) -> int | None:
        """Of the loop or of the store. Without one of the loop, the store's only within a day: sessions always have one."""
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        due = self._memory.next_due_lt()
        if math.isinf(seconds) and (due is None or due > self._patient_lt):
            return None
        alarms = [] if math.isinf(seconds) else [math.ceil(seconds * 1000)]
        if due is not None:
            alarms.append(due - self._memory.lt)
        return max(1, min(alarms))


def _why_stuck(running: Sequence[JobGrant]) -> TestingStopped:
    named = ", ".join(f"{grant.task} ({grant.job_id})" for grant in running[:5])
    return TestingStopped(
        f"{named}: waits for what never comes, or sleeps again and again, and no other job is left that could run"
    )
