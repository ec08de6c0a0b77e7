"""`quorker sim run`: a scenario file over its seeds, held to what it expects."""

from __future__ import annotations

from collections.abc import Sequence
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
from quorker.core.errors import EXIT_OK, EXIT_REFUSED
from quorker.sim.cases.case import Case
from quorker.sim.cases.scenario import Scenario, judge, load, unreached
from quorker.sim.mutants.mutant import Mutant
from quorker.sim.mutants.trial import mutant_named, overlooked, run_with


def run(
    file: Annotated[str, Parameter(help="A scenario file, or the bare name of a shipped one.")],
    *,
    seed: Annotated[int | None, Parameter(help="Only this one, not all seeds of the scenario.")] = None,
    mutant: Annotated[
        str,
        Parameter(
            help="Plant this bug: succeeds if one of the seeds shows it, as `expect` or the bug itself says."
        ),
    ] = "",
    trace: Tell = False,
    output: Output = "table",
) -> int:
    """Run a scenario over its seeds. Exits with 1 if one ends otherwise than expected, or none reached its point."""
    scenario = load(file)
    cases = scenario.cases() if seed is None else [replace(scenario.case, seed=seed)]
    if mutant:
        return _run_with(mutant_named(mutant, "--mutant"), scenario, cases, trace=trace, output=output)
    reports = [run_told(case, trace=trace, output=output) for case in cases]
    runs = [Judged(report, judge(scenario, report)) for report in reports]
    missed = unreached(scenario, reports) if seed is None else []
    if output == "json":
        print_json({"scenario": scenario.name, "runs": [row_of(each) for each in runs], "unreached": missed})
    else:
        _print(scenario, runs, missed)
    return EXIT_REFUSED if missed else exit_code_of(runs)


def _run_with(
    mutant: Mutant, scenario: Scenario, cases: Sequence[Case], *, trace: bool, output: Output
) -> int:
    reports = run_with(mutant, cases, lambda case: run_told(case, trace=trace, output=output))
    missed = overlooked(scenario, mutant, reports)
    runs = [Judged(report, "") for report in reports]
    if output == "json":
        rows = [row_of(each) for each in runs]
        print_json({"scenario": scenario.name, "mutant": mutant.name, "runs": rows, "overlooked": missed})
        return EXIT_REFUSED if missed else EXIT_OK
    print(f"{scenario.name} with {mutant.name}: {mutant.wrong}")
    for report in reports:
        print(f"seed {report.case.seed}: {report.violation or 'breaks nothing'}")
    if missed:
        print(f"overlooked: {missed}")
    return EXIT_REFUSED if missed else EXIT_OK


def _print(scenario: Scenario, runs: list[Judged], missed: list[str]) -> None:
    print(scenario.name)
    if scenario.description:
        print(scenario.description.strip())
    print()
    print_runs(runs)
    print_sometimes(runs)
    for what in missed:
        print(f"never reached, though the scenario is for it: {what}")
