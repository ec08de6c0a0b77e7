"""Whole clusters by Hypothesis: every drawn case keeps all promises, and a planted bug ends in a small counterexample.

The number of examples is the profile's: few at every change, thousands in a campaign (`make hypothesis`).
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from quorker.sim.campaign.shrink import describe
from quorker.sim.cases.case import Case
from quorker.sim.cases.strategies import jobs_cases, raft_cases
from quorker.sim.disks.disk import DurableLog
from quorker.sim.runs.cluster import run_case

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
