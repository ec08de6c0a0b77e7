"""What happened in a run, as data: events with a time, a lane, a kind and the events that caused them.

A story is recorded only when somebody asks for it, changes nothing in the run and is what readable lines, explanations
and diagrams are made of. Causes are followed through everything that is scheduled: see `quorker.sim.stories.storyteller`. How
messages and records read in plain words is `quorker.sim.stories.words`; nothing here knows the simulator, so recordings
of real members become the same stories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

Detail: TypeAlias = int | str | list[str]
P = ParamSpec("P")
T = TypeVar("T")

NOTHING: Final = 0  # the number of no event: events are counted from 1
NEMESIS: Final = "nemesis"
RUN: Final = "run"
LOG: Final = "log"  # what the replicated state machine decided, whoever applied it first


class Kind(StrEnum):
    """What an event is. SEND and DELIVER are of messages of every sort, between members and to clients."""

    SEND = "send"
    DELIVER = "deliver"
    TIMER = "timer"
    PERSIST = "persist"
    DURABLE = "durable"
    DISK_FAILED = "disk failed"
    TERM = "term"
    ROLE = "role"
    COMMIT = "commit"
    APPLY = "apply"
    CONFIG = "config"
    SNAPSHOT = "snapshot"
    READ = "read"
    OPERATION = "operation"
    HOLD = "hold"
    LET_GO = "let go"
    DECISION = "decision"
    START = "start"
    CRASH = "crash"
    PAUSE = "pause"
    RESUME = "resume"
    FAULT = "fault"
    FAULT_END = "fault end"
    PHASE = "phase"
    NOTE = "note"
    VIOLATION = "violation"


ARRIVES: Final = frozenset({Kind.DELIVER, Kind.OPERATION, Kind.PAUSE, Kind.RESUME})
"""What happens to a process, whatever it knows."""


@dataclass(slots=True)
class Event:
    """`lane`: n1 a member, d1 its disk, c1 a client, or one of the lanes named above. `causes` are numbers."""

    number: int
    at_ns: int
    lane: str
    kind: Kind
    text: str
    causes: tuple[int, ...] = ()
    details: dict[str, Detail] = field(default_factory=dict[str, Detail])


def line_of(event: Event) -> str:
    """The event as one readable line."""
    return f"{event.at_ns / 1e6:12.6f} ms  {event.lane} {event.text}"


class Story:
    """Events in the order in which they happened. `sink` is told each as a line.

    `cause` is the event that everything recorded now follows from; whoever makes things happen sets it. `also`: further
    ones, of a process that took in several things at once; `taken` are those that it has taken in so far.
    """

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self.events: list[Event] = []
        self.cause = NOTHING
        self.also: tuple[int, ...] = ()
        self.taken: tuple[int, ...] = ()
        self.now: Callable[[], int] = lambda: 0
        self.sink = sink
        self._pending: tuple[str, str] | None = None
        self._commits: dict[str, int] = {}
        self._terms: dict[str, int] = {}
        self._issued: dict[tuple[int, int], int] = {}
        self._last_decision = NOTHING
        self._undated: list[int] = []  # decisions of an entry whose index is not known yet
        self._decided: dict[int, list[int]] = {}
        self._requests: dict[tuple[int, int], int] = {}
        self._down: dict[str, int] = {}  # lane -> the event that ended its process
        self._written: dict[
            str, int
        ] = {}  # lane of a member -> a write that it has heard of since it acted last
        self._last_durable: dict[str, int] = {}  # lane of a member -> the last thing its disk promised

    def __getitem__(self, number: int) -> Event:
        return self.events[number - 1]

    # ------------------------------------------------------------------ recording

    def add(self, lane: str, kind: Kind, text: str, causes: Iterable[int] = (), **details: Any) -> int:
        """Record an event; `causes` are added to the present one. Returns its number."""
        number = self.append(lane, kind, text, causes, **details)
        self.tell(number)
        return number

    def append(self, lane: str, kind: Kind, text: str, causes: Iterable[int] = (), **details: Any) -> int:
        """Like `add`, for an event that is not complete yet: `tell` comes later."""
        if self._pending is not None:
            (waiting, why), self._pending = self._pending, None
            self.cause = self.add(waiting, Kind.TIMER, why)
        number = len(self.events) + 1
        known = NOTHING if kind in ARRIVES else self._written.pop(lane, NOTHING)
        named = tuple(dict.fromkeys(cause for cause in (self.cause, *self.also, *causes, known) if cause))
        self.events.append(Event(number, self.now(), lane, kind, text, named, details))
        return number

    def acts_on_what_it_took(self) -> None:
        """What is recorded now follows from all that a process has taken in."""
        self.also, self.taken = self.taken, ()
        self.cause = self.also[-1] if self.also else self.cause

    def begin(self, lane: str, kind: Kind, text: str, causes: Iterable[int] = (), **details: Any) -> int:
        """Record an event that causes what is recorded next."""
        self.cause = self.add(lane, kind, text, causes, **details)
        return self.cause

    def enter(self, lane: str, kind: Kind, text: str, **details: Any) -> int:
        """Like `begin`, for what comes from outside: nothing in the run has caused it."""
        self.cause, self._pending = NOTHING, None
        return self.begin(lane, kind, text, **details)

    def tell(self, number: int) -> None:
        if self.sink is not None:
            self.sink(line_of(self[number]))

    def within(self, act: Callable[P, T]) -> Callable[P, T]:
        """`act`, which whenever it is called follows from what happens now."""
        cause = self.cause

        def told(*arguments: P.args, **named: P.kwargs) -> T:
            before, self.cause, self._pending = self.cause, cause, None
            result = act(*arguments, **named)
            self.cause, self._pending = before, None  # not after an exception: a violation follows from it
            return result

        return told

    def timer(self, lane: str, text: str) -> None:
        """A timer went off. It becomes an event when something follows from it."""
        self._pending = (lane, text)

    def remember(self, requests: Iterable[tuple[int, int]], number: int) -> None:
        """`number` asks for these (session, sequence)."""
        self._requests.update(dict.fromkeys(requests, number))

    def asked(self, requests: Iterable[tuple[int, int]]) -> list[int]:
        """The events that asked for these last."""
        return [self._requests[request] for request in requests if request in self._requests]

    # ------------------------------------------------------------------ members

    def look(self, node_id: int, term: int, commit_index: int) -> None:
        """What a member shows after a step: its term and what it knows to be committed."""
        lane = f"n{node_id}"
        if term != self._terms.get(lane):
            self._terms[lane] = term
            self.add(lane, Kind.TERM, f"enters term {term}", term=term)
        known = self._commits.get(lane)
        if commit_index != known:
            self._commits[lane] = commit_index
            first = commit_index if known is None else known + 1
            self.add(lane, Kind.COMMIT, f"commits to {commit_index}", first=first, last=commit_index)

    def recovered(self, node_id: int, text: str, term: int, commit_index: int) -> None:
        """A member begins with what its disk kept."""
        lane = f"n{node_id}"
        self._terms[lane], self._commits[lane] = term, commit_index
        self.started(lane, text, term=term)

    def started(self, lane: str, text: str, **details: Any) -> None:
        """A process begins, for the first time or after it has crashed."""
        crashed = self._down.pop(lane, NOTHING)
        if not crashed:
            self.cause = NOTHING
        self.begin(lane, Kind.START, text, (crashed, self._last_durable.get(lane, NOTHING)), **details)

    def crashed(self, lane: str, text: str) -> None:
        self._written.pop(lane, None)
        self._down[lane] = self.begin(lane, Kind.CRASH, text)

    def is_down(self, lane: str) -> bool:
        return lane in self._down

    # ------------------------------------------------------------------ the replicated state machine

    def decide(self, text: str) -> None:
        """What applying the present entry means, told by whoever applies it first; each follows from the last."""
        self._last_decision = self.add(LOG, Kind.DECISION, text, (self._last_decision,))
        self._undated.append(self._last_decision)

    def applied(self, node_id: int, index: int) -> None:
        """A member is at this index. What it says now follows from what was decided there, by whomever."""
        if self._undated:
            self._decided[index], self._undated = self._undated, []
        decided = self._decided.get(index, ())
        self.begin(f"n{node_id}", Kind.APPLY, f"has applied {index}", decided, index=index)

    # ------------------------------------------------------------------ disks

    def persist(self, node_id: int, seq: int, text: str) -> None:
        self._issued[node_id, seq] = self.add(f"d{node_id}", Kind.PERSIST, text, seq=seq)

    def durable(self, node_id: int, seq: int) -> None:
        """What follows was waiting for this."""
        issued = self._issued.pop((node_id, seq), NOTHING)
        self.cause = issued or self.cause
        text = f"write {seq} is durable"
        self._last_durable[f"n{node_id}"] = self.begin(f"d{node_id}", Kind.DURABLE, text, seq=seq)

    def told_durable(self, node_id: int) -> None:
        """The process hears of the write that is the present cause: whatever it does next follows from it too."""
        self._written[f"n{node_id}"] = self.cause

    # ------------------------------------------------------------------ faults and the end

    def fault_ends(self) -> None:
        """The fault that scheduled what happens now is over."""
        fault = self.cause
        if fault and self[fault].kind is Kind.FAULT:
            text = self[fault].text.partition(" for ")[0]
            self.begin(NEMESIS, Kind.FAULT_END, f"{text} ends", began=fault)

    def violation(self, oracle: str, detail: str, lanes: Iterable[str]) -> int:
        """A promise is broken. It follows from what happens now, and from the last thing each of `lanes` did."""
        named = list(lanes)
        last = [number for lane in named if (number := self.last_of(lane))]
        lane = self[self.cause].lane if self.cause else RUN
        if lane[0] == "d":
            lane = f"n{lane[1:]}"  # whoever acts on a finished write is the member
        return self.begin(lane, Kind.VIOLATION, f"breaks {oracle}: {detail}", last, oracle=oracle)

    def last_of(self, lane: str) -> int:
        """The number of the last event of a lane."""
        for event in reversed(self.events):
            if event.lane == lane:
                return event.number
        return NOTHING
