"""An experiment: how long two processes both believe to hold one job, against the error of a wall clock.

A worker is cut off while it works; its wall clock is behind everybody else's. Measured once with log time, where no wall
clock decides anything, and once with submitter time: commands carry the wall clock of whoever sent them, and the leader
compares it with its own, as job stores on SQL and the storage that this project started from do. The process itself stops
in time on its own monotonic clock, at `LEASE_SHARE` of the lease after it sent its last renewal.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from quorker.core.jobs.store import JobStore
from quorker.core.replica import Replica
from quorker.core.session import LEASE_SHARE
from quorker.sim.cases.case import (
    Case,
    ClockKnobs,
    Fault,
    FaultKind,
    JobsKnobs,
    Op,
    OpKind,
    RaftKnobs,
    Target,
)
from quorker.sim.oracles.beliefs import Beliefs, Believer
from quorker.sim.runs.cluster import collection_paused
from quorker.sim.runs.jobs_cluster import JobsCluster
from quorker.sim.runs.replica_node import ReplicaNode, names_in
from quorker.sim.world.clock import EPOCH_MS
from quorker.sim.world.kernel import MS, SECOND
from quorker.sim.world.line import Line
from quorker.sim.world.trace import Trace
from quorker.sim.world.world import World

LEASE_MS: Final = 1_000
CUTS: Final = 4
CUT_NS: Final = 3 * SECOND
HOLDER: Final = 3  # the member that is cut off, with the client in its process


class LeaseTime(StrEnum):
    """Whose clock decides when a lease is over."""

    LOG = "log"
    SUBMITTER = "submitter"


@dataclass(frozen=True, slots=True)
class Overlap:
    """`overlap_ms`: how long, at most, two processes that both ran believed to hold the same job in one run."""

    lease_time: LeaseTime
    skew_ms: int
    seed: int
    overlap_ms: float
    handovers: int


def bound_ms(lease_time: LeaseTime, skew_ms: int, lease_ms: int = LEASE_MS) -> float:
    """What the overlap cannot exceed when the holder's wall clock is `skew_ms` behind the leader's.

    With submitter time the lease is over `lease - skew` after it was asked for; the holder believes in it for its share.
    With log time the lease is never shorter than the belief.
    """
    if lease_time is LeaseTime.LOG:
        return 0.0
    believed = lease_ms * LEASE_SHARE
    return max(0.0, believed - max(0, lease_ms - skew_ms))


def measure(lease_time: LeaseTime, skews_ms: Iterable[int], seeds: Iterable[int]) -> Iterator[Overlap]:
    """One row for each run."""
    for skew_ms in skews_ms:
        for seed in seeds:
            yield measure_one(lease_time, skew_ms, seed)


def measure_one(lease_time: LeaseTime, skew_ms: int, seed: int) -> Overlap:
    case = holder_cut_off(skew_ms, seed)
    if lease_time is LeaseTime.LOG:
        return _run(case, lease_time, skew_ms)
    with submitter_time():
        return _run(case, lease_time, skew_ms)


def holder_cut_off(skew_ms: int, seed: int) -> Case:
    """Three members with a client each; one of them is cut off again and again while its client works."""
    start_ns = SECOND + 4 * skew_ms * MS  # until then the leases are young enough to hide the skew
    cuts = tuple(
        Fault(start_ns + number * 2 * CUT_NS, FaultKind.ISOLATE, CUT_NS, Target.ANY, HOLDER)
        for number in range(CUTS)
    )
    end_ns = start_ns + 2 * CUTS * CUT_NS
    jobs = tuple(Op(at, OpKind.ENQUEUE, 1, 3 << 12 | 1) for at in range(SECOND // 2, end_ns, SECOND // 4))
    return Case(
        seed=seed,
        chaos_ns=end_ns,
        events_max=1_000_000,
        raft=RaftKnobs(election_ms=150, heartbeat_ms=30),
        clocks=tuple(ClockKnobs(0, -skew_ms if node == HOLDER else 0) for node in (1, 2, 3)),
        plan=cuts,
        ops=jobs,
        jobs=JobsKnobs(clients=3, housed=3, ttl_ms=LEASE_MS, slots=4, work_ms=400),
    )


def _run(case: Case, lease_time: LeaseTime, skew_ms: int) -> Overlap:
    with collection_paused():
        cluster = JobsCluster(case, Trace())
        cluster.jobs.judges_time = False  # this and the next two know one rule of time only
        cluster.jobs.witness = cluster.jobs.late_ends = None
        beliefs = cluster.beliefs = MeasuredBeliefs(cluster.world)
        cluster.jobs.on_revoked = beliefs.revoke
        cluster.suffer()
    return Overlap(lease_time, skew_ms, case.seed, beliefs.longest_ns / MS, beliefs.handovers)


class MeasuredBeliefs(Beliefs):
    """Measures the overlaps that would break a promise."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.longest_ns = 0
        self.handovers = 0
        self._believed: dict[str, dict[int, int]] = {}  # what -> token -> since, true time
        self._tokens: dict[str, int] = {}

    def hold(self, what: str, token: int, holder: Believer) -> None:
        del holder
        self.handovers += what in self._tokens
        self._tokens[what] = token
        self._believed.setdefault(what, {})[token] = self._world.kernel.now

    def let_go(self, what: str, token: int) -> None:
        """Whoever stops believing has overlapped with every later holder since that one began."""
        held = self._believed.get(what, {})
        since = held.pop(token, None)
        if since is None:
            return
        for later in held.values():
            self.longest_ns = max(self.longest_ns, self._world.kernel.now - max(later, since))

    def forget(self, holder: Believer) -> None:
        del holder


# ---------------------------------------------------------------------- submitter time


@contextmanager
def submitter_time() -> Generator[None]:
    """While the block runs, leases end by wall clocks: from the submitter's, when it sent, to the leader's now."""
    stamps: dict[tuple[int, int], int] = {}
    submit: Callable[[ReplicaNode, Line, bytes], None] = ReplicaNode.on_submit
    converse: Callable[[JobStore, int, int, list[Any]], None] = JobStore._converse  # pyright: ignore[reportPrivateUsage]  # where time is decided
    stamp: Callable[[Replica], tuple[int, int]] = Replica._latest_stamp  # pyright: ignore[reportPrivateUsage]  # as above

    def on_submit(self: ReplicaNode, line: Line, group: bytes) -> None:
        session_id, seqs = names_in(group)
        wall_ms = self.clock.wall_ms(self.world.kernel.now) - EPOCH_MS
        for seq in seqs:
            stamps.setdefault((session_id, seq), wall_ms)
        submit(self, line, group)

    def renew_by_stamp(self: JobStore, session_id: int, acked_below: int, numbered: list[Any]) -> None:
        session = self.sessions.get(session_id)
        before = None if session is None else session.expires_lt
        converse(self, session_id, acked_below, numbered)
        session = self.sessions.get(session_id)
        if session is not None and before is not None:
            sent = max((stamps.get((session_id, seq), 0) for seq, _ in numbered), default=0)
            session.expires_lt = max(before, sent + session.ttl_ms)

    def latest_stamp(self: Replica) -> tuple[int, int]:
        lt, wt = stamp(self)
        return max(lt, self.wall_ms - EPOCH_MS), wt

    _set_all((on_submit, renew_by_stamp, latest_stamp))
    try:
        yield
    finally:
        _set_all((submit, converse, stamp))


def _set_all(functions: tuple[Any, Any, Any]) -> None:
    places: Any = ((ReplicaNode, "on_submit"), (JobStore, "_converse"), (Replica, "_latest_stamp"))
    for (owner, name), function in zip(places, functions, strict=True):
        setattr(owner, name, function)
