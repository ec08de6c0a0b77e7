"""The bytes of a log entry: msgpack `[lt, wt, groups]`; a group is msgpack `[session, acked_below, [[seq, command], ...]]`.

`encode_*` is what members propose and tests write; `decode_*` raises `BadEntry` and nothing else for any other bytes.
Commands inside a group are left in their wire form: one bad command must not spoil its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.jobs.bounds import INSTANT_MAX, INT64_MAX, SEQUENCE_MAX

_codec: Any = msgpack


class BadEntry(ValueError):
    """Bytes of a log entry, or of a group in it, that have no meaning; they have no effect on any member."""


class Entry(NamedTuple):
    """One batch. Groups are still packed."""

    lt: int
    wt: int
    groups: list[bytes]


class Group(NamedTuple):
    """Commands of one session, (sequence, wire form) each. Replies below `acked_below` are not asked for again."""

    session: int
    acked_below: int
    commands: list[Any]


def encode_entry(lt: int, wt: int, groups: Sequence[bytes]) -> bytes:
    packed: bytes = _codec.packb((lt, wt, groups))
    return packed


def encode_group(session: int, acked_below: int, commands: Sequence[tuple[int, Any]]) -> bytes:
    packed: bytes = _codec.packb((session, acked_below, commands))
    return packed


def _unpack(data: bytes) -> Any:
    try:
        return _codec.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, RecursionError, _codec.UnpackException) as error:
        raise BadEntry(f"not msgpack: {type(error).__name__}") from None


def decode_entry(data: bytes) -> Entry:
    """The batch in the data of one entry."""
    match _unpack(data):
        case [int(lt), int(wt), [*groups]]:
            if not (0 <= lt <= INSTANT_MAX and 0 <= wt <= INSTANT_MAX):
                raise BadEntry("times out of bounds")
            if not all(type(group) is bytes for group in groups):
                raise BadEntry("a group is not bytes")
            return Entry(int(lt), int(wt), groups)
        case _:
            raise BadEntry("not [lt, wt, groups]")


def decode_group(data: bytes) -> Group:
    """The commands of one session."""
    match _unpack(data):
        case [int(session), int(acked_below), [*commands]]:
            if not (0 <= session <= INT64_MAX and 0 <= acked_below <= SEQUENCE_MAX):
                raise BadEntry("session or sequence out of bounds")
            return Group(int(session), int(acked_below), commands)
        case _:
            raise BadEntry("not [session, acked_below, commands]")


def decode_numbered(commands: list[Any]) -> list[Any]:
    """The [sequence, wire form] pairs of a group, looked at all together."""
    item: Any
    for item in commands:
        if type(item) is not list or len(item) != 2:  # pyright: ignore[reportUnknownArgumentType]  # any list
            raise BadEntry("not [sequence, command]")
        seq = item[0]  # pyright: ignore[reportUnknownVariableType]  # looked at in the next line
        if type(seq) is not int or not 0 <= seq <= SEQUENCE_MAX:  # pyright: ignore[reportUnknownArgumentType]
            raise BadEntry("a sequence out of bounds")
    return commands
