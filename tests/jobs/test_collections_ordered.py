"""Sorted rows in buckets, and the expiry index built on them, against plain sorted lists."""

from __future__ import annotations

from bisect import insort

from hypothesis import given
from hypothesis import strategies as st

from quorker.core.jobs.collections_ordered import BUCKET_ROWS_MAX, ExpiryIndex, OrderedRows


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=200))
def test_ordered_rows_equal_a_sorted_list(changes: list[tuple[bool, int]]) -> None:
    rows: OrderedRows[tuple[int]] = OrderedRows()
    plain: list[tuple[int]] = []
    for adds, number in changes:
        if adds and (number,) not in plain:
            rows.add((number,))
            insort(plain, (number,))
        elif not adds and (number,) in plain:
            rows.remove((number,))
            plain.remove((number,))
    assert list(rows) == plain
    assert len(rows) == len(plain)
    assert rows.first() == (plain[0] if plain else None)
    assert list(rows.since((20,))) == [row for row in plain if row >= (20,)]
    assert rows.page(3, 9) == plain[3:9]


def test_ordered_rows_stay_ordered_across_many_buckets() -> None:
    rows: OrderedRows[tuple[int]] = OrderedRows()
    size = BUCKET_ROWS_MAX * 4
    for step in range(size):
        rows.add((step * 7919 % size,))
    assert list(rows) == [(number,) for number in range(size)]
    middle = BUCKET_ROWS_MAX - 2
    assert rows.page(middle, middle + 5) == [(number,) for number in range(middle, middle + 5)]
    for number in range(size):
        rows.remove((number,))
    assert list(rows) == []
    assert rows.first() is None


def test_a_copy_of_ordered_rows_is_independent() -> None:
    rows = OrderedRows([(1,), (3,)])
    copy = rows.copy()
    rows.add((2,))
    rows.remove((1,))
    assert list(copy) == [(1,), (3,)]
    assert list(rows) == [(2,), (3,)]


def test_expiry_index_moves_and_forgets_keys() -> None:
    index = ExpiryIndex()
    index.set(0, "b", 5)
    index.set(0, "a", 5)
    index.set(1, "a", 3)
    index.set(0, "b", 4)
    index.set(0, "b", 4)
    assert index.next_due() == 3
    assert index.due(5, 10) == [(1, "a"), (0, "b"), (0, "a")]
    assert index.due(5, 2) == [(1, "a"), (0, "b")]
    assert index.due(4, 10) == [(1, "a"), (0, "b")]
    index.clear(1, "a")
    index.clear(1, "a")
    assert index.next_due() == 4
    assert len(index) == 2
