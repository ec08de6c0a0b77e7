"""Sets, lists, hashes, counters and servers said in the simplest way, to judge the store's by; part of the witness.

Values of counters are kept for every index of the log at which they changed, so that a read can be judged that was
answered by a member which was behind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

from quorker.core.jobs import commands as c
from quorker.core.jobs.store import JobStore

TOP: Final = 2**63 - 1


class NaiveCollections:
    """`lt`: the time of the entry at hand."""

    def __init__(self) -> None:
        self.lt = 0
        self.sets: dict[str, dict[str, float]] = {}
        self.lists: dict[str, list[str]] = {}
        self.hashes: dict[str, dict[str, str | None]] = {}
        self.counters: dict[str, int] = {}
        self.servers: dict[str, int] = {}
        self.expiries: dict[tuple[str, str], int] = {}
        self._touched: dict[str, None] = {}
        self._past: dict[str, list[tuple[int, int]]] = {}
        self._ways: dict[type[Any], Callable[[Any], Any]] = {
            c.IncrementCounter: self._increment,
            c.AddToSet: self._add_to_set,
            c.AddRangeToSet: self._add_range,
            c.RemoveFromSet: self._remove_from_set,
            c.RemoveSet: lambda op: self._drop("sets", op.key),
            c.InsertToList: self._insert,
            c.RemoveFromList: lambda op: self._keep(op.key, lambda _, item: item != op.value),
            c.TrimList: lambda op: self._keep(op.key, lambda rank, _: op.keep_from <= rank <= op.keep_to),
            c.SetRangeInHash: self._set_range,
            c.RemoveHash: lambda op: self._drop("hashes", op.key),
            c.ExpireSet: lambda op: self._expire("sets", op),
            c.ExpireList: lambda op: self._expire("lists", op),
            c.ExpireHash: lambda op: self._expire("hashes", op),
            c.PersistSet: lambda op: self._persist("sets", op.key),
            c.PersistList: lambda op: self._persist("lists", op.key),
            c.PersistHash: lambda op: self._persist("hashes", op.key),
            c.AnnounceServer: self._announce,
            c.Heartbeat: self._beat,
            c.RemoveServer: lambda op: self.servers.pop(op.server_id, None) is not None,
            c.RemoveTimedOutServers: self._remove_timed_out,
        }

    def knows(self, kind: type[Any]) -> bool:
        return kind in self._ways

    def perform(self, op: Any) -> Any:
        """The value of one operation."""
        return self._ways[type(op)](op)

    def holds(self, precondition: Any) -> bool:
        match precondition:
            case c.HashFieldIs(key, name, value):
                return self.hashes.get(key, {}).get(name) == value
            case c.SetHolds(key, value, present):
                return (value in self.sets.get(key, {})) == present
            case _:
                raise AssertionError(f"{precondition} is not about collections")

    # ------------------------------------------------------------------ the past

    def log(self, index: int) -> None:
        """The entry at this index is done: remember what it changed."""
        for key in self._touched:
            self._past.setdefault(key, []).append((index, self.counters.get(key, 0)))
        self._touched.clear()

    def counter_at(self, key: str, index: int) -> int:
        past = self._past.get(key, [])
        place = bisect_right(past, (index, TOP))
        return past[place - 1][1] if place else 0

    # ------------------------------------------------------------------ operations

    def _increment(self, op: c.IncrementCounter) -> int:
        value = self.counters[op.key] = min(self.counters.get(op.key, 0) + op.delta, TOP)
        self._touched[op.key] = None
        name = ("counters", op.key)
        if op.expire_in_ms is not None:
            self.expiries[name] = max(self.expiries.get(name, 0), self.lt + op.expire_in_ms)
        elif value == 0 and name not in self.expiries:
            self._drop("counters", op.key)
        return value

    def _add_to_set(self, op: c.AddToSet) -> bool:
        values = self.sets.setdefault(op.key, {})
        new = op.value not in values
        values[op.value] = op.score
        return new

    def _add_range(self, op: c.AddRangeToSet) -> int:
        values = self.sets.setdefault(op.key, {})
        new = len(set(op.values) - set(values))
        values.update(dict.fromkeys(op.values, 0.0))
        return new

    def _remove_from_set(self, op: c.RemoveFromSet) -> bool:
        values = self.sets.get(op.key, {})
        there = values.pop(op.value, None) is not None
        if not values:
            self._drop("sets", op.key)
        return there

    def _insert(self, op: c.InsertToList) -> int:
        items = self.lists.setdefault(op.key, [])
        items.insert(0, op.value)
        return len(items)

    def _keep(self, key: str, wanted: Callable[[int, str], bool]) -> int:
        items = self.lists.get(key, [])
        kept = [item for rank, item in enumerate(items) if wanted(rank, item)]
        if kept:
            self.lists[key] = kept
        else:
            self._drop("lists", key)
        return len(items) - len(kept)

    def _set_range(self, op: c.SetRangeInHash) -> int:
        fields, old = dict(op.fields), self.hashes.get(op.key, {})
        if fields:
            self.hashes[op.key] = old | fields
        return len(set(fields) - set(old))

    def _drop(self, kind: str, key: str) -> bool:
        self.expiries.pop((kind, key), None)
        if kind == "counters":
            self._touched[key] = None
        return getattr(self, kind).pop(key, None) is not None

    def _expire(self, kind: str, op: Any) -> bool:
        known = op.key in getattr(self, kind)
        if known:
            self.expiries[kind, op.key] = self.lt + op.expire_in_ms
        return known

    def _persist(self, kind: str, key: str) -> bool:
        self.expiries.pop((kind, key), None)
        return key in getattr(self, kind)

    def _announce(self, op: c.AnnounceServer) -> None:
        self.servers[op.server_id] = self.lt

    def _beat(self, op: c.Heartbeat) -> bool:
        known = op.server_id in self.servers
        if known:
            self.servers[op.server_id] = self.lt
        return known

    def _remove_timed_out(self, op: c.RemoveTimedOutServers) -> int:
        gone = [name for name, beat in self.servers.items() if beat < self.lt - op.timeout_ms]
        for name in gone:
            del self.servers[name]
        return len(gone)

    # ------------------------------------------------------------------ time

    def expire(self, limit: int) -> int:
        """Drop up to `limit` keys past their time, the oldest first. Returns how many."""
        due = sorted((at, kind, key) for (kind, key), at in self.expiries.items())[:limit]
        gone = [(kind, key) for at, kind, key in due if at <= self.lt]
        for kind, key in gone:
            self._drop(kind, key)
        return len(gone)

    # ------------------------------------------------------------------ the end

    def compare(self, store: JobStore, agree: Callable[[str, object, object], None]) -> None:
        def read(name: str, **arguments: Any) -> Any:
            return store.query(name, arguments)

        for key, values in self.sets.items():
            told = [tuple(row) for row in read("set_scores", key=key, first=0, last=999)]
            agree(f"set {key}", told, sorted(values.items(), key=lambda item: (item[1], item[0])))
        for key, items in self.lists.items():
            agree(f"list {key}", read("list_items", key=key), items)
        for key, fields in self.hashes.items():
            agree(f"hash {key}", read("hash_entries", key=key), fields)
        for key, value in self.counters.items():
            agree(f"counter {key}", read("counter", key=key), value)
        agree("servers", sorted(row["server_id"] for row in read("servers")), sorted(self.servers))
