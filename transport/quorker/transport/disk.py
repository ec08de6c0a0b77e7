"""A member's data directory: real files under `quorker.core.wire.storage`, and the lock that keeps a second process out.

Twin: `quorker.sim.disks.crash_states`. What is written where, and how it is read back, is decided in `quorker.core.wire`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from quorker.core.errors import ConfigurationError, CorruptionError, IdentityMismatch
from quorker.core.wire.identity import DIR_UUID_BYTES, Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.core.wire.storage_errors import DiskFull
from quorker.core.wire.storage_open import Trust

LOCK: Final = "LOCK"
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ZEROS: Final = bytes(1 << 20)
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_open_here: weakref.WeakSet[RealFileSystem] = weakref.WeakSet()


class Disk(LogStorage):
    """`LogStorage` in a locked directory. Made by `open`; `close` gives the directory back."""

    _files: RealFileSystem

    @classmethod
    def open(
        cls,
        data_dir: str | os.PathLike[str],
        identity: Identity,
        settings: StorageSettings | None = None,
        *,
        create: bool = True,
        trust: Trust | None = None,
    ) -> Disk:
        """Lock the directory, then make or recover it. An `identity` without dir_uuid gets one if the directory is new.

        Raises ConfigurationError (in use, not writable, unsafe mode), IdentityMismatch, CorruptionError naming file
        and offset, DiskFull, StorageFailed.
        """
        root = os.fspath(data_dir)
        if not any(identity.dir_uuid):
            identity = replace(identity, dir_uuid=os.urandom(DIR_UUID_BYTES))
        files = lock_directory(root)
        try:
            with _errors_naming(root):
                disk = cls(files, identity, settings, create=create, trust=trust)
        except BaseException:
            files.shutdown()
            raise
        disk._files = files
        disk.notes += files.notes
        return disk

    def close(self) -> None:
        """Seal, let go of all files and of the lock. After a failure: only let go."""
        try:
            super().close()
        finally:
            self._files.shutdown()


class RealFileSystem:
    """`quorker.core.wire.filesystem.FileSystem` on a real directory, which is locked as long as this is open."""

    def __init__(self, root: str, lock: int) -> None:
        self._root = root
        self._lock = lock
        self._handles: set[int] = set()
        self.notes: tuple[str, ...] = ()
        _open_here.add(self)

    def shutdown(self) -> None:
        """Close every file and give up the lock. Also what a forked child does with its copies, at once."""
        for handle in (*self._handles, self._lock):
            if handle >= 0:
                os.close(handle)
        self._handles.clear()
        self._lock = -1

    def listdir(self, directory: str) -> list[str]:
        return sorted(os.listdir(self._path(directory)))

    def mkdir(self, directory: str) -> None:
        with _no_space_is_disk_full():
            os.mkdir(self._path(directory), DIRECTORY_MODE)

    def open(self, path: str) -> int:
        return self._keep(os.open(self._path(path), os.O_RDWR | os.O_CLOEXEC))

    def create(self, path: str) -> int:
        with _no_space_is_disk_full():
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return self._keep(os.open(self._path(path), flags, FILE_MODE))

    def close(self, handle: int) -> None:
        if handle in self._handles:  # not when a shutdown was faster
            self._handles.remove(handle)
            os.close(handle)

    def size(self, handle: int) -> int:
        return os.fstat(self._open_handle(handle)).st_size

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        self._open_handle(handle)
        data = os.pread(handle, size, offset)
        while len(data) < size and (more := os.pread(handle, size - len(data), offset + len(data))):
            data += more
        return data

    def pwrite(self, handle: int, data: bytes, offset: int) -> None:
        if handle not in self._handles:
            self._open_handle(handle)
        try:
            written = os.pwrite(handle, data, offset)
            while written < len(data):
                written += os.pwrite(handle, memoryview(data)[written:], offset + written)
        except OSError as error:
            raise _translated(error) from error

    def allocate(self, handle: int, size: int) -> None:
        """Reserve first: a lack of space shows before anything is written."""
        self._open_handle(handle)
        with _no_space_is_disk_full():
            os.posix_fallocate(handle, 0, size)
            for offset in range(0, size, len(_ZEROS)):
                self.pwrite(handle, _ZEROS[: size - offset], offset)

    def fdatasync(self, handle: int) -> None:
        if handle not in self._handles:
            self._open_handle(handle)
        os.fdatasync(handle)

    def rename(self, source: str, target: str) -> None:
        os.rename(self._path(source), self._path(target))

    def unlink(self, path: str) -> None:
        os.unlink(self._path(path))

    def fsync_dir(self, directory: str) -> None:
        fsync_directory(self._path(directory))

    def free_bytes(self) -> int:
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def _path(self, path: str) -> str:
        if self._lock < 0:
            raise OSError(errno.EBADF, "this directory is no longer open here")
        return f"{self._root}/{path}" if path else self._root

    def _keep(self, handle: int) -> int:
        self._handles.add(handle)
        return handle

    def _open_handle(self, handle: int) -> int:
        """A handle that was given out here: never some other file that got the same number since."""
        if handle not in self._handles:
            raise OSError(errno.EBADF, "this file is no longer open here")
        return handle


def lock_directory(root: str) -> RealFileSystem:
    """Make the directory if needed and lock it against every other process. Raises ConfigurationError."""
    try:
        _make_directory(root)
        note = _require_private(root)
        lock = os.open(f"{root}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(
            f"data directory {root} cannot be used: {error.filename} is a file, or lies below one"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"data directory {root} cannot be used: {error.filename or root}: {error.strerror}"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise ConfigurationError(f"data directory {root} is in use by {holder}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{_this_process()}\n".encode(), 0)
    files = RealFileSystem(root, lock)
    files.notes = (note,) if note else ()
    return files


def _make_directory(root: str) -> None:
    parent = os.path.dirname(os.path.abspath(root))
    os.makedirs(parent, exist_ok=True)
    if not os.path.isdir(root):
        os.mkdir(root, DIRECTORY_MODE)
        fsync_directory(parent)


def _require_private(root: str) -> str:
    """Raise ConfigurationError when others can change the directory. Returns what to tell when they can read it."""
    found = os.stat(root)
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"data directory {root} belongs to user {found.st_uid}, not to {os.geteuid()}"
        )
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"data directory {root} can be changed by others ({mode:04o}): chmod 700 {root}"
        )
    return f"data directory {root} can be read by others ({mode:04o})" if mode & 0o077 else ""


def _this_process() -> str:
    try:
        boot = Path(_BOOT_ID).read_text().strip()
    except OSError:
        boot = "unknown"
    return f"process {os.getpid()} on {socket.gethostname()} (boot {boot})"


def fsync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _translated(error: OSError) -> Exception:
    return DiskFull(error.strerror) if error.errno in _NO_SPACE else error


@contextmanager
def _no_space_is_disk_full() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise _translated(error) from error


@contextmanager
def _errors_naming(root: str) -> Generator[None]:
    """Put the directory into errors that know only what is inside of it."""
    try:
        yield
    except CorruptionError as error:
        raise CorruptionError(f"{root}/{error.path}", error.offset, error.why) from error
    except IdentityMismatch as error:
        raise IdentityMismatch(f"{root}: {error}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{root}: {error}") from error


def _let_go_in_child() -> None:
    """A forked child shares our lock: without this it would keep the directory locked after our death."""
    for files in list(_open_here):
        files.shutdown()


os.register_at_fork(after_in_child=_let_go_in_child)
