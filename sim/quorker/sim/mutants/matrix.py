"""The matrix of planted bugs: who found which, after how many runs, at what cost. `python -m quorker.sim.mutants`.

Like `quorker.sim.fuzz` it looks at a real clock, to tell what a search has cost; nothing depends on it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Final

from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from quorker.sim.mutants.catalogue import MUTANTS, fast
from quorker.sim.mutants.hunt import Verdict, hunt, replay
from quorker.sim.mutants.mutant import Mutant, planted
from quorker.sim.shrink import shrink

SHRINK_RUNS: Final = 200
QUIET_RUNS: Final = 60  # of a mutant that is proven equivalent: nothing may be reported


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the matrix. `faults`: what still goes wrong on purpose in the shrunk case."""

    name: str
    area: str
    expected: tuple[str, ...]
    verdict: str
    found_by: str = ""
    seed: int | None = None
    case: str = ""
    runs: int = 0
    cpu_s: float = 0.0
    faults: int | None = None
    detail: str = ""


def measure(name: str, runs_max: int = 0, shrinks: bool = False) -> Row:
    """Look for one mutant, and shrink the run that showed it if that is asked for."""
    mutant = MUTANTS[name]
    begun = time.process_time()
    finding = hunt(mutant, runs_max or (QUIET_RUNS if mutant.equivalent else 0))
    spent = time.process_time() - begun
    violation, report = finding.violation, finding.report
    return Row(
        mutant.name,
        mutant.area,
        mutant.oracles,
        finding.verdict,
        violation.oracle if violation else "",
        report.case.seed if report else None,
        mutant.case.__name__,
        finding.runs,
        round(spent, 2),
        _shrunk_faults(mutant, report.case.seed) if report and shrinks else None,
        violation.detail[:200] if violation else mutant.equivalent,
    )


def _shrunk_faults(mutant: Mutant, seed: int) -> int:
    with planted(mutant):
        return shrink(mutant.case(seed), runs_max=SHRINK_RUNS).faults


def matrix(names: Iterable[str], jobs: int, measure_one: Callable[[str], Row] = measure) -> Iterator[Row]:
    """The rows, in the order of `names`, as they become known; in several processes if `jobs` says so."""
    if jobs <= 1:
        yield from map(measure_one, names)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(measure_one, names)


def is_right(row: Row) -> bool:
    return row.verdict in (Verdict.FOUND, Verdict.SILENT)


# ---------------------------------------------------------------------- the command


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    names = options.only or [mutant.name for mutant in (fast() if options.fast else MUTANTS.values())]
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        print(f"there is no planted bug {unknown[0]!r}: `--list` names all", file=sys.stderr)
        return EXIT_USAGE
    if options.list:
        for name in names:
            print(f"{name:45} {MUTANTS[name].area:14} {MUTANTS[name].wrong}")
        return EXIT_OK
    if options.seed is not None:
        return _replay(names, options.seed)
    return _tell(names, options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m quorker.sim.mutants", description="Plants bugs, and sees whether they are found."
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this one only; may be repeated")
    parser.add_argument("--fast", action="store_true", help="only those that are found within a few runs")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--runs", type=int, default=0, help="look so long, whatever the budget of each is")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--shrink", action="store_true", help="shrink the run that showed each")
    parser.add_argument("--seed", type=int, help="replay this seed of the one named by --only")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    return parser.parse_args(arguments)


def _replay(names: list[str], seed: int) -> int:
    if len(names) != 1:
        print("--seed needs one --only NAME", file=sys.stderr)
        return EXIT_USAGE
    report = replay(names[0], seed, print)
    print(f"{report.violation or 'nothing is broken'}; digest {report.digest}")
    return EXIT_OK


def _tell(names: list[str], options: argparse.Namespace) -> int:
    measure_one = partial(measure, runs_max=options.runs, shrinks=options.shrink)
    rows: list[Row] = []
    if options.output == "text":
        print(
            f"{'planted bug':45} {'verdict':24} {'runs':>5} {'CPU s':>6} {'faults':>6}  found by (case, seed)"
        )
    for row in matrix(names, options.jobs, measure_one):
        rows.append(row)
        if options.output == "text":
            print(line_of(row), flush=True)
    if options.output == "json":
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print(summary_of(rows))
    return EXIT_OK if all(map(is_right, rows)) else EXIT_REFUSED


def line_of(row: Row) -> str:
    faults = "" if row.faults is None else str(row.faults)
    where = f"{row.found_by} ({row.case}, {row.seed})" if row.found_by else ""
    return f"{row.name:45} {row.verdict:24} {row.runs:5} {row.cpu_s:6.1f} {faults:>6}  {where}"


def summary_of(rows: Sequence[Row]) -> str:
    """How many of those that can be found were found, and what it took."""
    wanted = [row for row in rows if row.verdict != Verdict.SILENT]
    found = [row for row in wanted if row.verdict == Verdict.FOUND]
    ordinary = [row for row in found if row.case in ("short", "busy") and row.runs <= 1_000]
    sizes = [row.faults for row in found if row.faults is not None]
    told = [
        f"{len(found)} of {len(wanted)} found, {len(ordinary)} of them within 1,000 ordinary runs",
        f"{len(rows) - len(wanted)} proven equivalent",
        f"{sum(row.cpu_s for row in rows):.0f} CPU seconds",
    ]
    if sizes:
        told.append(f"median of {median(sizes):g} faults and traps after shrinking")
    return "; ".join(told)
