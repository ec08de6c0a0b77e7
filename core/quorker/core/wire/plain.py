"""Records of the core as plain values and back: nested dataclasses, tuples and enums as lists and numbers.

For what the core writes down about itself and reads again with the same code; bytes from strangers have shapes of
their own in the other files of this package.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from quorker.core.errors import ProtocolError
from quorker.core.jobs.snapshot import SnapshotView

T = TypeVar("T")

_UNIONS = (Union, get_origin(int | None))
ENTIRE_STORE = "state"  # a view stands for a whole state machine, which is compared by itself


def to_plain(value: Any) -> Any:
    """What msgpack can pack; records become lists that begin with their name."""
    if value is None or (isinstance(value, (bool, int, str, bytes, float)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, SnapshotView):
        return ENTIRE_STORE
    if isinstance(value, dict):
        return [[to_plain(key), to_plain(each)] for key, each in value.items()]  # pyright: ignore[reportUnknownVariableType]  # of anything
    if isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]  # of anything
    return [type(value).__name__, *(to_plain(getattr(value, field.name)) for field in fields(value))]


def from_plain(wanted: type[T], plain: Any) -> T:
    """The record of this class again. Raises `ProtocolError` for what no such record became."""
    try:
        record: T = _value(wanted, plain)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ProtocolError(f"this is no {wanted.__name__}: {error}") from None
    return record


def _value(wanted: Any, plain: Any) -> Any:
    origin = get_origin(wanted)
    if origin in _UNIONS:
        return None if plain is None else _value(_other_than_none(wanted), plain)
    if origin is tuple:
        return tuple(_value(get_args(wanted)[0], each) for each in plain)
    if is_dataclass(wanted):
        return _record(wanted, plain)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return wanted(plain)
    if type(plain) is not wanted:
        raise TypeError(f"{plain!r} is no {wanted.__name__}")
    return plain


def _other_than_none(wanted: Any) -> Any:
    (only,) = (each for each in get_args(wanted) if each is not type(None))
    return only


def _record(wanted: Any, plain: Any) -> Any:
    name, *values = plain
    if name != wanted.__name__ or len(values) != len(fields(wanted)):
        raise TypeError(f"{name} with {len(values)} fields is no {wanted.__name__}")
    hints = get_type_hints(wanted)
    named = zip(fields(wanted), values, strict=True)
    return wanted(**{field.name: _value(hints[field.name], value) for field, value in named})
