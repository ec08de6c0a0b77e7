"""The snapshot files of one directory: written beside, synced, renamed; verified whenever they are read.

Which snapshots count stands in the log. A file that the log does not name is nobody's, and is removed only when two
newer snapshots are safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from quorker.core.errors import CorruptionError, ProtocolError, StorageError
from quorker.core.raft.messages import SnapshotMeta
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.segments import TEMPORARY
from quorker.core.wire.snapshot_file import SnapshotEncoder, read_snapshot, snapshot_name
from quorker.core.wire.snapshot_meta import SnapshotRecord
from quorker.core.wire.storage_errors import DiskFull

SNAPSHOT_DIRECTORY: Final = "snap"
KEPT: Final = 2  # the newest, and the one before it in case the newest turns out to be damaged
SYNC_BYTES: Final = 4 << 20  # a writer syncs this often, so that no fsync of the log waits behind a huge one
SUFFIX: Final = ".snap"


class SnapshotWriter:
    """Takes one snapshot, chunk by chunk. `add` may run in another thread; `finish` where the storage is used.

    After DiskFull, or `abort`, nothing of it is left.
    """

    def __init__(
        self,
        fs: GuardedFileSystem,
        meta: SnapshotMeta,
        cluster_id: bytes,
        temporary: str,
        adopt: Callable[[SnapshotRecord, Callable[[], None]], bool],
        make_room: Callable[[], bool],
    ) -> None:
        self.meta = meta
        self._make_room = make_room  # gives up reserved space; False when there is none left
        self._fs = fs
        self._temporary = temporary
        self._adopt = adopt
        self._encoder = SnapshotEncoder(meta, cluster_id)
        self._handle: int | None = fs.create(temporary)
        self._offset = 0
        self._synced = 0
        self._write(self._encoder.header)

    def add(self, chunk: bytes) -> None:
        """Append a chunk of at most 4 MiB. Raises DiskFull."""
        self._write(self._encoder.chunk(chunk))
        if self._offset - self._synced >= SYNC_BYTES:
            self._fs.fdatasync(self._open_handle())
            self._synced = self._offset

    def finish(self, sha256: bytes | None = None) -> bool:
        """Make it durable and known to the log. False when a newer snapshot made it useless.

        Raises ProtocolError, and keeps nothing, when `sha256` is given and is not the digest of all chunks.
        """
        record = self._encoder.record()
        if sha256 is not None and sha256 != record.sha256:
            self.abort()
            raise ProtocolError(f"snapshot {self.meta.index} arrived damaged: its digest does not match")
        try:
            return self._adopt(record, self._publish)
        finally:
            if not self._fs.broken:
                self.abort()

    def abort(self) -> None:
        """Give it up, unless it is finished."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._fs.close(handle)
            self._fs.unlink(self._temporary)

    def _publish(self) -> None:
        """The order that a crash cannot break: footer, fsync, rename, fsync of the directory."""
        self._write(self._encoder.footer())
        handle = self._open_handle()
        self._fs.fdatasync(handle)
        self._handle = None
        self._fs.close(handle)
        self._fs.rename(self._temporary, snapshot_path(self.meta))
        self._fs.fsync_dir(SNAPSHOT_DIRECTORY)

    def _write(self, data: bytes) -> None:
        try:
            self._fs.pwrite(self._open_handle(), data, self._offset)
        except DiskFull:
            if self._make_room():
                self._write(data)
                return
            self.abort()
            raise
        self._offset += len(data)

    def _open_handle(self) -> int:
        if self._handle is None:
            raise StorageError(f"snapshot {self.meta.index} was already finished or given up")
        return self._handle


class SnapshotStore:
    """Makes writers and readers, and removes what nobody needs."""

    def __init__(
        self, fs: GuardedFileSystem, cluster_id: bytes, make_room: Callable[[], bool] = lambda: False
    ) -> None:
        self._fs = fs
        self._cluster_id = cluster_id
        self._make_room = make_room
        self._temporary_files = 0

    def writer(
        self, meta: SnapshotMeta, adopt: Callable[[SnapshotRecord, Callable[[], None]], bool]
    ) -> SnapshotWriter:
        self._temporary_files += 1
        temporary = f"{SNAPSHOT_DIRECTORY}/{meta.index}-{self._temporary_files}{TEMPORARY}"
        return SnapshotWriter(self._fs, meta, self._cluster_id, temporary, adopt, self._make_room)

    def chunks(self, record: SnapshotRecord) -> Iterator[bytes]:
        """The chunks of a file, verified one by one. Raises CorruptionError when one is damaged or the file is gone."""
        path = snapshot_path(record.meta)
        if path.rpartition("/")[2] not in self._fs.listdir(SNAPSHOT_DIRECTORY):
            raise CorruptionError(path, 0, "the file is missing")
        handle = self._fs.open(path)
        try:
            yield from read_snapshot(
                lambda size, offset: self._fs.pread(handle, size, offset), path, self._cluster_id, record
            )
        finally:
            self._fs.close(handle)

    def remove(self, meta: SnapshotMeta) -> None:
        """Take back one that was published and never named by the log."""
        self._fs.unlink(snapshot_path(meta))
        self._fs.fsync_dir(SNAPSHOT_DIRECTORY)

    def damage(self, record: SnapshotRecord) -> CorruptionError | None:
        """What is wrong with a snapshot, after reading all of it."""
        try:
            for _ in self.chunks(record):
                pass
        except CorruptionError as error:
            return error
        return None

    def drop_older(self, kept: Sequence[SnapshotRecord]) -> None:
        """Remove the files of snapshots older than all in `kept`, if that leaves enough."""
        if len(kept) < KEPT:
            return
        oldest = min(snapshot_name(record.meta) for record in kept)
        for name in self._fs.listdir(SNAPSHOT_DIRECTORY):
            if name.endswith(SUFFIX) and name < oldest:
                self._fs.unlink(f"{SNAPSHOT_DIRECTORY}/{name}")


def snapshot_path(meta: SnapshotMeta) -> str:
    return f"{SNAPSHOT_DIRECTORY}/{snapshot_name(meta)}"
