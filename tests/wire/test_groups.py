"""Groups of commands from outside: named without being decoded, whatever is inside."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import ProtocolError
from quorker.core.wire.groups import group_names
from quorker.core.wire.records import INT_MAX, pack
from quorker.sim.bare.wire_corpus import BOMBS

NUMBERS = st.integers(0, INT_MAX)


@given(
    NUMBERS, NUMBERS, st.lists(st.tuples(NUMBERS, st.lists(st.binary(max_size=300), max_size=3)), max_size=20)
)
def test_sessions_and_sequences_are_read(
    session: int, below: int, commands: list[tuple[int, list[bytes]]]
) -> None:
    group = pack([session, below, commands])
    assert group_names(group) == (session, tuple(seq for seq, _ in commands))


def test_commands_are_skipped_not_built() -> None:
    """A megabyte of empty arrays in one command is nobody's business here."""
    bomb = b"\x93\x05\x00\x91\x92\x01\xdd\x00\x0f\x00\x00" + b"\x90" * 0xF0000
    assert group_names(bomb) == (5, (1,))


NO_GROUPS: list[object] = [
    None,
    [],
    [5, 0],
    [5, 0, [], 0],
    [5, 0, None],
    [5, 0, [[1]]],
    [5, 0, [[1, [64], 0]]],
    [5, 0, [1]],
    [-1, 0, []],
    [5, -1, []],
    [INT_MAX + 1, 0, []],
    [5, 0, [[-1, [64]]]],
    [5, 0, [[True, [64]]]],
    [float("inf"), 0, []],
    [float("nan"), 0, []],
    ["5", 0, []],
    [[[]], 0, []],
    [[0] * 1000, 0, []],
    {"a": 1, "b": 2, "c": 3},
]


@pytest.mark.parametrize("value", NO_GROUPS, ids=lambda value: repr(value)[:40])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError, match="not a group of commands"):
        group_names(pack(value))


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:6].hex())
@pytest.mark.parametrize("before", [b"", b"\x93", b"\x93\x05", b"\x93\x05\x00", b"\x93\x05\x00\x91\x92"])
def test_bombs_where_numbers_belong_are_refused(before: bytes, bomb: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a group of commands"):
        group_names(before + bomb)


def test_a_group_ends_where_its_bytes_end() -> None:
    with pytest.raises(ProtocolError, match="bytes follow it"):
        group_names(b"\x93\x05\x00\x90\x00")
    with pytest.raises(ProtocolError):
        group_names(pack([5, 0, [[1, [64]]]])[:-1])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_group_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        group_names(data)
