"""Jobs that must not start late: what counts, from when, and who ends them."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.jobs.commands import (
    AddToQueue,
    BadCommand,
    CompleteJob,
    FailJob,
    FetchJobs,
    FetchNext,
    ReleaseJob,
    RequeueJob,
    RescheduleJob,
    SetJobState,
    SetQueuePaused,
    SetRecurring,
    decode,
    encode,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob, RetryPolicy, StartRules
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

SOON = StartRules(within_ms=1000)
AT_ONCE = RetryPolicy(attempts=3, delays_ms=(0,))


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def reason(lone: LoneStore, job_id: str) -> tuple[str, str]:
    current = lone.job(job_id).current
    assert current is not None
    return current.name, current.reason


EXPIRED = ("Deleted", "expired: not started in time")


def test_a_job_that_nobody_took_in_time_is_deleted(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue(NewJob("t", start=SOON))
    assert lone.store.next_due()[1] == lone.wt + 1000
    lone.pass_time(999)
    assert lone.state(job_id) == "Enqueued"
    lone.pass_time(1)
    assert reason(lone, job_id) == EXPIRED
    assert lone.store.start_by == {}


def test_it_never_starts_late_also_when_nobody_has_ended_it_yet(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue(NewJob("t", start=SOON))
    lone.advance(1000)
    lone.worker()
    assert lone.take_grants() == []
    assert reason(lone, job_id) == EXPIRED


def test_it_starts_until_the_last_millisecond(lone: LoneStore) -> None:
    lone.enqueue(NewJob("t", start=SOON))
    lone.advance(999)
    lone.worker()
    assert lone.take_grant().task == "t"


def test_pulling_and_fetching_by_contract_start_nothing_late(lone: LoneStore) -> None:
    first, second, plain = lone.enqueue(NewJob("a", start=SOON), NewJob("b", start=SOON), NewJob("c"))
    session = lone.open()
    lone.advance(1000)
    lone.do(AddToQueue("other", first))
    assert lone.do(FetchNext(("other",))) is None
    assert lone.do(FetchJobs(("default",), 1), session)[0][0] == plain
    assert reason(lone, first) == reason(lone, second) == EXPIRED


def test_what_has_started_once_is_never_too_late_again(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", start=SOON, retry=AT_ONCE))
    grant = lone.take_grant()
    lone.pass_time(5000)
    lone.do(FailJob(job_id, grant.token, "E", "m", ""), worker)
    grant = lone.take_grant()
    lone.do(ReleaseJob(job_id, grant.token), worker)
    lone.do(CompleteJob(job_id, lone.take_grant().token), worker)
    assert lone.state(job_id) == "Succeeded"


def test_a_delayed_job_has_its_time_from_when_it_is_due(lone: LoneStore) -> None:
    """Also when nobody was there to enqueue it then."""
    (job_id,) = lone.enqueue(NewJob("t", start=SOON, delay_ms=5000))
    lone.pass_time(5999)
    assert lone.state(job_id) == "Enqueued"
    late = LoneStore()
    (other,) = late.enqueue(NewJob("t", start=SOON, delay_ms=5000))
    late.pass_time(6000)
    assert reason(late, other) == EXPIRED


def test_a_continuation_has_its_time_from_when_it_is_released(lone: LoneStore) -> None:
    worker = lone.worker("work")
    _, child = lone.enqueue(NewJob("a", queue="work"), NewJob("b", parent_id="#0", start=SOON))
    lone.pass_time(5000)
    grant = lone.take_grant()
    lone.do(CompleteJob(grant.job_id, grant.token), worker)
    lone.pass_time(999)
    assert lone.state(child) == "Enqueued"
    lone.pass_time(1)
    assert reason(lone, child) == EXPIRED


def test_an_instant_ends_it_whatever_it_waits_for(lone: LoneStore) -> None:
    rules = StartRules(by_wt=FIRST_WT + 1000)
    awaited, waiting, delayed, queued = lone.enqueue(
        NewJob("a"),
        NewJob("b", parent_id="#0", start=rules),
        NewJob("c", delay_ms=5000, start=rules),
        NewJob("d", start=rules),
    )
    lone.do(SetQueuePaused("default", paused=True))
    lone.pass_time(1000)
    assert [reason(lone, job_id) for job_id in (waiting, delayed, queued)] == [EXPIRED] * 3
    assert lone.state(awaited) == "Enqueued"


def test_the_sooner_of_both_counts(lone: LoneStore) -> None:
    first, second = lone.enqueue(
        NewJob("a", start=StartRules(within_ms=500, by_wt=FIRST_WT + 1000)),
        NewJob("b", start=StartRules(within_ms=1500, by_wt=FIRST_WT + 1000)),
    )
    lone.pass_time(500)
    assert (lone.state(first), lone.state(second)) == ("Deleted", "Enqueued")
    lone.pass_time(500)
    assert lone.state(second) == "Deleted"


def test_an_instant_that_has_passed_is_too_late_at_once(lone: LoneStore) -> None:
    lone.worker()
    (job_id,) = lone.enqueue(NewJob("t", start=StartRules(by_wt=1)))
    assert reason(lone, job_id) == EXPIRED


def test_whoever_waits_for_its_key_may_be_too_late(lone: LoneStore) -> None:
    worker = lone.worker(slots=5)
    rules = StartRules("k", 1, within_ms=1000)
    _, second, third = lone.enqueue(
        NewJob("a", start=rules), NewJob("b", start=rules), NewJob("c", start=StartRules("k", 1))
    )
    grant = lone.take_grant()
    lone.pass_time(1000)
    assert reason(lone, second) == EXPIRED
    lone.do(CompleteJob(grant.job_id, grant.token), worker)
    assert lone.take_grant().job_id == third


@pytest.mark.parametrize("command", [RequeueJob, RescheduleJob])
def test_what_is_moved_by_hand_may_start_at_any_time(lone: LoneStore, command: Any) -> None:
    expired, scheduled = lone.enqueue(NewJob("a", start=SOON), NewJob("b", start=SOON, delay_ms=60_000))
    lone.pass_time(1000)
    lone.do(command(expired))
    lone.do(command(scheduled))
    lone.pass_time(120_000)
    assert (lone.state(expired), lone.state(scheduled)) == ("Enqueued", "Enqueued")


def test_whoever_takes_a_job_over_decides_when_it_runs(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue(NewJob("t", start=SOON))
    lone.do(SetJobState(job_id, "Scheduled", "", ()))
    lone.pass_time(5000)
    assert lone.state(job_id) == "Scheduled"


def test_continuations_of_a_job_that_is_too_late_are_decided(lone: LoneStore) -> None:
    _, after_success, after_all = lone.enqueue(
        NewJob("a", start=SOON), NewJob("b", parent_id="#0"), NewJob("c", parent_id="#0", on="any")
    )
    lone.pass_time(1000)
    assert (lone.state(after_success), lone.state(after_all)) == ("Deleted", "Enqueued")


def test_its_unique_key_is_free_again(lone: LoneStore) -> None:
    (first,) = lone.enqueue(NewJob("t", start=SOON, unique_key="once"))
    lone.pass_time(1000)
    assert lone.enqueue(NewJob("t", unique_key="once")) != (first,)


def test_they_end_in_pieces_the_earliest_first() -> None:
    lone = LoneStore(Limits(piece=2))
    ids = lone.enqueue(*[NewJob("t", start=StartRules(within_ms=100 - at)) for at in range(5)])
    lone.advance(100)
    lone.entry()
    assert lone.maintain() == 3
    assert {lone.state(job_id) for job_id in ids} == {"Deleted"}
    assert next(iter(lone.store.index.states["Deleted"]))[1] == ids[4]


def test_people_see_until_when_it_may_start(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue(NewJob("t", start=SOON))
    details: Any = lone.store.query("job_details", {"job_id": job_id})
    assert details["start_by_wt"] == lone.wt + 1000
    lone.pass_time(1000)
    details = lone.store.query("job_details", {"job_id": job_id})
    assert (details["start_by_wt"], details["data"]) == (0, {"start_by_wt": FIRST_WT + 1000})


def test_a_recurring_job_counts_from_its_making_and_has_no_instant_that_is_too_late() -> None:
    kept = SetRecurring("nightly", NewJob("t", start=SOON), "0 0 * * *")
    assert decode(encode(kept)) == kept
    with pytest.raises(BadCommand, match="no instant at which it is too late"):
        decode(encode(SetRecurring("nightly", NewJob("t", start=StartRules(by_wt=1)), "0 0 * * *")))
