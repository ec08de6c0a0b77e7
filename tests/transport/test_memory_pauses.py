"""What a member does about pauses of the whole process, and that it leaves processes alone that did not ask for it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from quorker.transport import memory_pauses

CHUNKS = [bytes([number]) for number in range(3 * memory_pauses.CHUNKS_BETWEEN_FREEZES)]


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """Whatever a test does to the collector is undone."""
    thresholds = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    memory_pauses._State.calm = False  # pyright: ignore[reportPrivateUsage]  # the state of the whole process


@pytest.mark.usefixtures("unfrozen")
def test_the_collector_of_an_application_is_left_alone() -> None:
    assert list(memory_pauses.freeze_along(CHUNKS)) == CHUNKS
    memory_pauses.freeze_store()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("unfrozen")
def test_records_are_frozen_while_they_are_loaded() -> None:
    memory_pauses.calm_collector()
    before = gc.get_freeze_count()
    made: list[list[bytes]] = []
    for chunk in memory_pauses.freeze_along(CHUNKS):
        made += [[chunk] for _ in range(100)]
    assert len(made) == 100 * len(CHUNKS)
    assert gc.get_freeze_count() - before >= 200 * memory_pauses.CHUNKS_BETWEEN_FREEZES


@pytest.mark.usefixtures("unfrozen")
def test_a_snapshot_freezes_what_is_there_but_not_young_garbage() -> None:
    memory_pauses.calm_collector()
    cycle: list[object] = []
    cycle.append(cycle)
    kept = [[number] for number in range(1000)]
    before = gc.get_freeze_count()
    del cycle
    memory_pauses.freeze_store()
    assert gc.get_freeze_count() - before >= len(kept)
    assert gc.collect() == 0, "the cycle was collected before"


def test_turns_are_short_only_for_a_while() -> None:
    before, seen = sys.getswitchinterval(), list[float]()

    def fail() -> None:
        with memory_pauses.short_turns():
            seen.append(sys.getswitchinterval())
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert seen == [pytest.approx(memory_pauses.TURN_SECONDS)]
    assert sys.getswitchinterval() == before


@pytest.mark.usefixtures("unfrozen")
def test_a_pass_of_the_calm_collector_looks_at_few_objects() -> None:
    """It stops the loop, and that of every other member at the same entry."""
    looked_at: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 0:
            looked_at.append(len(gc.get_objects(0)))

    memory_pauses.calm_collector()
    gc.callbacks.append(note)
    try:
        kept = [[number] for number in range(100_000)]
    finally:
        gc.callbacks.remove(note)
    assert len(kept) == 100_000
    assert len(looked_at) >= 10
    assert max(looked_at) < 10_000
