"""`quorker sim mutants`: plants bugs in the core, and tells which oracle found each, and what that took."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from typing import Annotated

from cyclopts import Parameter

from quorker.app.cli.output import print_json
from quorker.app.cli.sim.reports import Output
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput
from quorker.sim.campaign.determinism import everywhere
from quorker.sim.mutants import matrix
from quorker.sim.mutants.catalogue import MUTANTS, fast
from quorker.sim.mutants.hunt import replay
from quorker.sim.mutants.matrix import Row


def mutants(  # each is an option of the command line
    *,
    only: Annotated[tuple[str, ...], Parameter(help="These by name; may be repeated.")] = (),
    fast_only: Annotated[bool, Parameter(name="--fast", help="Those that a few runs show.")] = False,
    runs: Annotated[int, Parameter(help="Look for so many runs, whatever the budget of each is.")] = 0,
    jobs: Annotated[int, Parameter(help="Processes to use.")] = 1,
    shrink: Annotated[bool, Parameter(help="Shrink the run that shows each.")] = False,
    replay_seed: Annotated[
        int | None, Parameter(name="--replay", help="Tell the run of this seed, with the one bug planted.")
    ] = None,
    replays: Annotated[
        bool,
        Parameter(name="--everywhere", help="Replay what showed each, by every interpreter and hash seed."),
    ] = False,
    output: Output = "table",
) -> int:
    """Plant bugs and look for them. Exits with 1 if more than a tenth is missed, one is seen by another oracle, or a
    run of one does not replay bit for bit."""
    names = _names(only, fast_only)
    if replay_seed is not None:
        return _replay(names, replay_seed)
    if runs < 0 or jobs < 1:
        raise InvalidInput(f"--runs {runs} --jobs {jobs} leaves nothing to do: give at least one process")
    rows = _measured(names, runs, jobs, shrink, output)
    if output == "json":
        print_json([asdict(row) for row in rows])
    else:
        print(matrix.summary_of(rows))
    differences = _replayed(rows, jobs) if replays else []
    return EXIT_OK if matrix.is_accepted(rows) and not differences else EXIT_REFUSED


def _names(only: tuple[str, ...], fast_only: bool) -> list[str]:
    unknown = [name for name in only if name not in MUTANTS]
    if unknown:
        raise InvalidInput(f"there is no planted bug {unknown[0]!r}; there are: {', '.join(MUTANTS)}")
    return list(only) or [mutant.name for mutant in (fast() if fast_only else MUTANTS.values())]


def _replay(names: list[str], seed: int) -> int:
    if len(names) != 1:
        raise InvalidInput(f"--replay {seed} tells one run with one bug: name it with --only")
    report = replay(names[0], seed, print)
    print(f"{report.violation or 'no promise is broken'}; digest {report.digest}")
    return EXIT_OK if report.violation is None else EXIT_REFUSED


def _replayed(rows: list[Row], jobs: int) -> list[str]:
    """Told on stderr, where it is in nobody's way."""
    places = everywhere()
    differences = matrix.replayed(rows, places, jobs)
    for difference in differences:
        print(difference, file=sys.stderr)
    shown = sum(row.seed is not None for row in rows)
    print(f"{shown} runs in each of {len(places)} places, {len(differences)} differences", file=sys.stderr)
    return differences


def _measured(names: list[str], runs: int, jobs: int, shrinks: bool, output: str) -> list[Row]:
    """Each row is shown as soon as it is known."""
    rows: list[Row] = []
    if output != "json":
        print(matrix.HEADER)
    for row in matrix.matrix(names, jobs, partial(matrix.measure, runs_max=runs, shrinks=shrinks)):
        rows.append(row)
        if output != "json":
            print(matrix.line_of(row), flush=True)
    return rows
