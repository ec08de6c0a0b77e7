"""Continuations: released by any end of their parent that meets their condition, deleted when none can, never orphaned."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorker.core.jobs.commands import (
    CompleteJob,
    CreateJob,
    DeleteJob,
    ExpireJob,
    FailJob,
    RequeueJob,
    SetJobState,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob, RetryPolicy
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

DAY = 24 * 3600 * 1000
CONDITIONS = ("success", "failure", "any", "deleted")


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore(Limits(max_lost_deliveries=1))


def family(lone: LoneStore) -> tuple[str, dict[str, str]]:
    """A parent on its own queue, and a child for every condition."""
    parent, *children = lone.enqueue(
        NewJob("parent", queue="parents", retry=RetryPolicy(0)),
        *[NewJob("child", parent_id="#0", on=on) for on in CONDITIONS],  # type: ignore[arg-type]  # literals
    )
    return parent, dict(zip(CONDITIONS, children, strict=True))


def succeed(lone: LoneStore, parent: str) -> None:
    worker = lone.worker("parents", ttl_ms=1000)
    lone.do(CompleteJob(parent, lone.take_grant().token), worker)


def fail(lone: LoneStore, parent: str) -> None:
    worker = lone.worker("parents", ttl_ms=1000)
    lone.do(FailJob(parent, lone.take_grant().token, "", "", ""), worker)


def delete(lone: LoneStore, parent: str) -> None:
    lone.do(DeleteJob(parent))


def quarantine(lone: LoneStore, parent: str) -> None:
    lone.worker("parents", ttl_ms=1000)
    lone.pass_time(1000)
    assert lone.state(parent) == "Quarantined"


def finish_by_contract(lone: LoneStore, parent: str) -> None:
    lone.do(SetJobState(parent, "Succeeded", "", ()))


ENDS: list[tuple[Callable[[LoneStore, str], None], str]] = [
    (succeed, "Enqueued Deleted Enqueued Deleted"),
    (fail, "Awaiting Enqueued Enqueued Awaiting"),
    (delete, "Deleted Deleted Enqueued Enqueued"),
    (quarantine, "Awaiting Enqueued Enqueued Awaiting"),
    (finish_by_contract, "Enqueued Deleted Enqueued Deleted"),
]


@pytest.mark.parametrize(("end", "states"), ENDS)
def test_every_end_decides_every_condition(
    lone: LoneStore, end: Callable[[LoneStore, str], None], states: str
) -> None:
    parent, children = family(lone)
    assert {lone.state(child) for child in children.values()} == {"Awaiting"}
    end(lone, parent)
    assert [lone.state(child) for child in children.values()] == states.split()


@pytest.mark.parametrize(("end", "states"), ENDS)
def test_a_child_of_an_ended_parent_is_decided_at_once(
    lone: LoneStore, end: Callable[[LoneStore, str], None], states: str
) -> None:
    parent, _ = family(lone)
    end(lone, parent)
    late = lone.enqueue(*[NewJob("late", parent_id=parent, on=on) for on in CONDITIONS])  # type: ignore[arg-type]  # literals
    assert [lone.state(child) for child in late] == states.split()


def test_children_run_in_the_apply_that_ended_their_parent(lone: LoneStore) -> None:
    worker = lone.worker(slots=2)
    parent, child = lone.enqueue(NewJob("parent"), NewJob("child", parent_id="#0"))
    lone.do(CompleteJob(parent, lone.take_grant().token), worker)
    assert lone.take_grant().job_id == child
    assert [record.name for record in lone.job(child).history] == ["Awaiting", "Enqueued", "Processing"]


def test_a_delayed_continuation_is_scheduled_from_its_release(lone: LoneStore) -> None:
    parent, child = lone.enqueue(
        NewJob("parent", queue="parents"), NewJob("child", parent_id="#0", delay_ms=500)
    )
    lone.advance(100)
    succeed(lone, parent)
    assert (lone.state(child), lone.job(child).due_wt) == ("Scheduled", FIRST_WT + 600)


def test_a_chain_in_one_command(lone: LoneStore) -> None:
    worker = lone.worker()
    ids = lone.enqueue(NewJob("a"), NewJob("b", parent_id="#0"), NewJob("c", parent_id="#1"))
    order: list[str] = []
    for _ in ids:
        grant = lone.take_grant()
        order.append(grant.job_id)
        lone.do(CompleteJob(grant.job_id, grant.token), worker)
    assert order == list(ids)


def test_deletion_runs_down_a_chain(lone: LoneStore) -> None:
    ids = lone.enqueue(NewJob("a"), *[NewJob("b", parent_id=f"#{number}") for number in range(5)])
    lone.do(DeleteJob(ids[0]))
    assert {lone.state(each) for each in ids} == {"Deleted"}


def test_what_waits_for_the_success_of_a_failure_runs_after_a_requeue(lone: LoneStore) -> None:
    parent, children = family(lone)
    fail(lone, parent)
    lone.do(RequeueJob(parent))
    grant = lone.take_grant()
    lone.do(CompleteJob(parent, grant.token))
    assert lone.state(children["success"]) == "Enqueued"
    assert lone.state(children["deleted"]) == "Deleted"


def test_eviction_of_a_failed_parent_deletes_what_still_waits(lone: LoneStore) -> None:
    parent, children = family(lone)
    fail(lone, parent)
    lone.pass_time(7 * DAY)
    assert parent not in lone.store.jobs
    assert lone.state(children["success"]) == lone.state(children["deleted"]) == "Deleted"
    assert lone.store.index.children == {}


def test_eviction_of_a_parent_that_never_ran_deletes_what_waits(lone: LoneStore) -> None:
    lone.do(CreateJob("parent", "t", b"", "default", (), 10**9))
    (child,) = lone.enqueue(NewJob("child", parent_id="parent"))
    lone.do(ExpireJob("parent", 10))
    lone.pass_time(10)
    assert lone.state(child) == "Deleted"


def test_a_child_can_be_taken_out_of_the_line_by_hand(lone: LoneStore) -> None:
    parent, children = family(lone)
    lone.do(RequeueJob(children["success"]))
    lone.do(DeleteJob(children["any"]))
    succeed(lone, parent)
    assert lone.state(children["success"]) == "Enqueued"
    assert lone.state(children["any"]) == "Deleted"
    assert lone.store.queues["default"].length == 1


def test_many_continuations_are_released_in_pieces() -> None:
    lone = LoneStore(Limits(piece=10))
    parent, *children = lone.enqueue(NewJob("p", queue="parents"), *[NewJob("c", parent_id="#0")] * 35)
    succeed(lone, parent)
    assert [lone.state(child) for child in children].count("Enqueued") == 10
    assert list(lone.store.unresolved) == [parent]
    lone.maintain()
    assert {lone.state(child) for child in children} == {"Enqueued"}
    assert lone.store.unresolved == {}


def test_a_long_chain_is_deleted_in_pieces_without_recursion() -> None:
    lone = LoneStore(Limits(piece=7), careful=False)
    ids = lone.enqueue(NewJob("a"), *[NewJob("b", parent_id=f"#{number}") for number in range(900)])
    lone.do(DeleteJob(ids[0]))
    assert lone.state(ids[20]) == "Awaiting"
    lone.maintain()
    assert {lone.state(each) for each in ids} == {"Deleted"}


def test_a_parent_with_undecided_pieces_is_not_evicted_before_they_are_decided() -> None:
    lone = LoneStore(Limits(piece=5, succeeded_ttl_ms=0))
    parent, *children = lone.enqueue(NewJob("p", queue="parents"), *[NewJob("c", parent_id="#0")] * 30)
    succeed(lone, parent)
    lone.pass_time(10)
    assert parent not in lone.store.jobs
    assert {lone.state(child) for child in children} == {"Enqueued"}


def test_a_revived_parent_takes_back_what_was_not_yet_decided() -> None:
    lone = LoneStore(Limits(piece=5))
    parent, *children = lone.enqueue(NewJob("p", queue="parents"), *[NewJob("c", parent_id="#0")] * 20)
    succeed(lone, parent)
    lone.do(RequeueJob(parent))
    lone.maintain()
    states = [lone.state(child) for child in children]
    assert states.count("Awaiting") > 0
    assert lone.store.unresolved == {}


def test_a_parent_that_stands_for_an_evicted_unique_job_deletes_its_child(lone: LoneStore) -> None:
    spec = NewJob("p", unique_key="k", unique_ms=3 * DAY)
    (first,) = lone.enqueue(spec)
    lone.do(DeleteJob(first))
    lone.pass_time(DAY)
    again, child = lone.enqueue(spec, NewJob("c", parent_id="#0"))
    assert again == first
    assert lone.state(child) == "Deleted"


def test_a_continuation_that_is_put_back_into_the_line_is_decided_again(lone: LoneStore) -> None:
    parent, children = family(lone)
    succeed(lone, parent)
    lone.do(SetJobState(children["success"], "Awaiting", "", ()))
    assert lone.state(children["success"]) == "Enqueued"
