"""Planted bugs: each is found within its budget, by the oracle that is meant to see it, and never without being planted.

A simulator that finds nothing may simply not look. Here run those that are found fast; `make mutants` runs all of them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from typing import Final

import pytest

from quorker.core.raft.state import RaftState
from quorker.sim.campaign.determinism import Place, interpreters
from quorker.sim.cases.expansion import JOBS, SHORT, expand
from quorker.sim.mutants import catalogue
from quorker.sim.mutants.cases import GENERATORS
from quorker.sim.mutants.catalogue import MUTANTS, fast
from quorker.sim.mutants.hunt import Finding, Verdict, digests, digests_in, hunt, left_behind
from quorker.sim.mutants.matrix import Row, is_accepted, measure, replayed
from quorker.sim.mutants.mutant import Mutant, Patch, PlantError, bug, planted
from quorker.sim.runs.cluster import run_case

FAST: Final = [mutant.name for mutant in fast()]
EQUIVALENT: Final = [mutant.name for mutant in MUTANTS.values() if mutant.equivalent]
OTHERS: Final = [python for python in interpreters() if python != sys.executable]
CLEAN_RUNS: Final = {True: 5, False: 15}  # with and without a job store
CLEAN_RUNS_OVERLOADED: Final = 2  # thousands of jobs are in the store, and looked at after each step
EQUIVALENT_RUNS: Final = {True: 3, False: 15}
REPLAYED_EVENTS_MAX: Final = (
    1_500  # what fails late, for want of progress, is left to the first of the three places
)


@cache
def found(name: str) -> Finding:
    return hunt(MUTANTS[name])


# ---------------------------------------------------------------------- the catalogue


def test_there_are_enough_of_them() -> None:
    areas = {mutant.area for mutant in MUTANTS.values()}
    assert len(MUTANTS) - len(EQUIVALENT) >= 60
    assert len(areas) == len(catalogue.AREAS)
    assert sum(len(area.MUTANTS) for area in catalogue.AREAS) == len(MUTANTS), "two bugs have one name"


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_it_says_what_is_wrong_and_who_must_see_it(mutant: Mutant) -> None:
    assert mutant.wrong.endswith(".")
    assert bool(mutant.oracles) != bool(mutant.equivalent)
    assert mutant.case in GENERATORS.values()


@pytest.mark.parametrize("name", FAST)
def test_a_planted_bug_is_found(name: str) -> None:
    finding = found(name)
    assert finding.verdict is Verdict.FOUND, finding.violation


@pytest.mark.parametrize("name", EQUIVALENT)
def test_what_is_called_equivalent_is_never_found(name: str) -> None:
    mutant = MUTANTS[name]
    runs = EQUIVALENT_RUNS[mutant.case(0).jobs is not None]
    assert hunt(mutant, runs).verdict is Verdict.SILENT


@pytest.mark.parametrize("name", GENERATORS)
def test_runs_made_for_bugs_are_clean_without_them(name: str) -> None:
    generate = GENERATORS[name]
    runs = CLEAN_RUNS_OVERLOADED if name == "overloaded" else CLEAN_RUNS[generate(0).jobs is not None]
    for seed in range(runs):
        assert run_case(generate(seed)).violation is None, seed


# ---------------------------------------------------------------------- planting


def test_nothing_of_a_bug_stays_behind() -> None:
    cases = (expand(3, SHORT), expand(3, JOBS))
    before = [run_case(case).digest for case in cases]
    for mutant in MUTANTS.values():
        with planted(mutant):
            pass
    assert [run_case(case).digest for case in cases] == before


def test_a_bug_ends_with_its_block_even_when_that_raises() -> None:
    hold = RaftState.hold

    def fail_under_it() -> None:
        with planted(MUTANTS["acknowledge-before-fsync"]):
            assert RaftState.hold is not hold
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fail_under_it()
    assert RaftState.hold is hold


@bug("It is planted where nothing is.", oracles=("none",))
def misplaced(patch: Patch) -> None:
    patch.replace(RaftState, "hold", None)
    patch.replace(RaftState, "held", None)


@bug("It is planted in a row that is not there.", oracles=("none",))
def without_a_row(patch: Patch) -> None:
    patch.replace_item(GENERATORS, "tall", None)


@pytest.mark.parametrize(("mutant", "told"), [(misplaced, "has no held"), (without_a_row, "no row tall")])
def test_a_place_that_has_moved_is_reported(mutant: Mutant, told: str) -> None:
    hold = RaftState.hold
    with pytest.raises(PlantError, match=f"{mutant.name} cannot be planted: .*{told}"), planted(mutant):
        pass
    assert RaftState.hold is hold


def test_an_unexpected_oracle_is_no_success() -> None:
    mistaken = replace(MUTANTS["acknowledge-before-fsync"], oracles=("liveness",))
    finding = hunt(mistaken)
    assert finding.verdict is Verdict.MISTAKEN
    assert not finding.is_right


def test_a_bug_that_is_not_seen_is_missed() -> None:
    harmless = replace(MUTANTS["repeated-requests-are-ignored"], equivalent="", oracles=("one vote",))
    assert hunt(harmless, 3).verdict is Verdict.MISSED


ROW: Final = Row("a-bug", "area", ("one vote",), Verdict.FOUND)


@pytest.mark.parametrize(
    ("verdicts", "accepted"),
    [
        ([Verdict.FOUND] * 9 + [Verdict.MISSED], True),
        ([Verdict.FOUND] * 8 + [Verdict.MISSED], False),
        ([Verdict.FOUND] * 19 + [Verdict.MISTAKEN], False),
        ([Verdict.SILENT] * 9 + [Verdict.MISSED], False),
        ([Verdict.SILENT], True),
    ],
)
def test_one_in_ten_may_be_missed_but_none_mistaken(verdicts: list[Verdict], accepted: bool) -> None:
    assert is_accepted([replace(ROW, verdict=verdict) for verdict in verdicts]) is accepted


# ---------------------------------------------------------------------- replaying


@cache
def runs_that_failed() -> dict[str, str]:
    """What the failing run of each fast mutant left behind, if it was not a long one."""
    reports = {name: found(name).report for name in FAST}
    return {
        name: left_behind(report)
        for name, report in reports.items()
        if report is not None and report.events <= REPLAYED_EVENTS_MAX
    }


def seeds_that_failed() -> dict[str, int]:
    return {name: report.case.seed for name in runs_that_failed() if (report := found(name).report)}


def middle_of_each_area() -> set[str]:
    """Of each area the failing run of middle length."""
    areas: dict[str, list[tuple[int, str]]] = {}
    for name in runs_that_failed():
        if report := found(name).report:
            areas.setdefault(MUTANTS[name].area, []).append((report.events, name))
    return {sorted(runs)[len(runs) // 2][1] for runs in areas.values()}


def test_a_failing_seed_replays_bit_for_bit() -> None:
    assert len(runs_that_failed()) > len(FAST) // 2
    assert digests(seeds_that_failed()) == runs_that_failed()


def test_a_failing_seed_replays_with_other_hashes() -> None:
    assert digests_in(Place(hash_seed="4711"), seeds_that_failed()) == runs_that_failed()


@pytest.mark.skipif(not OTHERS, reason="no other interpreter from 3.11 on is installed")
def test_a_failing_seed_replays_on_other_interpreters() -> None:
    """Without msgpack's C part a run costs many times as much there, so each area has one."""
    chosen = middle_of_each_area()
    assert chosen
    seeds = {name: seed for name, seed in seeds_that_failed().items() if name in chosen}
    wanted = {name: left for name, left in runs_that_failed().items() if name in chosen}
    for python in OTHERS:
        assert digests_in(Place(python), seeds) == wanted, python


def test_a_run_that_does_not_replay_is_named() -> None:
    name, place = FAST[0], Place(hash_seed="1")
    row = measure(name)
    assert replayed([row], [place], 1) == []
    (told,) = replayed([replace(row, digest="another")], [place], 1)
    assert name in told
    assert place.name in told
