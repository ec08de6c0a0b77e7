"""What the demo's jobs do: next to nothing, and they write down that they did it. `app` is what its members serve."""

from __future__ import annotations

import time

import trio

from quorker.app.app import App
from quorker.app.context import current_job
from quorker.app.demo.ledger import own_ledger
from quorker.app.settings import Retry


async def deliver(number: int, seconds: float) -> int:
    """Runs on the member's own loop."""
    with own_ledger().execution(current_job):
        await trio.sleep(seconds)
    return number


async def stumble(number: int, seconds: float) -> int:
    """Fails at its first attempt, always."""
    with own_ledger().execution(current_job):
        await trio.sleep(seconds)
        if current_job.attempt == 1:
            raise ConnectionError("the first attempt fails on purpose")
    return number


def compute(number: int, seconds: float) -> int:
    """Runs in a worker process and keeps its processor busy."""
    with own_ledger().execution(current_job):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    return number


def register_tasks(on: App) -> App:
    """Register the tasks; members and clients have an App each."""
    retry = Retry(max=5, delays=[0.2])
    on.task(retry=retry, timeout=20)(deliver)
    on.task(retry=retry, timeout=20)(stumble)
    on.task(retry=retry, timeout=20, queue="heavy")(compute)
    return on


app = register_tasks(App("demo"))
