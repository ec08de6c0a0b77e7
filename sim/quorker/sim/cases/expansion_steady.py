"""What a seed adds to the end of a run: in a share of them, what a healthy cluster owes its leader is demanded as well."""

from __future__ import annotations

from dataclasses import replace

from quorker.sim.cases.case import Case
from quorker.sim.oracles.steady import obstacle
from quorker.sim.world.randomness import Stream


def demand_steadiness(case: Case, share_ppm: int) -> Case:
    """The case, steady if nothing stands in the way and its seed says so."""
    if obstacle(case) or not Stream(case.seed, "steadiness").chance(share_ppm):
        return case
    return replace(case, steady=True)
