"""Arguments and results as bytes, with errors that name the place inside the value. What must not live here: tasks,
connections, or any way to turn bytes into code (payloads are msgpack data and stay data)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, cast

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.app.errors import BadPayload
from quorker.core.errors import ProtocolError
from quorker.core.wire.records import list_of

_codec: Any = msgpack
PAYLOAD_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 100

_NOTHING: Final[bytes] = _codec.packb(None)
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
# A float64 whose exponent is all ones is a NaN or an infinity; only then is the slow walk worth it.
_SUSPECT_FLOAT: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
_ADVICE: Final = {
    "datetime": "pass value.isoformat() or value.timestamp()",
    "date": "pass value.isoformat()",
    "time": "pass value.isoformat()",
    "timedelta": "pass value.total_seconds()",
    "Decimal": "pass str(value)",
    "UUID": "pass str(value)",
    "set": "pass sorted(value) or list(value)",
    "frozenset": "pass sorted(value) or list(value)",
    "generator": "pass list(value)",
    "complex": "pass [value.real, value.imag]",
}


def encode_call(args: Sequence[object], kwargs: Mapping[str, object], *, bytes_max: int) -> bytes:
    """The bytes of one call. Raises `BadPayload` naming the argument, the place inside it and what to pass instead."""
    packed = _pack([list(args), dict(kwargs)])
    if packed is None:
        _refuse(_first_fault_of_call(args, kwargs), "the arguments", "cannot be encoded")
    if len(packed) > bytes_max:
        raise BadPayload(
            f"the arguments are {len(packed)} bytes, at most {bytes_max} (App(payload_bytes_max=...)): every member "
            f"keeps them in memory and on disk; store large data elsewhere and pass its key"
        )
    return packed


def decode_call(data: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of one call. Raises `BadPayload` for bytes that `encode_call` cannot have made."""
    try:
        args, kwargs = list_of(_unpack(data, "the arguments of this job"), 2)
        return list_of(args), _keywords(kwargs)
    except ProtocolError:
        raise BadPayload(
            "the arguments of this job are not [positional, keyword]: another program wrote them"
        ) from None


def call_values(row: Mapping[str, Any]) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """The arguments in a row of the store (`args`, `args_size`); None for both where they were cut or are no call."""
    if row["args_size"] > len(row["args"]):
        return None, None
    try:
        return decode_call(row["args"])
    except BadPayload:
        return None, None


def _keywords(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in cast("Any", value)):
        raise ProtocolError("not keyword arguments")
    keywords: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]  # checked in the line above
    return keywords


def encode_result(value: object, *, bytes_max: int) -> bytes:
    """The bytes of a task's result. Raises `BadPayload`."""
    packed = _NOTHING if value is None else _pack(value)
    if packed is None:
        _refuse(_first_fault(value, "result", 0), "result", "cannot be encoded")
    if len(packed) > bytes_max:
        raise BadPayload(
            f"the result is {len(packed)} bytes, at most {bytes_max} (App(payload_bytes_max=...)): "
            f"store it elsewhere and return its key"
        )
    return packed


def decode_result(data: bytes) -> Any:
    """The value of a result; no bytes mean None. Raises `BadPayload`."""
    return _unpack(data, "the result of this job") if data else None


def _pack(value: object) -> bytes | None:
    """The packed value, or None when something in it must be refused."""
    try:
        packed: bytes = _codec.packb(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    if _SUSPECT_FLOAT.search(packed) and _first_fault(value, "", 0):
        return None
    return packed if _is_decodable(packed) else None


def _is_decodable(packed: bytes) -> bool:
    """Packing goes deeper than unpacking, and takes keys that no dict can have; better refused here than in the worker."""
    try:
        _codec.unpackb(packed, strict_map_key=False)
    except (ValueError, TypeError, _codec.exceptions.UnpackException):
        return False
    return True


def _unpack(data: bytes, what: str) -> Any:
    try:
        return _codec.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, _codec.exceptions.UnpackException) as error:
        raise BadPayload(f"{what} cannot be decoded: {error or type(error).__name__}") from error


def _refuse(fault: str | None, where: str, why: str) -> NoReturn:
    raise BadPayload(fault or f"{where} {why}")


def _first_fault_of_call(args: Sequence[object], kwargs: Mapping[str, object]) -> str | None:
    places = [(f"args[{index}]", value) for index, value in enumerate(args)]
    places += [(name, value) for name, value in kwargs.items()]
    return next((fault for where, value in places if (fault := _first_fault(value, where, 0))), None)


def _first_fault(value: object, where: str, depth: int) -> str | None:
    """Why the first unencodable thing inside `value` is refused, with its path; None when all is well."""
    if depth > DEPTH_MAX:
        return f"{where[:60]}...: nested more than {DEPTH_MAX} levels deep (or it contains itself)"
    if isinstance(value, Mapping):
        return _first_fault_of_mapping(cast("Any", value), where, depth)
    if isinstance(value, (list, tuple)):
        items = enumerate(cast("Sequence[object]", value))
        return next(
            (why for i, item in items if (why := _first_fault(item, f"{where}[{i}]", depth + 1))), None
        )
    return _fault_of_scalar(value, where)


def _first_fault_of_mapping(value: Mapping[Any, Any], where: str, depth: int) -> str | None:
    if not isinstance(value, dict):
        return f"{where}: {type(value).__name__} is not encodable; pass dict(value)"
    for key, item in value.items():
        if not isinstance(key, (str, int, bytes, float, type(None))):
            return f"{where}: the key {key!r} is a {type(key).__name__}; keys must be text, bytes or numbers"
        fault = _fault_of_scalar(key, f"key {key!r} of {where}") or _first_fault(
            item, f"{where}[{key!r}]", depth + 1
        )
        if fault:
            return fault
    return None


def _fault_of_scalar(value: object, where: str) -> str | None:
    if value is None or isinstance(value, (bool, bytes, bytearray, memoryview)):
        return None
    if isinstance(value, int):
        fits = _INT_MIN <= value <= _INT_MAX
        return None if fits else f"{where}: the int has more than 64 bits; pass str(value)"
    if isinstance(value, float):
        return f"{where}: NaN is not encodable; pass None" if math.isnan(value) else None
    if isinstance(value, str):
        return _fault_of_text(value, where)
    if isinstance(value, _codec.Timestamp | _codec.ExtType):
        return None
    return f"{where}: {type(value).__name__} is not encodable; {_advice(value)}"


def _fault_of_text(value: str, where: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"{where}: a lone surrogate at index {error.start} is not valid text; pass bytes"
    return None


def _advice(value: object) -> str:
    name = type(value).__name__
    if name in _ADVICE:
        return f"use {_ADVICE[name].removeprefix('pass ')}"
    if hasattr(value, "__dataclass_fields__"):
        return "use dataclasses.asdict(value)"
    if hasattr(value, "__fspath__"):
        return "use str(value)"
    return "use plain data (None, bool, int, float, str, bytes, list, dict), or pass a key and load the object in the task"
