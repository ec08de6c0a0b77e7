"""A simulated run as data: everything that decides it, and how a seed is expanded into it.

Search, replay and shrinking work on cases; a seed is only a short way to write one. Times are nanoseconds of true
time since the start, chances are per million.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from quorker.sim.disks.disk import DiskKnobs
from quorker.sim.world.kernel import SECOND
from quorker.sim.world.network import NetworkKnobs


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
    LINK = "link"  # one direction, from the target to `peer`; to itself: nothing is cut
    CLOG = "clog"  # everything to and from the target is held until the end
    RING = "ring"  # everybody hears a majority, and no two the same one; drawn from `amount`
    FLAPPING = "flapping"  # cut off and back every `amount`; as "leader": whoever leads by then
    SWIZZLE = "swizzle"  # half of the members, clogged at random moments and unclogged in another order
    FILTER = "filter"  # one kind of message to and from the target is lost
    THROTTLE = "throttle"  # the target's links carry `amount` bytes a second
    SLOW_PAIR = "slow-pair"  # between the target and `peer` everything takes `amount` longer
    CONNECTION_RESET = "connection-reset"  # what is under way to and from the target is lost
    DISK_STALL = "disk-stall"
    DISK_SLOW = "disk-slow"  # `amount` times slower
    FSYNC_ERROR = "fsync-error"
    WALL_JUMP = "wall-jump"  # by `amount`, for good
    CLOCK_RATE = "clock-rate"  # the monotonic clock is `amount` too fast, for good
    WALL_STEP = "wall-step"  # by `amount`, for good: a jump that is small enough to be believed
    WALL_STROBE = "wall-strobe"  # forth and back by `amount`, again and again
    WALL_SLEW = "wall-slew"  # the wall clock gains `amount`
    WALL_FREEZE = "wall-freeze"  # the wall clock stands still
    SLOW_NODE = "slow-node"  # every event takes the process `amount`
    SLOW_APPLIER = "slow-applier"  # each batch takes `amount` to apply
    TRANSFER = "transfer"  # the leader is asked to hand over to the target
    CAMPAIGN = "campaign"
    SNAPSHOT = "snapshot"
    CLIENT_CRASH = "client-crash"
    CLIENT_PAUSE = "client-pause"
    CLIENT_CLOCK_RATE = "client-clock-rate"  # `amount` too fast, for good
    CLIENT_WALL_JUMP = "client-wall-jump"  # by `amount`, for good
    LINE_RESET = "line-reset"  # the target's connections to clients break
    LINE_STALL = "line-stall"  # they deliver nothing, both ways, until the end
    LOSE_SUFFIX = "lose-suffix"  # the target crashes, and its disk has lost the last `amount` synced entries
    SPOIL_SNAPSHOT = "spoil-snapshot"  # it crashes; snapshot and log cannot be read, term and vote can
    WIPE = "wipe"  # it crashes and comes back with an empty disk
    ROLL_BACK = (
        "roll-back"  # at the end it crashes, with its disk as at the beginning; `amount` 1: nobody says so
    )
    FILE_ROT = "file-rot"  # of proven bytes at rest: one bit. From here on: only where disks are files
    FILE_STALE = "file-stale"  # a proven sector is as it was before it was written last
    FILE_MISDIRECTED = "file-misdirected"  # a proven sector was written to the place of another
    FILE_ERROR = "file-error"  # the next write fails
    FILE_FULL = "file-full"  # no room but `amount` bytes


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
    PROPOSE = "propose"  # `amount` entries
    READ = "read"
    ADD_VOTER = "add-voter"
    ADD_LEARNER = "add-learner"
    REMOVE = "remove"
    SWAP = "swap"  # joint consensus: voter `amount` out, `node` in
    ENQUEUE = "enqueue"  # from here on: asked by client `node` of the job store
    LOCK = "lock"
    DELETE = "delete"  # of the jobs that the client made, the one of number `amount`, counted round
    REQUEUE = "requeue"  # the same
    CLOSE = "close"
    CHAIN = "chain"  # jobs that wait for each other, all or none; drawn from `amount`
    BRIEF = "brief"  # a job that is evicted soon after it ended; drawn from `amount`
    RESCHEDULE = "reschedule"  # a job that the client made, by up to 127 ms; drawn from `amount`
    PAUSE_QUEUE = "pause-queue"
    PULL = "pull"  # fetch jobs instead of being given them
    COLLECT = "collect"  # counters, sets, lists, hashes and servers, in one batch; drawn from `amount`
    LEASED_LOCK = "leased-lock"  # one with a time to live
    READ_LOCAL = "read-local"  # a counter, or where bit 1 of `amount` is set the state of a job
    READ_LINEAR = "read-linear"  # the same, linearizable
    CONTRACT = "contract"  # operations of the storage contract on jobs, queues and locks, in any order; drawn from `amount`
    OFFER = "offer"  # a job that is created and enqueued by contract, in two steps
    FETCH = "fetch"  # the next job by contract: renewed, acknowledged, requeued or forgotten
    OWNED_LOCK = "owned-lock"  # by contract, with an owner instead of a session
    READ_JOB = "read-job"  # its data and parameters
    RECUR = "recur"  # a recurring job is declared, edited, paused, resumed, triggered or removed
    BATCH = "batch"  # jobs and callbacks that wait for their end, all or none; drawn from `amount`
    JOIN = "join"  # one more job for a batch that the client made; drawn from `amount`
    CALL_OFF = "call-off"  # of the batches that the client made, the one of number `amount`, counted round
    LIMITED = "limited"  # jobs with a limit, a rate or an end of their patience; drawn from `amount`


@dataclass(frozen=True, slots=True)
class Fault:
    at_ns: int
    kind: FaultKind
    for_ns: int
    target: Target = Target.ANY
    node: int = 1
    amount: int = 0
    peer: int = 0  # of `link` and `slow-pair`: the other node; left out, it is chosen by `amount`


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
    amount: int = 1  # what it means is told at the words of `OpKind`


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

    Times in milliseconds. `piece`, `history_max` and `invisibility_ms` are limits of the store, `rounds` batches in flight
    at the leader, `pending_groups` how many groups of commands wait there at most (0: as many as by default). A job that
    loses its worker `max_lost_deliveries` times is quarantined.
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
    invisibility_ms: int = 300_000
    pending_groups: int = 0
    max_lost_deliveries: int = 10


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
    steady: bool = False  # after the recovery, see that a leader stays while it can and goes when it must

    @property
    def nodes(self) -> range:
        return range(1, self.voters + self.spares + 1)

    @property
    def rates_ppm(self) -> tuple[int, ...]:
        """How much too fast (or, below 0, too slow) the members' monotonic clocks ever are; 0 is among them."""
        members = (clock.rate_ppm for clock in self.clocks[: len(self.nodes)])
        changes = (fault.amount for fault in self.plan if fault.kind is FaultKind.CLOCK_RATE)
        return (0, *members, *changes)
