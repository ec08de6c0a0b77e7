"""Announced servers and the clock of the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from quorker.core.errors import InvalidInput, Rejected
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import ServerContext, ServerGone

pytestmark = pytest.mark.trio

Advance: TypeAlias = Callable[[int], Awaitable[None]]
TIMEOUT_MS = 300_000
ONE = ServerContext(5, ("default", "mail"))


async def names(storage: StorageConnection) -> list[str]:
    return [row["server_id"] for row in await storage.monitoring.servers()]


async def test_an_announced_server_is_shown(storage: StorageConnection) -> None:
    await storage.announce_server("b", ServerContext(1, ()))
    await storage.announce_server("a", ONE)
    first, second = await storage.monitoring.servers()
    assert (first["server_id"], first["worker_count"], list(first["queues"])) == ("a", 5, ["default", "mail"])
    assert first["started_wt"] == first["heartbeat_wt"] > 0
    assert second["server_id"] == "b"


async def test_announcing_again_replaces_everything(storage: StorageConnection, advance: Advance) -> None:
    await storage.announce_server("a", ONE)
    (before,) = await storage.monitoring.servers()
    await advance(1_000)
    await storage.announce_server("a", ServerContext(9, ("other",)))
    (after,) = await storage.monitoring.servers()
    assert (after["worker_count"], list(after["queues"])) == (9, ["other"])
    assert after["started_wt"] == before["started_wt"] + 1_000


async def test_a_heartbeat_moves_the_heartbeat_only(storage: StorageConnection, advance: Advance) -> None:
    await storage.announce_server("a", ONE)
    (before,) = await storage.monitoring.servers()
    await advance(1_000)
    await storage.heartbeat("a")
    (after,) = await storage.monitoring.servers()
    assert after["heartbeat_wt"] == before["heartbeat_wt"] + 1_000
    assert after["started_wt"] == before["started_wt"]


async def test_a_heartbeat_of_an_unknown_server_says_that_it_is_gone(storage: StorageConnection) -> None:
    with pytest.raises(ServerGone) as refusal:
        await storage.heartbeat("a")
    assert refusal.value.server_id == "a"
    assert isinstance(refusal.value, Rejected)
    assert await names(storage) == []


async def test_a_removed_server_is_gone_and_only_it(storage: StorageConnection) -> None:
    await storage.announce_server("a", ONE)
    await storage.announce_server("b", ONE)
    await storage.remove_server("a")
    await storage.remove_server("a")
    assert await names(storage) == ["b"]


async def test_servers_strictly_older_than_the_timeout_are_removed(
    storage: StorageConnection, advance: Advance
) -> None:
    await storage.announce_server("stale", ONE)
    await advance(1)
    await storage.announce_server("at the cutoff", ONE)
    await storage.announce_server("beating", ONE)
    await advance(TIMEOUT_MS)
    await storage.heartbeat("beating")
    assert await storage.remove_timed_out_servers(TIMEOUT_MS) == 1
    assert await names(storage) == ["at the cutoff", "beating"]
    assert await storage.remove_timed_out_servers(TIMEOUT_MS) == 0


async def test_wrong_servers_are_refused(storage: StorageConnection) -> None:
    with pytest.raises(InvalidInput):
        await storage.remove_timed_out_servers(-1)
    with pytest.raises(InvalidInput):
        await storage.remove_timed_out_servers(2**63 - 1)
    with pytest.raises(InvalidInput):
        await storage.announce_server("", ONE)
    with pytest.raises(InvalidInput):
        await storage.heartbeat("")


async def test_servers_survive_a_restart(
    storage: StorageConnection, restart: Callable[[], Awaitable[None]]
) -> None:
    await storage.announce_server("a", ONE)
    before = await storage.monitoring.servers()
    await restart()
    assert await storage.monitoring.servers() == before


async def test_the_clock_of_the_store_does_not_go_back(
    storage: StorageConnection, other: StorageConnection
) -> None:
    first = await storage.get_utc_datetime()
    second = await other.get_utc_datetime()
    assert first <= second
    assert first.utcoffset() is not None
    assert first.year >= 2026


async def test_the_clock_of_the_store_goes_on(storage: StorageConnection, advance: Advance) -> None:
    before = await storage.get_utc_datetime()
    await advance(3_600_000)
    assert (await storage.get_utc_datetime() - before).total_seconds() >= 3_600
