"""The oracle of ages rejects hand-made answers that are older than they say, and accepts what no clock can deny."""

from __future__ import annotations

import re

import pytest

from quorker.core.freshness import UNKNOWN
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.mutants.cases import asking
from quorker.sim.oracles.ages import Ages
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.kernel import MS

TOO_NEW = re.escape("as new as it says [C4]")


@pytest.fixture
def ages() -> Ages:
    """Entry 5 was applied at 100 ms, and 6 at 200 ms; no clock is more than 10 % too slow."""
    ages = Ages(slow_ppm=100_000)
    for index, at_ms in ((5, 100), (6, 200), (5, 250)):
        ages.on_applied(index, at_ms * MS)
    return ages


def test_an_answer_that_is_older_than_it_says(ages: Ages) -> None:
    with pytest.raises(
        Violation, match=f"{TOO_NEW}: n1 answers as of 5, 80 ms old by its clock; 6 was applied 100"
    ):
        ages.on_answer(1, 5, 80, 300 * MS)


def test_an_answer_of_a_leader_that_lost_its_office_long_ago(ages: Ages) -> None:
    with pytest.raises(Violation, match=TOO_NEW):
        ages.on_answer(1, 4, 0, 300 * MS)


def test_a_negative_age_is_none(ages: Ages) -> None:
    with pytest.raises(Violation, match=TOO_NEW):
        ages.on_answer(1, 6, UNKNOWN - 1, 300 * MS)


@pytest.mark.parametrize(
    ("index", "age_ms", "now_ms"),
    [
        (6, 0, 300),  # it has everything
        (5, 0, 200),  # what others came to know in this moment
        (5, 100, 300),
        (5, 90, 300),  # 100 ms by true time, on a clock that is 10 % too slow
        (0, UNKNOWN, 300),  # nothing was promised
        (0, 0, 99),
    ],
)
def test_what_is_as_new_as_it_says(ages: Ages, index: int, age_ms: int, now_ms: int) -> None:
    ages.on_answer(1, index, age_ms, now_ms * MS)
    assert ages.told == (age_ms != UNKNOWN)


def test_members_know_how_old_they_are_under_faults_and_in_ordinary_runs() -> None:
    told = [run_case(case).sometimes for case in (asking(0), *(expand(seed, JOBS) for seed in range(6)))]
    assert sum("answer told its age" in each for each in told) >= 2
