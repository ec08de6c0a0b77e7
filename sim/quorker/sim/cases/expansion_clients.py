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

OF_LEADERS: Final = (OpKind.ADD_VOTER, OpKind.ADD_LEARNER, OpKind.REMOVE, OpKind.SWAP)
RECURRING_PPM: Final = 300_000
CONTRACT_PPM: Final = 350_000
LIMITED_PPM: Final = 350_000
BY_CONTRACT: Final = (
    OpKind.CONTRACT, OpKind.CONTRACT, OpKind.OFFER, OpKind.FETCH, OpKind.FETCH, OpKind.OWNED_LOCK, OpKind.READ_JOB,
)  # fmt: skip
BATCH_PPM: Final = 250_000
IN_BATCHES: Final = (OpKind.BATCH, OpKind.BATCH, OpKind.BATCH, OpKind.JOIN, OpKind.CALL_OFF, OpKind.REQUEUE)


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


def speak_by_contract(case: Case) -> Case:
    """The case, with a share of what its clients ask for said by the storage contract, in a share of the runs.

    They ask for as much as before, and all else stays as it is.
    """
    draw = Stream(case.seed, "asks, by contract")
    if case.jobs is None or not draw.chance(CONTRACT_PPM):
        return case
    share_ppm, kinds = draw.between(100_000, 500_000), draw.sample(BY_CONTRACT, draw.between(2, 5))
    ops = [
        replace(op, kind=draw.choice(kinds), amount=draw.below(1 << 16))
        if op.kind not in OF_LEADERS and draw.chance(share_ppm)
        else op
        for op in case.ops
    ]
    jobs = replace(case.jobs, invisibility_ms=draw.choice((300_000, 1_500, 300)))
    return replace(case, ops=tuple(ops), jobs=jobs)


def keep_time(case: Case) -> Case:
    """The case, with recurring jobs that its clients declare, edit, pause, trigger and remove, in a share of the runs."""
    draw = Stream(case.seed, "asks, recurring")
    if case.jobs is None or not draw.chance(RECURRING_PPM):
        return case
    latest_ns = case.chaos_ns * 3 // 4
    more = [
        Op(draw.below(latest_ns), OpKind.RECUR, draw.between(1, case.jobs.clients), draw.below(1 << 16))
        for _ in range(draw.between(3, 16))
    ]
    return replace(case, ops=tuple(sorted((*case.ops, *more), key=lambda op: op.at_ns)))


def limit_starts(case: Case) -> Case:
    """The case, with limits on a share of the jobs that its clients ask for, in a share of the runs."""
    draw = Stream(case.seed, "asks, under limits")
    if case.jobs is None or not draw.chance(LIMITED_PPM):
        return case
    share_ppm = draw.between(300_000, 900_000)
    ops = [
        replace(op, kind=OpKind.LIMITED, amount=draw.below(1 << 16))
        if op.kind is OpKind.ENQUEUE and draw.chance(share_ppm)
        else op
        for op in case.ops
    ]
    return replace(case, ops=tuple(ops))


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


def make_batches(case: Case, ops_max: int) -> Case:
    """The case, with batches of jobs that its clients make, join and call off, in a share of the runs."""
    draw = Stream(case.seed, "asks, in batches")
    if case.jobs is None or not draw.chance(BATCH_PPM):
        return case
    more = [
        Op(
            draw.below(case.chaos_ns),
            draw.choice(IN_BATCHES),
            draw.between(1, case.jobs.clients),
            draw.below(1 << 16),
        )
        for _ in range(draw.between(4, max(5, ops_max // 3)))
    ]
    return replace(case, ops=tuple(sorted((*case.ops, *more), key=lambda op: op.at_ns)))
