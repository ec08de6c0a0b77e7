"""A scenario with a bug planted: whether it would show the bug that it is there for.

A scenario that always passes may look at nothing. `expect.mutant` names a bug, and `expect.oracle` who must report it from
one of the scenario's seeds at least. How bugs are looked for without a scenario is for `hunt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case
from quorker.sim.cases.scenario import Scenario
from quorker.sim.mutants.catalogue import MUTANTS
from quorker.sim.mutants.mutant import Mutant, planted
from quorker.sim.runs.cluster import Report, run_case


def mutant_named(name: str, where: str) -> Mutant:
    """The planted bug of that name. Raises `InvalidInput`; `where` begins the complaint."""
    if name not in MUTANTS:
        raise InvalidInput(
            f"{where}: there is no planted bug {name!r}; `quorker sim mutants --help` tells how to list them"
        )
    return MUTANTS[name]


def run_with(mutant: Mutant, cases: Sequence[Case], run: Callable[[Case], Report] = run_case) -> list[Report]:
    """Each case with the bug planted."""
    with planted(mutant):
        return [run(case) for case in cases]


def overlooked(scenario: Scenario, mutant: Mutant, reports: Sequence[Report]) -> str:
    """Why these runs did not show the bug; "" if one of them did."""
    expect = scenario.expect
    wanted = (expect.oracle,) if expect.mutant == mutant.name else mutant.oracles
    seen = list(dict.fromkeys(report.violation.oracle for report in reports if report.violation is not None))
    if any(oracle in wanted for oracle in seen):
        return ""
    return f"{mutant.name} must break {' or '.join(wanted)}; broken: {', '.join(seen) or 'nothing'}"
