"""One member, killed with SIGKILL again and again while clients enqueue and jobs run: what was acknowledged must be there.

    python -m quorker.jepsen_like.kill_single --kills 200 [--seed 7]

The moments of the kills come from the seed: while the member starts and reads its log, and while it works. Jobs carry
enough ballast that segments end and snapshots are taken in between. What must not live here: clusters of several.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from quorker.app.app import App
from quorker.app.demo.ledger import read_ledger
from quorker.app.demo.verdict import JobRecord, Kill, Verdict, judge
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, NotApplied, Unknown
from quorker.core.jobs.lifecycle import STATES, UNFINISHED
from quorker.jepsen_like.processes import ProcessCluster, process_cluster
from quorker.jepsen_like.recorded_tasks import recorded_app
from quorker.jepsen_like.waiting import NotReached, poll
from quorker.transport.client import open_client
from quorker.transport.connection import Connection

WORKERS: Final = ("--workers", "4")
CLIENTS: Final = 3
LANES: Final = 2
BALLAST_BYTES_MAX: Final = 48 << 10
PAUSE_SECONDS_MAX: Final = 0.04
TASKS: Final = ("deliver",) * 5 + ("compute",)
JOB_SECONDS: Final = (0.0, 0.002, 0.01, 0.05, 0.2)
START_SHARE: Final = 0.25  # of the kills hit the member before it listens
START_SECONDS: Final = (0.2, 1.2)
WORK_SECONDS: Final = (0.0, 0.6)
SETTLE_SECONDS: Final = 60.0
PAGE_ROWS: Final = 500


@dataclass(slots=True)
class Asked:
    """What became of the clients' calls. A call has a number of its own, and its job bears it as a tag."""

    acknowledged: dict[str, int] = field(default_factory=dict[str, int])
    unknown: set[int] = field(default_factory=set[int])
    refused: set[int] = field(default_factory=set[int])


@dataclass(frozen=True, slots=True)
class KillVerdict:
    """`jobs`: what the demo's judge counts. `doubled`: calls that made more than one job. `ghosts`: calls that made one
    although they were definitely refused, or jobs that nobody asked for."""

    kills: int
    jobs: Verdict
    unknown: int
    doubled: int
    ghosts: int

    @property
    def is_good(self) -> bool:
        jobs = self.jobs
        return not (jobs.lost or jobs.stuck or jobs.completed_twice or self.doubled or self.ghosts)

    def lines(self) -> list[str]:
        rows = {
            "kills": self.kills,
            "acknowledged": self.jobs.acknowledged,
            "outcome unknown to the client": self.unknown,
            "executed more than once": self.jobs.repeated,
            "lost": self.jobs.lost,
            "not ended": self.jobs.stuck,
            "completed twice": self.jobs.completed_twice,
            "enqueued twice by one call": self.doubled,
            "enqueued by a refused call or by nobody": self.ghosts,
        }
        return [f"  {name:<42}{count:>7}" for name, count in rows.items()]


def judge_calls(asked: Asked, records: Mapping[str, JobRecord]) -> tuple[int, int]:
    """(calls that made several jobs, jobs that no call may have made). `records`: every job of the store."""
    made = Counter(int(tag) for record in records.values() for tag in record["tags"])
    possible = set(asked.acknowledged.values()) | asked.unknown
    ghosts = sum(number not in possible for number in made)
    swapped = sum(
        list(records[job_id]["tags"]) != [str(number)]
        for job_id, number in asked.acknowledged.items()
        if job_id in records
    )
    return sum(count > 1 for count in made.values()), ghosts + swapped


class Callers:
    """Clients that enqueue, one job after another on each of their lanes, until told to stop."""

    def __init__(self, seed: int, address: str) -> None:
        self.asked = Asked()
        self._seed = seed
        self._address = address
        self._next = 0
        self._stopping = False

    def stop(self) -> None:
        """Calls under way are still waited for."""
        self._stopping = True

    async def run_client(self, client: int) -> None:
        app = recorded_app()
        async with app.connect(self._address), trio.open_nursery() as nursery:
            for lane in range(LANES):
                nursery.start_soon(self._run_lane, app, Random(f"{self._seed} lane {client}.{lane}"))

    async def _run_lane(self, app: App, draw: Random) -> None:
        while not self._stopping:
            self._next += 1
            await self._call(app, self._next, draw)
            await trio.sleep(draw.uniform(0, PAUSE_SECONDS_MAX))

    async def _call(self, app: App, number: int, draw: Random) -> None:
        task = app.tasks[draw.choice(TASKS)].using(tags=[str(number)])
        ballast = draw.randbytes(draw.randrange(BALLAST_BYTES_MAX))
        try:
            job = await task.aenqueue(draw.choice(JOB_SECONDS), ballast)
        except Unknown:
            self.asked.unknown.add(number)
        except NotApplied:
            self.asked.refused.add(number)
        else:
            self.asked.acknowledged[job.id] = number


class KillRun:
    """One run: `kills` of them, then the reckoning."""

    def __init__(self, cluster: ProcessCluster, kills: int, seed: int, say: Callable[[str], None]) -> None:
        self.kills: list[Kill] = []
        self._cluster = cluster
        self._wanted = kills
        self._draw = Random(f"{seed} kills")
        self._callers = Callers(seed, cluster.addresses[1])
        self._say = say

    async def run(self) -> KillVerdict:
        await self._cluster.start(1)
        async with trio.open_nursery() as nursery:
            for client in range(CLIENTS):
                nursery.start_soon(self._callers.run_client, client)
            while len(self.kills) < self._wanted:
                await self._kill_once()
            self._callers.stop()
        return await self._reckon()

    async def _kill_once(self) -> None:
        """The member runs before and after."""
        await trio.sleep(self._draw.uniform(*WORK_SECONDS))
        await self._kill()
        while self._draw.random() < START_SHARE and len(self.kills) < self._wanted:
            with trio.move_on_after(self._draw.uniform(*START_SECONDS)):
                await self._cluster.start(1)
            await self._kill()
        await self._cluster.start(1)
        acknowledged = len(self._callers.asked.acknowledged)
        self._say(f"{len(self.kills)} of {self._wanted} kills, {acknowledged} jobs acknowledged")

    async def _kill(self) -> None:
        at = time.time()
        await self._cluster.kill(*self._cluster.running)
        self.kills.append(Kill(1, at))

    async def _reckon(self) -> KillVerdict:
        asked = self._callers.asked
        async with open_client([self._cluster.addresses[1]], name="judge") as connection:
            await connection.query("clock", {}, consistency="linearizable")
            await wait_settled(connection)
            records = await read_jobs(connection)
        jobs = judge(asked.acknowledged, records, read_ledger(self._cluster.ledger), self.kills)
        doubled, ghosts = judge_calls(asked, records)
        return KillVerdict(len(self.kills), jobs, len(asked.unknown), doubled, ghosts)


async def wait_settled(connection: Connection, seconds: float = SETTLE_SECONDS) -> None:
    """Until every job has ended, or the time for it is up: then the judge counts those that have not."""

    async def ask() -> bool | None:
        counts = (await connection.query("state_counts", {})).value
        return None if any(counts.get(state) for state in UNFINISHED) else True

    try:
        await poll(ask, "every job ends", seconds)
    except NotReached:
        return


async def read_jobs(connection: Connection) -> dict[str, JobRecord]:
    """Everything that the store knows of every job it knows."""
    found: dict[str, JobRecord] = {}
    for state in STATES:
        for job_id in await _ids_in(connection, state):
            record: Any = (await connection.query("job_details", {"job_id": job_id})).value
            found[job_id] = record
    return found


async def _ids_in(connection: Connection, state: str) -> Iterable[str]:
    ids: list[str] = []
    cursor: int | None = None
    while True:
        arguments = {"state": state, "count": PAGE_ROWS, "after": cursor}
        page = (await connection.query("jobs_by_state", arguments)).value
        ids += [row["id"] for row in page["rows"]]
        cursor = page["next"]
        if cursor is None:
            return ids


async def kill_single(kills: int, seed: int, say: Callable[[str], None]) -> KillVerdict:
    """Everything, in a temporary directory. Says the seed first, and what the member logged if it came to a bad end."""
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="quorker-kill-") as directory:
        async with process_cluster(Path(directory), 1, start=False, options=WORKERS) as cluster:
            verdict = await KillRun(cluster, kills, seed, say).run()
            if not verdict.is_good:
                say(cluster.logs())
    for line in verdict.lines():
        say(line)
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m quorker.jepsen_like.kill_single", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    given = parser.parse_args()
    verdict = trio.run(kill_single, given.kills, given.seed, partial(print, flush=True))
    return EXIT_OK if verdict.is_good else EXIT_REFUSED


if __name__ == "__main__":
    raise SystemExit(main())
