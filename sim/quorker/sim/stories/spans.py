"""What lasts in a story, as spans of time on lanes: terms and roles, dead and frozen times, faults, writes, holds.

A story is a list of instants; a diagram also shows what lies between them. How it is drawn must not live here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from quorker.sim.stories.story import Event, Kind, Story

FOLLOWER: Final = "follower"


@dataclass(slots=True)
class Span:
    """`number`: the event that began it. A "life" is the time of a member in one role of one term."""

    kind: str
    lane: str
    from_ns: int
    to_ns: int
    number: int
    text: str = ""
    term: int = 0


def spans_of(story: Story) -> list[Span]:
    """All spans of a story, by their beginnings."""
    return _Spans(story).found()


class _Spans:
    """Goes through a story once. What has not ended when the story ends lasts until then."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._end_ns = story.events[-1].at_ns if story.events else 0
        self._done: list[Span] = []
        self._lasting: dict[tuple[str, str, str], Span] = {}

    def found(self) -> list[Span]:
        for event in self._story.events:
            look = _LOOKS.get(event.kind)
            if look is not None:
                look(self, event)
        for key in list(self._lasting):
            self._end(key, self._end_ns)
        return sorted(self._done, key=lambda span: (span.from_ns, span.number, span.kind))

    def _begin(self, kind: str, event: Event, name: str = "", text: str = "", term: int = 0) -> None:
        """It ends the span of the same kind, lane and name that was there."""
        key = (kind, event.lane, name)
        self._end(key, event.at_ns)
        self._lasting[key] = Span(kind, event.lane, event.at_ns, event.at_ns, event.number, text, term)

    def _end(self, key: tuple[str, str, str], at_ns: int) -> None:
        span = self._lasting.pop(key, None)
        if span is not None:
            span.to_ns = at_ns
            self._done.append(span)

    # ------------------------------------------------------------------ processes

    def start(self, event: Event) -> None:
        self._end(("down", event.lane, ""), event.at_ns)
        if "term" in event.details:
            self.role(event)

    def role(self, event: Event) -> None:
        """Whoever only enters a term follows in it until it says otherwise."""
        term, role = int(str(event.details["term"])), str(event.details.get("role", FOLLOWER))
        self._begin("life", event, text=role, term=term)

    def crash(self, event: Event) -> None:
        """Whatever was not durable is gone, or at least nobody waits for it any more."""
        for kind in ("life", "frozen"):
            self._end((kind, event.lane, ""), event.at_ns)
        self._begin("down", event)
        disk = f"d{event.lane[1:]}"
        for key in [key for key in self._lasting if key[:2] == ("write", disk)]:
            self._end(key, event.at_ns)

    def pause(self, event: Event) -> None:
        self._begin("frozen", event)

    def resume(self, event: Event) -> None:
        self._end(("frozen", event.lane, ""), event.at_ns)

    # ------------------------------------------------------------------ disks, clients, faults

    def persist(self, event: Event) -> None:
        self._begin("write", event, str(event.details["seq"]), event.text)

    def durable(self, event: Event) -> None:
        self._end(("write", event.lane, str(event.details["seq"])), event.at_ns)

    def hold(self, event: Event) -> None:
        self._begin("hold", event, _held(event), f"{event.details['what']} by {event.details['token']}")

    def let_go(self, event: Event) -> None:
        self._end(("hold", event.lane, _held(event)), event.at_ns)

    def fault(self, event: Event) -> None:
        """One that says how it ends lasts until then; the others, as a crash, last for their time."""
        self._begin("fault", event, str(event.number), event.text)
        for_ns = int(str(event.details.get("for_ns", 0)))
        self._lasting["fault", event.lane, str(event.number)].to_ns = event.at_ns + for_ns

    def fault_end(self, event: Event) -> None:
        self._end(("fault", event.lane, str(event.details["began"])), event.at_ns)

    def phase(self, event: Event) -> None:
        """All faults are over at the latest now; those without an end of their own may have been before."""
        for key, span in list(self._lasting.items()):
            if key[0] == "fault":
                self._end(key, min(event.at_ns, max(span.to_ns, span.from_ns)))


def _held(event: Event) -> str:
    return f"{event.details['what']} {event.details['token']}"


_Look: TypeAlias = Callable[[_Spans, Event], None]
_LOOKS: Final[dict[Kind, _Look]] = {
    Kind.START: _Spans.start,
    Kind.TERM: _Spans.role,
    Kind.ROLE: _Spans.role,
    Kind.CRASH: _Spans.crash,
    Kind.PAUSE: _Spans.pause,
    Kind.RESUME: _Spans.resume,
    Kind.PERSIST: _Spans.persist,
    Kind.DURABLE: _Spans.durable,
    Kind.HOLD: _Spans.hold,
    Kind.LET_GO: _Spans.let_go,
    Kind.FAULT: _Spans.fault,
    Kind.FAULT_END: _Spans.fault_end,
    Kind.PHASE: _Spans.phase,
}
