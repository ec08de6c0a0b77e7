"""All collections of the store in one place, and what contract operations 12 to 31 do to them.

No operation here can fail once `commands.decode` has let it in, and none looks at anything but the collections, so a
batch that passed its preconditions never has to be undone because of one of them. Expiry instants are computed here,
at apply, from log time. Jobs, queues, locks and sessions must not live here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias

from quorker.core.jobs import contract_commands as commands
from quorker.core.jobs.collections_ordered import ExpiryIndex
from quorker.core.jobs.collections_servers import ServerRow, Servers
from quorker.core.jobs.collections_snapshot import CollectionsView, read_rows
from quorker.core.jobs.collections_tables import (
    Counters,
    Hashes,
    HashRow,
    ListRow,
    Lists,
    SetRow,
    Sets,
    Usage,
)

EXPIRY_BYTES: Final = 300

Expirable: TypeAlias = Sets | Lists | Hashes | Counters


class Collections:
    """The tables that contract operations 12 to 31 work on."""

    __slots__ = ("_by_kind", "_expiry", "_usage", "counters", "hashes", "lists", "servers", "sets")

    def __init__(self) -> None:
        self._expiry = ExpiryIndex()
        self._usage = Usage()
        self.sets = Sets(self._expiry, self._usage)
        self.lists = Lists(self._expiry, self._usage)
        self.hashes = Hashes(self._expiry, self._usage)
        self.counters = Counters(self._expiry, self._usage)
        self.servers = Servers(self._usage)
        self._by_kind: tuple[Expirable, ...] = (self.sets, self.lists, self.hashes, self.counters)

    @property
    def state_bytes(self) -> int:
        """An estimate of the memory in use, a function of the content alone."""
        return self._usage.bytes + EXPIRY_BYTES * len(self._expiry)

    def next_due(self) -> int | None:
        """The earliest expiry (ms of log time), or None."""
        return self._expiry.next_due()

    def due(self, lt: int, limit: int) -> list[tuple[int, str]]:
        """Up to `limit` (kind, key) whose expiry is <= `lt`, earliest first."""
        return self._expiry.due(lt, limit)

    def expire_due(self, lt: int, limit: int) -> int:
        """Delete what `due` names; returns how many keys went."""
        gone = self._expiry.due(lt, limit)
        for kind, key in gone:
            self._by_kind[kind].drop(key)
        return len(gone)

    def freeze(self) -> CollectionsView:
        """An instant copy for a snapshot: costs the number of keys, not what they hold."""
        return CollectionsView(
            self.sets.freeze(),
            self.lists.freeze(),
            self.hashes.freeze(),
            self.counters.freeze(),
            self.servers.freeze(),
            self._expiry.freeze(),
        )

    @classmethod
    def restore(cls, rows: Iterable[object]) -> Collections:
        """Read back the rows of a `CollectionsView`. Raises ValueError when they are damaged."""
        made = cls()
        for loaded in read_rows(rows):
            made._load(loaded.key, loaded.content, loaded.expires_lt)
        return made

    def _load(
        self, key: str, content: SetRow | ListRow | HashRow | int | ServerRow, expires_lt: int | None
    ) -> None:
        match content:
            case SetRow():
                self.sets.load(key, content, expires_lt)
            case ListRow():
                self.lists.load(key, content, expires_lt)
            case HashRow():
                self.hashes.load(key, content, expires_lt)
            case ServerRow():
                self.servers.announce(content)
            case int():
                self.counters.load(key, content, expires_lt)


class Moment(Protocol):
    """When a command is applied: log time and wall time of its entry, both in ms."""

    @property
    def lt(self) -> int: ...

    @property
    def wt(self) -> int: ...


Handler: TypeAlias = Callable[[Collections, Moment, Any], Any]
"""Applies one decoded command and returns its value (msgpack-able)."""


def increment_counter(tables: Collections, when: Moment, command: commands.IncrementCounter) -> int:
    """Value: the new sum; it stops at the bounds of 64 bits."""
    expires = None if command.expire_in_ms is None else when.lt + command.expire_in_ms
    return tables.counters.add(command.key, command.delta, expires)


def add_to_set(tables: Collections, when: Moment, command: commands.AddToSet) -> bool:
    """Value: is it a new value (else its score was set)."""
    return tables.sets.add(command.key, command.value, command.score)


def add_range_to_set(tables: Collections, when: Moment, command: commands.AddRangeToSet) -> int:
    """Value: how many values are new."""
    return tables.sets.add_range(command.key, command.values)


def remove_from_set(tables: Collections, when: Moment, command: commands.RemoveFromSet) -> bool:
    """Value: was it there."""
    return tables.sets.remove(command.key, command.value)


def remove_set(tables: Collections, when: Moment, command: commands.RemoveSet) -> bool:
    """Value: was it there."""
    return tables.sets.drop(command.key)


def expire_set(tables: Collections, when: Moment, command: commands.ExpireSet) -> bool:
    """Value: is there such a key."""
    return tables.sets.expire(command.key, when.lt + command.expire_in_ms)


def persist_set(tables: Collections, when: Moment, command: commands.PersistSet) -> bool:
    """Value: is there such a key."""
    return tables.sets.persist(command.key)


def insert_to_list(tables: Collections, when: Moment, command: commands.InsertToList) -> int:
    """Value: the new length."""
    return tables.lists.prepend(command.key, command.value)


def remove_from_list(tables: Collections, when: Moment, command: commands.RemoveFromList) -> int:
    """Value: how many went."""
    return tables.lists.remove(command.key, command.value)


def trim_list(tables: Collections, when: Moment, command: commands.TrimList) -> int:
    """Value: how many went."""
    return tables.lists.trim(command.key, command.keep_from, command.keep_to)


def expire_list(tables: Collections, when: Moment, command: commands.ExpireList) -> bool:
    """Value: is there such a key."""
    return tables.lists.expire(command.key, when.lt + command.expire_in_ms)


def persist_list(tables: Collections, when: Moment, command: commands.PersistList) -> bool:
    """Value: is there such a key."""
    return tables.lists.persist(command.key)


def set_range_in_hash(tables: Collections, when: Moment, command: commands.SetRangeInHash) -> int:
    """Value: how many fields are new."""
    return tables.hashes.merge(command.key, dict(command.fields))


def remove_hash(tables: Collections, when: Moment, command: commands.RemoveHash) -> bool:
    """Value: was it there."""
    return tables.hashes.drop(command.key)


def expire_hash(tables: Collections, when: Moment, command: commands.ExpireHash) -> bool:
    """Value: is there such a key."""
    return tables.hashes.expire(command.key, when.lt + command.expire_in_ms)


def persist_hash(tables: Collections, when: Moment, command: commands.PersistHash) -> bool:
    """Value: is there such a key."""
    return tables.hashes.persist(command.key)


def announce_server(tables: Collections, when: Moment, command: commands.AnnounceServer) -> None:
    """All that was known of the server is replaced; it started now."""
    row = ServerRow(command.server_id, command.worker_count, command.queues, when.wt, when.lt, when.wt)
    tables.servers.announce(row)


def remove_server(tables: Collections, when: Moment, command: commands.RemoveServer) -> bool:
    """Value: was it there."""
    return tables.servers.remove(command.server_id)


def heartbeat(tables: Collections, when: Moment, command: commands.Heartbeat) -> bool:
    """Value: is the server known."""
    return tables.servers.heartbeat(command.server_id, when.lt, when.wt)


def remove_timed_out_servers(
    tables: Collections, when: Moment, command: commands.RemoveTimedOutServers
) -> int:
    """Value: how many went. One heard of exactly `timeout_ms` ago stays."""
    return tables.servers.remove_timed_out(when.lt - command.timeout_ms)


COLLECTION_HANDLERS: Final[dict[int, Handler]] = {
    commands.IncrementCounter.OP: increment_counter,
    commands.AddToSet.OP: add_to_set,
    commands.AddRangeToSet.OP: add_range_to_set,
    commands.RemoveFromSet.OP: remove_from_set,
    commands.RemoveSet.OP: remove_set,
    commands.ExpireSet.OP: expire_set,
    commands.PersistSet.OP: persist_set,
    commands.InsertToList.OP: insert_to_list,
    commands.RemoveFromList.OP: remove_from_list,
    commands.TrimList.OP: trim_list,
    commands.ExpireList.OP: expire_list,
    commands.PersistList.OP: persist_list,
    commands.SetRangeInHash.OP: set_range_in_hash,
    commands.RemoveHash.OP: remove_hash,
    commands.ExpireHash.OP: expire_hash,
    commands.PersistHash.OP: persist_hash,
    commands.AnnounceServer.OP: announce_server,
    commands.RemoveServer.OP: remove_server,
    commands.Heartbeat.OP: heartbeat,
    commands.RemoveTimedOutServers.OP: remove_timed_out_servers,
}
