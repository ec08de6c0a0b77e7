"""Dispatch: who gets which job, in which order, and that nothing waits while somebody could take it."""

from __future__ import annotations

import pytest

from quorker.core.jobs.commands import (
    AddToQueue,
    CompleteJob,
    CreateJob,
    EnqueueJobs,
    FetchJobs,
    FetchNext,
    ReleaseJob,
    SetJobState,
    SetQueuePaused,
    Subscribe,
    grant_from_wire,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import JobGrant, NewJob
from quorker.core.jobs.records import LeaseKind
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def whose(lone: LoneStore) -> list[int]:
    return [notice.session for notice in lone.outcome.notices if notice.kind == "job"]


def test_a_job_is_granted_in_the_apply_that_made_it(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", b"args", timeout_ms=5, headers=(("h", "v"),)))
    grant = lone.take_grant()
    assert grant == JobGrant(job_id, grant.token, "default", "t", b"args", 1, 5, FIRST_WT, 1, (("h", "v"),))
    assert whose(lone) == [worker]
    job = lone.job(job_id)
    assert (job.state, job.token) == ("Processing", grant.token)
    assert job.history[1].data == (("worker", "worker"), ("token", grant.token))


def test_waiting_jobs_are_granted_when_a_worker_subscribes(lone: LoneStore) -> None:
    ids = lone.enqueue(NewJob("a"), NewJob("b"), NewJob("c"))
    lone.worker(slots=2)
    assert [grant.job_id for grant in lone.take_grants()] == list(ids[:2])


def test_a_freed_slot_takes_the_next_job_in_the_same_apply(lone: LoneStore) -> None:
    worker = lone.worker()
    first, second = lone.enqueue(NewJob("a"), NewJob("b"))
    grant = lone.take_grant()
    lone.do(CompleteJob(first, grant.token), worker)
    assert lone.take_grant().job_id == second


def test_slots_bound_what_a_session_runs(lone: LoneStore) -> None:
    lone.worker(slots=3)
    lone.enqueue(*[NewJob("t")] * 5)
    assert len(lone.take_grants()) == 3
    assert lone.store.queues["default"].length == 2


def test_a_session_takes_from_its_first_queue_that_has_something(lone: LoneStore) -> None:
    lone.enqueue(NewJob("t", queue="low"), NewJob("t", queue="mid"), NewJob("t", queue="high"))
    worker = lone.worker("high", "mid", "low")
    order: list[str] = []
    for _ in range(3):
        grant = lone.take_grant()
        order.append(grant.queue)
        lone.do(CompleteJob(grant.job_id, grant.token), worker)
    assert order == ["high", "mid", "low"]


def test_the_most_urgent_queue_wins_within_one_entry(lone: LoneStore) -> None:
    lone.worker("high", "low")
    lone.entry((0, EnqueueJobs((NewJob("t", queue="low"),))), (0, EnqueueJobs((NewJob("t", queue="high"),))))
    assert lone.take_grant().queue == "high"


def test_priority_goes_before_age_and_age_decides_among_equals(lone: LoneStore) -> None:
    priorities = [0, 5, -1, 5, 0]
    lone.enqueue(*[NewJob(f"t{at}", priority=priority) for at, priority in enumerate(priorities)])
    lone.worker(slots=5)
    assert [grant.task for grant in lone.take_grants()] == ["t1", "t3", "t0", "t4", "t2"]


def test_sessions_take_turns(lone: LoneStore) -> None:
    workers = [lone.worker(slots=2, name=f"w{number}") for number in range(3)]
    lone.enqueue(*[NewJob("t")] * 6)
    assert whose(lone) == workers * 2


def test_turns_go_on_across_entries(lone: LoneStore) -> None:
    workers = [lone.worker(slots=2, name=f"w{number}") for number in range(3)]
    order: list[int] = []
    for _ in range(6):
        lone.enqueue()
        order += whose(lone)
    assert order == workers * 2


def test_turns_are_shared_by_sessions_with_different_queues(lone: LoneStore) -> None:
    both = lone.worker("a", "b", slots=5, name="both")
    only = lone.worker("b", slots=5, name="only")
    lone.enqueue(*[NewJob("t", queue=queue) for queue in "bbab"])
    assert sorted(whose(lone)) == sorted([both, only, both, only])


def test_a_busy_session_is_passed_over(lone: LoneStore) -> None:
    lone.worker(slots=1, name="one")
    other = lone.worker(slots=3, name="other")
    lone.enqueue(*[NewJob("t")] * 4)
    assert whose(lone)[1:] == [other] * 3


def test_no_slots_drain_a_session(lone: LoneStore) -> None:
    worker = lone.worker(slots=2)
    first, _ = lone.enqueue(NewJob("a"), NewJob("b"))
    grants = lone.take_grants()
    lone.do(Subscribe(("default",), 0), worker)
    lone.enqueue(NewJob("c"))
    lone.do(CompleteJob(first, grants[0].token), worker)
    assert lone.take_grants() == []
    assert lone.store.queues["default"].length == 1
    lone.do(Subscribe(("default",), 1), worker)
    assert lone.take_grants() == []
    lone.do(CompleteJob(grants[1].job_id, grants[1].token), worker)
    assert lone.take_grant().task == "c"


def test_a_new_subscription_replaces_the_old(lone: LoneStore) -> None:
    worker = lone.worker("a")
    lone.do(Subscribe(("b",), 1), worker)
    lone.enqueue(NewJob("t", queue="a"), NewJob("t", queue="b"))
    assert lone.take_grant().queue == "b"
    assert lone.store.queues["a"].ready == {}


def test_no_queues_means_no_slots(lone: LoneStore) -> None:
    session = lone.open()
    lone.do(Subscribe((), 5), session)
    assert lone.store.sessions[session].slots == 0


def test_entries_that_lead_nowhere_are_dropped_on_the_way(lone: LoneStore) -> None:
    lone.do(AddToQueue("default", "ghost"))
    for job_id, state in (("done", "Succeeded"), ("new", ""), ("good", "Enqueued")):
        lone.do(CreateJob(job_id, "t", b"", "default", (), 10**9))
        if state:
            lone.do(SetJobState(job_id, state, "", ()))
        lone.do(AddToQueue("default", job_id))
    lone.worker(slots=5)
    assert [grant.job_id for grant in lone.take_grants()] == ["good"]
    assert lone.store.queues["default"].length == 0


def test_a_job_is_never_granted_twice_at_once(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue()
    lone.do(AddToQueue("default", job_id))
    lone.worker(slots=5)
    assert [grant.job_id for grant in lone.take_grants()] == [job_id]


def test_a_grant_makes_an_expiring_job_stay(lone: LoneStore) -> None:
    lone.do(CreateJob("a", "t", b"", "default", (), 100))
    lone.do(SetJobState("a", "Enqueued", "", ()))
    lone.do(AddToQueue("default", "a"))
    lone.worker(ttl_ms=3_600_000)
    lone.pass_time(1000)
    assert lone.state("a") == "Processing"


# --- pull ---


def test_fetch_jobs_grants_up_to_its_limit_in_order_of_queues(lone: LoneStore) -> None:
    lone.enqueue(*[NewJob("t", queue=queue) for queue in ("b", "a", "b", "a")])
    session = lone.open()
    grants = [grant_from_wire(each) for each in lone.do(FetchJobs(("a", "b"), 3), session)]
    assert [grant.queue for grant in grants] == ["a", "a", "b"]
    assert lone.store.leases[grants[0].token].kind == LeaseKind.PULLED
    assert lone.do(FetchJobs(("a", "b", "none"), 5), session)[0][2] == "b"
    assert lone.do(FetchJobs(("a",), 5), session) == ()


def test_pulled_jobs_take_no_slot(lone: LoneStore) -> None:
    lone.enqueue(NewJob("a"), NewJob("b"))
    session = lone.open()
    (pulled,) = lone.do(FetchJobs(("default",), 1), session)
    lone.do(Subscribe(("default",), 1), session)
    assert lone.take_grant().task == "b"
    lone.do(CompleteJob(pulled[0], pulled[1]), session)
    assert lone.store.sessions[session].busy == 1


def test_what_a_session_may_hold_is_limited() -> None:
    lone = LoneStore(Limits(max_session_leases=2))
    lone.enqueue(*[NewJob("t")] * 5)
    session = lone.open()
    assert len(lone.do(FetchJobs(("default",), 10), session)) == 2
    assert lone.do(FetchNext(("default",)), session) is None
    assert lone.reply(Subscribe(("default",), 3), session)[1] == "too_many_slots"


def test_pulling_needs_a_session(lone: LoneStore) -> None:
    assert lone.reply(FetchJobs(("default",), 1))[1] == "no_session"
    assert lone.reply(Subscribe(("default",), 1))[1] == "no_session"


# --- pause ---


def test_nothing_is_taken_from_a_paused_queue_in_any_way(lone: LoneStore) -> None:
    session = lone.worker(slots=2)
    assert lone.do(SetQueuePaused("default", True, "maintenance", "ops")) is True
    lone.enqueue(NewJob("a"), NewJob("b"), NewJob("c"), NewJob("d"))
    assert lone.take_grants() == []
    assert lone.do(FetchJobs(("default",), 5), session) == ()
    assert lone.do(FetchNext(("default",))) is None
    queue = lone.store.queues["default"]
    assert (queue.reason, queue.author, queue.paused_wt) == ("maintenance", "ops", FIRST_WT)


def test_resuming_grants_at_once(lone: LoneStore) -> None:
    lone.worker(slots=2)
    lone.do(SetQueuePaused("default", True, "r", "a"))
    lone.enqueue(NewJob("a"), NewJob("b"), NewJob("c"))
    assert lone.do(SetQueuePaused("default", False)) is True
    assert len(lone.take_grants()) == 2
    queue = lone.store.queues["default"]
    assert (queue.reason, queue.author, queue.paused_wt) == ("", "", 0)


def test_pausing_twice_changes_nothing_but_the_reason(lone: LoneStore) -> None:
    lone.do(SetQueuePaused("q", True, "one"))
    lone.advance(5)
    assert lone.do(SetQueuePaused("q", True, "other")) is False
    assert (lone.store.queues["q"].reason, lone.store.queues["q"].paused_wt) == ("other", FIRST_WT)
    assert lone.do(SetQueuePaused("unknown", False)) is False
    assert "unknown" not in lone.store.queues


def test_a_paused_queue_does_not_hold_up_the_next_one(lone: LoneStore) -> None:
    lone.do(SetQueuePaused("high", True))
    lone.enqueue(NewJob("t", queue="high"), NewJob("t", queue="low"))
    lone.worker("high", "low")
    assert lone.take_grant().queue == "low"


def test_running_jobs_of_a_paused_queue_go_on(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    grant = lone.take_grant()
    lone.do(SetQueuePaused("default", True))
    lone.do(CompleteJob(job_id, grant.token), worker)
    assert lone.state(job_id) == "Succeeded"


def test_a_released_job_of_a_paused_queue_waits(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    grant = lone.take_grant()
    lone.do(SetQueuePaused("default", True))
    lone.do(ReleaseJob(job_id, grant.token), worker)
    assert lone.take_grants() == []
    assert lone.state(job_id) == "Enqueued"
