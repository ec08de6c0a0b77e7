"""Histories: what clients called and what they heard, in the order of one clock. Parsing and pairing only; no verdicts here.

An operation whose outcome nobody knows has no `returned`: it may have happened at any time after its call, or never.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a line of a history says; the words of Jepsen."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"  # it has certainly not happened
    INFO = "info"  # nobody knows


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a history. `process` has one operation at a time, and none after one with an unknown outcome."""

    process: int
    kind: Kind
    function: str
    value: Any = None
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A call and its answer. `called` and `returned` are places on one clock; `returned` is None when it is unknown."""

    process: int
    function: str
    argument: Any
    result: Any
    called: int
    returned: int | None
    key: Hashable = None

    def __str__(self) -> str:
        key = "" if self.key is None else f"{self.key!r}, "
        answer = "?" if self.returned is None else repr(self.result)
        return f"process {self.process}: {self.function}({key}{self.argument!r}) -> {answer}"


class MalformedHistory(ValueError):
    """Lines that cannot be the record of any run."""


def operations(lines: Iterable[Line], *, keep_failed: frozenset[str] = frozenset()) -> list[Operation]:
    """Pair calls with their answers. Failed operations are left out, but for those of the functions in `keep_failed`,
    whose failing is an answer; their `result` is then `Kind.FAIL`. Raises MalformedHistory.
    """
    found: list[Operation] = []
    pending: dict[int, tuple[int, Line]] = {}
    for place, line in enumerate(lines):
        if line.kind is Kind.INVOKE:
            if line.process in pending:
                raise MalformedHistory(f"line {place + 1}: process {line.process} calls while it waits")
            pending[line.process] = (place, line)
            continue
        if line.process not in pending:
            raise MalformedHistory(f"line {place + 1}: process {line.process} hears what it never asked")
        found.extend(_ended(*pending.pop(line.process), place, line, keep_failed))
    found.extend(_operation(line, None, called, None) for called, line in pending.values())
    return sorted(found, key=lambda operation: operation.called)


def _ended(
    called: int, call: Line, place: int, line: Line, keep_failed: frozenset[str]
) -> Iterator[Operation]:
    if line.kind is Kind.OK:
        yield _operation(call, line.value, called, place)
    elif line.kind is Kind.INFO:
        yield _operation(call, None, called, None)
    elif call.function in keep_failed:
        yield _operation(call, Kind.FAIL, called, place)


def _operation(call: Line, result: Any, called: int, returned: int | None) -> Operation:
    return Operation(call.process, call.function, call.value, result, called, returned, call.key)
