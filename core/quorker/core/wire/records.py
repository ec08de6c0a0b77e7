"""Strict msgpack: the only way bytes from outside become values.

Stricter than the library's defaults, which accept extension types, duplicate keys (the last wins), NaN and a thousand
levels of nesting, and which spend seconds on a small bomb. What the values mean must not live here.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.errors import InvalidInput, ProtocolError

DEPTH_MAX: Final = 32
ELEMENTS_MAX: Final = 10_000
INT_MAX: Final = 2**63 - 1

_codec: Any = msgpack
# Everything that hostile bytes can make the library raise; the fuzz tests hold this list to be complete.
REFUSALS: Final = (ValueError, TypeError, OverflowError, RecursionError, _codec.UnpackException)


def pack(value: object) -> bytes:
    """Encode None, bool, int, float, str, bytes, lists, tuples and dicts. Raises `InvalidInput` for anything else."""
    try:
        packed: bytes = _codec.packb(value)
        return packed
    except REFUSALS as error:
        raise InvalidInput(f"value cannot be encoded: {error}") from None


def unpack(
    data: bytes | memoryview,
    *,
    depth_max: int = DEPTH_MAX,
    elements_max: int = ELEMENTS_MAX,
    finite: bool = True,
) -> Any:
    """Decode exactly one value. Arrays become lists.

    Raises `ProtocolError` for malformed or trailing bytes, extension types, keys that are not text or occur twice,
    more than `elements_max` elements in all or `depth_max` levels, and (unless `finite` is False) NaN and infinities.
    """
    counter = _Counter(elements_max)
    try:
        value = _codec.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            ext_hook=_refuse_extension,
            list_hook=counter.on_array,
            object_pairs_hook=counter.on_map,
            max_array_len=elements_max,
            max_map_len=elements_max,
            max_ext_len=0,
        )
    except REFUSALS as error:
        raise ProtocolError(f"not a valid record: {str(error) or type(error).__name__}") from None
    if counter.containers or (finite and isinstance(value, float)):
        _check(value, depth_max, finite)
    return value


def unpack_flat(data: bytes | memoryview, elements_max: int = ELEMENTS_MAX) -> list[Any]:
    """Decode one array of scalars (the fast way for fixed shapes). The caller checks each element's type."""
    only = _OneArray()
    try:
        value = _codec.unpackb(
            data,
            raw=False,
            ext_hook=_refuse_extension,
            list_hook=only,
            object_pairs_hook=_refuse_map,
            max_array_len=elements_max,
            max_map_len=0,
            max_ext_len=0,
        )
    except REFUSALS as error:
        raise ProtocolError(f"not a valid flat record: {str(error) or type(error).__name__}") from None
    if not only.seen:
        raise ProtocolError("not a valid flat record: not an array")
    flat: list[Any] = value
    return flat


def list_of(value: Any, length: int | None = None) -> list[Any]:
    """`value` itself if it is a list (of that length). Raises `ProtocolError`."""
    if not isinstance(value, list):
        raise ProtocolError(f"expected a list, got {type(value).__name__}")
    items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # elements are the caller's to check
    if length is not None and len(items) != length:
        raise ProtocolError(f"expected {length} fields, got {len(items)}")
    return items


class _Counter:
    """Stops a bomb while it is decoded: counts the elements of every finished container."""

    __slots__ = ("containers", "left")

    def __init__(self, elements_max: int) -> None:
        self.left = elements_max
        self.containers = 0

    def on_array(self, items: list[Any]) -> list[Any]:
        self._count(len(items))
        return items

    def on_map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._count(len(pairs))
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a key occurs twice")
        return value

    def _count(self, elements: int) -> None:
        self.containers += 1
        self.left -= elements
        if self.left < 0:
            raise ValueError("too many elements")


class _OneArray:
    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, items: list[Any]) -> list[Any]:
        if self.seen:
            raise ValueError("nested")
        self.seen = True
        return items


def _refuse_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code}")


def _refuse_map(pairs: list[tuple[Any, Any]]) -> object:
    raise ValueError("a map in a flat record")


def _check(value: Any, depth_max: int, finite: bool) -> None:
    """Levels, keys and numbers, level by level: no recursion that a peer could drive deep."""
    level: list[Any] = [value]
    for _ in range(depth_max + 1):
        inner: list[list[Any]] = []
        for item in level:
            if isinstance(item, list):
                inner.append(item)  # pyright: ignore[reportUnknownArgumentType]  # any value is fine here
            elif isinstance(item, dict):
                inner.append(_values(item))  # pyright: ignore[reportUnknownArgumentType]  # as above
            elif finite and isinstance(item, float) and not math.isfinite(item):
                raise ProtocolError(f"not a valid record: {item} is not a number")
        if not inner:
            return
        level = [item for items in inner for item in items]
    raise ProtocolError(f"not a valid record: more than {depth_max} levels")


def _values(value: dict[Any, Any]) -> list[Any]:
    if not all(isinstance(key, str) for key in value):
        raise ProtocolError("not a valid record: a key is not text")
    return list(value.values())
