"""How long a lease lasts in true time, which no process can see: the oracle of guarantee T2 from end to end.

From the moment in which a client first sent the newest command that was acknowledged to it, its session lives at least its
time to live by the fastest clock of any member. Log time is not looked at: what it gains by many small errors shows here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from quorker.core.jobs.outcome import Reply
from quorker.sim.cases.case import Case
from quorker.sim.oracles.checks import Violation
from quorker.sim.world.kernel import MS

PPM: Final = 1_000_000
ROUNDING_MS: Final = 2  # of the two readings of a clock in whole milliseconds
NOT_APPLIED: Final = frozenset(
    {"session_expired", "stale_sequence", "bad_command", "no_session", "entry_full"}
)


def fastest_ppm(case: Case) -> int:
    """How much too fast the monotonic clock of any member of this run ever is, at most."""
    return max(case.rates_ppm)


class LeaseGaps:
    """What clients sent and were told, and when their sessions expired, in ns of true time."""

    def __init__(self, rate_ppm_max: int) -> None:
        self._rate_ppm = rate_ppm_max
        self._sent: dict[tuple[int, int], int] = {}  # (session, sequence), or (0, nonce) of what opens one
        self._renewed: dict[int, int] = {}
        self._expired: dict[int, tuple[int, int]] = {}  # session -> its time to live in ms, when it ended

    def on_sent(self, session: int, seqs: Iterable[int], now_ns: int) -> None:
        """A client sends these. It may be any copy of a command that renews the session, so only the first one counts."""
        for seq in seqs:
            self._sent.setdefault((session, seq), now_ns)

    def on_opened(self, nonce: int, session: int) -> None:
        self._renew(session, self._sent.get((0, nonce), 0))

    def on_reply(self, session: int, seq: int, reply: Reply) -> None:
        """The reply has arrived, perhaps long after the session has ended."""
        if not reply[0] or reply[1] not in NOT_APPLIED:
            self._renew(session, self._sent.get((session, seq), 0))

    def on_expired(self, session: int, ttl_ms: int, now_ns: int) -> None:
        """The leader has made the entry that gives away what the session holds, at the soonest to the next in that entry."""
        self._expired[session] = ttl_ms, now_ns
        self._judge(session)

    def _renew(self, session: int, sent_ns: int) -> None:
        if sent_ns > self._renewed.get(session, -1):
            self._renewed[session] = sent_ns
            if session in self._expired:
                self._judge(session)

    def _judge(self, session: int) -> None:
        renewed_ns = self._renewed.get(session)
        if renewed_ns is None:
            return
        ttl_ms, ended_ns = self._expired[session]
        if (ended_ns - renewed_ns) * (PPM + self._rate_ppm) < (ttl_ms - ROUNDING_MS) * MS * PPM:
            raise Violation(
                "leases last [T2]",
                f"session {session} expired {ended_ns - renewed_ns} ns after its last acknowledged command was sent; "
                f"{ttl_ms} ms by a clock that is {self._rate_ppm} ppm too fast are more",
            )
