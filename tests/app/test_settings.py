"""Options as users write them: durations, retry rules, options of a call, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from quorker.app.failure import type_names
from quorker.app.settings import NO_RETRY, Retry, instant_ms, may_retry, milliseconds, read_options
from quorker.core.errors import InvalidInput
from quorker.core.jobs.commands import RetryPolicy


def test_durations_are_seconds_or_timedeltas() -> None:
    assert milliseconds(1.5, "delay") == 1500
    assert milliseconds(timedelta(minutes=2), "delay") == 120_000


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "10", 2**40])
def test_other_durations_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="delay"):
        milliseconds(value, "delay")


def test_an_instant_needs_a_time_zone() -> None:
    at = datetime(2027, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert instant_ms(at, "at") == instant_ms(datetime(2027, 1, 1, 10, tzinfo=UTC), "at")
    with pytest.raises(InvalidInput, match="no time zone"):
        instant_ms(datetime(2027, 1, 1), "at")


def test_retry_becomes_a_policy() -> None:
    assert Retry().policy() == RetryPolicy()
    assert NO_RETRY.policy() == RetryPolicy(0)
    assert Retry(max=8, base=2, cap=timedelta(hours=1)).policy() == RetryPolicy(8, (), 2000, 3_600_000)
    assert Retry(max=3, delays=[1, 5], on_exceed="delete").policy() == RetryPolicy(
        3, (1000, 5000), 0, 0, "delete"
    )


@pytest.mark.parametrize(
    "retry", [Retry(base=1, delays=[1]), Retry(cap=5), Retry(max=-1), Retry(max=1001), Retry(delays=[-1])]
)
def test_a_retry_that_makes_no_sense_is_refused(retry: Retry) -> None:
    with pytest.raises(InvalidInput, match="Retry"):
        retry.policy()


def test_on_and_not_on_match_subclasses_by_name() -> None:
    headers = Retry(on=[OSError, "requests.exceptions.Timeout"]).headers()
    assert may_retry(headers, type_names(ConnectionResetError))
    assert may_retry(headers, ("requests.exceptions.Timeout", "Exception"))
    assert not may_retry(headers, type_names(ValueError))
    headers = Retry(not_on=[LookupError]).headers()
    assert not may_retry(headers, type_names(KeyError))
    assert may_retry(headers, type_names(OSError))
    assert may_retry((), type_names(KeyError))


def test_both_rules_must_agree() -> None:
    headers = Retry(on=[OSError], not_on=[FileNotFoundError]).headers()
    assert may_retry(headers, type_names(PermissionError))
    assert not may_retry(headers, type_names(FileNotFoundError))


def test_options_left_out_change_nothing() -> None:
    assert read_options({"queue": None, "delay": None}) == {}


def test_delay_and_at_replace_each_other() -> None:
    assert read_options({"delay": 2}) == {"delay_ms": 2000, "at_wt": None}
    assert read_options({"at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}) == {"at_wt": 1000, "delay_ms": 0}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queue", "Mail"),
        ("queue", ""),
        ("priority", 101),
        ("priority", 1.5),
        ("unique", ""),
        ("after", "not an id"),
        ("on", "never"),
        ("tags", ["x" * 65]),
        ("timeout", -1),
    ],
)
def test_options_out_of_bounds_are_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=option):
        read_options({option: value})
