"""Timelines answer like a sorted list, whatever was removed from wherever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quorker.core.jobs import timeline
from quorker.core.jobs.timeline import Timeline


class TimelineMachine(RuleBasedStateMachine):
    """Against a plain dict, with chunks so small that their borders matter."""

    def __init__(self) -> None:
        super().__init__()
        timeline.CHUNK_ITEMS_MAX = 3  # type: ignore[misc]  # a constant, made small here
        self.real = Timeline()
        self.model: dict[int, str] = {}
        self.number = 0

    def teardown(self) -> None:
        timeline.CHUNK_ITEMS_MAX = 512  # type: ignore[misc]  # as it was

    @rule(gap=st.integers(1, 3))
    def append(self, gap: int) -> None:
        self.number += gap
        self.real.append(self.number, f"j{self.number}")
        self.model[self.number] = f"j{self.number}"

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model)))
        self.real.remove(number)
        del self.model[number]

    @precondition(lambda self: self.model)
    @rule()
    def pop_first(self) -> None:
        number = min(self.model)
        assert self.real.pop_first() == (number, self.model.pop(number))

    @rule(start=st.integers(0, 12), count=st.integers(0, 8), number=st.integers(-1, 40))
    def read(self, start: int, count: int, number: int) -> None:
        ids = list(self.model.values())
        assert self.real.page(start, start + count) == ids[start : start + count]
        assert self.real.page(start, start + count, newest_first=True) == ids[::-1][start : start + count]
        after = [row for row in self.model.items() if row[0] > number]
        before = [row for row in self.model.items() if row[0] < number]
        assert list(self.real.after(number)) == after
        assert list(self.real.before(number)) == before[::-1]

    @invariant()
    def same(self) -> None:
        rows = list(self.model.items())
        copied = [row for part in self.real.parts() for row in part.items()]
        assert list(self.real) == copied == rows
        assert len(self.real) == self.real.size == len(rows)
        assert self.real.first() == (rows[0] if rows else None)


TestTimeline = TimelineMachine.TestCase


@given(st.integers(0, 2000))
def test_a_long_timeline_pages_from_both_ends(start: int) -> None:
    line = Timeline((number, str(number)) for number in range(1500))
    assert line.page(start, start + 3) == [str(number) for number in range(start, min(start + 3, 1500))]
    assert line.page(start, start + 1, newest_first=True) == ([str(1499 - start)] if start < 1500 else [])
