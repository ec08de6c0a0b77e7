"""The matrix of planted bugs: who found which, after how many runs, and at what cost.

Like `quorker.sim.campaign.fuzz` it looks at a real clock, to tell what a search has cost; nothing depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Final

from quorker.sim.campaign.determinism import Place
from quorker.sim.campaign.shrink import shrink
from quorker.sim.mutants.catalogue import MUTANTS
from quorker.sim.mutants.hunt import Verdict, digests_in, hunt, left_behind
from quorker.sim.mutants.mutant import Mutant, planted

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
    digest: str = ""  # what the run that showed it left behind


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
        left_behind(report) if report else "",
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


def replayed(rows: Sequence[Row], places: Sequence[Place], jobs: int) -> list[str]:
    """Run what showed each bug again in every place. What came out otherwise, a line each."""
    wanted = {row.name: row.digest for row in rows if row.seed is not None}
    seeds = {row.name: row.seed for row in rows if row.seed is not None}
    with ThreadPoolExecutor(jobs) as pool:  # each place is a process of its own
        answers = pool.map(partial(digests_in, seeds=seeds), places)
        return [
            f"{name}, seed {seeds[name]}: {place.name} leaves {found[name]}, not {digest}"
            for place, found in zip(places, answers, strict=True)
            for name, digest in wanted.items()
            if found[name] != digest
        ]


FOUND_PERCENT_MIN: Final = 90


def is_accepted(rows: Sequence[Row]) -> bool:
    """Nothing was seen by a wrong oracle, and at least nine in ten of those that can be found were found."""
    wanted = [row for row in rows if row.verdict != Verdict.SILENT]
    found = sum(row.verdict == Verdict.FOUND for row in wanted)
    mistaken = any(row.verdict == Verdict.MISTAKEN for row in wanted)
    return not mistaken and 100 * found >= FOUND_PERCENT_MIN * len(wanted)


HEADER: Final = f"{'planted bug':45} {'area':12} {'verdict':24} {'runs':>5} {'CPU s':>6} {'faults':>6}  found by (case, seed)"


def line_of(row: Row) -> str:
    faults = "" if row.faults is None else str(row.faults)
    where = f"{row.found_by} ({row.case}, {row.seed})" if row.found_by else ""
    return f"{row.name:45} {row.area:12} {row.verdict:24} {row.runs:5} {row.cpu_s:6.1f} {faults:>6}  {where}"


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
    missed = [row.name for row in wanted if row.verdict == Verdict.MISSED]
    if missed:
        told.append(f"missed: {', '.join(missed)}")
    return "; ".join(told)
