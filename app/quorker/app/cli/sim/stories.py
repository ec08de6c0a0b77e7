"""Which run a verb is about, and its story: by the token of a violation, a scenario or a seed of a campaign.

What is made of the story stands in the files of the verbs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case
from quorker.sim.cases.expansion import PROFILES, SHORT, expand
from quorker.sim.cases.replay import PREFIX, case_of
from quorker.sim.cases.scenario import load
from quorker.sim.runs.cluster import Report, run_case
from quorker.sim.stories.story import Story


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class WhichRun:
    """A run of many."""

    seed: Annotated[
        int | None, Parameter(help="A seed of a campaign, or, with a scenario, one of its seeds.")
    ] = None
    profile: Annotated[str, Parameter(help="The profile of that campaign.")] = SHORT.name


def case_meant(source: str | None, which: WhichRun) -> Case:
    """`source`: a token or a scenario; without it, the seed and profile tell. Raises `InvalidInput`."""
    if which.profile not in PROFILES:
        raise InvalidInput(f"--profile {which.profile!r} is not allowed; one of: {', '.join(PROFILES)}")
    if source is None:
        if which.seed is None:
            raise InvalidInput("give a token (rs1:...), a scenario, or --seed with --profile")
        return expand(which.seed, PROFILES[which.profile])
    if source.startswith(PREFIX):
        case, warning = case_of(source)
        if warning:
            print(f"quorker: {warning}", file=sys.stderr)
        return case
    case = load(source).case
    return case if which.seed is None else replace(case, seed=which.seed)


def told(case: Case) -> tuple[Story, Report]:
    story = Story()
    return story, run_case(case, story=story)


def name_of(source: str | None, which: WhichRun) -> str:
    """The run in a few words."""
    if source is None:
        return f"seed {which.seed} of {which.profile}"
    return "a replayed run" if source.startswith(PREFIX) else source
