"""The outside of a group of commands: `[session, acknowledged below, [[sequence, command], ...]]`, read without
decoding what is inside.

Commands are skipped, not unpacked, so that a group costs the same whatever a client put into it. What commands mean
is `quorker.core.jobs`.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.errors import ProtocolError
from quorker.core.wire.records import INT_MAX, REFUSALS

_codec: Any = msgpack
_INT_BYTES_MAX: Final = 9


def group_names(group: bytes) -> tuple[int, tuple[int, ...]]:
    """(session, sequence numbers). Raises `ProtocolError` for anything that is not a group from end to end."""
    reader = _codec.Unpacker(None, max_buffer_size=max(1, len(group)), strict_map_key=False)
    reader.feed(group)
    try:
        session, seqs = _names(reader, group)
        end: int = reader.tell()
    except REFUSALS as error:
        raise ProtocolError(f"not a group of commands: {str(error) or type(error).__name__}") from None
    if end != len(group):
        raise ProtocolError("not a group of commands: bytes follow it")
    return session, seqs


def _names(reader: Any, group: bytes) -> tuple[int, tuple[int, ...]]:
    _enter(reader, 3)
    session = _number(reader, group)
    _number(reader, group)
    count: int = reader.read_array_header()
    seqs: list[int] = []
    for _ in range(count):
        _enter(reader, 2)
        seqs.append(_number(reader, group))
        reader.skip()
    return session, tuple(seqs)


def _enter(reader: Any, length: int) -> None:
    if reader.read_array_header() != length:
        raise ValueError("wrong number of fields")


def _number(reader: Any, group: bytes) -> int:
    """Looks at a value only when it is short enough to be a number."""
    start: int = reader.tell()
    reader.skip()
    end: int = reader.tell()
    value: Any = _codec.unpackb(group[start:end]) if end - start <= _INT_BYTES_MAX else None
    if type(value) is not int or not 0 <= value <= INT_MAX:
        raise ValueError("a session or sequence is not a number in range")
    return value
