"""Failing cases become small, and stay the same failure. The bugs are planted, so the right answers are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from quorker.sim.campaign.shrink import NothingToShrink, Step, describe, shrink, size_of
from quorker.sim.cases.case import Case, Fault, FaultKind, JobsKnobs, Op, OpKind, Point, Trap
from quorker.sim.cases.expansion import expand
from quorker.sim.disks.disk import DurableLog
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.cluster import Report, run_case
from quorker.sim.world.kernel import MS
from quorker.sim.world.network import NetworkKnobs

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
    assert found.case == Case(5, 1, network=NetworkKnobs(loss_ppm=500), events_max=2_000)


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


def test_clients_stay_when_members_go() -> None:
    case = replace(big_case(), jobs=JobsKnobs(clients=4, housed=3), spares=0)
    found = shrink(case, judged(lambda case: "held" if case.jobs and case.ops else "")).case
    assert found.jobs == JobsKnobs()
    assert (found.voters, len(found.ops)) == (1, 1)


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
