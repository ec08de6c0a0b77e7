"""`quorker sim run`: a scenario file over its seeds, held to what it expects."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from quorker.app.cli.output import print_json
from quorker.app.cli.sim.reports import (
    Judged,
    Output,
    Tell,
    exit_code_of,
    print_runs,
    print_sometimes,
    row_of,
    run_told,
)
from quorker.core.errors import EXIT_REFUSED
from quorker.sim.cases.scenario import Scenario, judge, load, unreached


def run(
    file: Annotated[str, Parameter(help="A scenario file, or the bare name of a shipped one.")],
    *,
    seed: Annotated[int | None, Parameter(help="Only this one, not all seeds of the scenario.")] = None,
    trace: Tell = False,
    output: Output = "table",
) -> int:
    """Run a scenario over its seeds. Exits with 1 if one ends otherwise than expected, or none reached its point."""
    scenario = load(file)
    cases = scenario.cases() if seed is None else [replace(scenario.case, seed=seed)]
    reports = [run_told(case, trace=trace, output=output) for case in cases]
    runs = [Judged(report, judge(scenario, report)) for report in reports]
    missed = unreached(scenario, reports) if seed is None else []
    if output == "json":
        print_json({"scenario": scenario.name, "runs": [row_of(each) for each in runs], "unreached": missed})
    else:
        _print(scenario, runs, missed)
    return EXIT_REFUSED if missed else exit_code_of(runs)


def _print(scenario: Scenario, runs: list[Judged], missed: list[str]) -> None:
    print(scenario.name)
    if scenario.description:
        print(scenario.description.strip())
    print()
    print_runs(runs)
    print_sometimes(runs)
    for what in missed:
        print(f"never reached, though the scenario is for it: {what}")
