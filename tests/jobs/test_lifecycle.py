"""The table of states: complete, closed, and the law that transitions obey."""

from __future__ import annotations

import pytest

from quorker.core.jobs.lifecycle import (
    CONDITIONS,
    ENDED,
    FINAL,
    PROCESSING,
    QUARANTINED,
    STATES,
    SUCCEEDED,
    TRANSITIONS,
    UNBORN,
    is_hopeless,
    is_legal,
    is_met,
)
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.transitions import enter
from quorker.sim.bare.lone_store import LoneStore


def test_the_table_names_known_states_and_what_happened() -> None:
    for (current, target), what in TRANSITIONS.items():
        assert current in (*STATES, UNBORN)
        assert target in STATES
        assert what


def test_every_state_can_be_reached_and_left() -> None:
    assert {target for _, target in TRANSITIONS} == set(STATES)
    assert {current for current, _ in TRANSITIONS} == {*STATES, UNBORN}


def test_only_a_running_job_succeeds_or_fails() -> None:
    for target in (SUCCEEDED, "Failed"):
        assert [current for current, to in TRANSITIONS if to == target] == [PROCESSING]


def test_final_states_are_left_by_hand_only() -> None:
    for current in FINAL:
        ways = {what for (start, _), what in TRANSITIONS.items() if start == current}
        assert ways <= {"requeued by hand", "rescheduled by hand", "deleted"}


def test_a_state_that_a_contract_operation_invented_may_be_left_for_any() -> None:
    assert is_legal("Parked", "Enqueued")
    assert not is_legal(QUARANTINED, PROCESSING)


def test_an_illegal_transition_is_a_bug_of_ours() -> None:
    lone = LoneStore()
    (job_id,) = lone.enqueue(NewJob("t"))
    with pytest.raises(AssertionError, match="not in the table"):
        enter(lone.store, lone.job(job_id), SUCCEEDED)


def test_every_ended_state_meets_some_condition_besides_any() -> None:
    for state in ENDED:
        assert is_met("any", state)
        assert [on for on in CONDITIONS if on != "any" and is_met(on, state)]


def test_nothing_is_hopeless_before_a_final_state() -> None:
    for state in STATES:
        hopeless = [on for on in CONDITIONS if is_hopeless(on, state)]
        assert bool(hopeless) == (state in FINAL)
