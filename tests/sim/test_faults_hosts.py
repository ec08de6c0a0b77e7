"""Faults of clocks and processes: each does what it says, ends when it should, and is drawn."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import RequestVote, VoteResponse
from quorker.sim.cases.case import Case, Fault, FaultKind, JobsKnobs, Op, OpKind, Point, Target, Trap
from quorker.sim.cases.expansion import JOBS, JOBS_CHURN, SHORT, Profile, expand
from quorker.sim.cases.expansion_hosts import OF_CLIENTS, OF_MEMBERS
from quorker.sim.runs.cluster import Cluster, run_case
from quorker.sim.runs.jobs_cluster import JobsCluster
from quorker.sim.world.clock import EPOCH_MS
from quorker.sim.world.kernel import MS
from quorker.sim.world.trace import Trace


def struck(kind: FaultKind, amount: int) -> Cluster:
    """Member 2 is struck at 500 ms for 200 ms."""
    fault = Fault(500 * MS, kind, 200 * MS, Target.ANY, 2, amount)
    cluster = Cluster(Case(seed=3, plan=(fault,)), Trace())
    for node in cluster.nodes.values():
        node.start()
    cluster.nemesis.start()
    return cluster


def wall_at(cluster: Cluster, at_ms: int) -> int:
    """How far the wall clock of member 2 is ahead of true time, ms."""
    cluster.world.kernel.run(until=at_ms * MS)
    return cluster.nodes[2].clock.wall_ms(at_ms * MS) - EPOCH_MS - at_ms


def test_a_strobing_wall_clock_jumps_forth_and_back_and_ends_where_it_was() -> None:
    cluster = struck(FaultKind.WALL_STROBE, 5_000)
    seen = [wall_at(cluster, at_ms) for at_ms in range(490, 760)]
    assert set(seen) == {0, 5_000}
    assert sum(one != other for one, other in pairwise(seen)) >= 6
    assert seen[-10:] == [0] * 10


@pytest.mark.parametrize(
    ("kind", "amount", "during", "after"),
    [
        (FaultKind.WALL_STEP, -300, -300, -300),
        (FaultKind.WALL_SLEW, 100_000, 10, 20),
        (FaultKind.WALL_FREEZE, 0, -100, -200),
    ],
)
def test_wall_clocks_step_slew_and_stand_still(kind: FaultKind, amount: int, during: int, after: int) -> None:
    cluster = struck(kind, amount)
    assert [wall_at(cluster, at_ms) for at_ms in (490, 600, 750, 800)] == [0, during, after, after]


def test_a_slow_node_handles_one_event_per_slot() -> None:
    cluster = struck(FaultKind.SLOW_NODE, 10_000)
    node, kernel = cluster.nodes[2], cluster.world.kernel
    kernel.run(until=505 * MS)
    handled: list[int] = []
    for number in range(4):
        node.inbox.append(partial(handled.append, number))
    seen: list[int] = []
    for at_ms in range(511, 560, 10):
        kernel.run(until=at_ms * MS)
        seen.append(len(handled))
    assert seen == sorted(seen)
    assert all(later - earlier <= 1 for earlier, later in pairwise(seen))
    kernel.run(until=750 * MS)
    assert handled == [0, 1, 2, 3]
    assert not node.paused


def test_what_arrives_at_a_frozen_member_is_one_batch_when_it_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = struck(FaultKind.PAUSE, 0)
    cluster.world.kernel.run(until=600 * MS)
    node = cluster.nodes[2]
    assert node.raft is not None
    term, write, issued = node.raft.term, node.disk.submit, list[Persist]()

    def submit(record: Persist, state: Any, now_ms: int) -> None:
        issued.append(record)
        write(record, state, now_ms)

    monkeypatch.setattr(node.disk, "submit", submit)
    node.inbox.clear()
    for later in (1, 2):
        node.deliver((RequestVote(1, 2, term + later, 100, term + later, transfer=True), None))
    assert node.paused
    assert not issued
    node.resume()
    (record,) = issued
    assert record.hard_state is not None
    assert record.hard_state.term == term + 2
    answers = [send.message for send in record.then if isinstance(send.message, VoteResponse)]
    assert [answer.term for answer in answers if answer.granted] == [term + 1, term + 2]


def test_a_slow_node_survives_its_own_crash() -> None:
    case = Case(
        seed=4,
        chaos_ns=800 * MS,
        ops=tuple(Op(at * MS, OpKind.PROPOSE, 0) for at in range(100, 700, 10)),
        plan=(
            Fault(200 * MS, FaultKind.SLOW_NODE, 500 * MS, Target.LEADER, 1, 3_000),
            Fault(300 * MS, FaultKind.CRASH, 5 * MS, Target.ANY, 1),
            Fault(310 * MS, FaultKind.CRASH, 5 * MS, Target.ANY, 2),
        ),
    )
    assert run_case(case).violation is None


def test_clients_have_clocks_of_their_own() -> None:
    plan = (
        Fault(100 * MS, FaultKind.CLIENT_CLOCK_RATE, MS, Target.ANY, 1, 50_000),
        Fault(100 * MS, FaultKind.CLIENT_WALL_JUMP, MS, Target.ANY, 1, 7_000),
    )
    case = Case(seed=1, voters=1, chaos_ns=1_100 * MS, plan=plan, jobs=JobsKnobs(clients=1, housed=0))
    cluster = JobsCluster(case, Trace())
    for node in cluster.nodes.values():
        node.start()
    cluster.begin()
    cluster.nemesis.start()
    cluster.world.kernel.run(until=1_100 * MS)
    clock = cluster.clients[1].clock
    assert clock.monotonic_ms(1_100 * MS) == 1_150
    assert clock.wall_ms(1_100 * MS) == EPOCH_MS + 8_100
    assert cluster.nodes[1].clock.monotonic_ms(1_100 * MS) == 1_100


@pytest.mark.parametrize("point", [point for point in Point if point is not Point.SNAPSHOT_RECEIVED])
def test_every_trap_can_spring_under_a_job_store(point: Point) -> None:
    """With a snapshot every few entries; a received one needs a member that lags, below."""
    case = expand(11, JOBS)
    case = replace(
        case,
        voters=3,
        plan=(),
        dead_in_calm=0,
        traps=(Trap(point, 1, 20 * MS),),
        machine=replace(case.machine, snapshot_every=5, keep_entries=0),
    )
    assert sprung(case, point)


def test_a_member_can_crash_at_a_snapshot_that_it_received() -> None:
    cut = Fault(300 * MS, FaultKind.ISOLATE, 700 * MS, Target.FOLLOWER, 2)
    case = expand(11, JOBS)
    case = replace(
        case,
        voters=3,
        plan=(cut,),
        dead_in_calm=0,
        traps=(Trap(Point.SNAPSHOT_RECEIVED, 1, 20 * MS),),
        machine=replace(case.machine, snapshot_every=3, keep_entries=0),
    )
    assert sprung(case, Point.SNAPSHOT_RECEIVED)


def sprung(case: Case, point: Point) -> bool:
    cluster = JobsCluster(case, Trace())
    armed = cluster.world.traps.armed[point]
    cluster.run()
    return not armed and cluster.world.traps.reached[point] >= 1


@pytest.mark.parametrize(("profile", "kinds"), [(SHORT, OF_MEMBERS), (JOBS, {**OF_MEMBERS, **OF_CLIENTS})])
def test_seeds_draw_every_kind(profile: Profile, kinds: dict[FaultKind, tuple[int, int]]) -> None:
    assert set(kinds) <= {fault.kind for seed in range(300) for fault in expand(seed, profile).plan}


def test_members_come_and_go_while_clients_work() -> None:
    changed = 0
    for seed in range(6):
        case = expand(seed, JOBS_CHURN)
        cluster = JobsCluster(case, Trace())
        cluster.run()
        changed += any(
            durable.snapshot.conf_state.voters != tuple(range(1, case.voters + 1))
            or any(entry.kind for entry in durable.entries)
            for durable in (node.disk.durable for node in cluster.nodes.values())
        )
    assert changed >= 4
