"""All planted bugs, in one table, and those among them that are looked for whenever the tests run."""

from __future__ import annotations

from typing import Final

from quorker.sim.mutants import (
    answers,
    batches,
    client,
    contract,
    damage,
    elections,
    log_time,
    marks,
    membership,
    persistence,
    reads,
    recurring,
    replica,
    replication,
    sessions,
    snapshots,
    starts,
    storage,
    store,
    transport,
)
from quorker.sim.mutants.mutant import Mutant

AREAS: Final = (
    elections,
    replication,
    membership,
    snapshots,
    reads,
    answers,
    marks,
    persistence,
    storage,
    log_time,
    store,
    contract,
    recurring,
    sessions,
    client,
    replica,
    transport,
    damage,
    batches,
    starts,
)
MUTANTS: Final[dict[str, Mutant]] = {mutant.name: mutant for area in AREAS for mutant in area.MUTANTS}

FAST_RUNS: Final = 60


def fast() -> list[Mutant]:
    """Those that are expected within a few runs; a run with a job store counts for three."""
    return [mutant for mutant in MUTANTS.values() if not mutant.equivalent and _cost(mutant) <= FAST_RUNS]


def _cost(mutant: Mutant) -> int:
    return mutant.budget * (3 if mutant.case(0).jobs else 1)
