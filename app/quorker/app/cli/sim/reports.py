"""How reports of simulated runs are shown: one line a run, what broke, and how to see it again."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from quorker.app.cli.output import Format, print_fields, print_table
from quorker.core.errors import EXIT_OK, EXIT_REFUSED
from quorker.sim.cases.case import Case
from quorker.sim.cases.replay import replay_line
from quorker.sim.cases.units import duration_text
from quorker.sim.runs.cluster import Report, run_case

Output: TypeAlias = Annotated[Format, Parameter(name=["--output", "-o"], help="For people or for programs.")]
Tell: TypeAlias = Annotated[
    bool, Parameter(name="--trace", negative="", help="Tell everything that happens.")
]


@dataclass(frozen=True, slots=True)
class Judged:
    """A run and what is wrong with it; "" if nothing is."""

    report: Report
    wrong: str


def run_told(case: Case, *, trace: bool, output: Format) -> Report:
    """Run one case, and tell its story if that is wanted: on stderr, if stdout is for a program."""
    said = sys.stdout if output == "table" else sys.stderr
    return run_case(case, partial(print, file=said) if trace else None)


def row_of(judged: Judged) -> dict[str, Any]:
    """One run for programs."""
    report = judged.report
    violation = report.violation
    return {
        "seed": report.case.seed,
        "wrong": judged.wrong,
        "oracle": violation.oracle if violation else "",
        "detail": violation.detail if violation else "",
        "digest": report.digest,
        "events": report.events,
        "committed": report.committed,
        "time_ns": report.true_ns,
        "sometimes": report.sometimes,
        "replay": replay_line(report.case) if judged.wrong else "",
    }


def print_runs(runs: Sequence[Judged]) -> None:
    """A table of all runs, and below it everything that is wrong."""
    rows = [
        (
            judged.report.case.seed,
            "WRONG" if judged.wrong else "as expected",
            judged.report.events,
            judged.report.committed,
            duration_text(judged.report.true_ns // 1_000_000 * 1_000_000),
            judged.report.digest,
        )
        for judged in runs
    ]
    print_table(("SEED", "OUTCOME", "EVENTS", "COMMITTED", "TIME", "DIGEST"), rows)
    for judged in runs:
        if judged.wrong:
            print_wrong(judged)


def print_wrong(judged: Judged) -> None:
    """What broke, where in the code if it was raised there, and the line that repeats it."""
    print()
    print(f"seed {judged.report.case.seed} {judged.wrong}")
    violation = judged.report.violation
    if violation is not None and violation.__cause__ is not None:
        print("".join(traceback.format_exception(violation.__cause__)), end="")
    print(f"  {replay_line(judged.report.case)}")
    print("  (quorker sim explain and quorker sim html take the same, and tell and draw what led to it)")


def print_sometimes(runs: Sequence[Judged]) -> None:
    """In how many of the runs something worth testing happened."""
    seen: Counter[str] = Counter()
    for judged in runs:
        seen.update(judged.report.sometimes.keys())
    if seen:
        print()
        print_fields([(what, f"in {count} of {len(runs)} runs") for what, count in sorted(seen.items())])


def exit_code_of(runs: Sequence[Judged]) -> int:
    return EXIT_REFUSED if any(judged.wrong for judged in runs) else EXIT_OK
