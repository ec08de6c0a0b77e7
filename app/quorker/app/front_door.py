"""Opening and closing a node or a client for an app, from trio, from asyncio and from plain code.

On trio it lives in the caller's loop. Elsewhere it gets a thread with a trio loop of its own: a busy host cannot delay
its heartbeats then. What must not live here: what a call asks for (`gateway.py`) and the running of jobs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import platform
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, cast

import trio

from quorker.app.children import open_child_pool
from quorker.app.declarations import declaring
from quorker.app.execution import Executor
from quorker.app.failure import sole_member
from quorker.app.filters import FilterChain
from quorker.app.gateway import (
    AskStatus,
    Gateway,
    LoopGateway,
    async_library,
    inherited_gateway,
    refuse_blocking,
)
from quorker.app.location import locate_function
from quorker.app.recurring import Declaration
from quorker.app.remote_ask import answer_ask
from quorker.app.tasks import RegisteredTask
from quorker.app.worker_server import serve_jobs
from quorker.core.errors import ConfigurationError
from quorker.core.jobs.bounds import RESULT_BYTES_MAX
from quorker.transport.connection import Connection, Status
from quorker.transport.node_config import NodeConfig
from quorker.transport.tls import TlsPaths


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """How many jobs at a time (0: none), of which queues (None: those of the app's tasks), and the grace at the end."""

    slots: int
    queues: tuple[str, ...] | None
    shutdown_seconds: float

    @staticmethod
    def default_slots() -> int:
        return min(5 * (os.cpu_count() or 1), 20)


class Attachable(Protocol):
    """What is needed of an app."""

    name: str

    @property
    def tasks(self) -> Mapping[str, RegisteredTask]: ...
    @property
    def queues(self) -> tuple[str, ...]: ...
    @property
    def payload_bytes_max(self) -> int: ...
    @property
    def declared(self) -> Mapping[str, Declaration]: ...
    def load_imports(self) -> None: ...
    def filters_for(self, task: str) -> FilterChain: ...
    def add_gateway(self, gateway: Gateway) -> None: ...
    def remove_gateway(self, gateway: Gateway) -> None: ...


class Attached:
    """A node or client that is open. `address` is where a member listens, "" for a client; `node_id` likewise 0."""

    def __init__(self, gateway: LoopGateway, address: str, node_id: int) -> None:
        self.address = address
        self.node_id = node_id
        self._gateway = gateway

    @property
    def connection(self) -> Connection:
        """For code on the loop of the connection, which is the caller's only when it was opened on trio."""
        return self._gateway.connection

    def status(self) -> Status:
        """How this member (for a client: the member it talks to) is doing. For plain code."""
        refuse_blocking("await node.astatus()")
        return cast("Status", self._gateway.request_blocking(AskStatus()))

    async def astatus(self) -> Status:
        """Like `status`, for async code."""
        return cast("Status", await self._gateway.request(AskStatus()))


Open = Callable[[], AbstractAsyncContextManager[Attached]]


@asynccontextmanager
async def open_member(app: Attachable, config: NodeConfig, plan: WorkPlan) -> AsyncGenerator[Attached]:
    """A member of the cluster in this loop, with its worker. What the code declares as recurring is made so meanwhile."""
    _refuse_in_worker_process()
    app.load_imports()
    _prepare(app, plan)
    from quorker.transport.node_start import open_node  # late: worker processes need this module, no node

    async with (
        open_node(config) as node,
        attach(app, node, plan, node.address, node.node_id) as attached,
        declaring(app, node),
    ):
        yield attached


@asynccontextmanager
async def open_outsider(
    app: Attachable,
    addresses: Sequence[str],
    cluster: str,
    secret: bytes | None,
    tls: TlsPaths | None,
    plan: WorkPlan,
    timeout: float,
) -> AsyncGenerator[Attached]:
    """A client in this loop, with its worker if the plan has slots."""
    _refuse_in_worker_process()
    _prepare(app, plan)
    from quorker.transport.client import open_client  # late, as above

    opening = open_client(
        addresses, secret=secret, tls=tls, cluster=cluster, name=client_name(), default_timeout=timeout
    )
    async with opening as connection, attach(app, connection, plan) as attached:
        yield attached


def client_name() -> str:
    """Of this client alone: a session that is opened under a name ends older ones of that name."""
    return f"{platform.node()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"


@asynccontextmanager
async def attach(
    app: Attachable, connection: Connection, plan: WorkPlan, address: str = "", node_id: int = 0
) -> AsyncGenerator[Attached]:
    """Let the app use this connection, and work for it, while the body runs."""
    async with trio.open_nursery() as nursery:
        gateway = LoopGateway(connection, nursery)
        app.add_gateway(gateway)
        try:
            async with _working(app, gateway, plan):
                yield Attached(gateway, address, node_id)
        finally:
            app.remove_gateway(gateway)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _working(app: Attachable, gateway: LoopGateway, plan: WorkPlan) -> AsyncGenerator[None]:
    if not plan.slots:
        yield
        return
    queues = app.queues if plan.queues is None else plan.queues
    result_bytes_max = min(app.payload_bytes_max, RESULT_BYTES_MAX)
    async with open_child_pool(plan.slots) as pool:
        executor = Executor(pool, lambda ask: answer_ask(gateway, ask), result_bytes_max)
        async with serve_jobs(
            gateway.connection,
            app.tasks,
            executor,
            app.filters_for,
            queues,
            plan.slots,
            plan.shutdown_seconds,
        ):
            yield


def _refuse_in_worker_process() -> None:
    if inherited_gateway() is not None:
        raise ConfigurationError(
            "a worker process imports your script to find its tasks, and the script opened a node or client while it "
            'was imported: put that part under `if __name__ == "__main__":`'
        )


def _prepare(app: Attachable, plan: WorkPlan) -> None:
    """Import what registers tasks, and find out before any job arrives whether worker processes can find them."""
    if not plan.slots:
        return
    app.load_imports()
    for task in app.tasks.values():
        if task.runs_in == "process":
            locate_function(task.function, task.name)


class FrontDoor:
    """`with` it in plain code, `async with` it on trio or asyncio. Gives an `Attached`."""

    def __init__(self, open_on_trio: Open) -> None:
        self._open = open_on_trio
        self._context: AbstractAsyncContextManager[Attached] | None = None
        self._thread: LoopThread | None = None

    def __enter__(self) -> Attached:
        refuse_blocking("async with app.node(...):")
        self._thread = LoopThread(self._open)
        return self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        thread, self._thread = self._thread, None
        thread.stop()

    async def __aenter__(self) -> Attached:
        if async_library() == "asyncio":
            self._thread = LoopThread(self._open)
            return await asyncio.to_thread(self._thread.start)
        self._context = self._open()
        try:
            return await self._context.__aenter__()
        except BaseExceptionGroup as group:
            raise sole_member(group) from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._thread is not None:
            thread, self._thread = self._thread, None  # it may be opened again, on another kind of loop
            await asyncio.to_thread(thread.stop)
            return None
        assert self._context is not None
        try:
            return await self._context.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # Nurseries wrap what the body raised; the body's own error must come out as it was.
            sole = sole_member(group)
            if sole is error:
                return None
            raise sole from error


class LoopThread:
    """A trio loop on a thread of its own that keeps one node or client open."""

    def __init__(self, open_on_trio: Open) -> None:
        self._open = open_on_trio
        self._opened: concurrent.futures.Future[Attached] = concurrent.futures.Future()
        self._error: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._thread = threading.Thread(target=self._run, name="quorker", daemon=True)

    def start(self) -> Attached:
        """Returns once it is open; raises what opening raises."""
        self._thread.start()
        return self._opened.result()

    def stop(self) -> None:
        """Close gracefully and wait for it; raises the error that ended the loop before, if one did."""
        if self._token is not None and self._thread.is_alive():
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
            found = sole_member(error)
            if self._opened.done():
                self._error = found
            else:
                self._opened.set_exception(found)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with self._open() as attached:
            self._opened.set_result(attached)
            await self._stop.wait()
