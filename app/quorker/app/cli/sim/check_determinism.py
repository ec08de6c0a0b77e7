"""`quorker sim check-determinism`: the same runs under several hash seeds and interpreters, compared event by event."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from quorker.app.cli.output import print_json
from quorker.app.cli.sim.reports import Output
from quorker.app.cli.sim.stories import WhichRun, case_meant
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput
from quorker.sim.campaign.determinism import Difference, check, everywhere
from quorker.sim.cases.case import Case
from quorker.sim.cases.expansion import PROFILES, expand


def check_determinism(
    source: Annotated[str | None, Parameter(help="A token (rs1:... in quotes) or a scenario.")] = None,
    /,
    *,
    which: WhichRun = WhichRun(),  # noqa: B008  # a frozen record
    seeds: Annotated[int, Parameter(help="Without a run of your own: so many seeds of every profile.")] = 3,
    output: Output = "table",
) -> int:
    """Run the same cases everywhere and name the first event that differs. Exits with 1 if any does."""
    cases = _cases(source, which, seeds)
    places = everywhere()
    differences = check(cases, places)
    _show(differences, len(cases), [place.name for place in places], output)
    return EXIT_REFUSED if differences else EXIT_OK


def _cases(source: str | None, which: WhichRun, seeds: int) -> dict[str, Case]:
    if source is not None or which.seed is not None:
        return {source or f"{which.profile} {which.seed}": case_meant(source, which)}
    if seeds < 1:
        raise InvalidInput(f"--seeds {seeds} leaves nothing to run: give at least 1")
    return {
        f"{name} {seed}": expand(seed, profile) for name, profile in PROFILES.items() for seed in range(seeds)
    }


def _show(differences: list[Difference], cases: int, places: list[str], output: str) -> None:
    if output == "json":
        print_json({"cases": cases, "places": places, "differences": [asdict(each) for each in differences]})
        return
    for place in places:
        print(place)
    for difference in differences:
        print(difference)
    print(f"{cases} runs in each of {len(places)} places, {len(differences)} differences")
