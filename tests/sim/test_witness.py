"""The witness accepts what a store did, and rejects any other reply, order, grant, value or end."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from quorker.core.jobs import commands as c
from quorker.core.jobs.batch import decode_entry, encode_entry, encode_group
from quorker.core.jobs.outcome import Notice, Outcome
from quorker.core.jobs.store import JobStore
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.model.witness import Witness
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.real_time import RealTime
from quorker.sim.runs.jobs_cluster import JobsCluster
from quorker.sim.world.trace import Trace

RETRY = c.RetryPolicy(attempts=1, delays_ms=(20,))


class Pair:
    """A real store and the witness, fed the same entries; what the store says can be changed on the way."""

    def __init__(self) -> None:
        self.store = JobStore()
        self.witness = Witness()
        self.lt = 0
        self._seq = 0

    def do(
        self,
        *commands: c.Command,
        session: int = 0,
        tamper: Callable[[Outcome], None] = lambda _: None,
    ) -> Any:
        """One entry. Returns the value of its last command."""
        numbered = [(self._next(), c.encode(command)) for command in commands]
        data = encode_entry(self.lt, self.lt, [encode_group(session, 0, numbered)])
        index = self.store.applied_index + 1
        outcome = self.store.apply(index, data)
        tamper(outcome)
        self.witness.on_entry(index, decode_entry(data), outcome)
        return outcome.replies[-1][2][1] if outcome.replies else None

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def worker(self, slots: int) -> int:
        session = int(self.do(c.OpenSession("worker", 60_000)))
        self.do(c.Subscribe(("default",), slots), session=session)
        return session

    def jobs(self, count: int, **fields: Any) -> tuple[str, ...]:
        specs = tuple(c.NewJob("t", retry=RETRY, **fields) for _ in range(count))
        return tuple(self.do(c.EnqueueJobs(specs)))


@pytest.fixture
def pair() -> Pair:
    return Pair()


def rejects(act: Callable[[], object], about: str = "") -> None:
    with pytest.raises(Violation, match=f"^{re.escape('witness [C1]: ' + about)}"):
        act()


def says(reply: Any) -> Callable[[Outcome], None]:
    """The last reply is this one instead."""

    def change(outcome: Outcome) -> None:
        session, seq, _ = outcome.replies[-1]
        outcome.replies[-1] = (session, seq, reply)

    return change


def test_a_lawful_life_is_accepted(pair: Pair) -> None:
    session = pair.worker(1)
    one, two = pair.jobs(2)
    token = pair.store.jobs[one].token
    pair.do(c.CompleteJob(one, token), c.CompleteJob(one, token), session=session)
    pair.do(c.FailJob(two, pair.store.jobs[two].token, "E", "m", ""), session=session)
    pair.lt = 100
    pair.do(c.ReleaseDue())
    pair.do(c.AcquireLock("r"), c.AcquireLock("r"), session=session)
    pair.do(c.IncrementCounter("k", 2, 50))
    pair.lt = 200
    pair.do(c.ExpireRecords())
    pair.do(c.CloseSession(), session=session)
    pair.witness.compare(pair.store)


def test_a_wrong_value(pair: Pair) -> None:
    pair.do(c.IncrementCounter("k", 2))
    rejects(lambda: pair.do(c.IncrementCounter("k", 2), tamper=says((0, 5))), "reply to ")


def test_a_refusal_of_what_could_be_done(pair: Pair) -> None:
    session = pair.worker(1)
    (job,) = pair.jobs(1)
    report = c.CompleteJob(job, pair.store.jobs[job].token)
    rejects(lambda: pair.do(report, session=session, tamper=says((1, "lease_lost", ""))), "reply to ")


def test_a_free_lock_that_is_refused(pair: Pair) -> None:
    session = pair.worker(1)
    take = c.AcquireLock("r")
    rejects(lambda: pair.do(take, session=session, tamper=says((1, "lock_held", ""))), "reply to ")


def test_a_stale_report_that_is_accepted(pair: Pair) -> None:
    session = pair.worker(1)
    (job,) = pair.jobs(1)
    rejects(lambda: pair.do(c.CompleteJob(job, 1), session=session, tamper=says((0, None))), "reply to ")


def test_jobs_of_one_queue_that_are_granted_out_of_order(pair: Pair) -> None:
    """J11"""
    session = pair.worker(2)

    def swap(outcome: Outcome) -> None:
        outcome.notices.reverse()

    specs = (c.NewJob("t", retry=RETRY), c.NewJob("t", retry=RETRY))
    rejects(lambda: pair.do(c.EnqueueJobs(specs), session=session, tamper=swap), "grants ")


def test_a_grant_to_somebody_else(pair: Pair) -> None:
    pair.worker(1)

    def misdirect(outcome: Outcome) -> None:
        outcome.notices = [Notice(each.session + 1, each.kind, each.payload) for each in outcome.notices]

    spec = c.NewJob("t", retry=RETRY)
    rejects(lambda: pair.do(c.EnqueueJobs((spec,)), tamper=misdirect), "grants ")


def test_a_grant_that_is_kept_back(pair: Pair) -> None:
    pair.worker(1)
    spec = c.NewJob("t", retry=RETRY)
    rejects(lambda: pair.do(c.EnqueueJobs((spec,)), tamper=lambda each: each.notices.clear()), "grants ")


def test_half_of_a_batch(pair: Pair) -> None:
    """J14: a precondition that fails refuses all of it."""
    command = c.Batch((c.JobInState("nobody", ()),), (c.IncrementCounter("k", 1),))
    rejects(lambda: pair.do(command, tamper=says((0, (1,)))), "reply to ")


def test_a_repeat_that_is_answered_differently(pair: Pair) -> None:
    session = pair.worker(0)
    command = [(77, c.encode(c.IncrementCounter("k", 1)))]
    data = encode_entry(0, 0, [encode_group(session, 0, command)])
    for expected in (1, 2):
        index = pair.store.applied_index + 1
        outcome = pair.store.apply(index, data)
        if expected == 2:
            says((0, 2))(outcome)
            rejects(lambda: pair.witness.on_entry(index, decode_entry(data), outcome), "reply to ")  # noqa: B023  # called at once
        else:
            pair.witness.on_entry(index, decode_entry(data), outcome)


def test_an_end_of_a_session_that_nobody_was_told_of(pair: Pair) -> None:
    session = pair.worker(0)
    rejects(
        lambda: pair.do(c.CloseSession(), session=session, tamper=lambda each: each.notices.clear()),
        "ends of sessions",
    )


def test_records_that_expire_too_early(pair: Pair) -> None:
    """J18"""
    pair.do(c.IncrementCounter("k", 1, 500))
    pair.lt = 100
    rejects(lambda: pair.do(c.ExpireRecords(), tamper=says((0, 1))), "reply to ")


@pytest.mark.parametrize("what", ["job", "state", "queue", "counter", "lock", "session"])
def test_a_store_that_ends_up_different(pair: Pair, what: str) -> None:
    """J12 and J17: every job in one state, every count as it was counted."""
    session = pair.worker(0)
    one, two = pair.jobs(2)
    pair.do(c.AcquireLock("r"), c.IncrementCounter("k", 3), session=session)
    pair.witness.compare(pair.store)
    tables = pair.store
    if what == "job":
        del tables.jobs[one]
    elif what == "state":
        tables.jobs[one] = tables.jobs[one]._replace(failures=1)
    elif what == "queue":
        tables.take_from_queues(two)
    elif what == "counter":
        tables.collections.counters.add("k", 1)
    elif what == "lock":
        tables.locks.pop("r")
    else:
        tables.sessions.pop(session)
    rejects(lambda: pair.witness.compare(pair.store))


def test_reads_are_judged_at_their_place_in_the_log(pair: Pair) -> None:
    pair.do(c.IncrementCounter("k", 1))
    first = pair.store.applied_index
    (job,) = pair.jobs(1)
    pair.do(c.IncrementCounter("k", 1))
    witness, last = pair.witness, pair.store.applied_index
    witness.on_read("counter", "k", first, 1)
    witness.on_read("counter", "k", last - 1, 1)
    witness.on_read("counter", "k", last, 2)
    witness.on_read("state", job, first, None)
    witness.on_read("state", job, last, {"name": "Enqueued"})
    rejects(lambda: witness.on_read("counter", "k", last, 1), "counter of k")
    rejects(lambda: witness.on_read("counter", "k", first, 2), "counter of k")
    rejects(lambda: witness.on_read("state", job, last, None), "state of")


# ---------------------------------------------------------------------- real time


def test_answers_respect_real_time() -> None:
    real_time = RealTime()
    real_time.on_effect(7, 1, 10)
    real_time.on_effect(7, 1, 12)  # a repeat has no effect
    real_time.on_effect(7, 2, 9)
    assert real_time.on_answered(7, 1, floor=0) == 10
    assert real_time.newest == 10
    with pytest.raises(Violation, match=r"^real time \[C1\]"):
        real_time.on_answered(7, 2, floor=10)
    with pytest.raises(Violation, match=r"^answers have a place \[C1\]"):
        real_time.on_answered(7, 3, floor=0)


def test_reads_miss_nothing_that_was_answered_before() -> None:
    real_time = RealTime()
    real_time.on_read(10, 10, linearizable=True)
    real_time.on_read(4, 3, linearizable=False)
    assert (real_time.newest, real_time.reads, real_time.linearizable_reads) == (10, 2, 1)
    with pytest.raises(Violation, match=r"^linearizable read \[C4\]"):
        real_time.on_read(9, 10, linearizable=True)
    with pytest.raises(Violation, match=r"^reads never go back \[C4\]"):
        real_time.on_read(9, 10, linearizable=False)


def test_runs_ask_for_everything_and_are_witnessed() -> None:
    """Else a clean campaign proves little."""
    reads = linearizable = 0
    asked: set[str] = set()
    for seed in range(12):
        case = expand(seed, JOBS)
        cluster = JobsCluster(replace(case, dead_in_calm=0), Trace())
        cluster.run()
        witness, real_time = cluster.jobs.witness, cluster.jobs.real_time
        assert witness is not None
        assert witness.index > 10
        assert witness.naive.jobs
        reads += real_time.reads
        linearizable += real_time.linearizable_reads
        asked |= {op.kind for op in case.ops}
    assert min(reads - linearizable, linearizable) >= 3
    assert len(asked) >= 12


# ---------------------------------------------------------------------- recurring jobs

TICK = c.SetRecurring("r", c.NewJob("t", retry=RETRY), every_ms=100, misfire="all")


def maintain(pair: Pair, tamper: Callable[[Outcome], None] = lambda _: None) -> Any:
    """What the leader finds to be due, as one entry."""
    return pair.do(*[c.decode(wire) for wire in pair.store.due(pair.lt, pair.lt)], tamper=tamper)


def ticking(pair: Pair) -> None:
    """Declared, planned, and two slots are due."""
    pair.lt = 50
    pair.do(TICK)
    maintain(pair)
    pair.lt = 250


def test_recurring_jobs_are_followed(pair: Pair) -> None:
    ticking(pair)
    assert [slot for _, slot, _ in maintain(pair)] == [150, 250]
    assert pair.do(TICK) is False
    pair.do(c.TriggerRecurring("r"))
    pair.do(c.PauseRecurring("r", True, "why"))
    pair.do(c.PauseRecurring("r", False))
    maintain(pair)
    pair.do(c.SetRecurring("s", c.NewJob("t", unique_key="u"), "61 * * * *"))
    maintain(pair)
    pair.do(c.PauseRecurring("s", True))
    pair.witness.compare(pair.store)
    pair.do(c.RemoveRecurring("r"), c.RemoveRecurring("r"))
    pair.witness.compare(pair.store)


def test_refusals_about_recurring_jobs_are_followed(pair: Pair) -> None:
    session = pair.worker(0)
    pair.do(c.SetRecurring("r", c.NewJob("t")), c.TriggerRecurring("r"), c.PauseRecurring("r", True))
    ticking(pair)
    steps = [c.decode(wire) for wire in pair.store.due(pair.lt, pair.lt)]
    assert pair.do(*steps, session=session) == "leader_only"
    pair.witness.compare(pair.store)


@pytest.mark.parametrize(
    "wrong",
    [
        (0, ()),
        (0, (("r", 150, "J1"),)),
        (0, (("r", 150, "J1"), ("r", 350, "J2"))),
        (0, (("r", 150, "J1"), ("s", 250, "J2"))),
        (1, "internal_error", ""),
    ],
)
def test_other_slots_than_those_of_the_step_are_rejected(pair: Pair, wrong: Any) -> None:
    ticking(pair)
    rejects(lambda: maintain(pair, says(wrong)), "reply")


def test_a_step_that_should_not_have_counted_is_rejected(pair: Pair) -> None:
    """What it says would be right, had nothing been declared since it was found."""
    ticking(pair)
    stale = [c.decode(wire) for wire in pair.store.due(pair.lt, pair.lt)]
    pair.do(replace(TICK, every_ms=70))
    answer = (0, (("r", 150, "J1"), ("r", 250, "J2")))
    rejects(lambda: pair.do(*stale, tamper=says(answer)), "reply")


def test_an_entry_that_is_not_what_was_declared_is_rejected(pair: Pair) -> None:
    ticking(pair)
    maintain(pair)
    entry = pair.store.recurring["r"]
    for wrong in (entry._replace(fired=3), entry._replace(next_wt=1000), entry._replace(revision=1000)):
        pair.store.recurring["r"] = wrong
        rejects(lambda: pair.witness.compare(pair.store), "recurring jobs")
