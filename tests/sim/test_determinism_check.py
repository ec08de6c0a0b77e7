"""The same cases everywhere give the same runs, and hidden randomness is found and named."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from quorker.sim.campaign.determinism import ChildFailed, Place, check, everywhere, interpreters
from quorker.sim.cases.expansion import CHURN, JOBS, LONG, expand
from quorker.sim.world.trace import CHECKPOINT_EVENTS

CASES: Final = {"short": expand(11), "churn": expand(12, CHURN), "jobs": expand(13, JOBS)}
ONE: Final = {"seed 11": expand(11)}
PLANTED: Final = """
from quorker.sim.world import network
network.mix = lambda word, mix=network.mix: mix(word ^ hash("salt"))
"""
ALSO_SUPPORTED: Final = [python for python in interpreters() if python != sys.executable]


def test_hash_seeds_change_nothing() -> None:
    places = [place for place in everywhere() if place.python == sys.executable]
    assert len(places) == 3
    assert check(CASES, places) == []


@pytest.mark.skipif(not ALSO_SUPPORTED, reason="no other interpreter from 3.11 on is installed")
def test_other_interpreters_change_nothing() -> None:
    assert check(CASES, [Place(), *(Place(python) for python in ALSO_SUPPORTED)]) == []


def test_planted_randomness_is_found_and_the_first_event_is_named() -> None:
    (found,) = check(ONE, [Place(hash_seed="1", setup=PLANTED), Place(hash_seed="2", setup=PLANTED)])
    assert found.events[0] != found.events[1]
    assert "PYTHONHASHSEED=2" in found.places[1]
    assert f"seed 11 differs first at event {found.event}" in str(found)
    assert "delivered" in str(found)


def test_what_differs_late_is_found_behind_the_checkpoints_that_are_equal() -> None:
    late = """
from quorker.sim.world.network import Network
def schedule(self, link, delay, payload, rank, schedule=Network._schedule):
    schedule(self, link, delay + (self.sent == 1_500), payload, rank)
Network._schedule = schedule
"""
    (found,) = check({"long": expand(0, LONG)}, [Place(), Place(setup=late)])
    assert found.event > CHECKPOINT_EVENTS
    assert found.events[0] != found.events[1]


def test_a_place_that_cannot_run_says_why() -> None:
    with pytest.raises(ChildFailed, match="no such thing"):
        check(ONE, [Place(setup="raise SystemExit('no such thing')")])
