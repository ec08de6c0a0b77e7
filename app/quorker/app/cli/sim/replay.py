"""`quorker sim replay`: one run again, from its token or from a seed of a campaign."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from quorker.app.cli.output import print_json
from quorker.app.cli.sim.reports import Judged, Output, Tell, exit_code_of, print_runs, row_of, run_told
from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case
from quorker.sim.cases.expansion import PROFILES, SHORT, expand
from quorker.sim.cases.replay import case_of


def replay(
    token: Annotated[str | None, Parameter(help="What a violation printed: rs1:... in quotes.")] = None,
    /,
    *,
    seed: Annotated[int | None, Parameter(help="A seed of a campaign, in place of a token.")] = None,
    profile: Annotated[str, Parameter(help="The profile of that campaign.")] = SHORT.name,
    trace: Tell = False,
    output: Output = "table",
) -> int:
    """Repeat one run, exactly. Exits with 1 if it breaks a promise."""
    case = _case(token, seed, profile)
    report = run_told(case, trace=trace, output=output)
    judged = Judged(report, f"breaks {report.violation}" if report.violation else "")
    if output == "json":
        print_json(row_of(judged))
    else:
        print_runs([judged])
    return exit_code_of([judged])


def _case(token: str | None, seed: int | None, profile: str) -> Case:
    if (token is None) == (seed is None):
        raise InvalidInput("give either a token (rs1:...) or --seed with --profile")
    if profile not in PROFILES:
        raise InvalidInput(f"--profile {profile!r} is not allowed; one of: {', '.join(PROFILES)}")
    if token is None:
        return expand(seed or 0, PROFILES[profile])
    case, warning = case_of(token)
    if warning:
        print(f"quorker: {warning}", file=sys.stderr)
    return case
