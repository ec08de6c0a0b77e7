"""The canonical rows of all collections: what a snapshot writes, and how it is read back.

Rows come sorted by (kind, key); a long key is cut into segments by its content alone, so that the same state always
gives the same rows and no row grows with its key. Bytes, checksums and files must not live here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import isnan
from typing import Any, Final, NamedTuple, TypeAlias, cast

from quorker.core.jobs.collections_servers import ServerRow
from quorker.core.jobs.collections_tables import (
    COUNTER_MAX,
    COUNTER_MIN,
    KIND_COUNTER,
    KIND_HASH,
    KIND_LIST,
    KIND_SERVER,
    KIND_SET,
    HashRow,
    ListRow,
    SetRow,
)

SEGMENT_ITEMS: Final = 256
SEGMENT_CHARS: Final = 32 * 1024

Row: TypeAlias = tuple[int, str, int | None, Any]
"""(kind, key, expiry in ms of log time or None, items of this segment | counter value | server fields)."""


class CollectionsView(NamedTuple):
    """An instant copy of all collections. Its content never changes while the live tables go on."""

    sets: dict[str, SetRow]
    lists: dict[str, ListRow]
    hashes: dict[str, HashRow]
    counters: dict[str, int]
    servers: dict[str, ServerRow]
    expiries: dict[tuple[int, str], int]

    def rows(self) -> Iterator[Row]:
        """Every row in canonical order."""
        for key in sorted(self.sets):
            ordered = ((value, score) for score, value in self.sets[key].order)
            yield from self._segments(KIND_SET, key, ordered, _pair_chars)
        for key in sorted(self.lists):
            yield from self._segments(KIND_LIST, key, self.lists[key].items, len)
        for key in sorted(self.hashes):
            fields = sorted(self.hashes[key].fields.items())
            yield from self._segments(KIND_HASH, key, fields, _pair_chars)
        for key in sorted(self.counters):
            yield KIND_COUNTER, key, self.expiries.get((KIND_COUNTER, key)), self.counters[key]
        for key in sorted(self.servers):
            yield KIND_SERVER, key, None, self.servers[key][1:]

    def _segments(
        self, kind: int, key: str, items: Iterable[Any], chars: Callable[[Any], int]
    ) -> Iterator[Row]:
        expires = self.expiries.get((kind, key))
        segment: list[Any] = []
        size = 0
        for item in items:
            segment.append(item)
            size += chars(item)
            if len(segment) == SEGMENT_ITEMS or size >= SEGMENT_CHARS:
                yield kind, key, expires, segment
                segment, size = [], 0
        if segment:
            yield kind, key, expires, segment


def _pair_chars(pair: tuple[str, object]) -> int:
    name, value = pair
    return len(name) + (len(value) if isinstance(value, str) else 0)


class LoadedKey(NamedTuple):
    """One key put together from its segments."""

    kind: int
    key: str
    expires_lt: int | None
    content: SetRow | ListRow | HashRow | int | ServerRow


def read_rows(rows: Iterable[object]) -> Iterator[LoadedKey]:
    """Canonical rows back into keys, in order. Raises ValueError for anything that `rows()` cannot have written."""
    kind, key, expires_lt = -1, "", None
    items: list[Any] = []
    for raw in rows:
        row_kind, row_key, row_expires, body = _checked(raw)
        if (row_kind, row_key) == (kind, key) and kind <= KIND_HASH:
            _require(row_expires == expires_lt, "segments disagree")
            items.extend(body)
            continue
        if items:
            yield LoadedKey(kind, key, expires_lt, _content(kind, items))
        _require((row_kind, row_key) > (kind, key), "rows out of order")
        kind, key, expires_lt, items = row_kind, row_key, row_expires, []
        if kind <= KIND_HASH:
            items = list(body)
        else:
            yield LoadedKey(kind, key, expires_lt, _scalar(kind, key, body))
    if items:
        yield LoadedKey(kind, key, expires_lt, _content(kind, items))


def _checked(raw: object) -> Row:
    kind, key, expires_lt, body = _sequence(raw, 4, "a row has four fields")
    _require(type(kind) is int and KIND_SET <= kind <= KIND_SERVER and type(key) is str, "kind or key")
    _require(expires_lt is None or (type(expires_lt) is int and expires_lt >= 0), "expiry")
    if kind <= KIND_HASH:
        _require(0 < len(_sequence(body, None, "segment")) <= SEGMENT_ITEMS, "segment size")
    return kind, key, expires_lt, body


def _content(kind: int, items: list[Any]) -> SetRow | ListRow | HashRow:
    if kind == KIND_LIST:
        _require(all(type(item) is str for item in items), "list item")
        return ListRow.of(items)
    pairs = [_sequence(item, 2, "pair") for item in items]
    _require(all(type(name) is str for name, _ in pairs), "pair name")
    return _hash(pairs) if kind == KIND_HASH else _set(pairs)


def _hash(pairs: list[Any]) -> HashRow:
    _require(all(value is None or type(value) is str for _, value in pairs), "hash value")
    _require(all(low[0] < high[0] for low, high in pairwise(pairs)), "hash out of order")
    return HashRow.of(dict(pairs))


def _set(pairs: list[Sequence[Any]]) -> SetRow:
    _require(all(type(score) is float and not isnan(score) for _, score in pairs), "score")
    order: list[tuple[float, str]] = [(score, value) for value, score in pairs]
    _require(all(low < high for low, high in pairwise(order)), "set out of order")
    row = SetRow.of(order)
    _require(len(row.scores) == len(order), "value twice in a set")
    return row


def _scalar(kind: int, key: str, body: object) -> int | ServerRow:
    if kind == KIND_COUNTER:
        if type(body) is not int or not COUNTER_MIN <= body <= COUNTER_MAX:
            raise ValueError("collections: counter")
        return body
    workers, queues, *times = _sequence(body, 5, "server")
    _require(type(workers) is int and all(type(time) is int for time in times), "server numbers")
    names = _sequence(queues, None, "server queues")
    _require(all(type(queue) is str for queue in names), "server queue")
    return ServerRow(key, workers, tuple(names), *times)


def _sequence(raw: object, size: int | None, why: str) -> Sequence[Any]:
    _require(isinstance(raw, (list, tuple)), why)
    found = cast("Sequence[Any]", raw)
    _require(size is None or len(found) == size, why)
    return found


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise ValueError(f"collections: {why}")
