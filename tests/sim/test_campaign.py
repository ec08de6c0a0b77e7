"""Members under every fault that the simulator knows, on as many seeds as fit a test run. `make fuzz` runs more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from quorker.sim.cases.case import FaultKind
from quorker.sim.cases.expansion import CHURN, DAMAGES, FILES, JOBS, LONG, SHORT, Profile, expand
from quorker.sim.cases.replay import seed_line
from quorker.sim.runs.cluster import run_case


@pytest.mark.parametrize(
    ("profile", "seeds"),
    [(SHORT, 150), (CHURN, 50), (LONG, 2), (JOBS, 12), (FILES, 60)],
    ids=["short", "churn", "long", "jobs", "files"],
)
def test_no_seed_breaks_a_promise(profile: Profile, seeds: int) -> None:
    for seed in range(seeds):
        report = run_case(expand(seed, profile))
        assert report.violation is None, seed_line(seed, profile.name)


def test_a_campaign_sees_what_it_should() -> None:
    """Faults of every kind strike, and what they are for happens: else a clean campaign proves little."""
    seen: Counter[str] = Counter()
    for seed in range(1000, 1120):
        seen.update(run_case(expand(seed)).sometimes.keys())
    elsewhere = {kind for kind in FaultKind if kind.startswith(("client-", "line-", "file-"))} | {*DAMAGES}
    wanted = {f"fault {kind}" for kind in FaultKind if kind not in elsewhere}
    wanted |= {"truncated", "truncated several", "snapshot saved", "snapshot installed", "fsync failed"}
    assert wanted <= set(seen)


def test_a_campaign_on_files_sees_what_it_should() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1000, 1120):
        seen.update(run_case(expand(seed, FILES)).sometimes.keys())
    wanted = {f"fault {kind}" for kind in FaultKind if kind.startswith("file-")}
    wanted |= {"disk damaged", "disk broke", "recovery interrupted", "began anew", "has its say again"}
    wanted |= {"snapshot saved", "snapshot installed"}
    assert wanted <= set(seen)


def test_job_stores_on_full_disks_break_no_promise() -> None:
    seen: Counter[str] = Counter()
    profile = replace(JOBS, files_ppm=FILES.files_ppm)
    for seed in range(25):
        report = run_case(expand(seed, profile))
        assert report.violation is None, seed
        seen.update(report.sometimes.keys())
    assert {"fault file-full", "disk nearly full", "disk has space again"} <= set(seen)
