"""An app served from a store in memory, on a clock that only moves when told."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest

from quorker.app import App, Attached
from quorker.app.front_door import WorkPlan, attach
from quorker.app.testing import AppUnderTest
from quorker.transport.memory import MemoryStore

Serve = Callable[..., AbstractAsyncContextManager[Attached]]
Members = Callable[[Mapping[int, App], Mapping[int, str]], AbstractAsyncContextManager[None]]


@pytest.fixture
def app() -> App:
    return App("test")


@pytest.fixture
def quorker(app: App) -> Iterator[AppUnderTest]:
    with app.testing() as under_test:
        yield under_test


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def serve(memory: MemoryStore) -> Serve:
    """`async with serve(app, workers=4):` attaches the app to the store in memory."""

    @asynccontextmanager
    async def serving(
        app: App, workers: int = 4, queues: tuple[str, ...] | None = None, grace: float = 15.0
    ) -> AsyncGenerator[Attached]:
        connection = memory.connect()
        async with attach(app, connection, WorkPlan(workers, queues, grace)) as attached:
            yield attached
        await connection.close()

    return serving


@pytest.fixture
def members(tmp_path: Path) -> Members:
    """`async with members(apps, addresses):` runs an app for each number as a member without workers."""

    @asynccontextmanager
    async def running(apps: Mapping[int, App], addresses: Mapping[int, str]) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for node_id, own in apps.items():
                door = own.node(
                    tmp_path / str(node_id),
                    node_id=node_id,
                    listen=addresses[node_id],
                    members=addresses,
                    profile="fast",
                    workers=0,
                )
                await stack.enter_async_context(door)
            yield

    return running


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `plain_functions`, importable by worker processes too."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    return importlib.import_module("plain_functions")
