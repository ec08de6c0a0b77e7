"""The lifespan of an ASGI app (FastAPI, Starlette, Litestar, ...) as the time during which a node or client is open. It
needs none of them: a lifespan is an async context manager. What must not live here: the opening itself (`front_door.py`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from quorker.app.app import App
from quorker.app.front_door import FrontDoor

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(app: App, door: FrontDoor, inner: Lifespan | None) -> Lifespan:
    """See `App.lifespan`."""

    @asynccontextmanager
    async def around(asgi_app: Any) -> AsyncGenerator[Any]:
        async with _open(app, door), _within(inner, asgi_app) as state:
            yield state

    return around


@asynccontextmanager
async def _open(app: App, door: FrontDoor) -> AsyncGenerator[None]:
    """In a test that has the app open already, that is what shall be used."""
    if app.is_connected:
        yield
        return
    async with door:
        yield


@asynccontextmanager
async def _within(inner: Lifespan | None, asgi_app: Any) -> AsyncGenerator[Any]:
    if inner is None:
        yield None
        return
    async with inner(asgi_app) as state:
        yield state
