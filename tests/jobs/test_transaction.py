"""Batches of contract operations: all or nothing, in order, each with its value."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.jobs.commands import (
    AckFetched,
    AddToQueue,
    AddToSet,
    Batch,
    ContractCommand,
    CreateJob,
    ExpireJob,
    FetchNext,
    HashFieldIs,
    IncrementCounter,
    JobInState,
    JobMissing,
    LeaseHeld,
    LockHeld,
    Precondition,
    SetHolds,
    SetJobState,
    SetRangeInHash,
    TryLock,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.store import HANDLERS
from quorker.core.jobs.transaction import contract_op
from quorker.sim.bare.lone_store import LoneStore


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def create(job_id: str) -> CreateJob:
    return CreateJob(job_id, "t", b"", "default", (), 10**6)


def batch(lone: LoneStore, *ops: ContractCommand, given: tuple[Precondition, ...] = ()) -> Any:
    return lone.reply(Batch(given, ops))


def test_every_operation_returns_its_value_in_order(lone: LoneStore) -> None:
    values = lone.do(
        Batch(
            (),
            (
                create("a"),
                SetJobState("a", "Enqueued", "", ()),
                AddToQueue("default", "a"),
                IncrementCounter("k", 5),
                SetJobState("ghost", "X", "", ()),
                TryLock("r", "me", 100),
                FetchNext(("default",)),
            ),
        )
    )
    assert values[:5] == ("a", True, None, 5, False)
    token = values[6][2]
    assert values[6][:2] == ("a", "default")
    assert values[5] < token


def test_operations_see_what_those_before_them_did(lone: LoneStore) -> None:
    _, made = lone.do(Batch((), (IncrementCounter("k", 1), IncrementCounter("k", 1))))
    assert made == 2


def test_an_empty_batch_is_fine(lone: LoneStore) -> None:
    assert lone.do(Batch((), ())) == ()


def test_a_failed_precondition_leaves_nothing_behind(lone: LoneStore) -> None:
    before = lone.store.collections.freeze()
    reply = batch(lone, create("a"), AddToSet("s", "v"), given=(JobMissing("b"), JobInState("a", ("",))))
    assert reply[:2] == (1, "precondition_failed")
    assert reply[2].startswith("1: ")
    assert lone.store.jobs == {}
    assert lone.store.collections.freeze() == before


def prepared(lone: LoneStore) -> tuple[int, int]:
    """A job in a state, a hash, a set; the tokens of a lock and of a lease."""
    lone.do(
        Batch(
            (), (create("a"), SetJobState("a", "Enqueued", "", ()), AddToQueue("default", "a"), create("b"))
        )
    )
    lone.do(Batch((), (SetRangeInHash("h", (("f", "v"), ("null", None))), AddToSet("s", "v"))))
    lock = lone.do(TryLock("r", "me", 100))
    return lock, lone.do(FetchNext(("default",)))[2]


def test_preconditions_that_hold(lone: LoneStore) -> None:
    lock, lease = prepared(lone)
    holding: tuple[Precondition, ...] = (
        JobInState("a", ("Processing", "Enqueued")),
        JobInState("b", ("",)),
        JobMissing("c"),
        LockHeld("r", lock),
        LeaseHeld(lease),
        HashFieldIs("h", "f", "v"),
        HashFieldIs("h", "null", None),
        HashFieldIs("h", "none", None),
        HashFieldIs("no", "none", None),
        SetHolds("s", "v"),
        SetHolds("s", "w", False),
        SetHolds("no", "v", False),
    )
    assert batch(lone, given=holding) == (0, ())


def test_preconditions_that_do_not_hold(lone: LoneStore) -> None:
    lock, lease = prepared(lone)
    failing: tuple[Precondition, ...] = (
        JobInState("a", ("Processing",)),
        JobInState("c", ("",)),
        JobMissing("a"),
        LockHeld("r", lock + 1),
        LockHeld("s", lock),
        LeaseHeld(lease + 1),
        HashFieldIs("h", "f", "w"),
        HashFieldIs("h", "f", None),
        SetHolds("s", "w"),
        SetHolds("s", "v", False),
    )
    for precondition in failing:
        assert batch(lone, create("c"), given=(precondition,))[1] == "precondition_failed", precondition
    assert "c" not in lone.store.jobs
    lone.do(AckFetched(lease))
    assert batch(lone, given=(LeaseHeld(lease),))[1] == "precondition_failed"


def test_a_lock_past_its_time_does_not_count_as_held(lone: LoneStore) -> None:
    lock, _ = prepared(lone)
    lone.advance(100)
    assert batch(lone, given=(LockHeld("r", lock),))[1] == "precondition_failed"


def test_a_batch_with_a_bad_operation_is_refused_as_a_whole(lone: LoneStore) -> None:
    """Whatever is out of bounds is found before anything is done."""
    bad = AddToSet("", "v")
    assert batch(lone, create("a"), bad)[1] == "bad_command"
    assert lone.store.jobs == {}


def test_a_batch_without_room_for_all_its_jobs_makes_none() -> None:
    lone = LoneStore(Limits(max_jobs=1))
    assert batch(lone, AddToSet("s", "v"), create("a"), create("b"))[1] == "store_full"
    assert lone.store.jobs == {}
    assert lone.store.collections.sets.size("s") == 0


def test_a_batch_without_room_for_its_queues_does_nothing() -> None:
    lone = LoneStore(Limits(max_queues=1))
    assert batch(lone, create("a"), AddToQueue("one", "a"), AddToQueue("two", "a"))[1] == "store_full"
    assert lone.store.jobs == {}


def test_finishing_by_contract_goes_on_in_a_full_store() -> None:
    lone = LoneStore(Limits(max_state_bytes=500))
    lone.do(create("a"))
    done = (SetJobState("a", "Succeeded", "", ()), IncrementCounter("stats:succeeded", 1), ExpireJob("a", 5))
    assert batch(lone, *done)[0] == 0
    assert lone.reply(create("b"))[1] == "store_full"


def test_the_detail_of_a_failed_precondition_is_bounded(lone: LoneStore) -> None:
    reply = batch(lone, given=(HashFieldIs("h", "f", "v" * 200_000),))
    assert len(reply[2]) <= 1000


def test_contract_operations_go_through_one_door() -> None:
    assert all(HANDLERS[op] is contract_op for op in range(1, 35))
