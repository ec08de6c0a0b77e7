"""Every shipped scenario, over its seeds: it ends as it says, and it comes to what it is for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from quorker.core.errors import InvalidInput
from quorker.sim.campaign.coverage import SITUATIONS
from quorker.sim.cases.case import FaultKind
from quorker.sim.cases.scenario import Expect, Outcome, dump, judge, load, parse, shipped, unreached
from quorker.sim.mutants.catalogue import MUTANTS
from quorker.sim.mutants.trial import mutant_named, overlooked, run_with
from quorker.sim.runs.cluster import run_case

FILES = shipped()
ELSEWHERE = {
    # Rare turns that are noted, and that no campaign is held to.
    "line broken", "found no room", "truncated", "disk damaged", "disk broke", "began anew", "killed by a job",
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario_ends_as_it_says_and_comes_to_its_point(path: Path) -> None:
    scenario = load(path)
    reports = [run_case(case) for case in scenario.cases()]
    assert [wrong for report in reports if (wrong := judge(scenario, report))] == []
    assert unreached(scenario, reports) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario_is_described_and_says_what_it_is_for(path: Path) -> None:
    scenario = load(path)
    assert scenario.name == path.stem
    assert re.fullmatch(r"[a-z0-9-]+", scenario.name)
    assert len(scenario.description.split()) >= 15
    assert scenario.sometimes
    known = {*SITUATIONS, *ELSEWHERE, *(f"fault {kind}" for kind in FaultKind)}
    assert set(scenario.sometimes) <= known
    assert any(not what.startswith("fault ") for what in scenario.sometimes), (
        "a fault that struck showed nothing"
    )
    assert parse(dump(scenario)) == scenario


@pytest.mark.parametrize(
    "path", [path for path in FILES if load(path).expect.mutant], ids=lambda path: path.stem
)
def test_a_scenario_shows_the_bug_that_it_is_there_for(path: Path) -> None:
    scenario = load(path)
    mutant = mutant_named(scenario.expect.mutant, str(path))
    reports = run_with(mutant, scenario.cases())
    assert overlooked(scenario, mutant, reports) == ""


def test_some_scenarios_name_a_bug() -> None:
    assert sum(bool(load(path).expect.mutant) for path in FILES) >= 5


def test_a_scenario_that_does_not_show_its_bug_is_noticed() -> None:
    scenario = load("partition-leader")
    mutant = MUTANTS["read-without-a-round"]
    assert "must break linearizable read; broken: nothing" in overlooked(
        scenario, mutant, [run_case(scenario.case)]
    )
    named = replace(scenario, expect=Expect(Outcome.PASS, "one vote", mutant.name))
    assert overlooked(named, mutant, []).startswith("read-without-a-round must break one vote;")
    with pytest.raises(InvalidInput, match="here: there is no planted bug 'moth'"):
        mutant_named("moth", "here")


def test_there_are_scenarios_enough_for_both_kinds_of_clusters() -> None:
    cases = [load(path).case for path in FILES]
    assert len(cases) >= 40
    assert sum(case.jobs is not None for case in cases) >= 10
