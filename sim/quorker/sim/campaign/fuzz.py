"""Campaigns: many seeds of several profiles on all cores, interruptible, resumable, and aggregated.

A campaign is cut into chunks of neighbouring seeds; what has been done is a set of chunks, so that it can stop anywhere
and go on later. This is the one file of the simulator that looks at a real clock and starts processes of its own; what
people see of it is the command line's.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Final, TypeAlias

from quorker.sim.cases.expansion import PROFILES, expand
from quorker.sim.runs.cluster import run_case

if TYPE_CHECKING:
    from collections.abc import Generator

CHUNKS: Final = {"short": 50, "churn": 50, "long": 2, "jobs": 10}
CHUNK_OF_OTHERS: Final = 10
AHEAD: Final = 2  # chunks that wait for each process, so that none is ever idle


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` seeds of one profile, from `first`."""

    profile: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that breaks a promise. `raised`: the traceback, if the core raised something."""

    profile: str
    seed: int
    oracle: str
    detail: str
    raised: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of one chunk."""

    chunk: Chunk
    runs: int
    events: int
    true_ns: int
    cpu_s: float
    sometimes: dict[str, int]  # in how many runs
    failures: tuple[Failure, ...]


@dataclass(slots=True)
class Totals:
    """What became of a campaign so far."""

    runs: int = 0
    events: int = 0
    true_ns: int = 0
    cpu_s: float = 0.0
    sometimes: Counter[str] = field(default_factory=Counter[str])
    failures: list[Failure] = field(default_factory=list[Failure])
    done: list[Chunk] = field(default_factory=list[Chunk])

    def add(self, batch: Batch) -> None:
        self.runs += batch.runs
        self.events += batch.events
        self.true_ns += batch.true_ns
        self.cpu_s += batch.cpu_s
        self.sometimes.update(batch.sometimes)
        self.failures.extend(each for each in batch.failures if each not in self.failures)
        if batch.runs == batch.chunk.count:  # else it stopped at a failure, and the rest is still to do
            self.done.append(batch.chunk)


@dataclass(frozen=True, slots=True)
class Plan:
    """`seeds` of each profile from `start`, or without end; for at most `seconds`. It stops at the first failure,
    unless it is to keep going."""

    profiles: tuple[str, ...]
    seeds: int | None
    start: int = 0
    seconds: float | None = None
    jobs: int = 1
    keep_going: bool = False


Told: TypeAlias = Callable[[Totals, Batch], None]


class Campaign:
    """A plan on its way. `totals` may hold what an earlier part of the campaign has done: that is not done again."""

    def __init__(self, plan: Plan, totals: Totals, told: Told) -> None:
        self.totals = totals
        self._plan = plan
        self._told = told
        self._deadline = time.monotonic() + plan.seconds if plan.seconds is not None else None
        self._chunks = chunks_of(plan, set(totals.done))

    def run(self) -> None:
        """Until the plan is done, or for as long as it allows. What is done when this is interrupted counts."""
        if self._is_over():
            return
        if self._plan.jobs == 1:
            for chunk in self._chunks:
                self._take(run_chunk(chunk, keep_going=self._plan.keep_going))
                if self._is_over():
                    return
        else:
            self._run_in_processes()

    def _run_in_processes(self) -> None:
        """By spawned processes: each begins with nothing but the sources, whatever this process has imported."""
        spawn = get_context("spawn")
        stop = spawn.Event()
        with ProcessPoolExecutor(self._plan.jobs, spawn, _begin, (stop,)) as pool:
            waiting: set[Future[Batch]] = set()
            try:
                with _deaf_to_interrupts():
                    self._submit(pool, waiting)
                self._collect(pool, waiting)
            finally:
                stop.set()
                self._take_what_is_whole(waiting)

    def _collect(self, pool: ProcessPoolExecutor, waiting: set[Future[Batch]]) -> None:
        """Keep the processes busy, and take what they have finished."""
        while waiting and not self._is_over():
            for finished in self._next(waiting):
                self._take(finished.result())
            self._submit(pool, waiting)

    def _take_what_is_whole(self, waiting: set[Future[Batch]]) -> None:
        """Every process ends after the seed at hand. A chunk that was cut off is done again another time."""
        started = [future for future in waiting if not future.cancel()]
        for future in started:
            batch = future.result()
            if batch.failures or batch.runs == batch.chunk.count:
                self._take(batch)

    def _submit(self, pool: ProcessPoolExecutor, waiting: set[Future[Batch]]) -> None:
        while len(waiting) < AHEAD * self._plan.jobs:
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            waiting.add(pool.submit(_run_unless_stopped, chunk, keep_going=self._plan.keep_going))

    def _next(self, waiting: set[Future[Batch]]) -> list[Future[Batch]]:
        """What finishes first, in the order of its seeds; nothing when the time is over before."""
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
        finished, _ = wait(waiting, left, FIRST_COMPLETED)
        waiting -= finished
        return sorted(finished, key=lambda future: future.result().chunk.first)

    def _take(self, batch: Batch) -> None:
        """All or nothing: an interruption comes before it or after it."""
        with _interrupts_wait():
            self.totals.add(batch)
            self._told(self.totals, batch)

    def _is_over(self) -> bool:
        if self.totals.failures and not self._plan.keep_going:
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline


def chunks_of(plan: Plan, done: set[Chunk]) -> Iterator[Chunk]:
    """What is left to do, the profiles in turn."""
    open_profiles = list(plan.profiles)
    for turn in count():
        if not open_profiles:
            return
        for profile in tuple(open_profiles):
            size = CHUNKS.get(profile, CHUNK_OF_OTHERS)
            behind = turn * size
            left = size if plan.seeds is None else min(size, plan.seeds - behind)
            chunk = Chunk(profile, plan.start + behind, left)
            if left <= 0:
                open_profiles.remove(profile)
            elif chunk not in done:
                yield chunk


def run_chunk(
    chunk: Chunk, *, keep_going: bool = False, is_stopped: Callable[[], bool] = lambda: False
) -> Batch:
    """Run its seeds, at most to the first failure unless it is to keep going, and only until it is stopped."""
    begun = time.process_time()
    sometimes: Counter[str] = Counter()
    failures: list[Failure] = []
    runs = events = true_ns = 0
    for seed in range(chunk.first, chunk.first + chunk.count):
        if is_stopped():
            break
        report = run_case(expand(seed, PROFILES[chunk.profile]))
        sometimes.update(report.sometimes.keys())
        runs, events, true_ns = runs + 1, events + report.events, true_ns + report.true_ns
        if report.violation is not None:
            cause = report.violation.__cause__
            raised = "" if cause is None else "".join(traceback.format_exception(cause))
            violation = report.violation
            failures.append(Failure(chunk.profile, seed, violation.oracle, violation.detail, raised))
            if not keep_going:
                break
    spent = time.process_time() - begun
    return Batch(chunk, runs, events, true_ns, spent, dict(sometimes), tuple(failures))


# ---------------------------------------------------------------------- in the processes of a campaign

_stops: list[Event] = []  # of this process: the one with which it was begun


def _begin(stop: Event) -> None:
    """Ctrl-C is for the process that collects the results; it tells the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stops.append(stop)


def _run_unless_stopped(chunk: Chunk, *, keep_going: bool) -> Batch:
    return run_chunk(chunk, keep_going=keep_going, is_stopped=_stops[0].is_set)


@contextmanager
def _interrupts_wait() -> Generator[None]:
    """Ctrl-C is heard when this is over, also where another thread gets the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """Processes that are started now are deaf too, from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # nobody interrupts a thread
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
