"""`quorker sim ls`: what there is to run, to break and to be broken."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quorker.app.cli.output import print_json, print_table, shortened
from quorker.app.cli.sim.reports import Output
from quorker.core.errors import EXIT_OK
from quorker.sim.cases.case import FaultKind, OpKind, Point
from quorker.sim.cases.expansion import PROFILES
from quorker.sim.cases.scenario import Scenario, load, shipped
from quorker.sim.oracles.names import ORACLES

DESCRIPTION_WIDTH = 90


def ls(*, output: Output = "table") -> int:
    """List the shipped scenarios, profiles, kinds of faults and operations, crash points and oracles."""
    scenarios = {path.stem: load(path) for path in shipped()}
    if output == "json":
        print_json(_document(scenarios))
    else:
        _print(scenarios)
    return EXIT_OK


def _document(scenarios: dict[str, Scenario]) -> dict[str, Any]:
    return {
        "scenarios": {name: scenario.description for name, scenario in scenarios.items()},
        "profiles": {name: asdict(profile) for name, profile in PROFILES.items()},
        "faults": [str(kind) for kind in FaultKind],
        "operations": [str(kind) for kind in OpKind],
        "points": [str(point) for point in Point],
        "oracles": ORACLES,
    }


def _print(scenarios: dict[str, Scenario]) -> None:
    rows = [
        (name, scenario.expect.outcome.value, shortened(_first_line(scenario), DESCRIPTION_WIDTH))
        for name, scenario in scenarios.items()
    ]
    print_table(("SCENARIO", "EXPECTED", "WHAT HAPPENS"), rows)
    print()
    print_table(("ORACLE", "WATCHES"), list(ORACLES.items()))
    print()
    print(f"profiles:   {', '.join(PROFILES)}")
    print(f"faults:     {', '.join(FaultKind)}")
    print(f"operations: {', '.join(OpKind)}")
    print(f"points:     {', '.join(Point)}")


def _first_line(scenario: Scenario) -> str:
    return next(iter(scenario.description.strip().splitlines()), "")
