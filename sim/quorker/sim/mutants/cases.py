"""Runs made for bugs that ordinary runs show too rarely: each function makes a case of a seed.

A bug of elections needs elections that collide, a bug of leases needs holders that are cut off for about the length of
a lease. What is drawn here is drawn from streams of its own. The bugs themselves are in the other files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from quorker.sim.cases.case import (
    Case,
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
from quorker.sim.cases.expansion import CHURN, DAMAGE, FILES, JOBS, SHORT, Profile, expand
from quorker.sim.disks.disk import DiskKnobs
from quorker.sim.mutants.staged import (
    exchanging_forgetful,
    exchanging_late,
    exchanging_unheard,
    overwritten,
    reborn,
    shuffled,
    waking,
)
from quorker.sim.world.kernel import MS
from quorker.sim.world.network import NetworkKnobs
from quorker.sim.world.randomness import MILLION, Stream

TRIO: Final = Profile("trio", (3,), (300, 900), 1, 40, 0)
FIVE: Final = Profile("five", (5,), (300, 900), 1, 40, 0)
CONTRACT_KINDS: Final = (
    OpKind.CONTRACT, OpKind.CONTRACT, OpKind.OFFER, OpKind.FETCH, OpKind.FETCH, OpKind.OWNED_LOCK, OpKind.ENQUEUE,
    OpKind.COLLECT,
)  # fmt: skip
BATCH_KINDS: Final = (
    OpKind.BATCH, OpKind.BATCH, OpKind.BATCH, OpKind.JOIN, OpKind.CALL_OFF, OpKind.REQUEUE, OpKind.DELETE,
)  # fmt: skip
LIMITED_KINDS: Final = (
    OpKind.LIMITED, OpKind.LIMITED, OpKind.LIMITED, OpKind.LIMITED, OpKind.PULL, OpKind.DELETE, OpKind.FETCH,
)  # fmt: skip
TRIO_JOBS: Final = Profile("trio jobs", (3,), (4_000, 6_000), 1, 60, 0, jobs=True, slower=3)


def short(seed: int) -> Case:
    return expand(seed, SHORT)


def churning(seed: int) -> Case:
    """Membership changes in every run."""
    return expand(seed, CHURN)


def busy(seed: int) -> Case:
    """Members with a job store, and clients that work."""
    return expand(seed, JOBS)


def limited(seed: int) -> Case:
    """Clients that ask for jobs under limits most of the time, and move, pull and delete them."""
    draw, case = Stream(seed, "limited"), busy(seed)
    jobs = case.jobs or JobsKnobs()
    ops = [
        Op(at_ns, draw.choice(LIMITED_KINDS), draw.between(1, jobs.clients), draw.below(1 << 16))
        for at_ns in range(200 * MS, case.chaos_ns, 40 * MS)
    ]
    return replace(case, ops=tuple(ops))


def by_contract(seed: int) -> Case:
    """Clients that speak the storage contract beside plain jobs, and nothing that disturbs them."""
    draw, case = Stream(seed, "by contract"), busy(seed)
    jobs = replace(case.jobs or JobsKnobs(), invisibility_ms=300)
    ops = [
        Op(at_ns, draw.choice(CONTRACT_KINDS), draw.between(1, jobs.clients), draw.below(1 << 16))
        for at_ns in range(200 * MS, case.chaos_ns, 40 * MS)
    ]
    return replace(case, dead_in_calm=0, plan=(), traps=(), ops=tuple(ops), jobs=jobs)


def keeping_time(seed: int) -> Case:
    """Recurring jobs that clients edit, pause, trigger and remove all the time, under leaders that are cut off."""
    draw, case = Stream(seed, "keeping time"), expand(seed, replace(TRIO_JOBS, chaos_ms=(2_000, 3_000)))
    ops = [
        Op(at_ns, OpKind.RECUR, draw.between(1, 3), draw.below(1 << 16))
        for at_ns in range(200 * MS, case.chaos_ns, 60 * MS)
    ]
    plan = [
        Fault(at_ns, FaultKind.ISOLATE, draw.between(100, 300) * MS, Target.LEADER)
        for at_ns in range(500 * MS, case.chaos_ns, 700 * MS)
    ]
    return replace(
        case,
        dead_in_calm=0,
        plan=tuple(plan),
        traps=(),
        ops=tuple(ops),
        clocks=(),
        network=NetworkKnobs(median_ns=4 * MS),
        jobs=JobsKnobs(clients=3, housed=1, slots=4, work_ms=5, rounds=8),
    )


def in_batches(seed: int) -> Case:
    """Clients that make batches of jobs, and start, delete and call off what is in them; nothing disturbs them."""
    draw, case = Stream(seed, "in batches"), busy(seed)
    jobs = replace(case.jobs or JobsKnobs(), work_ms=40)
    ops = [
        Op(at_ns, draw.choice(BATCH_KINDS), draw.between(1, jobs.clients), draw.below(1 << 16))
        for at_ns in range(200 * MS, case.chaos_ns, 40 * MS)
    ]
    return replace(case, dead_in_calm=0, plan=(), traps=(), ops=tuple(ops), jobs=jobs)


def colliding(seed: int) -> Case:
    """Candidates in every term: elections are short, the network is slow and late, voters die when they have voted."""
    return _collide(expand(seed, TRIO))


def colliding_five(seed: int) -> Case:
    """The same with five members, and every second message arrives twice."""
    case = _collide(expand(seed, FIVE))
    return replace(case, network=replace(case.network, duplicate_ppm=500_000))


def colliding_politely(seed: int) -> Case:
    """The same as `colliding`, and every candidate asks first whether an election is worth it."""
    case = colliding(seed)
    return replace(case, raft=replace(case.raft, pre_vote=True))


def _collide(case: Case) -> Case:
    traps = tuple(Trap(Point.VOTED, nth, (1 + nth % 5) * MS) for nth in range(1, 30, 3))
    return replace(
        case,
        dead_in_calm=0,
        plan=(),
        traps=traps,
        raft=replace(case.raft, election_ms=18, heartbeat_ms=4, pre_vote=False),
        network=replace(
            case.network, latency="heavy", median_ns=3 * MS, late_ppm=200_000, late_max_ns=80 * MS
        ),
        disk=replace(case.disk, median_ns=MS // 10),
    )


def steady(seed: int) -> Case:
    """Three members that have nothing to suffer, until they have to keep their leader, and to replace it."""
    case = expand(seed, TRIO)
    return replace(
        case,
        steady=True,
        dead_in_calm=0,
        plan=(),
        traps=(),
        clocks=(),
        raft=replace(case.raft, pre_vote=True, check_quorum=True),
        network=NetworkKnobs(),
        disk=DiskKnobs(),
    )


def reading(seed: int) -> Case:
    """Leaders are cut off again and again, while everybody reads through everybody."""
    draw, case = Stream(seed, "reading"), expand(seed, TRIO)
    ops = [
        Op(at_ns, draw.choice((OpKind.READ, OpKind.READ, OpKind.PROPOSE)), draw.choice((0, 1, 2, 3)))
        for at_ns in range(20 * MS, case.chaos_ns, 3 * MS)
    ]
    plan = [
        Fault(at_ns, FaultKind.ISOLATE, draw.between(20, 80) * MS, Target.LEADER)
        for at_ns in range(60 * MS, case.chaos_ns, 90 * MS)
    ]
    return replace(
        case,
        dead_in_calm=0,
        traps=(),
        plan=tuple(plan),
        ops=tuple(ops),
        raft=replace(case.raft, election_ms=20, heartbeat_ms=4),
        network=replace(case.network, median_ns=MS),
    )


def forwarded_reads(seed: int) -> Case:
    """Followers that read and restart within milliseconds, while answers to their former lives are on the way."""
    draw = Stream(seed, "forwarded reads")
    ops: list[Op] = []
    at_ns = 150 * MS
    while at_ns < 900 * MS:
        kind = OpKind.READ if draw.chance(600_000) else OpKind.PROPOSE
        ops.append(Op(at_ns, kind, draw.between(1, 3)))
        at_ns += draw.between(1, 6) * MS
    plan = [
        Fault(
            draw.between(150, 900) * MS,
            FaultKind.CRASH,
            draw.log_uniform(MS, 8 * MS),
            Target.FOLLOWER,
            draw.between(1, 3),
        )
        for _ in range(25)
    ]
    return Case(
        seed=seed,
        chaos_ns=900 * MS,
        plan=tuple(sorted(plan, key=lambda fault: fault.at_ns)),
        ops=tuple(ops),
        raft=RaftKnobs(election_ms=80, heartbeat_ms=8),
        network=NetworkKnobs(late_ppm=200_000, late_max_ns=60 * MS),
        disk=DiskKnobs(median_ns=MS // 10),
    )


CUTS: Final = (
    FaultKind.ISOLATE,
    FaultKind.DEAF,
    FaultKind.LINE_STALL,
    FaultKind.LINE_STALL,
    FaultKind.CLIENT_PAUSE,
)


def cut_off(seed: int) -> Case:
    """Whoever works is cut off for about the length of a lease, again and again."""
    draw, case = Stream(seed, "cut off"), expand(seed, TRIO_JOBS)
    plan = [
        Fault(at_ns, draw.choice(CUTS), draw.between(300, 2_000) * MS, Target.ANY, draw.between(1, 3))
        for at_ns in range(300 * MS, case.chaos_ns, 350 * MS)
    ]
    return replace(
        case,
        plan=tuple(plan),
        traps=(),
        dead_in_calm=0,
        raft=replace(case.raft, election_ms=150, heartbeat_ms=30, pre_vote=True, check_quorum=True),
        network=NetworkKnobs(),
        disk=DiskKnobs(),
        jobs=JobsKnobs(clients=4, housed=2, slots=2, work_ms=600, stuck_ms=300),
    )


def overloaded(seed: int) -> Case:
    """The same, one round at a time over a slow disk, with little room, while everybody asks for more than that bears."""
    draw, case = Stream(seed, "overloaded"), cut_off(seed)
    ops = [
        Op(at_ns, OpKind.ENQUEUE, draw.between(1, 4), draw.below(1 << 16))
        for at_ns in range(100 * MS, case.chaos_ns, 5 * MS)
    ]
    return replace(
        case,
        ops=tuple(ops),
        disk=DiskKnobs(median_ns=8 * MS),
        events_max=4 * case.events_max,
        jobs=replace(case.jobs or JobsKnobs(), rounds=1, work_ms=5, pending_groups=3),
    )


def handing_over(seed: int) -> Case:
    """Workers die, and leaders are asked again and again to hand over to a member that cannot take over."""
    case = cut_off(seed)
    plan = [
        *(Fault(at, FaultKind.CLIENT_CRASH, 3_000 * MS) for at in range(300 * MS, case.chaos_ns, 700 * MS)),
        *(Fault(at, FaultKind.DEAF, 280 * MS, node=3) for at in range(300 * MS, case.chaos_ns, 400 * MS)),
        *(Fault(at, FaultKind.TRANSFER, MS, node=3) for at in range(320 * MS, case.chaos_ns, 400 * MS)),
    ]
    return replace(case, plan=tuple(sorted(plan, key=lambda fault: fault.at_ns)))


def diverging(seed: int) -> Case:
    """Leaders are cut off one after the other while everybody proposes, one entry per append, over a late network."""
    draw, case = Stream(seed, "diverging"), expand(seed, FIVE if seed % 2 else TRIO)
    ops = [
        Op(at_ns, OpKind.PROPOSE, draw.between(1, case.voters), draw.choice((1, 1, 4)))
        for at_ns in range(20 * MS, case.chaos_ns, 2 * MS)
    ]
    plan = [
        Fault(
            at_ns, draw.choice((FaultKind.ISOLATE, FaultKind.MUTE)), draw.between(20, 120) * MS, Target.LEADER
        )
        for at_ns in range(60 * MS, case.chaos_ns, 50 * MS)
    ]
    return replace(
        case,
        dead_in_calm=0,
        events_max=4 * case.events_max,
        traps=(),
        plan=tuple(plan),
        ops=tuple(ops),
        raft=replace(case.raft, election_ms=20, heartbeat_ms=4, check_quorum=False, max_append_bytes=0),
        network=replace(case.network, median_ns=MS, late_ppm=100_000, late_max_ns=100 * MS, loss_ppm=50_000),
    )


def swapping(seed: int) -> Case:
    """Voters are exchanged all the time, by leaders that are cut off, among members that apply late."""
    draw, case = Stream(seed, "swapping"), expand(seed, CHURN)
    nodes = case.voters + case.spares
    ops = [
        Op(at_ns, draw.choice(_EXCHANGES), draw.between(1, nodes), draw.between(1, nodes))
        for at_ns in range(40 * MS, case.chaos_ns, 8 * MS)
    ]
    plan: list[Fault] = []
    for at_ns in range(60 * MS, case.chaos_ns, 60 * MS):
        kind = draw.choice((FaultKind.ISOLATE, FaultKind.CRASH, FaultKind.SPLIT, FaultKind.SLOW_APPLIER))
        amount = 20 * MS if kind is FaultKind.SLOW_APPLIER else draw.below(1 << 16)
        target = draw.choice((Target.LEADER, Target.ANY))
        plan.append(Fault(at_ns, kind, draw.between(10, 100) * MS, target, draw.between(1, nodes), amount))
    return replace(
        case,
        plan=tuple(plan),
        traps=(),
        ops=tuple(ops),
        raft=replace(case.raft, election_ms=20, heartbeat_ms=4),
        network=replace(case.network, median_ns=MS),
    )


_EXCHANGES: Final = (OpKind.SWAP, OpKind.SWAP, OpKind.ADD_VOTER, OpKind.REMOVE, OpKind.PROPOSE)


def installing(seed: int) -> Case:
    """Snapshots every few entries and no log behind them, for members that are cut off and lose what they had."""
    case = diverging(seed)
    return replace(
        case,
        machine=MachineKnobs(snapshot_every=3, apply_ns=MS),
        raft=replace(case.raft, max_append_bytes=200),
        network=replace(case.network, duplicate_ppm=200_000),
        disk=replace(case.disk, median_ns=2 * MS),
    )


def breaking(seed: int) -> Case:
    """Members speak in real bytes, over connections that are reset all the time; snapshots and exchanged voters too."""
    draw, case = Stream(seed, "breaking"), swapping(seed)
    resets = [
        Fault(at_ns, FaultKind.CONNECTION_RESET, MS, node=draw.between(1, len(case.nodes)))
        for at_ns in range(20 * MS, case.chaos_ns, 15 * MS)
    ]
    return replace(
        case,
        plan=tuple(sorted((*case.plan, *resets), key=lambda fault: fault.at_ns)),
        machine=MachineKnobs(snapshot_every=6),
        network=replace(case.network, wire_bytes=True, connections=True),
    )


def damaged(seed: int) -> Case:
    """Leaders crash and are damaged again and again, so that what a voter forgot matters at once."""
    case = expand(seed, replace(DAMAGE, sizes=(3,)))
    kinds = (FaultKind.LOSE_SUFFIX, FaultKind.CRASH, FaultKind.WIPE, FaultKind.ISOLATE)
    targets = (Target.FOLLOWER, Target.LEADER)
    plan = tuple(
        Fault(at_ns, kinds[place % 4], 30 * MS, targets[place % 2], 1 + place % 3, 40)
        for place, at_ns in enumerate(range(80 * MS, case.chaos_ns, 45 * MS))
    )
    return replace(case, plan=plan, traps=(), raft=replace(case.raft, election_ms=24, heartbeat_ms=5))


def contending(seed: int) -> Case:
    """Everybody wants the same two locks, waits for them, and is cut off meanwhile."""
    draw, case = Stream(seed, "contending"), cut_off(seed)
    ops = [
        Op(at_ns, OpKind.LOCK, draw.between(1, 4), draw.below(1 << 10) | 2)
        for at_ns in range(200 * MS, case.chaos_ns, 30 * MS)
    ]
    return replace(case, ops=tuple(ops))


def lagging(seed: int) -> Case:
    """Members with a job store that are cut off and take over snapshots, on slow disks, while the others go on."""
    draw, case = Stream(seed, "lagging"), cut_off(seed)
    plan = [
        Fault(at_ns, FaultKind.ISOLATE, draw.between(100, 400) * MS, Target.FOLLOWER, draw.between(1, 3))
        for at_ns in range(300 * MS, case.chaos_ns, 400 * MS)
    ]
    return replace(
        case,
        plan=tuple(plan),
        machine=MachineKnobs(snapshot_every=8),
        disk=DiskKnobs(median_ns=8 * MS),
    )


def on_files(seed: int) -> Case:
    """Disks down to their files."""
    return expand(seed, FILES)


FILES_TRIO: Final = Profile("files trio", (3,), (300, 400), 1, 40, 0, files_ppm=MILLION)


def dying(seed: int) -> Case:
    """Members with slow disks die in turn, are back at once and die again, while everybody proposes."""
    case = expand(seed, FILES_TRIO)
    plan = [
        Fault(at_ns, FaultKind.CRASH, MS, node=1 + at_ns // MS % 3)
        for at_ns in range(30 * MS, case.chaos_ns, 20 * MS)
    ]
    ops = [Op(at_ns, OpKind.PROPOSE, 1 + at_ns // MS % 3) for at_ns in range(20 * MS, case.chaos_ns, 2 * MS)]
    return replace(
        case,
        dead_in_calm=0,
        plan=tuple(plan),
        traps=(),
        ops=tuple(ops),
        raft=replace(case.raft, election_ms=20, heartbeat_ms=4, pre_vote=True),
        network=NetworkKnobs(median_ns=MS // 4),
        disk=replace(case.disk, segment_bytes=1_024, median_ns=2 * MS, latency="uniform"),
    )


def saving(seed: int) -> Case:
    """The same, with snapshots every few entries."""
    return replace(dying(seed), machine=MachineKnobs(snapshot_every=4))


BLOWS: Final = (FaultKind.FILE_ROT, FaultKind.FILE_ROT, FaultKind.FILE_STALE, FaultKind.FILE_MISDIRECTED)


def damaging(seed: int) -> Case:
    """A disk is damaged and its member dies, in every run."""
    draw, case = Stream(seed, "damaging"), expand(seed, FILES_TRIO)
    at_ns = draw.between(case.chaos_ns // 4, case.chaos_ns)
    blow = Fault(at_ns, draw.choice(BLOWS), MS, node=draw.between(1, 3), amount=draw.below(1 << 31) * 2 + 1)
    return replace(case, dead_in_calm=0, plan=(blow,), traps=())


def wiped(seed: int) -> Case:
    """A disk is wiped, and its member dies again and again while it rejoins."""
    draw, case = Stream(seed, "wiped"), expand(seed, FILES_TRIO)
    node, at_ns = draw.between(1, 3), draw.between(60, 150) * MS
    deaths = (Fault(at_ns + after * MS, FaultKind.CRASH, MS, node=node) for after in range(4, 60, 6))
    return replace(
        case, dead_in_calm=0, plan=(Fault(at_ns, FaultKind.WIPE, MS, node=node), *deaths), traps=()
    )


def napping(seed: int) -> Case:
    """Workers freeze after they have asked for something, wake to the answer, and then nobody hears of them."""
    draw, case = Stream(seed, "napping"), expand(seed, TRIO_JOBS)
    plan: list[Fault] = []
    ops = [
        Op(at_ns, OpKind.ENQUEUE, draw.between(1, 4), draw.below(1 << 16))
        for at_ns in range(200 * MS, case.chaos_ns, 150 * MS)
    ]
    for at_ns in range(800 * MS, case.chaos_ns, 2_400 * MS):
        worker = draw.between(2, 3)
        ops.append(Op(at_ns - 2 * MS, OpKind.ENQUEUE, worker + 1, draw.below(1 << 16)))
        plan.append(Fault(at_ns, FaultKind.CLIENT_PAUSE, draw.between(250, 700) * MS, node=worker))
        plan.extend(
            Fault(at_ns + 60 * MS, FaultKind.LINE_STALL, 1_800 * MS, node=member) for member in (1, 2, 3)
        )
    return replace(
        case,
        plan=tuple(plan),
        ops=tuple(sorted(ops, key=lambda op: op.at_ns)),
        traps=(),
        clocks=(),
        dead_in_calm=0,
        raft=RaftKnobs(election_ms=150, heartbeat_ms=30),
        network=NetworkKnobs(median_ns=2 * MS),
        disk=DiskKnobs(median_ns=4 * MS),
        jobs=JobsKnobs(clients=4, housed=2, slots=4, work_ms=600, stuck_ms=1_500),
    )


def asking(seed: int) -> Case:
    """Clients at members that are cut off, frozen or late read from their memory all the time, while others write."""
    draw, case = Stream(seed, "asking"), expand(seed, JOBS)
    assert case.jobs is not None
    jobs = replace(case.jobs, clients=5, housed=3, stuck_ms=10_000)
    kinds = (OpKind.READ_LOCAL, OpKind.READ_LOCAL, OpKind.READ_LINEAR, OpKind.ENQUEUE)
    ops = [
        Op(at_ns, draw.choice(kinds), draw.between(1, 5), draw.below(1 << 16))
        for at_ns in range(200 * MS, 1_500 * MS, 7 * MS)
    ]
    ways = (FaultKind.ISOLATE, FaultKind.PAUSE, FaultKind.DEAF)
    plan = [
        Fault(draw.between(300, 1_200) * MS, draw.choice(ways), draw.between(100, 600) * MS, Target.LEADER)
        for _ in range(3)
    ]
    return replace(
        case,
        voters=3,
        spares=0,
        dead_in_calm=0,
        chaos_ns=1_500 * MS,
        jobs=jobs,
        ops=tuple(ops),
        plan=tuple(sorted(plan, key=lambda fault: fault.at_ns)),
        traps=(),
        clocks=(),
    )


def roaming(seed: int) -> Case:
    """The same, by clients that turn to another member whenever one is silent for a moment."""
    case = asking(seed)
    assert case.jobs is not None
    return replace(case, jobs=replace(case.jobs, housed=0, stuck_ms=60))


GENERATORS: Final[dict[str, Callable[[int], Case]]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        short,
        churning,
        busy,
        by_contract,
        keeping_time,
        in_batches,
        limited,
        colliding,
        colliding_five,
        colliding_politely,
        steady,
        reading,
        forwarded_reads,
        cut_off,
        overloaded,
        handing_over,
        diverging,
        swapping,
        installing,
        breaking,
        damaged,
        contending,
        lagging,
        on_files,
        dying,
        saving,
        damaging,
        wiped,
        exchanging_late,
        exchanging_forgetful,
        exchanging_unheard,
        napping,
        reborn,
        waking,
        overwritten,
        shuffled,
        asking,
        roaming,
    )
}
"""By name. A run of any of them, with no bug planted, breaks no promise."""
