"""The overlap of two holders' beliefs: none with log time, under its formula with submitter time."""

from __future__ import annotations

import pytest

from quorker.core.jobs.store import JobStore
from quorker.core.session import LEASE_SHARE
from quorker.sim.experiments.lease_skew import (
    LEASE_MS,
    LeaseTime,
    bound_ms,
    measure,
    measure_one,
    submitter_time,
)

ROUNDING_MS = 2


@pytest.mark.parametrize("skew_ms", [0, 2_000])
def test_with_log_time_no_wall_clock_makes_beliefs_overlap(skew_ms: int) -> None:
    found = measure_one(LeaseTime.LOG, skew_ms, seed=1)
    assert found.overlap_ms == 0
    assert found.handovers > 10, "jobs went from hand to hand, so they could have overlapped"


@pytest.mark.parametrize("skew_ms", [400, 700])
def test_with_submitter_time_the_overlap_stays_under_its_formula_and_comes_near_it(skew_ms: int) -> None:
    overlaps = [found.overlap_ms for found in measure(LeaseTime.SUBMITTER, [skew_ms], range(2))]
    bound = bound_ms(LeaseTime.SUBMITTER, skew_ms)
    assert max(overlaps) <= bound + ROUNDING_MS
    assert max(overlaps) >= bound * 0.7


def test_the_formula_is_zero_within_the_holders_margin_and_never_more_than_its_belief() -> None:
    margin = LEASE_MS * (1 - LEASE_SHARE)
    assert bound_ms(LeaseTime.SUBMITTER, int(margin)) == pytest.approx(0)
    assert bound_ms(LeaseTime.SUBMITTER, 10**6) == LEASE_MS * LEASE_SHARE
    assert bound_ms(LeaseTime.LOG, 10**6) == 0


def test_the_rules_of_time_are_as_before_after_the_experiment() -> None:
    before = JobStore._converse  # pyright: ignore[reportPrivateUsage]  # the place that the experiment changes
    with submitter_time():
        assert JobStore._converse is not before  # pyright: ignore[reportPrivateUsage]  # as above
    assert JobStore._converse is before  # pyright: ignore[reportPrivateUsage]  # as above
