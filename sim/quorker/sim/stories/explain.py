"""Why something happened in a run: its causal past, cut down to what a person can read, in plain words.

What counts is happens-before: the causes of an event, and whatever its own process did before it, back to the last
restart. A past of thousands of events is not an explanation, so the nearest direct causes and the rare events come
first, and what is left out is counted where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from quorker.sim.stories.story import NOTHING, Event, Kind, Story

EVENTS_MAX: Final = 200
RARE: Final = frozenset(
    {
        Kind.VIOLATION,
        Kind.FAULT,
        Kind.FAULT_END,
        Kind.CRASH,
        Kind.START,
        Kind.PAUSE,
        Kind.RESUME,
        Kind.DISK_FAILED,
        Kind.ROLE,
        Kind.CONFIG,
        Kind.SNAPSHOT,
        Kind.HOLD,
        Kind.LET_GO,
        Kind.DECISION,
        Kind.PHASE,
    }
)
DIRECT_PART: Final = 2  # one half of what is shown may be direct causes; the rest is the rare, then the near


class NothingToExplain(ValueError):
    """The run broke no promise, or has no such event."""


def violation_of(story: Story) -> Event:
    """The event in which a promise was broken."""
    for event in reversed(story.events):
        if event.kind is Kind.VIOLATION:
            return event
    raise NothingToExplain("this run broke no promise: name the number of an event to explain")


def previous_events(story: Story) -> list[int]:
    """For each number, what the same process did before, since it started; index 0 is of no event."""
    before: list[int] = [NOTHING]
    last: dict[str, int] = {}
    for event in story.events:
        processes = event.lane[0] in "nc" and event.lane[1:].isdigit()
        before.append(
            last.get(event.lane, NOTHING) if processes and event.kind is not Kind.START else NOTHING
        )
        last[event.lane] = event.number
    return before


def causal_past(story: Story, number: int) -> list[int]:
    """All numbers that happened before `number`, and itself, in order."""
    before = previous_events(story)
    return sorted(_reached(number, lambda each: (*story[each].causes, before[each])))


def direct_past(story: Story, number: int) -> list[int]:
    """Only what events name as their causes, and itself, in order."""
    return sorted(_reached(number, lambda each: story[each].causes))


def _reached(number: int, back: Callable[[int], Iterable[int]]) -> set[int]:
    seen = {number}
    waiting = [number]
    while waiting:
        for cause in back(waiting.pop()):
            if cause and cause not in seen:
                seen.add(cause)
                waiting.append(cause)
    return seen


def chosen(story: Story, number: int, limit: int) -> tuple[list[int], int]:
    """At most `limit` numbers of the causal past, in order, and how many there are in all."""
    past = causal_past(story, number)
    if len(past) <= limit:
        return past, len(past)
    direct = direct_past(story, number)[-max(1, limit // DIRECT_PART) :]
    kept = dict.fromkeys(reversed(direct))
    rare = [each for each in reversed(past) if story[each].kind in RARE]
    for each in (*rare, *reversed(past)):
        if len(kept) >= limit:
            break
        kept[each] = None
    return sorted(kept), len(past)


def explain(story: Story, number: int | None = None, limit: int = EVENTS_MAX) -> Iterator[str]:
    """Lines that tell how the violation, or the event of that number, came about."""
    if limit < 1:
        raise NothingToExplain(f"{limit} events explain nothing: ask for at least 1")
    if number is not None and not 1 <= number <= len(story.events):
        raise NothingToExplain(f"there is no event {number}: this run has events 1 to {len(story.events)}")
    event = violation_of(story) if number is None else story[number]
    shown, whole = chosen(story, event.number, limit)
    yield f"{event.lane} {event.text}"
    yield f"{len(shown)} of the {whole} events that led to it, of {len(story.events)} in the run:"
    yield ""
    width = len(str(event.number))
    before = causal_past(story, event.number)
    place = 0
    for each in shown:
        left_out = 0
        while before[place] != each:
            left_out, place = left_out + 1, place + 1
        place += 1
        if left_out:
            yield f"{'':{width + 1}}  … {left_out} more"
        yield _line(story[each], width)


def _line(event: Event, width: int) -> str:
    why = f"   (after {', '.join(f'#{cause}' for cause in event.causes)})" if event.causes else ""
    return f"#{event.number:<{width}}  {event.at_ns / 1e6:12.6f} ms  {event.lane:<7} {event.text}{why}"
