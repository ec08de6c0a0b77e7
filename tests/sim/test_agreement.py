"""What members notice by themselves: the same bug with the oracles looking away, as it would be outside a simulation."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.jobs.store import JobStore
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.mutants.catalogue import MUTANTS
from quorker.sim.mutants.mutant import planted
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.job_checks import JobOracles
from quorker.sim.runs.cluster import run_case

OWN = "members agree on their state [C5]"
RUNS = 20


def look_away(check: Any) -> Any:
    """The oracle that compares members, but it says nothing."""

    def quiet(self: JobOracles, *seen: Any) -> None:
        try:
            check(self, *seen)
        except Violation as violation:
            if violation.oracle != "replicas are equal [C5]":
                raise

    return quiet


def test_members_notice_a_difference_without_any_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("on_applied", "on_state", "on_snapshot"):
        monkeypatch.setattr(JobOracles, check, look_away(getattr(JobOracles, check)))
    with planted(MUTANTS["hash-order-decides"]):
        violations = [run_case(expand(seed, JOBS)).violation for seed in range(RUNS)]
    found = [each for each in violations if each is not None and each.oracle == OWN]
    assert found, violations


def test_members_that_are_equal_notice_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    apply = JobStore.apply

    def listen(self: JobStore, index: int, data: bytes) -> object:
        outcome = apply(self, index, data)
        heard.extend(claim.at for claim in outcome.claims)
        return outcome

    monkeypatch.setattr(JobStore, "apply", listen)
    for seed in range(5):
        assert run_case(expand(seed, JOBS)).violation is None
    assert heard, "nobody claimed anything"
