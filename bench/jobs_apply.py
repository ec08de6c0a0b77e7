"""Prints what the state machine costs: microseconds per command in batches of 64, and the cost of a snapshot.

Run it by hand: `.venv/bin/python bench/jobs_apply.py [jobs]`. Figures are for this machine only.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import (
    Command,
    CompleteJob,
    EnqueueJobs,
    NewJob,
    OpenSession,
    Subscribe,
    encode,
)
from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Outcome
from quorker.core.jobs.store import JobStore

BATCH = 64
WT = 1_700_000_000_000


class Feeder:
    """Feeds a store and measures the processor time inside `apply` only."""

    def __init__(self) -> None:
        self.store = JobStore()
        self.index = 0
        self.seq = 0
        self.spent: list[float] = []
        self.session = 0

    def entry(self, commands: Sequence[Command]) -> bytes:
        first, self.seq = self.seq + 1, self.seq + len(commands)
        numbered = [(first + at, encode(command)) for at, command in enumerate(commands)]
        group = encode_group(self.session, first if self.session else 0, numbered)
        return encode_entry(self.index, WT + self.index, [group])

    def feed(self, commands: Sequence[Command]) -> Outcome:
        data = self.entry(commands)
        self.index += 1
        start = time.thread_time()
        outcome = self.store.apply(self.index, data)
        self.spent.append(time.thread_time() - start)
        return outcome


def grants(outcome: Outcome) -> list[JobGrant]:
    return [notice.payload for notice in outcome.notices if isinstance(notice.payload, JobGrant)]


def report(what: str, feeder: Feeder) -> None:
    """The median entry: other programs on this machine disturb single ones."""
    print(f"{what:44} {median(feeder.spent) / BATCH * 1e6:8.2f} us per command")
    feeder.spent.clear()


def enqueue_and_complete(jobs: int) -> Feeder:
    feeder = Feeder()
    feeder.session = feeder.feed([OpenSession("bench", 60_000)]).replies[0][2][1]  # type: ignore[assignment]  # an id
    one = EnqueueJobs((NewJob("tasks.send", b"x" * 100),))
    feeder.spent.clear()
    for _ in range(jobs // BATCH):
        feeder.feed([one] * BATCH)
    report("enqueue, no worker", feeder)
    held = grants(feeder.feed([Subscribe(("default",), BATCH)]))
    feeder.spent.clear()
    for _ in range(jobs // BATCH):
        held = grants(feeder.feed([CompleteJob(grant.job_id, grant.token, b"ok") for grant in held]))
    report("complete, and dispatch the next", feeder)
    for _ in range(jobs // BATCH):
        held = grants(feeder.feed([one] * BATCH))
        feeder.feed([CompleteJob(grant.job_id, grant.token, b"ok") for grant in held])
        feeder.spent.pop()
    report("enqueue and dispatch to an idle worker", feeder)
    return feeder


def timed(what: str, action: Callable[[], Any]) -> Any:
    start = time.thread_time()
    result = action()
    print(f"{what:44} {(time.thread_time() - start) * 1e3:8.2f} ms")
    return result


def snapshots(store: JobStore) -> None:
    view = timed(f"snapshot: instant copy of {len(store.jobs)} jobs", store.snapshot)
    chunks: list[bytes] = []
    worst, iterator = 0.0, view.chunks()
    start = time.thread_time()
    while True:
        before = time.thread_time()
        chunk = next(iterator, None)
        worst = max(worst, time.thread_time() - before)
        if chunk is None:
            break
        chunks.append(chunk)
    total = time.thread_time() - start
    print(f"{f'snapshot: {len(chunks)} chunks, {sum(map(len, chunks)) >> 20} MiB':44} {total * 1e3:8.2f} ms")
    print(f"{'snapshot: slowest chunk':44} {worst * 1e3:8.2f} ms")
    timed("restore", lambda: JobStore.restore(chunks))


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    gc.freeze()
    gc.set_threshold(50_000)
    snapshots(enqueue_and_complete(jobs).store)


if __name__ == "__main__":
    main()
