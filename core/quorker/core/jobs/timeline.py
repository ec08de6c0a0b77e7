"""Job ids under ascending numbers: appended at the end, removed anywhere, counted and paged from both ends.

Numbers come from the store's running order, so nothing is ever inserted in the middle; chunks of small dicts make every
change a bisection and one dict operation. What the numbers mean must not be known here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

CHUNK_ITEMS_MAX: Final = 512


class Timeline:
    """(number, job id) in ascending order of the number. `size`: how many; read it, do not set it."""

    __slots__ = ("_chunks", "_starts", "size")

    def __init__(self, ascending: Iterable[tuple[int, str]] = ()) -> None:
        self._chunks: list[dict[int, str]] = []
        self._starts: list[int] = []  # a lower bound of each chunk
        self.size = 0
        for number, job_id in ascending:
            self.append(number, job_id)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for chunk in self._chunks:
            yield from chunk.items()

    def parts(self) -> list[dict[int, str]]:
        """A copy of all, ascending, in parts: no object for each of them, which a garbage collector would have to walk."""
        return [chunk.copy() for chunk in self._chunks]

    def append(self, number: int, job_id: str) -> None:
        """Add at the end; `number` is larger than all before it (the caller knows)."""
        chunks = self._chunks
        if not chunks or len(chunks[-1]) >= CHUNK_ITEMS_MAX:
            chunks.append({})
            self._starts.append(number)
        chunks[-1][number] = job_id
        self.size += 1

    def remove(self, number: int) -> None:
        """Take out a number that is present (the caller knows)."""
        at = bisect_right(self._starts, number) - 1
        chunk = self._chunks[at]
        del chunk[number]
        self.size -= 1
        if not chunk and at + 1 < len(self._chunks):
            del self._chunks[at], self._starts[at]

    def first(self) -> tuple[int, str] | None:
        return next(iter(self._chunks[0].items())) if self.size else None

    def pop_first(self) -> tuple[int, str]:
        """Take out the first; there is one (the caller knows)."""
        chunk = self._chunks[0]
        number = next(iter(chunk))
        job_id = chunk.pop(number)
        self.size -= 1
        if not chunk and len(self._chunks) > 1:
            del self._chunks[0], self._starts[0]
        return number, job_id

    def page(self, start: int, stop: int, newest_first: bool = False) -> list[str]:
        """Job ids of rank `start` (inclusive, >= 0) to `stop` (exclusive), from the given end. Costs what it returns,
        and a step per chunk before it."""
        found: list[str] = []
        for chunk in reversed(self._chunks) if newest_first else self._chunks:
            if stop <= 0:
                break
            size = len(chunk)
            if start < size:
                ids = reversed(chunk.values()) if newest_first else chunk.values()
                found.extend(islice(ids, max(start, 0), stop))
            start -= size
            stop -= size
        return found

    def after(self, number: int) -> Iterator[tuple[int, str]]:
        """Ascending from the first number above `number`: a cursor that survives changes in between."""
        at = max(bisect_right(self._starts, number) - 1, 0)
        for chunk in self._chunks[at:]:
            for each, job_id in chunk.items():
                if each > number:
                    yield each, job_id

    def before(self, number: int) -> Iterator[tuple[int, str]]:
        """Descending from the last number below `number`."""
        at = bisect_right(self._starts, number)
        for chunk in reversed(self._chunks[:at]):
            for each, job_id in reversed(chunk.items()):
                if each < number:
                    yield each, job_id
