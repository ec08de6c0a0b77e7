"""The oracles of the job store reject hand-made logs that break a promise, and accept their lawful twins."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import (
    AcquireLock,
    AddToQueue,
    Batch,
    Command,
    CompleteJob,
    EnqueueJobs,
    ExpireJob,
    FetchNext,
    OpenSession,
    ReleaseLock,
    RequeueJob,
    SetJobState,
    TryLock,
    encode,
)
from quorker.core.jobs.new_job import JobGrant, NewJob
from quorker.core.jobs.outcome import Cancelled, LockGrant, Notice, Outcome, Reply
from quorker.core.jobs.store import JobStore
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import Entry
from quorker.sim.oracles.checks import Oracles, Violation
from quorker.sim.oracles.job_checks import JobOracles, Order
from quorker.sim.world.kernel import MS

DONE: Reply = (0, None)
STALE: Reply = (1, "lease_lost", "Enqueued")


class Log:
    """Entries that are applied by member 1 as soon as they are written. The time is in ms of true time."""

    def __init__(self) -> None:
        self.raft = Oracles({})
        self.jobs = JobOracles(self.raft, rate_ppm_max=100_000)
        self.now_ms = self.lt = self.wt = 0
        self._seq = 0

    def apply(self, *replies: tuple[Command, Any], notices: tuple[Notice, ...] = (), session: int = 7) -> int:
        """One entry of new commands with these replies. Returns its index."""
        numbered: list[tuple[int, Any]] = []
        for command, _ in replies:
            self._seq += 1
            numbered.append((self._seq, encode(command)))
        answers = [(session, seq, reply) for (seq, _), (_, reply) in zip(numbered, replies, strict=True)]
        return self.apply_group(session, numbered, Outcome(replies=answers, notices=list(notices)))

    def apply_group(self, session: int, numbered: list[tuple[int, Any]], outcome: Outcome) -> int:
        entry = Entry(
            2,
            self.raft.commit_index + 1,
            encode_entry(self.lt, self.wt, [encode_group(session, 0, numbered)]),
        )
        self.jobs.on_made(Persist(1, entries=(entry,)), self.now_ms * MS)
        self.raft.committed.append(entry)
        self.jobs.on_applied(1, entry.index, outcome)
        return entry.index

    def order(self, payload: bytes, fate: str = "asked") -> NewJob:
        self.jobs.orders[payload] = Order(fate)
        return NewJob("task", payload)

    def granted(self, job_id: str, token: int, session: int = 7) -> Notice:
        return Notice(session, "job", JobGrant(job_id, token, "default", "task", b"", 1, 0, 0, 1))


@pytest.fixture
def log() -> Log:
    return Log()


def rejects(oracle: str, act: Callable[[], object]) -> None:
    with pytest.raises(Violation, match=f"^{re.escape(oracle)}: "):
        act()


def complete(job_id: str, token: int) -> CompleteJob:
    return CompleteJob(job_id, token)


def test_a_lawful_log_is_accepted(log: Log) -> None:
    job = log.order(b"a")
    log.apply((EnqueueJobs((job,)), (0, ("J1",))), notices=(log.granted("J1", 10),))
    log.now_ms = log.lt = log.wt = 500
    log.apply((complete("J1", 9), STALE), (complete("J1", 10), DONE))
    assert log.jobs.grants == log.jobs.completions == 1


def test_a_job_that_nobody_asked_for(log: Log) -> None:
    rejects(
        "no job from nowhere [J2]", lambda: log.apply((EnqueueJobs((NewJob("task", b"?"),)), (0, ("J1",))))
    )


def test_two_holders(log: Log) -> None:
    log.apply(notices=(log.granted("J1", 10),))
    rejects("one holder [J3]", lambda: log.apply(notices=(log.granted("J1", 11),)))


def test_a_token_that_is_smaller_than_the_one_before(log: Log) -> None:
    log.apply(notices=(log.granted("J1", 10),))
    rejects("tokens grow [C6]", lambda: log.apply(notices=(log.granted("J2", 9),)))


def test_a_stale_report_that_is_accepted(log: Log) -> None:
    log.apply(notices=(log.granted("J1", 10),))
    rejects("fenced [T4]", lambda: log.apply((complete("J1", 9), DONE)))


def test_a_report_after_the_session_has_ended(log: Log) -> None:
    log.apply(notices=(log.granted("J1", 10), Notice(7, "session_closed", "expired")))
    rejects("fenced [T4]", lambda: log.apply((complete("J1", 10), DONE)))


def test_completed_twice_but_for_a_requeue(log: Log) -> None:
    log.apply(notices=(log.granted("J1", 10),))
    log.apply((complete("J1", 10), DONE), notices=(log.granted("J1", 11),))
    rejects("completed once [J7]", lambda: log.apply((complete("J1", 11), DONE)))
    again = Log()
    again.apply(notices=(again.granted("J1", 10),))
    again.apply((complete("J1", 10), DONE), (RequeueJob("J1"), (0, True)), notices=(again.granted("J1", 11),))
    again.apply((complete("J1", 11), DONE))


def test_taking_a_job_from_somebody_else(log: Log) -> None:
    log.apply(notices=(log.granted("J1", 10),))
    cancelled = Notice(7, "cancel", Cancelled(9, "J1", "timeout"))
    rejects("one holder [J3]", lambda: log.apply(notices=(cancelled,)))


def test_a_job_before_it_is_due(log: Log) -> None:
    log.jobs.orders[b"a"] = Order()
    job = NewJob("task", b"a", at_wt=1_000)
    log.apply((EnqueueJobs((job,)), (0, ("J1",))))
    log.wt = 999
    rejects("not before it is due [T6]", lambda: log.apply(notices=(log.granted("J1", 10),)))


def test_a_delayed_job_before_it_is_due(log: Log) -> None:
    log.jobs.orders[b"a"] = Order()
    log.wt = 500
    log.apply((EnqueueJobs((NewJob("task", b"a", delay_ms=100),)), (0, ("J1",))))
    log.wt = 599
    rejects("not before it is due [T6]", lambda: log.apply(notices=(log.granted("J1", 10),)))
    log.wt = 600
    log.apply(notices=(log.granted("J1", 11),))


def keyed(payload: bytes) -> EnqueueJobs:
    return EnqueueJobs((NewJob("task", payload, unique_key="key"),))


def test_a_key_that_stands_for_two_jobs(log: Log) -> None:
    log.jobs.orders = {b"a": Order(shared=True), b"b": Order(shared=True)}
    log.apply((keyed(b"a"), (0, ("J1",))))
    log.apply((keyed(b"b"), (0, ("J1",))))
    rejects("one job per key", lambda: log.apply((keyed(b"b"), (0, ("J2",)))))


def test_a_key_is_free_when_its_job_has_ended(log: Log) -> None:
    log.jobs.orders = {b"a": Order(shared=True), b"b": Order(shared=True)}
    log.apply((keyed(b"a"), (0, ("J1",))))
    log.jobs.ended["J1"] = None
    log.apply((keyed(b"b"), (0, ("J2",))))


def test_a_job_that_is_revived_may_have_lost_its_key(log: Log) -> None:
    """Another one that stood for the key was revived before it, and has ended since."""
    log.jobs.orders = {b"a": Order(shared=True), b"b": Order(shared=True)}
    log.apply((keyed(b"a"), (0, ("J1",))))
    log.jobs.ended["J1"] = None
    log.apply((RequeueJob("J1"), (0, True)))
    log.apply((keyed(b"b"), (0, ("J2",))))
    rejects("one job per key", lambda: log.apply((keyed(b"b"), (0, ("J3",)))))


OPEN = [(77, encode(OpenSession("c", 1_000)))]
EXPIRED = [Notice(9, "session_closed", "expired")]


def test_a_session_that_expires_too_early(log: Log) -> None:
    log.apply_group(0, OPEN, Outcome(replies=[(0, 77, (0, 9))]))
    log.now_ms = log.lt = 400
    log.apply((complete("J1", 1), STALE), session=9)
    log.now_ms = log.lt = 1_399
    rejects("not before its time [T2]", lambda: log.apply(notices=(EXPIRED[0],)))


def test_a_session_that_was_silent_for_its_time_expires(log: Log) -> None:
    log.apply_group(0, OPEN, Outcome(replies=[(0, 77, (0, 9))]))
    log.now_ms = log.lt = 1_000
    log.apply(notices=(EXPIRED[0],))


def test_a_lease_that_was_acknowledged_later_than_it_was_renewed_in_the_log(log: Log) -> None:
    log.apply_group(0, OPEN, Outcome(replies=[(0, 77, (0, 9))]))
    log.jobs.lease_gaps.on_sent(9, [1], 200 * MS)
    log.jobs.lease_gaps.on_reply(9, 1, DONE)
    log.now_ms = log.lt = 1_000
    rejects("leases last [T2]", lambda: log.apply(notices=(EXPIRED[0],)))


def test_a_session_that_is_opened_twice(log: Log) -> None:
    log.apply_group(0, OPEN, Outcome(replies=[(0, 77, (0, 9))]))
    log.apply_group(0, OPEN, Outcome(replies=[(0, 77, (0, 9))]))
    rejects("applied once [C2]", lambda: log.apply_group(0, OPEN, Outcome(replies=[(0, 77, (0, 10))])))


def test_a_store_whose_records_say_something_else() -> None:
    store = JobStore()
    store.bytes += 1
    rejects("store invariant", lambda: Log().jobs.look_inside(1, store))


def test_a_command_that_is_answered_in_two_ways(log: Log) -> None:
    command = [(1, encode(complete("J1", 10)))]
    log.apply_group(7, command, Outcome(replies=[(7, 1, STALE)]))
    log.apply_group(7, command, Outcome(replies=[(7, 1, STALE)]))
    log.apply_group(7, command, Outcome(replies=[(7, 1, (1, "stale_sequence", ""))]))
    rejects("applied once [C2]", lambda: log.apply_group(7, command, Outcome(replies=[(7, 1, DONE)])))


def test_an_answer_to_another_command(log: Log) -> None:
    command = [(1, encode(complete("J1", 10)))]
    rejects("answers in order", lambda: log.apply_group(7, command, Outcome(replies=[(7, 2, STALE)])))


def test_two_holders_of_a_lock(log: Log) -> None:
    log.apply((AcquireLock("L"), (0, ("granted", 10))))
    granted = Notice(8, "lock", LockGrant("L", 11, 5))
    rejects("one holder [J10]", lambda: log.apply(notices=(granted,)))


@pytest.mark.parametrize("by", [10, 9], ids=["token", "ticket"])
def test_a_lock_is_free_when_it_is_let_go(log: Log, by: int) -> None:
    log.apply((AcquireLock("L", wait=True), (0, ("waiting", 9))))
    log.apply(notices=(Notice(7, "lock", LockGrant("L", 10, 9)),))
    log.apply((ReleaseLock("L", by), (0, True)), notices=(Notice(8, "lock", LockGrant("L", 11, 5)),))


def test_a_lock_is_free_when_its_session_ends_in_the_same_entry(log: Log) -> None:
    log.apply((AcquireLock("L"), (0, ("granted", 10))))
    closed = Notice(7, "session_closed", "expired")
    log.apply((AcquireLock("L"), (0, ("granted", 11))), notices=(closed,), session=8)


def test_lock_tokens_grow(log: Log) -> None:
    log.apply((AcquireLock("L"), (0, ("granted", 10))), (ReleaseLock("L", 10), (0, True)))
    rejects("tokens grow [C6]", lambda: log.apply((AcquireLock("L"), (0, ("granted", 10)))))


def test_log_time_that_runs_faster_than_any_clock(log: Log) -> None:
    log.apply()
    log.now_ms, log.lt = 1_000, 1_102
    log.apply()
    log.now_ms, log.lt = 2_000, 2_300
    rejects("log time is slow enough [T1]", log.apply)


@pytest.mark.parametrize("name", ["lt", "wt"])
def test_time_that_goes_back(log: Log, name: str) -> None:
    setattr(log, name, 100)
    log.now_ms = 200
    log.apply()
    setattr(log, name, 99)
    rejects("time goes on [T1]", log.apply)


def test_an_entry_without_a_meaning(log: Log) -> None:
    rejects("entries make sense", lambda: log.apply_group(7, [], Outcome(faults=["what is this?"])))


def test_members_that_answer_differently(log: Log) -> None:
    index = log.apply((complete("J1", 9), STALE))
    other = Outcome(replies=[(7, 1, DONE)])
    rejects("replicas are equal [C5]", lambda: log.jobs.on_applied(2, index, other))


def test_stores_and_snapshots_that_differ(log: Log) -> None:
    one, other = JobStore(), JobStore()
    other.apply(1, encode_entry(5, 5, []))
    log.jobs.on_state(1, 8, one)
    rejects("replicas are equal [C5]", lambda: log.jobs.on_state(2, 8, other))
    log.jobs.on_snapshot(1, 8, b"one")
    rejects("replicas are equal [C5]", lambda: log.jobs.on_snapshot(2, 8, b"other"))


def store_of(*payloads: bytes) -> JobStore:
    store = JobStore()
    jobs = tuple(NewJob("task", payload) for payload in payloads)
    if jobs:
        store.apply(2, encode_entry(1, 1, [encode_group(0, 0, [(1, encode(EnqueueJobs(jobs)))])]))
    return store


def test_a_lost_job(log: Log) -> None:
    log.order(b"a", "acknowledged")
    log.jobs.scan(store_of(b"a"))
    rejects("acknowledged is not lost [J1]", lambda: log.jobs.scan(store_of()))


def test_a_job_that_came_into_being_twice(log: Log) -> None:
    log.order(b"a", "unknown")
    log.jobs.scan(store_of(b"a"))
    log.jobs.scan(store_of())
    rejects("applied once [C2]", lambda: log.jobs.scan(store_of(b"a", b"a")))


def test_a_refused_job_that_exists(log: Log) -> None:
    log.order(b"a", "refused")
    log.jobs.scan(store_of())
    rejects("honest refusal [C3]", lambda: log.jobs.scan(store_of(b"a")))


def test_unfinished_jobs_are_named(log: Log) -> None:
    assert len(log.jobs.unfinished(store_of(b"a"))) == 1
    assert log.jobs.unfinished(store_of()) == []


# ---------------------------------------------------------------------- by contract


def test_tokens_of_fetched_jobs_grow(log: Log) -> None:
    log.apply((FetchNext(("q",)), (0, ("J1", "q", 10))), (FetchNext(("q",)), (0, None)))
    again = Batch((), (FetchNext(("q",)),))
    rejects("tokens grow [C6]", lambda: log.apply((again, (0, (("J1", "q", 10),)))))


def test_tokens_of_owned_locks_grow_unless_they_are_renewed(log: Log) -> None:
    take = TryLock("r", "me", 50)
    log.apply((take, (0, 10)), (take, (0, 10)), (TryLock("r", "you", 50), (0, 0)))
    rejects("tokens grow [C6]", lambda: log.apply((take, (0, 9))))


def test_a_lock_of_a_session_that_an_owner_is_given(log: Log) -> None:
    log.apply((AcquireLock("r"), (0, ("granted", 10))))
    rejects("one holder [J10]", lambda: log.apply((TryLock("r", "me", 50), (0, 11))))


def test_a_job_with_a_life_of_its_own_may_complete_again(log: Log) -> None:
    log.apply(notices=(log.granted("J1", 10),))
    moved = (SetJobState("J1", "Enqueued", "", ()), (0, True))
    log.apply((complete("J1", 10), DONE), moved, notices=(log.granted("J1", 11),))
    log.apply((complete("J1", 11), DONE))


def test_a_job_that_is_queued_by_hand_waits_for_nothing(log: Log) -> None:
    log.jobs.orders[b"a"] = Order()
    log.apply((EnqueueJobs((NewJob("task", b"a", at_wt=1_000),)), (0, ("J1",))))
    log.apply((AddToQueue("default", "J1"), (0, None)), notices=(log.granted("J1", 10),))


def test_nobody_owes_an_end_to_what_has_a_life_of_its_own(log: Log) -> None:
    """Nor to what waits for it, directly or not."""
    store = store_of(b"a")
    (parent,) = store.jobs
    for _ in range(2):
        waiting = EnqueueJobs((NewJob("task", b"b", parent_id=list(store.jobs)[-1], on="any"),))
        store.apply(store.applied_index + 1, encode_entry(0, 0, [encode_group(0, 0, [(9, encode(waiting))])]))
    assert len(log.jobs.unfinished(store)) == 3
    log.apply((ExpireJob(parent, 50), (0, True)))
    assert log.jobs.unfinished(store) == []
    log.jobs.orders[b"a"] = Order("acknowledged", ids=[parent])
    log.jobs.scan(store_of())


def test_what_waits_for_the_success_or_the_deletion_of_one_that_failed_is_owed_nothing(log: Log) -> None:
    store = store_of(b"a")
    (parent,) = store.jobs
    waiting = tuple(NewJob("task", b"b", parent_id=parent, on=on) for on in ("success", "deleted"))
    steps: tuple[Command, ...] = (EnqueueJobs(waiting), SetJobState(parent, "Failed", "", ()))
    for seq, command in enumerate(steps):
        data = encode_entry(0, 0, [encode_group(0, 0, [(seq, encode(command))])])
        store.apply(store.applied_index + 1, data)
    assert log.jobs.unfinished(store) == []
