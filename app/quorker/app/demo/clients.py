"""The demo's clients: enqueue at a steady pace through different members, and note what was acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from quorker.app.app import App
from quorker.app.demo.tasks import register_tasks
from quorker.core.errors import NotApplied, Unknown

LANES: Final = 4  # calls under way per client
_RETRY_SECONDS: Final = 0.1
_UNIQUE_SECONDS: Final = 3600
# (task, seconds of work) by the last digit of a job's number: mostly quick ones, a few that run long enough to be killed.
_MIX: Final = (
    *(("deliver", 0.005),) * 5,
    ("stumble", 0.005),
    *(("compute", 0.005),) * 2,
    ("compute", 0.02),
    ("deliver", 1.0),
)


class Workload:
    """Jobs numbered from 0, dealt out to clients as far as allowed; `acknowledged` maps job ids to numbers."""

    def __init__(self, jobs: int, seconds: float) -> None:
        self.jobs = jobs
        self.acknowledged: dict[str, int] = {}
        self.unknown = 0
        self._next = 0
        self._allowed = 0
        self._interval = seconds / jobs
        self._started = 0.0
        self._changed = trio.Event()

    def allow(self, count: int) -> None:
        """Deal out the first `count` jobs; the rest is kept back, so that there is work left for what comes."""
        self._allowed = count
        self._notify()

    async def wait_acknowledged(self, count: int) -> None:
        while len(self.acknowledged) < count:
            await self._changed.wait()

    async def run_client(self, addresses: Sequence[str]) -> None:
        """One client with an app and a connection of its own, until all jobs are dealt out."""
        app = register_tasks(App("demo"))
        async with app.connect(*addresses), trio.open_nursery() as nursery:
            for _ in range(LANES):
                nursery.start_soon(self._run_lane, app)

    async def _run_lane(self, app: App) -> None:
        while self._next < self.jobs:
            if self._next >= self._allowed:
                await self._changed.wait()
                continue
            number = self._next
            self._next += 1
            await self._enqueue(app, number)
            await trio.sleep_until(self._due(number))

    def _due(self, number: int) -> float:
        self._started = self._started or trio.current_time()
        return self._started + number * self._interval

    async def _enqueue(self, app: App, number: int) -> None:
        """Until it is acknowledged. With the key, a repetition after an unknown outcome finds the first job."""
        name, seconds = _MIX[number % len(_MIX)]
        task = app.tasks[name].using(unique=f"demo-{number}", unique_for=_UNIQUE_SECONDS)
        while True:
            try:
                self._note((await task.aenqueue(number, seconds)).id, number)
                return
            except Unknown:
                self.unknown += 1
            except NotApplied:
                await trio.sleep(_RETRY_SECONDS)

    def _note(self, job_id: str, number: int) -> None:
        self.acknowledged[job_id] = number
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
