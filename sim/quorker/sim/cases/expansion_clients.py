"""What a seed adds to what clients ask for: in most runs of a job store, a few kinds beside plain jobs and locks."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from quorker.sim.cases.case import Case, Op, OpKind
from quorker.sim.world.randomness import Stream

ASKS_PPM: Final = 700_000
NARROW_PPM: Final = 100_000
DISTRUST_PPM: Final = 200_000
KINDS: Final = (
    OpKind.CHAIN, OpKind.BRIEF, OpKind.RESCHEDULE, OpKind.PAUSE_QUEUE, OpKind.PULL, OpKind.COLLECT,
    OpKind.COLLECT, OpKind.LEASED_LOCK, OpKind.READ_LOCAL, OpKind.READ_LINEAR,
    OpKind.READ_LINEAR,
)  # fmt: skip


def ask_for_more(case: Case, ops_max: int) -> Case:
    """The case with further operations of its clients."""
    draw = Stream(case.seed, "asks, further")
    if case.jobs is None or not draw.chance(ASKS_PPM):
        return case
    kinds = draw.sample(KINDS, draw.between(2, 5))
    more = [
        Op(
            draw.below(case.chaos_ns),
            draw.choice(kinds),
            draw.between(1, case.jobs.clients),
            draw.below(1 << 16),
        )
        for _ in range(draw.between(ops_max // 4, ops_max))
    ]
    return replace(case, ops=tuple(sorted((*case.ops, *more), key=lambda op: op.at_ns)))


def narrow_down(case: Case) -> Case:
    """The case, with hardly any room for what waits at its leader, in a share of the runs."""
    draw = Stream(case.seed, "room at the leader")
    if case.jobs is None or not draw.chance(NARROW_PPM):
        return case
    return replace(case, jobs=replace(case.jobs, pending_groups=draw.between(1, 4)))


def distrust(case: Case) -> Case:
    """The case, with jobs that are quarantined after a lost worker or two, in a share of the runs."""
    draw = Stream(case.seed, "lost deliveries")
    if case.jobs is None or not draw.chance(DISTRUST_PPM):
        return case
    return replace(case, jobs=replace(case.jobs, max_lost_deliveries=draw.between(1, 2)))
