"""Looks for a planted bug: runs its cases until a promise is broken, and says by whom that was seen.

The first violation decides. One that another oracle reports than the expected ones is no success: it may be luck, or
a plant that breaks something else than it says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from quorker.sim.campaign.determinism import Place, ask
from quorker.sim.mutants.catalogue import MUTANTS
from quorker.sim.mutants.mutant import Mutant, planted
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.cluster import Report, run_case


class Verdict(StrEnum):
    FOUND = "found"
    MISTAKEN = "found by another oracle"
    MISSED = "missed"
    SILENT = "equivalent"  # and nothing was reported, as it should be


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of the search. `report` is of the run that broke a promise; `runs` counts it too."""

    mutant: Mutant
    runs: int
    events: int
    report: Report | None = None

    @property
    def violation(self) -> Violation | None:
        return self.report.violation if self.report else None

    @property
    def verdict(self) -> Verdict:
        violation = self.violation
        if violation is None:
            return Verdict.SILENT if self.mutant.equivalent else Verdict.MISSED
        return Verdict.FOUND if violation.oracle in self.mutant.oracles else Verdict.MISTAKEN

    @property
    def is_right(self) -> bool:
        return self.verdict in (Verdict.FOUND, Verdict.SILENT)


def hunt(mutant: Mutant, runs_max: int = 0, first_seed: int = 0) -> Finding:
    """Run the mutant's cases by rising seeds. `runs_max` 0: its budget."""
    events = runs = 0
    with planted(mutant):
        for runs in range(1, (runs_max or mutant.budget) + 1):
            report = run_case(mutant.case(first_seed + runs - 1))
            events += report.events
            if report.violation is not None:
                return Finding(mutant, runs, events, report)
    return Finding(mutant, runs, events)


# ---------------------------------------------------------------------- replaying


def replay(name: str, seed: int, sink: Callable[[str], None] | None = None) -> Report:
    """Run one case with one bug planted."""
    mutant = MUTANTS[name]
    with planted(mutant):
        return run_case(mutant.case(seed), sink)


def left_behind(report: Report) -> str:
    """What two runs must have in common to be the same."""
    return f"{report.digest} {report.violation}"


def digests(seeds: Mapping[str, int]) -> dict[str, str]:
    """What the run of each mutant's seed leaves behind."""
    return {name: left_behind(replay(name, seed)) for name, seed in seeds.items()}


def digests_in(place: Place, seeds: Mapping[str, int]) -> dict[str, str]:
    """The same, in a process of its own: with other hashes, or by another interpreter."""
    found: dict[str, str] = ask(place, dict(seeds), f"from {__name__} import answer_stdin; answer_stdin()")
    return found


def answer_stdin() -> None:
    """What that process does."""
    json.dump(digests(json.load(sys.stdin)), sys.stdout)
