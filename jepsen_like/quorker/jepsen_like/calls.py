"""The few calls that workloads and tests make again and again, on any connection."""

from __future__ import annotations

from quorker.core.jobs.commands import EnqueueJobs, IncrementCounter, JobGrant, NewJob
from quorker.jepsen_like.waiting import PATIENCE_SECONDS, poll
from quorker.transport.connection import Connection, Consistency, WorkerHandle

QUEUE = "default"
TOTAL = "total"


async def enqueue(
    connection: Connection,
    count: int = 1,
    *,
    args: bytes = b"",
    queue: str = QUEUE,
    timeout: float | None = None,
) -> list[str]:
    """The ids of `count` new jobs, made by one command."""
    jobs = (NewJob("send", args, queue),) * count
    return list(await connection.submit(EnqueueJobs(jobs), timeout=timeout))


async def count_up(connection: Connection, key: str = TOTAL, *, timeout: float | None = None) -> None:
    await connection.submit(IncrementCounter(key, 1), timeout=timeout)


async def read_counter(connection: Connection, key: str = TOTAL, consistency: Consistency = "local") -> int:
    return int((await connection.query("counter", {"key": key}, consistency=consistency)).value)


async def receive(worker: WorkerHandle, count: int) -> list[JobGrant]:
    """The next `count` grants; fails when they do not come."""
    grants: list[JobGrant] = []

    async def more() -> list[JobGrant] | None:
        grants.extend(await worker.receive())
        return grants if len(grants) >= count else None

    return await poll(more, f"{count} jobs are granted", PATIENCE_SECONDS)


def ignore_cancel(token: int, reason: str) -> None:
    """For workers that nobody tells to stop a job."""
