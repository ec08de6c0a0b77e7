"""The segments of the log: where the next batch goes, rolling over to a new file, sealing, dropping old files.

A new segment is allocated and zero-filled under a temporary name; it gets its real name only when its header and its
first batch are durable. So a named segment always has a good header and a good first batch, or is damaged.
What records mean is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from quorker.core.raft.messages import HardState
from quorker.core.wire import wal
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.identity import Identity
from quorker.core.wire.recovery import LOG_BEGIN, WAL_DIRECTORY
from quorker.core.wire.storage_errors import DiskFull
from quorker.core.wire.wal import Record, SegmentHeader
from quorker.core.wire.wal_scan import Position

TEMPORARY: Final = ".tmp"
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Prepared:
    """A zero-filled, durable file that has no part in the log yet."""

    handle: int
    path: str
    size: int


class SegmentLane:
    """Appends batches to the newest segment. `end` is where the next record goes, `last_batch` the one before it."""

    def __init__(
        self,
        fs: GuardedFileSystem,
        owner: Identity,
        segment_bytes: int,
        make_room: Callable[[], bool],
        headers: Sequence[SegmentHeader] = (),
        end: Position = LOG_BEGIN,
        last_batch: int = 0,
    ) -> None:
        self._fs = fs
        self._owner = owner
        self._segment_bytes = segment_bytes
        self._make_room = make_room  # gives up reserved space; False when there is none left
        self.headers = list(headers)  # oldest first
        self.offset, self._chain = end.offset, end.chain
        self.last_batch = last_batch
        self._size = headers[-1].size if headers else 0
        self._seed: int = wal.segment_seed(self.segment, owner.dir_uuid)
        self._handle = fs.open(_path(headers[-1])) if headers else None
        self._prepared: Prepared | None = None
        self._temporary_files = 0

    @property
    def segment(self) -> int:
        return self.headers[-1].segment if self.headers else 0

    @property
    def first_index(self) -> int:
        """Entries before this one are in no segment."""
        return self.headers[0].next_index

    @property
    def log_bytes(self) -> int:
        """How much of the segments is used."""
        return sum(header.size for header in self.headers[:-1]) + self.offset

    @property
    def wants_prepare(self) -> bool:
        """The next segment will be needed soon and is not there."""
        return self._prepared is None and self.offset * 2 > self._size

    def append(self, records: Sequence[Record], last_index: int, hard_state: HardState) -> bool:
        """One write and one fdatasync. False, and nothing was done, when the batch does not fit into this segment."""
        offset = self.offset
        data, chain = wal.encode_batch(
            self._seed, self._chain, offset, self.last_batch + 1, records, last_index, hard_state
        )
        end = offset + len(data)
        if end + wal.SEAL_BYTES > self._size or self._handle is None:
            return False
        self._write_through(self._handle, data, offset)
        self.offset, self._chain = end, chain
        self.last_batch += 1
        return True

    def start_segment(
        self,
        records: Sequence[Record],
        next_index: int,
        last_index: int,
        hard_state: HardState,
        cut: bool = False,
    ) -> None:
        """Begin a new segment with this batch; `next_index` is where the log ended before it.

        Raises DiskFull when there is no room for the segment; then nothing has happened.
        """
        number = self.last_batch + 1
        needed = len(wal.encode_batch(0, 0, 0, number, records, last_index, hard_state)[0])
        needed += wal.SEGMENT_HEADER_BYTES + wal.SEAL_BYTES
        size = self._segment_bytes if needed <= self._segment_bytes else needed + -needed % _PAGE_BYTES
        fresh = self._take(size)
        header = SegmentHeader(
            self.segment + 1, next_index, size, self.last_batch, self.offset, self._chain, cut
        )
        head = wal.encode_segment_header(header, self._owner)
        seed = wal.segment_seed(header.segment, self._owner.dir_uuid)
        offset = wal.SEGMENT_HEADER_BYTES
        data, chain = wal.encode_batch(
            seed, wal.first_chain(head), offset, number, records, last_index, hard_state
        )
        self._write_through(fresh.handle, head + data, 0)
        self._fs.rename(fresh.path, _path(header))
        self._fs.fsync_dir(WAL_DIRECTORY)
        if self._handle is not None:
            self._fs.close(self._handle)
        self.headers.append(header)
        self._handle, self._size, self._seed = fresh.handle, size, seed
        self.offset, self._chain, self.last_batch = offset + len(data), chain, number

    def seal(self, last_index: int) -> None:
        """Say in the log that the last batch is durable, if there is room to say it."""
        if self._handle is None or self.offset + wal.SEAL_BYTES > self._size:
            return
        data, chain = wal.encode_seal(self._seed, self._chain, self.offset, self.last_batch, last_index)
        self._write_through(self._handle, data, self.offset)
        self.offset, self._chain = self.offset + len(data), chain

    def prepare(self) -> None:
        """Have the next segment ready. Touches no file that `append` uses. Raises DiskFull."""
        if self._prepared is None:
            self._prepared = self._allocate("ahead", self._segment_bytes)

    def drop_before(self, index: int) -> None:
        """Remove the segments that hold no entry from `index` on, oldest first, so that no gap can remain."""
        while len(self.headers) > 1 and self.headers[1].next_index <= index:
            self._fs.unlink(_path(self.headers[0]))
            self._fs.fsync_dir(WAL_DIRECTORY)
            del self.headers[0]

    def close(self) -> None:
        if self._handle is not None:
            self._fs.close(self._handle)
        if self._prepared is not None:
            self._discard(self._prepared)
        self._handle = self._prepared = None

    def _write_through(self, handle: int, data: bytes, offset: int) -> None:
        try:
            self._fs.pwrite(handle, data, offset)
        except DiskFull as error:  # cannot be, the space was allocated; what is on the disk now is unknown
            self._fs.fail("a write into allocated space", error)
        self._fs.fdatasync(handle)

    def _take(self, size: int) -> Prepared:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            if prepared.size == size:
                return prepared
            self._discard(prepared)
        try:
            return self._allocate("next", size)
        except DiskFull:
            if not self._make_room():
                raise
        return self._allocate("next", size)

    def _discard(self, prepared: Prepared) -> None:
        self._fs.close(prepared.handle)
        if not self._fs.broken:
            self._fs.unlink(prepared.path)

    def _allocate(self, name: str, size: int) -> Prepared:
        self._temporary_files += 1
        path = f"{WAL_DIRECTORY}/{name}-{self._temporary_files}{TEMPORARY}"
        handle = self._fs.create(path)
        try:
            self._fs.allocate(handle, size)
        except DiskFull:
            self._fs.close(handle)
            self._fs.unlink(path)
            raise
        self._fs.fdatasync(handle)
        return Prepared(handle, path, size)


def _path(header: SegmentHeader) -> str:
    return f"{WAL_DIRECTORY}/{wal.segment_name(header.segment, header.next_index)}"
