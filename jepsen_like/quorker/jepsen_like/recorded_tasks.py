"""What jobs do on members that are real processes: little, after having written down outside the cluster that they run.

`app` is what the members serve; clients register the same tasks on an App of their own.
"""

from __future__ import annotations

import time
from typing import Final

import trio

from quorker.app.app import App
from quorker.app.context import current_job
from quorker.app.demo.ledger import own_ledger

RECORDED_APP: Final = "quorker.jepsen_like.recorded_tasks:app"


async def deliver(seconds: float, ballast: bytes) -> None:
    """On the member's own loop. `ballast` fills the log, so that segments and snapshots come soon."""
    with own_ledger().execution(current_job):
        await trio.sleep(seconds)


def compute(seconds: float, ballast: bytes) -> None:
    """In a worker process of the member."""
    with own_ledger().execution(current_job):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass


def recorded_app() -> App:
    made = App("recorded")
    made.task(deliver)
    made.task(compute)
    return made


app = recorded_app()
