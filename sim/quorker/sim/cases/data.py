"""A case as plain tables of named values, and back: what scenario files and replay tokens are made of.

The dataclasses and enumerations of `quorker.sim.cases.case` are the schema: a new knob or fault appears by itself. Values
that are the default are left out. The forms differ only in how numbers are written: `READABLE` for people, `RAW` as the
case holds them. Files are for `scenario`, tokens for `replay`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import ClockKnobs
from quorker.sim.cases.options import unit_of_amount
from quorker.sim.cases.units import (
    CHANCE,
    FRACTION,
    MILLISECONDS,
    NANOSECONDS,
    WHOLE,
    BadValue,
    Unit,
    is_list,
)
from quorker.sim.world.network import LATENCIES

T = TypeVar("T")
Table: TypeAlias = dict[str, Any]

UNITS: Final = {"_ns": NANOSECONDS, "_ms": MILLISECONDS, "_ppm": CHANCE}
CHOICES: Final = {"latency": sorted(LATENCIES)}
"""Texts that are not free."""
SIGNED_RATES: Final = (ClockKnobs,)
"""Whose fractions may be negative, or above 1."""


@dataclass(frozen=True, slots=True)
class Form:
    """How numbers are written."""

    readable: bool


READABLE: Final = Form(readable=True)
RAW: Final = Form(readable=False)


@dataclass(frozen=True, slots=True)
class Slot:
    """One field of a dataclass: `attribute` of the object, `key` in a table."""

    attribute: str
    key: str
    kind: Any
    unit: Unit
    default: Any  # MISSING where a value must be given


_SCHEMAS: Final[dict[tuple[type[Any], Form], tuple[Slot, ...]]] = {}


def slots_of(cls: type[Any], form: Form = READABLE) -> tuple[Slot, ...]:
    """The schema of one dataclass."""
    known = _SCHEMAS.get((cls, form))
    if known is None:
        hints = get_type_hints(cls)
        known = tuple(_slot(cls, each, hints[each.name], form) for each in fields(cls))
        _SCHEMAS[cls, form] = known
    return known


def _slot(cls: type[Any], each: Field[Any], kind: Any, form: Form) -> Slot:
    default = each.default if each.default_factory is MISSING else each.default_factory()
    key, unit = each.name, WHOLE
    for suffix, meaning in UNITS.items():
        if form.readable and kind is int and key.endswith(suffix):
            key, unit = key.removesuffix(suffix), meaning
    if unit is CHANCE and cls in SIGNED_RATES:
        unit = FRACTION
    return Slot(each.name, key, kind, unit, default)


def _with_unit_of_amount(slot: Slot, kind: object, form: Form) -> Unit:
    if form.readable and slot.attribute == "amount":
        return unit_of_amount(kind) or slot.unit
    return slot.unit


# ---------------------------------------------------------------------- to tables


def to_table(item: Any, form: Form = READABLE) -> Table:
    """The object as a table, without what is the default."""
    table: Table = {}
    kind = getattr(item, "kind", None)
    for slot in slots_of(item.__class__, form):
        value = getattr(item, slot.attribute)
        if value != slot.default:
            table[slot.key] = _write(value, _with_unit_of_amount(slot, kind, form), form)
    return table


def _is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(value, tuple)


def _write(value: Any, unit: Unit, form: Form) -> Any:
    if _is_tuple(value):
        return [_write(each, unit, form) for each in value]
    if is_dataclass(value):
        return to_table(value, form)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool | str):
        return value
    return unit.write(value)


# ---------------------------------------------------------------------- from tables


def from_table(cls: type[T], table: object, where: str, form: Form = READABLE) -> T:
    """The object that the table describes. Raises `InvalidInput`, naming the key below `where`."""
    if not isinstance(table, Mapping):
        raise InvalidInput(f"{where}: {table!r} is no table")
    given = cast("Mapping[str, Any]", table)
    slots = {slot.key: slot for slot in slots_of(cls, form)}
    for key in given:
        if key not in slots:
            raise InvalidInput(f"{where}: unknown key {key!r}; allowed: {', '.join(slots)}")
    values: dict[str, Any] = {}
    for slot in slots.values():
        if slot.key in given:
            unit = _with_unit_of_amount(slot, values.get("kind"), form)
            values[slot.attribute] = _read(slot.kind, given[slot.key], f"{where}.{slot.key}", unit, form)
        elif slot.default is MISSING:
            raise InvalidInput(f"{where}: {slot.key!r} is missing")
    return cls(**values)


def _read(kind: Any, value: Any, where: str, unit: Unit, form: Form) -> Any:
    if get_origin(kind) is tuple:
        return tuple(_read_each(get_args(kind)[0], value, where, unit, form))
    if get_origin(kind) is types.UnionType:
        kind = next(each for each in get_args(kind) if each is not types.NoneType)
    if is_dataclass(kind) and isinstance(kind, type):
        return from_table(kind, value, where, form)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _read_choice(kind, value, where)
    if kind in (bool, str):
        return _read_simple(kind, value, where)
    return _read_number(unit, value, where)


def _read_each(kind: Any, value: Any, where: str, unit: Unit, form: Form) -> Iterator[Any]:
    if not is_list(value):
        raise InvalidInput(f"{where}: {value!r} is no list")
    for number, item in enumerate(value):
        yield _read(kind, item, f"{where}[{number}]", unit, form)


def _read_choice(kind: type[Enum], value: object, where: str) -> Enum:
    try:
        return kind(value)
    except ValueError:
        raise InvalidInput(_not_among(where, value, [str(each.value) for each in kind])) from None


def _read_simple(kind: type[Any], value: object, where: str) -> Any:
    if not isinstance(value, kind):
        expected = "true or false" if kind is bool else "a text"
        raise InvalidInput(f"{where}: {value!r} is not {expected}")
    allowed = CHOICES.get(where.rpartition(".")[2])
    if allowed is not None and value not in allowed:
        raise InvalidInput(_not_among(where, value, allowed))
    return value


def _read_number(unit: Unit, value: object, where: str) -> int:
    try:
        return unit.read(value)
    except BadValue as wrong:
        raise InvalidInput(f"{where}: {value!r} {wrong}") from None


def _not_among(where: str, value: object, allowed: list[str]) -> str:
    return f"{where}: {value!r} is not allowed; one of: {', '.join(allowed)}"
