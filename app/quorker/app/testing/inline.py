"""Jobs that run inside the loop of a drain, plain functions too, and the limit of how many. What must not live here: what
becomes of an outcome, which is decided as on a worker (`worker_server.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import trio

from quorker.app.children import Done
from quorker.app.context import JobContext, enter_job
from quorker.app.gateway import plain_code
from quorker.app.payload import decode_call, encode_result
from quorker.app.tasks import RegisteredTask
from quorker.core.errors import QuorkerError
from quorker.core.jobs.commands import JobGrant


class TestingStopped(QuorkerError):
    """Jobs would have run, or waited, without an end."""

    __test__ = False


class InlineExecutor:
    """Runs attempts here, at most `attempts_max` before the clock moves; then `stop` ends the drain."""

    def __init__(
        self, result_bytes_max: int, attempts_max: int, stop: Callable[[BaseException], None]
    ) -> None:
        self._result_bytes_max = result_bytes_max
        self._attempts_max = attempts_max
        self._stop = stop
        self._attempts: Counter[str] = Counter()

    def start_anew(self) -> None:
        """The clock has moved: what runs from now on is no endless loop yet."""
        self._attempts.clear()

    async def run(self, task: RegisteredTask, grant: JobGrant, job: JobContext) -> Done:
        """Run one attempt. What the function raises is raised here."""
        await self._count(task.name)
        enter_job(job)
        args, kwargs = decode_call(grant.args)
        if task.runs_in == "trio":
            result = await task.function(*args, **kwargs)
        else:
            result = await self._call_plain(task, args, kwargs)
        return Done(encode_result(result, bytes_max=self._result_bytes_max))

    async def _call_plain(self, task: RegisteredTask, args: list[Any], kwargs: dict[str, Any]) -> Any:
        try:
            with plain_code():
                return task.function(*args, **kwargs)
        except KeyboardInterrupt as interrupt:  # whoever runs the tests, not the task
            self._stop(interrupt)
            await trio.sleep_forever()

    async def _count(self, task: str) -> None:
        if self._attempts.total() == self._attempts_max:
            self._stop(self._why_stopped())
            await trio.sleep_forever()
        self._attempts[task] += 1

    def _why_stopped(self) -> TestingStopped:
        counted = ", ".join(f"{name} {times} times" for name, times in self._attempts.most_common(5))
        return TestingStopped(
            f"{self._attempts_max} attempts were made, more are to come, and the clock has not moved ({counted}): does a "
            f"task enqueue itself again? Give it a delay, or allow more with limit=..."
        )
