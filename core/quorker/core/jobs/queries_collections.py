"""Reads of sets, lists, hashes and counters, as the storage contract defines them.

Missing keys read as empty. Ranges are zero-based and inclusive at both ends. What has expired is readable until an
expiry command removes it.
"""

from __future__ import annotations

from typing import Final

from quorker.core.jobs import bounds
from quorker.core.jobs.queries_form import KEY, RANK, SCORE, VALUE, Query, QueryError, need
from quorker.core.jobs.tables import Tables

NO_EXPIRY_MS: Final = -1


def set_items(tables: Tables, key: str) -> list[str]:
    """Every value; the contract promises no order, this one is by score."""
    return set_range(tables, key, 0, bounds.INT64_MAX)


def set_range(tables: Tables, key: str, first: int, last: int) -> list[str]:
    """Values by rank, in order of score, then value."""
    return [value for _, value in tables.collections.sets.page(key, max(first, 0), last + 1)]


def set_scores(tables: Tables, key: str, first: int, last: int) -> list[tuple[str, float]]:
    """(value, score) by rank."""
    page = tables.collections.sets.page(key, max(first, 0), last + 1)
    return [(value, score) for score, value in page]


def set_lowest(tables: Tables, key: str, low: float, high: float, limit: int) -> list[str]:
    """Up to `limit` values with a score in [low, high], lowest first."""
    if low > high:
        raise QueryError("low: must not be above high")
    return tables.collections.sets.lowest(key, low, high, limit)


def set_count(tables: Tables, key: str) -> int:
    return tables.collections.sets.size(key)


def set_count_limited(tables: Tables, keys: tuple[str, ...], limit: int) -> int:
    """The sum of the sizes, at most `limit`."""
    return tables.collections.sets.count(keys, limit)


def set_contains(tables: Tables, key: str, value: str) -> bool:
    return tables.collections.sets.contains(key, value)


def set_ttl(tables: Tables, key: str) -> int:
    """ms until the key expires; negative when it is missing or does not expire."""
    return _ttl(tables, tables.collections.sets.expires_at(key))


def list_items(tables: Tables, key: str) -> list[str]:
    """Newest first."""
    return tables.collections.lists.page(key, 0, bounds.INT64_MAX)


def list_range(tables: Tables, key: str, first: int, last: int) -> list[str]:
    """By rank, newest first; a negative first is 0, the last may lie behind the end."""
    return tables.collections.lists.page(key, max(first, 0), last + 1)


def list_count(tables: Tables, key: str) -> int:
    return tables.collections.lists.size(key)


def list_ttl(tables: Tables, key: str) -> int:
    """As for a set."""
    return _ttl(tables, tables.collections.lists.expires_at(key))


def hash_entries(tables: Tables, key: str) -> dict[str, str | None] | None:
    """Values by field; None when there is no such key."""
    return tables.collections.hashes.entries(key)


def hash_value(tables: Tables, key: str, field: str) -> str | None:
    return tables.collections.hashes.field(key, field)


def hash_count(tables: Tables, key: str) -> int:
    return tables.collections.hashes.size(key)


def hash_ttl(tables: Tables, key: str) -> int:
    """As for a set."""
    return _ttl(tables, tables.collections.hashes.expires_at(key))


def counter(tables: Tables, key: str) -> int:
    return tables.collections.counters.value(key)


def counter_ttl(tables: Tables, key: str) -> int:
    """As for a set."""
    return _ttl(tables, tables.collections.counters.expires_at(key))


def _ttl(tables: Tables, expires_lt: int | None) -> int:
    return NO_EXPIRY_MS if expires_lt is None else expires_lt - tables.lt


_LIMIT: Final = need(bounds.whole("limit", 1, bounds.INT64_MAX))
_KEYS: Final = need(bounds.many("keys", bounds.KEY, 0, bounds.VALUES_PER_COMMAND_MAX))
_FIELD: Final = need(bounds.text("field", 0, bounds.KEY_CHARS_MAX))

QUERIES: Final[dict[str, Query]] = {
    "set_items": Query(set_items, {"key": KEY}),
    "set_range": Query(set_range, {"key": KEY, "first": RANK, "last": RANK}),
    "set_scores": Query(set_scores, {"key": KEY, "first": RANK, "last": RANK}),
    "set_lowest": Query(set_lowest, {"key": KEY, "low": SCORE, "high": SCORE, "limit": _LIMIT}),
    "set_count": Query(set_count, {"key": KEY}),
    "set_count_limited": Query(
        set_count_limited,
        {"keys": _KEYS, "limit": need(bounds.whole("limit", 0, bounds.INT64_MAX))},
    ),
    "set_contains": Query(set_contains, {"key": KEY, "value": VALUE}),
    "set_ttl": Query(set_ttl, {"key": KEY}),
    "list_items": Query(list_items, {"key": KEY}),
    "list_range": Query(list_range, {"key": KEY, "first": RANK, "last": RANK}),
    "list_count": Query(list_count, {"key": KEY}),
    "list_ttl": Query(list_ttl, {"key": KEY}),
    "hash_entries": Query(hash_entries, {"key": KEY}),
    "hash_value": Query(hash_value, {"key": KEY, "field": _FIELD}),
    "hash_count": Query(hash_count, {"key": KEY}),
    "hash_ttl": Query(hash_ttl, {"key": KEY}),
    "counter": Query(counter, {"key": KEY}),
    "counter_ttl": Query(counter_ttl, {"key": KEY}),
}
