"""The oracle of leases in true time rejects sessions that expire too soon for what their clients sent, and no others."""

from __future__ import annotations

import pytest

from quorker.core.jobs.outcome import Reply
from quorker.sim.cases.case import Case, ClockKnobs, Fault, FaultKind
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.lease_gaps import LeaseGaps, fastest_ppm
from quorker.sim.world.kernel import MS

DONE: Reply = (0, None)
TTL_MS = 1_100
SHORTEST_MS = 1_000  # by a clock that is a tenth too fast
ROUNDED_MS = 998


@pytest.fixture
def gaps() -> LeaseGaps:
    """A session 9 that was asked for at 100 ms, and a command of it that was sent at 500 ms and, as a copy, at 800 ms."""
    gaps = LeaseGaps(100_000)
    gaps.on_sent(0, [77], 100 * MS)
    gaps.on_opened(77, 9)
    gaps.on_sent(9, [1], 500 * MS)
    gaps.on_sent(9, [1], 800 * MS)
    return gaps


def too_soon(gaps: LeaseGaps, at_ms: int) -> None:
    with pytest.raises(Violation, match=r"^leases last \[T2\]: session 9"):
        gaps.on_expired(9, TTL_MS, at_ms * MS)


def test_a_session_lives_its_time_after_its_first_copy_of_what_was_acknowledged(gaps: LeaseGaps) -> None:
    gaps.on_reply(9, 1, DONE)
    gaps.on_expired(9, TTL_MS, (500 + SHORTEST_MS) * MS)


def test_a_session_that_expires_sooner(gaps: LeaseGaps) -> None:
    gaps.on_reply(9, 1, DONE)
    too_soon(gaps, 500 + ROUNDED_MS - 1)


def test_a_refusal_on_its_merits_renews_too(gaps: LeaseGaps) -> None:
    gaps.on_reply(9, 1, (1, "lease_lost", ""))
    too_soon(gaps, 500 + ROUNDED_MS - 1)


def test_a_session_that_was_only_opened(gaps: LeaseGaps) -> None:
    too_soon(gaps, 100 + ROUNDED_MS - 1)


@pytest.mark.parametrize("reply", [None, (1, "session_expired", "")], ids=["lost", "too late"])
def test_what_was_sent_and_not_acknowledged_promises_nothing(gaps: LeaseGaps, reply: Reply | None) -> None:
    if reply is not None:
        gaps.on_reply(9, 1, reply)
    gaps.on_expired(9, TTL_MS, (100 + SHORTEST_MS) * MS)


def test_an_acknowledgement_that_arrives_after_the_end(gaps: LeaseGaps) -> None:
    gaps.on_expired(9, TTL_MS, (100 + SHORTEST_MS) * MS)
    with pytest.raises(Violation, match=r"^leases last \[T2\]: session 9"):
        gaps.on_reply(9, 1, DONE)


def test_the_fastest_clock_is_that_of_a_member_at_any_time() -> None:
    clocks = (
        ClockKnobs(-5_000),
        ClockKnobs(3_000),
        ClockKnobs(0),
        ClockKnobs(80_000),
    )  # the last is a client's
    assert fastest_ppm(Case(seed=1, chaos_ns=MS, clocks=clocks)) == 3_000
    faster = Fault(MS, FaultKind.CLOCK_RATE, 0, amount=40_000)
    assert fastest_ppm(Case(seed=1, chaos_ns=MS, clocks=clocks, plan=(faster,))) == 40_000
    assert fastest_ppm(Case(seed=1, chaos_ns=MS, clocks=clocks[:1])) == 0
