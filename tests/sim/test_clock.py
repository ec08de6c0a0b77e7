"""Clocks of simulated machines: a wrong rate, no jumps of the monotonic clock, a wall clock that jumps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quorker.sim.world.clock import EPOCH_MS, STOPPED_PPM, NodeClock
from quorker.sim.world.kernel import MS, SECOND

RATES = st.integers(-100_000, 100_000)


@given(rate=RATES, reading=st.integers(0, 10**7))
def test_a_timer_fires_when_its_reading_is_reached_and_not_before(rate: int, reading: int) -> None:
    clock = NodeClock(rate)
    due = clock.true_ns(reading)
    assert clock.monotonic_ms(due) >= reading
    assert due == 0 or clock.monotonic_ms(due - 1) < reading


@given(before=RATES, after=RATES, at=st.integers(0, 10**10))
def test_a_change_of_rate_is_no_jump(before: int, after: int, at: int) -> None:
    clock = NodeClock(before)
    reading = clock.monotonic_ms(at)
    clock.set_rate(at, after)
    assert clock.monotonic_ms(at) == reading


def test_a_fast_clock_gains() -> None:
    assert NodeClock(100_000).monotonic_ms(10 * SECOND) == 11_000


def test_the_wall_clock_jumps_back() -> None:
    clock = NodeClock(wall_offset_ms=500)
    assert clock.wall_ms(7 * MS) == EPOCH_MS + 507
    clock.jump_wall(-1000)
    assert clock.wall_ms(7 * MS) == EPOCH_MS - 493


def test_a_wall_clock_that_is_slewed_gains_without_a_jump() -> None:
    clock = NodeClock()
    clock.set_wall_rate(SECOND, 100_000)
    assert clock.wall_ms(SECOND) == EPOCH_MS + 1_000
    assert clock.wall_ms(2 * SECOND) == EPOCH_MS + 2_100
    clock.set_wall_rate(2 * SECOND, 0)
    assert clock.wall_ms(3 * SECOND) == EPOCH_MS + 3_100
    assert clock.monotonic_ms(3 * SECOND) == 3_000


def test_a_frozen_wall_clock_stands_still_and_stays_behind() -> None:
    clock = NodeClock()
    clock.set_wall_rate(SECOND, STOPPED_PPM)
    assert clock.wall_ms(5 * SECOND) == EPOCH_MS + 1_000
    clock.set_wall_rate(5 * SECOND, 0)
    assert clock.wall_ms(6 * SECOND) == EPOCH_MS + 2_000
