"""Arguments and results as bytes: what comes back, what is refused, and that the refusal names the place."""

from __future__ import annotations

import math
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorker.app.errors import BadPayload
from quorker.app.payload import decode_call, decode_result, encode_call, encode_result

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
)
calm = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=12,
)


def encode(*args: object, **kwargs: object) -> bytes:
    return encode_call(args, kwargs, bytes_max=65536)


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(BadPayload) as caught:
        encode(*args, **kwargs)
    return str(caught.value)


@calm
@given(st.lists(values), st.dictionaries(st.text("abc", min_size=1), values))
def test_a_call_comes_back_as_it_was(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert decode_call(encode(*args, **kwargs)) == (args, kwargs)


@calm
@given(values)
def test_a_result_comes_back_as_it_was(value: Any) -> None:
    assert decode_result(encode_result(value, bytes_max=65536)) == value


def test_tuples_come_back_as_lists_and_int_keys_stay() -> None:
    assert decode_call(encode((1, 2), table={1: "a"})) == ([[1, 2]], {"table": {1: "a"}})


def test_infinities_are_fine() -> None:
    assert decode_call(encode(math.inf, -math.inf)) == ([math.inf, -math.inf], {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            datetime(2027, 1, 1, tzinfo=UTC),
            "datetime is not encodable; use value.isoformat() or value.timestamp()",
        ),
        (Decimal("1.5"), "Decimal is not encodable; use str(value)"),
        (UUID(int=1), "UUID is not encodable; use str(value)"),
        ({1, 2}, "set is not encodable; use sorted(value) or list(value)"),
        (Path("/tmp"), "PosixPath is not encodable; use str(value)"),
        (2**64, "the int has more than 64 bits; pass str(value)"),
        (-(2**63) - 1, "the int has more than 64 bits; pass str(value)"),
        (math.nan, "NaN is not encodable; pass None"),
        ("\ud800", "a lone surrogate at index 0 is not valid text; pass bytes"),
        ({(1, 2): 3}, "the key (1, 2) is a tuple; keys must be text, bytes or numbers"),
    ],
)
def test_a_refusal_names_the_place_and_the_way_out(value: object, expected: str) -> None:
    assert refusal("fine", {"when": [0, value]}) == f"args[1]['when'][1]: {expected}"
    assert refusal(1, when=value) == f"when: {expected}"


def test_a_key_that_is_no_text_is_named() -> None:
    assert refusal({"\udfff": 1}) == (
        "key '\\udfff' of args[0]: a lone surrogate at index 0 is not valid text; pass bytes"
    )


def test_an_object_is_refused_with_advice() -> None:
    assert "args[0]: object is not encodable; use plain data" in refusal(object())


def test_nesting_that_could_not_be_decoded_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(1100):
        deep = [deep]
    assert "nested more than 100 levels deep" in refusal(deep)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "or it contains itself" in refusal(loop)


def test_large_arguments_are_refused_with_the_sizes() -> None:
    with pytest.raises(BadPayload, match=r"the arguments are 1\d\d bytes, at most 100 .*pass its key"):
        encode_call((b"x" * 100,), {}, bytes_max=100)


def test_a_large_result_is_refused() -> None:
    with pytest.raises(BadPayload, match=r"the result is \d+ bytes, at most 10 .*return its key"):
        encode_result("x" * 100, bytes_max=10)


def test_a_result_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(BadPayload, match=r"result\['a'\]: set is not encodable"):
        encode_result({"a": {1}}, bytes_max=100)


def test_subclasses_are_their_plain_kind() -> None:
    assert decode_call(encode(OrderedDict([("a", 1)])))[0] == [{"a": 1}]


def test_no_result_bytes_mean_none() -> None:
    assert decode_result(b"") is None


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x90", b"\x92\x90", b"\x92\x90\x81\x01\x02", b"\x00", b"\x92\x80\x80"]
)
def test_bytes_that_are_no_call_are_refused(data: bytes) -> None:
    with pytest.raises(BadPayload):
        decode_call(data)


@calm
@given(st.binary(max_size=64))
def test_any_bytes_are_a_call_or_are_refused(data: bytes) -> None:
    try:
        args, kwargs = decode_call(data)
    except BadPayload:
        return
    assert isinstance(args, list)
    assert all(isinstance(key, str) for key in kwargs)
