"""What processes believe to hold, in true time, which none of them can see: the oracle of guarantees T3 and T4.

Whoever runs and stops at its local deadline must never overlap with the next holder. A frozen process cannot stop; it
may overlap, and only that is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from quorker.sim.oracles.checks import Violation
from quorker.sim.stories.story import Kind
from quorker.sim.world.world import World


class Believer(Protocol):
    """A process. `waking`: it was frozen, and has not looked at its clock yet."""

    id: int
    paused: bool
    waking: bool


@dataclass(slots=True)
class Belief:
    holder: Believer
    token: int
    since_ns: int


class Beliefs:
    """Who believes to hold which job or lock, now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held: dict[str, dict[int, Belief]] = {}
        self._revoked: set[int] = set()
        self._begun: set[int] = set()

    def revoke(self, what: str, token: int) -> None:
        """It was taken away on purpose, by somebody who does not wait for the holder to hear of it."""
        self._revoked.add(token)
        self.let_go(what, token)

    def hold(self, what: str, token: int, holder: Believer) -> None:
        if token in self._revoked:
            return
        if token in self._begun:
            raise Violation("started once", f"c{holder.id} begins {what} by {token} again")
        self._begun.add(token)
        others = self._held.setdefault(what, {})
        for other in others.values():
            if any(each.paused or each.waking for each in (other.holder, holder)):
                self._world.note("overlap with a frozen holder")
            elif other.token != token:
                raise Violation(
                    "no overlap [T3]",
                    f"c{holder.id} holds {what} by {token}, c{other.holder.id} has held it by {other.token} "
                    f"since {other.since_ns} ns",
                )
        others[token] = Belief(holder, token, self._world.kernel.now)
        story = self._world.trace.story
        if story is not None:
            story.add(f"c{holder.id}", Kind.HOLD, f"holds {what} by {token}", what=what, token=token)

    def let_go(self, what: str, token: int) -> None:
        belief = self._held.get(what, {}).pop(token, None)
        if belief is not None:
            self._tell_end(what, belief)

    def forget(self, holder: Believer) -> None:
        """The process is gone, and holds nothing."""
        for what, held in self._held.items():
            for token in [token for token, belief in held.items() if belief.holder is holder]:
                self._tell_end(what, held.pop(token))

    def _tell_end(self, what: str, belief: Belief) -> None:
        story, token = self._world.trace.story, belief.token
        if story is not None:
            lane = f"c{belief.holder.id}"
            story.add(lane, Kind.LET_GO, f"holds {what} by {token} no more", what=what, token=token)
