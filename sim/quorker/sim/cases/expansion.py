"""How a seed is expanded into a case, by profile: every run draws a few of the things that can go wrong (swarm).

Each purpose draws from a stream of its own, so that what is added later never moves what was drawn before: new kinds
of faults are not added to the tuples here but drawn beside them, in a stream of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

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
from quorker.sim.cases.expansion_clients import (
    ask_for_more,
    distrust,
    keep_time,
    limit_starts,
    make_batches,
    narrow_down,
    speak_by_contract,
)
from quorker.sim.cases.expansion_files import put_on_files
from quorker.sim.cases.expansion_hosts import worsen_hosts
from quorker.sim.cases.expansion_network import worsen_network
from quorker.sim.cases.expansion_steady import demand_steadiness
from quorker.sim.disks.disk import GROUPED_MAX, DiskKnobs
from quorker.sim.world.kernel import MS, SECOND, US
from quorker.sim.world.network import LATENCIES, NetworkKnobs
from quorker.sim.world.randomness import MILLION, Stream


@dataclass(frozen=True, slots=True)
class Profile:
    """How large the runs of a campaign are."""

    name: str
    sizes: tuple[int, ...]
    chaos_ms: tuple[int, int]
    faults_max: int
    ops_max: int
    churn_ppm: int  # share of runs that change the membership
    jobs: bool = False
    damage_max: int = 0  # so many times a disk loses what was synced
    files_ppm: int = 30_000  # share of runs in which disks are files
    steady_ppm: int = 100_000  # share, of those that can, that end with what a steady cluster owes
    slower: int = 1  # how much longer heartbeats and elections take than in the densest runs


SHORT: Final = Profile("short", (3, 3, 3, 3, 5, 2, 1), (300, 900), 16, 40, 200_000, steady_ppm=30_000)
CHURN: Final = Profile("churn", (3, 3, 4, 2, 1, 5), (300, 900), 16, 40, 1_000_000)
LONG: Final = Profile("long", (3, 5, 5, 4, 7), (3_000, 12_000), 80, 300, 400_000, steady_ppm=300_000)
JOBS: Final = Profile("jobs", (3, 3, 3, 1, 5), (1_500, 4_000), 20, 60, 50_000, jobs=True, slower=3)
JOBS_CHURN: Final = Profile(
    "jobs-churn", (3, 3, 2, 1, 5), (1_500, 4_000), 20, 60, 1_000_000, jobs=True, slower=3
)
DAMAGE: Final = Profile("damage", (3, 3, 3, 5), (400, 1_200), 12, 40, 0, damage_max=8)
DAMAGED_JOBS: Final = Profile(
    "damaged-jobs", (3, 3, 5), (1_500, 4_000), 12, 60, 0, jobs=True, damage_max=6, slower=3
)
PACED: Final = Profile("paced", (3,), (20_000, 60_000), 24, 160, 200_000, slower=8)  # as real clusters are
FILES: Final = Profile("files", (3, 3, 3, 5, 2, 1), (300, 900), 16, 40, 150_000, files_ppm=MILLION)
PROFILES: Final = {
    profile.name: profile
    for profile in (SHORT, CHURN, LONG, JOBS, JOBS_CHURN, DAMAGE, DAMAGED_JOBS, PACED, FILES)
}

_BRIEF: Final = 1 * MS
OF_CLIENTS: Final = (
    FaultKind.CLIENT_CRASH,
    FaultKind.CLIENT_PAUSE,
    FaultKind.LINE_RESET,
    FaultKind.LINE_STALL,
)
OF_MEMBERS: Final = (
    FaultKind.CRASH,
    FaultKind.POWER_CUT,
    FaultKind.PAUSE,
    FaultKind.ISOLATE,
    FaultKind.DEAF,
    FaultKind.MUTE,
    FaultKind.SPLIT,
    FaultKind.BRIDGE,
    FaultKind.LINK,
    FaultKind.CLOG,
    FaultKind.DISK_STALL,
    FaultKind.DISK_SLOW,
    FaultKind.FSYNC_ERROR,
    FaultKind.WALL_JUMP,
    FaultKind.CLOCK_RATE,
    FaultKind.SLOW_APPLIER,
    FaultKind.TRANSFER,
    FaultKind.CAMPAIGN,
    FaultKind.SNAPSHOT,
)
_POINTS: Final = (
    Point.PERSIST_ISSUED,
    Point.DURABLE,
    Point.RELEASED,
    Point.BEFORE_SEND,
    Point.AFTER_SEND,
    Point.BEFORE_APPLY,
    Point.AFTER_APPLY,
    Point.VOTED,
    Point.ELECTED,
    Point.SNAPSHOT_SAVED,
    Point.SNAPSHOT_RECEIVED,
)


def expand(seed: int, profile: Profile = SHORT) -> Case:
    """The case that a seed stands for."""
    draw = Stream(seed, "case", profile.name)
    voters = draw.choice(profile.sizes)
    churns = draw.chance(profile.churn_ppm)
    spares = draw.between(1, 2) if churns else 0
    chaos_ns = draw.between(*profile.chaos_ms) * MS
    jobs = _jobs(Stream(seed, "jobs knobs"), voters) if profile.jobs else None
    case = Case(
        seed=seed,
        voters=voters,
        spares=spares,
        chaos_ns=chaos_ns,
        calm_ns=(30 if profile.slower > 1 else 10) * SECOND,
        events_max=400 * profile.ops_max + 20 * chaos_ns // MS * (voters + spares),
        raft=_raft(draw, profile.slower),
        network=_network(Stream(seed, "network knobs"), chaos_ns),
        disk=_disk(Stream(seed, "disk knobs")),
        machine=_machine(Stream(seed, "machine knobs")),
        clocks=_clocks(Stream(seed, "clock knobs"), voters + spares + (jobs.clients if jobs else 0)),
        plan=_plan(Stream(seed, "plan"), profile, voters + spares, chaos_ns),
        traps=_traps(Stream(seed, "traps"), chaos_ns),
        ops=_all_ops(seed, profile, voters, spares, chaos_ns, jobs),
        dead_in_calm=0 if churns or not draw.chance(250_000) else draw.between(0, (voters - 1) // 2),
        thorough=draw.chance(100_000),
        jobs=jobs,
    )
    case = worsen_hosts(worsen_network(case, profile.faults_max), profile.faults_max)
    case = keep_time(distrust(narrow_down(speak_by_contract(ask_for_more(case, profile.ops_max)))))
    case = make_batches(case, profile.ops_max)
    case = limit_starts(case)
    case = _damaged(case, profile) if profile.damage_max else case
    case = put_on_files(case, profile.files_ppm, profile.faults_max)
    return demand_steadiness(case, profile.steady_ppm)


def _raft(draw: Stream, slower: int) -> RaftKnobs:
    heartbeat = draw.between(4, 15) * slower
    return RaftKnobs(
        election_ms=heartbeat * draw.between(4, 10),
        heartbeat_ms=heartbeat,
        pre_vote=not draw.chance(150_000),
        check_quorum=not draw.chance(150_000),
        max_append_bytes=draw.choice((1 << 20, 1 << 20, 200, 0)),
        max_inflight_messages=draw.choice((256, 8, 1)),
        max_uncommitted_bytes=draw.choice((1 << 24, 1 << 24, 1 << 10)),
        forwarding=not draw.chance(300_000),
    )


def _jobs(draw: Stream, voters: int) -> JobsKnobs:
    return JobsKnobs(
        clients=draw.between(2, 5),
        housed=draw.between(0, min(2, voters)),
        ttl_ms=draw.choice((1_000, 1_000, 1_500)),
        retransmit_ms=draw.log_uniform(30, 400),
        stuck_ms=draw.log_uniform(100, 800),
        slots=draw.between(1, 4),
        work_ms=draw.log_uniform(5, 1_500),
        piece=draw.choice((500, 2, 1)),
        rounds=draw.choice((1, 2, 2, 8)),
        history_max=draw.choice((50, 3)),
    )


def _network(draw: Stream, chaos_ns: int) -> NetworkKnobs:
    return NetworkKnobs(
        latency=draw.choice(sorted(LATENCIES)),
        median_ns=draw.log_uniform(100 * US, 8 * MS),
        loss_ppm=draw.choice((0, 0, 1_000, 20_000, 150_000)),
        duplicate_ppm=draw.choice((0, 0, 5_000, 100_000, 300_000)),
        late_ppm=draw.choice((0, 0, 5_000, 50_000, 300_000)),
        late_max_ns=draw.log_uniform(10 * MS, max(20 * MS, chaos_ns)),
        in_order=draw.chance(300_000),
    )


def _disk(draw: Stream) -> DiskKnobs:
    return DiskKnobs(
        latency=draw.choice(sorted(LATENCIES)),
        median_ns=draw.log_uniform(20 * US, 5 * MS),
        grouped_max=draw.choice((GROUPED_MAX, GROUPED_MAX, 1)),
    )


def _machine(draw: Stream) -> MachineKnobs:
    snapshots = draw.chance(500_000)
    return MachineKnobs(
        snapshot_every=draw.log_uniform(3, 40) if snapshots else 0,
        keep_entries=draw.choice((0, 0, 3, 20)),
        apply_ns=draw.choice((0, 0, 0, draw.log_uniform(100 * US, 20 * MS))),
    )


def _clocks(draw: Stream, nodes: int) -> tuple[ClockKnobs, ...]:
    if draw.chance(400_000):
        return tuple(ClockKnobs() for _ in range(nodes))
    spread = draw.choice((200, 20_000, 90_000))
    return tuple(
        ClockKnobs(draw.between(-spread, spread), draw.between(-100_000, 100_000)) for _ in range(nodes)
    )


DAMAGES: Final = (FaultKind.LOSE_SUFFIX, FaultKind.SPOIL_SNAPSHOT, FaultKind.WIPE, FaultKind.ROLL_BACK)


def _damaged(case: Case, profile: Profile) -> Case:
    """The same, with disks that lose what was synced. Then nobody may stay away in the end: all have to help."""
    draw = Stream(case.seed, "damage")
    faults = [
        Fault(
            at_ns=draw.between(0, case.chaos_ns // MS) * MS,
            kind=(kind := draw.choice(DAMAGES)),
            for_ns=draw.log_uniform(_BRIEF, case.chaos_ns // 2),
            target=draw.choice((Target.LEADER, Target.FOLLOWER, Target.ANY)),
            node=draw.between(1, case.voters),
            amount=draw.log_uniform(1, 40) if kind is FaultKind.LOSE_SUFFIX else 0,
        )
        for _ in range(draw.log_uniform(1, profile.damage_max))
    ]
    plan = sorted((*case.plan, *faults), key=lambda fault: fault.at_ns)
    return replace(case, plan=tuple(plan), dead_in_calm=0)


# What the amount of a fault may be, by kind; the others have none.
AMOUNTS: Final[dict[FaultKind, tuple[int, int]]] = {
    FaultKind.SPLIT: (0, (1 << 16) - 1),
    FaultKind.BRIDGE: (0, (1 << 16) - 1),
    FaultKind.LINK: (0, (1 << 16) - 1),
    FaultKind.DISK_SLOW: (2, 100),
    FaultKind.WALL_JUMP: (-3_600_000, 3_600_000),
    FaultKind.CLOCK_RATE: (-90_000, 90_000),
    FaultKind.SLOW_APPLIER: (100 * US, 30 * MS),
}
_LIKELY: Final = (FaultKind.CRASH, FaultKind.CRASH, FaultKind.ISOLATE, FaultKind.SPLIT, FaultKind.PAUSE)


def _plan(draw: Stream, profile: Profile, nodes: int, chaos_ns: int) -> tuple[Fault, ...]:
    """Swarm: each run draws from a few kinds only, so that rare combinations are not drowned by common ones."""
    kinds = [*draw.sample(OF_MEMBERS, draw.between(1, 4)), *draw.sample(_LIKELY, draw.between(0, 3))]
    if profile.jobs:
        kinds.extend(draw.sample(OF_CLIENTS, draw.between(0, 3)))
    faults = [_fault(draw, kinds, nodes, chaos_ns) for _ in range(draw.log_uniform(1, profile.faults_max))]
    return tuple(sorted(faults, key=lambda fault: fault.at_ns))


def _fault(draw: Stream, kinds: list[FaultKind], nodes: int, chaos_ns: int) -> Fault:
    kind = draw.choice(kinds)
    low, high = AMOUNTS.get(kind, (0, 0))
    return Fault(
        at_ns=draw.between(0, chaos_ns // MS) * MS,
        kind=kind,
        for_ns=draw.log_uniform(_BRIEF, chaos_ns),
        target=draw.choice((Target.LEADER, Target.LEADER, Target.FOLLOWER, Target.ANY)),
        node=draw.between(1, nodes),
        amount=draw.between(low, high),
    )


def _traps(draw: Stream, chaos_ns: int) -> tuple[Trap, ...]:
    if draw.chance(500_000):
        return ()
    return tuple(
        Trap(draw.choice(_POINTS), draw.log_uniform(1, 60), draw.log_uniform(_BRIEF, chaos_ns // 4))
        for _ in range(draw.between(1, 5))
    )


_CHURN: Final = (OpKind.ADD_VOTER, OpKind.ADD_VOTER, OpKind.ADD_LEARNER, OpKind.REMOVE, OpKind.SWAP)


def _all_ops(
    seed: int, profile: Profile, voters: int, spares: int, chaos_ns: int, jobs: JobsKnobs | None
) -> tuple[Op, ...]:
    if jobs is None:
        return _ops(Stream(seed, "ops"), profile, voters, spares, chaos_ns)
    ops = _client_ops(Stream(seed, "client ops"), profile, jobs.clients, chaos_ns)
    if spares:
        churn = _churn(Stream(seed, "churn beside jobs"), profile, voters + spares, chaos_ns)
        ops = tuple(sorted((*ops, *churn), key=lambda op: op.at_ns))
    return ops


def _churn(draw: Stream, profile: Profile, nodes: int, chaos_ns: int) -> list[Op]:
    return [
        Op(draw.below(chaos_ns), draw.choice(_CHURN), draw.between(1, nodes), draw.between(1, nodes))
        for _ in range(draw.between(1, max(2, profile.ops_max // 4)))
    ]


def _ops(draw: Stream, profile: Profile, voters: int, spares: int, chaos_ns: int) -> tuple[Op, ...]:
    nodes = voters + spares
    reads_ppm = draw.choice((0, 100_000, 300_000, 600_000))
    count = draw.between(profile.ops_max // 4, profile.ops_max)
    ops = [_op(draw, nodes, chaos_ns, reads_ppm) for _ in range(count)]
    if spares:
        ops.extend(_churn(draw, profile, nodes, chaos_ns))
    return tuple(sorted(ops, key=lambda op: op.at_ns))


def _op(draw: Stream, nodes: int, chaos_ns: int, reads_ppm: int) -> Op:
    kind = OpKind.READ if draw.chance(reads_ppm) else OpKind.PROPOSE
    node = 0 if draw.chance(MILLION // 2) else draw.between(1, nodes)
    return Op(draw.below(chaos_ns), kind, node, draw.choice((1, 1, 1, 4)))


_CLIENT_OPS: Final = (
    OpKind.ENQUEUE, OpKind.ENQUEUE, OpKind.ENQUEUE, OpKind.ENQUEUE, OpKind.LOCK, OpKind.LOCK, OpKind.DELETE,
    OpKind.REQUEUE, OpKind.CLOSE,
)  # fmt: skip


def _client_ops(draw: Stream, profile: Profile, clients: int, chaos_ns: int) -> tuple[Op, ...]:
    count = draw.between(profile.ops_max // 4, profile.ops_max)
    kinds = [OpKind.ENQUEUE, *draw.sample(_CLIENT_OPS, 4)]
    ops = [
        Op(draw.below(chaos_ns), draw.choice(kinds), draw.between(1, clients), draw.between(0, 1 << 16))
        for _ in range(count)
    ]
    return tuple(sorted(ops, key=lambda op: op.at_ns))
