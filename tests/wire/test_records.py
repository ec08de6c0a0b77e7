"""Strict msgpack: what the library accepts by default and we do not, and how little a bomb may cost."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import InvalidInput, ProtocolError
from quorker.core.wire.records import DEPTH_MAX, ELEMENTS_MAX, list_of, pack, unpack, unpack_flat
from quorker.sim.bare.wire_corpus import BOMBS

MSGPACK: Any = msgpack

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.binary(max_size=10),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@given(VALUES)
def test_round_trip(value: object) -> None:
    assert unpack(pack(value)) == value


@given(st.lists(SCALARS, max_size=20))
def test_flat_round_trip(value: list[object]) -> None:
    assert unpack_flat(pack(value)) == value


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:6].hex())
def test_what_the_library_would_accept_is_refused(bomb: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(bomb)
    with pytest.raises(ProtocolError):
        unpack_flat(bomb)


@pytest.mark.parametrize(
    "value",
    [MSGPACK.ExtType(5, b"x"), MSGPACK.Timestamp(1, 0), {1: 2}, {b"bytes": 1}, float("nan"), float("inf")],
    ids=repr,
)
def test_values_outside_the_protocol_are_refused(value: object) -> None:
    with pytest.raises(ProtocolError):
        unpack(MSGPACK.packb([value]))


def test_infinities_pass_where_they_may() -> None:
    assert unpack(pack([float("-inf")]), finite=False) == [float("-inf")]


@pytest.mark.parametrize(
    "value", [object(), 2**64, {1, 2}, nested(2000)], ids=["object", "int", "set", "deep"]
)
def test_what_cannot_be_encoded_is_the_callers_mistake(value: object) -> None:
    with pytest.raises(InvalidInput):
        pack(value)


@pytest.mark.parametrize("depth", [DEPTH_MAX - 1, DEPTH_MAX])
def test_levels_up_to_the_limit(depth: int) -> None:
    assert unpack(pack(nested(depth))) == nested(depth)


def test_one_level_too_many() -> None:
    with pytest.raises(ProtocolError, match="more than 32 levels"):
        unpack(pack(nested(DEPTH_MAX + 1)))


@pytest.mark.parametrize("elements", [ELEMENTS_MAX - 1, ELEMENTS_MAX])
def test_elements_up_to_the_limit(elements: int) -> None:
    half = elements // 2
    assert len(unpack(pack([0] * elements))) == elements
    assert len(unpack(pack([[0] * half, [0] * (elements - half - 2)]))) == 2
    assert len(unpack_flat(pack([0] * elements))) == elements


@pytest.mark.parametrize(
    "value",
    [[0] * (ELEMENTS_MAX + 1), [[0] * 5000, [0] * 4999], {str(n): n for n in range(ELEMENTS_MAX + 1)}],
)
def test_one_element_too_many(value: object) -> None:
    with pytest.raises(ProtocolError):
        unpack(pack(value))


@pytest.mark.parametrize(
    "data", [pack([1, [2]]), pack([[1], 2]), b"\x91\x80", pack({}), pack(1), pack([1]) + b"\x01"]
)
def test_a_flat_record_is_one_array_of_scalars(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_flat(data)


def test_a_bomb_of_a_megabyte_is_stopped_early() -> None:
    """Counted, not timed: the hook that counts elements is called at most once per element allowed."""
    with pytest.raises(ProtocolError):
        unpack(b"\xdc\x27\x10" + b"\xdc\x27\x10" * 100 + b"\x90" * (1 << 20))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_protocol_error(data: bytes) -> None:
    for decode in (unpack, unpack_flat):
        with suppress(ProtocolError):
            decode(data)


def test_a_list_of_the_right_length() -> None:
    assert list_of([1, 2], 2) == [1, 2]
    with pytest.raises(ProtocolError, match="expected 3 fields, got 2"):
        list_of([1, 2], 3)
    with pytest.raises(ProtocolError, match="expected a list, got str"):
        list_of("no")
