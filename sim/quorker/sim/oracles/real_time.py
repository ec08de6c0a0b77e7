"""Whether places in the log and answers to reads respect real time, which no process can see.

A command that was answered before another was asked for stands before it in the log [C1]; a linearizable read misses
nothing that was answered before it began, and a local one never goes back within its session [C4]. What the values
must be is the witness's to say.
"""

from __future__ import annotations

from quorker.sim.oracles.checks import Violation


class RealTime:
    """`newest`: the highest place in the log that any client has been told of, so far."""

    def __init__(self) -> None:
        self.newest = 0
        self._places: dict[tuple[int, int], int] = {}  # (session, sequence) -> where it took effect
        self.reads = self.linearizable_reads = 0

    def on_effect(self, session: int, seq: int, index: int) -> None:
        """A command of a session took effect here; its repeats do not."""
        self._places.setdefault((session, seq), index)

    def on_answered(self, session: int, seq: int, floor: int) -> int:
        """The reply has arrived. `floor` is what `newest` was when the command was asked for. Returns its place."""
        index = self._places.get((session, seq))
        if index is None:
            raise Violation(
                "answers have a place [C1]", f"{seq} of session {session} was answered and not applied"
            )
        if index <= floor:
            raise Violation(
                "real time [C1]",
                f"{seq} of session {session} took effect at {index}, what was answered before it at {floor}",
            )
        self.newest = max(self.newest, index)
        return index

    def on_read(self, index: int, floor: int, *, linearizable: bool) -> None:
        """An answer that reflects the log up to `index`. `floor`: what it must not be older than."""
        self.reads += 1
        if index < floor:
            what = "linearizable read [C4]" if linearizable else "reads never go back [C4]"
            raise Violation(what, f"answered as of {index}, {floor} was known when it was asked for")
        if linearizable:
            self.linearizable_reads += 1
            self.newest = max(self.newest, index)
