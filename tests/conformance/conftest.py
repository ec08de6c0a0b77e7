"""One suite, many drivers: every test here runs on each way into the job store.

To add a driver, write an async context manager that yields a `Driver` and name it in `DRIVERS`. A driver that cannot
advance its clock or restart says so by `pytest.skip` with a reason.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
import trio

from quorker.core.jobs.commands import Batch, Command
from quorker.jepsen_like.local_cluster import QUICK, LocalCluster, local_cluster
from quorker.transport.client import open_client
from quorker.transport.connection import Answer, Connection, Consistency
from quorker.transport.memory import MemoryConnection, MemoryStore
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import Invocation, State

PATIENCE_S = 20
MONTH_MS = 30 * 24 * 3600 * 1000


class Driver(Protocol):
    """A running job store that connections can be made to."""

    def connect(self, name: str) -> AbstractAsyncContextManager[Connection]:
        """A connection with a session of its own, closed at the end of the block."""
        ...

    async def advance(self, ms: int) -> None:
        """Let the clocks of the store go on, with all that becomes due; or skip the test."""
        ...

    async def restart(self) -> None:
        """Lose all memory and come back from what is durable; or skip the test. Connections live on."""
        ...


class MemoryDriver:
    def __init__(self) -> None:
        self.memory = MemoryStore()

    @asynccontextmanager
    async def connect(self, name: str) -> AsyncGenerator[MemoryConnection]:
        connection = self.memory.connect(name)
        yield connection
        await connection.close()

    async def advance(self, ms: int) -> None:
        await trio.lowlevel.checkpoint()
        self.memory.advance(ms)

    async def restart(self) -> None:
        await trio.lowlevel.checkpoint()
        self.memory.restart()


@asynccontextmanager
async def memory(data_dir: Path) -> AsyncGenerator[Driver]:
    """A store in memory with a clock of its own."""
    yield MemoryDriver()


class ClusterDriver:
    """Real members; each connection is a client of another one, the first two never of the leader if there are three."""

    def __init__(self, cluster: LocalCluster, leader: int) -> None:
        self._cluster = cluster
        others = [number for number in cluster.running if number != leader]
        self._turns = cycle([*others, leader])

    @asynccontextmanager
    async def connect(self, name: str) -> AsyncGenerator[Connection]:
        address = self._cluster[next(self._turns)].address
        async with open_client([address], cluster=QUICK.cluster, name=name) as connection:
            yield connection

    async def advance(self, ms: int) -> None:
        await trio.lowlevel.checkpoint()
        pytest.skip("real clocks cannot be advanced: the same rule runs on the store in memory")

    async def restart(self) -> None:
        await self._cluster.restart(*self._cluster.running)
        await self._cluster.elect(min(self._cluster.running))


@asynccontextmanager
async def node(data_dir: Path) -> AsyncGenerator[Driver]:
    """One durable member and clients of it."""
    async with local_cluster(data_dir, 1) as cluster:
        await cluster.wait_leader()
        yield ClusterDriver(cluster, 1)


@asynccontextmanager
async def cluster(data_dir: Path) -> AsyncGenerator[Driver]:
    """Three members on loopback, and clients of different ones."""
    async with local_cluster(data_dir, 3) as members:
        await members.elect(1)
        yield ClusterDriver(members, 1)


DRIVERS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Driver]]] = {
    "memory": memory,
    "node": node,
    "cluster": cluster,
}


class Recording:
    """A connection that notes the number of every operation sent through it, also inside batches."""

    def __init__(self, inner: Connection, seen: set[int]) -> None:
        self._inner = inner
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def submit(self, command: Command, *, timeout: float | None = None) -> Any:
        self._seen.add(command.OP)
        if isinstance(command, Batch):
            self._seen.update(op.OP for op in command.ops)
        return await self._inner.submit(command, timeout=timeout)

    async def query(self, name: str, args: dict[str, Any], *, consistency: Consistency = "local") -> Answer:
        return await self._inner.query(name, args, consistency=consistency)


@pytest.fixture
def operations() -> set[int]:
    """The numbers of the operations that `storage` and `other` have sent so far."""
    return set()


@pytest.fixture(params=sorted(DRIVERS))
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    """The driver under test. No test outlives PATIENCE_S: a wake-up that is missing fails, it does not hang."""
    async with DRIVERS[request.param](tmp_path) as running:
        with trio.fail_after(PATIENCE_S):
            yield running


@pytest.fixture
async def storage(driver: Driver, operations: set[int]) -> AsyncIterator[StorageConnection]:
    async with driver.connect("storage") as connection:
        yield StorageConnection(cast("Connection", Recording(connection, operations)))


@pytest.fixture
async def other(driver: Driver, operations: set[int]) -> AsyncIterator[StorageConnection]:
    """A second client of the same store."""
    async with driver.connect("other") as connection:
        yield StorageConnection(cast("Connection", Recording(connection, operations)))


@pytest.fixture
def advance(driver: Driver) -> Callable[[int], Awaitable[None]]:
    return driver.advance


@pytest.fixture
def restart(driver: Driver) -> Callable[[], Awaitable[None]]:
    return driver.restart


@pytest.fixture
def new_job(storage: StorageConnection) -> Callable[..., Awaitable[str]]:
    """Makes a job that expires in a month; in a `state` and in a `queue` if asked."""

    async def make(task: str = "send", state: str | None = None, queue: str | None = None) -> str:
        job_id = await storage.create_expired_job(Invocation(task, b"args"), {}, MONTH_MS)
        transaction = storage.create_write_transaction()
        if state is not None:
            transaction.set_job_state(job_id, State(state))
        if queue is not None:
            transaction.add_to_queue(queue, job_id)
        await transaction.commit()
        return job_id

    return make
