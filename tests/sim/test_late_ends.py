"""The oracle of late ends rejects log time that stands still and leaders that let the time of a session pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import Command, ExpireSessions, KeepAlive, encode
from quorker.core.raft.messages import Entry
from quorker.sim.cases.case import Case, ClockKnobs, Fault, FaultKind, JobsKnobs, RaftKnobs
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.job_checks import Life
from quorker.sim.oracles.late_ends import LateEnds, Pace, Reign, pace_of, slowest_ppm
from quorker.sim.world.kernel import MS

PACE = Pace(slow_ppm=100_000, interval_ms=10, heartbeat_ms=20, rounds=2)
TERM = 3
END_MS = 1_100  # of session 7, in true time, by a clock that is a tenth too slow: at 1,000 of log time
LATE_MS = END_MS + 70


class Throne:
    """A leader since 100 ms of true time, over a log whose newest entry was made at 100 ms."""

    def __init__(self, pace: Pace = PACE) -> None:
        self.sessions = {7: Life(ttl_ms=900, renewed_lt=100), 8: Life(ttl_ms=5_000, renewed_lt=100)}
        self.late = LateEnds(pace, self.sessions)
        self.reign: Reign = self.late.on_takeover(TERM, 100 * MS)
        self.late.on_batch(TERM, 100, 100 * MS)
        self._index = 10

    def make(self, at_ms: int, command: Command, session: int = 0) -> int:
        """The leader proposes it. Returns its index."""
        self._index += 1
        group = encode_group(session, 0, [(0, encode(command))])
        entry = Entry(TERM, self._index, encode_entry(at_ms, 0, [group]))
        self.late.on_made(self.reign, [entry], at_ms * MS)
        return self._index

    def apply(self, at_ms: int, index: int) -> None:
        self.late.on_applied(self.reign, index, at_ms * MS)

    def look(self, at_ms: int, *, hindered: bool = False) -> None:
        self.late.look(self.reign, at_ms * MS, hindered=hindered)


@pytest.fixture
def throne() -> Throne:
    return Throne()


def rejects(why: str, act: Callable[[], object]) -> None:
    with pytest.raises(Violation, match=rf"^leases end in time \[T5\]: session 7 .*{why}"):
        act()


# ---------------------------------------------------------------- log time


@pytest.mark.parametrize("term", [TERM, TERM + 1])
def test_log_time_passes_by_the_slowest_clock_since_the_last_entry_or_the_takeover(term: int) -> None:
    throne = Throne()
    throne.late.on_takeover(TERM + 1, 600 * MS)
    elapsed_ms = 1_000 if term == TERM else 500
    least_ms = elapsed_ms * 9 // 10 - 3
    throne.late.on_batch(term, 100 + least_ms, 1_100 * MS)
    slower = Throne()
    slower.late.on_takeover(TERM + 1, 600 * MS)
    with pytest.raises(Violation, match=r"^log time is fast enough \[T5\]"):
        slower.late.on_batch(term, 100 + least_ms - 1, 1_100 * MS)


def test_the_slowest_clock_is_that_of_a_member_at_any_time() -> None:
    clocks = (ClockKnobs(5_000), ClockKnobs(-3_000), ClockKnobs(0), ClockKnobs(-80_000))
    case = Case(seed=1, chaos_ns=MS, clocks=clocks)  # the last is a client's
    assert slowest_ppm(case) == 3_000
    slower = Fault(MS, FaultKind.CLOCK_RATE, 0, amount=-40_000)
    assert slowest_ppm(replace(case, plan=(slower,))) == 40_000
    assert slowest_ppm(replace(case, clocks=clocks[:1])) == 0


def test_one_entry_may_stand_in_the_way_where_there_is_room_for_one() -> None:
    case = Case(seed=1, jobs=JobsKnobs(rounds=8))
    assert pace_of(case, 10).rounds == 8
    assert pace_of(replace(case, raft=RaftKnobs(max_uncommitted_bytes=1024)), 10).rounds == 1


# ---------------------------------------------------------------- the leader


def test_an_idle_leader_that_lets_the_time_pass(throne: Throne) -> None:
    throne.look(END_MS + 30)
    rejects("nothing has stood in the way", lambda: throne.look(LATE_MS))


def test_a_session_that_was_renewed_or_has_ended(throne: Throne) -> None:
    throne.sessions[7].renewed_lt = 500
    throne.look(LATE_MS)
    del throne.sessions[7]
    throne.look(LATE_MS + 1_000)


def test_a_leader_that_proposes_its_end(throne: Throne) -> None:
    throne.make(END_MS + 12, ExpireSessions((7,)))
    throne.look(LATE_MS + 10_000)  # it takes as long as there is no majority


def test_all_rounds_are_under_way_or_one_of_them_only(throne: Throne) -> None:
    throne.make(END_MS, KeepAlive(), session=8)
    rejects("nothing has stood in the way", lambda: throne.look(LATE_MS))
    throne.make(END_MS, KeepAlive(), session=8)
    throne.look(LATE_MS)


def test_a_leader_that_was_free_again_for_a_while(throne: Throne) -> None:
    made = [throne.make(END_MS, KeepAlive(), session=8) for _ in range(2)]
    throne.look(LATE_MS + 50)
    throne.apply(LATE_MS + 100, made[0])
    throne.look(LATE_MS + 120)
    rejects("nothing has stood in the way", lambda: throne.look(LATE_MS + 150))


def test_a_leader_that_hands_over_or_has_applied_nothing_of_its_own(throne: Throne) -> None:
    throne.look(LATE_MS, hindered=True)
    throne.make(LATE_MS + 5, KeepAlive(), session=8)
    throne.look(LATE_MS + 20)
    rejects("nothing has stood in the way", lambda: throne.look(LATE_MS + 50))


def test_a_leader_that_was_frozen(throne: Throne) -> None:
    throne.reign.free_ns = LATE_MS * MS
    throne.look(LATE_MS)


def test_something_else_is_proposed_first(throne: Throne) -> None:
    throne.make(END_MS + 30, KeepAlive(), session=8)
    rejects("something else is proposed", lambda: throne.make(LATE_MS, KeepAlive(), session=8))


def test_something_else_is_proposed_after_upkeep_of_which_there_is_more_to_do(throne: Throne) -> None:
    throne.late.on_upkeep((LATE_MS - 10) * MS)
    throne.make(LATE_MS, KeepAlive(), session=8)
    rejects("something else is proposed", lambda: throne.make(LATE_MS + 40, KeepAlive(), session=8))


def test_something_else_is_proposed_while_upkeep_is_under_way(throne: Throne) -> None:
    throne.make(END_MS + 10, ExpireSessions((7,)))
    throne.make(LATE_MS, KeepAlive(), session=8)


def test_a_session_that_was_learned_of_when_its_time_had_passed(throne: Throne) -> None:
    opening = throne.make(100, KeepAlive(), session=7)
    throne.apply(LATE_MS - 1, opening)
    throne.make(LATE_MS, KeepAlive(), session=8)
    rejects("something else is proposed", lambda: throne.make(LATE_MS + 40, KeepAlive(), session=8))


def test_what_was_applied_in_time_excuses_nothing(throne: Throne) -> None:
    throne.apply(LATE_MS - 1, throne.make(END_MS - 200, KeepAlive(), session=8))
    rejects("something else is proposed", lambda: throne.make(LATE_MS, KeepAlive(), session=8))


def test_a_former_leader_is_not_asked(throne: Throne) -> None:
    throne.late.on_takeover(TERM + 1, 200 * MS)
    throne.late.on_batch(TERM + 1, 200, 300 * MS)
    throne.look(LATE_MS)
