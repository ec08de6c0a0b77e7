"""What a seed adds to a case's network: narrow links, resets, real bytes, and faults of kinds that came later."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from quorker.sim.cases.case import Case, Fault, FaultKind, Target
from quorker.sim.world.kernel import MS
from quorker.sim.world.randomness import Stream

FAULTS_PPM: Final = 350_000
NARROW_PPM: Final = 100_000
BYTES_PPM: Final = 120_000

KINDS: Final[dict[FaultKind, tuple[int, int]]] = {
    FaultKind.RING: (0, 1 << 16),
    FaultKind.FLAPPING: (2, 400),
    FaultKind.SWIZZLE: (0, 1 << 16),
    FaultKind.FILTER: (0, 1 << 16),
    FaultKind.THROTTLE: (4 << 10, 4 << 20),
    FaultKind.SLOW_PAIR: (100, 300_000),
    FaultKind.CONNECTION_RESET: (0, 0),
}
"""With the bounds of their amounts."""


def worsen_network(case: Case, faults_max: int) -> Case:
    """The case with more that is wrong with its network, in a share of the runs."""
    draw = Stream(case.seed, "network, further")
    network = case.network
    if draw.chance(NARROW_PPM):
        width = draw.log_uniform(20_000, 20_000_000)
        network = replace(network, bytes_per_s=width, queue_bytes=draw.log_uniform(8 << 10, 1 << 20))
    if draw.chance(BYTES_PPM):
        network = replace(network, wire_bytes=True)
    if not draw.chance(FAULTS_PPM):
        return replace(case, network=network)
    faults = draw_faults(draw, case, KINDS, max(1, faults_max // 3))
    if any(fault.kind is FaultKind.CONNECTION_RESET for fault in faults):
        network = replace(network, connections=True)
    return replace(case, network=network, plan=merged(case.plan, faults))


def draw_faults(
    draw: Stream, case: Case, kinds: dict[FaultKind, tuple[int, int]], count_max: int
) -> list[Fault]:
    """Of one or two of these kinds, a few faults."""
    some = draw.sample(list(kinds), draw.between(1, 2))
    return [_fault(draw, case, kinds, draw.choice(some)) for _ in range(draw.log_uniform(1, count_max))]


def _fault(draw: Stream, case: Case, kinds: dict[FaultKind, tuple[int, int]], kind: FaultKind) -> Fault:
    low, high = kinds[kind]
    return Fault(
        at_ns=draw.between(0, case.chaos_ns // MS) * MS,
        kind=kind,
        for_ns=draw.log_uniform(MS, case.chaos_ns),
        target=draw.choice((Target.LEADER, Target.LEADER, Target.FOLLOWER, Target.ANY)),
        node=draw.between(1, len(case.nodes)),
        amount=draw.log_uniform(low, high) if low > 0 else draw.between(low, high),
    )


def merged(plan: tuple[Fault, ...], more: list[Fault]) -> tuple[Fault, ...]:
    """In the order of time; of one instant, what was there before comes first."""
    return tuple(sorted((*plan, *more), key=lambda fault: fault.at_ns))
