"""How an immutable record becomes an array and back: fields in order, trailing ones that equal their default left out.

A frozen dataclass carries the check of each field in its metadata (`bounds.checked`), a named tuple is declared with
`declare`. Which records exist must not be known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from operator import attrgetter, call
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from quorker.core.jobs.bounds import Check, refuse

Wire: TypeAlias = list[Any]
RecordT = TypeVar("RecordT")
_call: Any = call
_NO_DEFAULT: Final = object()
_SCALARS: Final = frozenset({str, int, bytes, float, bool, type(None)})


class Shape(NamedTuple):
    """What the wire form of a record type looks like. `numbers`: what stands before the fields, if anything."""

    name: str
    checks: tuple[Check[Any], ...]
    defaults: tuple[Any, ...]
    required: int
    values: Callable[[Any], tuple[Any, ...]]
    numbers: tuple[int, ...]


_shapes: Final[dict[type[Any], Shape]] = {}


def declare(record_type: type[Any], *checks: Check[Any]) -> None:
    """The checks of a named tuple, one per field."""
    names: tuple[str, ...] = record_type._fields
    assert len(names) == len(checks)
    defaults = tuple(record_type._field_defaults.get(name, _NO_DEFAULT) for name in names)
    required = sum(default is _NO_DEFAULT for default in defaults)
    _shapes[record_type] = Shape(record_type.__name__, checks, defaults, required, tuple, ())


def _shape_of(record_type: type[Any]) -> Shape:
    shape = _shapes.get(record_type)
    if shape is None:
        shape = _shapes[record_type] = _dataclass_shape(record_type)
    return shape


def _dataclass_shape(record_type: type[Any]) -> Shape:
    found = fields(record_type)
    defaults = tuple(_NO_DEFAULT if each.default is MISSING else each.default for each in found)
    number = getattr(record_type, "OP", None) or getattr(record_type, "KIND", None)
    return Shape(
        record_type.__name__,
        tuple(_check_of(each) for each in found),
        defaults,
        sum(default is _NO_DEFAULT for default in defaults),
        _getter([each.name for each in found]),
        () if number is None else (number,),
    )


def _check_of(of: Field[Any]) -> Check[Any]:
    return cast("Check[Any]", of.metadata["check"])


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple([getattr(record, name) for name in names])


def from_wire(record_type: type[RecordT], values: Sequence[Any]) -> RecordT:
    """A checked record out of its fields. Raises `BadCommand`."""
    shape = _shapes.get(record_type) or _shape_of(record_type)
    checks = shape.checks
    if not shape.required <= len(values) <= len(checks):
        refuse(shape.name, f"has {len(values)} fields, not {shape.required} to {len(checks)}")
    return record_type(*map(_call, checks, values))


def to_wire(record: object) -> Wire:
    """The number of a record, if it has one, and its fields, without the trailing ones that equal their default."""
    shape = _shape_of(type(record))
    values, defaults = shape.values(record), shape.defaults
    size = len(values)
    while size and values[size - 1] == defaults[size - 1]:
        size -= 1
    return [
        *shape.numbers,
        *[value if type(value) in _SCALARS else _plain(value) for value in values[:size]],
    ]


def _plain(value: Any) -> Any:
    if type(value) is not tuple:
        return to_wire(value)
    return [_plain_item(item) for item in value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # any


def _plain_item(item: Any) -> Any:
    return item if type(item) in _SCALARS else _plain(item)
