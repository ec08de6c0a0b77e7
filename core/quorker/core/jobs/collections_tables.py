"""The keyed tables that extensions use: sorted sets, lists, hashes and counters, each key with an optional expiry.

Every change is total: once its arguments are of the right type it cannot fail. Expiry instants are log time (ms); a key
past its instant stays readable until an expiry command removes it. Rows are shared with frozen copies and copied before
they change. Commands, replies and time keeping must not live here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

from quorker.core.jobs.collections_ordered import ExpiryIndex, OrderedRows

KEY_BYTES: Final = 300  # estimates of what a key, an item and a set's ordered item cost beside their text
ITEM_BYTES: Final = 120
SCORED_BYTES: Final = 250

COUNTER_MAX: Final = 2**63 - 1
COUNTER_MIN: Final = -(2**63)

KIND_SET: Final = 0
KIND_LIST: Final = 1
KIND_HASH: Final = 2
KIND_COUNTER: Final = 3
KIND_SERVER: Final = 4


class Usage:
    """Bytes in use, an estimate that depends on the content alone."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class SetRow:
    """Scores by value, and (score, value) in order."""

    __slots__ = ("order", "scores", "size", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.size = 0
        self.scores: dict[str, float] = {}
        self.order: OrderedRows[tuple[float, str]] = OrderedRows()

    @classmethod
    def of(cls, ascending: list[tuple[float, str]]) -> SetRow:
        row = cls(0)
        row.scores = {value: score for score, value in ascending}
        row.order = OrderedRows(ascending)
        row.size = sum(SCORED_BYTES + len(value) for value in row.scores)
        return row

    def copy(self, version: int) -> SetRow:
        row = SetRow(version)
        row.scores, row.order, row.size = self.scores.copy(), self.order.copy(), self.size
        return row


class ListRow:
    """Items with the *oldest* first, so that a prepend of the newest-first view is an append."""

    __slots__ = ("items", "size", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.size = 0
        self.items: list[str] = []

    @classmethod
    def of(cls, items: list[str]) -> ListRow:
        row = cls(0)
        row.items = items
        row.size = sum(ITEM_BYTES + len(item) for item in items)
        return row

    def copy(self, version: int) -> ListRow:
        row = ListRow(version)
        row.items, row.size = self.items[:], self.size
        return row


class HashRow:
    """Values by field; a value may be None."""

    __slots__ = ("fields", "size", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.size = 0
        self.fields: dict[str, str | None] = {}

    @classmethod
    def of(cls, fields: dict[str, str | None]) -> HashRow:
        row = cls(0)
        row.fields = fields
        row.size = sum(ITEM_BYTES + len(name) + len(value or "") for name, value in fields.items())
        return row

    def copy(self, version: int) -> HashRow:
        row = HashRow(version)
        row.fields, row.size = self.fields.copy(), self.size
        return row


RowT = TypeVar("RowT", SetRow, ListRow, HashRow)


class KeyedTable(Generic[RowT]):
    """Rows by key; a frozen copy shares them until they change."""

    kind: int
    __slots__ = ("_expiry", "_rows", "_usage", "_version")

    def __init__(self, expiry: ExpiryIndex, usage: Usage) -> None:
        self._rows: dict[str, RowT] = {}
        self._expiry = expiry
        self._usage = usage
        self._version = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def freeze(self) -> dict[str, RowT]:
        """An instant copy; its rows never change. Iterate it by sorted key."""
        self._version += 1
        return self._rows.copy()

    def drop(self, key: str) -> bool:
        """Delete a key with its expiry; False when there was none."""
        self._expiry.clear(self.kind, key)
        row = self._rows.pop(key, None)
        if row is None:
            return False
        self._usage.bytes -= row.size + KEY_BYTES + len(key)
        return True

    def expire(self, key: str, at_lt: int) -> bool:
        """Let a key end at `at_lt` (ms); False, and no effect, when there is no such key."""
        if key not in self._rows:
            return False
        self._expiry.set(self.kind, key, at_lt)
        return True

    def persist(self, key: str) -> bool:
        """Let a key live on; False when there is no such key."""
        self._expiry.clear(self.kind, key)
        return key in self._rows

    def expires_at(self, key: str) -> int | None:
        return self._expiry.get(self.kind, key)

    def load(self, key: str, row: RowT, expires_lt: int | None) -> None:
        """Put back a row from a snapshot."""
        row.version = self._version
        self._put(key, row)
        if expires_lt is not None:
            self._expiry.set(self.kind, key, expires_lt)

    def _put(self, key: str, row: RowT) -> RowT:
        self._rows[key] = row
        self._usage.bytes += row.size + KEY_BYTES + len(key)
        return row

    def _grow(self, row: RowT, size: int) -> None:
        row.size += size
        self._usage.bytes += size

    def _writable(self, key: str, row: RowT) -> RowT:
        if row.version == self._version:
            return row
        copy = self._rows[key] = row.copy(self._version)
        return copy


class Sets(KeyedTable[SetRow]):
    """Values with a double score; order is score, then value by code point. NaN is refused at decode."""

    kind = KIND_SET
    __slots__ = ()

    def add(self, key: str, value: str, score: float) -> bool:
        """Insert, or move to a new score; True when the value is new."""
        row = self._open(key)
        old = row.scores.get(value)
        if old is not None:
            if old == score:
                return False
            row.order.remove((old, value))
        else:
            self._grow(row, SCORED_BYTES + len(value))
        score = score + 0.0  # -0.0 and an integer become one canonical double
        row.scores[value] = score
        row.order.add((score, value))
        return old is None

    def add_range(self, key: str, values: Sequence[str]) -> int:
        """Every value at score 0, also those that had another; returns how many are new."""
        return sum(self.add(key, value, 0.0) for value in values)

    def remove(self, key: str, value: str) -> bool:
        """Take a value out; the last one takes its key and expiry along."""
        found = self._rows.get(key)
        if found is None or value not in found.scores:
            return False
        row = self._writable(key, found)
        row.order.remove((row.scores.pop(value), value))
        self._grow(row, -SCORED_BYTES - len(value))
        if not row.scores:
            self.drop(key)
        return True

    def size(self, key: str) -> int:
        row = self._rows.get(key)
        return len(row.scores) if row else 0

    def contains(self, key: str, value: str) -> bool:
        row = self._rows.get(key)
        return row is not None and value in row.scores

    def score(self, key: str, value: str) -> float | None:
        row = self._rows.get(key)
        return row.scores.get(value) if row else None

    def count(self, keys: Iterable[str], limit: int) -> int:
        """Sum of the sizes, never above `limit`."""
        total = 0
        for key in keys:
            total += self.size(key)
            if total >= limit:
                return limit
        return total

    def page(self, key: str, start: int, stop: int) -> list[tuple[float, str]]:
        """(score, value) of rank `start` (inclusive) to `stop` (exclusive), in order."""
        row = self._rows.get(key)
        return row.order.page(start, stop) if row else []

    def each(self, key: str) -> Iterator[tuple[float, str]]:
        """(score, value), in order."""
        row = self._rows.get(key)
        return iter(row.order) if row else iter(())

    def lowest(self, key: str, low: float, high: float, limit: int) -> list[str]:
        """Up to `limit` values with a score in [low, high], in order. Costs what it returns."""
        row = self._rows.get(key)
        if row is None:
            return []
        found: list[str] = []
        for score, value in islice(row.order.since((low, "")), limit):
            if score > high:
                break
            found.append(value)
        return found

    def _open(self, key: str) -> SetRow:
        row = self._rows.get(key)
        return self._put(key, SetRow(self._version)) if row is None else self._writable(key, row)


class Lists(KeyedTable[ListRow]):
    """Values with the newest first; duplicates are kept."""

    kind = KIND_LIST
    __slots__ = ()

    def prepend(self, key: str, value: str) -> int:
        """Insert as the newest, in constant time; returns the new length."""
        row = self._open(key)
        row.items.append(value)
        self._grow(row, ITEM_BYTES + len(value))
        return len(row.items)

    def remove(self, key: str, value: str) -> int:
        """Take out all occurrences; returns how many."""
        found = self._rows.get(key)
        return 0 if found is None else self._keep(key, [item for item in found.items if item != value])

    def trim(self, key: str, start: int, end: int) -> int:
        """Keep ranks `start` to `end` (both inclusive, negative start = 0) of the newest first; returns how many went."""
        found = self._rows.get(key)
        if found is None:
            return 0
        low, high = _oldest_first(len(found.items), max(start, 0), end + 1)
        return self._keep(key, found.items[low:high])

    def size(self, key: str) -> int:
        row = self._rows.get(key)
        return len(row.items) if row else 0

    def page(self, key: str, start: int, stop: int) -> list[str]:
        """Ranks `start` (inclusive, >= 0) to `stop` (exclusive), newest first."""
        row = self._rows.get(key)
        if row is None:
            return []
        low, high = _oldest_first(len(row.items), start, stop)
        return row.items[low:high][::-1]

    def _open(self, key: str) -> ListRow:
        row = self._rows.get(key)
        return self._put(key, ListRow(self._version)) if row is None else self._writable(key, row)

    def _keep(self, key: str, items: list[str]) -> int:
        old = self._rows[key]
        removed = len(old.items) - len(items)
        if not items:
            self.drop(key)
        elif removed:
            row = self._rows[key] = ListRow.of(items)
            row.version = self._version
            self._usage.bytes += row.size - old.size
        return removed


class Hashes(KeyedTable[HashRow]):
    """Fields with a nullable value."""

    kind = KIND_HASH
    __slots__ = ()

    def merge(self, key: str, pairs: Mapping[str, str | None]) -> int:
        """Upsert fields; no pairs make no key. Returns how many fields are new."""
        if not pairs:
            return 0
        row = self._open(key)
        before = len(row.fields)
        for field, value in pairs.items():
            if field not in row.fields:
                self._grow(row, ITEM_BYTES + len(field))
            self._grow(row, len(value or "") - len(row.fields.get(field) or ""))
            row.fields[field] = value
        return len(row.fields) - before

    def size(self, key: str) -> int:
        row = self._rows.get(key)
        return len(row.fields) if row else 0

    def field(self, key: str, field: str) -> str | None:
        row = self._rows.get(key)
        return row.fields.get(field) if row else None

    def entries(self, key: str) -> dict[str, str | None] | None:
        """Fields in order of name; None when there is no such key."""
        row = self._rows.get(key)
        return dict(sorted(row.fields.items())) if row else None

    def _open(self, key: str) -> HashRow:
        row = self._rows.get(key)
        return self._put(key, HashRow(self._version)) if row is None else self._writable(key, row)


class Counters:
    """64-bit sums that stop at their bounds instead of wrapping."""

    kind: Final = KIND_COUNTER
    __slots__ = ("_expiry", "_usage", "_values")

    def __init__(self, expiry: ExpiryIndex, usage: Usage) -> None:
        self._values: dict[str, int] = {}
        self._expiry = expiry
        self._usage = usage

    def __len__(self) -> int:
        return len(self._values)

    def add(self, key: str, delta: int, expires_lt: int | None = None) -> int:
        """Add within COUNTER_MIN..COUNTER_MAX; the expiry only moves later. Returns the new value.

        At 0 a counter without expiry is gone. A key that got an expiry once keeps one (both kinds of increments mixed).
        """
        value = min(max(self._values.get(key, 0) + delta, COUNTER_MIN), COUNTER_MAX)
        current = self._expiry.get(KIND_COUNTER, key)
        if expires_lt is not None and (current is None or expires_lt > current):
            self._expiry.set(KIND_COUNTER, key, expires_lt)
            current = expires_lt
        if value == 0 and current is None:
            self.drop(key)
        else:
            self._put(key, value)
        return value

    def value(self, key: str) -> int:
        return self._values.get(key, 0)

    def expires_at(self, key: str) -> int | None:
        return self._expiry.get(KIND_COUNTER, key)

    def drop(self, key: str) -> bool:
        self._expiry.clear(KIND_COUNTER, key)
        if self._values.pop(key, None) is None:
            return False
        self._usage.bytes -= KEY_BYTES + len(key)
        return True

    def load(self, key: str, value: int, expires_lt: int | None) -> None:
        self._put(key, value)
        if expires_lt is not None:
            self._expiry.set(KIND_COUNTER, key, expires_lt)

    def freeze(self) -> dict[str, int]:
        """An instant copy."""
        return self._values.copy()

    def _put(self, key: str, value: int) -> None:
        if key not in self._values:
            self._usage.bytes += KEY_BYTES + len(key)
        self._values[key] = value


def _oldest_first(size: int, start: int, stop: int) -> tuple[int, int]:
    """A half-open range of the newest-first view as one of the oldest-first list, clamped to it."""
    start, stop = min(start, size), min(max(stop, 0), size)
    return size - stop, max(size - start, size - stop)
