"""The parts of a world that know a story is being recorded: an event queue and a network that carry causes along.

They behave like the plain ones to the last draw; a run without a story uses the plain ones and pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

from quorker.sim.stories.story import NOTHING, Kind, Story
from quorker.sim.stories.words import answered, asks, line_words, message_details, message_words
from quorker.sim.world.kernel import Call, Kernel
from quorker.sim.world.network import Network, NetworkKnobs
from quorker.sim.world.wire import Wire, size_of


class TellingKernel(Kernel):
    """Whatever is scheduled follows from what happened when it was scheduled."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story
        story.now = lambda: self.now

    def after(
        self, delay_ns: int, function: Callable[[Call], None], payload: object = None, rank: int = 1
    ) -> None:
        super().after(delay_ns, self._story.within(function), payload, rank)


class Told(tuple[Any, ...]):
    """What the network carries, with the event that sent it."""

    number: int

    def __new__(cls, number: int, item: Any) -> Self:
        told = super().__new__(cls, item)
        told.number = number
        return told


class TellingNetwork(Network):
    """Records every message twice: when it is sent, and each time when it arrives."""

    def __init__(
        self, story: Story, kernel: Kernel, seed: int, knobs: NetworkKnobs, deliver: Callable[[Call], None]
    ) -> None:
        super().__init__(kernel, seed, knobs, self._hear, size_of, Wire)
        self._story = story
        self._told = deliver
        self._cutting: dict[tuple[int, int], list[int]] = {}

    def send(
        self, source: int, target: int, name: int, item: Any, size_delay_ns: int = 0, *, once: bool = False
    ) -> bool:
        story, message = self._story, item[0]
        text = f"-> n{target} {message_words(message)}"
        number = story.append(f"n{source}", Kind.SEND, text, to=f"n{target}", **message_details(message))
        before, story.cause = story.cause, number
        arrives = super().send(source, target, name, Told(number, item), size_delay_ns, once=once)
        story.cause = before
        if not arrives:
            self._mark_lost(number, source, target)
        story.tell(number)
        return arrives

    def cut(self, pairs: Iterable[tuple[int, int]], by: int = 1) -> None:
        pairs = list(pairs)
        super().cut(pairs, by)
        for pair in pairs:
            cutting = self._cutting.setdefault(pair, [])
            if by > 0:
                cutting.append(self._story.cause)
            elif cutting:
                cutting.pop(0)

    def heal(self, knobs: NetworkKnobs) -> None:
        super().heal(knobs)
        self._cutting.clear()

    def _mark_lost(self, number: int, source: int, target: int) -> None:
        """A message that a fault has cut off follows from that fault too."""
        event = self._story[number]
        cutting = self._cutting.get((source, target), [])
        event.causes = tuple(dict.fromkeys((*event.causes, *(cause for cause in cutting if cause))))
        event.details["lost"] = "the link is cut" if cutting else "lost on the way"
        event.text += f"  ({event.details['lost']})"

    def _arrive(self, call: Call) -> None:
        link, connection, (_, _, item), _ = call.payload
        if connection is not link.connection:
            self._story[item.number].details["lost"] = "its connection broke"
        super()._arrive(call)

    def _hear(self, call: Call) -> None:
        source, target, item = call.payload
        story, number = self._story, item.number
        released, story.cause = story.cause, number
        message, lane = item[0], f"n{target}"
        text = f"<- n{source} {message_words(message)}"
        if story.is_down(lane):
            text += "  (nobody is there)"
        about = message_details(message)
        story.begin(lane, Kind.DELIVER, text, _released_by(released, number), sent=number, **about)
        self._told(call)


class TellingInbox(list[Callable[[], None]]):
    """What arrived at a frozen process, with its causes. What the process then does follows from all of it."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story

    def append(self, arrived: Callable[[], None], /) -> None:
        story, cause, take = self._story, self._story.cause, self._story.within(arrived)

        def take_in() -> None:
            take()
            story.taken = (*story.taken, cause)

        super().append(take_in)


def kernel_for(story: Story | None) -> Kernel:
    return Kernel() if story is None else TellingKernel(story)


def network_for(
    story: Story | None, kernel: Kernel, seed: int, knobs: NetworkKnobs, deliver: Callable[[Call], None]
) -> Network:
    if story is None:
        return Network(kernel, seed, knobs, deliver, size_of, Wire)
    return TellingNetwork(story, kernel, seed, knobs, deliver)


def inbox_for(story: Story | None) -> list[Callable[[], None]]:
    return [] if story is None else TellingInbox(story)


def across(
    story: Story,
    ends: tuple[str, str],
    act: Callable[..., None],
    arguments: tuple[Any, ...],
    move: Callable[[Callable[..., None]], None],
) -> None:
    """Tell `act` at the other end of a line as a message: sent now, delivered when what `move` is given is called."""
    source, target = ends
    words, details = line_words(act.__name__, arguments)
    asked = story.asked(answered(act.__name__, arguments))
    number = story.add(source, Kind.SEND, f"-> {target} {words}", asked, to=target, **details)
    story.remember(asks(act.__name__, arguments), number)

    def deliver(*given: Any) -> None:
        released, story.cause = story.cause, number
        text = f"<- {source} {words}"
        story.begin(target, Kind.DELIVER, text, _released_by(released, number), sent=number, **details)
        act(*given)

    before, story.cause = story.cause, number
    move(deliver)
    story.cause = before


def _released_by(cause: int, sent: int) -> tuple[int, ...]:
    """What let a message go that had been held on its way."""
    return (cause,) if cause not in (sent, NOTHING) else ()
