"""Every shipped scenario, over its seeds: it ends as it says, and it comes to what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quorker.sim.campaign.coverage import SITUATIONS
from quorker.sim.cases.case import FaultKind
from quorker.sim.cases.scenario import dump, judge, load, parse, shipped, unreached
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


def test_there_are_scenarios_enough_for_both_kinds_of_clusters() -> None:
    cases = [load(path).case for path in FILES]
    assert len(cases) >= 40
    assert sum(case.jobs is not None for case in cases) >= 10
