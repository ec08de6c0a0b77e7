"""The tables under sets, lists, hashes, counters and servers: order, edges, expiry and canonical rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.jobs.collections import Collections
from quorker.core.jobs.collections_servers import ServerRow, Servers
from quorker.core.jobs.collections_snapshot import SEGMENT_CHARS, SEGMENT_ITEMS, read_rows
from quorker.core.jobs.collections_tables import (
    COUNTER_MAX,
    COUNTER_MIN,
    KIND_COUNTER,
    KIND_HASH,
    KIND_LIST,
    KIND_SERVER,
    KIND_SET,
    Usage,
)


@pytest.fixture
def tables() -> Collections:
    return Collections()


# Sets ------------------------------------------------------------------------------------------------------------


def test_set_orders_by_score_then_value(tables: Collections) -> None:
    for value, score in [("c", 1.0), ("b", 2.0), ("a", 2.0), ("d", -1.0)]:
        assert tables.sets.add("k", value, score)
    assert tables.sets.page("k", 0, 10) == [(-1.0, "d"), (1.0, "c"), (2.0, "a"), (2.0, "b")]


def test_set_add_moves_the_score_of_a_known_value(tables: Collections) -> None:
    tables.sets.add("k", "a", 1.0)
    assert not tables.sets.add("k", "a", 9.0)
    assert not tables.sets.add("k", "a", 9.0)
    assert tables.sets.size("k") == 1
    assert tables.sets.score("k", "a") == 9.0


def test_set_range_add_overwrites_scores_with_zero(tables: Collections) -> None:
    tables.sets.add("k", "a", 5.0)
    assert tables.sets.add_range("k", ["a", "b", "b"]) == 1
    assert tables.sets.page("k", 0, 9) == [(0.0, "a"), (0.0, "b")]


def test_set_range_add_of_nothing_makes_no_key(tables: Collections) -> None:
    tables.sets.add_range("k", [])
    assert "k" not in tables.sets


def test_set_keeps_one_zero(tables: Collections) -> None:
    tables.sets.add("k", "a", -0.0)
    assert str(tables.sets.score("k", "a")) == "0.0"


def test_set_lowest_is_inclusive_at_both_ends_and_capped(tables: Collections) -> None:
    for number in range(-1, 5):
        tables.sets.add("k", f"v{number}", float(number))
    assert tables.sets.lowest("k", 0.0, 2.0, 10) == ["v0", "v1", "v2"]
    assert tables.sets.lowest("k", 0.0, 2.0, 2) == ["v0", "v1"]
    assert tables.sets.lowest("k", 9.0, 10.0, 2) == []
    assert tables.sets.lowest("nothing", 0.0, 2.0, 2) == []
    assert tables.sets.lowest("k", float("-inf"), float("inf"), 1) == ["v-1"]


def test_removing_the_last_value_drops_the_set_and_its_expiry(tables: Collections) -> None:
    tables.sets.add("k", "a", 0.0)
    tables.sets.expire("k", 50)
    assert not tables.sets.remove("k", "b")
    assert tables.sets.remove("k", "a")
    assert not tables.sets.remove("k", "a")
    tables.sets.add("k", "a", 0.0)
    assert tables.sets.expires_at("k") is None


def test_set_count_is_limited_over_keys(tables: Collections) -> None:
    tables.sets.add_range("a", ["1", "2", "3"])
    tables.sets.add_range("b", ["1", "2"])
    assert tables.sets.count(["a", "b", "nothing"], 100) == 5
    assert tables.sets.count(["a", "b"], 4) == 4
    assert tables.sets.count(["a", "b"], 0) == 0
    assert tables.sets.count([], 4) == 0


def test_set_contains(tables: Collections) -> None:
    tables.sets.add("k", "a", 0.0)
    assert tables.sets.contains("k", "a")
    assert not tables.sets.contains("k", "b")
    assert not tables.sets.contains("nothing", "a")
    assert tables.sets.score("nothing", "a") is None


# Lists -----------------------------------------------------------------------------------------------------------


def filled(tables: Collections, *oldest_first: str) -> None:
    for value in oldest_first:
        tables.lists.prepend("k", value)


def test_list_is_newest_first_and_keeps_duplicates(tables: Collections) -> None:
    filled(tables, "a", "b", "a")
    assert tables.lists.page("k", 0, 10) == ["a", "b", "a"]
    filled(tables, "c")
    assert tables.lists.page("k", 0, 2) == ["c", "a"]
    assert tables.lists.page("k", 1, 3) == ["a", "b"]
    assert tables.lists.page("k", 9, 12) == []
    assert tables.lists.page("nothing", 0, 12) == []


def test_list_remove_takes_all_occurrences(tables: Collections) -> None:
    filled(tables, "a", "b", "a")
    assert tables.lists.remove("k", "a") == 2
    assert tables.lists.page("k", 0, 10) == ["b"]
    assert tables.lists.remove("k", "a") == 0
    assert tables.lists.remove("k", "b") == 1
    assert "k" not in tables.lists
    assert tables.lists.remove("k", "b") == 0


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [
        (1, 2, ["d", "c"]),
        (0, 0, ["e"]),
        (4, 4, ["a"]),
        (-3, 1, ["e", "d"]),
        (3, 99, ["b", "a"]),
        (0, 2**63 - 1, ["e", "d", "c", "b", "a"]),
        (5, 9, []),
        (2, 1, []),
        (-5, -1, []),
    ],
)
def test_list_trim_keeps_an_inclusive_range(
    tables: Collections, start: int, end: int, kept: list[str]
) -> None:
    filled(tables, "a", "b", "c", "d", "e")
    assert tables.lists.trim("k", start, end) == 5 - len(kept)
    assert tables.lists.page("k", 0, 10) == kept
    assert ("k" in tables.lists) == bool(kept)


def test_list_trim_of_nothing_is_nothing(tables: Collections) -> None:
    assert tables.lists.trim("k", 0, 1) == 0


def test_emptied_list_loses_its_expiry(tables: Collections) -> None:
    filled(tables, "a")
    tables.lists.expire("k", 9)
    tables.lists.trim("k", 1, 0)
    assert tables.due(99, 9) == []


# Hashes ----------------------------------------------------------------------------------------------------------


def test_hash_merges_and_keeps_null_values(tables: Collections) -> None:
    assert tables.hashes.merge("k", {"a": "1", "b": None}) == 2
    assert tables.hashes.merge("k", {"b": "2", "c": "3"}) == 1
    assert tables.hashes.entries("k") == {"a": "1", "b": "2", "c": "3"}
    assert tables.hashes.field("k", "a") == "1"
    assert tables.hashes.field("k", "z") is None
    assert tables.hashes.field("nothing", "a") is None
    assert tables.hashes.size("k") == 3


def test_missing_hash_has_no_entries(tables: Collections) -> None:
    assert tables.hashes.entries("k") is None
    assert tables.hashes.size("k") == 0


def test_merging_nothing_makes_no_hash(tables: Collections) -> None:
    assert tables.hashes.merge("k", {}) == 0
    assert "k" not in tables.hashes


def test_hash_entries_come_in_order_of_name(tables: Collections) -> None:
    tables.hashes.merge("k", {"b": "1", "a": "2"})
    assert list(tables.hashes.entries("k") or ()) == ["a", "b"]


def test_merging_leaves_the_expiry_of_a_hash_alone(tables: Collections) -> None:
    tables.hashes.merge("k", {"a": "1"})
    tables.hashes.expire("k", 70)
    tables.hashes.merge("k", {"b": "1"})
    assert tables.hashes.expires_at("k") == 70


# Counters --------------------------------------------------------------------------------------------------------


def test_counter_is_gone_at_zero_without_expiry(tables: Collections) -> None:
    assert tables.counters.add("k", 1) == 1
    assert tables.counters.add("k", 1) == 2
    assert tables.counters.add("k", -2) == 0
    assert len(tables.counters) == 0
    assert tables.counters.add("k", 1) == 1


def test_counter_with_expiry_stays_at_zero(tables: Collections) -> None:
    tables.counters.add("k", 1, expires_lt=10)
    assert tables.counters.add("k", -1) == 0
    assert len(tables.counters) == 1
    assert tables.expire_due(10, 9) == 1
    assert len(tables.counters) == 0


def test_counter_expiry_only_moves_later(tables: Collections) -> None:
    for instant, kept in [(10, 10), (30, 30), (20, 30)]:
        tables.counters.add("k", 1, expires_lt=instant)
        assert tables.counters.expires_at("k") == kept
    tables.counters.add("k", 1)
    assert tables.counters.expires_at("k") == 30


def test_counter_stops_at_its_bounds(tables: Collections) -> None:
    assert tables.counters.add("up", COUNTER_MAX) == COUNTER_MAX
    assert tables.counters.add("up", 1) == COUNTER_MAX
    assert tables.counters.add("down", COUNTER_MIN) == COUNTER_MIN
    assert tables.counters.add("down", -1) == COUNTER_MIN
    assert tables.counters.value("nothing") == 0


# Servers ---------------------------------------------------------------------------------------------------------


def server(name: str, heartbeat_lt: int = 0) -> ServerRow:
    return ServerRow(name, 5, ("default",), 1_000, heartbeat_lt, 1_000)


def test_heartbeat_touches_a_known_server_and_never_goes_back() -> None:
    servers = Servers(Usage())
    servers.announce(server("a"))
    assert servers.heartbeat("a", 10, 2_000)
    assert servers.heartbeat("a", 5, 1_500)
    assert servers.get("a") == server("a")._replace(heartbeat_lt=10, heartbeat_wt=2_000)
    assert not servers.heartbeat("b", 10, 2_000)
    assert servers.get("b") is None


def test_only_servers_strictly_before_the_cutoff_time_out() -> None:
    servers = Servers(Usage())
    for name, instant in [("at", 100), ("before", 99), ("long before", 0), ("after", 101)]:
        servers.announce(server(name, instant))
    assert servers.remove_timed_out(100) == 2
    assert [row.server_id for row in servers] == ["after", "at"]


def test_announcing_again_replaces_everything() -> None:
    servers = Servers(Usage())
    servers.announce(server("a"))
    again = ServerRow("a", 9, ("other",), 5_000, 70, 5_000)
    servers.announce(again)
    assert list(servers) == [again]


def test_removing_a_server_removes_only_it() -> None:
    servers = Servers(Usage())
    servers.announce(server("a"))
    servers.announce(server("b"))
    assert servers.remove("a")
    assert not servers.remove("a")
    assert [row.server_id for row in servers] == ["b"]


# Expiry ----------------------------------------------------------------------------------------------------------


def one_of_each(tables: Collections) -> None:
    tables.sets.add("set", "a", 1.5)
    tables.lists.prepend("list", "a")
    tables.hashes.merge("hash", {"a": None})
    tables.counters.add("counter", 3, expires_lt=40)
    tables.servers.announce(server("s"))


def test_keys_expire_at_their_instant_and_not_before(tables: Collections) -> None:
    one_of_each(tables)
    assert tables.sets.expire("set", 10)
    assert tables.lists.expire("list", 20)
    assert tables.hashes.expire("hash", 30)
    assert tables.next_due() == 10
    assert tables.due(9, 10) == []
    assert tables.due(40, 10) == [
        (KIND_SET, "set"),
        (KIND_LIST, "list"),
        (KIND_HASH, "hash"),
        (KIND_COUNTER, "counter"),
    ]
    assert tables.expire_due(30, 2) == 2
    assert ("set" in tables.sets, "list" in tables.lists, "hash" in tables.hashes) == (False, False, True)
    assert tables.expire_due(100, 10) == 2
    assert tables.next_due() is None


def test_expiry_and_persistence_of_a_missing_key_do_nothing(tables: Collections) -> None:
    assert not tables.sets.expire("k", 10)
    assert not tables.sets.persist("k")
    assert tables.next_due() is None


def test_a_persisted_key_lives_on(tables: Collections) -> None:
    one_of_each(tables)
    tables.sets.expire("set", 10)
    assert tables.sets.persist("set")
    assert tables.sets.expires_at("set") is None
    tables.expire_due(100, 10)
    assert tables.sets.contains("set", "a")


def test_adding_to_a_key_keeps_its_expiry(tables: Collections) -> None:
    one_of_each(tables)
    tables.sets.expire("set", 10)
    tables.sets.add("set", "b", 0.0)
    tables.lists.expire("list", 10)
    tables.lists.prepend("list", "b")
    assert (tables.sets.expires_at("set"), tables.lists.expires_at("list")) == (10, 10)


def test_an_expired_key_is_readable_until_it_is_removed(tables: Collections) -> None:
    one_of_each(tables)
    tables.sets.expire("set", 10)
    assert tables.sets.size("set") == 1
    assert tables.expire_due(10, 10) == 1
    assert tables.sets.size("set") == 0


def test_the_same_name_in_two_tables_expires_apart(tables: Collections) -> None:
    tables.sets.add("k", "a", 0.0)
    tables.lists.prepend("k", "a")
    tables.sets.expire("k", 10)
    tables.expire_due(10, 10)
    assert "k" in tables.lists


def test_what_is_removed_frees_what_it_used(tables: Collections) -> None:
    assert tables.state_bytes == 0
    one_of_each(tables)
    tables.hashes.merge("hash", {"a": "long value", "b": None})
    tables.hashes.merge("hash", {"a": None})
    tables.lists.prepend("list", "b")
    tables.lists.trim("list", 0, 0)
    used = tables.state_bytes
    tables.servers.announce(server("s"))
    assert used == tables.state_bytes > 1000
    tables.servers.remove("s")
    tables.sets.remove("set", "a")
    tables.lists.remove("list", "b")
    tables.hashes.drop("hash")
    tables.expire_due(40, 1)
    assert tables.state_bytes == 0


# Canonical rows --------------------------------------------------------------------------------------------------

OPERATIONS = st.tuples(
    st.integers(0, 9), st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(-3, 3), st.integers(0, 50)
)


def perform(tables: Collections, operation: tuple[int, str, str, int, int]) -> None:
    which, key, value, number, instant = operation
    calls: list[Callable[[], object]] = [
        lambda: tables.sets.add(key, value, float(number)),
        lambda: tables.sets.remove(key, value),
        lambda: tables.lists.prepend(key, value),
        lambda: tables.lists.trim(key, 0, max(number, 0)),
        lambda: tables.hashes.merge(key, {value: str(number) if number else None}),
        lambda: tables.counters.add(key, number, instant if instant > 25 else None),
        lambda: tables.sets.expire(key, instant),
        lambda: tables.lists.persist(key),
        lambda: tables.hashes.drop(key),
        lambda: tables.expire_due(instant, 1),
    ]
    calls[which]()


def rows_of(tables: Collections) -> list[Any]:
    return list(tables.freeze().rows())


@given(st.lists(OPERATIONS, max_size=60), st.lists(OPERATIONS, max_size=30))
def test_a_frozen_copy_never_changes_and_restores_the_same_rows(
    before: list[tuple[int, str, str, int, int]], after: list[tuple[int, str, str, int, int]]
) -> None:
    live = Collections()
    for operation in before:
        perform(live, operation)
    expected = rows_of(live)
    view = live.freeze()
    restored = Collections.restore(view.rows())
    for operation in after:
        perform(live, operation)
        perform(restored, operation)
    assert rows_of(Collections.restore(view.rows())) == expected
    assert rows_of(restored) == rows_of(live)
    assert restored.due(100, 100) == live.due(100, 100)
    assert restored.state_bytes == live.state_bytes


def test_rows_do_not_depend_on_the_order_of_insertion() -> None:
    one, other = Collections(), Collections()
    for tables, order in ((one, "abc"), (other, "cab")):
        for name in order:
            tables.sets.add(name, name, 1.0)
            tables.sets.add("all", name, 1.0)
            tables.hashes.merge("h", {name: name})
            tables.counters.add(name, 1)
            tables.servers.announce(server(name))
    assert rows_of(one) == rows_of(other)


def test_a_long_key_is_cut_into_segments_and_put_together_again(tables: Collections) -> None:
    for number in range(SEGMENT_ITEMS * 2 + 1):
        tables.lists.prepend("k", str(number))
        tables.sets.add("k", str(number), float(number))
    tables.sets.expire("k", 7)
    rows = rows_of(tables)
    assert [(row[0], len(row[3])) for row in rows] == [
        (kind, size) for kind in (KIND_SET, KIND_LIST) for size in (SEGMENT_ITEMS, SEGMENT_ITEMS, 1)
    ]
    restored = Collections.restore(rows)
    assert rows_of(restored) == rows
    assert restored.sets.expires_at("k") == 7


def test_large_values_stand_in_segments_of_their_own(tables: Collections) -> None:
    tables.hashes.merge("k", {name: name * SEGMENT_CHARS for name in "abc"})
    tables.lists.prepend("k", "x" * SEGMENT_CHARS)
    tables.lists.prepend("k", "y")
    rows = rows_of(tables)
    assert [len(row[3]) for row in rows] == [1, 1, 1, 1, 1]
    assert rows_of(Collections.restore(rows)) == rows


def test_an_exact_segment_is_followed_by_another_key(tables: Collections) -> None:
    for key in ("a", "b"):
        for number in range(SEGMENT_ITEMS):
            tables.lists.prepend(key, str(number))
    assert rows_of(Collections.restore(rows_of(tables))) == rows_of(tables)


GOOD_SERVER = [1, ["q"], 0, 0, 0]


DAMAGED: list[list[Any]] = [
    [None],
    [()],
    [(KIND_SET, "k", None)],
    [(9, "k", None, ())],
    [(-1, "k", None, ())],
    [(True, "k", None, ["a"])],
    [(KIND_LIST, 1, None, ["a"])],
    [(KIND_LIST, "k", -1, ["a"])],
    [(KIND_LIST, "k", "soon", ["a"])],
    [(KIND_LIST, "k", None, ())],
    [(KIND_LIST, "k", None, "text")],
    [(KIND_LIST, "k", None, [1])],
    [(KIND_LIST, "k", None, ["a"] * (SEGMENT_ITEMS + 1))],
    [(KIND_LIST, "k", None, ["a"] * SEGMENT_ITEMS), (KIND_LIST, "k", 5, ["a"])],
    [(KIND_LIST, "b", None, ["a"]), (KIND_LIST, "a", None, ["a"])],
    [(KIND_HASH, "a", None, [("f", None)]), (KIND_LIST, "a", None, ["a"])],
    [(KIND_SET, "k", None, [("a", 1)])],
    [(KIND_SET, "k", None, [("a", float("nan"))])],
    [(KIND_SET, "k", None, [("a", 2.0), ("b", 1.0)])],
    [(KIND_SET, "k", None, [("a", 1.0), ("a", 2.0)])],
    [(KIND_SET, "k", None, [("a",)])],
    [(KIND_SET, "k", None, ["a"])],
    [(KIND_HASH, "k", None, [("f", 1)])],
    [(KIND_HASH, "k", None, [(1, "v")])],
    [(KIND_HASH, "k", None, [("f", "v"), ("f", "v")])],
    [(KIND_COUNTER, "k", None, 2**63)],
    [(KIND_COUNTER, "k", None, "1")],
    [(KIND_COUNTER, "k", None, 1), (KIND_COUNTER, "k", None, 1)],
    [(KIND_SERVER, "s", None, GOOD_SERVER[:4])],
    [(KIND_SERVER, "s", None, ["x", *GOOD_SERVER[1:]])],
    [(KIND_SERVER, "s", None, [1, [1], 0, 0, 0])],
    [(KIND_SERVER, "s", None, [1, "q", 0, 0, 0])],
    [(KIND_SERVER, "s", None, [1, ["q"], 0, None, 0])],
]


@pytest.mark.parametrize("rows", DAMAGED)
def test_damaged_rows_are_refused(rows: list[object]) -> None:
    with pytest.raises(ValueError, match="collections: "):
        Collections.restore(rows)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 6)
    | st.floats()
    | st.text(max_size=2)
    | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(
    st.lists(st.tuples(st.integers(-1, 5), st.text(max_size=1), st.none() | json_like, json_like) | json_like)
)
def test_reading_rows_is_total(rows: list[object]) -> None:
    try:
        keys = list(read_rows(rows))
    except ValueError:
        return
    assert [(key.kind, key.key) for key in keys] == sorted({(key.kind, key.key) for key in keys})


def test_the_rows_of_every_kind_read_back() -> None:
    tables = Collections()
    one_of_each(tables)
    kinds = [row[0] for row in rows_of(tables)]
    assert kinds == [KIND_SET, KIND_LIST, KIND_HASH, KIND_COUNTER, KIND_SERVER]
    values = chain.from_iterable(row[3:] for row in rows_of(Collections.restore(rows_of(tables))))
    assert list(values) == [[("a", 1.5)], ["a"], [("a", None)], 3, (5, ("default",), 1_000, 0, 1_000)]
