"""The election of an outcome: what filters may make of an attempt, and what the store makes of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorker.app import (
    App,
    Applied,
    Delete,
    Election,
    Filter,
    JobCancelled,
    JobFailed,
    JobHandle,
    Performed,
    Retry,
    Succeed,
    current_job,
)
from quorker.app.testing import AppUnderTest, TestingStopped


class Decide(Filter):
    def __init__(self, decide: Callable[[Election], None], order: int = 0) -> None:
        self.decide = decide
        self.order = order

    def electing(self, election: Election) -> None:
        self.decide(election)


def decided(
    quorker: AppUnderTest, app: App, decide: Callable[[Election], None], order: int = 0
) -> JobHandle[Any]:
    @app.task(name="decided", retry=Retry(max=1, delays=[60], on=[OSError]), filters=[Decide(decide, order)])
    def work() -> int:
        if current_job.attempt == 1:
            raise KeyError("why")
        return 5

    job = work.enqueue()
    quorker.drain()
    return job


def test_an_election_may_turn_a_failure_into_success(app: App, quorker: AppUnderTest) -> None:
    assert decided(quorker, app, lambda election: election.succeed({"found": None})).result() == {
        "found": None
    }


def test_an_election_may_delete_and_the_failure_stays_in_the_history(app: App, quorker: AppUnderTest) -> None:
    job = decided(quorker, app, lambda election: election.delete("ignored on purpose"))
    with pytest.raises(JobCancelled, match="ignored on purpose"):
        job.result()
    (row,) = quorker.jobs()
    assert row.history == ("Enqueued", "Processing", "Failed", "Deleted")
    assert (row.error_type, row.message) == ("KeyError", "'why'")


def test_an_election_may_overrule_the_retry_rule_if_it_comes_later(app: App, quorker: AppUnderTest) -> None:
    assert decided(quorker, app, lambda election: election.fail(retry=True)).state() == "Failed"
    assert decided(quorker, app, lambda election: election.fail(retry=True), 21).state() == "Scheduled"


def test_an_election_may_refuse_a_success(app: App, quorker: AppUnderTest) -> None:
    def refuse(election: Election) -> None:
        if isinstance(election.outcome, Succeed) and election.outcome.result == 5:
            election.fail(retry=False, message="five is right out")

    @app.task(filters=[Decide(refuse)])
    def five() -> int:
        return 5

    with pytest.raises(JobFailed, match="FailedByFilter: five is right out"):
        five.enqueue().result()


def test_an_election_may_give_the_job_back(app: App, quorker: AppUnderTest) -> None:
    gave_back: list[int] = []

    def once(election: Election) -> None:
        assert election.failure is None
        if not gave_back:
            gave_back.append(election.job.attempt)
            election.give_back()

    @app.task(filters=[Decide(once)])
    def work() -> int:
        return current_job.attempt

    job = work.enqueue()
    assert quorker.drain() == 2
    assert (job.result(), quorker.jobs()[0].failures) == (1, 0)


def test_a_decision_about_a_job_in_other_hands_is_refused(app: App, quorker: AppUnderTest) -> None:
    """What is decided travels with the token of the attempt, and the store checks it."""
    answers: list[Applied] = []

    class Watch(Filter):
        async def performed(self, attempt: Performed) -> None:
            await app.job(attempt.job.id).arequeue()

        def electing(self, election: Election) -> None:
            election.delete("too late")

        def applied(self, change: Applied) -> None:
            answers.append(change)

    @app.task(filters=[Watch()])
    def work() -> int:
        return 1

    work.enqueue()
    with pytest.raises(TestingStopped, match="3 attempts were made"):
        quorker.drain(limit=3)
    assert [type(answer.outcome) for answer in answers] == [Delete] * 3
    assert [answer.state for answer in answers] == [""] * 3
    assert all("precondition_failed" in str(answer.error) for answer in answers)
    assert "Deleted" not in quorker.jobs()[0].history


def test_unknown_tasks_pass_the_filters_of_the_app(app: App, quorker: AppUnderTest) -> None:
    other = App("other")

    @other.task
    def unknown() -> None: ...

    app.add_filter(Decide(lambda election: election.delete(f"nobody knows {election.job.task}")))
    with pytest.raises(JobCancelled, match="nobody knows unknown"):
        JobHandle(app.enqueue_many([unknown.call()])[0].id, app).result()
