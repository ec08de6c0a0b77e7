"""Limits under keys: so many at a time and so often, in order, over every path by which a job gets into somebody's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorker.core.jobs.commands import (
    AckFetched,
    AddToQueue,
    BadCommand,
    CloseSession,
    Command,
    CompleteJob,
    CreateJob,
    DeleteJob,
    EnqueueJobs,
    FailJob,
    FetchJobs,
    FetchNext,
    Maintain,
    ReleaseJob,
    RequeueFetched,
    RequeueJob,
    RescheduleJob,
    SetJobState,
    SetQueuePaused,
    decode,
    encode,
    grant_from_wire,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import JobGrant, NewJob, RetryPolicy, StartRules
from quorker.core.jobs.snapshot_rows import job_row, lease_row
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

MUTEX = StartRules("k", 1)
PAIR = StartRules("k", 2)
AT_ONCE = RetryPolicy(attempts=3, delays_ms=(0,))


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def limited(task: str = "t", rules: StartRules = MUTEX, **fields: Any) -> NewJob:
    return NewJob(task, start=rules, **fields)


def tasks(lone: LoneStore) -> list[str]:
    return [grant.task for grant in lone.take_grants()]


def finish(lone: LoneStore, grant: JobGrant, session: int) -> None:
    lone.do(CompleteJob(grant.job_id, grant.token), session)


# At a time --------------------------------------------------------------------------------------------------------


def test_a_mutex_lets_one_run_and_the_next_when_it_has_ended(lone: LoneStore) -> None:
    worker = lone.worker(slots=5)
    lone.enqueue(limited("a"), limited("b"), limited("c"))
    for task in "abc":
        grant = lone.take_grant()
        assert grant.task == task
        finish(lone, grant, worker)


def test_a_limit_lets_so_many_run_beside_each_other(lone: LoneStore) -> None:
    worker = lone.worker(slots=5)
    lone.enqueue(*[limited(task, PAIR) for task in "abcd"])
    first, second = lone.take_grants()
    finish(lone, second, worker)
    assert tasks(lone) == ["c"]
    finish(lone, first, worker)
    assert tasks(lone) == ["d"]


def test_other_jobs_pass_those_that_wait_and_no_slot_is_taken_by_waiting(lone: LoneStore) -> None:
    lone.worker(slots=3)
    lone.enqueue(limited("a"), limited("b"), NewJob("plain"), limited("other", StartRules("other", 1)))
    assert tasks(lone) == ["a", "plain", "other"]


def test_keys_count_over_all_workers_and_queues(lone: LoneStore) -> None:
    first = lone.worker("default", name="w1")
    lone.worker("high", name="w2")
    lone.enqueue(limited("a"), limited("b", queue="high"))
    grant = lone.take_grant()
    assert grant.task == "a"
    finish(lone, grant, first)
    assert tasks(lone) == ["b"]


def test_who_waits_keeps_its_place_among_those_without_a_key(lone: LoneStore) -> None:
    worker = lone.worker(slots=1)
    lone.enqueue(limited("a"), limited("b"), NewJob("plain"))
    finish(lone, lone.take_grant(), worker)
    assert tasks(lone) == ["b"]


def test_priority_decides_within_a_line_and_between_lines(lone: LoneStore) -> None:
    worker = lone.worker(slots=1)
    lone.enqueue(NewJob("first"))
    lone.enqueue(limited("a"), limited("b", priority=5), NewJob("c", priority=1), limited("d", priority=5))
    order: list[str] = []
    for _ in range(5):
        grant = lone.take_grant()
        order.append(grant.task)
        finish(lone, grant, worker)
    assert order == ["first", "b", "d", "c", "a"]


def test_the_limit_of_the_job_at_the_head_decides(lone: LoneStore) -> None:
    """Nobody in the line passes it, also one that would have room."""
    worker = lone.worker(slots=5)
    lone.enqueue(limited("a", PAIR), limited("b", MUTEX), limited("c", PAIR))
    grant = lone.take_grant()
    assert grant.task == "a"
    finish(lone, grant, worker)
    assert tasks(lone) == ["b", "c"]  # two may run beside each other when c starts


WAYS: tuple[Callable[[JobGrant], Command], ...] = (
    lambda grant: CompleteJob(grant.job_id, grant.token),
    lambda grant: FailJob(grant.job_id, grant.token, "E", "m", "", final=True),
    lambda grant: FailJob(grant.job_id, grant.token, "E", "m", ""),
    lambda grant: ReleaseJob(grant.job_id, grant.token),
    lambda grant: DeleteJob(grant.job_id),
    lambda grant: RequeueJob(grant.job_id),
    lambda grant: RescheduleJob(grant.job_id, delay_ms=1000),
    lambda grant: SetJobState(grant.job_id, "Odd", "", ()),
    lambda _: CloseSession(),
)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_which_a_lease_ends_makes_room(
    lone: LoneStore, way: Callable[[JobGrant], Command]
) -> None:
    worker = lone.worker(slots=1, name="w1")
    lone.enqueue(limited("a"))
    grant = lone.take_grant()
    lone.worker(slots=1, name="w2")
    lone.enqueue(limited("b"))
    assert tasks(lone) == []
    lone.do(way(grant), worker)
    assert len(lone.take_grants()) == 1
    assert lone.store.query("limit", {"key": "k"})["holders"] == 1  # type: ignore[index]


def test_a_worker_that_is_lost_makes_room_and_its_job_is_next(lone: LoneStore) -> None:
    lone.worker(slots=1, name="w1", ttl_ms=1000)
    lone.enqueue(limited("a"))
    lone.worker(slots=2, name="w2", ttl_ms=60_000)
    lone.enqueue(limited("b"))
    lone.take_grants()
    lone.pass_time(1000)
    assert tasks(lone) == ["a"]


def test_a_job_that_times_out_makes_room(lone: LoneStore) -> None:
    lone.worker(slots=2)
    lone.enqueue(limited("a", timeout_ms=100, retry=RetryPolicy(0)), limited("b"))
    assert tasks(lone) == ["a"]
    lone.pass_time(100 + Limits().timeout_grace_ms)
    assert tasks(lone) == ["b"]


def test_a_retry_waits_for_room_like_any_other(lone: LoneStore) -> None:
    worker = lone.worker(slots=2)
    lone.enqueue(limited("a", retry=AT_ONCE), limited("b"))
    grant = lone.take_grant()
    lone.do(FailJob(grant.job_id, grant.token, "E", "m", ""), worker)
    assert tasks(lone) == ["b"]


def test_pulling_obeys_limits_and_goes_on_behind_those_that_wait(lone: LoneStore) -> None:
    session = lone.open()
    lone.enqueue(limited("a"), limited("b"), NewJob("plain"))
    grants = [grant_from_wire(wire) for wire in lone.do(FetchJobs(("default",), 10), session)]
    assert [grant.task for grant in grants] == ["a", "plain"]
    finish(lone, grants[0], session)
    (wire,) = lone.do(FetchJobs(("default",), 10), session)
    assert grant_from_wire(wire).task == "b"


def test_fetching_by_contract_obeys_limits_too(lone: LoneStore) -> None:
    first, second = lone.enqueue(limited("a"), limited("b"))
    job_id, _, token = lone.do(FetchNext(("default",)))
    assert job_id == first
    assert lone.do(FetchNext(("default",))) is None
    assert lone.do(RequeueFetched(token))
    job_id, _, token = lone.do(FetchNext(("default",)))
    assert job_id == first, "back at the head of its line"
    lone.do(AckFetched(token))
    assert lone.do(FetchNext(("default",)))[0] == second


def test_what_was_fetched_and_not_renewed_makes_room(lone: LoneStore) -> None:
    lone.enqueue(limited("a"), limited("b"))
    lone.do(FetchNext(("default",)))
    lone.advance(1000)
    lone.do(Maintain(1000))
    assert lone.store.query("limit", {"key": "k"}) == {"key": "k", "holders": 0, "waiting": 2, "next_lt": 0}


def test_deleting_and_rescheduling_take_a_job_out_of_the_line(lone: LoneStore) -> None:
    worker = lone.worker(slots=5)
    _, second, third, _ = lone.enqueue(*[limited(task) for task in "abcd"])
    grant = lone.take_grant()
    lone.do(DeleteJob(second))
    lone.do(RescheduleJob(third, delay_ms=1000))
    finish(lone, grant, worker)
    assert tasks(lone) == ["d"]


def test_a_requeued_job_is_at_the_end_of_the_line(lone: LoneStore) -> None:
    worker = lone.worker(slots=1)
    first, _ = lone.enqueue(limited("a"), limited("b"))
    lone.take_grant()
    lone.do(RequeueJob(first))
    grant = lone.take_grant()
    assert grant.task == "b"
    finish(lone, grant, worker)
    assert tasks(lone) == ["a"]


def test_a_paused_queue_keeps_its_line_and_does_not_hold_up_another(lone: LoneStore) -> None:
    worker = lone.worker("default", "high", slots=5)
    lone.enqueue(limited("a"), limited("b"), limited("c", queue="high"))
    grant = lone.take_grant()
    lone.do(SetQueuePaused("default", paused=True))
    finish(lone, grant, worker)
    grant = lone.take_grant()
    assert grant.task == "c"
    lone.do(SetQueuePaused("default", paused=False))
    assert tasks(lone) == []
    finish(lone, grant, worker)
    assert tasks(lone) == ["b"]


def test_a_queue_that_nobody_works_on_does_not_hold_up_another(lone: LoneStore) -> None:
    lone.worker("default")
    lone.enqueue(limited("a", queue="deserted"), limited("b"))
    assert tasks(lone) == ["b"]


def test_a_job_that_is_quarantined_makes_room() -> None:
    lone = LoneStore(Limits(max_lost_deliveries=1))
    lone.worker(name="w1", ttl_ms=1000)
    job_id, _ = lone.enqueue(limited("a"), limited("b"))
    lone.take_grant()
    lone.worker(name="w2")
    lone.pass_time(1000)
    assert lone.state(job_id) == "Quarantined"
    assert tasks(lone) == ["b"]


def test_the_contract_puts_a_job_with_a_key_into_its_line_too(lone: LoneStore) -> None:
    lone.worker("other", "default", slots=5)
    _, second = lone.enqueue(limited("a"), limited("b"))
    lone.do(AddToQueue("other", second))
    assert tasks(lone) == ["a"]
    lone.do(CreateJob(second, "replaced", b"", "default", (), 1000))
    assert lone.store.query("limit", {"key": "k"})["waiting"] == 0  # type: ignore[index]


def test_a_place_that_was_there_before_its_job_obeys_the_limit(lone: LoneStore) -> None:
    """Whoever guesses an id that is to come gets no more than others."""
    lone.enqueue(limited("a"))
    session = lone.open()
    lone.do(FetchJobs(("default",), 1), session)
    twin = LoneStore()  # tells the id
    twin.enqueue(limited("a"))
    twin.do(FetchJobs(("default",), 1), twin.open())
    twin.do(SetQueuePaused("default", paused=False))
    (coming,) = twin.enqueue(limited("b"))
    lone.do(AddToQueue("default", coming))
    assert lone.enqueue(limited("b")) == (coming,)
    assert lone.do(FetchJobs(("default",), 5), session) == ()
    assert lone.do(FetchNext(("default",))) is None


# So often ---------------------------------------------------------------------------------------------------------


def starts(lone: LoneStore, worker: int, ms: int, step_ms: int = 1) -> list[int]:
    """When jobs started, in ms from now; each ends at once."""
    found: list[int] = []
    for at in range(0, ms, step_ms):
        while grants := lone.take_grants():
            found.extend([at] * len(grants))
            for grant in grants:
                finish(lone, grant, worker)
        lone.pass_time(step_ms)
    return found


def test_a_rate_spaces_starts_evenly(lone: LoneStore) -> None:
    worker = lone.worker(slots=10)
    lone.enqueue(*[limited(rules=StartRules("k", 0, 4, 100))] * 5)
    assert starts(lone, worker, 120) == [0, 25, 50, 75, 100]


def test_a_rate_that_does_not_divide_its_time_is_rounded_down(lone: LoneStore) -> None:
    worker = lone.worker(slots=10)
    lone.enqueue(*[limited(rules=StartRules("k", 0, 3, 10))] * 7)
    found = starts(lone, worker, 40)
    assert found == [0, 4, 8, 12, 16, 20, 24]
    assert all(sum(since <= at < since + 10 for at in found) <= 3 for since in range(40))


def test_a_burst_starts_at_once_and_is_earned_again(lone: LoneStore) -> None:
    worker = lone.worker(slots=10)
    rules = StartRules("k", 0, 1, 10, burst=3)
    lone.enqueue(*[limited(rules=rules)] * 5)
    assert starts(lone, worker, 30) == [0, 0, 0, 10, 20]
    lone.enqueue(*[limited(rules=rules)] * 2)
    assert starts(lone, worker, 10) == [0]
    assert starts(lone, worker, 70) == [0]
    lone.enqueue(*[limited(rules=rules)] * 4)
    assert starts(lone, worker, 30) == [0, 0, 0, 10]


def test_what_was_used_up_of_a_rate_is_forgotten_when_it_does_not_matter_any_more(lone: LoneStore) -> None:
    worker = lone.worker()
    lone.enqueue(limited(rules=StartRules("k", 0, 1, 1000)))
    finish(lone, lone.take_grant(), worker)
    assert lone.store.query("limits", {}) == [
        {"key": "k", "holders": 0, "waiting": 0, "next_lt": lone.lt + 1000}
    ]
    assert lone.pass_time(999) == 0
    lone.pass_time(1)
    assert lone.store.query("limits", {}) == []
    assert lone.store.limiters.bytes == 0


def test_a_start_counts_whatever_becomes_of_the_job(lone: LoneStore) -> None:
    worker = lone.worker()
    lone.enqueue(limited(rules=StartRules("k", 0, 1, 100)))
    grant = lone.take_grant()
    lone.do(ReleaseJob(grant.job_id, grant.token), worker)
    assert tasks(lone) == []
    lone.pass_time(100)
    assert tasks(lone) == ["t"]


def test_a_job_without_a_rate_does_not_wait_for_that_of_others(lone: LoneStore) -> None:
    lone.worker(slots=5)
    lone.enqueue(limited("a", StartRules("k", 0, 1, 100)))
    lone.enqueue(limited("b", StartRules("k", 5)))
    assert tasks(lone) == ["a", "b"]


def test_limit_and_rate_must_both_be_kept(lone: LoneStore) -> None:
    worker = lone.worker(slots=5)
    lone.enqueue(*[limited(rules=StartRules("k", 1, 1, 10))] * 3)
    grant = lone.take_grant()
    lone.pass_time(50)
    assert tasks(lone) == []
    finish(lone, grant, worker)
    grant = lone.take_grant()
    finish(lone, grant, worker)
    assert tasks(lone) == []
    lone.pass_time(10)
    assert tasks(lone) == ["t"]


def test_keys_open_in_pieces_and_none_is_forgotten() -> None:
    lone = LoneStore(Limits(piece=2))
    lone.worker(slots=20)
    for number in range(5):
        rules = StartRules(f"k{number}", 0, 1, 100)
        lone.enqueue(limited(rules=rules), limited(rules=rules))
    assert len(lone.take_grants()) == 5
    lone.advance(100)
    lone.enqueue(NewJob("other"))
    assert len(lone.take_grants()) == 1 + 2
    lone.maintain()
    assert len(lone.take_grants()) == 3


def test_a_rate_that_allows_a_start_is_due_and_nothing_spins(lone: LoneStore) -> None:
    lone.worker(slots=5)
    lone.enqueue(*[limited(rules=StartRules("k", 0, 1, 100))] * 2)
    assert lone.store.next_due()[0] == lone.lt + 100
    assert lone.store.due(lone.lt + 99, lone.wt) == []
    assert lone.pass_time(100) == 1


# What people see, and what is refused ------------------------------------------------------------------------------


def test_a_job_says_which_limit_it_waits_for(lone: LoneStore) -> None:
    worker = lone.worker(slots=5)
    first, second = lone.enqueue(limited("a"), limited("b"))

    def waits(job_id: str) -> tuple[Any, Any, Any]:
        details: Any = lone.store.query("job_details", {"job_id": job_id})
        return details["state"], details["limit_key"], details["waits_for_limit"]

    assert waits(first) == ("Processing", "k", False)
    assert waits(second) == ("Enqueued", "k", True)
    finish(lone, lone.take_grant(), worker)
    assert waits(second) == ("Processing", "k", False)


def test_a_queue_is_listed_in_the_order_in_which_it_would_run_without_limits(lone: LoneStore) -> None:
    ids = lone.enqueue(limited("a"), NewJob("b"), limited("c", StartRules("l", 1)), limited("d"), NewJob("e"))
    (urgent,) = lone.enqueue(limited("f", priority=1))
    listed: Any = lone.store.query("enqueued_jobs", {"queue": "default"})
    assert [job_id for job_id, _ in listed] == [urgent, *ids]
    page: Any = lone.store.query("enqueued_jobs", {"queue": "default", "start": 1, "count": 2})
    assert [job_id for job_id, _ in page] == list(ids[:2])


def test_a_queue_with_nothing_but_waiting_jobs_has_nothing_to_fetch(lone: LoneStore) -> None:
    session = lone.open()
    lone.enqueue(limited("a"), limited("b"))
    assert lone.store.query("has_waiting", {"queues": ["default"]}) is True
    lone.do(FetchJobs(("default",), 5), session)
    assert lone.store.query("has_waiting", {"queues": ["default"]}) is False
    numbers: Any = lone.store.query("statistics", {})
    assert (numbers["queued"], numbers["limits"], numbers["limited"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (["k"], "limit key: goes with a limit or a rate"),
        (["", 1], "limit key: goes with a limit or a rate"),
        (["", 0, 1, 1000], "limit key: goes with a limit or a rate"),
        (["k", 0, 5], "rate: must be from 1 to as many starts"),
        (["k", 1, 0, 1000], "rate: must be from 1 to as many starts"),
        (["k", 0, 11, 10], "rate: must be from 1 to as many starts"),
        (["k", -1], "limit: must be a whole number"),
        (["k", 1, 1, 10, 0], "burst: must be a whole number from 1"),
        (["k" * 513, 1], "limit key: must be text of 0 to 512"),
        (["", 0, 0, 0, 1, -5], "duration: must be a whole number"),
        ([1], "limit key: must be text"),
        (7, "start rules: must be an array"),
    ],
)
def test_rules_out_of_bounds_are_refused(rules: Any, why: str) -> None:
    wire = encode(EnqueueJobs((limited(),)))
    wire[1][0][-1] = rules
    with pytest.raises(BadCommand, match=why):
        decode(wire)


def test_rules_come_back_from_the_wire_as_they_were() -> None:
    rules = StartRules("k", 2, 3, 1000, 4, 500, FIRST_WT)
    command = EnqueueJobs((limited(rules=rules),))
    assert decode(encode(command)) == command


def test_what_is_not_limited_is_written_as_before(lone: LoneStore) -> None:
    """What nobody uses costs no byte of a snapshot."""
    session = lone.open()
    lone.enqueue(NewJob("plain"), NewJob("other"))
    lone.do(FetchJobs(("default",), 1), session)
    (job,) = [job for job in lone.store.jobs.values() if job.spec.task == "plain"]
    (lease,) = lone.store.leases.values()
    assert len(job_row(job)[2]) == NewJob._fields.index("start")
    assert len(lease_row(lease)) == 1 + len(lease) - 1
