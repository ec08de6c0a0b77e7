"""The retry curve: Hangfire's ranges, the same draw on every member, and the other two policies."""

from __future__ import annotations

import pytest

from quorker.core.jobs.bounds import DURATION_MAX
from quorker.core.jobs.new_job import RetryPolicy
from quorker.core.jobs.retry import hangfire_delay_s, retry_delay_ms

RANGES = [
    (1, 15, 44), (2, 16, 74), (3, 31, 118), (4, 96, 212), (5, 271, 416),
    (6, 640, 814), (7, 1311, 1514), (8, 2416, 2648), (9, 4111, 4372), (10, 6576, 6866),
]  # fmt: skip


@pytest.mark.parametrize(("failures", "low", "high"), RANGES)
def test_hangfires_curve_stays_in_its_ranges_and_uses_them(failures: int, low: int, high: int) -> None:
    drawn = {hangfire_delay_s(f"job{number}", failures) for number in range(600)}
    assert min(drawn) == low
    assert max(drawn) == high
    assert len(drawn) == 30


def test_the_draw_depends_on_job_and_attempt_alone() -> None:
    assert hangfire_delay_s("0000000006001", 1) == hangfire_delay_s("0000000006001", 1)
    assert [hangfire_delay_s("0000000006001", failures) for failures in (1, 2, 3)] == [44, 40, 64]


def test_without_a_policy_there_are_ten_retries() -> None:
    assert retry_delay_ms(None, "j", 10) is not None
    assert retry_delay_ms(None, "j", 11) is None
    assert retry_delay_ms(RetryPolicy(0), "j", 1) is None


def test_a_list_of_delays_repeats_its_last() -> None:
    policy = RetryPolicy(5, (10, 0, 30))
    assert [retry_delay_ms(policy, "j", failures) for failures in range(1, 7)] == [10, 0, 30, 30, 30, None]


def test_a_base_doubles_up_to_its_cap() -> None:
    policy = RetryPolicy(1000, (), 100, 1000)
    assert [retry_delay_ms(policy, "j", failures) for failures in range(1, 7)] == [
        100,
        200,
        400,
        800,
        1000,
        1000,
    ]
    assert retry_delay_ms(policy, "j", 1000) == 1000


def test_no_delay_is_longer_than_the_longest_duration() -> None:
    assert retry_delay_ms(RetryPolicy(1000), "j", 1000) == DURATION_MAX
    assert retry_delay_ms(RetryPolicy(1000, (), DURATION_MAX), "j", 1000) == DURATION_MAX
