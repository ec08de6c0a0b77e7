"""One case, one digest: in the same process, after other runs, and in another process with another hash seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from quorker.sim.cases.expansion import FILES, LONG, expand
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.trace import Trace, What, first_difference

SEEDS = range(40, 52)
PRINT_DIGESTS = """
from quorker.sim.cases.expansion import FILES, expand
from quorker.sim.runs.cluster import run_case
print(*(run_case(expand(seed)).digest for seed in range(40, 52)))
print(*(run_case(expand(seed, FILES)).digest for seed in range(40, 44)))
"""


@pytest.fixture(scope="module")
def digests() -> list[str]:
    return [run_case(expand(seed)).digest for seed in SEEDS]


def test_a_seed_expands_to_one_case() -> None:
    assert expand(5) == expand(5) != expand(6)
    assert expand(5, LONG) != expand(5)


def test_runs_differ_between_seeds(digests: list[str]) -> None:
    assert len(set(digests)) == len(digests)


def test_runs_in_another_order_are_the_same_runs(digests: list[str]) -> None:
    again = {seed: run_case(expand(seed)).digest for seed in reversed(SEEDS)}
    assert [again[seed] for seed in SEEDS] == digests


def test_a_trace_changes_nothing(digests: list[str]) -> None:
    lines: list[str] = []
    assert run_case(expand(40), lines.append).digest == digests[0]
    assert any("becomes leader" in line for line in lines)


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_another_process_with_another_hash_seed(digests: list[str], hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    child = subprocess.run(
        [sys.executable, "-c", PRINT_DIGESTS], env=environment, capture_output=True, text=True, check=True
    )
    on_files = [run_case(expand(seed, FILES)).digest for seed in range(40, 44)]
    assert child.stdout.split() == digests + on_files


def test_the_first_difference_is_found_by_its_checkpoint() -> None:
    one, other = Trace(), Trace()
    for number in range(3_500):
        one.record(number, What.DELIVERED, 1)
        other.record(number, What.DELIVERED, 1 if number != 2_200 else 2)
    assert first_difference(one, other) == 2
    assert first_difference(one, one) is None


def test_a_difference_after_the_last_checkpoint_is_found_too() -> None:
    one, other = Trace(), Trace()
    one.record(1, What.TIMER, 1)
    other.record(1, What.TIMER, 2)
    assert first_difference(one, other) == 0
