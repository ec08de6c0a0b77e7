"""Sessions: opened once, renewed by every command, answered exactly once per sequence, and what their end gives back."""

from __future__ import annotations

import pytest

from quorker.core.jobs.commands import (
    CloseSession,
    CompleteJob,
    EnqueueJobs,
    ExpireSessions,
    FetchJobs,
    FetchNext,
    IncrementCounter,
    KeepAlive,
    OpenSession,
    ReleaseJob,
    ReplaceSessions,
    Subscribe,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.store import WINDOW
from quorker.sim.bare.lone_store import LoneStore


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def count(lone: LoneStore) -> int:
    return lone.store.collections.counters.value("k")


ONE = IncrementCounter("k", 1)


# --- opening ---


def test_the_same_nonce_finds_the_same_session(lone: LoneStore) -> None:
    opening = [(12345, OpenSession("a", 1000))]
    first = lone.group(0, 0, opening)
    assert lone.group(0, 0, opening) == first
    assert lone.group(0, 0, [(12346, OpenSession("a", 1000))]) != first
    assert len(lone.store.sessions) == 2


def test_a_nonce_is_free_again_when_its_session_has_ended(lone: LoneStore) -> None:
    opening = [(12345, OpenSession("a", 1000))]
    first = lone.group(0, 0, opening)[0][1]
    assert isinstance(first, int)
    lone.do(CloseSession(), first)
    second = lone.group(0, 0, opening)[0][1]
    assert isinstance(second, int)
    assert second > first


def test_a_restarted_process_ends_its_older_sessions_at_once(lone: LoneStore) -> None:
    old = lone.worker(name="host-1")
    other = lone.open("host-2")
    (job_id,) = lone.enqueue()
    new = lone.open("host-1")
    assert lone.do(ReplaceSessions(), new) == 1
    assert list(lone.store.sessions) == [other, new]
    assert [(notice.session, notice.kind) for notice in lone.outcome.notices] == [(old, "session_closed")]
    assert (lone.state(job_id), lone.job(job_id).lost) == ("Enqueued", 1)


def test_an_opening_that_comes_late_ends_no_newer_session(lone: LoneStore) -> None:
    """Its process has opened another session since: what that one holds must not be given away."""
    late = [(777, OpenSession("host", 60_000))]
    first = lone.group(0, 0, late)[0][1]
    assert isinstance(first, int)
    lone.do(CloseSession(), first)
    holder = lone.worker(name="host")
    (job_id,) = lone.enqueue()
    ghost = lone.group(0, 0, late)[0][1]
    assert lone.state(job_id) == "Processing"
    assert list(lone.store.sessions) == [holder, ghost]
    assert lone.group(first, 0, [(9, ReplaceSessions())])[0][1] == "session_expired"
    assert lone.do(ReplaceSessions(), holder) == 0


def test_replacing_belongs_to_a_session(lone: LoneStore) -> None:
    assert lone.group(0, 0, [(1, ReplaceSessions())])[0][1] == "no_session"


def test_without_replacing_sessions_of_a_name_live_side_by_side(lone: LoneStore) -> None:
    assert len({lone.open("host"), lone.open("host")}) == len(lone.store.sessions) == 2


def test_the_number_of_sessions_is_limited() -> None:
    lone = LoneStore(Limits(max_sessions=1))
    lone.open()
    assert lone.group(0, 0, [(99, OpenSession("b", 1000))])[0][1] == "too_many_sessions"


# --- deduplication ---


def test_a_sequence_applies_once_and_is_answered_as_often_as_it_is_asked(lone: LoneStore) -> None:
    session = lone.open()
    first = lone.group(session, 0, [(7, ONE)])
    assert lone.group(session, 0, [(7, ONE), (7, ONE)]) == first * 2
    assert count(lone) == 1


def test_sequences_may_come_out_of_order(lone: LoneStore) -> None:
    session = lone.open()
    lone.group(session, 1, [(3, ONE), (1, ONE)])
    lone.group(session, 1, [(2, ONE), (3, ONE)])
    assert count(lone) == 3


def test_replies_are_dropped_when_they_are_acknowledged(lone: LoneStore) -> None:
    session = lone.open()
    lone.group(session, 0, [(1, ONE), (2, ONE), (3, ONE)])
    lone.group(session, 3, [])
    assert list(lone.store.sessions[session].replies) == [3]
    assert lone.group(session, 3, [(2, ONE)])[0][1] == "stale_sequence"
    assert count(lone) == 3


def test_an_acknowledgement_never_goes_back(lone: LoneStore) -> None:
    session = lone.open()
    lone.group(session, 5, [])
    assert lone.group(session, 1, [(3, ONE)])[0][1] == "stale_sequence"


def test_an_acknowledgement_far_ahead_costs_nothing(lone: LoneStore) -> None:
    session = lone.open()
    lone.group(session, 0, [(1, ONE)])
    lone.group(session, 2**62, [])
    assert lone.store.sessions[session].replies == {}


def test_a_refusal_is_remembered_like_any_reply(lone: LoneStore) -> None:
    session = lone.open()
    refused = lone.group(session, 0, [(1, CompleteJob("mine", 5))])
    assert refused[0][1] == "not_found"
    assert lone.group(session, 0, [(1, CompleteJob("mine", 5))]) == refused


def test_a_sequence_beyond_the_window_ends_the_session(lone: LoneStore) -> None:
    session = lone.worker()
    (job_id,) = lone.enqueue()
    assert lone.group(session, 0, [(WINDOW - 1, ONE)])[0][0] == 0
    replies = lone.group(session, 0, [(WINDOW, ONE), (1, ONE)])
    assert [reply[1] for reply in replies] == ["session_expired", "session_expired"]
    assert count(lone) == 1
    assert session not in lone.store.sessions
    assert lone.state(job_id) == "Enqueued"


def test_replies_survive_a_restore(lone: LoneStore) -> None:
    session = lone.open()
    lone.enqueue()
    first = lone.group(session, 0, [(1, FetchJobs(("default",), 5)), (2, FetchNext(("default",)))])
    assert lone.twin.sessions[session].replies == {1: first[0], 2: first[1]}


# --- liveness ---


def test_every_command_renews_its_session(lone: LoneStore) -> None:
    session = lone.open(ttl_ms=1000)
    for command in (KeepAlive(), ONE, CompleteJob("ghost", 1)):
        lone.advance(999)
        lone.reply(command, session)
    assert lone.store.sessions[session].expires_lt == 3 * 999 + 1000
    lone.pass_time(999)
    assert session in lone.store.sessions
    lone.pass_time(1)
    assert session not in lone.store.sessions


def test_a_repeated_command_renews_too(lone: LoneStore) -> None:
    session = lone.open(ttl_ms=1000)
    lone.group(session, 0, [(1, ONE)])
    lone.advance(500)
    lone.group(session, 0, [(1, ONE)])
    assert lone.store.sessions[session].expires_lt == 1500


def test_a_session_past_its_time_lives_until_the_log_says_so(lone: LoneStore) -> None:
    """Members never act on a clock of their own: only the command that expires it ends a session."""
    session = lone.open(ttl_ms=1000)
    lone.advance(5000)
    assert lone.reply(KeepAlive(), session)[0] == 0
    assert lone.do(ExpireSessions((session,))) == 0
    assert session in lone.store.sessions


def test_expiry_is_checked_again_when_it_is_applied(lone: LoneStore) -> None:
    session = lone.open(ttl_ms=1000)
    lone.advance(1000)
    (due,) = lone.store.due(lone.lt, lone.wt)
    assert due == [67, [session]]
    lone.reply(KeepAlive(), session)
    assert lone.do(ExpireSessions((session, 999))) == 0


def test_an_unknown_session_is_told_so_and_has_no_effect(lone: LoneStore) -> None:
    assert lone.reply(ONE, 999)[1] == "session_expired"
    assert count(lone) == 0


def test_a_closed_session_is_over(lone: LoneStore) -> None:
    session = lone.open()
    replies = lone.entry((session, CloseSession()), (session, ONE))
    assert [reply[0] for reply in replies] == [0, 1]
    assert replies[1][1] == "session_expired"
    (notice,) = lone.outcome.notices
    assert (notice.session, notice.kind, notice.payload) == (session, "session_closed", "closed")


def test_commands_about_the_own_session_need_one(lone: LoneStore) -> None:
    for command in (KeepAlive(), CloseSession(), Subscribe((), 0)):
        assert lone.reply(command)[1] == "no_session"


# --- what an end gives back ---


def test_an_expired_worker_loses_its_jobs_and_they_return_in_order(lone: LoneStore) -> None:
    lone.worker(slots=3, ttl_ms=1000)
    ids = lone.enqueue(*[NewJob("t")] * 4)
    lone.pass_time(1000)
    assert [lone.job(job_id).lost for job_id in ids] == [1, 1, 1, 0]
    assert [lone.state(job_id) for job_id in ids] == ["Enqueued"] * 4
    lone.take_grants()
    lone.worker(slots=4)
    grants = lone.take_grants()
    assert [grant.job_id for grant in grants] == list(ids)
    assert [(grant.attempt, grant.deliveries) for grant in grants] == [(1, 2)] * 3 + [(1, 1)]


def test_a_report_after_the_loss_is_refused(lone: LoneStore) -> None:
    lone.worker(ttl_ms=1000)
    (job_id,) = lone.enqueue()
    stale = lone.take_grant()
    lone.pass_time(1000)
    worker = lone.worker(name="next")
    assert lone.reply(CompleteJob(job_id, stale.token), worker)[1] == "lease_lost"
    assert lone.reply(ReleaseJob(job_id, stale.token), worker)[1] == "lease_lost"


def test_a_job_lost_again_goes_to_the_tail(lone: LoneStore) -> None:
    first, second = lone.enqueue(NewJob("a"), NewJob("b"))
    for round_number in range(2):
        lone.worker(ttl_ms=1000, name=f"w{round_number}")
        assert lone.take_grant().job_id == first
        lone.pass_time(1000)
    lone.worker(name="last")
    assert lone.take_grant().job_id == second


def test_a_job_lost_too_often_is_quarantined_and_kept() -> None:
    lone = LoneStore(Limits(max_lost_deliveries=3))
    (job_id,) = lone.enqueue()
    for round_number in range(3):
        lone.worker(ttl_ms=1000, name=f"w{round_number}")
        lone.pass_time(1000)
    job = lone.job(job_id)
    assert (job.state, job.lost, job.expires_lt) == ("Quarantined", 3, 0)
    assert lone.outcome.finished == [job_id]
    lone.worker(name="next")
    assert lone.store.queues["default"].length == 0
    lone.pass_time(365 * 24 * 3600 * 1000)
    assert lone.state(job_id) == "Quarantined"


def test_pulled_and_fetched_jobs_are_given_back_too(lone: LoneStore) -> None:
    session = lone.open(ttl_ms=1000)
    ids = lone.enqueue(NewJob("a"), NewJob("b"))
    lone.do(FetchJobs(("default",), 1), session)
    lone.do(FetchNext(("default",)), session)
    lone.pass_time(1000)
    assert lone.store.leases == {}
    assert [lone.job(job_id).lost for job_id in ids] == [1, 1]
    lone.worker(slots=2)
    assert [grant.job_id for grant in lone.take_grants()] == list(ids)


def test_a_closed_session_gives_its_fetched_jobs_back(lone: LoneStore) -> None:
    session = lone.open()
    (job_id,) = lone.enqueue()
    lone.do(FetchNext(("default",)), session)
    lone.do(CloseSession(), session)
    assert lone.job(job_id).lost == 0
    assert lone.do(FetchNext(("default",)))[0] == job_id


def test_jobs_of_an_ended_session_go_to_others_in_the_same_apply(lone: LoneStore) -> None:
    leaving = lone.worker(name="leaving")
    (job_id,) = lone.enqueue()
    lone.take_grant()
    staying = lone.worker(name="staying")
    lone.do(CloseSession(), leaving)
    assert [(notice.session, notice.kind) for notice in lone.outcome.notices] == [
        (leaving, "session_closed"),
        (staying, "job"),
    ]
    assert lone.state(job_id) == "Processing"


def test_an_entry_may_enqueue_and_end_in_one(lone: LoneStore) -> None:
    session = lone.worker(slots=2)
    lone.entry((0, EnqueueJobs((NewJob("a"),))), (session, CloseSession()), (0, EnqueueJobs((NewJob("b"),))))
    assert lone.take_grants() == []
    assert lone.store.queues["default"].length == 2
    assert lone.store.queues["default"].ready == {}
