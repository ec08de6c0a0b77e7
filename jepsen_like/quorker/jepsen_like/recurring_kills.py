"""Recurring jobs that fire every second while the leader is killed again and again: each slot makes exactly one job.

    python -m quorker.jepsen_like.recurring_kills --seconds 30 [--recurring 100] [--seed 7]

Three members are processes of their own, the leader is killed with SIGKILL and started again, and misfire is "all": also
the slots that passed while nobody led must make one job each. What must not live here: other workloads.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import trio

from quorker.app.app import App
from quorker.app.demo.ledger import read_ledger
from quorker.core.errors import EXIT_OK, EXIT_REFUSED
from quorker.core.jobs.recurring_commands import RECURRING_HEADER, SLOT_HEADER
from quorker.jepsen_like.kill_single import read_jobs, wait_settled
from quorker.jepsen_like.processes import ProcessCluster, process_cluster
from quorker.jepsen_like.recorded_tasks import recorded_app
from quorker.jepsen_like.waiting import poll

EVERY_SECOND: Final = "* * * * * *"
SECOND_MS: Final = 1000
OPTIONS: Final = ("--workers", "8")
GAP_SECONDS: Final = (1.0, 3.0)  # from one leader to its death
CATCH_UP_SECONDS: Final = 60.0


class Span(NamedTuple):
    """What one recurring job was there for: it was made at `created_wt`, and `last_slot_wt` was its last slot."""

    created_wt: int
    last_slot_wt: int

    def slots(self) -> range:
        """Every whole second behind the one instant, up to the other."""
        return range(
            self.created_wt - self.created_wt % SECOND_MS + SECOND_MS, self.last_slot_wt + 1, SECOND_MS
        )


@dataclass(frozen=True, slots=True)
class SlotVerdict:
    """`expected`: slots that there were. `missing`: those without a job; `doubled`: those with several; `strays`: jobs of
    no such slot. `unfinished`: jobs that have not succeeded; `not_run`: jobs of which no worker says that it ran them."""

    kills: int
    expected: int
    made: int
    missing: int
    doubled: int
    strays: int
    unfinished: int
    not_run: int
    repeated: int

    @property
    def is_good(self) -> bool:
        wrong = (self.missing, self.doubled, self.strays, self.unfinished, self.not_run)
        return self.expected > 0 and not any(wrong)

    def lines(self) -> list[str]:
        rows = {
            "leaders killed": self.kills,
            "slots": self.expected,
            "jobs made": self.made,
            "slots without a job": self.missing,
            "slots with several jobs": self.doubled,
            "jobs of no slot": self.strays,
            "jobs that did not succeed": self.unfinished,
            "jobs that nobody ran": self.not_run,
            "executed more than once": self.repeated,
        }
        return [f"  {name:<30}{count:>7}" for name, count in rows.items()]


def judge_slots(
    spans: Mapping[str, Span], jobs: Mapping[str, Mapping[str, Any]], ran: Iterable[str], kills: int
) -> SlotVerdict:
    """`jobs`: every job of the store with its headers and state. `ran`: the job of each execution."""
    made = Counter(
        (job["headers"].get(RECURRING_HEADER), job["headers"].get(SLOT_HEADER)) for job in jobs.values()
    )
    expected = {(each, str(slot)) for each, span in spans.items() for slot in span.slots()}
    executions = Counter(ran)
    return SlotVerdict(
        kills=kills,
        expected=len(expected),
        made=len(jobs),
        missing=len(expected - made.keys()),
        doubled=sum(count > 1 for count in made.values()),
        strays=len(made.keys() - expected),
        unfinished=sum(job["state"] != "Succeeded" for job in jobs.values()),
        not_run=len(jobs.keys() - executions.keys()),
        repeated=sum(count > 1 for count in executions.values()),
    )


class SlotRun:
    """One run: recurring jobs are made, leaders die for so many seconds, then the reckoning."""

    def __init__(self, cluster: ProcessCluster, seed: int, say: Callable[[str], None]) -> None:
        self.kills = 0
        self._cluster = cluster
        self._draw = Random(f"{seed} recurring kills")
        self._say = say

    async def run(self, seconds: float, recurring: int) -> SlotVerdict:
        app = recorded_app()
        async with app.connect(*self._cluster.addresses.values()) as attached:
            await _make(app, recurring)
            await self._kill_leaders(seconds)
            await _caught_up(app, time.time())
            spans = await _stop(app)
            await wait_settled(attached.connection)
            jobs = await read_jobs(attached.connection)
        ran = [execution.job_id for execution in read_ledger(self._cluster.ledger)]
        return judge_slots(spans, jobs, ran, self.kills)

    async def _kill_leaders(self, seconds: float) -> None:
        """For so many seconds, and at least once."""
        end = trio.current_time() + seconds
        while not self.kills or trio.current_time() < end:
            leader = await self._cluster.wait_leader()
            await trio.sleep(self._draw.uniform(*GAP_SECONDS))
            await self._cluster.kill(leader)
            self.kills += 1
            self._say(f"leader {leader} killed")
            await self._cluster.wait_leader(leader)
            await self._cluster.start(leader)
        await self._cluster.wait_leader()


async def _make(app: App, recurring: int) -> None:
    call = app.tasks["deliver"].call(0.0, b"")

    async def make(recurring_id: str) -> None:
        await app.schedules.aset(recurring_id, call, cron=EVERY_SECOND, misfire="all")

    async with trio.open_nursery() as nursery:
        for number in range(recurring):
            nursery.start_soon(make, f"slot-{number:04}")


async def _caught_up(app: App, until: float) -> None:
    """Every slot up to that instant has fired."""

    async def ask() -> bool | None:
        known = await app.schedules.alist()
        return (
            True
            if all(each.last_slot and each.last_slot.timestamp() >= until - 1 for each in known)
            else None
        )

    await poll(ask, "every slot has fired", CATCH_UP_SECONDS)


async def _stop(app: App) -> dict[str, Span]:
    """Pause all. What fired before that is known now, and nothing fires any more."""
    spans: dict[str, Span] = {}

    async def stop(recurring_id: str) -> None:
        await app.schedules.apause(recurring_id, reason="the end of the run")
        known = await app.schedules.aget(recurring_id)
        assert known.last_slot is not None
        spans[recurring_id] = Span(
            *(round(each.timestamp() * 1000) for each in (known.created, known.last_slot))
        )

    async with trio.open_nursery() as nursery:
        for each in await app.schedules.alist():
            nursery.start_soon(stop, each.id)
    return spans


async def recurring_kills(
    seconds: float, recurring: int, seed: int, say: Callable[[str], None]
) -> SlotVerdict:
    """Everything, in a temporary directory. Says the seed first, and what members logged if it came to a bad end."""
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="quorker-recurring-") as directory:
        async with process_cluster(Path(directory), 3, options=OPTIONS) as cluster:
            verdict = await SlotRun(cluster, seed, say).run(seconds, recurring)
            if not verdict.is_good:
                say(cluster.logs())
    for line in verdict.lines():
        say(line)
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m quorker.jepsen_like.recurring_kills", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--recurring", type=int, default=100)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    given = parser.parse_args()
    say = partial(print, flush=True)
    verdict = trio.run(recurring_kills, given.seconds, given.recurring, given.seed, say)
    return EXIT_OK if verdict.is_good else EXIT_REFUSED


if __name__ == "__main__":
    raise SystemExit(main())
