"""The course of the demo: start, work, kill leaders, kill everything, wait, judge. Prints what happens as it happens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from quorker.app.app import App
from quorker.app.demo.clients import Workload
from quorker.app.demo.ledger import read_ledger
from quorker.app.demo.members import Members
from quorker.app.demo.verdict import Verdict, judge, table_lines
from quorker.app.front_door import Attached
from quorker.core.errors import QuorkerError
from quorker.core.jobs.lifecycle import UNFINISHED
from quorker.transport.connection import Status

CLIENTS: Final = 4
_NOBODY: Final = 0
_POLL_SECONDS: Final = 0.05
_LEADER_SECONDS: Final = 20.0
_AT_WORK_SECONDS: Final = 20.0
_READS_AT_ONCE: Final = 16
_PROGRESS_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Script:
    """How much happens. `seconds`: over which the jobs are enqueued; `settle_seconds`: for the rest to end."""

    jobs: int = 2000
    kills: int = 2
    blackout: bool = True
    members: int = 3
    workers: int = 8
    seconds: float = 18.0
    down_seconds: float = 1.0
    settle_seconds: float = 25.0


class Story:
    """One run of the demo."""

    def __init__(self, script: Script, say: Callable[[str], None]) -> None:
        self.script = script
        self.workload = Workload(script.jobs, script.seconds)
        self._say = say
        self._started = trio.current_time()
        self._app = App("demo")

    async def run(self) -> Verdict:
        """Everything, in a temporary directory that is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="quorker-demo-") as directory:
            members = Members(Path(directory), self.script.members, self.script.workers)
            try:
                return await self._run(members)
            except Exception:
                self._say(members.logs())
                raise
            finally:
                await members.stop_all()

    async def _run(self, members: Members) -> Verdict:
        script = self.script
        self.say(f"starting {script.members} members on {', '.join(members.addresses.values())}")
        await members.start_all()
        async with self._app.connect(*members.addresses.values()) as watch:
            leader = await self._wait_leader(watch, {_NOBODY})
            self.say(f"node {leader} leads; {CLIENTS} clients start to enqueue {script.jobs} jobs")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report_progress, watch)
                async with trio.open_nursery() as clients:
                    self._start_clients(clients, members)
                    await self._break_things(members, watch)
                self.say(f"all {script.jobs} jobs are acknowledged; waiting for them to end")
                await self._wait_settled(watch)
                nursery.cancel_scope.cancel()
            self.say("reading every acknowledged job from the cluster and from the ledger")
            records = await self._read_records(watch)
        verdict = judge(self.workload.acknowledged, records, read_ledger(members.ledger), members.kills)
        if not verdict.is_good:
            self._say(members.logs())
        for line in table_lines(verdict):
            self._say(line)
        return verdict

    def _start_clients(self, nursery: trio.Nursery, members: Members) -> None:
        addresses = list(members.addresses.values())
        for number in range(CLIENTS):
            first = number % len(addresses)
            nursery.start_soon(self.workload.run_client, addresses[first:] + addresses[:first])

    async def _break_things(self, members: Members, watch: Attached) -> None:
        """Spread over the work: each leader in its turn, and everything at the end. Each share of the jobs is dealt out when
        the kill that it is meant for is next, however long the one before has taken."""
        kills = [self._kill_leader] * self.script.kills + [self._kill_everything] * self.script.blackout
        shares = len(kills) + 1
        self.workload.allow(self.script.jobs // shares)
        for number, kill in enumerate(kills, 1):
            await self.workload.wait_acknowledged(self.script.jobs * number // shares)
            self.workload.allow(self.script.jobs * (number + 1) // shares)
            await kill(members, watch)
        self.workload.allow(self.script.jobs)

    async def _kill_leader(self, members: Members, watch: Attached) -> None:
        leader, running = await self._freeze_at_work(members, watch, everybody=False)
        await members.kill(leader)
        killed_at = trio.current_time()
        self.say(
            f"node {leader}, the leader, is killed with SIGKILL; {_jobs_text(running)} ran there at that moment"
        )
        successor = await self._wait_leader(watch, {_NOBODY, leader})
        self.say(f"node {successor} leads, {trio.current_time() - killed_at:.1f} s later")
        await trio.sleep(self.script.down_seconds)
        await members.start(leader)
        self.say(f"node {leader} is back from its disk")

    async def _kill_everything(self, members: Members, watch: Attached) -> None:
        _, running = await self._freeze_at_work(members, watch, everybody=True)
        acknowledged = len(self.workload.acknowledged)
        await members.kill(*members.running)
        self.say(
            f"all members are killed at once; {acknowledged} jobs are acknowledged, {_jobs_text(running)} ran at that moment"
        )
        await trio.sleep(self.script.down_seconds)
        await members.start_all()
        leader = await self._wait_leader(watch, {_NOBODY})
        self.say(f"all members are back from their disks; node {leader} leads")

    async def _wait_leader(self, watch: Attached, unwanted: set[int]) -> int:
        """Ask until a member names a leader, and the member itself says that it leads or follows it."""
        with trio.fail_after(_LEADER_SECONDS):
            while True:
                status = await self._status(watch)
                if status is not None and status.leader not in unwanted:
                    return status.leader
                await trio.sleep(_POLL_SECONDS)

    async def _status(self, watch: Attached) -> Status | None:
        try:
            return await watch.astatus()
        except QuorkerError:
            return None

    async def _freeze_at_work(self, members: Members, watch: Attached, *, everybody: bool) -> tuple[int, int]:
        """Freeze the leader, or everybody, while jobs run there: a kill is of interest only then. (leader, jobs)

        What is frozen cannot end its jobs before it is killed. Raises `QuorkerError` when no job is found running.
        """
        with trio.move_on_after(_AT_WORK_SECONDS):
            while True:
                leader = await self._wait_leader(watch, {_NOBODY})
                frozen = members.running if everybody else [leader]
                for node in frozen:
                    members[node].pause()
                if running := sum(self._count_at_work(members, node) for node in frozen):
                    return leader, running
                for node in frozen:
                    members[node].resume()
                await trio.sleep(_POLL_SECONDS)
        raise QuorkerError(
            f"no job ran where the demo wanted to kill within {_AT_WORK_SECONDS:g} s: give it more of them (--jobs)"
        )

    def _count_at_work(self, members: Members, node: int) -> int:
        """Runs without an end in the ledger, since the node was started last."""
        since = members.started_at[node]
        return sum(
            run.node == node and not run.ending and run.started > since for run in read_ledger(members.ledger)
        )

    async def _report_progress(self, watch: Attached) -> None:
        while True:
            await trio.sleep(_PROGRESS_SECONDS)
            counts = await self._state_counts(watch)
            ended = "" if counts is None else f", {counts.get('Succeeded', 0)} succeeded"
            self.say(f"{len(self.workload.acknowledged)} of {self.script.jobs} jobs acknowledged{ended}")

    async def _wait_settled(self, watch: Attached) -> None:
        """Until no job is unfinished, or the time for it is up: then the verdict counts what is stuck."""
        with trio.move_on_after(self.script.settle_seconds):
            while True:
                if await self._is_settled(watch):
                    return
                await trio.sleep(_POLL_SECONDS * 4)

    async def _is_settled(self, watch: Attached) -> bool:
        counts = await self._state_counts(watch)
        return counts is not None and not any(counts.get(state, 0) for state in UNFINISHED)

    async def _state_counts(self, watch: Attached) -> dict[str, int] | None:
        """Jobs by state; None while no member answers."""
        try:
            counts: dict[str, int] = (await watch.connection.query("state_counts", {})).value
        except QuorkerError:
            return None
        return counts

    async def _read_records(self, watch: Attached) -> dict[str, Any]:
        """What the cluster says of each job, after one read that misses nothing acknowledged."""
        await watch.connection.query("clock", {}, consistency="linearizable")
        limiter = trio.CapacityLimiter(_READS_AT_ONCE)
        records: dict[str, Any] = {}

        async def read(job_id: str) -> None:
            async with limiter:
                records[job_id] = (await watch.connection.query("job_details", {"job_id": job_id})).value

        async with trio.open_nursery() as nursery:
            for job_id in self.workload.acknowledged:
                nursery.start_soon(read, job_id)
        return records

    def say(self, text: str) -> None:
        self._say(f"{trio.current_time() - self._started:6.1f} s  {text}")


def _jobs_text(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
