"""Exceptions as bounded text."""

from __future__ import annotations

import pytest

from quorker.app.failure import (
    KIND_CHARS_MAX,
    MESSAGE_CHARS_MAX,
    TRACE_BYTES_MAX,
    describe,
    sole_member,
    type_names,
)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def raised(error: BaseException) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # whatever it is, with its traceback
        raise error
    return caught.value


def test_type_message_and_trace() -> None:
    failure = describe(raised(KeyError("missing")))
    assert failure.error_types == ("KeyError", "LookupError", "Exception", "BaseException")
    assert failure.message == "'missing'"
    assert failure.trace.rstrip().endswith("KeyError: 'missing'")
    assert "raise error" in failure.trace


def test_a_group_of_one_counts_as_its_member() -> None:
    inner = ValueError("x")
    assert describe(ExceptionGroup("g", [ExceptionGroup("h", [inner])])).kind == "ValueError"
    assert sole_member(ExceptionGroup("g", [inner])) is inner


def test_a_group_of_two_stays_a_group() -> None:
    assert describe(ExceptionGroup("g", [ValueError(), KeyError()])).kind == "ExceptionGroup"


def test_everything_is_bounded() -> None:
    failure = describe(raised(ValueError("ü" * 100_000)))
    assert len(failure.message) == MESSAGE_CHARS_MAX
    assert len(failure.trace.encode()) <= TRACE_BYTES_MAX
    assert "... cut ..." in failure.trace
    kind = type("K" * 500, (Exception,), {})
    assert len(describe(kind()).kind) == KIND_CHARS_MAX


def test_the_end_of_a_long_trace_is_kept() -> None:
    assert describe(raised(ValueError("a" * 100_000 + " the end"))).trace.rstrip().endswith("the end")


def test_a_broken_message_is_no_trouble() -> None:
    assert "cannot be shown: RuntimeError" in describe(raised(Unprintable())).message


def test_lone_surrogates_are_made_storable() -> None:
    failure = describe(raised(OSError("file \udcff")))
    assert failure.message == "file \\udcff"
    failure.trace.encode()


def test_names_carry_the_module() -> None:
    assert type_names(Unprintable)[0] == f"{__name__}.Unprintable"
