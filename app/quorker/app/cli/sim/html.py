"""`quorker sim html`: a run as a space-time diagram, in one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quorker.app.cli.output import print_json
from quorker.app.cli.sim.reports import Output
from quorker.app.cli.sim.stories import WhichRun, case_meant, name_of, told
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput
from quorker.sim.cases.replay import replay_line
from quorker.sim.cases.units import duration_text
from quorker.sim.runs.cluster import Report
from quorker.sim.stories.diagram import page_of


def html(
    source: Annotated[str | None, Parameter(help="A token (rs1:... in quotes) or a scenario.")] = None,
    /,
    *,
    which: WhichRun = WhichRun(),  # noqa: B008  # a frozen record
    to: Annotated[Path, Parameter(help="The file to write.")] = Path("run.html"),
    output: Output = "table",
) -> int:
    """Draw a run as a space-time diagram. Exits with 1 if the run breaks a promise."""
    story, report = told(case_meant(source, which))
    write_page(to, page_of(story, name_of(source, which), _subtitle(report)))
    wrong = str(report.violation or "")
    if output == "json":
        print_json({"file": str(to), "wrong": wrong, "events": len(story.events)})
    else:
        print(f"{to}: {len(story.events)} events" + (f"; breaks {wrong}" if wrong else ""))
    return EXIT_REFUSED if report.violation else EXIT_OK


def write_page(path: Path, page: str) -> None:
    """Raises `InvalidInput` where nothing can be written."""
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}: choose another with --to") from None


def _subtitle(report: Report) -> str:
    case = report.case
    parts = [
        f"{case.voters} members" + (f" and {case.spares} spares" if case.spares else ""),
        f"{case.jobs.clients} clients" if case.jobs else "bare Raft",
        f"{len(case.plan)} faults",
        duration_text(report.true_ns // 1_000_000 * 1_000_000),
        f"breaks {report.violation}" if report.violation else "keeps every promise",
        replay_line(case),
    ]
    return " · ".join(parts)
