"""All 34 operations of the contract are reachable, and the suite exercises each one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, get_args

import pytest

from quorker.core.jobs import commands
from quorker.core.jobs.commands import COMMAND_TYPES, ContractCommand
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_records import Invocation, ServerContext, State
from quorker.transport.storage_transaction import WriteTransaction

Scenario: TypeAlias = Callable[[StorageConnection], Awaitable[None]]
CALL = Invocation("send", b"1")
DAY_MS = 24 * 3600 * 1000
CONTRACT = {each.OP: each for each in COMMAND_TYPES if each.OP <= 34}


async def commit(storage: StorageConnection, *changes: Callable[[WriteTransaction], None]) -> list[object]:
    transaction = storage.create_write_transaction()
    for change in changes:
        change(transaction)
    return await transaction.commit()


async def a_job(storage: StorageConnection) -> str:
    return await storage.create_expired_job(CALL, {}, DAY_MS)


async def create_job(storage: StorageConnection) -> None:
    assert await storage.get_job_data(await a_job(storage)) is not None


async def set_job_parameter(storage: StorageConnection) -> None:
    job_id = await a_job(storage)
    await storage.set_job_parameter(job_id, "a", "1")
    assert await storage.get_job_parameter(job_id, "a") == "1"


async def set_job_state(storage: StorageConnection) -> None:
    job_id = await a_job(storage)
    await commit(storage, lambda tx: tx.set_job_state(job_id, State("Odd")))
    assert await storage.get_state_data(job_id) == State("Odd")


async def add_job_state(storage: StorageConnection) -> None:
    job_id = await a_job(storage)
    await commit(storage, lambda tx: tx.add_job_state(job_id, State("Odd")))
    assert await storage.get_state_data(job_id) is None


async def expire_and_persist_job(storage: StorageConnection) -> None:
    job_id = await a_job(storage)
    changes: list[Callable[[WriteTransaction], None]] = [
        lambda tx: tx.expire_job(job_id, 0),
        lambda tx: tx.persist_job(job_id),
    ]
    assert await commit(storage, *changes) == [True, True]
    await storage.maintain(DAY_MS)
    assert await storage.get_job_data(job_id) is not None


async def fetch_and_acknowledge(storage: StorageConnection) -> None:
    job_id = await a_job(storage)
    await commit(storage, lambda tx: tx.add_to_queue("default", job_id))
    fetched = await storage.fetch_next_job(["default"])
    assert await fetched.renew()
    assert await fetched.remove_from_queue()


async def requeue_fetched(storage: StorageConnection) -> None:
    job_id = await a_job(storage)
    await commit(storage, lambda tx: tx.add_to_queue("default", job_id))
    assert await (await storage.fetch_next_job(["default"])).requeue()


async def counters(storage: StorageConnection) -> None:
    assert await commit(storage, lambda tx: tx.increment_counter("k")) == [1]


async def sets(storage: StorageConnection) -> None:
    assert await commit(
        storage,
        lambda tx: tx.add_to_set("k", "a", 1.0),
        lambda tx: tx.add_range_to_set("k", ["b"]),
        lambda tx: tx.expire_set("k", 1),
        lambda tx: tx.persist_set("k"),
        lambda tx: tx.remove_from_set("k", "a"),
        lambda tx: tx.remove_set("k"),
    ) == [True, 1, True, True, True, True]


async def lists(storage: StorageConnection) -> None:
    assert await commit(
        storage,
        lambda tx: tx.insert_to_list("k", "a"),
        lambda tx: tx.insert_to_list("k", "b"),
        lambda tx: tx.expire_list("k", 1),
        lambda tx: tx.persist_list("k"),
        lambda tx: tx.trim_list("k", 0, 0),
        lambda tx: tx.remove_from_list("k", "b"),
    ) == [1, 2, True, True, 1, 1]


async def hashes(storage: StorageConnection) -> None:
    assert await commit(
        storage,
        lambda tx: tx.set_range_in_hash("k", {"a": "1"}),
        lambda tx: tx.expire_hash("k", 1),
        lambda tx: tx.persist_hash("k"),
        lambda tx: tx.remove_hash("k"),
    ) == [1, True, True, True]


async def servers(storage: StorageConnection) -> None:
    await storage.announce_server("a", ServerContext(1, ()))
    await storage.heartbeat("a")
    assert await storage.remove_timed_out_servers(DAY_MS) == 0
    await storage.remove_server("a")


async def leased_locks(storage: StorageConnection) -> None:
    assert await storage.try_lock("jobs", "me", 1000) > 0
    assert await storage.unlock("jobs", "me")


async def maintenance(storage: StorageConnection) -> None:
    assert set((await storage.maintain(DAY_MS)).values()) == {0}


SCENARIOS: Mapping[Scenario, list[type[ContractCommand]]] = {
    create_job: [commands.CreateJob],
    set_job_parameter: [commands.SetJobParameter],
    set_job_state: [commands.SetJobState],
    add_job_state: [commands.AddJobState],
    expire_and_persist_job: [commands.ExpireJob, commands.PersistJob],
    fetch_and_acknowledge: [
        commands.AddToQueue,
        commands.FetchNext,
        commands.AckFetched,
        commands.RenewFetched,
    ],
    requeue_fetched: [commands.RequeueFetched],
    counters: [commands.IncrementCounter],
    sets: [
        commands.AddToSet,
        commands.AddRangeToSet,
        commands.RemoveFromSet,
        commands.RemoveSet,
        commands.ExpireSet,
        commands.PersistSet,
    ],
    lists: [
        commands.InsertToList,
        commands.RemoveFromList,
        commands.TrimList,
        commands.ExpireList,
        commands.PersistList,
    ],
    hashes: [
        commands.SetRangeInHash,
        commands.RemoveHash,
        commands.ExpireHash,
        commands.PersistHash,
    ],
    servers: [
        commands.AnnounceServer,
        commands.RemoveServer,
        commands.Heartbeat,
        commands.RemoveTimedOutServers,
    ],
    leased_locks: [commands.TryLock, commands.Unlock],
    maintenance: [commands.Maintain],
}


def test_the_contract_has_34_operations() -> None:
    assert sorted(CONTRACT) == list(range(1, 35))
    assert len(get_args(commands.JobCommand)) + len(get_args(commands.CollectionCommand)) == 34


def test_every_operation_has_a_scenario() -> None:
    named = [each for operations in SCENARIOS.values() for each in operations]
    assert sorted(each.OP for each in named) == sorted(CONTRACT)


@pytest.mark.trio
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_the_scenario_sends_its_operations(
    storage: StorageConnection, operations: set[int], scenario: Scenario
) -> None:
    await scenario(storage)
    assert {each.OP for each in SCENARIOS[scenario]} <= operations
