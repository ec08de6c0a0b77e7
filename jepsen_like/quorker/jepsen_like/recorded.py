"""Reads histories that other people's harnesses wrote: Jepsen's log of a register, and maps of texts in EDN lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from quorker.jepsen_like.history import Kind, Line, MalformedHistory, Operation, operations

REGISTER_LINE: Final = re.compile(r"INFO\s+jepsen\.util - (\d+)\s+:(\w+)\s+:(\w+)\s+(.*)")
MAP_LINE: Final = re.compile(
    r'\{:process (\d+), :type :(\w+), :f :(\w+), :key "([^"]*)", :value (nil|"([^"]*)")\}'
)
UNKNOWN: Final = ":timed-out"


def register_history(lines: Iterable[str]) -> list[Operation]:
    """Reads, writes and compare-and-sets of one register. Raises MalformedHistory."""
    return operations(_register_lines(lines), keep_failed=frozenset({"cas"}))


def text_map_history(lines: Iterable[str]) -> list[Operation]:
    """Gets, puts and appends of a map of texts. Raises MalformedHistory."""
    return operations(_map_lines(lines))


def _register_lines(lines: Iterable[str]) -> Iterator[Line]:
    for text in lines:
        found = REGISTER_LINE.fullmatch(text.strip())
        if found is None:
            if "jepsen.util" in text:
                raise MalformedHistory(f"no line of a register's history: {text.strip()!r}")
            continue
        process, kind, function, value = found.groups()
        yield Line(int(process), Kind(kind), function, _register_value(value))


def _register_value(text: str) -> Any:
    if text in ("nil", UNKNOWN):
        return None
    numbers = tuple(int(number) for number in re.findall(r"-?\d+", text))
    return numbers if text.startswith("[") else numbers[0]


def _map_lines(lines: Iterable[str]) -> Iterator[Line]:
    for text in lines:
        found = MAP_LINE.fullmatch(text.strip())
        if found is None:
            raise MalformedHistory(f"no line of a map's history: {text.strip()!r}")
        process, kind, function, key, _, value = found.groups()
        yield Line(int(process), Kind(kind), function, value, key)
