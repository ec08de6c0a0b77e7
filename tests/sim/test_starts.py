"""The oracle of starts rejects hand-made logs with one job too many, too often or too late, and accepts their lawful twins."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import (
    Command,
    CompleteJob,
    EnqueueJobs,
    FetchJobs,
    FetchNext,
    RequeueJob,
    encode,
)
from quorker.core.jobs.new_job import JobGrant, NewJob, StartRules, grant_to_wire
from quorker.core.jobs.outcome import Cancelled, Notice, Outcome
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import Entry
from quorker.sim.oracles.checks import Oracles, Violation
from quorker.sim.oracles.job_checks import JobOracles, Order
from quorker.sim.world.kernel import MS

MUTEX = StartRules("k", 1)


class Log:
    """Entries of session 7, as the oracles see them. Jobs and tokens are numbered; times are in ms."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.raft = Oracles({})
        self.raft.note = self.noted.append
        self.jobs = JobOracles(self.raft, rate_ppm_max=100_000)
        self.now = 0
        self._seq = 0

    def apply(self, *replies: tuple[Command, Any], notices: tuple[Notice, ...] = ()) -> None:
        numbered: list[tuple[int, Any]] = []
        answers: list[tuple[int, int, Any]] = []
        for command, value in replies:
            self._seq += 1
            numbered.append((self._seq, encode(command)))
            answers.append((7, self._seq, (0, value)))
        data = encode_entry(self.now, self.now, [encode_group(7, 0, numbered)])
        entry = Entry(2, self.raft.commit_index + 1, data)
        self.jobs.on_made(Persist(1, entries=(entry,)), self.now * MS)
        self.raft.committed.append(entry)
        self.jobs.on_applied(1, entry.index, Outcome(replies=answers, notices=list(notices)))

    def make(self, *rules: StartRules, **fields: Any) -> None:
        """Jobs J0, J1, ..., one for each of the rules."""
        jobs = tuple(NewJob("t", b"%d" % at, start=each, **fields) for at, each in enumerate(rules))
        for job in jobs:
            self.jobs.orders[job.args] = Order()
        self.apply((EnqueueJobs(jobs), tuple(f"J{at}" for at in range(len(jobs)))))

    def grant(self, *numbers: int, at: int | None = None) -> None:
        self.now = self.now if at is None else at
        self.apply(notices=tuple(granted(number) for number in numbers))


def job_grant(number: int, token: int = 0) -> JobGrant:
    return JobGrant(f"J{number}", token or 10 + number, "default", "t", b"", 1, 0, 0, 1)


def granted(number: int, token: int = 0) -> Notice:
    return Notice(7, "job", job_grant(number, token))


def completed(number: int) -> tuple[Command, Any]:
    return CompleteJob(f"J{number}", 10 + number), None


@pytest.fixture
def log() -> Log:
    return Log()


def rejects(oracle: str, act: Callable[[], object]) -> None:
    with pytest.raises(Violation, match=f"^{re.escape(oracle)}: "):
        act()


# [J21] ------------------------------------------------------------------------------------------------------------


def test_one_more_than_the_limit(log: Log) -> None:
    log.make(StartRules("k", 2), StartRules("k", 2), StartRules("k", 2))
    log.grant(0, 1)
    rejects("within its limit [J21]", lambda: log.grant(2))


def test_as_many_as_the_limit_one_after_the_other_and_beside_other_keys(log: Log) -> None:
    log.make(MUTEX, StartRules("l", 1), MUTEX)
    log.grant(0, 1)
    log.apply(completed(0), notices=(granted(2),))
    assert "limit of a key reached" in log.noted


def test_the_limit_of_the_one_that_starts_counts(log: Log) -> None:
    log.make(MUTEX, StartRules("k", 2), MUTEX)
    log.grant(0, 1)
    rejects("within its limit [J21]", lambda: log.grant(2))


def test_who_is_given_up_in_the_same_entry_holds_nothing(log: Log) -> None:
    log.make(MUTEX, MUTEX)
    log.grant(0)
    cancelled = Notice(7, "cancel", Cancelled(10, "J0", "deleted"))
    log.apply(notices=(cancelled, granted(1)))


def test_pulling_beside_a_holder(log: Log) -> None:
    log.make(MUTEX, MUTEX)
    log.grant(0)
    pulled = (FetchJobs(("default",), 1), (grant_to_wire(job_grant(1)),))
    rejects("within its limit [J21]", lambda: log.apply(pulled))


def test_a_job_that_was_made_when_its_key_was_full_has_waited(log: Log) -> None:
    log.make(MUTEX)
    log.grant(0)
    job = NewJob("t", b"later", start=MUTEX)
    log.jobs.orders[job.args] = Order()
    log.apply((EnqueueJobs((job,)), ("J1",)))
    log.apply(completed(0), notices=(granted(1),))
    assert "started after waiting for its key" in log.noted


# [J22] ------------------------------------------------------------------------------------------------------------


def test_one_start_too_soon(log: Log) -> None:
    log.make(*[StartRules("k", 0, 2, 100)] * 3)
    log.grant(0)
    log.grant(1, at=50)
    rejects("within its rate [J22]", lambda: log.grant(2, at=99))


def test_starts_as_often_as_the_rate_says(log: Log) -> None:
    log.make(*[StartRules("k", 0, 2, 100)] * 3)
    for number in range(3):
        log.grant(number, at=50 * number)
    assert "rate of a key used up" in log.noted


def test_a_burst_and_one_more(log: Log) -> None:
    log.make(*[StartRules("k", 0, 1, 100, burst=3)] * 5)
    log.grant(0, 1, 2)
    log.grant(3, at=100)
    rejects("within its rate [J22]", lambda: log.grant(4, at=199))


def test_a_start_by_contract_counts(log: Log) -> None:
    log.make(*[StartRules("k", 0, 1, 100)] * 2)
    log.grant(0)
    fetched = (FetchNext(("default",)), ("J1", "default", 99))
    rejects("within its rate [J22]", lambda: log.apply(fetched))


def test_stretches_in_which_two_rates_met_are_not_judged(log: Log) -> None:
    log.make(StartRules("k", 0, 1, 100), StartRules("k", 0, 1, 50), StartRules("k", 0, 1, 50))
    log.grant(0)
    log.grant(1, at=1)
    log.grant(2, at=51)


# [J23] ------------------------------------------------------------------------------------------------------------


def test_a_start_that_is_too_late(log: Log) -> None:
    log.make(StartRules(within_ms=100), StartRules(by_wt=100))
    log.grant(0, at=99)
    rejects("not too late [J23]", lambda: log.grant(1, at=100))


def test_a_delayed_job_has_its_time_from_when_it_is_due(log: Log) -> None:
    log.make(StartRules(within_ms=100), StartRules(within_ms=100), delay_ms=1000)
    log.grant(0, at=1099)
    rejects("not too late [J23]", lambda: log.grant(1, at=1100))


def test_a_second_start_and_one_by_hand_are_never_too_late(log: Log) -> None:
    log.make(StartRules(within_ms=100), StartRules(within_ms=100))
    log.grant(0)
    log.now = 500
    log.apply(completed(0), (RequeueJob("J1"), True), notices=(granted(0, 20), granted(1, 21)))
