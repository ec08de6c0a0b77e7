"""How people write the numbers of a case: durations as "1.2s", chances as fractions, groups of nodes as lists.

A case itself holds integers only; every conversion here is exact or refused. What the numbers mean is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeGuard

from quorker.sim.world.randomness import MILLION

_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION: Final = re.compile(r"(-?\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_SHOWN: Final = ("s", "ms", "us", "ns")
DURATION_HINT: Final = 'a duration such as "1.2s", "400ms" or "250us"'


class BadValue(Exception):
    """Why a value cannot be what it stands for, without saying where it stood."""


@dataclass(frozen=True, slots=True)
class Unit:
    """`read` takes what a person wrote, `write` gives it back; `hint` says what is allowed."""

    hint: str
    read: Callable[[Any], int]
    write: Callable[[int], Any]


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a list, of whatever a file may hold."""
    return isinstance(value, list)


def duration_ns(text: object) -> int:
    """Nanoseconds out of "1.2s", "400ms", "250us", "10m". Raises `BadValue`."""
    return _read_duration(text, 1)


def duration_text(ns: int) -> str:
    """The shortest exact way to write so many nanoseconds."""
    if not ns:
        return "0s"
    for name in _SHOWN:
        if abs(ns) >= _NS[name] or name == "ns":
            return f"{_plain(Decimal(ns) / _NS[name])}{name}"
    raise AssertionError("every whole number of nanoseconds can be written")


def _read_duration(value: object, unit_ns: int) -> int:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadValue(f"is no duration; write {DURATION_HINT}")
    units = Decimal(found[1]) * _NS[found[2]] / unit_ns
    if units != units.to_integral_value():
        raise BadValue(f"is finer than the smallest step of {duration_text(unit_ns)}")
    return int(units)


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _duration(unit_ns: int) -> Unit:
    return Unit(
        "a duration",
        lambda value: _read_duration(value, unit_ns),
        lambda number: duration_text(number * unit_ns),
    )


def _read_fraction(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue("is no fraction; write a number such as 0.02")
    parts = Decimal(repr(value)) * MILLION
    if not parts.is_finite() or parts != parts.to_integral_value():
        raise BadValue("is finer than the smallest step of 0.000001")
    return int(parts)


def _read_chance(value: object) -> int:
    parts = _read_fraction(value)
    if not 0 <= parts <= MILLION:
        raise BadValue("is no chance; write a fraction from 0 to 1")
    return parts


def _read_nodes(value: object) -> int:
    if not is_list(value):
        raise BadValue("is no group of nodes; write a list such as [1, 2]")
    group = 0
    for node in value:
        if isinstance(node, bool) or not isinstance(node, int) or not 0 <= node < 64:
            raise BadValue("is no group of nodes; write their numbers, such as [1, 2]")
        group |= 1 << node
    return group


def _write_nodes(group: int) -> list[int]:
    return [node for node in range(group.bit_length()) if group >> node & 1]


def _read_whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue("is no whole number")
    return value


WHOLE: Final = Unit("a whole number", _read_whole, lambda number: number)
NANOSECONDS: Final = _duration(1)
MICROSECONDS: Final = _duration(_NS["us"])
MILLISECONDS: Final = _duration(_NS["ms"])
FRACTION: Final = Unit("a fraction such as -0.02", _read_fraction, lambda parts: parts / MILLION)
CHANCE: Final = Unit("a fraction from 0 to 1", _read_chance, lambda parts: parts / MILLION)
NODES: Final = Unit("the nodes of one side, such as [1, 2]", _read_nodes, _write_nodes)
