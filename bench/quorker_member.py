"""One quorker member with the load inside its own process, driven over stdin (see member_protocol.py).

What is measured is what a user gets: tasks of an `App`, enqueued with `.aenqueue()`, run by its worker.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import trio
from sampling import Sampler

from quorker.app import App
from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.transport.connection import Connection
from quorker.transport.memory_pauses import calm_collector

PAYLOAD = b"x" * 200
WORKER_SLOTS = 128
BULK = 250

app = App("bench")
sampler = Sampler()
own_queue = "work"  # each member runs what it submits, so that it sees every job end
started_at: dict[int, float] = {}
done = 0
all_done = trio.Event()
wanted = 0


@app.task(queue="parked")
async def parked(payload: bytes) -> None:
    """Never run: enqueued to a queue that nobody serves."""


@app.task
async def noop(number: int, payload: bytes) -> None:
    global done
    if number in started_at:
        started_at[number] = time.perf_counter() - started_at[number]
    done += 1
    if done >= wanted:
        all_done.set()


def quantiles(times: list[float], seconds: float) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "per_second": len(times) / seconds,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
    }


async def submitters(concurrency: int, count: int, whole: bool) -> dict[str, float]:
    """`concurrency` tasks that each enqueue one job after another; with `whole` until all of them have run."""
    global done, wanted, all_done
    done, wanted, all_done = 0, count, trio.Event()
    times: list[float] = []
    left = count
    own_noop = noop.using(queue=own_queue)

    async def submitter() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            start = time.perf_counter()
            if whole:
                await own_noop.aenqueue(-1, PAYLOAD)
            else:
                await parked.aenqueue(PAYLOAD)
            times.append(time.perf_counter() - start)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(submitter)
    if whole:
        await all_done.wait()
    return quantiles(times, time.perf_counter() - start)


async def idle_latency(count: int) -> dict[str, float]:
    """From the call of enqueue to the first line of the task, one at a time, 10 ms apart."""
    global done, wanted, all_done
    started_at.clear()
    for number in range(count):
        done, wanted, all_done = 0, 1, trio.Event()
        started_at[number] = time.perf_counter()
        await noop.using(queue=own_queue).aenqueue(number, PAYLOAD)
        await all_done.wait()
        await trio.sleep(0.01)
    figures = quantiles(list(started_at.values()), sum(started_at.values()))
    started_at.clear()
    return figures


async def fill(connection: Connection, count: int) -> dict[str, float]:
    """Store jobs that stay, in commands of `BULK`."""
    start = time.perf_counter()
    for _ in range(count // BULK):
        await connection.submit(EnqueueJobs((NewJob("parked", PAYLOAD, queue="parked"),) * BULK))
    return {"per_second": count / (time.perf_counter() - start)}


async def until_written(connection: Connection) -> dict[str, float]:
    """When the next write succeeds, on the clock that all processes share."""
    await connection.submit(EnqueueJobs((NewJob("parked", PAYLOAD, queue="parked"),)), timeout=30)
    return {"at": time.monotonic()}


async def lines() -> Any:
    stdin = trio.wrap_file(sys.stdin)
    async for line in stdin:
        yield json.loads(line)


async def main() -> None:
    global own_queue
    config = json.loads(sys.argv[1])
    own_queue = f"work{config['node_id']}"
    members = {int(node): address for node, address in config["members"].items()}
    process = psutil.Process()
    async with app.node(
        data_dir=Path(config["data_dir"]),
        node_id=config["node_id"],
        listen=members[config["node_id"]],
        members=members,
        profile="fast",
        workers=WORKER_SLOTS,
        queues=[own_queue],
    ) as attached:
        calm_collector()  # as `quorker node` does
        connection = attached.connection
        async for command in lines():
            cpu = process.cpu_times()
            figures = await perform(command, connection)
            used = process.cpu_times()
            figures.setdefault("cpu_s", used.user + used.system - cpu.user - cpu.system)
            print(json.dumps(figures), flush=True)


async def perform(command: dict[str, Any], connection: Connection) -> dict[str, Any]:
    match command["do"]:
        case "leader":
            status = await connection.status()
            return {"leader": status.leader, "own": status.node_id}
        case "enqueue" | "whole":
            return await submitters(command["concurrency"], command["count"], command["do"] == "whole")
        case "idle":
            return await idle_latency(command["count"])
        case "fill":
            return await fill(connection, command["count"])
        case "until_written":
            return await until_written(connection)
        case "cpu":
            used = psutil.Process().cpu_times()
            return {"cpu": used.user + used.system}
        case "memory":
            return {"rss_mib": psutil.Process().memory_info().rss / 2**20}
        case "sample":
            sampler.start()
            return {}
        case "sampled":
            return dict(sampler.stop())
        case other:
            return {"error": f"unknown command {other}"}


if __name__ == "__main__":
    trio.run(main)
