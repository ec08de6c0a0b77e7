"""Batches of jobs: made as a whole, counted as their members end, and followed by callbacks that fire once."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.errors import Rejected
from quorker.core.jobs.bounds import ON
from quorker.core.jobs.commands import (
    BadCommand,
    CancelBatch,
    CloseSession,
    CompleteJob,
    CreateJob,
    DeleteJob,
    EnqueueBatch,
    EnqueueJobs,
    ExpireJob,
    FailJob,
    RequeueJob,
    SetJobState,
    decode,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob, RetryPolicy, grant_from_wire, grant_to_wire
from quorker.core.jobs.records import JobBatch
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

DAY = 24 * 3600 * 1000
ONCE = RetryPolicy(0)
CONDITIONS: tuple[ON, ...] = ("success", "failure", "any")
MEMBER = NewJob("member", queue="members", retry=ONCE)


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore(Limits(max_lost_deliveries=1))


class Made:
    """A batch with a callback for each condition."""

    def __init__(self, lone: LoneStore, *members: NewJob, conditions: tuple[ON, ...] = CONDITIONS) -> None:
        callbacks = tuple([NewJob("callback", queue="callbacks", on=on) for on in conditions])
        self._lone = lone
        self.id, self.members, self.callbacks = lone.do(EnqueueBatch("import", members, callbacks))

    @property
    def batch(self) -> JobBatch:
        return self._lone.store.batches[self.id]

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        each = self.batch
        return each.pending, each.succeeded, each.failed, each.deleted, each.quarantined

    @property
    def callback_states(self) -> str:
        """Of those for success, for failure, for any end."""
        return " ".join(self._lone.state(job_id) for job_id in self.callbacks)

    def read(self) -> Any:
        return self._lone.store.query("batch", {"batch_id": self.id})


def run(lone: LoneStore, *, well: bool = True, queue: str = "members") -> str:
    """Work off the first job of the queue, by a worker that goes home then."""
    session = lone.worker(queue)
    grant = lone.take_grant()
    report = (
        CompleteJob(grant.job_id, grant.token) if well else FailJob(grant.job_id, grant.token, "E", "", "")
    )
    lone.entry((session, report), (session, CloseSession()))
    return grant.job_id


# --- making ---


def test_a_batch_is_made_with_its_members_and_callbacks(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, MEMBER._replace(delay_ms=5))
    assert made.batch.name == "import"
    assert (made.batch.state, made.batch.total, made.counts) == ("Pending", 2, (2, 0, 0, 0, 0))
    assert (made.batch.created_wt, made.batch.completed_wt) == (FIRST_WT, 0)
    assert made.batch.callbacks == made.callbacks
    assert [lone.state(each) for each in made.members] == ["Enqueued", "Scheduled"]
    assert {lone.job(each).spec.batch_id for each in made.members} == {made.id}
    assert made.callback_states == "Awaiting Awaiting Awaiting"


def test_a_batch_without_members_has_succeeded(lone: LoneStore) -> None:
    made = Made(lone)
    assert made.batch.state == "Succeeded"
    assert made.callback_states == "Enqueued Deleted Enqueued"


def test_members_may_wait_for_members_and_for_jobs(lone: LoneStore) -> None:
    (before,) = lone.enqueue(NewJob("before", queue="before"))
    made = Made(lone, MEMBER, MEMBER._replace(parent_id="#0"), MEMBER._replace(parent_id=before))
    assert [lone.state(each) for each in made.members] == ["Enqueued", "Awaiting", "Awaiting"]
    lone.do(DeleteJob(before))
    assert made.counts == (2, 0, 0, 1, 0)


def test_members_that_are_hopeless_at_birth_are_counted(lone: LoneStore) -> None:
    (before,) = lone.enqueue(NewJob("before", queue="before"))
    lone.do(DeleteJob(before))
    made = Made(lone, MEMBER._replace(parent_id=before), MEMBER._replace(parent_id=before))
    assert (made.batch.state, made.counts) == ("Failed", (0, 0, 0, 2, 0))
    assert made.callback_states == "Awaiting Enqueued Enqueued"


REFUSED: list[tuple[EnqueueBatch, str]] = [
    (EnqueueBatch("b", (MEMBER, MEMBER._replace(parent_id="ghost"))), "not_found"),
    (EnqueueBatch("b", (MEMBER._replace(parent_id="#0"),)), "not_found"),
    (EnqueueBatch("b", (MEMBER, MEMBER._replace(unique_key="k"))), "key_held"),
    (EnqueueBatch("b", (MEMBER,), (NewJob("c", unique_key="k"),)), "key_held"),
    (EnqueueBatch("b", (MEMBER._replace(unique_key="n"), MEMBER._replace(unique_key="n"))), "key_held"),
    (EnqueueBatch("b", (MEMBER,) * 4), "store_full"),
    (EnqueueBatch("b", (MEMBER,) * 3, (NewJob("c"),)), "store_full"),
    (EnqueueBatch("b", (MEMBER, MEMBER._replace(queue="fresh")), (NewJob("c", queue="too"),)), "store_full"),
]


@pytest.mark.parametrize(("command", "reason"), REFUSED)
def test_a_refused_batch_leaves_nothing(command: EnqueueBatch, reason: str) -> None:
    lone = LoneStore(Limits(max_jobs=4, max_queues=2))
    lone.enqueue(NewJob("holder", queue="members", unique_key="k"))
    before = lone.store.query("statistics", {})
    reply = lone.reply(command)
    assert reply[:2] == (1, reason)
    assert lone.store.query("statistics", {}) == before
    assert (len(lone.store.batches), len(lone.store.jobs)) == (0, 1)


def test_a_key_that_has_expired_does_not_stand_in_the_way(lone: LoneStore) -> None:
    lone.enqueue(NewJob("holder", unique_key="k", unique_ms=100))
    lone.advance(100)
    assert Made(lone, MEMBER._replace(unique_key="k")).batch.total == 1


def test_there_is_a_limit_to_batches() -> None:
    lone = LoneStore(Limits(max_batches=1))
    Made(lone, MEMBER)
    with pytest.raises(Rejected, match="1 batches of 1"):
        Made(lone, MEMBER)


MALFORMED: list[Any] = [
    [89, "", []],
    [89, "n" * 201, []],
    [89, "n", [["a"]] * 1001],
    [89, "n", [], [["a"]] * 17],
    [89, "n", [["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "success", [], [], 0, "0000000000001"]]],
    [89, "n", [], [["a", b"", "q", 0, 0, None, 0, None, "", 0, "0000000000001"]]],
    [89, "n", [], [["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "deleted"]]],
    [90, ""],
    [90, "0000000000001", -1],
    [90, "batch#0000000"],
]


@pytest.mark.parametrize("wire", MALFORMED)
def test_what_is_malformed_is_refused(wire: Any) -> None:
    with pytest.raises(BadCommand):
        decode(wire)


# --- ending ---


def test_success_fires_when_the_last_member_has_succeeded(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, MEMBER)
    run(lone)
    assert made.callback_states == "Awaiting Awaiting Awaiting"
    run(lone)
    assert (made.batch.state, made.counts) == ("Succeeded", (0, 2, 0, 0, 0))
    assert made.callback_states == "Enqueued Deleted Enqueued"
    assert made.batch.completed_wt == lone.job(made.callbacks[0]).history[-1].at_wt


def test_a_failure_lets_success_wait_and_failure_fire_when_all_have_ended(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, MEMBER)
    run(lone, well=False)
    assert made.callback_states == "Awaiting Awaiting Awaiting"
    run(lone)
    assert (made.batch.state, made.counts) == ("Failed", (0, 1, 1, 0, 0))
    assert made.callback_states == "Awaiting Enqueued Enqueued"


def test_a_retry_is_no_end(lone: LoneStore) -> None:
    made = Made(lone, MEMBER._replace(retry=RetryPolicy(1, (10,))))
    session = lone.worker("members")
    grant = lone.take_grant()
    lone.do(FailJob(grant.job_id, grant.token, "E", "", ""), session)
    assert made.counts == (1, 0, 0, 0, 0)
    lone.pass_time(10)
    lone.do(CompleteJob(grant.job_id, lone.take_grant().token), session)
    assert made.batch.state == "Succeeded"


def test_a_failed_member_that_succeeds_by_hand_lets_success_fire_and_nothing_fires_twice(
    lone: LoneStore,
) -> None:
    made = Made(lone, MEMBER)
    failed = run(lone, well=False)
    assert made.callback_states == "Awaiting Enqueued Enqueued"
    lone.do(RequeueJob(failed))
    assert (made.batch.state, made.counts, made.batch.completed_wt) == ("Pending", (1, 0, 0, 0, 0), 0)
    run(lone)
    assert made.batch.state == "Succeeded"
    assert made.callback_states == "Enqueued Enqueued Enqueued"
    assert [len(lone.job(each).history) for each in made.callbacks] == [2, 2, 2]


def test_a_deleted_or_quarantined_member_is_no_success(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, MEMBER)
    lone.do(DeleteJob(made.members[0]))
    lone.worker("members", ttl_ms=1000)
    lone.pass_time(1000)
    assert (made.batch.state, made.counts) == ("Failed", (0, 0, 0, 1, 1))
    assert made.callback_states == "Awaiting Enqueued Enqueued"


def test_a_member_that_is_revived_in_the_same_entry_has_not_ended(lone: LoneStore) -> None:
    made = Made(lone, MEMBER)
    lone.entry((0, DeleteJob(made.members[0])), (0, RequeueJob(made.members[0])))
    assert made.callback_states == "Awaiting Awaiting Awaiting"
    run(lone)
    assert made.callback_states == "Enqueued Deleted Enqueued"


def test_a_success_that_is_deleted_counts_as_deleted(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, MEMBER)
    lone.do(DeleteJob(run(lone)))
    run(lone)
    assert (made.batch.state, made.counts) == ("Failed", (0, 1, 0, 1, 0))


def test_members_may_be_ended_by_contract(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, MEMBER, MEMBER)
    for job_id, state in zip(made.members, ("Succeeded", "Failed", "Odd"), strict=True):
        lone.do(SetJobState(job_id, state, "", ()))
    assert made.counts == (1, 1, 1, 0, 0)
    lone.do(SetJobState(made.members[2], "Quarantined", "", ()))
    assert made.callback_states == "Awaiting Enqueued Enqueued"


def test_a_callback_that_is_put_back_in_line_by_contract_is_decided_like_the_others(lone: LoneStore) -> None:
    made = Made(lone, MEMBER)
    run(lone)
    lone.do(SetJobState(made.callbacks[0], "Awaiting", "", ()))
    assert lone.state(made.callbacks[0]) == "Enqueued"


def test_a_member_that_vanishes_before_its_end_counts_as_deleted(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, MEMBER)
    lone.do(ExpireJob(made.members[0], 10))
    lone.pass_time(10)
    assert made.counts == (1, 0, 0, 1, 0)
    lone.do(CreateJob(made.members[1], "another", b"", "members", (), 1000))
    assert made.counts == (0, 0, 0, 2, 0)
    lone.do(SetJobState(made.members[1], "Succeeded", "", ()))
    assert made.counts == (0, 0, 0, 2, 0)  # it is somebody else's now


# --- those that wait ---


def test_any_job_may_wait_for_a_batch(lone: LoneStore) -> None:
    made = Made(lone, MEMBER)
    (waiting,) = lone.enqueue(NewJob("after", queue="after", parent_id=made.batch.reference))
    details: Any = lone.store.query("job_details", {"job_id": waiting})
    assert details["parent"] == {"id": made.batch.reference, "state": "Pending"}
    run(lone)
    assert lone.state(waiting) == "Enqueued"
    late, hopeless = lone.enqueue(
        NewJob("late", queue="after", parent_id=made.batch.reference),
        NewJob("late", queue="after", parent_id=made.batch.reference, on="failure"),
    )
    assert (lone.state(late), lone.state(hopeless)) == ("Enqueued", "Deleted")


def test_nobody_waits_for_a_batch_that_is_not_there_or_to_be_deleted(lone: LoneStore) -> None:
    made = Made(lone, MEMBER)
    assert lone.reply(EnqueueJobs((NewJob("a", parent_id="batch#0000000000001"),)))[1] == "not_found"
    never = NewJob("a", parent_id=made.batch.reference, on="deleted")
    assert lone.reply(EnqueueJobs((never,)))[1] == "wrong_condition"


def test_a_batch_may_wait_for_a_batch(lone: LoneStore) -> None:
    first = Made(lone, MEMBER)
    second = Made(lone, MEMBER._replace(queue="after", parent_id=first.batch.reference))
    run(lone)
    assert lone.state(second.members[0]) == "Enqueued"
    run(lone, queue="after")
    assert second.batch.state == "Succeeded"


def test_callbacks_are_resolved_in_pieces() -> None:
    lone = LoneStore(Limits(piece=2))
    made = Made(lone, MEMBER, conditions=("success",) * 5)
    session = lone.worker("members")
    lone.do(CompleteJob(made.members[0], lone.take_grant().token), session)
    assert made.callback_states.count("Enqueued") == 2
    assert lone.maintain() > 0
    assert made.callback_states.count("Enqueued") == 5


# --- joining ---


def test_a_job_may_join_a_batch_until_it_has_ended(lone: LoneStore) -> None:
    made = Made(lone, MEMBER)
    joins = MEMBER._replace(batch_id=made.id)
    lone.enqueue(joins, NewJob("other"), joins)
    assert made.counts == (3, 0, 0, 0, 0)
    for _ in range(3):
        run(lone)
    assert made.batch.state == "Succeeded"
    assert lone.reply(EnqueueJobs((joins,))) == (1, "batch_ended", f"batch {made.id} is Succeeded")
    assert lone.reply(EnqueueJobs((joins._replace(batch_id="0000000000001"),)))[1] == "not_found"


def test_who_joins_has_no_key_that_is_held_and_does_not_wait_for_its_own_batch(lone: LoneStore) -> None:
    made = Made(lone, MEMBER._replace(unique_key="k"))
    lone.enqueue(NewJob("other", unique_key="o"))
    joins = MEMBER._replace(batch_id=made.id)
    assert lone.reply(EnqueueJobs((joins, joins._replace(unique_key="o"))))[1] == "key_held"
    itself = joins._replace(parent_id=made.batch.reference)
    assert lone.reply(EnqueueJobs((itself,)))[1] == "waits_for_itself"
    assert made.counts == (1, 0, 0, 0, 0)


def test_who_joins_may_be_stood_for_by_a_member_of_the_same_batch(lone: LoneStore) -> None:
    made, other = Made(lone, MEMBER._replace(unique_key="k")), Made(lone, MEMBER)
    joins = MEMBER._replace(batch_id=made.id)
    again = (joins._replace(unique_key="k"), joins._replace(unique_key="n"), joins._replace(unique_key="n"))
    first, second, third = lone.enqueue(*again)
    assert (first, second) == (made.members[0], third)
    assert made.counts == (2, 0, 0, 0, 0)
    assert lone.enqueue(*again) == (first, second, third)
    elsewhere = MEMBER._replace(batch_id=other.id, unique_key="n")
    assert lone.reply(EnqueueJobs((elsewhere,)))[1] == "key_held"
    both = (joins._replace(unique_key="x"), elsewhere._replace(unique_key="x"))
    assert lone.reply(EnqueueJobs(both))[1] == "key_held"
    assert (made.counts, other.counts) == ((2, 0, 0, 0, 0), (1, 0, 0, 0, 0))


def test_a_running_member_is_told_its_batch(lone: LoneStore) -> None:
    made = Made(lone, MEMBER)
    lone.worker("members")
    grant = lone.take_grant()
    assert grant.batch_id == made.id
    assert grant_from_wire(grant_to_wire(grant)) == grant
    plain = grant._replace(batch_id="")
    assert len(grant_to_wire(plain)) == len(plain) - 1
    assert grant_from_wire(grant_to_wire(plain)) == plain


# --- calling off ---


def test_a_batch_is_called_off_in_pieces() -> None:
    lone = LoneStore(Limits(piece=2))
    made = Made(lone, MEMBER, MEMBER, MEMBER, MEMBER, MEMBER)
    run(lone)
    lone.worker("members")
    assert lone.take_grant().job_id == made.members[1]
    deleted, after = lone.do(CancelBatch(made.id))
    assert (deleted, [each.job_id for each in lone.take_cancels()]) == (1, [made.members[1]])
    deleted, after = lone.do(CancelBatch(made.id, after))
    assert deleted == 2
    assert lone.do(CancelBatch(made.id, after)) == (1, None)
    assert made.counts == (0, 1, 0, 4, 0)
    lone.maintain()
    assert made.callback_states == "Awaiting Enqueued Enqueued"


def test_what_is_not_there_is_not_called_off(lone: LoneStore) -> None:
    assert lone.reply(CancelBatch("0000000000001"))[1] == "not_found"


# --- expiring ---


def test_members_that_expire_stay_in_the_count() -> None:
    lone = LoneStore(Limits(succeeded_ttl_ms=1000, failed_ttl_ms=10 * DAY))
    made = Made(lone, MEMBER, MEMBER)
    run(lone)
    lone.pass_time(1000)
    run(lone, well=False)
    assert made.counts == (0, 1, 1, 0, 0)
    assert made.members[0] not in lone.store.jobs


def test_a_batch_expires_after_its_end_and_what_waits_for_it_is_deleted() -> None:
    lone = LoneStore(Limits(succeeded_ttl_ms=DAY, failed_ttl_ms=2 * DAY, piece=2))
    made = Made(lone, MEMBER, conditions=("success",) * 3)
    run(lone, well=False)
    lone.pass_time(2 * DAY - 1)
    assert made.callback_states == "Awaiting Awaiting Awaiting"
    lone.pass_time(1)
    assert made.id not in lone.store.batches
    assert made.callback_states == "Deleted Deleted Deleted"
    assert lone.store.query("batch", {"batch_id": made.id}) is None


def test_a_batch_that_succeeded_expires_sooner_and_one_that_is_pending_never() -> None:
    lone = LoneStore(Limits(succeeded_ttl_ms=DAY, failed_ttl_ms=2 * DAY))
    pending, made = Made(lone, MEMBER._replace(queue="never")), Made(lone, MEMBER)
    run(lone)
    lone.pass_time(DAY)
    assert list(lone.store.batches) == [pending.id]
    lone.pass_time(100 * DAY)
    assert list(lone.store.batches) == [pending.id]
    lone.do(SetJobState(made.callbacks[0], "Awaiting", "", ()))  # the batch is gone: it waits for nothing
    assert lone.state(made.callbacks[0]) == "Awaiting"


def test_a_member_that_outlives_its_batch_changes_nothing() -> None:
    lone = LoneStore(Limits(succeeded_ttl_ms=DAY))
    made = Made(lone, MEMBER._replace(retention_ms=3 * DAY))
    run(lone)
    lone.pass_time(2 * DAY)
    assert not lone.store.batches
    lone.do(RequeueJob(made.members[0]))
    assert run(lone) == made.members[0]
    page: Any = lone.store.query("jobs_by_batch", {"batch_id": made.id})
    assert [row["id"] for row in page["rows"]] == [made.members[0]]


# --- reading ---


def test_a_batch_is_read_with_its_callbacks(lone: LoneStore) -> None:
    made = Made(lone, MEMBER, conditions=("success",))
    run(lone)
    told = made.read()
    assert (told["name"], told["state"], told["total"], told["succeeded"]) == ("import", "Succeeded", 1, 1)
    assert told["callbacks"] == [
        {"id": made.callbacks[0], "task": "callback", "on": "success", "state": "Enqueued"}
    ]
    assert told["expires_in_ms"] == DAY
    lone.do(ExpireJob(made.callbacks[0], 10))
    lone.pass_time(10)
    assert made.read()["callbacks"][0]["state"] is None


def test_batches_and_members_come_in_pages(lone: LoneStore) -> None:
    ids = [Made(lone, MEMBER, MEMBER, MEMBER).id for _ in range(5)]
    first: Any = lone.store.query("batches", {"count": 2})
    assert [row["id"] for row in first["rows"]] == ids[:2:-1]
    assert first["total"] == 5
    second: Any = lone.store.query("batches", {"count": 4, "after": first["next"]})
    assert ([row["id"] for row in second["rows"]], second["next"]) == (ids[2::-1], None)
    oldest: Any = lone.store.query("batches", {"count": 2, "newest_first": False, "start": 1})
    assert [row["id"] for row in oldest["rows"]] == ids[1:3]
    members: Any = lone.store.query("jobs_by_batch", {"batch_id": ids[1], "count": 2, "newest_first": False})
    rest: Any = lone.store.query(
        "jobs_by_batch", {"batch_id": ids[1], "newest_first": False, "after": members["next"]}
    )
    assert (len(members["rows"]), len(rest["rows"]), members["total"]) == (2, 1, 3)
