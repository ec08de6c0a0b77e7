"""How a frozen record becomes an array and back: fields in order, trailing fields that equal their default left out.

Every field carries its check in its metadata (`bounds.checked`). Which records exist must not be known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from quorker.core.jobs.bounds import Check, refuse

Wire: TypeAlias = list[Any]
RecordT = TypeVar("RecordT")
_NO_DEFAULT: Final = object()


class Shape(NamedTuple):
    """What the wire form of a record type looks like."""

    name: str
    names: tuple[str, ...]
    checks: tuple[Check[Any], ...]
    defaults: tuple[Any, ...]
    required: int


_shapes: Final[dict[type[Any], Shape]] = {}


def shape_of(record_type: type[Any]) -> Shape:
    shape = _shapes.get(record_type)
    if shape is None:
        shape = _shapes[record_type] = _shape(record_type)
    return shape


def _shape(record_type: type[Any]) -> Shape:
    found = fields(record_type)
    defaults = tuple(_NO_DEFAULT if each.default is MISSING else each.default for each in found)
    return Shape(
        record_type.__name__,
        tuple(each.name for each in found),
        tuple(_check_of(each) for each in found),
        defaults,
        sum(default is _NO_DEFAULT for default in defaults),
    )


def _check_of(of: Field[Any]) -> Check[Any]:
    return cast("Check[Any]", of.metadata["check"])


def from_wire(record_type: type[RecordT], values: Sequence[Any]) -> RecordT:
    """A checked record out of its fields. Raises `BadCommand`."""
    shape = shape_of(record_type)
    if not shape.required <= len(values) <= len(shape.checks):
        refuse(shape.name, f"has {len(values)} fields, not {shape.required} to {len(shape.checks)}")
    return record_type(*[check(value) for check, value in zip(shape.checks, values, strict=False)])


def to_wire(record: object) -> Wire:
    """The fields of a record as a plain list, without the trailing ones that equal their default."""
    shape = shape_of(type(record))
    values = [getattr(record, name) for name in shape.names]
    size = len(values)
    while size and values[size - 1] == shape.defaults[size - 1]:
        size -= 1
    return [_plain(value) for value in values[:size]]


def _plain(value: object) -> object:
    if type(value) is tuple:
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    if not is_dataclass(value):
        return value
    number = getattr(value, "OP", None) or getattr(value, "KIND", None)
    return to_wire(value) if number is None else [number, *to_wire(value)]
