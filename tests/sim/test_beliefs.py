"""The oracle of true time: who believes to hold something, and when that may overlap."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from quorker.sim.cases.case import Case
from quorker.sim.oracles.beliefs import Beliefs
from quorker.sim.oracles.checks import Oracles, Violation
from quorker.sim.world.kernel import Call, Kernel
from quorker.sim.world.network import Network, NetworkKnobs
from quorker.sim.world.trace import Trace
from quorker.sim.world.world import Traps, World


@dataclass
class Process:
    id: int
    paused: bool = False
    waking: bool = False


def nowhere(_: Call) -> None: ...


@pytest.fixture
def world() -> World:
    kernel = Kernel()
    return World(Case(1), kernel, Trace(), Network(kernel, 1, NetworkKnobs(), nowhere), Oracles({}), Traps())


def test_one_after_the_other_is_lawful(world: World) -> None:
    beliefs = Beliefs(world)
    beliefs.hold("job", 1, Process(1))
    beliefs.let_go("job", 1)
    beliefs.hold("job", 2, Process(2))
    beliefs.hold("another job", 3, Process(1))


def test_an_overlap_is_a_violation(world: World) -> None:
    beliefs = Beliefs(world)
    beliefs.hold("job", 1, Process(1))
    with pytest.raises(Violation, match="no overlap"):
        beliefs.hold("job", 2, Process(2))


def test_an_overlap_by_old_news_is_one_too(world: World) -> None:
    beliefs = Beliefs(world)
    beliefs.hold("job", 2, Process(2))
    with pytest.raises(Violation, match="no overlap"):
        beliefs.hold("job", 1, Process(1))


@pytest.mark.parametrize("state", ["paused", "waking"])
def test_a_frozen_holder_is_only_counted(world: World, state: str) -> None:
    beliefs, frozen = Beliefs(world), Process(1)
    beliefs.hold("job", 1, frozen)
    setattr(frozen, state, True)
    beliefs.hold("job", 2, Process(2))
    assert world.sometimes == {"overlap with a frozen holder": 1}


def test_a_dead_process_holds_nothing(world: World) -> None:
    beliefs, dead = Beliefs(world), Process(1)
    beliefs.hold("job", 1, dead)
    beliefs.forget(dead)
    beliefs.hold("job", 2, Process(2))


def test_what_was_taken_away_on_purpose_is_not_held(world: World) -> None:
    beliefs = Beliefs(world)
    beliefs.hold("job", 1, Process(1))
    beliefs.revoke("job", 1)
    beliefs.hold("job", 2, Process(2))
    beliefs.hold("job", 1, Process(1))


def test_what_was_begun_is_not_begun_again(world: World) -> None:
    beliefs, holder = Beliefs(world), Process(1)
    beliefs.hold("job", 1, holder)
    beliefs.let_go("job", 1)
    with pytest.raises(Violation, match="started once"):
        beliefs.hold("job", 1, holder)
