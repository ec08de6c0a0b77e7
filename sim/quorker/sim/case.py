"""A simulated run as data: everything that decides it, and how a seed is expanded into it.

Search, replay and shrinking work on cases; a seed is only a short way to write one. Times are nanoseconds of true
time since the start, chances are per million.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from quorker.sim.disk import GROUPED_MAX, DiskKnobs
from quorker.sim.kernel import MS, SECOND, US
from quorker.sim.network import LATENCIES, NetworkKnobs
from quorker.sim.randomness import MILLION, Stream


class FaultKind(StrEnum):
    """What goes wrong for a while. The target is a node, chosen when the fault strikes."""

    CRASH = "crash"
    POWER_CUT = "power-cut"  # every node at once
    PAUSE = "pause"  # the process is frozen; its disk and the network go on
    ISOLATE = "isolate"
    DEAF = "deaf"  # sends, but hears nothing
    MUTE = "mute"  # hears, but nothing it sends arrives
    SPLIT = "split"  # two groups, drawn from `amount`
    BRIDGE = "bridge"  # two groups that both see the target
    LINK = "link"  # one direction, from the target to node `amount`
    CLOG = "clog"  # everything to and from the target is held until the end
    DISK_STALL = "disk-stall"
    DISK_SLOW = "disk-slow"  # `amount` times slower
    FSYNC_ERROR = "fsync-error"
    WALL_JUMP = "wall-jump"  # by `amount` ms, for good
    CLOCK_RATE = "clock-rate"  # the monotonic clock is `amount` ppm too fast, for good
    SLOW_APPLIER = "slow-applier"  # each batch takes `amount` ns to apply
    TRANSFER = "transfer"  # the leader is asked to hand over to the target
    CAMPAIGN = "campaign"
    SNAPSHOT = "snapshot"
    CLIENT_CRASH = "client-crash"
    CLIENT_PAUSE = "client-pause"
    LINE_RESET = "line-reset"  # the target's connections to clients break
    LINE_STALL = "line-stall"  # they deliver nothing, both ways, until the end


class Target(StrEnum):
    """Whom a fault strikes, resolved when it does. `ANY` with a number names a fixed node."""

    LEADER = "leader"
    FOLLOWER = "follower"
    ANY = "any"


class Point(StrEnum):
    """Places in a driver's work at which a node can be made to crash."""

    PERSIST_ISSUED = "persist-issued"  # handed to the disk, not durable
    DURABLE = "durable"  # on disk, nothing of `then` released
    RELEASED = "released"  # `then` released, `persisted` not yet called
    BEFORE_SEND = "before-send"
    AFTER_SEND = "after-send"
    BEFORE_APPLY = "before-apply"
    AFTER_APPLY = "after-apply"  # in the state machine, `applied` not yet called
    VOTED = "voted"  # a vote for another has been sent
    ELECTED = "elected"
    SNAPSHOT_SAVED = "snapshot-saved"  # durable, `snapshot_made` not yet called
    SNAPSHOT_RECEIVED = "snapshot-received"


class OpKind(StrEnum):
    PROPOSE = "propose"
    READ = "read"
    ADD_VOTER = "add-voter"
    ADD_LEARNER = "add-learner"
    REMOVE = "remove"
    SWAP = "swap"  # joint consensus: one voter out, another in
    ENQUEUE = "enqueue"  # from here on: asked by client `node` of the job store
    LOCK = "lock"
    DELETE = "delete"
    REQUEUE = "requeue"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Fault:
    at_ns: int
    kind: FaultKind
    for_ns: int
    target: Target = Target.ANY
    node: int = 1
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Trap:
    """Crash the node that reaches `point` for the nth time in this run (all nodes counted together)."""

    point: Point
    nth: int
    for_ns: int


@dataclass(frozen=True, slots=True)
class Op:
    """Something asked of `node` (of whoever leads, if that is 0), or by the client of that number."""

    at_ns: int
    kind: OpKind
    node: int
    amount: int = 1  # PROPOSE: entries; SWAP: the node that goes


@dataclass(frozen=True, slots=True)
class ClockKnobs:
    rate_ppm: int = 0
    wall_offset_ms: int = 0


@dataclass(frozen=True, slots=True)
class RaftKnobs:
    """What the core is configured with; times in milliseconds."""

    election_ms: int = 60
    heartbeat_ms: int = 12
    pre_vote: bool = True
    check_quorum: bool = True
    max_append_bytes: int = 1 << 20
    max_inflight_messages: int = 256
    max_uncommitted_bytes: int = 1 << 24
    forwarding: bool = True


@dataclass(frozen=True, slots=True)
class MachineKnobs:
    """The replicated state machine. `snapshot_every` applied entries (0: never), keeping a tail of `keep_entries`."""

    snapshot_every: int = 0
    keep_entries: int = 0
    apply_ns: int = 0


@dataclass(frozen=True, slots=True)
class JobsKnobs:
    """Members carry a job store. Each of the first `housed` clients lives in the process of the member of its number.

    Times in milliseconds. `piece` and `history_max` are limits of the store, `rounds` batches in flight at the leader.
    """

    clients: int = 3
    housed: int = 1
    ttl_ms: int = 1_000
    retransmit_ms: int = 150
    stuck_ms: int = 400
    slots: int = 2
    work_ms: int = 60
    piece: int = 500
    rounds: int = 2
    history_max: int = 50


@dataclass(frozen=True, slots=True)
class Case:
    """One run. `spares` are nodes outside the first configuration, for membership changes."""

    seed: int
    voters: int = 3
    spares: int = 0
    chaos_ns: int = SECOND
    calm_ns: int = 10 * SECOND
    events_max: int = 60_000
    raft: RaftKnobs = field(default_factory=RaftKnobs)
    network: NetworkKnobs = field(default_factory=NetworkKnobs)
    disk: DiskKnobs = field(default_factory=DiskKnobs)
    machine: MachineKnobs = field(default_factory=MachineKnobs)
    clocks: tuple[ClockKnobs, ...] = ()
    plan: tuple[Fault, ...] = ()
    traps: tuple[Trap, ...] = ()
    ops: tuple[Op, ...] = ()
    dead_in_calm: int = 0  # so many members never come back; the others must go on without them
    thorough: bool = False  # also check every invariant of the core itself after every step
    jobs: JobsKnobs | None = None

    @property
    def nodes(self) -> range:
        return range(1, self.voters + self.spares + 1)


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


SHORT: Final = Profile("short", (3, 3, 3, 3, 5, 2, 1), (300, 900), 16, 40, 200_000)
CHURN: Final = Profile("churn", (3, 3, 4, 2, 1, 5), (300, 900), 16, 40, 1_000_000)
LONG: Final = Profile("long", (3, 5, 5, 4, 7), (3_000, 12_000), 80, 300, 400_000)
JOBS: Final = Profile("jobs", (3, 3, 3, 1, 5), (1_500, 4_000), 20, 60, 50_000, jobs=True)
PROFILES: Final = {profile.name: profile for profile in (SHORT, CHURN, LONG, JOBS)}

_BRIEF: Final = 1 * MS
_OF_CLIENTS: Final = (
    FaultKind.CLIENT_CRASH,
    FaultKind.CLIENT_PAUSE,
    FaultKind.LINE_RESET,
    FaultKind.LINE_STALL,
)
_OF_MEMBERS: Final = tuple(kind for kind in FaultKind if kind not in _OF_CLIENTS)


def expand(seed: int, profile: Profile = SHORT) -> Case:
    """The case that a seed stands for."""
    draw = Stream(seed, "case", profile.name)
    voters = draw.choice(profile.sizes)
    churns = draw.chance(profile.churn_ppm)
    spares = draw.between(1, 2) if churns else 0
    chaos_ns = draw.between(*profile.chaos_ms) * MS
    jobs = _jobs(Stream(seed, "jobs knobs"), voters) if profile.jobs else None
    return Case(
        seed=seed,
        voters=voters,
        spares=spares,
        chaos_ns=chaos_ns,
        calm_ns=(30 if profile.jobs else 10) * SECOND,
        events_max=400 * profile.ops_max + 20 * chaos_ns // MS * (voters + spares),
        raft=_raft(draw, slower=3 if profile.jobs else 1),
        network=_network(Stream(seed, "network knobs"), chaos_ns),
        disk=_disk(Stream(seed, "disk knobs")),
        machine=_machine(Stream(seed, "machine knobs")),
        clocks=_clocks(Stream(seed, "clock knobs"), voters + spares + (jobs.clients if jobs else 0)),
        plan=_plan(Stream(seed, "plan"), profile, voters + spares, chaos_ns),
        traps=_traps(Stream(seed, "traps"), chaos_ns),
        ops=_ops(Stream(seed, "ops"), profile, voters, spares, chaos_ns)
        if jobs is None
        else _client_ops(Stream(seed, "client ops"), profile, jobs.clients, chaos_ns),
        dead_in_calm=0 if churns or not draw.chance(250_000) else draw.between(0, (voters - 1) // 2),
        thorough=draw.chance(100_000),
        jobs=jobs,
    )


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


_AMOUNTS: Final[dict[FaultKind, tuple[int, int]]] = {
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
    kinds = [*draw.sample(_OF_MEMBERS, draw.between(1, 4)), *draw.sample(_LIKELY, draw.between(0, 3))]
    if profile.jobs:
        kinds.extend(draw.sample(_OF_CLIENTS, draw.between(0, 3)))
    faults = [_fault(draw, kinds, nodes, chaos_ns) for _ in range(draw.log_uniform(1, profile.faults_max))]
    return tuple(sorted(faults, key=lambda fault: fault.at_ns))


def _fault(draw: Stream, kinds: list[FaultKind], nodes: int, chaos_ns: int) -> Fault:
    kind = draw.choice(kinds)
    low, high = _AMOUNTS.get(kind, (0, 0))
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
        Trap(draw.choice(tuple(Point)), draw.log_uniform(1, 60), draw.log_uniform(_BRIEF, chaos_ns // 4))
        for _ in range(draw.between(1, 5))
    )


_CHURN: Final = (OpKind.ADD_VOTER, OpKind.ADD_VOTER, OpKind.ADD_LEARNER, OpKind.REMOVE, OpKind.SWAP)


def _ops(draw: Stream, profile: Profile, voters: int, spares: int, chaos_ns: int) -> tuple[Op, ...]:
    nodes = voters + spares
    reads_ppm = draw.choice((0, 100_000, 300_000, 600_000))
    count = draw.between(profile.ops_max // 4, profile.ops_max)
    ops = [_op(draw, nodes, chaos_ns, reads_ppm) for _ in range(count)]
    if spares:
        count = draw.between(1, max(2, profile.ops_max // 4))
        ops.extend(
            Op(draw.below(chaos_ns), draw.choice(_CHURN), draw.between(1, nodes), draw.between(1, nodes))
            for _ in range(count)
        )
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
