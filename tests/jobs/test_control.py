"""Deleting, requeueing and rescheduling by hand, from every state; and the limits of the store."""

from __future__ import annotations

import pytest

from quorker.core.jobs.commands import (
    CloseSession,
    CompleteJob,
    CreateJob,
    DeleteJob,
    FailJob,
    FetchNext,
    RequeueJob,
    RescheduleJob,
    SetJobState,
    SetLimits,
)
from quorker.core.jobs.lifecycle import STATES
from quorker.core.jobs.limits import DEFAULT_LIMITS, Limits
from quorker.core.jobs.new_job import NewJob, RetryPolicy
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def job_in(lone: LoneStore, state: str) -> str:
    """A job that got into a state the way jobs do."""
    if state == "Awaiting":
        parent, job_id = lone.enqueue(NewJob("parent", queue="never"), NewJob("t", parent_id="#0"))
        assert lone.state(parent) == "Enqueued"
        return job_id
    (job_id,) = lone.enqueue(NewJob("t", delay_ms=10**6 if state == "Scheduled" else 0, retry=RetryPolicy(0)))
    if state == "Deleted":
        lone.do(DeleteJob(job_id))
    if state not in ("Processing", "Succeeded", "Failed", "Quarantined"):
        return job_id
    worker = lone.worker(ttl_ms=1000)
    token = lone.take_grant().token
    if state == "Succeeded":
        lone.do(CompleteJob(job_id, token, b"result"), worker)
    if state == "Failed":
        lone.do(FailJob(job_id, token, "", "", ""), worker)
    if state == "Quarantined":
        lone.pass_time(1000)
    elif state != "Processing":
        lone.do(CloseSession(), worker)
    return job_id


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def strict() -> LoneStore:
    """One lost delivery is enough for quarantine."""
    return LoneStore(Limits(max_lost_deliveries=1))


def test_a_job_gets_into_every_state(strict: LoneStore, state: str) -> None:
    assert strict.state(job_in(strict, state)) == state


def test_any_job_can_be_deleted(strict: LoneStore, state: str) -> None:
    job_id = job_in(strict, state)
    assert strict.do(DeleteJob(job_id)) is (state != "Deleted")
    job = strict.job(job_id)
    assert (job.state, job.token, job.due_wt) == ("Deleted", 0, 0)
    assert job.expires_lt > 0
    assert job_id not in strict.store.places
    assert len(strict.take_cancels()) == (state == "Processing")


def test_any_job_can_be_requeued_and_runs_again(strict: LoneStore, state: str) -> None:
    job_id = job_in(strict, state)
    assert strict.do(RequeueJob(job_id)) is (state != "Enqueued")
    job = strict.job(job_id)
    assert (job.expires_lt, job.result, job.due_wt) == (0, None, 0)
    if state == "Processing":
        assert len(strict.take_cancels()) == 1
    else:
        strict.worker(slots=5, name="next")
    assert [grant.job_id for grant in strict.take_grants()] == [job_id]


def test_any_job_can_be_rescheduled(strict: LoneStore, state: str) -> None:
    job_id = job_in(strict, state)
    assert strict.do(RescheduleJob(job_id, FIRST_WT + 9000)) is True
    job = strict.job(job_id)
    assert (job.state, job.due_wt, job.token) == ("Scheduled", FIRST_WT + 9000, 0)
    assert job_id not in strict.store.places
    assert len(strict.take_cancels()) == (state == "Processing")


def test_an_expected_state_is_required(strict: LoneStore, state: str) -> None:
    job_id = job_in(strict, state)
    other = tuple(each for each in STATES if each != state)
    for command in (
        DeleteJob(job_id, other),
        RequeueJob(job_id, other),
        RescheduleJob(job_id, None, 5, other),
    ):
        assert strict.reply(command)[1:] == ("wrong_state", state)
    assert strict.state(job_id) == state
    assert strict.do(RescheduleJob(job_id, None, 5, (state,))) is True


def test_unknown_jobs_are_not_found(lone: LoneStore) -> None:
    for command in (DeleteJob("ghost"), RequeueJob("ghost"), RescheduleJob("ghost")):
        assert lone.reply(command)[1] == "not_found"


def test_a_requeued_job_goes_to_the_tail(lone: LoneStore) -> None:
    first, second = lone.enqueue(NewJob("a"), NewJob("b"))
    lone.do(DeleteJob(first))
    lone.do(RequeueJob(first))
    lone.worker(slots=2)
    assert [grant.job_id for grant in lone.take_grants()] == [second, first]


def test_a_requeued_failure_has_all_attempts_before_it(lone: LoneStore) -> None:
    job_id = job_in(lone, "Failed")
    lone.do(RequeueJob(job_id))
    assert (lone.job(job_id).failures, lone.job(job_id).lost) == (0, 0)
    lone.worker()
    assert lone.take_grant().attempt == 1


def test_a_retry_that_is_brought_forward_keeps_its_count(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    lone.do(FailJob(job_id, lone.take_grant().token, "", "", ""), worker)
    lone.do(RequeueJob(job_id, ("Scheduled",)))
    assert lone.take_grant().attempt == 2


def test_a_revived_quarantine_is_forgiven(strict: LoneStore) -> None:
    job_id = job_in(strict, "Quarantined")
    strict.do(RequeueJob(job_id))
    assert strict.job(job_id).lost == 0


def test_a_past_instant_is_due_at_once(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue()
    lone.do(RescheduleJob(job_id, 0))
    assert lone.state(job_id) == "Scheduled"
    lone.maintain()
    assert lone.state(job_id) == "Enqueued"


def test_an_enqueued_job_that_no_queue_has_can_be_requeued(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue()
    lone.do(FetchNext(("default",)))
    assert lone.do(RequeueJob(job_id)) is True
    assert lone.store.queues["default"].length == 1


def test_a_state_that_somebody_invented_can_be_left(lone: LoneStore) -> None:
    lone.do(CreateJob("a", "t", b"", "default", (), 1000))
    lone.do(SetJobState("a", "Parked", "", ()))
    assert lone.do(RequeueJob("a", ("Parked",))) is True
    lone.do(SetJobState("a", "Parked", "", ()))
    assert lone.do(DeleteJob("a")) is True


def test_a_job_without_a_state_can_be_controlled(lone: LoneStore) -> None:
    for job_id, command in (
        ("a", DeleteJob("a")),
        ("b", RequeueJob("b")),
        ("c", RescheduleJob("c", None, 5)),
    ):
        lone.do(CreateJob(job_id, "t", b"", "default", (), 1000))
        assert lone.do(command) is True
    assert [lone.state(each) for each in "abc"] == ["Deleted", "Enqueued", "Scheduled"]


# --- limits ---


def test_limits_take_effect_through_the_log() -> None:
    lone = LoneStore()
    wanted = Limits(max_jobs=7)
    lone.store.wanted = lone.twin.wanted = wanted
    assert lone.store.limits == DEFAULT_LIMITS
    assert lone.store.next_due()[0] is not None
    assert lone.maintain() == 1
    assert lone.store.limits == wanted
    assert lone.maintain() == 0


def test_limits_are_part_of_the_state_and_not_of_the_member() -> None:
    """A member configured otherwise decides like all others until its own leadership changes the log."""
    lone = LoneStore(Limits(max_jobs=1))
    lone.enqueue()
    lone.store.wanted = Limits(max_jobs=100)
    assert lone.store.limits.max_jobs == 1
    lone.maintain()
    assert lone.store.limits.max_jobs == 100


@pytest.mark.parametrize("values", [(0,), (1,) * 17, (5, 5, 99), (5, 5, 125, 1, 51), (5,) * 17])
def test_limits_out_of_bounds_are_refused(lone: LoneStore, values: tuple[int, ...]) -> None:
    assert lone.reply(SetLimits(values))[1] == "bad_limits"
    assert lone.store.limits == DEFAULT_LIMITS


def test_limits_that_are_left_out_are_defaults(lone: LoneStore) -> None:
    lone.do(SetLimits((7,)))
    assert lone.store.limits == Limits(max_jobs=7)
