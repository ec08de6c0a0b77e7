"""Why a promise was broken: the causal past of a violation, cut down and in plain words."""

from __future__ import annotations

import pytest

from quorker.core.raft.state import RaftState
from quorker.sim.cases.expansion import expand
from quorker.sim.runs.cluster import run_case
from quorker.sim.stories.explain import (
    RARE,
    NothingToExplain,
    causal_past,
    chosen,
    direct_past,
    explain,
    violation_of,
)
from quorker.sim.stories.story import Kind, Story


def small() -> Story:
    """n1 asks n2, which writes before it answers; n3 only talks to itself."""
    story = Story()
    asked = story.enter("n1", Kind.OPERATION, "is asked")
    sent = story.begin("n1", Kind.SEND, "-> n2 question", to="n2")
    story.enter("n3", Kind.NOTE, "hums")
    story.cause = sent
    story.begin("n2", Kind.DELIVER, "<- n1 question", sent=sent)
    story.persist(2, 1, "write 1")
    story.durable(2, 1)
    answered = story.begin("n2", Kind.SEND, "-> n1 answer", to="n1")
    assert (asked, sent, answered) == (1, 2, 7)
    return story


def broken_run() -> Story:
    """The first of a few seeds that finds the planted bug."""
    for seed in range(50):
        story = Story()
        if run_case(expand(seed), story=story).violation is not None:
            return story
    raise AssertionError("the planted bug was not found")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setattr(RaftState, "hold", RaftState.send)
    return broken_run()


def test_the_past_is_what_could_have_had_an_influence() -> None:
    story = small()
    assert causal_past(story, 7) == [1, 2, 4, 5, 6, 7]
    assert causal_past(story, 3) == [3]


def test_what_a_process_did_before_is_in_the_past_until_it_started_anew() -> None:
    story = Story()
    story.enter("n1", Kind.NOTE, "remembers")
    story.cause = 0
    story.add("n1", Kind.NOTE, "acts")
    assert causal_past(story, 2) == [1, 2]
    assert direct_past(story, 2) == [2]
    story.crashed("n1", "crashes")
    story.cause = 0
    story.started("n1", "starts")
    assert causal_past(story, 4) == [1, 2, 3, 4]  # it restarts because it crashed
    story.enter("n1", Kind.START, "starts elsewhere")
    assert causal_past(story, 5) == [5]


def test_rare_events_and_near_causes_are_kept_when_there_is_no_room() -> None:
    story = Story()
    story.enter("n1", Kind.CRASH, "crashes long ago")
    for _ in range(500):
        story.cause = 0
        story.add("n1", Kind.SEND, "-> n2 noise", to="n2")
    story.cause = 0
    last = story.add("n1", Kind.VIOLATION, "breaks it", (490, 495))
    shown, whole = chosen(story, last, 10)
    assert whole == 502
    assert len(shown) == 10
    assert {1, 490, 495, last} <= set(shown)
    assert shown == sorted(shown)


def test_a_violation_is_explained_in_order(broken: Story) -> None:
    lines = list(explain(broken))
    last = violation_of(broken)
    assert lines[0] == f"{last.lane} {last.text}"
    told = [int(line.split()[0].removeprefix("#")) for line in lines[3:] if line.startswith("#")]
    assert told == sorted(told)
    assert told[-1] == last.number
    assert len(told) <= 200
    assert set(told) <= set(causal_past(broken, last.number))


def test_what_is_left_out_is_counted(broken: Story) -> None:
    last = violation_of(broken)
    past = causal_past(broken, last.number)
    lines = list(explain(broken, limit=5))
    left_out = sum(int(line.split()[1]) for line in lines[3:] if "…" in line)
    shown = [line for line in lines[3:] if line.startswith("#")]
    assert len(shown) == 5
    assert left_out + len(shown) == len(past)


def test_the_explanation_of_a_whole_run_keeps_what_is_rare(broken: Story) -> None:
    last = violation_of(broken)
    rare = [each for each in causal_past(broken, last.number) if broken[each].kind in RARE]
    shown, _ = chosen(broken, last.number, 200)
    assert set(rare[-50:]) <= set(shown)


@pytest.mark.parametrize(
    ("number", "limit", "why"),
    [
        (None, 200, "this run broke no promise"),
        (8, 200, "there is no event 8: this run has events 1 to 7"),
        (0, 200, "there is no event 0"),
        (7, 0, "0 events explain nothing"),
    ],
)
def test_what_cannot_be_explained_is_named(number: int | None, limit: int, why: str) -> None:
    with pytest.raises(NothingToExplain, match=why):
        list(explain(small(), number, limit))
