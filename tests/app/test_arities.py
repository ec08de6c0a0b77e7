"""Which calls need no question to the signature: only such as it would accept."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from quorker.app.tasks import arities


def nothing() -> None: ...


def two(x: int, y: int) -> None: ...


def some(x: int, y: int = 0, *, z: int = 0) -> None: ...


def positional(x: int, /, y: int = 0) -> None: ...


def many(x: int, *rest: int, **more: int) -> None: ...


def keyword(x: int, *, z: int) -> None: ...


SAMPLES: list[tuple[Callable[..., Any], list[int]]] = [
    (nothing, [0]),
    (two, [2]),
    (some, [1, 2]),
    (positional, [1, 2]),
    (many, [1]),
    (keyword, []),
]


@pytest.mark.parametrize(("function", "sure"), SAMPLES, ids=lambda each: getattr(each, "__name__", None))
def test_what_is_sure_to_be_a_call_binds(function: Callable[..., Any], sure: list[int]) -> None:
    signature = inspect.signature(function)
    assert list(arities(signature)) == sure
    for count in sure:
        signature.bind(*range(count))
