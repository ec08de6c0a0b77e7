"""Queries: total, packable, answered from indexes, and the same after a restore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.errors import InvalidInput
from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import (
    AcquireLock,
    AddToQueue,
    AddToSet,
    AnnounceServer,
    Command,
    CompleteJob,
    CreateJob,
    EnqueueBatch,
    EnqueueJobs,
    FetchJobs,
    FetchNext,
    IncrementCounter,
    InsertToList,
    NewJob,
    OpenSession,
    RetryPolicy,
    SetJobState,
    SetQueuePaused,
    SetRangeInHash,
    SetRecurring,
    StartRules,
    Subscribe,
    encode,
)
from quorker.core.jobs.queries import QUERIES, QueryError, check
from quorker.core.jobs.queries_form import PAGE_ROWS_MAX, REQUIRED
from quorker.core.jobs.store import JobStore

codec: Any = msgpack
WT = 1_800_000_000_000
HUGE = 2**63 - 1


class Store:
    """A job store that is told one command at a time."""

    def __init__(self) -> None:
        self.store = JobStore()
        self.lt = 0
        self.seq = 0

    def apply(self, command: Command, session: int = 0) -> Any:
        self.seq += 1
        group = encode_group(session, 0, [(self.seq, encode(command))])
        entry = encode_entry(self.lt, WT + self.lt, [group])
        outcome = self.store.apply(self.store.applied_index + 1, entry)
        (reply,) = [reply for _, _, reply in outcome.replies]
        assert reply[0] == 0, reply
        return reply[1]

    def enqueue(self, *jobs: NewJob) -> tuple[str, ...]:
        made: tuple[str, ...] = self.apply(EnqueueJobs(jobs))
        return made

    def query(self, name: str, /, **args: Any) -> Any:
        return self.store.query(name, args)


@pytest.fixture
def store() -> Store:
    return Store()


def filled() -> Store:
    """A store with something of everything."""
    store = Store()
    session = store.apply(OpenSession("worker", 60_000))
    parent, _, _ = store.enqueue(
        NewJob("a", b"x" * 5000, tags=("red",), unique_key="once", retry=RetryPolicy(3)),
        NewJob("b", parent_id="#0"),
        NewJob("c", delay_ms=5000, queue="mail", headers=(("trace", "1"),)),
    )
    store.enqueue(NewJob("d", queue="limited", start=StartRules("k", 1)))
    store.apply(CreateJob("mine", "d", b"", "mail", (("p", None),), 10_000))
    store.apply(SetJobState("mine", "Odd", "because", (("k", "v"),)))
    for queue, job_id in [("mail", "mine"), ("mail", "ghost"), ("mail", "mine")]:
        store.apply(AddToQueue(queue, job_id))
    store.apply(FetchNext(("mail",)), session)
    store.apply(FetchJobs(("default",), 1), session)
    store.apply(AcquireLock("lock"), session)
    store.apply(AcquireLock("lock", wait=True), session)
    store.apply(AddToSet("schedule", "mail:mine", WT / 1000 + 1))
    store.apply(AddToSet("k", "v", 1.5))
    store.apply(InsertToList("k", "v"))
    store.apply(SetRangeInHash("k", (("f", "v"),)))
    store.apply(IncrementCounter("k", 5, 1000))
    store.apply(AnnounceServer("s", 3, ("mail",)))
    store.apply(SetQueuePaused("paused", True, "why", "who"))
    store.apply(SetRecurring("nightly", NewJob("a", b"x" * 5000), "0 3 * * *", "Europe/Berlin"))
    store.apply(Subscribe(("mail",), 0), session)
    store.apply(EnqueueBatch("import", (NewJob("a", queue="mail"),), (NewJob("b", queue="mail"),)))
    assert parent in store.store.jobs
    return store


def arguments_for(store: Store, name: str) -> dict[str, Any]:
    """Good arguments that find something in the filled store."""
    good: dict[str, Any] = {
        "key": "once" if name == "unique_key_holder" else "k",
        "job_id": "mine",
        "queue": "mail",
        "queues": ["mail"],
        "state": "Odd",
        "task": "a",
        "tag": "red",
        "name": "p",
        "value": "v",
        "field": "f",
        "keys": ["k"],
        "limit": 5,
        "first": 0,
        "last": 5,
        "low": 0,
        "high": 2.0,
        "resource": "lock",
        "ticket": 1,
        "session": next(iter(store.store.sessions)),
        "batch_id": next(iter(store.store.batches)),
        "what": "succeeded",
        "unit": "day",
        "count": 5,
        "id": "nightly",
    }
    return {
        each: good[each] for each, argument in QUERIES[name].arguments.items() if argument.default is REQUIRED
    }


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_every_query_finds_something_that_can_be_packed(name: str) -> None:
    store = filled()
    value = store.query(name, **arguments_for(store, name))
    assert codec.unpackb(codec.packb(value)) is not None or name in {"job_parameter"}


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_every_query_answers_on_an_empty_store(name: str, store: Store) -> None:
    filled_store = filled()
    codec.packb(store.query(name, **arguments_for(filled_store, name)))


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_every_query_answers_the_same_after_a_restore(name: str) -> None:
    store = filled()
    args = arguments_for(store, name)
    before = store.query(name, **args)
    store.store = JobStore.restore(store.store.snapshot().chunks())
    assert store.query(name, **args) == before


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_no_query_changes_the_store(name: str) -> None:
    store = filled()
    before = store.store.digest()
    store.query(name, **arguments_for(store, name))
    assert store.store.digest() == before


# Totality ---------------------------------------------------------------------------------------------------------

SHARED = filled()
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.sampled_from(["k", "mail", "mine", "day", "failed", "default", 0, 1, -1, HUGE, 2**62, 2.0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(QUERIES)))
    return name, {each: draw(anything) for each in QUERIES[name].arguments if draw(st.integers(0, 9))}


@settings(max_examples=300, deadline=None)
@given(asked())
def test_queries_are_total(question: tuple[str, dict[str, Any]]) -> None:
    name, args = question
    try:
        value = SHARED.store.query(name, args)
    except QueryError:
        return
    codec.packb(value)


@given(anything, anything)
def test_what_is_no_query_is_refused(name: Any, args: Any) -> None:
    with pytest.raises(QueryError):
        SHARED.store.query(name, args)


def test_a_refusal_is_an_input_error_that_names_the_argument(store: Store) -> None:
    with pytest.raises(InvalidInput, match="queue name"):
        store.query("enqueued_jobs", queue="")
    with pytest.raises(QueryError, match="job_id: is missing"):
        store.query("job_details")
    with pytest.raises(QueryError, match="'colour' is not known"):
        store.query("job_details", job_id="a", colour="red")
    with pytest.raises(QueryError, match="'paint' is not known"):
        store.query("paint")


def test_check_refuses_what_a_query_would_refuse() -> None:
    check("set_count", {"key": "k"})
    with pytest.raises(QueryError, match="key"):
        check("set_count", {"key": ""})


# Cost -------------------------------------------------------------------------------------------------------------


class Unscanned(dict[str, Any]):
    """A table of jobs that may be looked into, but not walked."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("a query walked all jobs")

    keys = values = items = __iter__  # type: ignore[assignment]  # none of them


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_no_query_walks_all_jobs(name: str) -> None:
    store = filled()
    store.store.jobs = Unscanned(store.store.jobs)
    store.query(name, **arguments_for(store, name))


# Pages ------------------------------------------------------------------------------------------------------------


def ids(page: Mapping[str, Any]) -> list[str]:
    return [row["id"] for row in page["rows"]]


@pytest.mark.parametrize("newest_first", [False, True])
def test_cursors_visit_every_job_once_although_others_come_and_go(store: Store, newest_first: bool) -> None:
    made = list(store.enqueue(*[NewJob("a") for _ in range(10)]))
    seen: list[str] = []
    after = None
    for _ in range(4):
        page = store.query("jobs_by_task", task="a", count=3, newest_first=newest_first, after=after)
        seen += ids(page)
        after = page["next"]
        store.enqueue(NewJob("b"))
    assert after is None
    assert seen == (made[::-1] if newest_first else made)


def test_cursor_of_a_state_goes_by_entry_into_the_state(store: Store) -> None:
    session = store.apply(OpenSession("worker", 60_000))
    first, second, third = store.enqueue(*[NewJob("a") for _ in range(3)])
    grants = store.apply(FetchJobs(("default",), 3), session)
    for job_id in (second, first, third):
        token = next(grant[1] for grant in grants if grant[0] == job_id)
        store.apply(CompleteJob(job_id, token), session)
    page = store.query("jobs_by_state", state="Succeeded", count=2)
    assert ids(page) == [third, first]
    rest = store.query("jobs_by_state", state="Succeeded", count=2, after=page["next"])
    assert (ids(rest), rest["next"], rest["total"]) == ([second], None, 3)


def test_jobs_by_tag(store: Store) -> None:
    made = store.enqueue(NewJob("a", tags=("x", "y", "x")), NewJob("b", tags=("x",)), NewJob("c"))
    assert ids(store.query("jobs_by_tag", tag="x")) == [made[1], made[0]]
    assert ids(store.query("jobs_by_tag", tag="y")) == [made[0]]
    assert store.query("jobs_by_tag", tag="z") == {"rows": [], "total": 0, "next": None}


def test_queue_page_goes_by_priority_then_age(store: Store) -> None:
    jobs = store.enqueue(NewJob("a"), NewJob("b", priority=5), NewJob("c"), NewJob("d", priority=-1))
    expected = [jobs[1], jobs[0], jobs[2], jobs[3]]
    for start in range(5):
        page = store.query("enqueued_jobs", queue="default", start=start, count=2)
        assert [job_id for job_id, _ in page] == expected[start : start + 2]


def test_pages_have_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorker.core.jobs.queries_form.PAGE_ROWS_MAX", 2)
    assert PAGE_ROWS_MAX > 2
    store.enqueue(*[NewJob("a") for _ in range(3)])
    page = store.query("jobs_by_state", state="Enqueued", count=HUGE)
    assert (len(page["rows"]), page["total"]) == (2, 3)
    assert page["next"] is not None


def test_long_arguments_are_cut_in_lists_and_whole_in_details(store: Store) -> None:
    (job_id,) = store.enqueue(NewJob("a", b"x" * 5000))
    (row,) = store.query("jobs_by_task", task="a")["rows"]
    assert (len(row["args"]), row["args_size"]) == (1024, 5000)
    assert len(store.query("job_details", job_id=job_id)["args"]) == 5000


def test_pages_of_recurring_jobs_go_by_id(store: Store) -> None:
    for name in ("b", "d", "a", "c"):
        store.apply(SetRecurring(name, NewJob("t", b"x" * 5000), every_ms=1000))
    first = store.query("recurring:list", limit=3)
    assert [row["id"] for row in first] == ["a", "b", "c"]
    assert {(len(row["args"]), row["args_size"]) for row in first} == {(1024, 5000)}
    assert [row["id"] for row in store.query("recurring:list", after="b", limit=3)] == ["c", "d"]
    assert [row["id"] for row in store.query("recurring:list", after="bb")] == ["c", "d"]
    assert store.query("recurring:list", after="d") == []
    assert len(store.query("recurring:get", id="a")["args"]) == 5000
    assert store.query("recurring:get", id="e") is None
    assert store.query("statistics")["recurring"] == store.query("health")["recurring"] == 4


def test_an_odd_score_in_the_schedule_is_no_trouble(store: Store) -> None:
    store.enqueue(NewJob("a", delay_ms=1000))
    for value, score in [("x", float("inf")), ("y", float("-inf")), ("z", 1e300), ("q:w", -1.0)]:
        store.apply(AddToSet("schedule", value, score))
    page = store.query("scheduled_jobs")
    assert [job_id for job_id, _ in page if job_id in "xyzw"] == ["y", "w", "z", "x"]


# The store as a whole ---------------------------------------------------------------------------------------------


def test_sessions_and_locks_show_who_holds_and_who_waits(store: Store) -> None:
    holder = store.apply(OpenSession("holder", 60_000))
    waiting = store.apply(OpenSession("waiting", 60_000))
    _, token = store.apply(AcquireLock("lock"), holder)
    _, ticket = store.apply(AcquireLock("lock", wait=True), waiting)
    (lock,) = store.query("locks")
    assert (lock["worker"], lock["token"], lock["waiters"]) == ("holder", token, [waiting])
    assert store.query("lock_ticket", resource="lock", ticket=ticket) == {"token": 0, "waiting": True}
    assert [session["waits"] for session in store.query("sessions")] == [0, 1]
    assert store.query("session", session=waiting)["name"] == "waiting"
    assert store.query("session", session=1) is None
    assert store.query("lock", resource="other") is None


def test_a_paused_queue_has_nothing_waiting(store: Store) -> None:
    store.enqueue(NewJob("a"))
    assert store.query("has_waiting", queues=["default"]) is True
    store.apply(SetQueuePaused("default", True, "why", "who"))
    assert store.query("has_waiting", queues=["default", "nothing"]) is False
    (queue,) = store.query("queues")
    assert (queue["paused"], queue["reason"], queue["author"]) == (True, "why", "who")


def test_history_ends_with_the_calendar(store: Store) -> None:
    store.store.wt = 2**52
    labels = [label for label, _ in store.query("history", what="failed", unit="day", count=2)]
    assert labels == ["9999-12-31", "9999-12-30"]


def test_history_begins_before_the_epoch(store: Store) -> None:
    store.store.wt = 0
    labels = [label for label, _ in store.query("history", what="failed", unit="hour", count=2)]
    assert labels == ["1970-01-01-00", "1969-12-31-23"]


def test_state_counts_include_states_of_others(store: Store) -> None:
    store.enqueue(NewJob("a"))
    store.apply(CreateJob("mine", "d", b"", "mail", (), 10_000))
    store.apply(SetJobState("mine", "Odd", "", ()))
    assert store.query("state_counts") == {"Enqueued": 1, "Odd": 1}


def test_health_shows_sizes_and_limits(store: Store) -> None:
    empty = store.query("health")
    store.enqueue(NewJob("a"))
    full = store.query("health")
    assert (empty["jobs"], full["jobs"]) == (0, 1)
    assert full["state_bytes"] > empty["state_bytes"] >= 0
    assert full["applied_index"] == 1
    assert full["state_bytes_max"] > 0
