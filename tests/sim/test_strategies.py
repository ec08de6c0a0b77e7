"""Whole clusters by Hypothesis: every drawn case keeps all promises, and a planted bug ends in a small counterexample.

The number of examples is the profile's: few at every change, thousands in a campaign (`make hypothesis`).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.strategies import SearchStrategy

from quorker.sim.campaign.shrink import describe
from quorker.sim.cases.case import (
    Case,
    ClockKnobs,
    FaultKind,
    JobsKnobs,
    MachineKnobs,
    OpKind,
    RaftKnobs,
)
from quorker.sim.cases.expansion import PROFILES, expand
from quorker.sim.cases.limits import check_case
from quorker.sim.cases.options import options_of
from quorker.sim.cases.strategies import (
    ASKED_OF_CLIENTS,
    ASKED_OF_MEMBERS,
    BOUNDS,
    CHANGES,
    CLOCK,
    DISK,
    FILES,
    JOBS,
    MACHINE,
    NETWORK,
    RAFT,
    TIMES,
    amounts_of,
    asked_of_clients,
    asked_of_members,
    faults,
    jobs_cases,
    kinds_of_faults,
    raft_cases,
)
from quorker.sim.disks.disk import DiskKnobs, DurableLog
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.network import NetworkKnobs

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)


@settings(suppress_health_check=SLOW)
@given(raft_cases())
def test_raft_members_keep_their_promises(case: Case) -> None:
    report = run_case(case)
    assert report.violation is None, f"{report.violation}: {describe(case)}"


@settings(suppress_health_check=SLOW, max_examples=settings().max_examples // 4)
@given(jobs_cases())
def test_members_with_jobs_keep_their_promises(case: Case) -> None:
    report = run_case(case)
    assert report.violation is None, f"{report.violation}: {describe(case)}"


def test_a_planted_bug_shrinks_to_a_readable_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(DurableLog, "_keep", keep_nothing)
    found = find(
        raft_cases(),
        lambda case: run_case(case).violation is not None,
        settings=settings(
            max_examples=200,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate, Phase.shrink),
        ),
    )
    assert len(found.plan) + len(found.traps) <= 3
    assert not found.ops


# ---------------------------------------------------------------------- nothing that seeds draw is missing

TABLES: Final[dict[type[Any], dict[str, tuple[Any, ...]]]] = {
    RaftKnobs: {**RAFT, **TIMES},
    NetworkKnobs: NETWORK,
    DiskKnobs: {**DISK, **FILES},
    MachineKnobs: MACHINE,
    JobsKnobs: {**JOBS, "clients": (), "housed": ()},
    ClockKnobs: CLOCK,
}
GROUPS: Final = {"raft", "network", "disk", "machine"}
FLAGS: Final = {"dead_in_calm", "thorough", "steady", "spares", "voters", "jobs"}
OTHERS: Final = {"seed", "chaos_ns", "calm_ns", "events_max", "plan", "traps", "ops", "clocks"}
T = TypeVar("T")


@pytest.fixture(scope="module")
def expanded() -> list[Case]:
    return [expand(seed, profile) for profile in PROFILES.values() for seed in range(150)]


def drawn(strategy: SearchStrategy[T], count: int) -> list[T]:
    """So many examples, the same ones every time."""
    found: list[T] = []

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, phases=(Phase.generate,),
        suppress_health_check=SLOW,
    )  # fmt: skip
    @given(strategy)
    def keep(item: T) -> None:
        found.append(item)

    keep()
    return found


@pytest.fixture(scope="module")
def examples() -> list[Case]:
    return drawn(raft_cases(ops_max=2), 150) + drawn(jobs_cases(ops_max=2), 150)


def knobs_of(case: Case, cls: type[Any]) -> list[Any]:
    sections = (case.raft, case.network, case.disk, case.machine, case.jobs, *case.clocks)
    return [section for section in sections if isinstance(section, cls)]


def test_every_knob_that_seeds_vary_has_its_choices(expanded: list[Case]) -> None:
    for cls, table in TABLES.items():
        for each in fields(cls):
            values = {getattr(knobs, each.name) for case in expanded for knobs in knobs_of(case, cls)}
            assert len(values) < 2 or each.name in table, f"{cls.__name__}.{each.name} is not in the strategy"
        assert {*table} <= {each.name for each in fields(cls)}


def test_every_field_of_a_case_was_thought_of() -> None:
    """Whoever adds one draws it, or says here that it is no choice."""
    assert {each.name for each in fields(Case)} == GROUPS | FLAGS | OTHERS


def test_every_choice_is_drawn(examples: list[Case]) -> None:
    for cls, table in TABLES.items():
        for name, choices in table.items():
            seen = {getattr(knobs, name) for case in examples for knobs in knobs_of(case, cls)}
            assert {*choices} <= seen, f"{cls.__name__}.{name}: of {choices} only {seen}"
    for name in FLAGS:
        assert len({str(getattr(case, name)) for case in examples}) > 1, name


def test_every_kind_of_fault_is_drawn_that_seeds_draw(expanded: list[Case]) -> None:
    kinds = kinds_of_faults(jobs=True, files=True, spares=0)
    assert {*kinds} == {*FaultKind}, "even those that no seed draws"
    for kind in kinds:
        assert {fault.kind for fault in drawn(faults((kind,), 3, 500), 3)} == {kind}
    for case in expanded:
        jobs, files = case.jobs is not None, case.disk.files
        allowed = kinds_of_faults(jobs=jobs, files=files, spares=case.spares, steady=case.steady)
        assert {fault.kind for fault in case.plan} <= {*allowed}


def test_every_kind_of_operation_is_drawn() -> None:
    assert {*ASKED_OF_MEMBERS, *CHANGES, *ASKED_OF_CLIENTS} == {*OpKind}
    for asked, kinds in (
        (asked_of_members(500, 4, 0), ASKED_OF_MEMBERS),
        (asked_of_members(500, 4, 1), (*ASKED_OF_MEMBERS, *CHANGES)),
        (asked_of_clients(500, 2, 4, 0), ASKED_OF_CLIENTS),
        (asked_of_clients(500, 2, 4, 1), (*ASKED_OF_CLIENTS, *CHANGES)),
    ):
        found = {op.kind for op in drawn(asked, 100)}
        assert found <= {*kinds}
        assert len(found) >= len(kinds) // 2


@pytest.mark.parametrize("kind", [kind for kind in OpKind if options_of(kind)])
def test_every_option_of_an_operation_is_drawn(kind: OpKind) -> None:
    amounts = drawn(amounts_of(kind), 100)
    for option in options_of(kind):
        codes = {option.write(amount) for amount in amounts}
        assert len(codes) >= min(len(option.values), 4), option.name
        assert max(codes) < len(option.values)


def test_amounts_are_within_what_seeds_draw(expanded: list[Case]) -> None:
    for case in expanded:
        for fault in case.plan:
            low, high = BOUNDS.get(fault.kind, (0, 0))
            assert low <= fault.amount <= high, f"{fault.kind} of amount {fault.amount}"


def test_every_drawn_case_is_within_the_limits(examples: list[Case]) -> None:
    for case in examples:
        check_case(case, "drawn")


def test_the_simplest_cases_are_plain() -> None:
    """What shrinking ends with if nothing matters."""
    for strategy in (raft_cases(), jobs_cases()):
        case = find(strategy, lambda _: True, settings=settings(database=None, derandomize=True))
        assert (case.plan, case.traps, case.ops, case.dead_in_calm) == ((), (), (), 0)
        assert (case.voters, case.spares, case.thorough, case.steady) == (3, 0, False, False)
        assert case.disk == DiskKnobs(latency="constant")
        assert {*case.clocks} == {ClockKnobs()}
