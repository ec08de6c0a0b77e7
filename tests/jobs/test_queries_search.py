"""Searches find exactly what a walk over all jobs would, in pages, at a bounded cost; figures of tasks are what they say."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import (
    Command,
    CompleteJob,
    DeleteJob,
    EnqueueJobs,
    FailJob,
    FetchJobs,
    NewJob,
    OpenSession,
    RetryPolicy,
    encode,
)
from quorker.core.jobs.queries import QueryError
from quorker.core.jobs.queries_search import EXAMINED_MAX, is_like
from quorker.core.jobs.store import JobStore

WT = 1_800_000_000_000
ONCE = RetryPolicy(attempts=0)
LATER = RetryPolicy(attempts=3, delays_ms=(60_000,))


class Store:
    """A job store whose clock stands until it is moved."""

    def __init__(self) -> None:
        self.store = JobStore()
        self.lt = 0
        self.seq = 0
        self.session: int = self.apply(OpenSession("worker", 60_000))

    def apply(self, command: Command, session: int = 0) -> Any:
        self.seq += 1
        group = encode_group(session, 0, [(self.seq, encode(command))])
        entry = encode_entry(self.lt, WT + self.lt, [group])
        ((_, _, reply),) = self.store.apply(self.store.applied_index + 1, entry).replies
        assert reply[0] == 0, reply
        return reply[1]

    def enqueue(self, *jobs: NewJob, after_ms: int = 0) -> list[str]:
        self.lt += after_ms
        return list(self.apply(EnqueueJobs(jobs)))

    def start(self, queue: str = "default") -> tuple[str, int]:
        ((job_id, token, *_),) = self.apply(FetchJobs((queue,), 1), self.session)
        return job_id, token

    def succeed(self, wait_ms: int, work_ms: int, queue: str = "default") -> str:
        self.lt += wait_ms
        job_id, token = self.start(queue)
        self.lt += work_ms
        self.apply(CompleteJob(job_id, token), self.session)
        return job_id

    def fail(self, error_type: str, message: str, queue: str = "default") -> str:
        job_id, token = self.start(queue)
        self.apply(FailJob(job_id, token, error_type, message, ""), self.session)
        return job_id

    def search(self, **asked: Any) -> Any:
        return self.query("search_jobs", **asked)

    def query(self, name: str, /, **asked: Any) -> Any:
        return self.store.query(name, asked)

    def found(self, **asked: Any) -> list[str]:
        return [row["id"] for row in self.search(**asked)["rows"]]

    def found_in_pages(self, **asked: Any) -> list[str]:
        ids: list[str] = []
        after = None
        while True:
            page = self.search(after=after, **asked)
            ids += [row["id"] for row in page["rows"]]
            assert page["examined"] <= asked.get("examine", EXAMINED_MAX)
            after = page["next"]
            if after is None:
                return ids


@pytest.fixture
def store() -> Store:
    return Store()


# What is found -----------------------------------------------------------------------------------------------------


def test_nothing_asked_finds_all_the_newest_change_first(store: Store) -> None:
    first, second, third = store.enqueue(NewJob("a"), NewJob("b"), NewJob("a"))
    store.apply(DeleteJob(second))
    assert store.found() == [second, third, first]


def test_a_name_a_pattern_and_no_such_task(store: Store) -> None:
    mail, text, other = store.enqueue(NewJob("send_mail"), NewJob("send_text"), NewJob("resend"))
    assert store.found(task="send_mail") == [mail]
    assert store.found(task="send_*") == [text, mail]
    assert store.found(task="*send*") == [other, text, mail]
    assert store.found(task="send_t?xt") == [text]
    assert store.found(task="post_*") == []


def test_queue_tag_and_states(store: Store) -> None:
    red, blue = store.enqueue(NewJob("a", tags=("red",)), NewJob("a", queue="mail", tags=("blue", "red")))
    store.apply(DeleteJob(red))
    assert store.found(queue="mail") == [blue]
    assert store.found(tag="red") == [blue, red]
    assert store.found(tag="red", states=["Deleted"]) == [red]
    assert store.found(states=["Deleted", "Enqueued"]) == [red, blue]
    assert store.found(tag="green") == []


def test_times_of_creation_and_of_the_last_change(store: Store) -> None:
    (old,) = store.enqueue(NewJob("a"))
    (new,) = store.enqueue(NewJob("a"), after_ms=1000)
    store.lt += 1000
    store.apply(DeleteJob(old))
    assert store.found(created_from=WT + 1000) == [new]
    assert store.found(created_until=WT + 1000) == [old]
    assert store.found(changed_from=WT + 2000) == [old]
    assert store.found(changed_until=WT + 2000) == [new]


def test_the_last_failure_is_searched_whatever_came_after_it(store: Store) -> None:
    store.enqueue(NewJob("a", retry=ONCE), NewJob("a", retry=LATER), NewJob("a", retry=ONCE))
    dead = store.fail("ConnectionError", "mx1.example.org refused")
    retried = store.fail("TimeoutError", "MX1.EXAMPLE.ORG did not answer")
    other = store.fail("KeyError", "'name'")
    assert sorted(store.found(error="mx1.example.org")) == sorted([dead, retried])
    assert store.found(error="keyerror") == [other]
    assert store.found(error="refused", states=["Failed"]) == [dead]
    rows = {row["id"]: row["error"] for row in store.search()["rows"]}
    assert rows[retried] == ("TimeoutError", "MX1.EXAMPLE.ORG did not answer")


def test_arguments_hold_all_of_the_needles(store: Store) -> None:
    first, second = store.enqueue(NewJob("a", b"user=1 kind=x"), NewJob("a", b"user=2 kind=x"))
    assert store.found(args_hold=[b"kind=x"]) == [second, first]
    assert store.found(args_hold=[b"kind=x", b"user=1"]) == [first]
    assert store.found(args_hold=[b"user=3"]) == []


# Pages -------------------------------------------------------------------------------------------------------------


def test_a_rare_match_costs_a_bounded_look_and_is_found_in_the_end(store: Store) -> None:
    (rare,) = store.enqueue(NewJob("a", b"needle"))
    store.enqueue(*[NewJob("a", b"hay") for _ in range(100)])
    page = store.search(args_hold=[b"needle"], examine=30)
    assert (page["rows"], page["examined"], page["next"] is None) == ([], 30, False)
    assert store.found_in_pages(args_hold=[b"needle"], examine=30) == [rare]


def test_the_index_that_a_search_began_with_is_kept(store: Store) -> None:
    made = store.enqueue(*[NewJob("a") for _ in range(3)], *[NewJob("b") for _ in range(9)])
    page = store.search(task="a", states=["Enqueued"], count=1)
    assert (page["by"], [row["id"] for row in page["rows"]]) == ("created", [made[2]])
    store.enqueue(*[NewJob("a") for _ in range(20)])
    for job_id in made[3:]:
        store.apply(DeleteJob(job_id))
    rest = store.search(task="a", states=["Enqueued"], after=page["next"])
    assert (rest["by"], [row["id"] for row in rest["rows"]]) == ("created", [made[1], made[0]])


def test_the_narrower_index_leads(store: Store) -> None:
    (rare,) = store.enqueue(NewJob("a"))
    store.apply(DeleteJob(rare))
    store.enqueue(*[NewJob("a") for _ in range(50)])
    page = store.search(task="a", states=["Deleted"])
    assert (page["by"], page["examined"]) == ("changed", 1)


TASKS = st.sampled_from(["send_mail", "send_text", "count"])
JOBS = st.tuples(
    TASKS,
    st.sampled_from([b"one", b"two", b"one two"]),
    st.sampled_from(["default", "mail"]),
    st.lists(st.sampled_from(["red", "blue"]), max_size=2, unique=True).map(tuple),
).map(lambda of: NewJob(of[0], of[1], of[2], tags=of[3]))
QUESTIONS = st.fixed_dictionaries(
    {"count": st.integers(1, 4), "examine": st.integers(1, 7)},
    optional={
        "states": st.lists(st.sampled_from(["Enqueued", "Deleted", "Failed"]), unique=True),
        "task": st.sampled_from(["send_mail", "send_*", "*", "none"]),
        "queue": st.sampled_from(["default", "mail"]),
        "tag": st.sampled_from(["red", "blue"]),
        "created_from": st.integers(0, 60).map(WT.__add__),
        "changed_until": st.integers(0, 60).map(WT.__add__),
        "args_hold": st.lists(st.sampled_from([b"one", b"two"]), max_size=2),
    },
)


@given(st.lists(st.tuples(JOBS, st.booleans()), max_size=20), QUESTIONS)
def test_pages_together_are_what_a_walk_over_all_jobs_finds(
    steps: list[tuple[NewJob, bool]], question: dict[str, Any]
) -> None:
    store = Store()
    for job, is_deleted in steps:
        (job_id,) = store.enqueue(job, after_ms=3)
        if is_deleted:
            store.apply(DeleteJob(job_id))
    wanted = {
        job.id
        for job in store.store.jobs.values()
        if (not question.get("states") or job.state in question["states"])
        and fnmatchcase(job.spec.task, question.get("task", "*"))
        and job.spec.queue == question.get("queue", job.spec.queue)
        and ("tag" not in question or question["tag"] in job.spec.tags)
        and job.created_wt >= question.get("created_from", 0)
        and (job.current is None or job.current.at_wt < question.get("changed_until", 2**60))
        and all(needle in job.spec.args for needle in question.get("args_hold", ()))
    }
    found = store.found_in_pages(**question)
    assert sorted(found) == sorted(wanted)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns_are_those_of_the_shell(pattern: str, name: str) -> None:
    assert is_like(name, pattern) == fnmatchcase(name, pattern)


def test_a_pattern_of_many_stars_is_no_trouble() -> None:
    assert not is_like("a" * 200, "*a" * 90 + "b")


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"after": ["sideways", 3]}, "after"),
        ({"after": 7}, "after"),
        ({"count": 0}, "count"),
        ({"examine": EXAMINED_MAX + 1}, "examine"),
        ({"args_hold": [b"x" * 2000]}, "args_hold"),
    ],
)
def test_a_bad_question_is_refused_by_name(store: Store, asked: dict[str, Any], word: str) -> None:
    with pytest.raises(QueryError, match=word):
        store.search(**asked)


# Tasks -------------------------------------------------------------------------------------------------------------


def test_tasks_by_name_with_their_jobs(store: Store) -> None:
    store.enqueue(NewJob("b"), NewJob("a"), NewJob("b"))
    assert store.query("tasks") == [{"task": "a", "jobs": 1}, {"task": "b", "jobs": 2}]
    assert store.query("tasks", start=1, count=1) == [{"task": "b", "jobs": 2}]


def test_figures_of_a_task(store: Store) -> None:
    for wait_ms in range(1, 101):
        store.enqueue(NewJob("a"))
        store.succeed(wait_ms, 2 * wait_ms)
    store.enqueue(NewJob("a", queue="mail", retry=ONCE), NewJob("a"))
    store.fail("KeyError", "", "mail")
    figures = store.query("task_figures", task="a")
    assert (figures["total"], figures["sampled"]) == (102, 102)
    assert figures["states"] == {"Enqueued": 1, "Succeeded": 100, "Failed": 1}
    assert figures["latency_ms"] == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    assert figures["duration_ms"] == {"p50": 100, "p90": 180, "p95": 190, "p99": 198, "max": 200}


def test_figures_are_over_the_newest_jobs(store: Store) -> None:
    for work_ms in (900, 5, 7):
        store.enqueue(NewJob("a"))
        store.succeed(0, work_ms)
    figures = store.query("task_figures", task="a", sample=2)
    assert (figures["total"], figures["sampled"]) == (3, 2)
    assert figures["duration_ms"] == {"p50": 5, "p90": 7, "p95": 7, "p99": 7, "max": 7}


def test_figures_of_an_unknown_task_are_empty(store: Store) -> None:
    figures = store.query("task_figures", task="nobody")
    assert figures["total"] == 0
    assert figures["latency_ms"] is None
