"""Contract operations on jobs, queues and fetched jobs, one behaviour each. Every test also runs on a restored twin."""

from __future__ import annotations

import pytest

from quorker.core.jobs.commands import (
    AckFetched,
    AddJobState,
    AddToQueue,
    CompleteJob,
    CreateJob,
    ExpireJob,
    FetchNext,
    Maintain,
    PersistJob,
    RenewFetched,
    RequeueFetched,
    SetJobParameter,
    SetJobState,
    SetQueuePaused,
)
from quorker.core.jobs.jobs_contract import CONTRACT_HANDLERS
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

MONTH = 30 * 24 * 3600 * 1000
MINUTE = 60_000


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def create(lone: LoneStore, job_id: str = "", expire_in_ms: int = MONTH) -> str:
    return str(lone.do(CreateJob(job_id, "task", b"args", "default", (), expire_in_ms)))


def queued(lone: LoneStore, *job_ids: str, queue: str = "default") -> None:
    for job_id in job_ids:
        create(lone, job_id)
        lone.do(AddToQueue(queue, job_id))


def ids_in(lone: LoneStore, state: str, *, newest_first: bool = False) -> list[str]:
    timeline = lone.store.index.states.get(state)
    return timeline.page(0, 100, newest_first) if timeline else []


def fetch(lone: LoneStore, *queues: str, session: int = 0) -> tuple[str, str, int]:
    job_id, queue, token = lone.do(FetchNext(queues or ("default",)), session)
    return job_id, queue, token


# --- jobs ---


def test_create_stores_payload_parameters_and_expiry_without_a_state(lone: LoneStore) -> None:
    lone.advance(5)
    parameters = (("Culture", "de"), ("Empty", None))
    assert lone.do(CreateJob("mine", "task", b"payload", "low", parameters, 100)) == "mine"
    job = lone.job("mine")
    assert (job.spec.task, job.spec.args, job.spec.queue) == ("task", b"payload", "low")
    assert (job.created_wt, job.expires_lt, job.parameters) == (FIRST_WT + 5, 105, parameters)
    assert (job.state, job.current, job.history) == ("", None, ())


def test_create_makes_an_id_that_no_job_has(lone: LoneStore) -> None:
    upcoming = create(LoneStore())
    create(lone, upcoming[:-1] + "9")
    made = {create(lone) for _ in range(3)}
    assert len(made) == 3
    assert all(len(job_id) == 13 for job_id in made)


def test_a_made_id_steps_aside_for_one_that_was_brought() -> None:
    preview = LoneStore()
    create(preview, "a")
    expected = create(preview)
    lone = LoneStore()
    create(lone, expected)
    assert create(lone) != expected
    assert len(lone.store.jobs) == 2


def test_create_replaces_a_job_of_that_id(lone: LoneStore) -> None:
    create(lone, "a")
    lone.do(SetJobState("a", "Enqueued", "", ()))
    create(lone, "a")
    assert lone.job("a").state == ""
    assert ids_in(lone, "Enqueued") == []


def test_parameters_are_added_overwritten_and_null(lone: LoneStore) -> None:
    create(lone, "a")
    assert lone.do(SetJobParameter("a", "x", "1")) is True
    lone.do(SetJobParameter("a", "y", None))
    lone.do(SetJobParameter("a", "x", "2"))
    assert lone.job("a").parameters == (("x", "2"), ("y", None))


def test_a_parameter_of_a_missing_job_does_not_create_it(lone: LoneStore) -> None:
    assert lone.do(SetJobParameter("ghost", "x", "1")) is False
    assert lone.store.jobs == {}


def test_a_job_has_room_for_256_parameters() -> None:
    lone = LoneStore(careful=False)
    create(lone, "a")
    for number in range(256):
        assert lone.do(SetJobParameter("a", str(number), ""))
    assert lone.do(SetJobParameter("a", "one more", "")) is False
    assert lone.do(SetJobParameter("a", "7", "new")) is True


def test_a_change_of_state_moves_current_history_and_index(lone: LoneStore) -> None:
    create(lone, "a")
    assert lone.do(SetJobState("a", "Enqueued", "why", (("Queue", "default"),))) is True
    lone.advance(7)
    lone.do(SetJobState("a", "Processing", "", ()))
    job = lone.job("a")
    assert job.state == "Processing"
    assert [(record.name, record.reason, record.at_wt - FIRST_WT) for record in job.history] == [
        ("Enqueued", "why", 0),
        ("Processing", "", 7),
    ]
    assert job.history[0].data == (("Queue", "default"),)
    assert (ids_in(lone, "Enqueued"), ids_in(lone, "Processing")) == ([], ["a"])


def test_keys_of_state_data_ignore_case_and_the_last_wins(lone: LoneStore) -> None:
    create(lone, "a")
    lone.do(SetJobState("a", "X", "", (("Queue", "1"), ("other", None), ("queue", "2"))))
    assert lone.job("a").history[0].data == (("queue", "2"), ("other", None))


def test_an_added_state_is_history_only(lone: LoneStore) -> None:
    create(lone, "a")
    lone.do(SetJobState("a", "Enqueued", "", ()))
    assert lone.do(AddJobState("a", "Failed", "traversed", ())) is True
    job = lone.job("a")
    assert job.state == "Enqueued"
    assert [record.name for record in job.history] == ["Enqueued", "Failed"]
    assert (ids_in(lone, "Enqueued"), ids_in(lone, "Failed")) == (["a"], [])


def test_states_of_a_missing_job_are_no_ops(lone: LoneStore) -> None:
    for command in (
        SetJobState("g", "Enqueued", "", ()),
        AddJobState("g", "Enqueued", "", ()),
        ExpireJob("g", 1),
        PersistJob("g"),
    ):
        assert lone.do(command) is False


def test_a_state_lists_its_jobs_from_both_ends_and_pages(lone: LoneStore) -> None:
    for job_id in ("c", "a", "b"):
        create(lone, job_id)
        lone.advance(1)
        lone.do(SetJobState(job_id, "Custom", "", ()))
    assert ids_in(lone, "Custom") == ["c", "a", "b"]
    assert ids_in(lone, "Custom", newest_first=True) == ["b", "a", "c"]
    assert lone.store.index.states["Custom"].page(1, 2) == ["a"]
    assert lone.store.index.states["Custom"].page(3, 9) == []
    assert ids_in(lone, "Nobody") == []


def test_ties_in_time_are_broken_by_the_order_of_the_log(lone: LoneStore) -> None:
    for job_id in ("b", "a"):
        create(lone, job_id)
    lone.entry(*[(0, SetJobState(job_id, "Custom", "", ())) for job_id in ("b", "a")])
    assert ids_in(lone, "Custom") == ["b", "a"]


def test_expire_sets_and_persist_clears(lone: LoneStore) -> None:
    create(lone, "a")
    lone.advance(10)
    assert lone.do(ExpireJob("a", 5)) is True
    assert lone.job("a").expires_lt == 15
    assert lone.do(PersistJob("a")) is True
    assert lone.job("a").expires_lt == 0


def test_maintenance_evicts_at_the_expiry_and_not_before(lone: LoneStore) -> None:
    create(lone, "a", 1000)
    lone.do(SetJobState("a", "Custom", "", ()))
    lone.pass_time(999)
    assert "a" in lone.store.jobs
    lone.pass_time(1)
    assert "a" not in lone.store.jobs
    assert ids_in(lone, "Custom") == []


def test_eviction_takes_the_queue_entries_along(lone: LoneStore) -> None:
    create(lone, "a", 10)
    lone.do(AddToQueue("default", "a"))
    lone.do(AddToQueue("other", "a"))
    lone.advance(10)
    assert lone.do(Maintain(MINUTE)) == (1, 2, 0, 0, 0, 2)
    assert lone.store.queues == {}


def test_history_with_the_current_state_in_the_middle_survives_a_restore(lone: LoneStore) -> None:
    create(lone, "a")
    lone.do(SetJobState("a", "Enqueued", "", ()))
    lone.do(AddJobState("a", "Failed", "", ()))
    restored = lone.twin.jobs["a"]
    assert restored.state == "Enqueued"
    assert [record.name for record in restored.history] == ["Enqueued", "Failed"]


def test_history_is_cut_and_the_current_state_survives_that() -> None:
    lone = LoneStore(Limits(history_max=3))
    create(lone, "a")
    lone.do(SetJobState("a", "Enqueued", "the first", ()))
    for number in range(5):
        lone.do(AddJobState("a", f"Step{number}", "", ()))
    job = lone.twin.jobs["a"]
    assert job.current is not None
    assert (job.state, job.current.reason) == ("Enqueued", "the first")
    assert [record.name for record in job.history] == ["Step2", "Step3", "Step4"]


def test_a_dispatched_job_that_leaves_processing_is_taken_from_its_worker(lone: LoneStore) -> None:
    worker = lone.worker(slots=1)
    (job_id,) = lone.enqueue(NewJob("t"))
    grant = lone.take_grant()
    lone.do(SetJobState(job_id, "Deleted", "", ()))
    (cancel,) = lone.take_cancels()
    assert (cancel.token, cancel.job_id) == (grant.token, job_id)
    assert lone.reply(CompleteJob(job_id, grant.token), worker)[1] == "lease_lost"
    assert lone.store.sessions[worker].busy == 0


def test_processing_set_by_contract_leaves_a_lease_alone(lone: LoneStore) -> None:
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    grant = lone.take_grant()
    lone.do(SetJobState(job_id, "Processing", "again", ()))
    assert lone.take_cancels() == []
    lone.do(CompleteJob(job_id, grant.token), worker)
    assert lone.state(job_id) == "Succeeded"


# --- queues and fetched jobs ---


def test_fetching_is_first_in_first_out_and_empty_is_none(lone: LoneStore) -> None:
    queued(lone, "a", "b")
    assert fetch(lone)[:2] == ("a", "default")
    assert fetch(lone)[0] == "b"
    assert lone.do(FetchNext(("default",))) is None
    assert lone.do(FetchNext(("never", "heard", "of"))) is None


def test_the_order_of_queues_is_their_priority(lone: LoneStore) -> None:
    queued(lone, "a", queue="low")
    queued(lone, "b", queue="high")
    assert fetch(lone, "high", "low")[:2] == ("b", "high")
    assert fetch(lone, "high", "low")[:2] == ("a", "low")


def test_ids_without_a_job_are_skipped(lone: LoneStore) -> None:
    lone.do(AddToQueue("default", "ghost"))
    queued(lone, "a")
    assert fetch(lone)[0] == "a"
    assert lone.store.queues["default"].length == 0


def test_an_id_enqueued_twice_is_fetched_twice(lone: LoneStore) -> None:
    queued(lone, "a")
    lone.do(AddToQueue("default", "a"))
    assert [fetch(lone)[0], fetch(lone)[0]] == ["a", "a"]


def test_fetching_leaves_the_state_alone_and_tokens_increase(lone: LoneStore) -> None:
    queued(lone, "a", "b")
    first, second = fetch(lone), fetch(lone)
    assert first[2] < second[2]
    assert lone.job("a").state == ""


def test_requeue_puts_at_the_head(lone: LoneStore) -> None:
    queued(lone, "a", "b")
    _, _, token = fetch(lone)
    assert lone.do(RequeueFetched(token)) is True
    assert fetch(lone)[0] == "a"


def test_requeue_of_an_unknown_token_is_a_no_op(lone: LoneStore) -> None:
    queued(lone, "a")
    assert lone.do(RequeueFetched(999)) is False
    assert lone.store.queues["default"].length == 1


def test_acknowledging_ends_the_lease(lone: LoneStore) -> None:
    queued(lone, "a")
    _, _, token = fetch(lone)
    assert lone.do(RenewFetched(token)) is True
    assert lone.do(AckFetched(token)) is True
    assert lone.do(RenewFetched(token)) is False
    assert lone.do(AckFetched(token)) is False


def test_a_stale_lease_is_reclaimed_at_its_timeout_and_a_renewed_one_is_kept(lone: LoneStore) -> None:
    queued(lone, "a", "b")
    stale, renewed = fetch(lone)[2], fetch(lone)[2]
    lone.advance(MINUTE - 1)
    lone.do(RenewFetched(renewed))
    assert lone.do(Maintain(MINUTE))[2] == 0
    lone.advance(1)
    assert lone.do(Maintain(MINUTE))[2] == 1
    assert lone.do(RenewFetched(stale)) is False
    assert lone.do(RenewFetched(renewed)) is True
    assert fetch(lone)[0] == "a"


def test_a_renewed_lease_does_not_hide_a_stale_one_behind_it(lone: LoneStore) -> None:
    queued(lone, "a", "b")
    renewed, stale = fetch(lone)[2], fetch(lone)[2]
    lone.advance(10)
    lone.do(RenewFetched(renewed))
    lone.advance(MINUTE - 10)
    assert lone.do(Maintain(MINUTE))[2] == 1
    assert list(lone.store.leases) == [renewed]
    assert stale not in lone.store.queues["default"].fetched


def test_reclaimed_jobs_return_in_their_old_order_also_on_a_restored_store(lone: LoneStore) -> None:
    queued(lone, "a", "b", "c", "d")
    for _ in "abc":
        fetch(lone)
    lone.advance(MINUTE)
    assert lone.do(Maintain(MINUTE))[2] == 3
    assert [fetch(lone)[0] for _ in "abcd"] == ["a", "b", "c", "d"]


def test_the_configured_invisibility_timeout_is_proposed_by_itself() -> None:
    lone = LoneStore(Limits(invisibility_ms=1000))
    queued(lone, "a")
    _, _, token = fetch(lone)
    assert lone.store.next_due()[0] == 1000
    lone.pass_time(999)
    assert token in lone.store.leases
    lone.pass_time(1)
    assert token not in lone.store.leases


def test_maintenance_drops_empty_queues_only(lone: LoneStore) -> None:
    queued(lone, "a", queue="taken")
    fetch(lone, "taken")
    queued(lone, "b", queue="full")
    queued(lone, "c", queue="empty")
    fetch(lone, "empty")
    lone.do(AckFetched(next(reversed(lone.store.leases))))
    lone.do(SetQueuePaused("paused", True))
    lone.worker("subscribed")
    assert lone.do(Maintain(MINUTE))[5] == 1
    assert list(lone.store.queues) == ["taken", "full", "paused", "subscribed"]


def test_an_expired_job_under_lease_is_not_evicted_and_is_queued_when_given_back(lone: LoneStore) -> None:
    create(lone, "a", 10)
    lone.do(AddToQueue("default", "a"))
    _, _, token = fetch(lone)
    lone.pass_time(10)
    assert "a" in lone.store.jobs
    lone.do(RequeueFetched(token))
    assert lone.job("a").expires_lt == 0
    assert fetch(lone)[0] == "a"


def test_an_expired_job_that_is_acknowledged_is_evicted_then(lone: LoneStore) -> None:
    create(lone, "a", 10)
    lone.do(AddToQueue("default", "a"))
    _, _, token = fetch(lone)
    lone.pass_time(20)
    lone.do(AckFetched(token))
    assert lone.do(Maintain(MINUTE))[0] == 1


def test_a_reclaimed_expired_job_survives_the_next_pass(lone: LoneStore) -> None:
    create(lone, "a", 10)
    lone.do(AddToQueue("default", "a"))
    fetch(lone)
    lone.advance(MINUTE)
    assert lone.do(Maintain(MINUTE))[:3] == (0, 0, 1)
    assert lone.do(Maintain(MINUTE))[:3] == (0, 0, 0)
    assert fetch(lone)[0] == "a"


def test_the_summary_tells_evicted_from_reclaimed(lone: LoneStore) -> None:
    queued(lone, "a", "b")
    fetch(lone)
    create(lone, "c", 10)
    lone.advance(MINUTE)
    assert lone.do(Maintain(MINUTE)) == (1, 0, 1, 0, 0, 0)


def test_a_job_fetched_by_contract_is_not_reported_by_compound_commands(lone: LoneStore) -> None:
    queued(lone, "a")
    _, _, token = fetch(lone)
    assert lone.reply(CompleteJob("a", token))[1] == "lease_lost"
    assert lone.do(AckFetched(token)) is True


def test_a_dispatched_job_is_not_acknowledged_by_contract(lone: LoneStore) -> None:
    lone.worker()
    lone.enqueue()
    grant = lone.take_grant()
    assert lone.do(AckFetched(grant.token)) is False
    assert lone.do(RequeueFetched(grant.token)) is False
    assert lone.do(RenewFetched(grant.token)) is False


def test_every_contract_operation_on_jobs_has_a_handler() -> None:
    assert sorted(CONTRACT_HANDLERS) == [*range(1, 12), 32, 33, 34]
