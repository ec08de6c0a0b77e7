"""What the disk layer asks of a directory, and exactly what it relies on after a crash.

`quorker.transport.disk` implements it with real files; a simulated world implements it with files that forget. Paths
are relative to the data directory and use "/" ("wal/0000000000000001.wal"); "" is the directory itself. Handles are
ints that stay valid until `close`, also when the file is renamed or unlinked. Nobody else changes the directory.

What survives a crash of the machine (a crash of the process alone loses nothing that a call has returned from):

* `pwrite` and `allocate` are not durable by themselves. Until an `fdatasync` of the same file that began after them
  has returned, every sector of `SECTOR_BYTES` (aligned to the start of the file) that they touched may hold, after
  the crash, what any of the writes since the last `fdatasync` left there, or what the last `fdatasync` made durable;
  each sector independently of all others. A sector itself is never mixed. The same holds for the size of the file:
  any of the sizes since then, and bytes that were never written are zero.
* `fdatasync` makes contents and size durable. It does not make the name of the file durable.
* `create`, `rename`, `unlink` and `mkdir` change names. Until an `fsync_dir` of the directory that holds the name
  has returned, each of these changes may or may not be there after a crash, independently of all others, except that
  changes of one name happen in order. A rename is one change: the target is the old file or the new one, never none,
  and the source may still be there beside it.
* A file that is durable by name but was never synced is there with any of its possible contents.
* After a call has raised, anything it touched is in doubt, also what an earlier call wrote to the same file since the
  last `fdatasync`. The disk layer then never calls again.

Errors: `DiskFull` from `create`, `pwrite`, `allocate` and `mkdir` when the device or the quota has no room (nothing
is relied upon to have happened); `FileNotFoundError` and `FileExistsError` where said; any other `OSError` at any time.
"""

from __future__ import annotations

from typing import Final, Protocol

SECTOR_BYTES: Final = 512


class FileSystem(Protocol):
    """Synchronous, not thread-safe for one handle; different handles may be used from different threads."""

    def listdir(self, directory: str) -> list[str]:
        """The names in a directory, sorted, without their path. Raises FileNotFoundError."""
        ...

    def mkdir(self, directory: str) -> None:
        """Make a directory. Raises FileExistsError."""
        ...

    def open(self, path: str) -> int:
        """Open an existing file for reading and writing. Raises FileNotFoundError."""
        ...

    def create(self, path: str) -> int:
        """Make an empty file and open it for reading and writing. Raises FileExistsError."""
        ...

    def close(self, handle: int) -> None:
        """Give the handle back. Syncs nothing."""
        ...

    def size(self, handle: int) -> int:
        """Bytes in the file."""
        ...

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """`size` bytes from `offset`, fewer only at the end of the file."""
        ...

    def pwrite(self, handle: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; a hole before it reads as zeros."""
        ...

    def allocate(self, handle: int, size: int) -> None:
        """Make the empty file `size` bytes long, all of them zeros that were really written.

        Later writes inside it change no metadata and need no new space.
        """
        ...

    def fdatasync(self, handle: int) -> None:
        """Return when contents and size are durable."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file another name in the same directory, in the place of what had that name."""
        ...

    def unlink(self, path: str) -> None:
        """Take away a name. Raises FileNotFoundError."""
        ...

    def fsync_dir(self, directory: str) -> None:
        """Return when every earlier change of a name in this directory is durable."""
        ...

    def free_bytes(self) -> int:
        """Bytes that a process without privileges could still write to this file system."""
        ...
