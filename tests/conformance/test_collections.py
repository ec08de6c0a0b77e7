"""Sets, lists, hashes and counters, as the storage contract has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from quorker.core.errors import InvalidInput
from quorker.core.jobs.commands import IncrementCounter
from quorker.transport.storage import StorageConnection
from quorker.transport.storage_transaction import WriteTransaction

pytestmark = pytest.mark.trio

Advance: TypeAlias = Callable[[int], Awaitable[None]]
INT64_MAX = 2**63 - 1


async def write(storage: StorageConnection, *changes: Callable[[WriteTransaction], None]) -> list[object]:
    transaction = storage.create_write_transaction()
    for change in changes:
        change(transaction)
    return await transaction.commit()


async def scored(storage: StorageConnection, **scores: float) -> None:
    transaction = storage.create_write_transaction()
    for value, score in scores.items():
        transaction.add_to_set("k", value, score)
    await transaction.commit()


async def listed(storage: StorageConnection, *oldest_first: str) -> None:
    transaction = storage.create_write_transaction()
    for value in oldest_first:
        transaction.insert_to_list("k", value)
    await transaction.commit()


# Sets -----------------------------------------------------------------------------------------------------------------


async def test_set_is_ordered_by_score_then_value(storage: StorageConnection) -> None:
    await scored(storage, c=1.0, b=2.0, a=2.0, d=-1.5)
    assert await storage.get_range_from_set("k", 0, 9) == ["d", "c", "a", "b"]
    assert await storage.get_all_items_from_set("k") == {"a", "b", "c", "d"}


async def test_set_add_moves_the_score(storage: StorageConnection) -> None:
    await scored(storage, a=1.0, b=2.0)
    assert await write(storage, lambda tx: tx.add_to_set("k", "a", 3.0)) == [False]
    assert await storage.get_range_from_set("k", 0, 9) == ["b", "a"]
    assert await storage.get_set_count("k") == 2


async def test_set_score_is_zero_by_default(storage: StorageConnection) -> None:
    await write(storage, lambda tx: tx.add_to_set("k", "a"))
    assert await storage.get_first_by_lowest_score_from_set("k", 0.0, 0.0) == "a"


async def test_set_range_add_sets_scores_to_zero(storage: StorageConnection) -> None:
    await scored(storage, a=5.0)
    assert await write(storage, lambda tx: tx.add_range_to_set("k", ["a", "b"])) == [1]
    assert await storage.get_lowest_scores_from_set("k", 0.0, 0.0, 9) == ["a", "b"]


async def test_set_lowest_score_is_inclusive_and_capped(storage: StorageConnection) -> None:
    await scored(storage, disabled=-1.0, a=0.0, b=1.0, c=2.0)
    assert await storage.get_first_by_lowest_score_from_set("k", 0.0, 2.0) == "a"
    assert await storage.get_lowest_scores_from_set("k", 0.0, 2.0, 2) == ["a", "b"]
    assert await storage.get_lowest_scores_from_set("k", 1.0, 2.0, 9) == ["b", "c"]
    assert await storage.get_first_by_lowest_score_from_set("k", 3.0, 4.0) is None
    assert await storage.get_first_by_lowest_score_from_set("nothing", 0.0, 4.0) is None
    assert await storage.get_lowest_scores_from_set("nothing", 0.0, 4.0, 9) == []


async def test_set_lowest_score_refuses_wrong_ranges(storage: StorageConnection) -> None:
    with pytest.raises(InvalidInput, match="low"):
        await storage.get_first_by_lowest_score_from_set("k", 2.0, 1.0)
    with pytest.raises(InvalidInput, match="limit"):
        await storage.get_lowest_scores_from_set("k", 0.0, 1.0, 0)
    with pytest.raises(InvalidInput, match="limit"):
        await storage.get_lowest_scores_from_set("k", 0.0, 1.0, -1)


async def test_set_scores_may_be_infinite_but_not_nan(storage: StorageConnection) -> None:
    await scored(storage, last=float("inf"), first=float("-inf"), middle=0.0)
    assert await storage.get_range_from_set("k", 0, 9) == ["first", "middle", "last"]
    with pytest.raises(InvalidInput, match="NaN"):
        await scored(storage, never=float("nan"))


async def test_set_without_values_is_gone_with_its_expiry(storage: StorageConnection) -> None:
    await scored(storage, a=1.0)
    await write(storage, lambda tx: tx.expire_set("k", 60_000))
    assert await write(
        storage, lambda tx: tx.remove_from_set("k", "b"), lambda tx: tx.remove_from_set("k", "a")
    ) == [False, True]
    await scored(storage, a=1.0)
    assert await storage.get_set_ttl("k") < 0


async def test_set_counts(storage: StorageConnection) -> None:
    await scored(storage, a=1.0, b=2.0)
    await write(storage, lambda tx: tx.add_range_to_set("other", ["x", "y", "z"]))
    assert await storage.get_set_count("k") == 2
    assert await storage.get_set_count("nothing") == 0
    assert await storage.get_set_count_limited(["k", "other", "nothing"], 100) == 5
    assert await storage.get_set_count_limited(["k", "other"], 4) == 4
    assert await storage.get_set_count_limited(["k", "other"], 0) == 0
    assert await storage.get_set_count_limited([], 4) == 0
    with pytest.raises(InvalidInput):
        await storage.get_set_count_limited(["k"], -1)


async def test_set_contains(storage: StorageConnection) -> None:
    await scored(storage, a=1.0)
    assert await storage.get_set_contains("k", "a")
    assert not await storage.get_set_contains("k", "b")
    assert not await storage.get_set_contains("nothing", "a")


async def test_set_range_is_inclusive_and_clamped(storage: StorageConnection) -> None:
    await scored(storage, a=1.0, b=2.0, c=3.0)
    assert await storage.get_range_from_set("k", 1, 1) == ["b"]
    assert await storage.get_range_from_set("k", 1, INT64_MAX) == ["b", "c"]
    assert await storage.get_range_from_set("k", -5, 0) == ["a"]
    assert await storage.get_range_from_set("k", 2, 1) == []
    assert await storage.get_range_from_set("k", 3, 9) == []
    assert await storage.get_range_from_set("nothing", 0, 9) == []
    assert await storage.get_all_items_from_set("nothing") == set()


async def test_set_is_removed_as_a_whole(storage: StorageConnection) -> None:
    await scored(storage, a=1.0, b=2.0)
    assert await write(storage, lambda tx: tx.remove_set("k"), lambda tx: tx.remove_set("k")) == [True, False]
    assert await storage.get_set_count("k") == 0


# Lists ----------------------------------------------------------------------------------------------------------------


async def test_list_is_newest_first_with_duplicates(storage: StorageConnection) -> None:
    await listed(storage, "a", "b", "a")
    assert await storage.get_all_items_from_list("k") == ["a", "b", "a"]
    await listed(storage, "c")
    assert await storage.get_range_from_list("k", 0, 1) == ["c", "a"]
    assert await storage.get_list_count("k") == 4


async def test_list_remove_takes_all_occurrences(storage: StorageConnection) -> None:
    await listed(storage, "a", "b", "a")
    assert await write(storage, lambda tx: tx.remove_from_list("k", "a")) == [2]
    assert await storage.get_all_items_from_list("k") == ["b"]
    await write(storage, lambda tx: tx.expire_list("k", 60_000), lambda tx: tx.remove_from_list("k", "b"))
    await listed(storage, "a")
    assert await storage.get_list_ttl("k") < 0


async def test_list_range_is_inclusive_and_clamped(storage: StorageConnection) -> None:
    await listed(storage, "a", "b", "c")
    assert await storage.get_range_from_list("k", 1, 1) == ["b"]
    assert await storage.get_range_from_list("k", -3, 0) == ["c"]
    assert await storage.get_range_from_list("k", 1, INT64_MAX) == ["b", "a"]
    assert await storage.get_range_from_list("k", 2, 1) == []
    assert await storage.get_range_from_list("nothing", 0, 9) == []
    assert await storage.get_all_items_from_list("nothing") == []
    assert await storage.get_list_count("nothing") == 0


@pytest.mark.parametrize(
    ("keep_from", "keep_to", "kept"),
    [
        (1, 2, "cb"),
        (0, 0, "d"),
        (-9, 0, "d"),
        (2, INT64_MAX, "ba"),
        (0, 3, "dcba"),
        (2, 1, ""),
        (4, 9, ""),
        (-2, -1, ""),
    ],
)
async def test_list_trim_keeps_an_inclusive_range(
    storage: StorageConnection, keep_from: int, keep_to: int, kept: str
) -> None:
    await listed(storage, "a", "b", "c", "d")
    await write(storage, lambda tx: tx.trim_list("k", keep_from, keep_to))
    assert await storage.get_all_items_from_list("k") == list(kept)


# Hashes ---------------------------------------------------------------------------------------------------------------


async def test_hash_merges_and_keeps_null_values(storage: StorageConnection) -> None:
    await storage.set_range_in_hash("k", {"a": "1", "b": None})
    assert await write(storage, lambda tx: tx.set_range_in_hash("k", {"b": "2", "c": ""})) == [1]
    assert await storage.get_all_entries_from_hash("k") == {"a": "1", "b": "2", "c": ""}
    assert await storage.get_value_from_hash("k", "a") == "1"
    assert await storage.get_value_from_hash("k", "nothing") is None
    assert await storage.get_hash_count("k") == 3


async def test_missing_hash_reads_as_none(storage: StorageConnection) -> None:
    assert await storage.get_all_entries_from_hash("nothing") is None
    assert await storage.get_value_from_hash("nothing", "a") is None
    assert await storage.get_hash_count("nothing") == 0


async def test_merging_nothing_makes_no_hash(storage: StorageConnection) -> None:
    await storage.set_range_in_hash("k", {})
    assert await storage.get_all_entries_from_hash("k") is None


async def test_hash_write_leaves_its_expiry_alone(storage: StorageConnection) -> None:
    await storage.set_range_in_hash("k", {"a": "1"})
    await write(storage, lambda tx: tx.expire_hash("k", 60_000))
    await storage.set_range_in_hash("k", {"a": "2"})
    assert 0 < await storage.get_hash_ttl("k") <= 60_000


async def test_hash_is_removed_as_a_whole(storage: StorageConnection) -> None:
    await storage.set_range_in_hash("k", {"a": "1"})
    assert await write(storage, lambda tx: tx.remove_hash("k"), lambda tx: tx.remove_hash("k")) == [
        True,
        False,
    ]
    assert await storage.get_all_entries_from_hash("k") is None


# Counters -------------------------------------------------------------------------------------------------------------


async def test_counter_adds_up_and_vanishes_at_zero(storage: StorageConnection) -> None:
    assert await write(
        storage,
        lambda tx: tx.increment_counter("k"),
        lambda tx: tx.increment_counter("k"),
        lambda tx: tx.decrement_counter("k"),
    ) == [1, 2, 1]
    assert await storage.get_counter("k") == 1
    assert await write(
        storage, lambda tx: tx.decrement_counter("k"), lambda tx: tx.decrement_counter("k")
    ) == [0, -1]
    assert await storage.get_counter("k") == -1
    assert await storage.get_counter("nothing") == 0


async def test_counter_expiry_only_moves_later(storage: StorageConnection, advance: Advance) -> None:
    await write(
        storage,
        lambda tx: tx.increment_counter("k", 60_000),
        lambda tx: tx.increment_counter("k", 1_000),
        lambda tx: tx.increment_counter("k"),
    )
    await advance(59_999)
    assert await storage.get_counter("k") == 3
    await advance(1)
    assert await storage.get_counter("k") == 0


async def test_counter_starts_anew_after_it_expired(storage: StorageConnection, advance: Advance) -> None:
    await write(storage, lambda tx: tx.increment_counter("k", 1_000))
    await advance(1_000)
    await write(storage, lambda tx: tx.increment_counter("k"))
    await advance(10_000)
    assert await storage.get_counter("k") == 1


async def test_counter_with_expiry_stays_at_zero_and_expires(
    storage: StorageConnection, advance: Advance
) -> None:
    hour_ms = 3_600_000
    await write(storage, lambda tx: tx.increment_counter("k", hour_ms), lambda tx: tx.decrement_counter("k"))
    ttl_ms = (await storage.connection.query("counter_ttl", {"key": "k"})).value
    assert hour_ms - 60_000 < ttl_ms <= hour_ms  # some drivers have real clocks
    await advance(hour_ms)
    assert (await storage.connection.query("counter_ttl", {"key": "k"})).value < 0


async def test_counter_stops_at_its_bounds(storage: StorageConnection) -> None:
    await storage.connection.submit(IncrementCounter("k", INT64_MAX))
    assert await write(storage, lambda tx: tx.increment_counter("k")) == [INT64_MAX]
    assert await storage.get_counter("k") == INT64_MAX


# Expiry of keys -------------------------------------------------------------------------------------------------------


async def all_three(storage: StorageConnection) -> None:
    await write(
        storage,
        lambda tx: tx.add_to_set("k", "a"),
        lambda tx: tx.insert_to_list("k", "a"),
        lambda tx: tx.set_range_in_hash("k", {"a": "1"}),
    )


async def ttls(storage: StorageConnection) -> list[int]:
    return [await storage.get_set_ttl("k"), await storage.get_list_ttl("k"), await storage.get_hash_ttl("k")]


async def test_ttl_is_negative_without_a_key_or_an_expiry(storage: StorageConnection) -> None:
    assert max(await ttls(storage)) < 0
    await all_three(storage)
    assert max(await ttls(storage)) < 0


async def test_keys_expire_and_persist(storage: StorageConnection, advance: Advance) -> None:
    await all_three(storage)
    await write(
        storage,
        lambda tx: tx.expire_set("k", 10_000),
        lambda tx: tx.expire_list("k", 20_000),
        lambda tx: tx.expire_hash("k", 20_000),
        lambda tx: tx.persist_hash("k"),
    )
    set_ttl, list_ttl, hash_ttl = await ttls(storage)
    assert (0 < set_ttl <= 10_000 < list_ttl <= 20_000, hash_ttl < 0) == (True, True)
    await advance(10_000)
    assert (await storage.get_set_count("k"), await storage.get_list_count("k")) == (0, 1)
    await advance(10_000)
    assert (await storage.get_list_count("k"), await storage.get_hash_count("k")) == (0, 1)


async def test_persisted_sets_and_lists_live_on(storage: StorageConnection, advance: Advance) -> None:
    await all_three(storage)
    await write(
        storage,
        lambda tx: tx.expire_set("k", 10_000),
        lambda tx: tx.expire_list("k", 10_000),
        lambda tx: tx.persist_set("k"),
        lambda tx: tx.persist_list("k"),
    )
    await advance(60_000)
    assert (await storage.get_set_count("k"), await storage.get_list_count("k")) == (1, 1)


async def test_adding_to_a_key_keeps_its_expiry(storage: StorageConnection) -> None:
    await all_three(storage)
    await write(
        storage,
        lambda tx: tx.expire_set("k", 60_000),
        lambda tx: tx.add_to_set("k", "b"),
        lambda tx: tx.expire_list("k", 60_000),
        lambda tx: tx.insert_to_list("k", "b"),
    )
    assert min((await ttls(storage))[:2]) > 0


async def test_expiring_and_persisting_a_missing_key_do_nothing(storage: StorageConnection) -> None:
    assert (
        await write(
            storage,
            lambda tx: tx.expire_set("k", 1),
            lambda tx: tx.persist_set("k"),
            lambda tx: tx.expire_list("k", 1),
            lambda tx: tx.persist_list("k"),
            lambda tx: tx.expire_hash("k", 1),
            lambda tx: tx.persist_hash("k"),
        )
        == [False] * 6
    )


async def test_collections_survive_a_restart(
    storage: StorageConnection, restart: Callable[[], Awaitable[None]]
) -> None:
    await all_three(storage)
    await listed(storage, "b")
    await write(storage, lambda tx: tx.increment_counter("c", 60_000), lambda tx: tx.expire_set("k", 60_000))
    await restart()
    assert await storage.get_all_items_from_set("k") == {"a"}
    assert await storage.get_all_items_from_list("k") == ["b", "a"]
    assert await storage.get_all_entries_from_hash("k") == {"a": "1"}
    assert await storage.get_counter("c") == 1
    assert await storage.get_set_ttl("k") > 0


async def test_text_of_any_language_and_large_values_read_back(storage: StorageConnection) -> None:
    value = "\u00e4\u4e2d\U0001f680" * 10_000
    await storage.set_range_in_hash("sch\u00fcssel", {"": value})
    assert await storage.get_value_from_hash("sch\u00fcssel", "") == value
