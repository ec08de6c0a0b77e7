"""Runs staged step by step for one bug each: who leads, who is cut off from whom, and when, is fixed but for a few draws.

The runs in `cases` change what a profile expands to; these are built from nothing, as small as they can be.
"""

from __future__ import annotations

from typing import Final

from quorker.sim.cases.case import Case, Fault, FaultKind, Op, OpKind, RaftKnobs
from quorker.sim.disks.disk import DiskKnobs
from quorker.sim.world.kernel import MS
from quorker.sim.world.network import NetworkKnobs
from quorker.sim.world.randomness import Stream

_CHANGED_NS: Final = 100 * MS
_APPENDS: Final = 0  # the first kind of message in `naming`, as a filter counts them


def _exchange(seed: int, split_ns: int, plan: tuple[Fault, ...], network: NetworkKnobs) -> Case:
    """Member 1 leads, and 4 takes the place of 3 in one joint change; about then they are split from 2 and 3.

    So there are two majorities without a common member, of the voters before and of those after the change. Nothing else
    is asked for until the split, so that what the two sides hold differs by the change alone.
    """
    ops = [Op(at_ns, OpKind.PROPOSE, 1) for at_ns in range(30 * MS, 60 * MS, 5 * MS)]
    ops.append(Op(_CHANGED_NS, OpKind.SWAP, 4, 3))
    ops.extend(
        Op(at_ns, OpKind.PROPOSE, node) for at_ns in range(130 * MS, 300 * MS, 4 * MS) for node in (1, 2)
    )
    begin = Fault(15 * MS, FaultKind.CAMPAIGN, MS, node=1)
    split = Fault(_CHANGED_NS + split_ns, FaultKind.SPLIT, 180 * MS, amount=0b10010)
    return Case(
        seed=seed,
        spares=1,
        chaos_ns=320 * MS,
        plan=tuple(sorted((begin, split, *plan), key=lambda fault: fault.at_ns)),
        ops=tuple(ops),
        raft=RaftKnobs(election_ms=30, heartbeat_ms=6, pre_vote=False),
        network=network,
        disk=DiskKnobs(latency="exponential", median_ns=2 * MS),
    )


def exchanging_late(seed: int) -> Case:
    """Who is to go applies the change so late that it may still think of itself as a voter."""
    split_ns = Stream(seed, "exchanging late").between(2, 30) * MS
    late = Fault(_CHANGED_NS - 5 * MS, FaultKind.SLOW_APPLIER, 250 * MS, node=3, amount=100 * MS)
    return _exchange(seed, split_ns, (late,), NetworkKnobs(median_ns=MS))


def exchanging_forgetful(seed: int) -> Case:
    """Who is to go has a slow disk, dies when it has the change, comes back at once, and is the first to campaign."""
    draw = Stream(seed, "exchanging forgetful")
    split_ns = draw.between(10, 25) * MS
    plan = (
        Fault(_CHANGED_NS - 2 * MS, FaultKind.DISK_SLOW, 20 * MS, node=3, amount=4),
        Fault(_CHANGED_NS + draw.between(20, 35) * MS, FaultKind.CRASH, MS // 2, node=3),
        Fault(_CHANGED_NS + split_ns + draw.between(31, 36) * MS, FaultKind.CAMPAIGN, MS, node=3),
    )
    return _exchange(seed, split_ns, plan, NetworkKnobs(median_ns=MS))


def exchanging_unheard(seed: int) -> Case:
    """The split comes before the others have heard that the change is committed."""
    split_ns = Stream(seed, "exchanging unheard").between(16, 50) * MS // 2
    return _exchange(seed, split_ns, (), NetworkKnobs(median_ns=6 * MS))


def reborn(seed: int) -> Case:
    """A leader whose disk stalls dies, forgets what only 2 has, and leads again, while 2 is deaf and 3 gets no appends.

    What 2 had acknowledged to the former life is on the way all the while.
    """
    draw = Stream(seed, "reborn")
    died_ns = draw.between(66, 78) * MS
    plan = (
        Fault(15 * MS, FaultKind.CAMPAIGN, MS, node=1),
        Fault(60 * MS, FaultKind.FILTER, 120 * MS, node=3, amount=_APPENDS),
        Fault(60 * MS, FaultKind.DISK_STALL, died_ns + MS - 60 * MS, node=1),
        Fault(died_ns, FaultKind.CRASH, MS // 2, node=1),
        Fault(died_ns, FaultKind.DEAF, 100 * MS, node=2),
        Fault(died_ns + 2 * MS, FaultKind.CAMPAIGN, MS, node=1),
    )
    return Case(
        seed=seed,
        chaos_ns=200 * MS,
        plan=plan,
        ops=tuple(Op(at_ns, OpKind.PROPOSE, 1) for at_ns in range(30 * MS, 180 * MS, MS)),
        raft=RaftKnobs(election_ms=40, heartbeat_ms=8, pre_vote=False, check_quorum=False),
        network=NetworkKnobs(median_ns=MS, late_ppm=400_000, late_max_ns=60 * MS),
        disk=DiskKnobs(median_ns=MS // 2),
    )


def waking(seed: int) -> Case:
    """A follower wakes to the appends of a leader that only it can hear, and to those of the one that all others elect."""
    draw = Stream(seed, "waking")
    plan = (
        Fault(15 * MS, FaultKind.CAMPAIGN, MS, node=1),
        Fault(60 * MS, FaultKind.BRIDGE, 120 * MS, node=2, amount=0b10),
        Fault(draw.between(60, 80) * MS, FaultKind.PAUSE, draw.between(40, 70) * MS, node=2),
        Fault(draw.between(85, 100) * MS, FaultKind.CAMPAIGN, MS, node=3),
    )
    return Case(
        seed=seed,
        voters=5,
        chaos_ns=200 * MS,
        plan=plan,
        ops=tuple(Op(at_ns, OpKind.PROPOSE, 1) for at_ns in range(30 * MS, 130 * MS, 2 * MS)),
        raft=RaftKnobs(election_ms=60, heartbeat_ms=8, pre_vote=False, check_quorum=False),
        network=NetworkKnobs(median_ns=MS),
    )


def shuffled(seed: int) -> Case:
    """A new member is sent a long log entry by entry, over a network that lets nothing arrive in order, or only once."""
    ops = [Op(at_ns, OpKind.PROPOSE, 0, 4) for at_ns in range(100 * MS, 200 * MS, 4 * MS)]
    return Case(
        seed=seed,
        voters=1,
        spares=1,
        chaos_ns=500 * MS,
        events_max=16_000,
        ops=(*ops, Op(210 * MS, OpKind.ADD_LEARNER, 2)),
        raft=RaftKnobs(max_append_bytes=1),
        network=NetworkKnobs(latency="heavy", median_ns=2 * MS, duplicate_ppm=300_000),
    )


def overwritten(seed: int) -> Case:
    """A follower whose disk stalls holds entries of a leader that nobody else hears, and then those of the next leader.

    The first write is done before the second, and by then the entries of the next leader are committed elsewhere.
    """
    draw = Stream(seed, "overwritten")
    plan = (
        Fault(15 * MS, FaultKind.CAMPAIGN, MS, node=1),
        *(Fault(58 * MS, FaultKind.LINK, 100 * MS, node=1, peer=peer) for peer in (2, 3, 4)),
        Fault(59 * MS, FaultKind.DISK_STALL, draw.between(35, 60) * MS, node=5),
        Fault(draw.between(68, 75) * MS, FaultKind.CAMPAIGN, MS, node=2),
    )
    ops = (Op(at_ns, OpKind.PROPOSE, 1) for at_ns in range(30 * MS, 50 * MS, 5 * MS))
    return Case(
        seed=seed,
        voters=5,
        chaos_ns=200 * MS,
        plan=plan,
        ops=(*ops, Op(60 * MS, OpKind.PROPOSE, 1, 4)),
        raft=RaftKnobs(election_ms=60, heartbeat_ms=8, pre_vote=False, check_quorum=False),
        network=NetworkKnobs(median_ns=MS),
        disk=DiskKnobs(median_ns=2 * MS),
    )
