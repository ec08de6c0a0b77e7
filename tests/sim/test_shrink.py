"""Failing cases become small, and stay the same failure. The bugs are planted, so the right answers are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from quorker.sim.campaign.shrink import NothingToShrink, Step, describe, shrink
from quorker.sim.campaign.smaller import size_of
from quorker.sim.cases.case import Case, ClockKnobs, Fault, FaultKind, JobsKnobs, Op, OpKind, Point, Trap
from quorker.sim.cases.expansion import expand
from quorker.sim.disks.disk import DurableLog
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.cluster import Report, run_case
from quorker.sim.world.kernel import MS
from quorker.sim.world.network import NetworkKnobs

SLOW_CLOCK = ClockKnobs(-20_000, 1_000)
Judge = Callable[[Case], str]


def judged(judge: Judge) -> Callable[[Case], Report]:
    """A run that breaks the promise that `judge` names ("" for none), without any world."""

    def run(case: Case) -> Report:
        oracle = judge(case)
        return Report(case, "", Violation(oracle, "as planted") if oracle else None, 100, case.chaos_ns, 0)

    return run


def fault(kind: FaultKind, at_ms: int = 10, for_ms: int = 37, node: int = 1) -> Fault:
    return Fault(at_ms * MS, kind, for_ms * MS, node=node)


def big_case(seed: int = 5) -> Case:
    plan = tuple(fault(kind, at) for at, kind in enumerate(FaultKind))
    traps = (Trap(Point.DURABLE, 3, MS), Trap(Point.VOTED, 1, MS))
    ops = tuple(Op(at * MS, OpKind.PROPOSE, 1 + at % 5) for at in range(40))
    return Case(seed, voters=5, spares=1, plan=plan, traps=traps, ops=ops, network=NetworkKnobs(loss_ppm=500))


def has(case: Case, *kinds: FaultKind) -> bool:
    return {*kinds} <= {each.kind for each in case.plan}


def test_only_what_is_needed_is_left() -> None:
    needs = (FaultKind.POWER_CUT, FaultKind.WALL_JUMP)
    found = shrink(
        big_case(), judged(lambda case: "lost" if has(case, *needs) and len(case.ops) >= 2 else "")
    )
    assert {each.kind for each in found.case.plan} == {*needs}
    assert len(found.case.plan) == found.faults == 2
    assert len(found.case.ops) == 2
    assert (found.case.voters, found.case.spares) == (1, 0)
    assert found.case.network == NetworkKnobs()
    assert all(each.for_ns == MS for each in found.case.plan)


def test_a_knob_that_matters_stays() -> None:
    found = shrink(big_case(), judged(lambda case: "slow" if case.network.loss_ppm else ""))
    assert found.case == Case(5, 1, chaos_ns=MS, network=NetworkKnobs(loss_ppm=1), events_max=2_000)


def test_another_broken_promise_is_another_bug() -> None:
    def judge(case: Case) -> str:
        return "first" if has(case, FaultKind.CRASH, FaultKind.PAUSE) else "second"

    found = shrink(big_case(), judged(judge))
    assert {each.kind for each in found.case.plan} == {FaultKind.CRASH, FaultKind.PAUSE}
    assert found.report.violation is not None
    assert found.report.violation.oracle == "first"


def test_other_seeds_are_tried_before_a_candidate_is_given_up() -> None:
    """With every fault it fails under any seed, with fewer only under one in three."""
    full = big_case()

    def judge(case: Case) -> str:
        lucky = case.seed % 3 == 0 or case.plan == full.plan
        return "rare" if lucky and has(case, FaultKind.DEAF) else ""

    assert shrink(full, judged(judge), reseeds=8).faults == 1
    assert shrink(full, judged(judge), reseeds=0).faults > 1


def test_members_that_go_take_their_faults_and_operations_along() -> None:
    def judge(case: Case) -> str:
        nodes = [fault.node for fault in case.plan] + [op.node for op in case.ops]
        assert max(nodes, default=0) <= case.voters + case.spares
        return "big" if case.voters >= 3 and has(case, FaultKind.MUTE) else ""

    case = replace(big_case(), plan=(fault(FaultKind.MUTE, node=6),))
    found = shrink(case, judged(judge)).case
    assert (found.voters, found.spares, found.plan[0].node) == (3, 0, 3)


def test_members_and_clients_go_apart() -> None:
    """An operation is of a client here, and of a member only if it changes the membership."""

    def judge(case: Case) -> str:
        assert case.jobs is not None
        kinds = [op.kind for op in case.ops]
        return "held" if case.jobs.clients >= 2 and {OpKind.LOCK, OpKind.REMOVE} <= {*kinds} else ""

    ops = (Op(MS, OpKind.LOCK, 4, 0), Op(MS, OpKind.REMOVE, 6), Op(MS, OpKind.CLOSE, 1, 0))
    case = replace(big_case(), jobs=JobsKnobs(clients=4, housed=3), ops=ops, clocks=(SLOW_CLOCK,) * 10)
    found = shrink(case, judged(judge)).case
    assert found.jobs == JobsKnobs(clients=2, housed=0)
    assert (found.voters, [op.node for op in found.ops]) == (1, [2, 1])


def one(case: Case) -> Fault:
    return case.plan[0]


PLANTED: dict[str, tuple[Case, Callable[[Case], bool], Callable[[Case], object], object]] = {
    "a fault lasts no longer than it must": (
        Case(1, plan=(fault(FaultKind.PAUSE, for_ms=900),)),
        lambda case: bool(case.plan) and one(case).for_ns >= 30 * MS,
        lambda case: one(case).for_ns,
        32 * MS,
    ),
    "a power of two is made shorter too": (
        Case(1, plan=(fault(FaultKind.PAUSE, for_ms=512),)),
        lambda case: bool(case.plan),
        lambda case: one(case).for_ns,
        MS,
    ),
    "what a fault does is milder": (
        Case(1, plan=(replace(fault(FaultKind.WALL_JUMP), amount=-3_000_000),)),
        lambda case: bool(case.plan) and one(case).amount <= -100,
        lambda case: -200 < one(case).amount <= -100,
        True,
    ),
    "what a fault does stays within the limits": (
        Case(1, plan=(replace(fault(FaultKind.DISK_SLOW), amount=80),)),
        lambda case: bool(case.plan),
        lambda case: one(case).amount,
        1,
    ),
    "a trap waits for no later passage than it must": (
        Case(1, traps=(Trap(Point.DURABLE, 57, MS),)),
        lambda case: any(trap.nth >= 11 for trap in case.traps),
        lambda case: case.traps[0].nth,
        11,
    ),
    "a trap keeps its member away for less": (
        Case(1, traps=(Trap(Point.DURABLE, 1, 200 * MS),)),
        lambda case: bool(case.traps),
        lambda case: case.traps[0].for_ns,
        MS,
    ),
    "operations are plain, at whole milliseconds": (
        Case(1, ops=(Op(7_654_321, OpKind.PROPOSE, 1, 4),)),
        lambda case: bool(case.ops),
        lambda case: case.ops[0].amount == 1 and not case.ops[0].at_ns % MS,
        True,
    ),
    "fewer clients, none of them in a member": (
        Case(1, jobs=JobsKnobs(clients=5, housed=2)),
        lambda case: case.jobs is not None,
        lambda case: case.jobs,
        JobsKnobs(clients=1, housed=0),
    ),
    "latencies come near to the usual ones": (
        Case(1, network=NetworkKnobs(median_ns=40 * MS)),
        lambda case: case.network.median_ns >= 3 * MS,
        lambda case: case.network.median_ns < 6 * MS,
        True,
    ),
    "losses are rarer": (
        Case(1, network=NetworkKnobs(loss_ppm=150_000)),
        lambda case: case.network.loss_ppm >= 1_000,
        lambda case: case.network.loss_ppm < 2_000,
        True,
    ),
    "of all clocks one is wrong, and less": (
        Case(1, clocks=(SLOW_CLOCK,) * 3),
        lambda case: any(clock.rate_ppm <= -500 for clock in case.clocks),
        lambda case: [clock.rate_ppm > -1_000 for clock in case.clocks if clock != ClockKnobs()],
        [True],
    ),
    "the chaos is short": (
        Case(1, ops=(Op(640 * MS, OpKind.PROPOSE, 1),)),
        lambda case: any(op.at_ns >= 100 * MS for op in case.ops),
        lambda case: case.chaos_ns < 202 * MS,
        True,
    ),
    "nothing is checked that need not be": (
        Case(1, thorough=True, steady=True),
        lambda case: case.thorough,
        lambda case: (case.thorough, case.steady),
        (True, False),
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_each_dimension_becomes_small(what: str) -> None:
    case, fails, measure, smallest = PLANTED[what]
    assert measure(case) != smallest
    found = shrink(case, judged(lambda case: "planted" if fails(case) else "")).case
    assert fails(found)
    assert measure(found) == smallest


def test_no_time_for_the_recovery_is_taken_away() -> None:
    """Whoever has none breaks every promise of progress, whatever the bug was."""
    assert shrink(big_case(), judged(lambda _: "liveness")).case.calm_ns == big_case().calm_ns


def test_some_runs_are_kept_for_what_cannot_be_left_out() -> None:
    """The list alone would take more runs than there are."""
    case = replace(big_case(), plan=tuple(fault(kind, at, for_ms=512) for at, kind in enumerate(FaultKind)))

    def judge(case: Case) -> str:
        return "many" if len(case.plan) >= 20 else ""

    found = shrink(case, judged(judge), runs_max=200)
    assert found.runs == 200
    assert any(each.for_ns == MS for each in found.case.plan)


def test_nothing_is_tried_twice() -> None:
    tried: list[Case] = []

    def run(case: Case) -> Report:
        tried.append(case)
        return judged(lambda case: "planted" if len(case.plan) > 3 and case.ops else "")(case)

    shrink(big_case(), run)
    assert len({*tried}) == len(tried)


def test_a_case_that_breaks_nothing_is_refused() -> None:
    with pytest.raises(NothingToShrink, match="seed 7 breaks no promise"):
        shrink(expand(7))


def test_the_number_of_runs_is_bounded() -> None:
    runs: list[Case] = []

    def run(case: Case) -> Report:
        runs.append(case)
        return judged(lambda _: "always")(case)

    assert shrink(big_case(), run, runs_max=4).runs == len(runs) == 4


def test_steps_tell_how_it_became_small() -> None:
    heard: list[Step] = []
    found = shrink(big_case(), judged(lambda _: "always"), on_step=heard.append)
    assert list(found.steps) == heard
    sizes = [step.size for step in heard]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == size_of(found.case)
    assert describe(found.case) == "0 operations"


def test_a_vote_that_is_not_kept_is_shrunk_to_a_few_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the real world of the simulator: the smallest case still fails, and does so every time."""

    def keep_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(DurableLog, "_keep", keep_nothing)
    seed = next(seed for seed in range(60) if run_case(expand(seed)).violation is not None)
    found = shrink(expand(seed), runs_max=200)
    assert found.faults <= 3
    again = run_case(found.case)
    assert again.digest == found.report.digest
    assert str(again.violation) == str(found.report.violation)
