"""A scenario's operations, asked of real members by clients that go on when members die, and what became of each call.

Proposals of bare members become jobs and writes of registers by turns; reads are linearizable reads of those registers. What
must not live here: faults, and any judgement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import trio

from quorker.core.errors import NotApplied, QuorkerError, Rejected, Unknown
from quorker.core.jobs.commands import (
    AcquireLock,
    DeleteJob,
    EnqueueJobs,
    ReleaseLock,
    RequeueJob,
    SetRangeInHash,
)
from quorker.core.jobs.new_job import NewJob
from quorker.jepsen_like.history import Kind, Line
from quorker.jepsen_like.kill_single import Asked
from quorker.jepsen_like.links import Links
from quorker.jepsen_like.real_case import Pace
from quorker.jepsen_like.recorded_tasks import recorded_app
from quorker.sim.cases.case import Case, Op, OpKind
from quorker.sim.world.kernel import MS
from quorker.transport.client import open_client
from quorker.transport.connection import Connection

REGISTERS: Final = 16  # many, so that the search for an order stays small
FIELD: Final = "value"
LOCK_HELD: Final = "lock_held"
PATIENCE_SECONDS: Final = 8.0
DEFINITE_SECONDS: Final = 60.0  # whoever wants a lock must learn whether it has it
SESSION_SECONDS: Final = 120.0  # longer than any run: no lock is lost by itself
BARE_JOB_MS: Final = 5


class Client:
    """One client: connected to one of its addresses, again and again, until its nursery is cancelled."""

    def __init__(self, name: str, addresses: Sequence[str]) -> None:
        self.name = name
        self.known_jobs: list[str] = []
        self.wants: set[str] = set()
        self._addresses = addresses
        self._connection: Connection | None = None
        self._changed = trio.Event()
        self._life = trio.CancelScope()
        self._calls: set[trio.CancelScope] = set()
        self._down = 0.0

    async def run(self) -> None:
        while True:
            with trio.CancelScope() as self._life:
                await self._live()
            self._connection = None
            self.wants.clear()
            await trio.sleep(self._down)
            self._down = 0.0

    async def _live(self) -> None:
        try:
            async with open_client(self._addresses, name=self.name, session_ttl=SESSION_SECONDS) as opened:
                self._connection = opened
                changed, self._changed = self._changed, trio.Event()
                changed.set()
                await trio.sleep_forever()
        except NotApplied:
            return  # nobody answered for a while: try again

    def crash(self, seconds: float) -> None:
        """No goodbye, and whatever it asked for has nobody who hears the answer."""
        self._down = seconds
        self._life.cancel()
        for call in self._calls:
            call.cancel()

    async def ask(self, what: Callable[[Connection], Awaitable[None]]) -> None:
        """As soon as this client is connected. Ends early when it crashes."""
        with trio.CancelScope() as scope:
            self._calls.add(scope)
            try:
                while self._connection is None:
                    await self._changed.wait()
                await what(self._connection)
            finally:
                self._calls.discard(scope)


@dataclass(slots=True)
class Record:
    """What clients asked and heard. Each call is a process of its own in `lines`."""

    asked: Asked = field(default_factory=Asked)
    lines: list[Line] = field(default_factory=list[Line])
    requeued: Counter[str] = field(default_factory=Counter[str])
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def number(self) -> int:
        return next(self._numbers)

    async def call(
        self, function: str, argument: Any, key: Hashable, answer: Callable[[], Awaitable[Any]]
    ) -> Any:
        """The answer, written down; None when there is none, which no call here means by success but a refused lock."""
        process = self.number()

        def note(kind: Kind, value: Any) -> None:
            self.lines.append(Line(process, kind, function, value, key))

        note(Kind.INVOKE, argument)
        try:
            value = await answer()
        except (NotApplied, Rejected):
            note(Kind.FAIL, argument)
            return None
        except Unknown:
            note(Kind.INFO, argument)
            return None
        note(Kind.OK, value)
        return value


class Workload:
    """Performs the operations of one case. `clients` are by number: 0 stands for any member of bare ones."""

    def __init__(self, case: Case, links: Links, pace: Pace) -> None:
        self.record = Record()
        self._case = case
        self._pace = pace
        self._tasks = recorded_app().tasks
        self._proposals = count()
        self.clients = {
            number: Client(f"c{number}", self._homes(number, links)) for number in self._numbers()
        }

    def _numbers(self) -> range:
        jobs = self._case.jobs
        return range(self._case.voters + 1) if jobs is None else range(1, jobs.clients + 1)

    def _homes(self, number: int, links: Links) -> list[str]:
        """Where a client asks: one member, or whichever answers."""
        jobs = self._case.jobs
        bound = number != 0 if jobs is None else number <= jobs.housed
        return [links.fronts[number].address] if bound else [front.address for front in links.fronts.values()]

    async def run(self, started: float, nursery: trio.Nursery) -> None:
        """Returns when every call has its answer. The clients live on in `nursery`."""
        for client in self.clients.values():
            nursery.start_soon(client.run)
        async with trio.open_nursery() as calls:
            for op in self._case.ops:
                calls.start_soon(self._perform, op, started)

    async def _perform(self, op: Op, started: float) -> None:
        await trio.sleep_until(started + self._pace.seconds(op.at_ns))
        client = self.clients[op.node]

        async def ask(connection: Connection) -> None:
            await self._ask(op, client, connection)

        await client.ask(ask)

    async def _ask(self, op: Op, client: Client, connection: Connection) -> None:
        match op.kind:
            case OpKind.PROPOSE:
                await self._propose(op, client, connection)
            case OpKind.ENQUEUE:
                await self._enqueue(client, connection, 1)
            case OpKind.LOCK:
                await self._lock(op, client, connection)
            case OpKind.DELETE | OpKind.REQUEUE:
                await self._change(op, client, connection)
            case _:
                await self._read(connection)

    # ------------------------------------------------------------------ jobs

    async def _propose(self, op: Op, client: Client, connection: Connection) -> None:
        turn = next(self._proposals)
        if turn % 2:
            await self._enqueue(client, connection, op.amount)
        else:
            await self._write(connection, turn)

    async def _enqueue(self, client: Client, connection: Connection, amount: int) -> None:
        await self.enqueue(client.known_jobs, connection, amount, PATIENCE_SECONDS)

    async def enqueue(
        self, known_jobs: list[str], connection: Connection, amount: int, patience: float
    ) -> None:
        """`amount` jobs by one command, all or none of them."""
        asked = self.record.asked
        numbers = [self.record.number() for _ in range(amount)]
        asked.unknown.update(numbers)  # until an answer comes
        jobs = tuple(self._new_job(number) for number in numbers)
        try:
            ids = await connection.submit(EnqueueJobs(jobs), timeout=patience)
        except Unknown:
            return
        except NotApplied:
            asked.refused.update(numbers)
        else:
            asked.acknowledged.update(zip(ids, numbers, strict=True))
            known_jobs.extend(ids)
        asked.unknown.difference_update(numbers)

    def _new_job(self, number: int) -> NewJob:
        jobs = self._case.jobs
        work_ms = BARE_JOB_MS if jobs is None else jobs.work_ms
        task = self._tasks["deliver"].using(tags=[str(number)])
        return task.new_job(self._pace.seconds(work_ms * MS), b"")

    async def _change(self, op: Op, client: Client, connection: Connection) -> None:
        if not client.known_jobs:
            return
        job_id = client.known_jobs[op.amount % len(client.known_jobs)]
        command = DeleteJob(job_id) if op.kind is OpKind.DELETE else RequeueJob(job_id)
        self.record.requeued[job_id] += op.kind is OpKind.REQUEUE
        try:
            await connection.submit(command, timeout=PATIENCE_SECONDS)
        except QuorkerError:
            return  # whatever became of it, the job has to end

    # ------------------------------------------------------------------ registers and locks

    async def _write(self, connection: Connection, turn: int) -> None:
        key, text = f"register {turn // 2 % REGISTERS}", str(turn)
        command = SetRangeInHash(key, ((FIELD, text),))
        await self.record.call("put", text, key, lambda: connection.submit(command, timeout=PATIENCE_SECONDS))

    async def _read(self, connection: Connection) -> None:
        key = f"register {self.record.number() % REGISTERS}"

        async def read() -> str:
            with trio.move_on_after(PATIENCE_SECONDS):
                asked = {"key": key, "field": FIELD}
                answer = await connection.query("hash_value", asked, consistency="linearizable")
                return answer.value or ""
            raise NotApplied("no answer")

        await self.record.call("get", None, key, read)

    async def _lock(self, op: Op, client: Client, connection: Connection) -> None:
        """Nobody waits in line for it. Held for as long as the simulator's clients would."""
        key = f"resource {op.amount & 1}"
        if key in client.wants:
            return
        client.wants.add(key)
        command = AcquireLock(key)

        async def acquire() -> int | None:
            try:
                _, token = await connection.submit(command, timeout=DEFINITE_SECONDS)
            except Rejected as error:
                if error.reason != LOCK_HELD:
                    raise
                return None
            return int(token)

        token = await self.record.call("acquire", None, key, acquire)
        if token is not None:
            await trio.sleep(self._pace.seconds((1 + (op.amount >> 2 & 255)) * MS))
            await self.record.call("release", token, key, lambda: _release(connection, key, token))
        client.wants.discard(key)


async def _release(connection: Connection, key: str, token: int) -> bool:
    """Whether it was still ours."""
    try:
        await connection.submit(ReleaseLock(key, token), timeout=DEFINITE_SECONDS)
    except Rejected:
        return False
    return True
