"""Sorted rows with cheap insertion, removal, rank and range; and the expiry index built on them.

Rows are compared by value only, so the order never depends on how a row got here: a table restored from a snapshot
answers like the one it was taken from. Keys, kinds of values and operations must not live here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

BUCKET_ROWS_MAX: Final = 1024

RowT = TypeVar("RowT", bound=tuple[Any, ...])


class OrderedRows(Generic[RowT]):
    """Distinct tuples in ascending order, held in buckets so that no change moves more than a bucket.

    `add`, `remove` and a seek cost a bisection and a short move; a page by rank skips whole buckets.
    """

    __slots__ = ("_buckets", "_last", "_size")

    def __init__(self, ascending: Iterable[RowT] = ()) -> None:
        rows = list(ascending)
        half = BUCKET_ROWS_MAX // 2
        self._buckets: list[list[RowT]] = [rows[i : i + half] for i in range(0, len(rows), half)]
        self._last: list[RowT] = [bucket[-1] for bucket in self._buckets]
        self._size = len(rows)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[RowT]:
        for bucket in self._buckets:
            yield from bucket

    def copy(self) -> OrderedRows[RowT]:
        other: OrderedRows[RowT] = OrderedRows()
        other._buckets = [bucket[:] for bucket in self._buckets]
        other._last = self._last[:]
        other._size = self._size
        return other

    def add(self, row: RowT) -> None:
        """Insert a row that is not present (the caller knows)."""
        self._size += 1
        at = bisect_left(self._last, row)
        if at == len(self._buckets):
            self._append(row)
            return
        bucket = self._buckets[at]
        insort(bucket, row)
        if len(bucket) > BUCKET_ROWS_MAX:
            self._split(at)

    def remove(self, row: RowT) -> None:
        """Delete a row that is present (the caller knows)."""
        at = bisect_left(self._last, row)
        bucket = self._buckets[at]
        place = bisect_left(bucket, row)
        assert bucket[place] == row, "an ordered row must be present to be removed"
        del bucket[place]
        self._size -= 1
        if not bucket:
            del self._buckets[at], self._last[at]
        elif place == len(bucket):
            self._last[at] = bucket[-1]

    def first(self) -> RowT | None:
        return self._buckets[0][0] if self._buckets else None

    def since(self, low: RowT) -> Iterator[RowT]:
        """Rows >= `low`, ascending."""
        at = bisect_left(self._last, low)
        if at == len(self._buckets):
            return
        yield from self._buckets[at][bisect_left(self._buckets[at], low) :]
        for bucket in self._buckets[at + 1 :]:
            yield from bucket

    def page(self, start: int, stop: int) -> list[RowT]:
        """Rows of rank `start` (inclusive, >= 0) to `stop` (exclusive), ascending."""
        found: list[RowT] = []
        for bucket in self._buckets:
            if stop <= 0:
                break
            if start < len(bucket):
                found.extend(bucket[max(start, 0) : stop])
            start -= len(bucket)
            stop -= len(bucket)
        return found

    def _append(self, row: RowT) -> None:
        if self._buckets and len(self._buckets[-1]) < BUCKET_ROWS_MAX:
            self._buckets[-1].append(row)
            self._last[-1] = row
            return
        self._buckets.append([row])
        self._last.append(row)

    def _split(self, at: int) -> None:
        bucket = self._buckets[at]
        half = len(bucket) // 2
        self._buckets[at : at + 1] = [bucket[:half], bucket[half:]]
        self._last[at : at + 1] = [bucket[half - 1], bucket[-1]]


class ExpiryIndex:
    """Which (kind, key) expires at which log time (ms), in order of instant, then kind, then key."""

    __slots__ = ("_by_key", "_rows")

    def __init__(self) -> None:
        self._by_key: dict[tuple[int, str], int] = {}
        self._rows: OrderedRows[tuple[int, int, str]] = OrderedRows()

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, kind: int, key: str) -> int | None:
        return self._by_key.get((kind, key))

    def set(self, kind: int, key: str, at_lt: int) -> None:
        old = self._by_key.get((kind, key))
        if old == at_lt:
            return
        if old is not None:
            self._rows.remove((old, kind, key))
        self._by_key[kind, key] = at_lt
        self._rows.add((at_lt, kind, key))

    def clear(self, kind: int, key: str) -> None:
        old = self._by_key.pop((kind, key), None)
        if old is not None:
            self._rows.remove((old, kind, key))

    def next_due(self) -> int | None:
        first = self._rows.first()
        return first[0] if first else None

    def due(self, lt: int, limit: int) -> list[tuple[int, str]]:
        """Up to `limit` (kind, key) with an instant <= `lt`, earliest first. Costs what it returns."""
        return [(kind, key) for at, kind, key in self._rows.page(0, limit) if at <= lt]

    def freeze(self) -> dict[tuple[int, str], int]:
        """An instant copy."""
        return self._by_key.copy()
