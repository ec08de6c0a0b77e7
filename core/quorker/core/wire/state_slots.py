"""The two slot files: read at the start, then overwritten in turn, each time with one write and one fdatasync."""

from __future__ import annotations

from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.hardstate import SLOT_BYTES, SLOT_NAMES, Slot, decode_slot, encode_slot, newest_slot
from quorker.core.wire.storage_errors import DiskFull


class StateSlots:
    """`newest` is what was written last; the next write goes to the other file. Reads only, before `open`."""

    def __init__(self, fs: GuardedFileSystem, dir_uuid: bytes) -> None:
        self._fs = fs
        self._dir_uuid = dir_uuid
        first, second = (decode_slot(read_slot(fs, name), dir_uuid) for name in SLOT_NAMES)
        self.newest = newest_slot((first, second))
        self.damaged = tuple(name for name, slot in zip(SLOT_NAMES, (first, second), strict=True) if not slot)
        self._next = 1 if first is self.newest else 0
        self._handles: tuple[int, ...] = ()

    def open(self) -> None:
        """Get ready to write, with an empty file in the place of a damaged one."""
        for name in self.damaged:
            replace_file(self._fs, name, bytes(SLOT_BYTES))
        if self.damaged:
            self._fs.fsync_dir("")
        self._handles = tuple(self._fs.open(name) for name in SLOT_NAMES)

    def write(self, slot: Slot) -> None:
        handle = self._handles[self._next]
        try:
            self._fs.pwrite(handle, encode_slot(slot, self._dir_uuid), 0)
        except DiskFull as error:  # cannot be, the file has its size
            self._fs.fail("overwriting a state slot", error)
        self._fs.fdatasync(handle)
        self._next = 1 - self._next
        self.newest = slot

    def close(self) -> None:
        for handle in self._handles:
            self._fs.close(handle)


def read_slot(fs: GuardedFileSystem, name: str) -> bytes:
    """The bytes of a slot file, more than a slot when the file is too long; nothing when there is no such file."""
    return read_file(fs, name, SLOT_BYTES + 1) if name in fs.listdir("") else b""


def read_file(fs: GuardedFileSystem, path: str, size_max: int) -> bytes:
    handle = fs.open(path)
    try:
        return fs.pread(handle, size_max, 0)
    finally:
        fs.close(handle)


def replace_file(fs: GuardedFileSystem, path: str, data: bytes) -> None:
    """Make a file anew. Its contents are durable afterwards, its name after an fsync of the directory."""
    if path in fs.listdir(""):
        fs.unlink(path)
    handle = fs.create(path)
    try:
        fs.pwrite(handle, data, 0)
        fs.fdatasync(handle)
    finally:
        fs.close(handle)
