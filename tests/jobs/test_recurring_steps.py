"""Steps of recurring jobs: one that does not fit has no effect, no step does harm, and no slot fires twice.

The last tests let leaders with clocks of their own propose what they found long ago.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.errors import Rejected
from quorker.core.jobs.bounds import INSTANT_MAX
from quorker.core.jobs.commands import (
    AdvanceRecurring,
    EnqueueJobs,
    PauseRecurring,
    RemoveRecurring,
    SetRecurring,
    Step,
    TriggerRecurring,
    decode,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.recurring_commands import SLOTS_MAX
from quorker.sim.bare.lone_recurring import SECOND, TICK, declare, every, row, slots
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def step(lone: LoneStore, *at: int, next_at: int, **fields: Any) -> Step:
    """A step that fits the entry as it is, but for the fields that are given; instants in ms after the beginning."""
    entry = lone.store.recurring["r"]
    made = Step("r", entry.revision, entry.next_wt, tuple(FIRST_WT + each for each in at), FIRST_WT + next_at)
    return made._replace(**fields)


# Steps -------------------------------------------------------------------------------------------------------------


def test_a_step_that_came_second_has_no_effect(lone: LoneStore) -> None:
    declare(lone, every())
    lone.advance(SECOND)
    first = step(lone, 1000, next_at=2000)
    assert len(lone.do(AdvanceRecurring((first, first)))) == 1
    assert len(lone.do(AdvanceRecurring((first,)))) == 0
    assert slots(lone) == [1000]


REFUSED: list[dict[str, Any]] = [
    {"recurring_id": "other"},
    {"revision": 10**6},
    {"from_wt": 0},
    {"from_wt": FIRST_WT + 999},
    {"from_wt": FIRST_WT + 2000},
    {"slots": (FIRST_WT + 999,)},
    {"slots": (FIRST_WT + 5001,)},
    {"slots": (FIRST_WT + 2000, FIRST_WT + 1000)},
    {"slots": (FIRST_WT + 1000, FIRST_WT + 1000)},
    {"slots": (FIRST_WT + 1000, FIRST_WT + 3000, FIRST_WT + 2000)},
    {"next_wt": 0},
    {"next_wt": FIRST_WT + 4000},
    {"next_wt": FIRST_WT + 3999},
    {"slots": (), "next_wt": FIRST_WT + 1000},
    {"slots": (), "next_wt": FIRST_WT},
    {"error": "why"},
    {"error": "why", "next_wt": 0},
    {"error": "why", "slots": ()},
]


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_step_that_does_not_fit_has_no_effect(lone: LoneStore, wrong: dict[str, Any]) -> None:
    declare(lone, every(misfire="all"))
    lone.advance(5000)
    good = step(lone, 1000, 4000, next_at=5000)
    before = row(lone)
    assert len(lone.do(AdvanceRecurring((good._replace(**wrong),)))) == 0
    assert row(lone) == before
    assert not lone.store.jobs
    assert len(lone.do(AdvanceRecurring((good,)))) == 2


def test_a_step_for_what_is_not_planned_only_plans(lone: LoneStore) -> None:
    lone.do(every())
    lone.advance(5000)
    for wrong in (step(lone, 1000, next_at=2000), step(lone, next_at=0), step(lone, next_at=0, next_wt=0)):
        assert len(lone.do(AdvanceRecurring((wrong,)))) == 0
        assert row(lone)["next_wt"] is None
    lone.do(AdvanceRecurring((step(lone, next_at=1000),)))
    assert row(lone)["next_wt"] == FIRST_WT + 1000


def test_once_takes_no_step_with_several_slots(lone: LoneStore) -> None:
    declare(lone, every())
    lone.advance(5000)
    assert len(lone.do(AdvanceRecurring((step(lone, 1000, 2000, next_at=3000),)))) == 0
    assert len(lone.do(AdvanceRecurring((step(lone, 5000, next_at=6000),)))) == 1


def test_a_step_for_what_was_paused_or_rests_has_no_effect(lone: LoneStore) -> None:
    declare(lone, every())
    lone.advance(1000)
    fire = step(lone, 1000, next_at=2000)
    lone.do(PauseRecurring("r", True))
    plan = step(lone, next_at=2000)
    assert len(lone.do(AdvanceRecurring((fire, plan)))) == 0
    assert row(lone)["next_wt"] is None
    lone.do(PauseRecurring("r", False))
    rest = step(lone, next_at=0, next_wt=0, error="why")
    lone.do(AdvanceRecurring((rest,)))
    assert row(lone)["error"] == "why"
    lone.do(AdvanceRecurring((step(lone, next_at=2000), rest._replace(error="other"))))
    assert (row(lone)["error"], row(lone)["next_wt"]) == ("why", None)


def test_a_plan_made_before_a_pause_ended_is_good_only_for_later_slots(lone: LoneStore) -> None:
    lone.do(every())
    early = step(lone, next_at=1000)
    lone.do(PauseRecurring("r", True))
    lone.advance(1500)
    lone.do(PauseRecurring("r", False))
    lone.do(AdvanceRecurring((early,)))
    assert row(lone)["next_wt"] is None
    lone.pass_time(1000)
    assert slots(lone) == [2000]


def test_only_the_leader_advances(lone: LoneStore) -> None:
    declare(lone, every())
    lone.advance(1000)
    worker = lone.open()
    with pytest.raises(Rejected, match="leader_only"):
        lone.do(AdvanceRecurring((step(lone, 1000, next_at=2000),)), worker)
    assert not lone.store.jobs


def test_one_command_makes_so_many_jobs_and_no_more() -> None:
    lone = LoneStore(careful=False)
    for name in ("a", "b"):
        lone.do(SetRecurring(name, TICK, every_ms=10, misfire="all"))
    lone.maintain()
    lone.advance(10 * SLOTS_MAX)
    steps = [
        Step(
            each.id,
            each.revision,
            each.next_wt,
            tuple(FIRST_WT + 10 * n for n in range(1, 601)),
            FIRST_WT + 6010,
        )
        for each in lone.store.recurring.values()
    ]
    assert len(lone.do(AdvanceRecurring(tuple(steps)))) == 600
    assert len(lone.do(AdvanceRecurring(tuple(steps)))) == 600
    assert len(lone.do(AdvanceRecurring(tuple(steps)))) == 0


def test_a_step_without_room_is_left_out_and_the_next_one_counts() -> None:
    lone = LoneStore(Limits(max_jobs=1))
    declare(lone, every(misfire="all"))
    lone.do(SetRecurring("s", TICK, every_ms=1000))
    lone.maintain()
    lone.advance(2000)
    other = lone.store.recurring["s"]
    two = step(lone, 1000, 2000, next_at=3000)
    one = Step("s", other.revision, other.next_wt, (other.next_wt,), other.next_wt + 1000)
    assert len(lone.do(AdvanceRecurring((two, one)))) == 1
    assert (slots(lone), slots(lone, "s")) == ([], [1000])


# Whatever leaders do -----------------------------------------------------------------------------------------------

MISFIRES = st.sampled_from(["once", "all", "skip"])
PERIOD = 700


class Leaders:
    """Some leaders, each with a copy of the store as it was some time ago and a wall clock of its own, propose."""

    def __init__(self, misfire: Any) -> None:
        self.lone = LoneStore(careful=False)
        self.lone.do(SetRecurring("r", TICK, every_ms=PERIOD, misfire=misfire, grace_ms=1500))
        self.stale: list[Any] = []

    def look(self, ahead_ms: int) -> None:
        """A leader whose clock goes wrong by that much finds what is due, and does not say it yet."""
        self.stale += self.lone.store.due(self.lone.lt, max(0, self.lone.wt + ahead_ms))

    def speak(self, which: int, ahead_ms: int) -> None:
        """Something found some time ago gets into the log, with the wall clock of whoever leads then."""
        if self.stale:
            self.lone.wt = max(self.lone.store.wt, self.lone.wt) + max(0, ahead_ms)
            self.lone.reply(decode(self.stale[which % len(self.stale)]))


@settings(max_examples=60, deadline=None)
@given(
    MISFIRES,
    st.lists(
        st.one_of(
            st.tuples(st.just("look"), st.integers(-3000, 3000)),
            st.tuples(st.just("speak"), st.integers(0, 50), st.sampled_from([0, 0, 0, 900, 5000])),
            st.tuples(st.just("pass"), st.sampled_from([1, 300, 700, 4000])),
            st.tuples(st.just("maintain")),
            st.tuples(st.just("trigger")),
        ),
        max_size=40,
    ),
)
def test_whatever_leaders_propose_no_slot_fires_twice_and_all_loses_none(
    misfire: str, moves: list[Any]
) -> None:
    leaders = Leaders(misfire)
    lone = leaders.lone
    for name, *numbers in moves:
        before = len(lone.store.jobs)
        if name == "look":
            leaders.look(*numbers)
        elif name == "speak":
            leaders.speak(*numbers)
        elif name == "pass":
            lone.advance(*numbers)
        elif name == "maintain":
            lone.maintain()
        else:
            lone.do(TriggerRecurring("r"))
        assert all(slot <= lone.store.wt - FIRST_WT for slot in slots(lone))
        assert len(lone.store.jobs) >= before
    lone.maintain()
    fired = slots(lone)
    assert fired == sorted(set(fired)), "each once, in order"
    assert all(slot % PERIOD == 0 for slot in fired)
    if misfire == "all":
        assert fired == list(range(PERIOD, lone.store.wt - FIRST_WT + 1, PERIOD))


WILD_WT = st.sampled_from(
    [0, 1, FIRST_WT - 1, FIRST_WT, FIRST_WT + 700, FIRST_WT + 1400, FIRST_WT + 10**6, INSTANT_MAX]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Step,
            st.sampled_from(["r", "s", "ghost"]),
            st.integers(0, 6),
            WILD_WT,
            st.lists(WILD_WT, max_size=4).map(tuple),
            WILD_WT,
            st.sampled_from(["", "", "why"]),
        ),
        min_size=1,
        max_size=6,
    ),
    MISFIRES,
)
def test_no_step_does_harm(steps: list[Step], misfire: Any) -> None:
    """The store checks itself after every entry; and an entry that a wild step has put off is set right by declaring it."""
    lone = LoneStore()
    lone.do(SetRecurring("r", TICK, every_ms=700, misfire=misfire))
    lone.do(SetRecurring("s", TICK, every_ms=700, misfire=misfire))
    lone.do(EnqueueJobs((TICK,)))
    lone.do(AdvanceRecurring((Step("r", 1, 0, (), FIRST_WT + 700),)))
    lone.advance(1500)
    made = lone.do(AdvanceRecurring(tuple(steps)))
    assert len(made) == len(slots(lone)) + len(slots(lone, "s")) <= SLOTS_MAX
    lone.do(RemoveRecurring("r"))
    declare(lone, every(800))
    lone.pass_time(800)
    assert slots(lone)[-1] == 2300
