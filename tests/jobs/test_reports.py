"""What workers report: fenced by tokens, and everything that follows from it in the same apply."""

from __future__ import annotations

import pytest

from quorker.core.jobs.commands import (
    CloseSession,
    CompleteJob,
    DeleteJob,
    EnqueueJobs,
    FailJob,
    ReleaseJob,
    RequeueJob,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob, RetryPolicy
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

DAY = 24 * 3600 * 1000


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def fail(lone: LoneStore, message: str = "broken", *, final: bool = False) -> str:
    grant = lone.take_grant()
    return str(lone.do(FailJob(grant.job_id, grant.token, "ValueError", message, "trace", final)))


def test_completing_stores_result_times_and_expiry_and_frees_the_slot(lone: LoneStore) -> None:
    worker = lone.worker()
    lone.advance(10)
    (job_id,) = lone.enqueue()
    grant = lone.take_grant()
    lone.advance(25)
    assert lone.do(CompleteJob(job_id, grant.token, b"result"), worker) is None
    job = lone.job(job_id)
    assert (job.state, job.result, job.expires_lt) == ("Succeeded", b"result", 35 + DAY)
    assert job.history[-1].data == (("latency_ms", 0), ("duration_ms", 25), ("token", grant.token))
    assert lone.outcome.finished == [job_id]
    assert lone.store.leases == {}
    assert lone.store.sessions[worker].busy == 0


def test_latency_is_the_time_from_creation_to_start(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue()
    lone.advance(40)
    worker = lone.worker()
    lone.do(CompleteJob(job_id, lone.take_grant().token), worker)
    assert ("latency_ms", 40) in lone.job(job_id).history[-1].data


@pytest.mark.parametrize("report", [CompleteJob, ReleaseJob])
def test_a_stale_token_is_refused_and_changes_nothing(lone: LoneStore, report: type[CompleteJob]) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    stale = lone.take_grant().token
    lone.do(ReleaseJob(job_id, stale), worker)
    current = lone.take_grant().token
    assert lone.reply(report(job_id, stale), worker)[1] == "lease_lost"
    assert (lone.state(job_id), lone.job(job_id).token) == ("Processing", current)


def test_a_token_of_another_job_is_refused(lone: LoneStore) -> None:
    worker = lone.worker(slots=2)
    first, second = lone.enqueue(NewJob("a"), NewJob("b"))
    tokens = [grant.token for grant in lone.take_grants()]
    assert lone.reply(CompleteJob(first, tokens[1]), worker)[1] == "lease_lost"
    assert lone.reply(FailJob(second, tokens[0], "", "", ""), worker)[1] == "lease_lost"


def test_a_job_that_is_gone_is_not_found(lone: LoneStore) -> None:
    assert lone.reply(CompleteJob("0000000000000", 5))[1] == "not_found"
    assert lone.reply(FailJob("ghost", 5, "", "", ""))[1] == "not_found"


def test_a_delivery_reported_twice_is_in_the_wrong_state(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    token = lone.take_grant().token
    lone.do(CompleteJob(job_id, token), worker)
    assert lone.reply(CompleteJob(job_id, token))[1:] == ("wrong_state", "Succeeded")


def test_another_session_may_report_with_the_right_token(lone: LoneStore) -> None:
    lone.worker()
    (job_id,) = lone.enqueue()
    lone.do(CompleteJob(job_id, lone.take_grant().token), lone.open("other"))
    assert lone.state(job_id) == "Succeeded"


def test_releasing_spends_no_attempt_and_returns_to_the_head(lone: LoneStore) -> None:
    worker = lone.worker()
    first, _ = lone.enqueue(NewJob("a"), NewJob("b"))
    lone.do(ReleaseJob(first, lone.take_grant().token), worker)
    grant = lone.take_grant()
    assert (grant.job_id, grant.attempt, grant.deliveries) == (first, 1, 2)
    assert lone.job(first).lost == 0


def test_a_failure_is_retried_after_its_delay(lone: LoneStore) -> None:
    lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", retry=RetryPolicy(2, (100, 200))))
    assert fail(lone, "first") == "Scheduled"
    job = lone.job(job_id)
    assert (job.failures, job.due_wt) == (1, FIRST_WT + 100)
    assert [record.name for record in job.history] == ["Enqueued", "Processing", "Failed", "Scheduled"]
    assert job.history[2].data[:3] == (("error_type", "ValueError"), ("message", "first"), ("trace", "trace"))
    assert job.history[3].reason == "retry 1 of 2: first"
    assert list(lone.store.index.retries) == [(FIRST_WT + 100, job.order, job_id)]
    lone.pass_time(100)
    grant = lone.take_grant()
    assert (grant.job_id, grant.attempt) == (job_id, 2)
    assert len(lone.store.index.retries) == 0


def test_the_default_policy_is_hangfires(lone: LoneStore) -> None:
    lone.worker()
    (job_id,) = lone.enqueue()
    assert fail(lone) == "Scheduled"
    assert 15_000 <= lone.job(job_id).due_wt - FIRST_WT <= 44_000


def test_without_an_attempt_left_a_job_has_failed_for_good(lone: LoneStore) -> None:
    lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", retry=RetryPolicy(1, (10,))))
    fail(lone)
    lone.pass_time(10)
    assert fail(lone) == "Failed"
    job = lone.job(job_id)
    assert (job.failures, job.expires_lt) == (2, 10 + 7 * DAY)
    assert ("attempt", 2) in job.history[-1].data
    assert lone.outcome.finished == [job_id]
    lone.pass_time(7 * DAY)
    assert job_id not in lone.store.jobs


def test_a_policy_may_delete_instead(lone: LoneStore) -> None:
    lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", retry=RetryPolicy(0, on_exceed="delete")))
    assert fail(lone) == "Deleted"
    assert [record.name for record in lone.job(job_id).history][-2:] == ["Failed", "Deleted"]
    assert lone.job(job_id).expires_lt == DAY


def test_a_final_error_is_not_retried(lone: LoneStore) -> None:
    lone.worker()
    lone.enqueue()
    assert fail(lone, final=True) == "Failed"


def test_no_delay_enqueues_at_once(lone: LoneStore) -> None:
    lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", retry=RetryPolicy(3, (0,))))
    assert fail(lone) == "Enqueued"
    assert lone.take_grant().attempt == 2
    assert lone.state(job_id) == "Processing"


def test_a_failing_job_frees_its_slot_for_the_next(lone: LoneStore) -> None:
    lone.worker()
    lone.enqueue(NewJob("a"), NewJob("b"))
    fail(lone)
    assert lone.take_grant().task == "b"


def test_retention_can_be_set_per_job() -> None:
    lone = LoneStore(Limits(succeeded_ttl_ms=500))
    worker = lone.worker(slots=2)
    plain, own = lone.enqueue(NewJob("a"), NewJob("b", retention_ms=50))
    for grant in lone.take_grants():
        lone.do(CompleteJob(grant.job_id, grant.token), worker)
    lone.pass_time(50)
    assert list(lone.store.jobs) == [plain]
    lone.pass_time(450)
    assert lone.store.jobs == {}
    assert own != plain


def test_history_is_bounded_and_sizes_stay_right() -> None:
    lone = LoneStore(Limits(history_max=5))
    lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", retry=RetryPolicy(100, (0,))))
    for number in range(10):
        fail(lone, "m" * 100 * number)
    assert len(lone.job(job_id).history) == 5


# --- timeouts ---


def test_a_job_that_is_not_reported_in_time_has_failed_and_is_cancelled() -> None:
    lone = LoneStore(Limits(timeout_grace_ms=10))
    worker = lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", timeout_ms=100, retry=RetryPolicy(0)))
    grant = lone.take_grant()
    lone.pass_time(109)
    assert lone.state(job_id) == "Processing"
    lone.pass_time(1)
    job = lone.job(job_id)
    assert job.state == "Failed"
    assert ("error_type", "TimeoutError") in job.history[-1].data
    (cancel,) = lone.take_cancels()
    assert (cancel.token, cancel.reason) == (grant.token, "timeout")
    assert lone.reply(CompleteJob(job_id, grant.token), worker)[0] == 1
    lone.enqueue(NewJob("next"))
    assert lone.take_grant().task == "next"


def test_a_timeout_is_retried_like_any_failure() -> None:
    lone = LoneStore(Limits(timeout_grace_ms=0))
    lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", timeout_ms=100, retry=RetryPolicy(1, (5,))))
    lone.take_grant()
    lone.pass_time(100)
    assert lone.state(job_id) == "Scheduled"
    lone.pass_time(5)
    assert lone.take_grant().attempt == 2


def test_a_reported_job_has_no_timeout_left(lone: LoneStore) -> None:
    worker = lone.worker(ttl_ms=3_600_000)
    (job_id,) = lone.enqueue(NewJob("t", timeout_ms=100))
    lone.do(CompleteJob(job_id, lone.take_grant().token), worker)
    assert len(lone.store.deadlines) == 0
    lone.pass_time(600_000)
    assert lone.state(job_id) == "Succeeded"


# --- statistics ---


def counter(lone: LoneStore, key: str) -> int:
    return lone.store.collections.counters.value(key)


def test_ended_jobs_are_counted_in_total_by_day_and_by_hour(lone: LoneStore) -> None:
    worker = lone.worker(slots=5)
    lone.enqueue(*[NewJob("t", retry=RetryPolicy(0))] * 4)
    done, failed, deleted, _ = lone.take_grants()
    lone.entry(
        (worker, CompleteJob(done.job_id, done.token)),
        (worker, FailJob(failed.job_id, failed.token, "", "", "")),
        (0, DeleteJob(deleted.job_id)),
    )
    for kind in ("succeeded", "failed", "deleted"):
        for key in (f"stats:{kind}", f"stats:{kind}:2026-01-01", f"stats:{kind}:2026-01-01-00"):
            assert counter(lone, key) == 1, key


def test_buckets_follow_the_wall_time_of_the_log(lone: LoneStore) -> None:
    worker = lone.worker(ttl_ms=DAY)
    lone.advance(25 * 3600 * 1000 // 2)
    (job_id,) = lone.enqueue()
    lone.do(CompleteJob(job_id, lone.take_grant().token), worker)
    assert counter(lone, "stats:succeeded:2026-01-01-12") == 1


def test_buckets_expire_and_totals_stay(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue()
    lone.do(DeleteJob(job_id))
    lone.pass_time(DAY)
    assert counter(lone, "stats:deleted:2026-01-01-00") == 0
    lone.pass_time(31 * DAY)
    assert counter(lone, "stats:deleted:2026-01-01") == 0
    assert counter(lone, "stats:deleted") == 1


def test_leaving_a_final_state_takes_back_from_the_total(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue()
    lone.do(DeleteJob(job_id))
    lone.do(RequeueJob(job_id))
    assert counter(lone, "stats:deleted") == 0
    assert counter(lone, "stats:deleted:2026-01-01") == 1


def test_a_retry_is_not_counted_as_failed(lone: LoneStore) -> None:
    lone.worker()
    lone.enqueue()
    fail(lone)
    assert counter(lone, "stats:failed") == 0


def test_a_repeated_report_is_counted_once(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    command = CompleteJob(job_id, lone.take_grant().token)
    lone.group(worker, 0, [(50, command)])
    lone.group(worker, 0, [(50, command)])
    lone.reply(command, lone.open("other"))
    assert counter(lone, "stats:succeeded") == 1


def test_counting_goes_on_beyond_the_year_9999(lone: LoneStore) -> None:
    lone.wt = 2**52
    lone.lt = 1
    (job_id,) = lone.enqueue()
    lone.do(DeleteJob(job_id))
    assert counter(lone, "stats:deleted:9999-12-31-23") == 1


# --- everything at once ---


def test_one_completion_does_all_of_it_in_one_entry(lone: LoneStore) -> None:
    worker = lone.worker()
    parent, child, other = lone.enqueue(
        NewJob("parent", unique_key="k"), NewJob("child", parent_id="#0"), NewJob("other")
    )
    lone.entry(
        (worker, CompleteJob(parent, lone.take_grant().token)),
        (0, EnqueueJobs((NewJob("t", unique_key="k"),))),
    )
    assert lone.state(parent) == "Succeeded"
    assert lone.state(child) == "Enqueued"
    assert lone.take_grant().job_id == other
    assert len(lone.store.jobs) == 4


def test_a_worker_that_closes_gives_back_without_spending(lone: LoneStore) -> None:
    worker = lone.worker(slots=2)
    lone.enqueue(NewJob("a"), NewJob("b"), NewJob("c"))
    lone.take_grants()
    lone.do(CloseSession(), worker)
    assert lone.take_cancels() == []
    lone.worker(slots=3, name="next")
    grants = lone.take_grants()
    assert [grant.task for grant in grants] == ["a", "b", "c"]
    assert [grant.attempt for grant in grants] == [1, 1, 1]
    assert all(job.lost == 0 for job in lone.store.jobs.values())
