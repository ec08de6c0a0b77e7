"""What processes believe to hold, in true time, which none of them can see: the oracle of guarantees T3 and T4.

Whoever runs and stops at its local deadline must never overlap with the next holder. A frozen process cannot stop; it
may overlap, and only that is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from quorker.sim.checks import Violation
from quorker.sim.world import World


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

    def revoke(self, what: str, token: int) -> None:
        """It was taken away on purpose, by somebody who does not wait for the holder to hear of it."""
        self._revoked.add(token)
        self.let_go(what, token)

    def hold(self, what: str, token: int, holder: Believer) -> None:
        if token in self._revoked:
            return
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

    def let_go(self, what: str, token: int) -> None:
        self._held.get(what, {}).pop(token, None)

    def forget(self, holder: Believer) -> None:
        """The process is gone, and holds nothing."""
        for held in self._held.values():
            for token in [token for token, belief in held.items() if belief.holder is holder]:
                del held[token]
