"""`quorker sim shrink`: a failing run made small, as a scenario file that still fails alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quorker.app.cli.output import print_json
from quorker.app.cli.sim.html import write_page
from quorker.app.cli.sim.reports import Output
from quorker.app.cli.sim.stories import WhichRun, case_meant
from quorker.core.errors import EXIT_REFUSED, InvalidInput
from quorker.sim.campaign.shrink import RESEEDS, RUNS_MAX, NothingToShrink, Shrunk, Step, describe
from quorker.sim.campaign.shrink import shrink as smallest
from quorker.sim.cases.replay import replay_line
from quorker.sim.cases.scenario import Expect, Outcome, Scenario, Seeds, dump


def shrink(
    source: Annotated[str | None, Parameter(help="A token (rs1:... in quotes) or a scenario.")] = None,
    /,
    *,
    which: WhichRun = WhichRun(),  # noqa: B008  # a frozen record
    to: Annotated[Path, Parameter(help="The scenario file to write: the smallest run found.")] = Path(
        "shrunk.toml"
    ),
    runs: Annotated[int, Parameter(help="Try so many runs at most.")] = RUNS_MAX,
    reseeds: Annotated[int, Parameter(help="Other seeds to try before a candidate is given up.")] = RESEEDS,
    output: Output = "table",
) -> int:
    """Make a failing run small: fewer faults, operations, members and clients, plain knobs, short times. Exits with 1."""
    case = case_meant(source, which)
    try:
        found = smallest(case, runs_max=runs, reseeds=reseeds, on_step=_tell if output == "table" else None)
    except NothingToShrink as error:
        raise InvalidInput(f"{error}: only a run that fails can be shrunk") from None
    write_page(to, dump(_as_scenario(found, to.stem)))
    _show(found, to, output)
    return EXIT_REFUSED


def _tell(step: Step) -> None:
    print(f"{step.runs:5} runs: {step.what}")


def _as_scenario(found: Shrunk, name: str) -> Scenario:
    violation = found.report.violation
    assert violation is not None, "what is shrunk fails"
    return Scenario(
        name,
        found.case,
        f"Breaks a promise: {violation}",
        Seeds(found.case.seed, 1),
        Expect(Outcome.VIOLATION, violation.oracle),
    )


def _show(found: Shrunk, to: Path, output: str) -> None:
    violation = found.report.violation
    if output == "json":
        print_json(
            {
                "oracle": violation.oracle if violation else "",
                "faults": found.faults,
                "operations": len(found.case.ops),
                "members": len(found.case.nodes),
                "runs": found.runs,
                "replay": replay_line(found.case),
                "file": str(to),
            }
        )
        return
    print(f"after {found.runs} runs: {len(found.case.nodes)} members, {describe(found.case)}")
    print(f"breaks {violation}")
    print(f"  {replay_line(found.case)}")
    print(f"written: {to} (quorker sim run {to})")
