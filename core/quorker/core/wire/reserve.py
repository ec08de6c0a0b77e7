"""Ballast on the disk: given up when the disk is full, so that a snapshot can still be written and the log trimmed."""

from __future__ import annotations

from typing import Final

from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.storage_errors import DiskFull

RESERVE: Final = "RESERVE"


class Reserve:
    """A file of `size` bytes that holds nothing; no file when `size` is 0."""

    def __init__(self, fs: GuardedFileSystem, size: int) -> None:
        self._fs = fs
        self._size = size
        self.is_held = False

    def adopt(self) -> None:
        """Keep the file that is there, if it has the right size; make it otherwise, if there is room."""
        if RESERVE in self._fs.listdir(""):
            handle = self._fs.open(RESERVE)
            self.is_held = self._size > 0 and self._fs.size(handle) == self._size
            self._fs.close(handle)
            if not self.is_held:
                self._fs.unlink(RESERVE)
        self.refill()

    def release(self) -> bool:
        """Give the space up. False when it was given up before."""
        if not self.is_held:
            return False
        self.is_held = False
        self._fs.unlink(RESERVE)
        self._fs.fsync_dir("")
        return True

    def refill(self) -> None:
        """Take the space again once there is plenty."""
        if self.is_held or not self._size or self._fs.free_bytes() < 4 * self._size:
            return
        handle = self._fs.create(RESERVE)
        try:
            self._fs.allocate(handle, self._size)
            self._fs.fdatasync(handle)
            self.is_held = True
        except DiskFull:
            self._fs.unlink(RESERVE)
        finally:
            self._fs.close(handle)
