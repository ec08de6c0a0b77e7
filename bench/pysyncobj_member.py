"""One PySyncObj member with a journal file and its fastest timers, driven over stdin (see member_protocol.py)."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from typing import Any

import psutil
from pysyncobj import SyncObj, SyncObjConf, replicated

PAYLOAD = b"x" * 200


class JobQueue(SyncObj):  # type: ignore[misc]  # the library has no types
    def __init__(self, own: str, others: list[str], journal: str) -> None:
        super().__init__(
            own,
            others,
            SyncObjConf(
                autoTickPeriod=0.001,
                appendEntriesPeriod=0.001,
                appendEntriesUseBatch=True,
                raftMinTimeout=0.4,
                raftMaxTimeout=0.8,
                journalFile=journal,
                dynamicMembershipChange=False,
                commandsQueueSize=200_000,
            ),
        )
        self.queue: deque[tuple[int, bytes]] = deque()
        self.running: dict[int, bytes] = {}
        self.numbered = 0

    @replicated  # type: ignore[untyped-decorator]
    def enqueue(self, payload: bytes) -> int:
        self.numbered += 1
        self.queue.append((self.numbered, payload))
        return self.numbered

    @replicated  # type: ignore[untyped-decorator]
    def fetch(self) -> int | None:
        if not self.queue:
            return None
        number, payload = self.queue.popleft()
        self.running[number] = payload
        return number

    @replicated  # type: ignore[untyped-decorator]
    def complete(self, number: int) -> bool:
        return self.running.pop(number, None) is not None


class Load:
    """`concurrency` submitters that each start their next operation in the callback of the last."""

    def __init__(self, store: JobQueue, concurrency: int, count: int, whole: bool) -> None:
        self.store, self.concurrency, self.left, self.whole = store, concurrency, count, whole
        self.under_way = 0
        self.times: list[float] = []
        self.failed = 0
        self.lock = threading.Lock()
        self.finished = threading.Event()

    def run(self) -> dict[str, float]:
        start = time.perf_counter()
        self.under_way = min(self.concurrency, self.left)
        for _ in range(self.under_way):
            self.next()
        self.finished.wait(120)
        ordered = sorted(self.times) or [float("nan")]
        return {
            "per_second": len(self.times) / (time.perf_counter() - start),
            "p50_ms": ordered[len(ordered) // 2] * 1000,
            "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
            "failed": self.failed,
        }

    def next(self) -> None:
        with self.lock:
            if self.left <= 0:
                self.under_way -= 1
                if self.under_way == 0:
                    self.finished.set()
                return
            self.left -= 1
        self.store.enqueue(PAYLOAD, callback=self.step(time.perf_counter(), "fetch" if self.whole else ""))

    def step(self, start: float, then: str) -> Any:
        def done(result: Any, error: Any) -> None:
            if error:
                self.failed += 1
            elif then == "fetch":
                self.store.fetch(callback=self.step(start, "complete"))
                return
            elif then == "complete" and result is not None:
                self.store.complete(result, callback=self.step(start, ""))
                return
            else:
                self.times.append(time.perf_counter() - start)
            self.next()

        return done


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    own, others, journal = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL)  # it tells of every peer that is not up yet
    store = JobQueue(own, others, journal)
    process = psutil.Process()
    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "leader":
                leader = store.getStatus()["leader"]
                answer({"leader": str(leader) if leader else "", "own": own})
            case "enqueue" | "whole":
                cpu = process.cpu_times()
                load = Load(store, command["concurrency"], command["count"], command["do"] == "whole")
                figures = load.run()
                used = process.cpu_times()
                figures["cpu_s"] = used.user + used.system - cpu.user - cpu.system
                answer(figures)
            case "memory":
                answer({"rss_mib": process.memory_info().rss / 2**20})
            case other:
                answer({"error": f"unknown command {other}"})


if __name__ == "__main__":
    main()
