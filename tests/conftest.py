"""How many examples Hypothesis tries, and which files come first.

`change`: at every change, the same examples each time; `campaign`: many and always new, chosen by
`QUORKER_HYPOTHESIS=campaign`. No profile has a deadline: speed is measured in `bench/`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "change", max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "campaign",
    max_examples=3_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("QUORKER_HYPOTHESIS", "change"))

TESTS: Final = Path(__file__).parent
LONGEST: Final = (
    "sim/test_mutants.py",
    "scenarios/test_shipped.py",
    "cluster/test_kill_single.py",
    "notebooks/test_notebooks.py",
    "sim/test_campaign.py",
)
"""Begun first: a long file that one process begins last is waited for by the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
