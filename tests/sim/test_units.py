"""Numbers as people write them: exact both ways, and refused with a reason when they cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.sim.cases.units import (
    CHANCE,
    FRACTION,
    MILLISECONDS,
    NODES,
    WHOLE,
    BadValue,
    Unit,
    duration_ns,
    duration_text,
)

WIDE = st.integers(-(1 << 62), 1 << 62)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1.2s", 1_200_000_000), ("400ms", 400_000_000), ("250us", 250_000), ("7ns", 7), ("10m", 600_000_000_000),
        ("1h", 3_600_000_000_000), ("0s", 0), ("-30s", -30_000_000_000), ("0.000001ms", 1),
    ],
)  # fmt: skip
def test_a_duration_is_read_exactly(text: str, ns: int) -> None:
    assert duration_ns(text) == ns


@pytest.mark.parametrize("value", ["", "5", "5 s", "s", "1.s", "1e3ms", "5sec", 5, 1.5, None, True])
def test_what_is_no_duration_says_how_to_write_one(value: object) -> None:
    with pytest.raises(BadValue, match=r"write a duration such as"):
        duration_ns(value)


def test_a_duration_finer_than_its_step_is_refused() -> None:
    with pytest.raises(BadValue, match=r"finer than the smallest step of 1ms"):
        MILLISECONDS.read("1500us")
    with pytest.raises(BadValue, match=r"finer than the smallest step of 1ns"):
        duration_ns("0.0000001ms")


def test_a_duration_is_written_in_the_largest_unit_that_fits() -> None:
    written = [duration_text(ns) for ns in (0, 1, 1_500, 60_000_000, 1_200_000_000, -600_000_000_000)]
    assert written == ["0s", "1ns", "1.5us", "60ms", "1.2s", "-600s"]


@pytest.mark.parametrize("unit", [MILLISECONDS, WHOLE], ids=["ms", "whole"])
@given(number=WIDE)
def test_what_is_written_is_read_back(unit: Unit, number: int) -> None:
    assert unit.read(unit.write(number)) == number


@given(st.integers(-5_000_000, 5_000_000))
def test_every_millionth_is_read_back(parts: int) -> None:
    assert FRACTION.read(FRACTION.write(parts)) == parts


@given(st.integers(0, (1 << 60) - 1))
def test_every_group_of_nodes_is_read_back(group: int) -> None:
    assert NODES.read(NODES.write(group)) == group


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", None, True, float("nan"), float("inf"), 1e-7])
def test_what_is_no_chance_is_refused(value: object) -> None:
    with pytest.raises(BadValue):
        CHANCE.read(value)


@pytest.mark.parametrize("value", [3, "1,2", [1, "2"], [-1], [64], [True]])
def test_what_is_no_group_of_nodes_is_refused(value: object) -> None:
    with pytest.raises(BadValue, match=r"such as \[1, 2\]"):
        NODES.read(value)
