"""A simulator's case as real processes can run it: what they cannot do is refused, and times are stretched to their pace.

Pure: nothing is started here. What must not live here: processes, clients, and any judgement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case, FaultKind, OpKind, RaftKnobs
from quorker.sim.cases.scenario import Outcome, Scenario
from quorker.transport.node_config import TIMINGS

CHAOS_SECONDS_MAX: Final = 10.0
FAULTS: Final = frozenset(
    {
        FaultKind.CRASH,
        FaultKind.POWER_CUT,
        FaultKind.PAUSE,
        FaultKind.ISOLATE,
        FaultKind.DEAF,
        FaultKind.MUTE,
        FaultKind.SPLIT,
        FaultKind.BRIDGE,
        FaultKind.LINK,
        FaultKind.RING,
        FaultKind.FLAPPING,
        FaultKind.CLOG,
        FaultKind.SWIZZLE,
        FaultKind.CONNECTION_RESET,
        FaultKind.LINE_RESET,
        FaultKind.LINE_STALL,
        FaultKind.CLIENT_CRASH,
    }
)
OPS: Final = frozenset(
    {
        OpKind.PROPOSE,
        OpKind.READ,
        OpKind.ENQUEUE,
        OpKind.LOCK,
        OpKind.DELETE,
        OpKind.REQUEUE,
        OpKind.READ_LINEAR,
    }
)
_TIMES: Final = ("election_ms", "heartbeat_ms")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much longer everything takes than in the scenario. `stretch` is for all times of the case."""

    stretch: float

    def seconds(self, ns: int) -> float:
        return ns * self.stretch / 1e9


def pace_of(case: Case, chaos_seconds_max: float = CHAOS_SECONDS_MAX) -> Pace:
    """As many election timeouts as in the simulator, unless the chaos would last longer than `chaos_seconds_max`."""
    wanted = TIMINGS["fast"].election_ms / case.raft.election_ms
    return Pace(min(wanted, chaos_seconds_max * 1e9 / case.chaos_ns))


def require_possible(scenario: Scenario) -> None:
    """Raises `InvalidInput` that names the scenario and everything in it that real processes cannot do."""
    problems = list(dict.fromkeys(_problems(scenario)))
    if problems:
        raise InvalidInput(
            f"{scenario.name}: real processes cannot do this: {'; '.join(problems)}. "
            f"Run it in the simulator: quorker sim run {scenario.name}"
        )


def _problems(scenario: Scenario) -> Iterator[str]:
    case = scenario.case
    if scenario.expect.outcome is not Outcome.PASS:
        yield "an expected violation"
    yield from (f"the fault {fault.kind}" for fault in case.plan if fault.kind not in FAULTS)
    yield from (f"the operation {op.kind}" for op in case.ops if op.kind not in OPS)
    yield from (f"a crash at the point {trap.point}" for trap in case.traps)
    yield from _of_knobs(case)


def _of_knobs(case: Case) -> Iterator[str]:
    if case.spares:
        yield "spare members"
    if case.clocks:
        yield "clocks that are wrong"
    if case.dead_in_calm:
        yield "members that never come back"
    if case.machine.snapshot_every:
        yield "snapshots after so many entries"
    if case.disk.files:
        yield "simulated files"
    network = case.network
    if network.loss_ppm or network.duplicate_ppm or network.late_ppm or network.bytes_per_s:
        yield "a network that loses, doubles, delays or throttles single messages"
    plain = replace(case.raft, **{name: getattr(RaftKnobs(), name) for name in _TIMES})
    changed = [
        each.name
        for each in fields(RaftKnobs)
        if getattr(plain, each.name) != getattr(RaftKnobs(), each.name)
    ]
    yield from (f"raft.{name}" for name in changed)
