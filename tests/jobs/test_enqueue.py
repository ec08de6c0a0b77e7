"""Enqueueing: ids, delays, idempotency keys, limits; all jobs of a command or none."""

from __future__ import annotations

import pytest

from quorker.core.jobs.commands import (
    AddToSet,
    CompleteJob,
    CreateJob,
    DeleteJob,
    EnqueueJobs,
    FailJob,
    IncrementCounter,
    RequeueJob,
    SetJobParameter,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob, RetryPolicy
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

DAY = 24 * 3600 * 1000


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def test_ids_are_fixed_width_and_sort_as_they_were_made(lone: LoneStore) -> None:
    ids = [*lone.enqueue(NewJob("a"), NewJob("b")), *lone.enqueue(NewJob("c"))]
    assert ids == sorted(ids)
    assert {len(job_id) for job_id in ids} == {13}
    assert list(lone.store.jobs) == ids


def test_a_job_is_kept_as_it_was_asked_for(lone: LoneStore) -> None:
    spec = NewJob("t", b"args", "low", 3, 500, RetryPolicy(2), headers=(("a", "b"),), tags=("x", "x", "y"))
    (job_id,) = lone.enqueue(spec)
    job = lone.job(job_id)
    assert job.spec == spec
    assert (job.state, job.created_wt) == ("Enqueued", FIRST_WT)
    assert lone.store.index.tags["x"].page(0, 5) == [job_id]
    assert lone.store.index.tasks["t"].page(0, 5) == [job_id]


def test_a_delay_and_an_instant_count_in_wall_time(lone: LoneStore) -> None:
    delayed, at, past = lone.enqueue(
        NewJob("t", delay_ms=1000), NewJob("t", at_wt=FIRST_WT + 500), NewJob("t", at_wt=FIRST_WT)
    )
    assert [lone.state(each) for each in (delayed, at, past)] == ["Scheduled", "Scheduled", "Enqueued"]
    assert lone.store.next_due()[1] == FIRST_WT + 500
    lone.pass_time(499)
    assert lone.state(at) == "Scheduled"
    lone.pass_time(1)
    assert [lone.state(at), lone.state(delayed)] == ["Enqueued", "Scheduled"]
    lone.pass_time(500)
    assert lone.state(delayed) == "Enqueued"


def test_an_instant_wins_over_a_delay(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue(NewJob("t", delay_ms=1000, at_wt=FIRST_WT))
    assert lone.state(job_id) == "Enqueued"


# --- idempotency keys ---


def test_a_unique_key_is_held_until_its_job_ends(lone: LoneStore) -> None:
    worker = lone.worker()
    (first,) = lone.enqueue(NewJob("t", unique_key="k"))
    assert lone.enqueue(NewJob("t", unique_key="k")) == (first,)
    assert len(lone.store.jobs) == 1
    grant = lone.take_grant()
    assert lone.enqueue(NewJob("t", unique_key="k")) == (first,)
    lone.do(CompleteJob(first, grant.token), worker)
    assert lone.enqueue(NewJob("t", unique_key="k")) != (first,)


def test_a_unique_key_is_held_while_its_job_is_retried_and_free_after_its_last_failure(
    lone: LoneStore,
) -> None:
    worker = lone.worker()
    spec = NewJob("t", unique_key="k", retry=RetryPolicy(1, (10,)))
    (first,) = lone.enqueue(spec)
    lone.do(FailJob(first, lone.take_grant().token, "E", "", ""), worker)
    assert lone.enqueue(spec) == (first,)
    lone.pass_time(10)
    lone.do(FailJob(first, lone.take_grant().token, "E", "", ""), worker)
    assert lone.state(first) == "Failed"
    assert lone.enqueue(spec) != (first,)


def test_a_revived_job_takes_its_key_back_unless_another_has_it(lone: LoneStore) -> None:
    (first,) = lone.enqueue(NewJob("t", unique_key="k"))
    lone.do(DeleteJob(first))
    assert lone.store.unique_keys == {}
    lone.do(RequeueJob(first))
    assert lone.enqueue(NewJob("t", unique_key="k")) == (first,)
    lone.do(DeleteJob(first))
    (second,) = lone.enqueue(NewJob("t", unique_key="k"))
    lone.do(RequeueJob(first))
    assert lone.enqueue(NewJob("t", unique_key="k")) == (second,)


def test_a_unique_window_outlives_its_job(lone: LoneStore) -> None:
    spec = NewJob("t", unique_key="k", unique_ms=1000)
    (first,) = lone.enqueue(spec)
    lone.do(DeleteJob(first))
    lone.pass_time(999)
    assert lone.enqueue(spec) == (first,)
    lone.pass_time(1)
    assert lone.store.unique_keys == {}
    assert lone.enqueue(spec) != (first,)


def test_a_unique_window_is_over_at_its_end_also_before_maintenance(lone: LoneStore) -> None:
    spec = NewJob("t", unique_key="k", unique_ms=1000)
    (first,) = lone.enqueue(spec)
    lone.advance(1000)
    assert lone.enqueue(spec) != (first,)


def test_a_unique_key_counts_within_one_command_too(lone: LoneStore) -> None:
    first, second, third = lone.enqueue(
        NewJob("t", unique_key="k"), NewJob("t", unique_key="k"), NewJob("t", unique_key="other")
    )
    assert first == second != third
    assert len(lone.store.jobs) == 2


def test_a_retried_request_is_answered_from_the_session_and_makes_no_second_job(lone: LoneStore) -> None:
    session = lone.open()
    first = lone.group(session, 0, [(1, EnqueueJobs((NewJob("t"),)))])
    assert lone.group(session, 0, [(1, EnqueueJobs((NewJob("t"),)))]) == first
    assert len(lone.store.jobs) == 1


# --- all or none ---


def test_an_unknown_parent_refuses_the_whole_command(lone: LoneStore) -> None:
    reply = lone.reply(EnqueueJobs((NewJob("a"), NewJob("b", parent_id="ghost"))))
    assert reply[1] == "not_found"
    assert lone.store.jobs == {}


@pytest.mark.parametrize("parent", ["#1", "#2", "#", "#x", "#-1", "##0"])
def test_a_parent_in_the_same_command_must_come_before(lone: LoneStore, parent: str) -> None:
    assert lone.reply(EnqueueJobs((NewJob("a"), NewJob("b", parent_id=parent))))[1] == "not_found"
    assert lone.store.jobs == {}


# --- limits ---


def test_a_full_store_refuses_new_jobs_while_finishing_goes_on() -> None:
    lone = LoneStore(Limits(max_jobs=2))
    worker = lone.worker()
    first, _ = lone.enqueue(NewJob("a"), NewJob("b"))
    assert lone.reply(EnqueueJobs((NewJob("c"),)))[1] == "store_full"
    assert lone.reply(CreateJob("", "t", b"", "default", (), 5))[1] == "store_full"
    lone.do(CompleteJob(first, lone.take_grant().token, b"result"), worker)
    assert lone.state(first) == "Succeeded"
    assert lone.take_grant().task == "b"


def test_a_command_that_would_go_over_the_limit_makes_none_of_its_jobs() -> None:
    lone = LoneStore(Limits(max_jobs=2))
    assert lone.reply(EnqueueJobs((NewJob("a"), NewJob("b"), NewJob("c"))))[1] == "store_full"
    assert lone.store.jobs == {}


def test_a_full_store_heals_when_jobs_expire() -> None:
    lone = LoneStore(Limits(max_jobs=1))
    (job_id,) = lone.enqueue(NewJob("a"))
    lone.do(DeleteJob(job_id))
    assert lone.reply(EnqueueJobs((NewJob("b"),)))[1] == "store_full"
    lone.pass_time(DAY)
    assert len(lone.enqueue(NewJob("b"))) == 1


def test_bytes_are_counted_and_limited() -> None:
    lone = LoneStore(Limits(max_state_bytes=20_000))
    before = lone.store.state_bytes
    (job_id,) = lone.enqueue(NewJob("a", b"x" * 10_000))
    assert lone.store.state_bytes - before > 10_000
    lone.enqueue(NewJob("a", b"x" * 10_000))
    assert lone.reply(EnqueueJobs((NewJob("c"),)))[1] == "store_full"
    assert lone.do(DeleteJob(job_id)) is True


def test_collections_may_use_the_reserve_and_no_more() -> None:
    lone = LoneStore(Limits(max_state_bytes=1000, reserve_percent=200))
    assert lone.do(AddToSet("k", "x" * 1000)) is True
    assert lone.reply(CreateJob("", "t", b"", "default", (), 5))[1] == "store_full"
    lone.do(AddToSet("k", "y" * 1000))
    assert lone.reply(AddToSet("k", "z"))[1] == "store_full"
    assert lone.reply(SetJobParameter("j", "k", "v"))[1] == "store_full"
    assert lone.do(IncrementCounter("still", 1)) == 1


def test_the_number_of_queues_is_limited() -> None:
    lone = LoneStore(Limits(max_queues=2))
    lone.enqueue(NewJob("a", queue="one"), NewJob("a", queue="two"))
    assert lone.reply(EnqueueJobs((NewJob("a", queue="three"),)))[1] == "store_full"
    assert len(lone.enqueue(NewJob("a", queue="one"))) == 1
