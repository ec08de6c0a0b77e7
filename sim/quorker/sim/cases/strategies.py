"""Hypothesis strategies for whole clusters: cases that shrink to few, short, round faults over plain knobs.

Every list item stands alone, so that leaving one out changes nothing else; choices begin with the plainest; durations are
powers of two milliseconds; the seed of the world is small, because a large one cannot be made simpler. For bulk runs the
expansion of seeds is an order of magnitude cheaper: this is for tests that shall end in a readable counterexample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

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
from quorker.sim.cases.expansion import AMOUNTS, OF_CLIENTS, OF_MEMBERS
from quorker.sim.cases.expansion_network import KINDS
from quorker.sim.disks.disk import GROUPED_MAX, DiskKnobs
from quorker.sim.world.kernel import MS, SECOND, US
from quorker.sim.world.network import NetworkKnobs

SEED_MAX: Final = 15
FAULTS_MAX: Final = 12
TRAPS_MAX: Final = 3
LATENCIES: Final = ("constant", "uniform", "normal", "exponential", "heavy")
ASKED_OF_MEMBERS: Final = (OpKind.PROPOSE, OpKind.READ)
CHANGES: Final = (OpKind.ADD_VOTER, OpKind.ADD_LEARNER, OpKind.REMOVE, OpKind.SWAP)
ASKED_OF_CLIENTS: Final = (
    OpKind.ENQUEUE, OpKind.LOCK, OpKind.DELETE, OpKind.REQUEUE, OpKind.CLOSE, OpKind.CONTRACT, OpKind.OFFER,
    OpKind.FETCH, OpKind.OWNED_LOCK,
)  # fmt: skip
FAULTS: Final = AMOUNTS | KINDS


def raft_cases(chaos_ms: int = 512, ops_max: int = 30) -> st.SearchStrategy[Case]:
    """Bare members under proposals, reads and changes of membership."""
    return _raft_case(chaos_ms, ops_max)


def jobs_cases(chaos_ms: int = 2_048, ops_max: int = 30) -> st.SearchStrategy[Case]:
    """Members with a job store, and clients that enqueue, lock and work."""
    return _jobs_case(chaos_ms, ops_max)


@st.composite
def _raft_case(draw: st.DrawFn, chaos_ms: int, ops_max: int) -> Case:
    voters, spares = draw(st.sampled_from((3, 1, 2, 5))), draw(st.sampled_from((0, 0, 1, 2)))
    nodes = voters + spares
    kinds = (*ASKED_OF_MEMBERS, *CHANGES) if spares else ASKED_OF_MEMBERS
    asked = st.builds(
        Op, _instants(chaos_ms), st.sampled_from(kinds), st.integers(0, nodes), st.integers(1, nodes)
    )
    return Case(
        jobs=None,
        ops=_in_order(draw(st.lists(asked, max_size=ops_max))),
        **_common(draw, nodes, chaos_ms, (*OF_MEMBERS, *KINDS), slower=1),
        voters=voters,
        spares=spares,
    )


@st.composite
def _jobs_case(draw: st.DrawFn, chaos_ms: int, ops_max: int) -> Case:
    voters, clients = draw(st.sampled_from((3, 1, 5))), draw(st.integers(1, 4))
    asked = st.builds(
        Op,
        _instants(chaos_ms),
        st.sampled_from(ASKED_OF_CLIENTS),
        st.integers(1, clients),
        st.integers(0, 1 << 16),
    )
    knobs = JobsKnobs(
        clients=clients,
        housed=draw(st.integers(0, min(voters, clients))),
        slots=draw(st.integers(1, 4)),
        work_ms=draw(st.sampled_from((60, 8, 300, 1_500))),
        piece=draw(st.sampled_from((500, 2, 1))),
        rounds=draw(st.sampled_from((2, 1, 8))),
    )
    return Case(
        jobs=knobs,
        calm_ns=30 * SECOND,
        ops=_in_order(draw(st.lists(asked, max_size=ops_max))),
        **_common(draw, voters, chaos_ms, (*OF_MEMBERS, *KINDS, *OF_CLIENTS), slower=3),
        voters=voters,
    )


def _common(
    draw: st.DrawFn, nodes: int, chaos_ms: int, kinds: Sequence[FaultKind], slower: int
) -> dict[str, Any]:
    return {
        "seed": draw(st.integers(0, SEED_MAX)),
        "chaos_ns": chaos_ms * MS,
        "raft": draw(_raft_knobs(slower)),
        "network": draw(_network_knobs()),
        "disk": draw(_disk_knobs()),
        "machine": draw(_machine_knobs()),
        "clocks": tuple(draw(st.lists(_clock_knobs(), min_size=nodes, max_size=nodes))),
        "plan": _in_order(draw(st.lists(_faults(kinds, nodes, chaos_ms), max_size=FAULTS_MAX))),
        "traps": tuple(draw(st.lists(_traps(), max_size=TRAPS_MAX))),
        "dead_in_calm": 0,
    }


# ---------------------------------------------------------------------- what happens


def _instants(chaos_ms: int) -> st.SearchStrategy[int]:
    return st.integers(0, chaos_ms).map(lambda ms: ms * MS)


def _durations() -> st.SearchStrategy[int]:
    return st.integers(0, 9).map(lambda power: MS << power)


@st.composite
def _faults(draw: st.DrawFn, kinds: Sequence[FaultKind], nodes: int, chaos_ms: int) -> Fault:
    kind = draw(st.sampled_from(kinds))
    low, high = FAULTS.get(kind, (0, 0))
    return Fault(
        draw(_instants(chaos_ms)),
        kind,
        draw(_durations()),
        draw(st.sampled_from((Target.ANY, Target.LEADER, Target.FOLLOWER))),
        draw(st.integers(1, nodes)),
        draw(st.integers(low, high)),
    )


def _traps() -> st.SearchStrategy[Trap]:
    return st.builds(Trap, st.sampled_from(tuple(Point)), st.integers(1, 60), _durations())


def _in_order(items: list[Any]) -> tuple[Any, ...]:
    return tuple(sorted(items, key=lambda item: item.at_ns))


# ---------------------------------------------------------------------- knobs


def _raft_knobs(slower: int) -> st.SearchStrategy[RaftKnobs]:
    return st.builds(
        RaftKnobs,
        election_ms=st.sampled_from((60 * slower, 30 * slower, 120 * slower)),
        heartbeat_ms=st.sampled_from((12 * slower, 6 * slower)),
        pre_vote=st.sampled_from((True, False)),
        check_quorum=st.sampled_from((True, False)),
        max_append_bytes=st.sampled_from((1 << 20, 200, 0)),
        max_inflight_messages=st.sampled_from((256, 8, 1)),
        max_uncommitted_bytes=st.sampled_from((1 << 24, 1 << 10)),
        forwarding=st.sampled_from((True, False)),
    )


def _network_knobs() -> st.SearchStrategy[NetworkKnobs]:
    return st.builds(
        NetworkKnobs,
        latency=st.sampled_from(LATENCIES),
        median_ns=st.sampled_from((MS, 250 * US, 4 * MS)),
        loss_ppm=st.sampled_from((0, 20_000, 150_000)),
        duplicate_ppm=st.sampled_from((0, 100_000)),
        late_ppm=st.sampled_from((0, 50_000, 300_000)),
        late_max_ns=st.sampled_from((64 * MS, 512 * MS)),
        in_order=st.sampled_from((False, True)),
        wire_bytes=st.sampled_from((False, False, False, True)),
        connections=st.just(True),
    )


def _disk_knobs() -> st.SearchStrategy[DiskKnobs]:
    return st.builds(
        DiskKnobs,
        latency=st.sampled_from(LATENCIES),
        median_ns=st.sampled_from((200 * US, 4 * MS)),
        grouped_max=st.sampled_from((GROUPED_MAX, 1)),
    )


def _machine_knobs() -> st.SearchStrategy[MachineKnobs]:
    return st.builds(
        MachineKnobs,
        snapshot_every=st.sampled_from((0, 4, 16)),
        keep_entries=st.sampled_from((0, 3)),
        apply_ns=st.sampled_from((0, MS)),
    )


def _clock_knobs() -> st.SearchStrategy[ClockKnobs]:
    return st.builds(
        ClockKnobs,
        rate_ppm=st.sampled_from((0, 20_000, -20_000, 90_000, -90_000)),
        wall_offset_ms=st.sampled_from((0, 1_000, -60_000)),
    )
