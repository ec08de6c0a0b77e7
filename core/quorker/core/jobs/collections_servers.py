"""The servers that announced themselves: what each one runs and when it was last heard of.

Liveness compares log time only; wall-clock times are kept for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from quorker.core.jobs.collections_tables import Usage

SERVER_BYTES: Final = 500
QUEUE_NAME_BYTES: Final = 120


class ServerRow(NamedTuple):
    """One server. `*_wt` are ms since the epoch, `heartbeat_lt` is ms of log time."""

    server_id: str
    worker_count: int
    queues: tuple[str, ...]
    started_wt: int
    heartbeat_lt: int
    heartbeat_wt: int


class Servers:
    """Announced servers by id. Rows are immutable and replaced on change."""

    __slots__ = ("_rows", "_usage")

    def __init__(self, usage: Usage) -> None:
        self._rows: dict[str, ServerRow] = {}
        self._usage = usage

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ServerRow]:
        """Every server in order of id."""
        return iter(sorted(self._rows.values()))

    def get(self, server_id: str) -> ServerRow | None:
        return self._rows.get(server_id)

    def announce(self, row: ServerRow) -> None:
        """Put a server in, replacing all that was known of it."""
        self.remove(row.server_id)
        self._rows[row.server_id] = row
        self._usage.bytes += _weight(row)

    def heartbeat(self, server_id: str, lt: int, wt: int) -> bool:
        """Touch a server; never moves its times backwards. False when it is unknown."""
        row = self._rows.get(server_id)
        if row is None:
            return False
        self._rows[server_id] = row._replace(
            heartbeat_lt=max(row.heartbeat_lt, lt), heartbeat_wt=max(row.heartbeat_wt, wt)
        )
        return True

    def remove(self, server_id: str) -> bool:
        row = self._rows.pop(server_id, None)
        if row is None:
            return False
        self._usage.bytes -= _weight(row)
        return True

    def remove_timed_out(self, cutoff_lt: int) -> int:
        """Remove the servers heard of strictly before `cutoff_lt`; returns how many."""
        gone = [row.server_id for row in self._rows.values() if row.heartbeat_lt < cutoff_lt]
        for server_id in gone:
            self.remove(server_id)
        return len(gone)

    def freeze(self) -> dict[str, ServerRow]:
        """An instant copy."""
        return self._rows.copy()


def _weight(row: ServerRow) -> int:
    return SERVER_BYTES + len(row.server_id) + QUEUE_NAME_BYTES * len(row.queues)
