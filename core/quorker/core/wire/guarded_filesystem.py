"""A file system that trusts nothing after the first failure: every later call fails too (D4: no retry, ever)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

from quorker.core.errors import StorageFailed
from quorker.core.wire.filesystem import FileSystem

T = TypeVar("T")


class GuardedFileSystem:
    """A FileSystem whose every OSError first sets `broken`, then becomes a StorageFailed.

    `DiskFull` passes through: it is raised before anything was relied upon.
    """

    def __init__(self, inner: FileSystem) -> None:
        self._inner = inner
        self.broken = ""  # why, once a call has failed

    def require_working(self) -> None:
        if self.broken:
            raise StorageFailed(f"the storage failed before ({self.broken}): this process must end")

    def fail(self, what: str, error: Exception) -> NoReturn:
        """Trust nothing from now on."""
        self.broken = self.broken or f"{what}: {error}"
        raise StorageFailed(f"{what} failed: {error}") from error

    def listdir(self, directory: str) -> list[str]:
        return self._call(lambda: self._inner.listdir(directory), "listing", directory)

    def mkdir(self, directory: str) -> None:
        self._call(lambda: self._inner.mkdir(directory), "making directory", directory)

    def open(self, path: str) -> int:
        return self._call(lambda: self._inner.open(path), "opening", path)

    def create(self, path: str) -> int:
        return self._call(lambda: self._inner.create(path), "creating", path)

    def close(self, handle: int) -> None:
        """Also after a failure: handles are given back."""
        try:
            self._inner.close(handle)
        except OSError as error:
            self.fail("closing a file", error)

    def size(self, handle: int) -> int:
        return self._call(lambda: self._inner.size(handle), "asking the size of", "a file")

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return self._call(lambda: self._inner.pread(handle, size, offset), "reading", "a file")

    def pwrite(self, handle: int, data: bytes, offset: int) -> None:
        if self.broken:
            self.require_working()
        try:
            self._inner.pwrite(handle, data, offset)
        except OSError as error:
            self.fail("a write", error)

    def allocate(self, handle: int, size: int) -> None:
        self._call(lambda: self._inner.allocate(handle, size), "allocating", "a file")

    def fdatasync(self, handle: int) -> None:
        if self.broken:
            self.require_working()
        try:
            self._inner.fdatasync(handle)
        except OSError as error:
            self.fail("fdatasync", error)

    def rename(self, source: str, target: str) -> None:
        self._call(lambda: self._inner.rename(source, target), "renaming", source)

    def unlink(self, path: str) -> None:
        self._call(lambda: self._inner.unlink(path), "removing", path)

    def fsync_dir(self, directory: str) -> None:
        self._call(lambda: self._inner.fsync_dir(directory), "fsync of directory", directory)

    def free_bytes(self) -> int:
        return self._call(self._inner.free_bytes, "asking for free space", "")

    def _call(self, call: Callable[[], T], what: str, path: str) -> T:
        self.require_working()
        try:
            return call()
        except OSError as error:
            self.fail(f"{what} {path}".rstrip(), error)
