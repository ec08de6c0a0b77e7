"""The whole store as canonical bytes: rows of msgpack, cut into chunks, with a header that says how to read them and a
footer that proves them.

The same entries applied give the same bytes on every member, whatever snapshots and restores happened in between. So
tables are written in their own order, which is part of the state, and everything that a restore can rebuild (indexes,
lines of ready sessions) is left out. Files and chunk transfer must not live here; what a row holds is in `snapshot_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.errors import CorruptionError
from quorker.core.jobs import snapshot_rows
from quorker.core.jobs.collections_snapshot import CollectionsView
from quorker.core.jobs.limiters import Line
from quorker.core.jobs.records import Job, JobBatch, Lease, Recurring, UniqueKey
from quorker.core.jobs.snapshot_rows import Head, Row
from quorker.core.jobs.tables import Tables

_codec: Any = msgpack

FORMAT: Final = "quorker jobs"
VERSION: Final = 1
END_MARK: Final = b"QEND"
FOOTER_BYTES: Final = 4 + 8 + 32
CHUNK_BYTES: Final = 65536
ROW_ITEMS_MAX: Final = 2**20
TEXT_BYTES_MAX: Final = 2**22


class BadSnapshot(CorruptionError):
    """The bytes are not a snapshot that this version can read. Nothing was built from them."""

    def __init__(self, why: str, offset: int = 0) -> None:
        super().__init__("snapshot of the job store", offset, why)


class SnapshotView(NamedTuple):
    """An instant copy of the store. It never changes while the store goes on."""

    head: Head
    queues: list[Row]
    entries: list[tuple[str, int, list[dict[int, str]]]]
    jobs: list[Job]
    sessions: list[Row]
    leases: list[Lease]
    locks: list[Row]
    unique_keys: list[UniqueKey]
    collections: CollectionsView
    limiters: list[Row]
    lines: list[Line]
    start_by: list[tuple[str, int]]
    unresolved: list[str]
    recurring: list[Recurring]
    stirred: list[str]
    batches: list[JobBatch]

    def chunks(self, limit_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The canonical bytes in pieces of `limit_bytes` (the last may be shorter), encoded as they are asked for."""
        packer = _codec.Packer()
        seen, rows = sha256(), 0
        buffer = bytearray()
        for row in self._rows():
            packed: bytes = packer.pack(row)
            seen.update(packed)
            buffer += packed
            rows += 1
            while len(buffer) >= limit_bytes:
                yield bytes(buffer[:limit_bytes])
                del buffer[:limit_bytes]
        buffer += END_MARK + rows.to_bytes(8, "big") + seen.digest()
        for start in range(0, len(buffer), limit_bytes):
            yield bytes(buffer[start : start + limit_bytes])

    def digest(self) -> bytes:
        """sha256 of the canonical bytes without the footer; the footer holds the same."""
        packer = _codec.Packer()
        seen = sha256()
        for row in self._rows():
            seen.update(packer.pack(row))
        return seen.digest()

    def _rows(self) -> Iterator[Row]:
        yield (FORMAT, VERSION, *self.head)
        yield from self.queues
        yield from self.limiters
        for name, priority, parts in self.entries:
            yield from snapshot_rows.entry_rows(name, priority, parts)
        for line in self.lines:
            yield from snapshot_rows.line_rows(line)
        yield from map(snapshot_rows.job_row, self.jobs)
        yield from self.sessions
        for lease in self.leases:
            yield snapshot_rows.lease_row(lease)
        yield from self.locks
        for unique in self.unique_keys:
            yield (snapshot_rows.UNIQUE_KEY, *unique)
        for row in self.collections.rows():
            yield (snapshot_rows.COLLECTION, *row)
        for batch in self.batches:
            yield (snapshot_rows.BATCH, *batch)
        yield from snapshot_rows.start_by_rows(self.start_by)
        yield from snapshot_rows.unresolved_rows(self.unresolved)
        for entry in self.recurring:
            yield (snapshot_rows.RECURRING, *entry)
        yield (snapshot_rows.END, self.stirred)


def take(tables: Tables) -> SnapshotView:
    """An instant copy: costs a few table copies, whatever is in the records."""
    return SnapshotView(
        snapshot_rows.head_of(tables),
        [snapshot_rows.queue_row(queue) for queue in tables.queues.values()],
        [
            (queue.name, priority, [lane.front.copy(), *lane.back.parts()])
            for queue in tables.queues.values()
            for priority, lane in sorted(queue.lanes.items())
        ],
        list(tables.jobs.values()),
        [snapshot_rows.session_row(session) for session in tables.sessions.values()],
        list(tables.leases.values()),
        [snapshot_rows.lock_row(lock) for lock in tables.locks.values()],
        list(tables.unique_keys.values()),
        tables.collections.freeze(),
        [snapshot_rows.limiter_row(limiter) for limiter in tables.limiters.by_key.values()],
        [line.copy() for limiter in tables.limiters.by_key.values() for line in limiter.lines.values()],
        list(tables.start_by.items()),
        list(tables.unresolved),
        list(tables.recurring.values()),
        list(tables.stirred),
        list(tables.batches.values()),
    )


def load(tables: Tables, chunks: Iterable[bytes]) -> None:
    """Fill empty tables. Raises `BadSnapshot`; the tables are of no use then."""
    reader = snapshot_rows.Reader(tables)
    rows = 0
    stream = _verified(chunks)
    try:
        for row in stream:
            if rows == 0:
                _check_head(row)
                reader.head(row[2:])
            else:
                reader.row(row)
            rows += 1
        reader.finish()
    except BadSnapshot:
        raise
    except Exception as error:  # damaged rows break reading in any way there is
        raise BadSnapshot(f"row {rows}: {type(error).__name__}: {error}"[:500]) from error


def _check_head(row: Any) -> None:
    if type(row) is not tuple or row[:1] != (FORMAT,):
        raise BadSnapshot("it does not begin as a snapshot of the job store")
    if row[1:2] != (VERSION,):
        raise BadSnapshot(f"its format has version {row[1:2]!r:.40}, this program reads {VERSION}")


def _verified(chunks: Iterable[bytes]) -> Iterator[Any]:
    """The rows; raises at the end when the footer does not prove them."""
    unpacker = _codec.Unpacker(
        use_list=False,
        strict_map_key=False,
        max_buffer_size=2**30,
        max_array_len=ROW_ITEMS_MAX,
        max_map_len=0,
        max_str_len=TEXT_BYTES_MAX,
        max_bin_len=TEXT_BYTES_MAX,
        max_ext_len=0,
    )
    seen, rows, offset = sha256(), 0, 0
    held = b""
    for chunk in chunks:
        held += chunk
        ready, held = held[:-FOOTER_BYTES], held[-FOOTER_BYTES:]
        seen.update(ready)
        offset += len(ready)
        unpacker.feed(ready)
        for row in unpacker:
            rows += 1
            yield row
    if held[:4] != END_MARK or len(held) != FOOTER_BYTES:
        raise BadSnapshot("it is cut off", offset)
    if held[12:] != seen.digest() or unpacker.tell() != offset:
        raise BadSnapshot("its checksum does not match", offset)
    if int.from_bytes(held[4:12], "big") != rows or not rows:
        raise BadSnapshot(f"it has {rows} rows, its footer names another number", offset)
