"""How old an answer may be: counted from the asking of the newest read that was confirmed and reached."""

from __future__ import annotations

from quorker.core.freshness import UNDER_WAY_MAX, UNKNOWN, Freshness

REFRESH_MS = 50


def proven(asked_ms: int, index: int) -> Freshness:
    freshness = Freshness(REFRESH_MS)
    freshness.on_asked(1, asked_ms)
    freshness.on_confirmed(1, index, reached=index)
    return freshness


def test_nothing_is_known_before_a_read_was_confirmed() -> None:
    freshness = Freshness(REFRESH_MS)
    assert freshness.age_ms(7, 100) == UNKNOWN
    freshness.on_asked(1, 100)
    assert freshness.age_ms(7, 120) == UNKNOWN
    freshness.on_failed(1)
    freshness.on_confirmed(1, 7, reached=7)
    assert freshness.age_ms(7, 120) == UNKNOWN


def test_the_age_is_counted_from_the_asking_and_goes_on() -> None:
    freshness = proven(asked_ms=100, index=7)
    assert freshness.age_ms(7, 130) == 30
    assert freshness.age_ms(9, 5_130) == 5_030


def test_a_proof_counts_when_the_state_has_reached_it_and_the_one_before_until_then() -> None:
    freshness = proven(asked_ms=100, index=7)
    freshness.on_asked(2, 200)
    freshness.on_confirmed(2, 9, reached=8)
    assert freshness.age_ms(8, 210) == 110
    assert freshness.age_ms(9, 210) == 10


def test_of_two_proofs_that_are_not_reached_the_one_that_was_stays() -> None:
    freshness = proven(asked_ms=100, index=7)
    for context, asked_ms in ((2, 200), (3, 300)):
        freshness.on_asked(context, asked_ms)
        freshness.on_confirmed(context, 9, reached=8)
    assert freshness.age_ms(8, 310) == 210
    assert freshness.age_ms(9, 310) == 10


def test_an_older_read_that_is_confirmed_late_makes_nothing_older() -> None:
    freshness = Freshness(REFRESH_MS)
    freshness.on_asked(1, 100)
    freshness.on_asked(2, 200)
    freshness.on_confirmed(2, 9, reached=9)
    freshness.on_confirmed(1, 7, reached=9)
    assert freshness.age_ms(9, 210) == 10


def test_a_read_is_due_when_the_last_one_asked_for_is_old() -> None:
    freshness = Freshness(REFRESH_MS)
    assert freshness.is_stale(100)
    freshness.on_asked(1, 100)
    assert not freshness.is_stale(149)
    assert freshness.is_stale(150)
    freshness.on_confirmed(1, 7, reached=7)
    assert not freshness.is_stale(149)
    assert freshness.is_stale(150)


def test_reads_that_nobody_confirms_do_not_pile_up() -> None:
    freshness = Freshness(REFRESH_MS)
    for context in range(UNDER_WAY_MAX + 1):
        freshness.on_asked(context, context)
    freshness.on_confirmed(0, 7, reached=7)
    assert freshness.age_ms(7, 100) == UNKNOWN
    freshness.on_confirmed(1, 7, reached=7)
    assert freshness.age_ms(7, 100) == 99
