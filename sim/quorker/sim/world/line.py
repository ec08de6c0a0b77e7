"""One connection between a client and a member: in order both ways, until it breaks. Twin of `quorker.transport.route`.

Nothing is lost on a line while it stands, and everything under way is lost when it breaks. The two ends learn of the
break at different times, and either may be frozen or gone by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from quorker.core.jobs.outcome import Notice
from quorker.core.raft.messages import NodeId
from quorker.sim.stories.storyteller import across
from quorker.sim.world.kernel import Call
from quorker.sim.world.network import LATENCIES, latency_ns
from quorker.sim.world.randomness import key, mix
from quorker.sim.world.wire import ForwardRefused
from quorker.sim.world.world import World


class End(Protocol):
    """A process at one end. `inbox` takes what arrives while it is frozen."""

    id: int
    incarnation: int
    paused: bool
    inbox: list[Callable[[], None]]


class ClientEnd(End, Protocol):
    """What a member says to a client."""

    def on_opened(self, nonce: int, session_id: int) -> None: ...

    def on_reply(self, session_id: int, seq: int, reply: Any) -> None: ...

    def on_notice(self, notice: Notice) -> None: ...

    def on_refused(self, refused: ForwardRefused, leader: NodeId) -> None: ...

    def on_lost(self, session_id: int, reason: str) -> None: ...

    def on_route_changed(self) -> None: ...

    def on_answer(self, number: int, index: int, value: Any) -> None: ...

    def on_line_broken(self, line: Line) -> None: ...


@dataclass(frozen=True, slots=True)
class Query:
    """A read of the store: `name` of the query and what it is `about`, served once `min_index` is applied."""

    number: int
    name: str
    about: str
    linearizable: bool
    min_index: int

    @property
    def arguments(self) -> dict[str, Any]:
        return {"key" if self.name == "counter" else "job_id": self.about}


class MemberEnd(End, Protocol):
    """What a client says to a member. `crawling`: it is woken for a moment, and frozen again."""

    crawling: bool

    def on_submit(self, line: Line, group: bytes) -> None: ...

    def on_attach(self, line: Line, session_id: int) -> None: ...

    def on_line_lost(self, line: Line) -> None: ...

    def on_query(self, line: Line, query: Query) -> None: ...


class Line:
    """`client` and `member` are the processes as they are now: a later life of either never hears of this line."""

    def __init__(
        self, world: World, number: int, client: ClientEnd, member: MemberEnd, *, near: bool
    ) -> None:
        """`near`: both ends are in one process, so nothing takes time."""
        self.up = True
        self.stalled = False
        self.client = client
        self.member = member
        self._world = world
        self._lives: tuple[tuple[End, int], ...]
        self._lives = ((client, client.incarnation), (member, member.incarnation))
        self._near = near
        self._key = key(world.case.seed, "line", number)
        self._sent = 0
        self._arrives_ns = [0, 0]
        self._held: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []

    def to_member(self, act: Callable[..., None], *arguments: Any) -> None:
        """`act(*arguments)` happens at the member, if this line and that process still stand."""
        self._say(1, act, arguments)

    def to_client(self, act: Callable[..., None], *arguments: Any) -> None:
        self._say(0, act, arguments)

    def break_now(self) -> None:
        """Neither end gets anything more; each learns of it after a while of its own."""
        if not self.up:
            return
        self.up = False
        self._held.clear()
        self._world.note("line broken")
        for end, notice in ((0, self.client.on_line_broken), (1, self.member.on_line_lost)):
            process, incarnation = self._lives[end]
            delay = 0 if self._near else 2 * self._latency_ns()
            self._world.kernel.after(delay, self._tell, (process, incarnation, notice))

    def stall(self) -> None:
        self.stalled = not self._near

    def resume(self) -> None:
        self.stalled = False
        held, self._held = self._held, []
        for end, act, arguments in held:
            self._move(end, act, arguments)

    def _say(self, end: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        story = self._world.trace.story
        if story is not None and self.up:
            member, client = f"n{self.member.id}", f"c{self.client.id}"
            ends = (client, member) if end else (member, client)
            across(story, ends, act, arguments, lambda told: self._move(end, told, arguments))
        else:
            self._move(end, act, arguments)

    def _move(self, end: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self.up:
            return
        if self.stalled:
            self._held.append((end, act, arguments))
            return
        now = self._world.kernel.now
        delay = 0 if self._near else self._latency_ns()
        at_ns = self._arrives_ns[end] = max(now + delay, self._arrives_ns[end])
        self._world.kernel.after(at_ns - now, self._arrive, (end, act, arguments))

    def _arrive(self, call: Call) -> None:
        end: int
        end, act, arguments = call.payload
        process, incarnation = self._lives[end]
        if not self.up or process.incarnation != incarnation:
            if not end:
                self._world.note("answer lost with its line")
            return
        if process.paused:
            process.inbox.append(lambda: act(*arguments))
        else:
            act(*arguments)

    def _tell(self, call: Call) -> None:
        process: End
        process, incarnation, notice = call.payload
        if process.incarnation != incarnation:
            return
        if process.paused:
            process.inbox.append(lambda: notice(self))
        else:
            notice(self)

    def _latency_ns(self) -> int:
        self._sent += 1
        knobs = self._world.network.knobs
        return latency_ns(LATENCIES[knobs.latency], knobs.median_ns, mix(self._key + self._sent) >> 48)
