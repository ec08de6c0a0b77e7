"""Draws: keyed by purpose, within their limits, and the same in every process."""

from __future__ import annotations

from quorker.sim.world.randomness import Stream, key, mix


def test_purposes_do_not_share_draws() -> None:
    one = [Stream(1, "network").below(1000) for _ in range(3)]
    assert one == [one[0]] * 3
    assert key(1, "disk", 2) != key(1, "disk", 3) != key(2, "disk", 3)


def test_known_draws_never_change() -> None:
    """A seed in a bug report must mean the same tomorrow."""
    draw = Stream(7, "test")
    assert [draw.below(100) for _ in range(5)] == [2, 46, 93, 24, 33]
    assert [draw.log_uniform(1, 1000) for _ in range(5)] == [5, 3, 1, 3, 19]
    assert mix(1) == 0x910A2DEC89025CC1


def test_draws_stay_within_their_limits() -> None:
    draw = Stream(3, "limits")
    for _ in range(2000):
        assert 0 <= draw.below(7) < 7
        assert -5 <= draw.between(-5, 9) <= 9
        assert 3 <= draw.log_uniform(3, 10_000) <= 10_000


def test_both_ends_are_reached() -> None:
    draw = Stream(4, "ends")
    assert {draw.between(0, 3) for _ in range(200)} == {0, 1, 2, 3}
    assert {draw.log_uniform(1, 3) for _ in range(200)} == {1, 2, 3}


def test_short_times_are_drawn_as_often_as_long_ones() -> None:
    draw = Stream(5, "magnitudes")
    short = sum(draw.log_uniform(1, 1 << 20) < 1 << 10 for _ in range(4000))
    assert 1600 < short < 2400


def test_a_shuffle_keeps_everything() -> None:
    draw = Stream(6, "shuffle")
    items = list(range(20))
    draw.shuffle(items)
    assert items != sorted(items) == list(range(20))
    assert len(set(draw.sample(range(20), 8))) == 8
