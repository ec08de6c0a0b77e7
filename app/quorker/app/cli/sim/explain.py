"""`quorker sim explain`: how a promise came to be broken, or any other event came about."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from quorker.app.cli.output import print_json
from quorker.app.cli.sim.reports import Output
from quorker.app.cli.sim.stories import WhichRun, case_meant, told
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput
from quorker.sim.stories.explain import EVENTS_MAX, NothingToExplain
from quorker.sim.stories.explain import explain as explanation


def explain(
    source: Annotated[str | None, Parameter(help="A token (rs1:... in quotes) or a scenario.")] = None,
    /,
    *,
    which: WhichRun = WhichRun(),  # noqa: B008  # a frozen record
    event: Annotated[int | None, Parameter(help="Explain this event in place of the violation.")] = None,
    limit: Annotated[int, Parameter(help="Show so many events at most.")] = EVENTS_MAX,
    output: Output = "table",
) -> int:
    """Tell the causal past of a violation in plain words. Exits with 1 if the run breaks a promise."""
    story, report = told(case_meant(source, which))
    try:
        lines = list(explanation(story, event, limit))
    except NothingToExplain as error:
        raise InvalidInput(str(error)) from None
    if output == "json":
        print_json({"wrong": str(report.violation or ""), "events": len(story.events), "lines": lines})
    else:
        print("\n".join(lines))
    return EXIT_REFUSED if report.violation else EXIT_OK
