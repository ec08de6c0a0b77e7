"""A file system that remembers what a crash may take, and can list every state in which a crash may leave it.

It implements `quorker.core.wire.filesystem` to the letter: every unsynced sector, size and name is an independent
choice between its versions. It also fails on request, and can be full. Which states a storage must survive, and what
it must then hold, is for the tests that use it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from quorker.core.wire.filesystem import SECTOR_BYTES
from quorker.core.wire.storage_errors import DiskFull

Image: TypeAlias = Mapping[str, bytes | None]
"""Everything in a directory: path -> contents, None for a directory."""

UNLIMITED: Final = 1 << 60


class ForgetfulFile:
    """Contents as a reader sees them, and every version that each sector and the size had since the last sync."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.durable = content
        self.sectors: dict[int, list[bytes]] = {}
        self.sizes: list[int] = []

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        self.resize(max(end, len(self.content)))
        self.content[offset:end] = data
        for number in range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1):
            versions = self.sectors.setdefault(number, [])
            now = _sector(self.content, number)
            if now != (versions[-1] if versions else _sector(self.durable, number)):
                versions.append(now)

    def resize(self, size: int) -> None:
        if size != len(self.content):
            self.content += bytes(size - len(self.content))
            self.sizes.append(size)

    def sync(self) -> None:
        self.durable = self.after_crash(count - 1 for count in self.choices())
        self.sectors.clear()
        self.sizes.clear()

    def lose(self) -> None:
        """A failed fsync as Linux does it: what was written is still read, but counts as clean and is never written."""
        self.sectors.clear()

    def choices(self) -> list[int]:
        """How many versions each unsynced sector has, then the size; 0 is the durable one."""
        return [*(len(versions) + 1 for versions in self.sectors.values()), len(self.sizes) + 1]

    def after_crash(self, chosen: Iterator[int]) -> bytes:
        content = bytearray(self.durable)
        for number, versions in self.sectors.items():
            if which := next(chosen):
                start = number * SECTOR_BYTES
                content += bytes(max(start + SECTOR_BYTES - len(content), 0))
                content[start : start + SECTOR_BYTES] = versions[which - 1]
        which = next(chosen)
        size = self.sizes[which - 1] if which else len(self.durable)
        return bytes(content[:size]) + bytes(size - len(content[:size]))


Names: TypeAlias = dict[str, ForgetfulFile | None]


@dataclass(frozen=True, slots=True)
class NameChange:
    """One unsynced change in a directory: `appears` names `file` now (None: a directory), `vanishes` nothing."""

    appears: str | None = None
    file: ForgetfulFile | None = None
    vanishes: str | None = None

    @property
    def directory(self) -> str:
        return _parent(self.appears or self.vanishes or "")

    @property
    def choices(self) -> int:
        return (
            2 if self.appears is None or self.vanishes is None else 3
        )  # a rename may leave the old name too

    def apply(self, names: Names, choice: int) -> None:
        """0: did not happen. 1: happened. 2: of a rename, the new name appeared beside the old one."""
        if choice and self.appears is not None:
            names[self.appears] = self.file
        if choice == 1 and self.vanishes is not None:
            names.pop(self.vanishes, None)


class ForgetfulFileSystem:
    """Every call counts as one operation; `before` is told of each and may raise in its place.

    `after_change` is called whenever something changed that a crash could show. `capacity`: bytes that fit.
    """

    def __init__(self, image: Image | None = None, capacity: int = UNLIMITED) -> None:
        self.before: Callable[[str, str], None] = _ignore
        self.after_change: Callable[[], None] = _nothing
        self.capacity = capacity
        self.loses_at_sync = ""  # the file whose fdatasync fails
        self._names: Names = _named(image or {})
        self._durable: Names = dict(self._names)
        self._changes: list[NameChange] = []
        self._handles: dict[int, tuple[str, ForgetfulFile]] = {}
        self._next_handle = 3

    # The file system

    def listdir(self, directory: str) -> list[str]:
        self.before("listdir", directory)
        if directory and self._names.get(directory, self) is not None:
            raise FileNotFoundError(directory)
        return sorted(path.rpartition("/")[2] for path in self._names if _parent(path) == directory)

    def mkdir(self, directory: str) -> None:
        self.before("mkdir", directory)
        self._appear(directory, None)

    def open(self, path: str) -> int:
        self.before("open", path)
        file = self._names.get(path)
        if file is None:
            raise FileNotFoundError(path)
        return self._handle(path, file)

    def create(self, path: str) -> int:
        self.before("create", path)
        file = ForgetfulFile()
        self._appear(path, file)
        return self._handle(path, file)

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)  # a file may be let go of after the process that had it open

    def size(self, handle: int) -> int:
        self.before("size", self._handles[handle][0])
        return len(self._handles[handle][1].content)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        path, file = self._handles[handle]
        self.before("pread", path)
        return bytes(file.content[offset : offset + size])

    def pwrite(self, handle: int, data: bytes, offset: int) -> None:
        path, file = self._handles[handle]
        self.before("pwrite", path)
        self._need(offset + len(data) - len(file.content))
        file.write(data, offset)
        self.after_change()

    def allocate(self, handle: int, size: int) -> None:
        path, file = self._handles[handle]
        self.before("allocate", path)
        self._need(size - len(file.content))
        file.resize(size)
        self.after_change()

    def fdatasync(self, handle: int) -> None:
        path, file = self._handles[handle]
        self.before("fdatasync", path)
        if path == self.loses_at_sync:
            file.lose()
            raise OSError(f"fdatasync of {path} failed")
        file.sync()
        self.after_change()

    def rename(self, source: str, target: str) -> None:
        self.before("rename", source)
        file = self._names[source]
        self._change(NameChange(target, file, source))

    def unlink(self, path: str) -> None:
        self.before("unlink", path)
        if path not in self._names:
            raise FileNotFoundError(path)
        self._change(NameChange(vanishes=path))

    def fsync_dir(self, directory: str) -> None:
        self.before("fsync_dir", directory)
        for change in self._changes:
            if change.directory == directory:
                change.apply(self._durable, 1)
        self._changes = [change for change in self._changes if change.directory != directory]
        self.after_change()

    def free_bytes(self) -> int:
        return max(self.capacity - self.used_bytes, 0)

    # What goes wrong

    def kill(self) -> None:
        """The process dies: its handles are gone, the machine keeps everything else."""
        self._handles.clear()
        self.loses_at_sync = ""

    def power_cut(self, draw: Callable[[int], int]) -> None:
        """The machine dies: for everything unsynced, `draw(choices)` tells which version is there afterwards."""
        files = self._files()
        self.restore(self._after_crash(files, [draw(radix) for radix in self._radices(files)]))

    def restore(self, image: Image) -> None:
        """Nothing but this is there any more, and all of it is durable."""
        self.kill()
        self._names = _named(image)
        self._durable = dict(self._names)
        self._changes.clear()

    def overwrite(self, path: str, data: bytes, offset: int) -> None:
        """The disk changes what it holds, behind the back of everybody; the page cache had forgotten it."""
        file = self._durable[path]
        assert file is not None
        held = bytearray(file.durable)
        held[offset : offset + len(data)] = data
        file.content[offset : offset + len(data)] = data
        file.durable = bytes(held)

    def at_rest(self) -> dict[str, bytes]:
        """The files that are durable by name, and of which a reader sees what the disk holds."""
        return {
            path: file.durable
            for path, file in sorted(self._durable.items())
            if file is not None and self._names.get(path) is file and bytes(file.content) == file.durable
        }

    # What a crash leaves

    def image(self) -> dict[str, bytes | None]:
        """What is there when only the process dies."""
        return _image(
            {path: None if file is None else bytes(file.content) for path, file in self._names.items()}
        )

    def crash_images(self, limit: int, seed: int = 0) -> Iterator[dict[str, bytes | None]]:
        """Every state after a power cut; when there are more than `limit`, the two extremes and `limit` samples."""
        files = self._files()
        radices = self._radices(files)
        total = 1
        for radix in radices:
            total = min(total * radix, limit + 1)
        if total <= limit:
            yield from (
                self._after_crash(files, chosen) for chosen in itertools.product(*map(range, radices))
            )
            return
        draw = random.Random(seed)
        yield self._after_crash(files, [0] * len(radices))
        yield self._after_crash(
            files, [radix - 1 if place >= len(self._changes) else 1 for place, radix in enumerate(radices)]
        )
        for _ in range(limit):
            yield self._after_crash(files, [draw.randrange(radix) for radix in radices])

    def _radices(self, files: Sequence[ForgetfulFile]) -> list[int]:
        """How many ways each unsynced change can go: those of names first, then those of contents."""
        return [
            *(change.choices for change in self._changes),
            *(count for file in files for count in file.choices()),
        ]

    def _after_crash(self, files: Sequence[ForgetfulFile], chosen: Sequence[int]) -> dict[str, bytes | None]:
        names = dict(self._durable)
        choice = iter(chosen)
        for change in self._changes:
            change.apply(names, next(choice))
        contents = {id(file): file.after_crash(choice) for file in files}
        return _image({path: None if file is None else contents[id(file)] for path, file in names.items()})

    def _files(self) -> list[ForgetfulFile]:
        """Every file that some crash state could show."""
        found = [*self._names.values(), *self._durable.values(), *(change.file for change in self._changes)]
        return list({id(file): file for file in found if file is not None}.values())

    def _appear(self, path: str, file: ForgetfulFile | None) -> None:
        if path in self._names:
            raise FileExistsError(path)
        self._change(NameChange(path, file))

    def _change(self, change: NameChange) -> None:
        change.apply(self._names, 1)
        self._changes.append(change)
        self.after_change()

    def _handle(self, path: str, file: ForgetfulFile) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = (path, file)
        return self._next_handle

    def _need(self, more: int) -> None:
        if more > 0 and self.used_bytes + more > self.capacity:
            raise DiskFull("no space left")

    @property
    def used_bytes(self) -> int:
        return sum(len(file.content) for file in self._names.values() if file is not None)


def _named(image: Image) -> Names:
    return {path: None if content is None else ForgetfulFile(content) for path, content in image.items()}


def _image(names: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Without what lies in a directory that is not there."""
    return {
        path: content
        for path, content in sorted(names.items())
        if not (parent := _parent(path)) or parent in names
    }


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _sector(content: bytes | bytearray, number: int) -> bytes:
    sector = bytes(content[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
    return sector + bytes(SECTOR_BYTES - len(sector))


def _ignore(operation: str, path: str) -> None:
    """Let it happen."""


def _nothing() -> None:
    """Nobody looks."""
