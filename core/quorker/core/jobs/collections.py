"""All collections of the store in one place: sets, lists, hashes, counters and servers, with their expiry.

No operation here can fail once its arguments are of the right type, so a batch that passed its preconditions never has
to be undone because of a collection. Jobs, queues, locks and sessions must not live here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from quorker.core.jobs.collections_ordered import ExpiryIndex
from quorker.core.jobs.collections_servers import ServerRow, Servers
from quorker.core.jobs.collections_snapshot import CollectionsView, read_rows
from quorker.core.jobs.collections_tables import Counters, Hashes, HashRow, ListRow, Lists, SetRow, Sets

Expirable: TypeAlias = Sets | Lists | Hashes | Counters


class Collections:
    """The tables that contract operations 12 to 31 work on."""

    __slots__ = ("_by_kind", "_expiry", "counters", "hashes", "lists", "servers", "sets")

    def __init__(self) -> None:
        self._expiry = ExpiryIndex()
        self.sets = Sets(self._expiry)
        self.lists = Lists(self._expiry)
        self.hashes = Hashes(self._expiry)
        self.counters = Counters(self._expiry)
        self.servers = Servers()
        self._by_kind: tuple[Expirable, ...] = (self.sets, self.lists, self.hashes, self.counters)

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
