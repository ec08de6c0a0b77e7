"""How long a job may stay with a holder that is gone, in true time: the oracle of guarantee T5, in two halves.

Log time must pass by the slowest clock at least, as long as one leader is in office; and a leader that is free to act must
propose the end of a session soon after its time. What neither half counts is the time without a leader: from the newest
entry that a new leader has to its takeover, until it has applied an entry of its own term, and while an entry that stands
in the way is on its way to a majority. When the store must not end a session is for `job_checks` and `lease_gaps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from quorker.core.jobs.batch import decode_entry, decode_group
from quorker.core.jobs.commands import (
    AdvanceRecurring,
    ExpireRecords,
    ExpireSessions,
    Maintain,
    ReleaseDue,
    SetLimits,
)
from quorker.core.raft.messages import Entry, EntryKind
from quorker.sim.cases.case import Case
from quorker.sim.oracles.checks import Violation
from quorker.sim.world.kernel import MS

PPM: Final = 1_000_000
ROUNDING_MS: Final = 3  # of readings of a clock in whole milliseconds
ROOMY_BYTES: Final = 1 << 20
"""With less room for what is not committed, one entry may stand in the way of the next."""
UPKEEP: Final = frozenset(
    each.OP for each in (ExpireSessions, ReleaseDue, ExpireRecords, Maintain, SetLimits, AdvanceRecurring)
)


class Lived(Protocol):
    """A session that lives, as the log has it."""

    ttl_ms: int
    renewed_lt: int


@dataclass(slots=True)
class Reign:
    """A member that leads. `free_ns`: since when nothing has stood in the way of what is due. `under_way`: entries of its
    own that are not applied yet, and when they were made."""

    term: int
    since_ns: int
    free_ns: int
    hindered_ns: int = -(1 << 62)  # when it was last unable to propose, or to know what is due
    under_way: dict[int, tuple[Entry, int]] = field(default_factory=dict[int, tuple[Entry, int]])


@dataclass(frozen=True, slots=True)
class Pace:
    """What the members of a run are configured to. `slow_ppm`: how much too slow a clock of theirs ever is, at most.

    A leader looks at its clock with every heartbeat at the latest.
    """

    slow_ppm: int
    interval_ms: int
    heartbeat_ms: int
    rounds: int

    @property
    def patience_ms(self) -> int:
        return self.interval_ms + self.heartbeat_ms + ROUNDING_MS


def slowest_ppm(case: Case) -> int:
    """How much too slow the monotonic clock of any member of this run ever is, at most."""
    return -min(case.rates_ppm)


def pace_of(case: Case, interval_ms: int) -> Pace:
    roomy = case.raft.max_uncommitted_bytes >= ROOMY_BYTES
    rounds = case.jobs.rounds if case.jobs is not None and roomy else 1
    return Pace(slowest_ppm(case), interval_ms, case.raft.heartbeat_ms, rounds)


class LateEnds:
    """`sessions`: those that live, as the log has them; somebody else keeps them."""

    def __init__(self, pace: Pace, sessions: Mapping[int, Lived]) -> None:
        self._pace = pace
        self._sessions = sessions
        self._took_over_ns: dict[int, int] = {}  # term -> when its leader took over
        self._last = (0, 0, 0)  # term, log time and true time of the newest batch
        self._maintained_ns = -(1 << 62)  # when the newest upkeep that was applied had been proposed

    # ------------------------------------------------------------------ the log, once

    def on_batch(self, term: int, lt: int, written_ns: int) -> None:
        """An entry is applied for the first time: log time has passed since the one before, or since the takeover."""
        last_term, last_lt, last_ns = self._last
        since_ns = last_ns if term == last_term else self._took_over_ns.get(term, written_ns)
        least_ms = self._least_ms(written_ns - since_ns)
        if last_term and lt - last_lt < least_ms:
            raise Violation(
                "log time is fast enough [T5]",
                f"{lt - last_lt} ms passed in {written_ns - since_ns} ns of one leader, {least_ms} at least must have",
            )
        self._last = term, lt, written_ns

    def on_upkeep(self, written_ns: int) -> None:
        """An entry of the leader's own, in which something ended that was due."""
        self._maintained_ns = written_ns

    # ------------------------------------------------------------------ a leader

    def on_takeover(self, term: int, now_ns: int) -> Reign:
        self._took_over_ns[term] = now_ns
        return Reign(term, now_ns, now_ns)

    def on_made(self, reign: Reign, entries: Iterable[Entry], now_ns: int) -> None:
        """The leader proposes these now: with room for them, it had room for what is due."""
        for entry in entries:
            if entry.kind is EntryKind.NORMAL and entry.data and entry.term == reign.term:
                self._judge_order(reign, entry, now_ns)
                reign.under_way[entry.index] = entry, now_ns

    def _judge_order(self, reign: Reign, entry: Entry, now_ns: int) -> None:
        excused_ns = max(reign.hindered_ns, self._maintained_ns, reign.since_ns)
        if now_ns - excused_ns <= self._patience_ns:
            return
        late = self._late(reign, now_ns)
        if late is not None and not self._is_blocked(reign) and not is_upkeep(entry):
            self._reject(late, "something else is proposed before its end")

    def on_applied(self, reign: Reign, index: int, now_ns: int) -> None:
        """The leader has applied an entry, and looks again for what is due.

        If it took long, a session is known from now on whose time may have passed already.
        """
        made = reign.under_way.pop(index, None)
        if made is not None:
            reign.free_ns = now_ns
            shortest_ms = min((each.ttl_ms for each in self._sessions.values()), default=0)
            half_ns = shortest_ms * MS // 2  # by any clock it is less than the time of a session
            if now_ns - made[1] >= half_ns:
                reign.hindered_ns = now_ns

    def look(self, reign: Reign, now_ns: int, *, hindered: bool) -> None:
        """The leader looks at its clock, and has done whatever it wanted to do before.

        `hindered`: it hands over, is no member any more, or has applied nothing of its own term.
        """
        if hindered:
            reign.free_ns = reign.hindered_ns = now_ns
            return
        late = self._late(reign, now_ns)
        if late is None:
            return
        if self._is_blocked(reign):
            reign.free_ns = now_ns
        elif now_ns - reign.free_ns > self._patience_ns:
            self._reject(late, f"nothing has stood in the way of its end for {now_ns - reign.free_ns} ns")

    # ------------------------------------------------------------------ how

    @property
    def _patience_ns(self) -> int:
        return self._pace.patience_ms * MS * PPM // (PPM - self._pace.slow_ppm)

    def _least_ms(self, elapsed_ns: int) -> int:
        """So much a clock has gone on at least, as far as its whole milliseconds show."""
        return elapsed_ns * (PPM - self._pace.slow_ppm) // PPM // MS - ROUNDING_MS

    def _late(self, reign: Reign, now_ns: int) -> tuple[int, int] | None:
        """The session that should have ended longest ago, and by how much; None if none has had to, or it cannot be told."""
        term, lt, written_ns = self._last
        if term > reign.term:
            return None  # somebody else's log time counts
        since_ns = written_ns if term == reign.term else reign.since_ns
        lt += self._least_ms(now_ns - since_ns)
        ends = [(each.renewed_lt + each.ttl_ms, session) for session, each in self._sessions.items()]
        end_lt, session = min(ends, default=(lt, 0))
        return (session, lt - end_lt) if lt - end_lt > self._pace.patience_ms else None

    def _is_blocked(self, reign: Reign) -> bool:
        """Whether what is under way stands in the way: all rounds of the leader, or upkeep, of which there is one at a time."""
        under_way = reign.under_way
        return len(under_way) >= self._pace.rounds or any(is_upkeep(entry) for entry, _ in under_way.values())

    def _reject(self, late: tuple[int, int], why: str) -> None:
        session, late_ms = late
        raise Violation(
            "leases end in time [T5]", f"session {session} should have ended {late_ms} ms ago: {why}"
        )


def is_upkeep(entry: Entry) -> bool:
    """Whether the leader made it to end what is due."""
    for data in decode_entry(entry.data).groups:
        group = decode_group(data)
        if not group.session and any(wire[0] in UPKEEP for _, wire in group.commands):
            return True
    return False
