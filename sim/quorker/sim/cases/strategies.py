"""Hypothesis strategies for whole clusters: cases that shrink to few, short, round faults over plain knobs.

Every list item stands alone, so that leaving one out changes nothing else; choices begin with the plainest; durations are
powers of two milliseconds; the seed of the world is small, because a large one cannot be made simpler. For bulk runs the
expansion of seeds is an order of magnitude cheaper: this is for tests that shall end in a readable counterexample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from quorker.sim.cases import expansion_files, expansion_hosts, expansion_network
from quorker.sim.cases.case import (
    Case,
    ClockKnobs,
    Fault,
    FaultKind,
    JobsKnobs,
    MachineKnobs,
    Op,
    OpKind,
    Point,
    RaftKnobs,
    Target,
    Trap,
)
from quorker.sim.cases.expansion import AMOUNTS
from quorker.sim.cases.limits import (
    LOSSES,
    OF_BARE_MEMBERS,
    OF_CLIENT_PROCESSES,
    OF_FILES,
    OF_LINES,
    OF_MEMBERSHIP,
)
from quorker.sim.cases.options import Option, options_of
from quorker.sim.disks.disk import GROUPED_MAX, DiskKnobs
from quorker.sim.oracles.steady import UNNOTICED, VOTERS_MIN
from quorker.sim.world.kernel import MS, SECOND, US
from quorker.sim.world.network import NetworkKnobs

T = TypeVar("T")

SEED_MAX: Final = 15
FAULTS_MAX: Final = 12
TRAPS_MAX: Final = 3
LATENCIES: Final = ("constant", "uniform", "normal", "exponential", "heavy")
BOUNDS: Final = {
    FaultKind.LOSE_SUFFIX: (1, 40),
    **expansion_files.TROUBLE,
    **expansion_files.DAMAGE,
    **expansion_hosts.OF_MEMBERS,
    **expansion_hosts.OF_CLIENTS,
    **expansion_network.KINDS,
    **AMOUNTS,
}
"""Of the amounts of faults; the others have none."""
CHANGES: Final = tuple(kind for kind in OpKind if kind in OF_MEMBERSHIP)
ASKED_OF_MEMBERS: Final = (OpKind.PROPOSE, OpKind.READ)
ASKED_OF_CLIENTS: Final = tuple(kind for kind in OpKind if kind not in OF_BARE_MEMBERS | OF_MEMBERSHIP)

# What each knob may be, the plainest first.
RAFT: Final = {
    "pre_vote": (True, False),
    "check_quorum": (True, False),
    "max_append_bytes": (1 << 20, 200, 0),
    "max_inflight_messages": (256, 8, 1),
    "max_uncommitted_bytes": (1 << 24, 1 << 10),
    "forwarding": (True, False),
}
TIMES: Final = {"election_ms": (60, 30, 120), "heartbeat_ms": (12, 6)}
"""Of bare members; members with a job store are slower."""
NETWORK: Final = {
    "latency": LATENCIES,
    "median_ns": (MS, 250 * US, 4 * MS),
    "loss_ppm": (0, 20_000, 150_000),
    "duplicate_ppm": (0, 100_000),
    "late_ppm": (0, 50_000, 300_000),
    "late_max_ns": (64 * MS, 512 * MS),
    "in_order": (False, True),
    "bytes_per_s": (0, 0, 0, 2_000_000, 50_000),
    "queue_bytes": (1 << 20, 8 << 10),
    "wire_bytes": (False, False, False, True),
    "connections": (True,),
}
DISK: Final = {"latency": LATENCIES, "median_ns": (200 * US, 4 * MS), "grouped_max": (GROUPED_MAX, 1)}
FILES: Final = {
    "files": (False, False, False, True),
    "segment_bytes": (4_096, 1_024, 16_384),
    "reserve_bytes": (0, 4_096),
}
MACHINE: Final = {"snapshot_every": (0, 4, 16), "keep_entries": (0, 3), "apply_ns": (0, MS)}
CLOCK: Final = {
    "rate_ppm": (0, 20_000, -20_000, 90_000, -90_000),
    "wall_offset_ms": (0, 1_000, -60_000),
}
JOBS: Final = {
    "ttl_ms": (1_000, 1_500),
    "retransmit_ms": (150, 30, 400),
    "stuck_ms": (400, 100, 800),
    "slots": (2, 1, 4),
    "work_ms": (60, 8, 300, 1_500),
    "piece": (500, 2, 1),
    "rounds": (2, 1, 8),
    "history_max": (50, 3),
    "invisibility_ms": (300_000, 1_500, 300),
    "pending_groups": (0, 0, 0, 1, 4),
    "max_lost_deliveries": (10, 1, 2),
}


@cache
def kinds_of_faults(*, jobs: bool, files: bool, spares: int, steady: bool = False) -> tuple[FaultKind, ...]:
    """What may strike such a case, as its limits say; who changes the membership keeps what it has synced."""
    beside: frozenset[FaultKind] = frozenset()
    if not jobs:
        beside |= OF_CLIENT_PROCESSES | OF_LINES
    if not files:
        beside |= OF_FILES
    if spares:
        beside |= LOSSES | OF_FILES - {FaultKind.FILE_ERROR, FaultKind.FILE_FULL}
    if steady:
        beside |= {*UNNOTICED}
    return tuple(kind for kind in FaultKind if kind not in beside)


def raft_cases(chaos_ms: int = 512, ops_max: int = 30) -> st.SearchStrategy[Case]:
    """Bare members under proposals, reads and changes of membership."""
    return _raft_case(chaos_ms, ops_max)


def jobs_cases(chaos_ms: int = 2_048, ops_max: int = 30) -> st.SearchStrategy[Case]:
    """Members with a job store, and clients that ask for all that it can do."""
    return _jobs_case(chaos_ms, ops_max)


@st.composite
def _raft_case(draw: st.DrawFn, chaos_ms: int, ops_max: int) -> Case:
    voters, spares = draw(st.sampled_from((3, 1, 2, 5))), draw(st.sampled_from((0, 0, 1, 2)))
    nodes = voters + spares
    case = Case(
        seed=draw(st.integers(0, SEED_MAX)),
        voters=voters,
        spares=spares,
        chaos_ns=chaos_ms * MS,
        raft=draw(_raft_knobs(slower=1)),
        clocks=draw(_clocks(nodes)),
        ops=_in_order(draw(st.lists(asked_of_members(chaos_ms, nodes, spares), max_size=ops_max))),
    )
    return _troubled(draw, case)


@st.composite
def _jobs_case(draw: st.DrawFn, chaos_ms: int, ops_max: int) -> Case:
    voters, spares = draw(st.sampled_from((3, 1, 2, 5))), draw(st.sampled_from((0, 0, 0, 1)))
    nodes, clients = voters + spares, draw(st.integers(1, 4))
    knobs = replace(draw(_JOBS), clients=clients, housed=draw(st.integers(0, min(voters, clients))))
    asked = asked_of_clients(chaos_ms, clients, nodes, spares)
    case = Case(
        seed=draw(st.integers(0, SEED_MAX)),
        voters=voters,
        spares=spares,
        chaos_ns=chaos_ms * MS,
        calm_ns=30 * SECOND,
        raft=draw(_raft_knobs(slower=3)),
        clocks=draw(_clocks(nodes + clients)),
        ops=_in_order(draw(st.lists(asked, max_size=ops_max))),
        jobs=knobs,
    )
    return _troubled(draw, case)


def _troubled(draw: st.DrawFn, case: Case) -> Case:
    """The case with all that is wrong with machines and network, and what is owed in the end."""
    steady = draw(st.booleans()) and case.voters >= VOTERS_MIN and not case.spares
    disk = draw(_DISK)
    kinds = kinds_of_faults(jobs=case.jobs is not None, files=disk.files, spares=case.spares, steady=steady)
    plan = draw(st.lists(faults(kinds, len(case.nodes), case.chaos_ns // MS), max_size=FAULTS_MAX))
    is_damaged = any(fault.kind in LOSSES | OF_FILES for fault in plan)
    dead_max = 0 if steady or is_damaged or case.spares else (case.voters - 1) // 2
    return replace(
        case,
        raft=replace(case.raft, pre_vote=True, check_quorum=True) if steady else case.raft,
        network=draw(_NETWORK),
        disk=disk,
        machine=draw(_MACHINE),
        plan=_in_order(plan),
        traps=tuple(draw(st.lists(_TRAPS, max_size=TRAPS_MAX))),
        dead_in_calm=min(dead_max, draw(st.integers(0, 2))),
        thorough=draw(st.booleans()),
        steady=steady,
    )


# ---------------------------------------------------------------------- what happens

# To make a strategy takes longer than to draw from it.


@cache
def _instants(chaos_ms: int) -> st.SearchStrategy[int]:
    return st.integers(0, chaos_ms).map(lambda ms: ms * MS)


_DURATIONS: Final = st.integers(0, 9).map(lambda power: MS << power)
_TRAPS: Final = st.builds(Trap, st.sampled_from(tuple(Point)), st.integers(1, 60), _DURATIONS)
_TARGETS: Final = st.sampled_from((Target.ANY, Target.LEADER, Target.FOLLOWER))


@cache
def faults(kinds: tuple[FaultKind, ...], nodes: int, chaos_ms: int) -> st.SearchStrategy[Fault]:
    """One fault of one of these kinds."""
    return st.sampled_from(kinds).flatmap(lambda kind: _faults_of(kind, nodes, chaos_ms))


@cache
def _faults_of(kind: FaultKind, nodes: int, chaos_ms: int) -> st.SearchStrategy[Fault]:
    return st.builds(
        Fault,
        _instants(chaos_ms),
        st.just(kind),
        _DURATIONS,
        _TARGETS,
        st.integers(1, nodes),
        st.integers(*BOUNDS.get(kind, (0, 0))),
    )


@cache
def asked_of_members(chaos_ms: int, nodes: int, spares: int) -> st.SearchStrategy[Op]:
    """What bare members are asked for; changes of the membership only where there is somebody to change it with."""
    plain = st.builds(
        Op, _instants(chaos_ms), st.sampled_from(ASKED_OF_MEMBERS), st.integers(0, nodes), st.integers(1, 4)
    )
    return plain | _changes(chaos_ms, nodes) if spares else plain


@cache
def asked_of_clients(chaos_ms: int, clients: int, nodes: int, spares: int) -> st.SearchStrategy[Op]:
    """What clients ask for, beside the same changes."""
    by_kind = {
        kind: st.builds(Op, _instants(chaos_ms), st.just(kind), st.integers(1, clients), amounts_of(kind))
        for kind in ASKED_OF_CLIENTS
    }
    plain = st.sampled_from(ASKED_OF_CLIENTS).flatmap(by_kind.__getitem__)
    return plain | _changes(chaos_ms, nodes) if spares else plain


def _changes(chaos_ms: int, nodes: int) -> st.SearchStrategy[Op]:
    node = st.integers(1, nodes)
    return st.builds(Op, _instants(chaos_ms), st.sampled_from(CHANGES), node, node)


def amounts_of(kind: OpKind) -> st.SearchStrategy[int]:
    """Options one by one, so that each goes back to its default alone; else a number to draw from."""
    options = options_of(kind)
    if not options:
        return st.integers(0, (1 << 16) - 1)
    return st.tuples(*map(_codes, options)).map(sum)


def _codes(option: Option) -> st.SearchStrategy[int]:
    places = sorted(range(len(option.values)), key=lambda place: place != option.default)
    return st.sampled_from([place << option.shift for place in places])


def _in_order(items: list[Any]) -> tuple[Any, ...]:
    return tuple(sorted(items, key=lambda item: item.at_ns))


# ---------------------------------------------------------------------- knobs


def _knobs(cls: Callable[..., T], table: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[T]:
    return st.builds(cls, **{name: st.sampled_from(values) for name, values in table.items()})


_NETWORK: Final = _knobs(NetworkKnobs, NETWORK)
_DISK: Final = _knobs(DiskKnobs, {**DISK, **FILES})
_MACHINE: Final = _knobs(MachineKnobs, MACHINE)
_JOBS: Final = _knobs(JobsKnobs, JOBS)
_CLOCK: Final = _knobs(ClockKnobs, CLOCK)


@cache
def _raft_knobs(slower: int) -> st.SearchStrategy[RaftKnobs]:
    times = {name: tuple(slower * ms for ms in values) for name, values in TIMES.items()}
    return _knobs(RaftKnobs, {**times, **RAFT})


@cache
def _clocks(count: int) -> st.SearchStrategy[tuple[ClockKnobs, ...]]:
    """Those of the first few may be wrong; the others are right."""
    return st.lists(_CLOCK, max_size=count).map(
        lambda wrong: (*wrong, *(ClockKnobs() for _ in range(count - len(wrong))))
    )
