"""A cluster of one is durable too: killed at 20 random moments, it loses nothing. `make kill-test` takes 200."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from quorker.jepsen_like.kill_single import Asked, judge_calls, kill_single

KILLS = 20


@pytest.mark.trio
async def test_a_single_member_that_is_killed_again_and_again_loses_nothing() -> None:
    verdict = await kill_single(KILLS, secrets.randbelow(2**32), print)
    assert verdict.is_good, verdict
    assert verdict.kills == KILLS
    assert verdict.jobs.acknowledged > KILLS


def record(*tags: str) -> dict[str, Any]:
    return {"tags": list(tags)}


def test_calls_that_applied_once_are_good() -> None:
    assert judge_calls(Asked({"A": 1}, unknown={2}), {"A": record("1"), "B": record("2")}) == (0, 0)
    assert judge_calls(Asked({"A": 1}, unknown={2}, refused={3}), {"A": record("1")}) == (0, 0)


def test_a_call_that_made_two_jobs_is_seen() -> None:
    assert judge_calls(Asked({"A": 1}), {"A": record("1"), "B": record("1")}) == (1, 0)


def test_a_job_of_a_refused_call_or_of_nobody_is_seen() -> None:
    assert judge_calls(Asked(refused={3}), {"A": record("3")}) == (0, 1)
    assert judge_calls(Asked(), {"A": record("9")}) == (0, 1)


def test_an_answer_that_names_the_job_of_another_call_is_seen() -> None:
    assert judge_calls(Asked({"A": 1, "B": 2}), {"A": record("2"), "B": record("1")}) == (0, 2)
