"""What a case must keep to so that it means something: limits that no type expresses, each with its own message.

Only what people write passes here; expanded seeds keep these limits by construction, which a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case, Fault, FaultKind, Op, OpKind, Target
from quorker.sim.cases.units import duration_text
from quorker.sim.oracles.steady import obstacle

NODES_MAX: Final = 16
CLIENTS_MAX: Final = 16
FASTEST_PPM: Final = 90_000  # no clock may be wrong by more, at its start or later
OF_FILES: Final = frozenset(
    {
        FaultKind.FILE_ROT,
        FaultKind.FILE_STALE,
        FaultKind.FILE_MISDIRECTED,
        FaultKind.FILE_ERROR,
        FaultKind.FILE_FULL,
    }
)
"""Faults that need disks down to their files."""
LOSSES: Final = frozenset(
    {FaultKind.WIPE, FaultKind.ROLL_BACK, FaultKind.LOSE_SUFFIX, FaultKind.SPOIL_SNAPSHOT}
)
OF_CLIENT_PROCESSES: Final = frozenset(
    {
        FaultKind.CLIENT_CRASH,
        FaultKind.CLIENT_PAUSE,
        FaultKind.CLIENT_CLOCK_RATE,
        FaultKind.CLIENT_WALL_JUMP,
    }
)
OF_LINES: Final = frozenset({FaultKind.LINE_RESET, FaultKind.LINE_STALL})
RATES: Final = frozenset({FaultKind.CLOCK_RATE, FaultKind.CLIENT_CLOCK_RATE})
OF_PAIRS: Final = frozenset({FaultKind.LINK, FaultKind.SLOW_PAIR})
OF_BARE_MEMBERS: Final = frozenset({OpKind.PROPOSE, OpKind.READ})
OF_MEMBERSHIP: Final = frozenset({OpKind.ADD_VOTER, OpKind.ADD_LEARNER, OpKind.REMOVE, OpKind.SWAP})


def check_case(case: Case, where: str) -> None:
    """Raises `InvalidInput`, naming the first key that breaks a limit."""
    for problem in _problems(case):
        raise InvalidInput(f"{where}.{problem}")


def is_meaningful(case: Case) -> bool:
    """Whether it breaks no limit."""
    return next(_problems(case), None) is None


def _problems(case: Case) -> Iterator[str]:
    yield from _of_size(case)
    yield from _of_clocks(case)
    yield from _of_jobs(case)
    for number, fault in enumerate(case.plan):
        yield from (f"plan[{number}].{each}" for each in _of_fault(fault, case))
    for number, trap in enumerate(case.traps):
        if trap.nth < 1:
            yield f"traps[{number}].nth: {trap.nth} must be at least 1"
        if trap.for_ns < 0:
            yield f"traps[{number}].for: must not be negative"
    for number, op in enumerate(case.ops):
        yield from (f"ops[{number}].{each}" for each in _of_op(op, case))


def _of_size(case: Case) -> Iterator[str]:
    if not 1 <= case.voters <= NODES_MAX:
        yield f"voters: {case.voters} must be from 1 to {NODES_MAX}"
    if not 0 <= case.spares <= NODES_MAX - case.voters:
        yield f"spares: {case.spares} must be from 0 to {NODES_MAX - case.voters}"
    if case.chaos_ns < 1 or case.calm_ns < 1:
        yield "chaos: it and the calm must be longer than nothing"
    if case.events_max < 1:
        yield f"events_max: {case.events_max} must be at least 1"
    if not 0 <= case.dead_in_calm <= (case.voters - 1) // 2:
        yield f"dead_in_calm: {case.dead_in_calm} must leave a majority of {case.voters}"
    if not 0 < case.raft.heartbeat_ms < case.raft.election_ms:
        yield "raft.heartbeat: must be above zero and below raft.election"
    if case.steady and (problem := obstacle(case)):
        yield f"steady: {problem}"


def _of_clocks(case: Case) -> Iterator[str]:
    if case.clocks and len(case.clocks) < len(case.nodes):
        yield f"clocks: {len(case.clocks)} clocks for {len(case.nodes)} nodes; give each one, or none"
    for number, clock in enumerate(case.clocks):
        if abs(clock.rate_ppm) > FASTEST_PPM:
            yield f"clocks[{number}].rate: must be within {FASTEST_PPM / 1e6} of 0"


def _of_jobs(case: Case) -> Iterator[str]:
    jobs = case.jobs
    if jobs is None:
        return
    if not 1 <= jobs.clients <= CLIENTS_MAX:
        yield f"jobs.clients: {jobs.clients} must be from 1 to {CLIENTS_MAX}"
    if not 0 <= jobs.housed <= min(jobs.clients, case.voters):
        yield f"jobs.housed: {jobs.housed} must be at most the clients and the voters"
    if jobs.invisibility_ms < 1 or jobs.pending_groups < 0:
        yield "jobs.invisibility_ms: it must be at least 1, and jobs.pending_groups must not be negative"
    if jobs.max_lost_deliveries < 1:
        yield f"jobs.max_lost_deliveries: {jobs.max_lost_deliveries} must be at least 1"


def _of_fault(fault: Fault, case: Case) -> Iterator[str]:
    if fault.at_ns < 0 or fault.for_ns < 0:
        yield "at: it and `for` must not be negative"
    if fault.node not in case.nodes:
        yield f"node: {fault.node} must be one of the nodes 1 to {len(case.nodes)}"
    if fault.kind is FaultKind.DISK_SLOW and fault.amount < 1:
        yield f"amount: {fault.amount} must be how many times slower, at least 1"
    if fault.kind in RATES and abs(fault.amount) > FASTEST_PPM:
        yield f"amount: must be within {FASTEST_PPM / 1e6} of 0, and is {fault.amount / 1e6}"
    if fault.at_ns > case.chaos_ns:
        chaos, at = duration_text(case.chaos_ns), duration_text(fault.at_ns)
        yield f"at: {at} is after the chaos of {chaos}; strike earlier, or make `chaos` longer"
    yield from _idle(fault, case)


def _idle(fault: Fault, case: Case) -> Iterator[str]:
    """Why this fault could strike nothing in this case."""
    kind = fault.kind
    if kind in OF_FILES and not case.disk.files:
        yield f"kind: {kind} strikes files only; add disk.files = true"
    if (
        kind in OF_FILES - {FaultKind.FILE_ERROR, FaultKind.FILE_FULL} | LOSSES
        and case.disk.files
        and case.spares
    ):
        yield f"kind: {kind} strikes no files where the membership can change; leave spares or disk.files out"
    if kind in OF_CLIENT_PROCESSES | OF_LINES and case.jobs is None:
        yield f"kind: {kind} is about clients of a job store; add [jobs]"
    if fault.peer and kind not in OF_PAIRS:
        yield f"peer: only {' and '.join(sorted(OF_PAIRS))} have one; leave it out"
    if fault.peer and fault.peer not in case.nodes:
        yield f"peer: {fault.peer} must be one of the nodes 1 to {len(case.nodes)}"
    if fault.peer == fault.node and fault.target is Target.ANY:
        yield f"peer: {fault.peer} is the target itself; name another node"


def _of_op(op: Op, case: Case) -> Iterator[str]:
    if op.at_ns < 0:
        yield "at: must not be negative"
    if op.kind in OF_MEMBERSHIP or case.jobs is None:
        if op.kind not in OF_MEMBERSHIP | OF_BARE_MEMBERS:
            yield f"kind: {op.kind} is for clients of a job store; add [jobs]"
        elif not 0 <= op.node <= len(case.nodes):
            yield f"node: {op.node} must be one of the nodes 1 to {len(case.nodes)}, or 0 for the leader"
    elif op.kind in OF_BARE_MEMBERS:
        yield f"kind: {op.kind} is for bare members; leave [jobs] out"
    elif not 1 <= op.node <= case.jobs.clients:
        yield f"node: {op.node} must be one of the clients 1 to {case.jobs.clients}"
