"""Distributed locks: those in line, bound to a session, and the leased ones of named owners."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
import trio.testing

from quorker.core.errors import InvalidInput, NotApplied, Rejected
from quorker.core.jobs.commands import ReleaseLock
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import DistributedLockTimeout

pytestmark = pytest.mark.trio

Advance: TypeAlias = Callable[[int], Awaitable[None]]
LEASE_MS = 120_000


async def test_a_lock_is_exclusive_across_connections(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async with await storage.acquire_distributed_lock("jobs", 1):
        with pytest.raises(DistributedLockTimeout) as refusal:
            await other.acquire_distributed_lock("jobs", 0.01)
    assert refusal.value.resource == "jobs"
    assert isinstance(refusal.value, NotApplied)


async def test_a_released_lock_can_be_taken_at_once(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async with await storage.acquire_distributed_lock("jobs", 1) as first:
        pass
    async with await other.acquire_distributed_lock("jobs", 0) as second:
        assert second.token > first.token


async def test_a_zero_timeout_tries_once(storage: StorageConnection, other: StorageConnection) -> None:
    async with await storage.acquire_distributed_lock("jobs", 0):
        with pytest.raises(DistributedLockTimeout):
            await other.acquire_distributed_lock("jobs", 0)


async def test_different_resources_do_not_disturb_each_other(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async with await storage.acquire_distributed_lock("a", 0), await other.acquire_distributed_lock("b", 0):
        pass


async def test_a_lock_is_not_reentrant(storage: StorageConnection) -> None:
    async with await storage.acquire_distributed_lock("jobs", 0):
        with pytest.raises(DistributedLockTimeout):
            await storage.acquire_distributed_lock("jobs", 0.01)


async def test_waiters_get_the_lock_in_order(storage: StorageConnection, other: StorageConnection) -> None:
    order: list[int] = []

    async def wait_in_line(connection: StorageConnection, number: int) -> None:
        async with await connection.acquire_distributed_lock("jobs", 10):
            order.append(number)

    async with trio.open_nursery() as nursery, await storage.acquire_distributed_lock("jobs", 0):
        for number, connection in enumerate([other, storage, other]):
            nursery.start_soon(wait_in_line, connection, number)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
    assert order == [0, 1, 2]


async def test_one_who_gave_up_waiting_is_passed_over(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async with await storage.acquire_distributed_lock("jobs", 0):
        with pytest.raises(DistributedLockTimeout):
            await other.acquire_distributed_lock("jobs", 0.01)
    async with await storage.acquire_distributed_lock("jobs", 0):
        pass


async def test_one_who_was_cancelled_while_waiting_is_passed_over(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async with await storage.acquire_distributed_lock("jobs", 0):
        with trio.move_on_after(0.01) as scope:
            await other.acquire_distributed_lock("jobs", 10)
        assert scope.cancelled_caught
    async with await storage.acquire_distributed_lock("jobs", 0):
        pass


async def test_an_acquisition_cancelled_at_entry_holds_nothing(
    storage: StorageConnection, other: StorageConnection
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.acquire_distributed_lock("jobs", 1)
    assert scope.cancelled_caught
    async with await other.acquire_distributed_lock("jobs", 0):
        pass


async def test_the_block_releases_also_when_cancelled(
    storage: StorageConnection, other: StorageConnection
) -> None:
    with trio.CancelScope() as scope:
        async with await storage.acquire_distributed_lock("jobs", 0):
            scope.cancel()
            await trio.sleep_forever()
    async with await other.acquire_distributed_lock("jobs", 0):
        pass


async def test_releasing_twice_does_not_take_it_from_the_next(
    storage: StorageConnection, other: StorageConnection
) -> None:
    lock = await storage.acquire_distributed_lock("jobs", 0)
    await lock.release()
    next_lock = await other.acquire_distributed_lock("jobs", 0)
    await lock.release()
    with pytest.raises(DistributedLockTimeout):
        await storage.acquire_distributed_lock("jobs", 0)
    await next_lock.release()


async def test_a_session_that_lives_keeps_its_lock(
    storage: StorageConnection, other: StorageConnection, advance: Advance
) -> None:
    async with await storage.acquire_distributed_lock("jobs", 0):
        await advance(7 * 24 * 3600 * 1000)
        with pytest.raises(DistributedLockTimeout):
            await other.acquire_distributed_lock("jobs", 0)


async def test_a_lock_survives_a_restart(
    storage: StorageConnection, other: StorageConnection, restart: Callable[[], Awaitable[None]]
) -> None:
    async with await storage.acquire_distributed_lock("jobs", 0):
        await restart()
        with pytest.raises(DistributedLockTimeout):
            await other.acquire_distributed_lock("jobs", 0)
    async with await other.acquire_distributed_lock("jobs", 0):
        pass


async def test_a_transaction_holds_its_lock_until_the_commit(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async with storage.create_write_transaction() as transaction:
        await transaction.acquire_distributed_lock("jobs", 0)
        transaction.increment_counter("a")
        with pytest.raises(DistributedLockTimeout):
            await other.acquire_distributed_lock("jobs", 0)
        assert await transaction.commit() == [1]
        async with await other.acquire_distributed_lock("jobs", 0):
            pass


async def test_an_abandoned_transaction_releases_its_lock(
    storage: StorageConnection, other: StorageConnection
) -> None:
    async with storage.create_write_transaction() as transaction:
        await transaction.acquire_distributed_lock("jobs", 0)
        transaction.increment_counter("a")
    async with await other.acquire_distributed_lock("jobs", 0):
        pass
    assert await storage.get_counter("a") == 0


async def test_wrong_acquisitions_are_refused(storage: StorageConnection) -> None:
    with pytest.raises(InvalidInput):
        await storage.acquire_distributed_lock("", 1)
    with pytest.raises(InvalidInput):
        await storage.acquire_distributed_lock("jobs", -1)


# Leased locks of named owners -----------------------------------------------------------------------------------------


async def test_the_same_owner_renews_its_lease(storage: StorageConnection, other: StorageConnection) -> None:
    token = await storage.try_lock("jobs", "a", LEASE_MS)
    assert token > 0
    assert await other.try_lock("jobs", "b", LEASE_MS) == 0
    assert await other.try_lock("jobs", "a", LEASE_MS) == token


async def test_a_lease_ends_at_its_instant(storage: StorageConnection, advance: Advance) -> None:
    first = await storage.try_lock("jobs", "a", LEASE_MS)
    await advance(LEASE_MS - 1)
    assert await storage.try_lock("jobs", "b", LEASE_MS) == 0
    await advance(1)
    assert await storage.try_lock("jobs", "b", LEASE_MS) > first


async def test_a_renewal_never_shortens_a_lease(storage: StorageConnection, advance: Advance) -> None:
    await storage.try_lock("jobs", "a", LEASE_MS)
    await storage.try_lock("jobs", "a", 1)
    await advance(LEASE_MS - 1)
    assert await storage.try_lock("jobs", "b", LEASE_MS) == 0


async def test_a_former_owner_cannot_renew(storage: StorageConnection, advance: Advance) -> None:
    await storage.try_lock("jobs", "a", LEASE_MS)
    await advance(LEASE_MS)
    await storage.try_lock("jobs", "b", LEASE_MS)
    assert await storage.try_lock("jobs", "a", LEASE_MS) == 0


async def test_only_the_owner_unlocks(storage: StorageConnection) -> None:
    await storage.try_lock("jobs", "a", LEASE_MS)
    assert not await storage.unlock("jobs", "b")
    assert await storage.unlock("jobs", "a")
    assert not await storage.unlock("jobs", "a")


async def test_maintenance_drops_locks_past_their_time(storage: StorageConnection, advance: Advance) -> None:
    await storage.try_lock("jobs", "a", LEASE_MS)
    await advance(LEASE_MS)
    await storage.maintain(LEASE_MS)
    assert (await storage.connection.query("lock", {"resource": "jobs"})).value is None


async def test_an_expired_lease_goes_to_who_waits(
    storage: StorageConnection, other: StorageConnection, advance: Advance
) -> None:
    await storage.try_lock("jobs", "a", LEASE_MS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.acquire_distributed_lock, "jobs", 10)
        await trio.testing.wait_all_tasks_blocked()
        await advance(LEASE_MS)
    assert await storage.try_lock("jobs", "a", LEASE_MS) == 0


async def test_a_huge_lease_is_refused_and_harms_nobody(storage: StorageConnection) -> None:
    with pytest.raises(InvalidInput):
        await storage.try_lock("jobs", "a", 2**62)
    with pytest.raises(InvalidInput):
        await storage.maintain(2**62)
    assert await storage.try_lock("jobs", "a", 2**40) > 0
    await storage.maintain(2**40)


async def test_the_token_of_a_lock_is_a_precondition(
    storage: StorageConnection, other: StorageConnection
) -> None:
    transaction = storage.create_write_transaction()
    await transaction.acquire_distributed_lock("jobs", 0)
    transaction.increment_counter("a")
    held = (await storage.connection.query("lock", {"resource": "jobs"})).value
    await storage.connection.submit(ReleaseLock("jobs", held["token"]))
    async with await other.acquire_distributed_lock("jobs", 0):
        with pytest.raises(Rejected, match="precondition_failed"):
            await transaction.commit()
    assert await storage.get_counter("a") == 0
