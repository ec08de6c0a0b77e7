"""Recordings of real members as one story: what each did, and which sending each delivery belongs to.

Every recording is replayed by itself; messages are then matched by their bytes. The clocks of members are brought
together by the fastest messages of each direction, as time protocols do, so that members of several machines fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from quorker.core.raft.effects import ConfigChanged, Persist, ReadReady, RoleChanged, Send
from quorker.core.replica import Applied, Forward, LoadSnapshot, Replica, ReplicaEffect, SaveSnapshot
from quorker.core.wire import raft_codec
from quorker.core.wire.recording import Beginning, Input, InputKind, Recording
from quorker.sim.recordings.replay import Difference, Listener, replay
from quorker.sim.stories.story import NOTHING, Kind, Story
from quorker.sim.stories.words import conf_words, group_words, message_details, message_words, persist_words
from quorker.sim.world.wire import Forwarded

Key: TypeAlias = tuple[int, int, bytes]
"""(sender, receiver, bytes) of a message."""

LOST_NS: Final = (
    2_000_000_000  # a message that is under way for longer was lost, if an equal one was sent since
)
QUIET: Final = frozenset({InputKind.OBSERVE_TIME, InputKind.TICK})


@dataclass(slots=True)
class Told:
    """One member's part. `sent` and `heard`: its events of each message, by the message."""

    node_id: int
    story: Story = field(default_factory=Story)
    sent: dict[Key, list[int]] = field(default_factory=dict[Key, list[int]])
    heard: dict[Key, list[int]] = field(default_factory=dict[Key, list[int]])
    difference: Difference | None = None

    def at(self, number: int) -> int:
        return self.story[number].at_ns


class _Teller:
    """Turns the inputs and effects of one replayed member into events."""

    def __init__(self, recording: Recording) -> None:
        begun = recording.beginning
        self.told = Told(begun.node_id)
        self._story = self.told.story
        self._lane = f"n{begun.node_id}"
        self._began = begun.wall_ns - begun.monotonic_ns
        self._encoder = raft_codec.RaftEncoder()
        self._since: list[
            int
        ] = []  # inputs since effects were last drained: what follows from them is not told apart
        self._waiting: dict[int, tuple[Send, ...]] = {}
        self._replica: Replica
        self._tell_time(begun.monotonic_ns)

    def _tell_time(self, monotonic_ns: int) -> None:
        at_ns = self._began + monotonic_ns
        self._story.now = lambda: at_ns

    def begin(self, replica: Replica, _: Beginning) -> None:
        self._replica = replica
        raft = replica.raft
        text = f"starts in term {raft.term} with a log to {raft.last_index}"
        self._story.recovered(self.told.node_id, text, raft.term, raft.commit_index)
        self._since = [self._story.cause]

    def on_input(self, each: Input, effects: Sequence[ReplicaEffect]) -> None:
        self._tell_time(each.monotonic_ns)
        if each.kind is InputKind.DRAIN:
            self._drained(effects)
        elif each.kind not in QUIET:
            self._story.cause = NOTHING
            self._heard(each)
            self._since.append(self._story.cause)

    def _heard(self, each: Input) -> None:
        match each.kind:
            case InputKind.RECEIVE:
                self._received(each.arguments[0])
            case InputKind.SUBMIT:
                self._submitted(*each.arguments)
            case InputKind.PERSISTED:
                self._persisted(each.arguments[0])
            case _:
                words = each.kind.name.lower().replace("_", " ")
                self._story.begin(self._lane, Kind.NOTE, f"is told: {words}")

    def _received(self, data: bytes) -> None:
        message = raft_codec.decode(data)
        text = f"<- n{message.sender} {message_words(message)}"
        number = self._story.begin(self._lane, Kind.DELIVER, text, **message_details(message))
        self.told.heard.setdefault((message.sender, message.to, data), []).append(number)

    def _submitted(self, group: bytes, origin: int) -> None:
        if origin == self.told.node_id:
            self._story.begin(self._lane, Kind.OPERATION, f"is asked by its clients: {group_words(group)}")
            return
        said = Forwarded(origin, group)
        text = f"<- n{origin} {message_words(said)}"
        number = self._story.begin(self._lane, Kind.DELIVER, text, **message_details(said))
        self.told.heard.setdefault((origin, self.told.node_id, group), []).append(number)

    def _persisted(self, seq: int) -> None:
        for each in [each for each in self._waiting if each <= seq]:
            self._story.cause = NOTHING
            self._story.durable(self.told.node_id, each)
            for send in self._waiting.pop(each):
                self._sent(send.to, self._encoder.encode(send.message), send.message)

    def _drained(self, effects: Sequence[ReplicaEffect]) -> None:
        """All that was told since the last time may have led to it; if nothing was, it was the clock."""
        raft, since, first = self._replica.raft, self._since, len(self._story.events)
        self._since = []
        self._story.cause = since[-1] if since else NOTHING
        if not since:
            self._story.timer(self._lane, "its timer goes off")
        self._story.look(self.told.node_id, raft.term, raft.commit_index)
        for effect in effects:
            self._perform(effect)
        for event in self._story.events[first:] if since else ():
            event.causes = tuple(reversed(since))

    def _perform(self, effect: ReplicaEffect) -> None:
        match effect:
            case Send(to, message):
                self._sent(to, self._encoder.encode(message), message)
            case Forward(to, group):
                self._sent(to, group, Forwarded(self.told.node_id, group))
            case Persist():
                self._story.persist(self.told.node_id, effect.seq, persist_words(effect))
                self._waiting[effect.seq] = effect.then
            case RoleChanged(role, term):
                text = f"becomes {role.value} in term {term}"
                self._story.add(self._lane, Kind.ROLE, text, role=role.value, term=term)
            case Applied(index, _):
                self._story.add(self._lane, Kind.APPLY, f"has applied {index}", index=index)
            case ConfigChanged(conf_state, index):
                self._story.add(self._lane, Kind.CONFIG, f"has {conf_words(conf_state)} since {index}")
            case SaveSnapshot(meta, _):
                self._story.add(self._lane, Kind.SNAPSHOT, f"saves the snapshot to {meta.index}")
            case LoadSnapshot(meta):
                self._story.add(self._lane, Kind.SNAPSHOT, f"installs the snapshot to {meta.index}")
            case ReadReady(_, index):
                self._story.add(self._lane, Kind.READ, f"may read at {index}")
            case _:
                pass  # refusals and changes of leader are seen in what follows

    def _sent(self, to: int, data: bytes, message: object) -> None:
        text = f"-> n{to} {message_words(message)}"
        number = self._story.add(self._lane, Kind.SEND, text, to=f"n{to}", **message_details(message))
        self.told.sent.setdefault((self.told.node_id, to, data), []).append(number)


def tell(recording: Recording) -> Told:
    """One member's part, to its end or to the first difference."""
    teller = _Teller(recording)
    teller.told.difference = replay(recording, Listener(teller.begin, teller.on_input))
    told, lane = teller.told, f"n{teller.told.node_id}"
    told.story.cause = NOTHING
    if told.difference is not None:
        text = f"the recorded run and this core part: {told.difference}"
        told.story.enter(lane, Kind.VIOLATION, text, oracle="purity")
    else:
        told.story.crashed(lane, f"its recording ends: {ending_of(recording)}")
    return told


def ending_of(recording: Recording) -> str:
    if recording.cut_at is not None:
        return f"it is cut off at byte {recording.cut_at}; the process was killed"
    return recording.ended or "nothing says why; the process was killed"


# ---------------------------------------------------------------------- matching


def merged(parts: Sequence[Told]) -> Story:
    """One story of all parts, in which deliveries follow from their sendings. `sent` of a delivery names its sending."""
    shifts = _shifts(parts)
    sendings = _sendings(parts, shifts)
    story = Story()
    order = _in_order(parts, shifts, sendings)
    numbers = {place: number for number, place in enumerate(order, start=1)}
    zero_ns = min(part.at(1) - shift for part, shift in zip(parts, shifts, strict=True))
    latest_ns = 0
    for (part, old), number in numbers.items():
        event = parts[part].story[old]
        at_ns = event.at_ns - shifts[part] - zero_ns
        latest_ns = max(latest_ns, at_ns)  # clocks may stay apart by less than a message takes
        causes = [numbers[part, cause] for cause in event.causes]
        sending = sendings.get((part, old))
        details = dict(event.details)
        if sending is not None:
            details["sent"] = numbers[sending]
            causes.insert(0, numbers[sending])
        story.events.append(
            replace(event, number=number, at_ns=latest_ns, causes=tuple(causes), details=details)
        )
    return story


Place: TypeAlias = tuple[int, int]
"""(part, number of the event in that part)."""


def _shifts(parts: Sequence[Told]) -> list[int]:
    """By how much each part's clock is ahead of the first one's."""
    shifts: dict[int, int] = {0: 0} if parts else {}
    waiting = [0] if parts else []
    while waiting:
        known = waiting.pop()
        for other in range(len(parts)):
            ahead = None if other in shifts else _ahead(parts[known], parts[other])
            if ahead is not None:
                shifts[other] = shifts[known] + ahead
                waiting.append(other)
    return [shifts.get(part, 0) for part in range(len(parts))]


def _ahead(one: Told, other: Told) -> int | None:
    """How far the clock of `other` is ahead, if messages went both ways: half of what the fastest ones differ."""
    there, back = _fastest(one, other), _fastest(other, one)
    return None if there is None or back is None else (there - back) // 2


def _fastest(sender: Told, receiver: Told) -> int | None:
    """The shortest time that a message took; only those count that were said and heard exactly once."""
    times = [
        receiver.at(heard[0]) - sender.at(sent[0])
        for key, sent in sender.sent.items()
        if len(sent) == 1 and len(heard := receiver.heard.get(key, [])) == 1
    ]
    return min(times, default=None)


def _sendings(parts: Sequence[Told], shifts: Sequence[int]) -> dict[Place, Place]:
    """For each delivery the sending that it is of: among equal ones the next in order that was not lost."""
    sent = _by_message(parts, shifts, [part.sent for part in parts])
    found: dict[Place, Place] = {}
    for key, heard in _by_message(parts, shifts, [part.heard for part in parts]).items():
        pairs = zip(heard, _paired(sent.get(key, []), [at_ns for at_ns, _, _ in heard]), strict=False)
        found.update((each[1:], sending) for each, sending in pairs)
    return found


def _by_message(
    parts: Sequence[Told], shifts: Sequence[int], events: Sequence[dict[Key, list[int]]]
) -> dict[Key, list[tuple[int, int, int]]]:
    """When and where each message was sent, or heard, in the order of time; by all lives of a member together."""
    found: dict[Key, list[tuple[int, int, int]]] = {}
    for place, part in enumerate(parts):
        for key, numbers in events[place].items():
            timed = [(part.at(number) - shifts[place], place, number) for number in numbers]
            found.setdefault(key, []).extend(timed)
    return {key: sorted(timed) for key, timed in found.items()}


def _paired(sent: Sequence[tuple[int, int, int]], heard_ns: Sequence[int]) -> Iterator[Place]:
    """One sending for each time, in order as a connection keeps it; those that are too old by then were lost."""
    place = 0
    for at_ns in heard_ns:
        while place + 1 < len(sent) and sent[place + 1][0] <= at_ns and at_ns - sent[place][0] > LOST_NS:
            place += 1
        if place == len(sent):
            return
        yield sent[place][1:]
        place += 1


def _in_order(
    parts: Sequence[Told], shifts: Sequence[int], sendings: dict[Place, Place]
) -> dict[Place, None]:
    """All events by time, but none before the sending that it follows from."""
    order: dict[Place, None] = {}
    next_of = [1] * len(parts)
    while True:
        heads = [
            (parts[part].at(number) - shifts[part], part, number)
            for part, number in enumerate(next_of)
            if number <= len(parts[part].story.events)
        ]
        if not heads:
            return order
        free = [head for head in heads if head[1:] not in sendings or sendings[head[1:]] in order]
        _, part, number = min(free or heads)
        if not free:
            sendings.pop((part, number), None)  # equal messages crossed: this pair cannot be the true one
        order[part, number] = None
        next_of[part] += 1
