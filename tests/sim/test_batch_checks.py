"""The oracle of batches rejects hand-made logs: half a batch, and callbacks that come early, twice or never."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sim.test_job_checks import Log, complete, rejects

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.bounds import ON
from quorker.core.jobs.commands import (
    DeleteJob,
    EnqueueBatch,
    EnqueueJobs,
    FailJob,
    RequeueJob,
    SetJobState,
    encode,
)
from quorker.core.jobs.new_job import JobGrant, NewJob
from quorker.core.jobs.outcome import Notice, Outcome
from quorker.core.jobs.store import JobStore
from quorker.sim.oracles.job_checks import Order

WHOLE, LAST = "batches are whole [J19]", "callbacks come last [J20]"
DONE: Any = (0, None)
BATCH = "0000000000001"


class BatchLog(Log):
    """A log with one batch: members m1, m2, and a callback c1."""

    def __init__(self, on: ON = "success") -> None:
        super().__init__()
        self.orders = [Order(), Order(), Order()]
        for order, payload in zip(self.orders, (b"m1", b"m2", b"c1"), strict=True):
            order.batch = self.orders
            self.jobs.orders[payload] = order
        members = (NewJob("task", b"m1"), NewJob("task", b"m2"))
        self.command = EnqueueBatch("b", members, (NewJob("task", b"c1", on=on),))

    def make(self) -> None:
        self.apply((self.command, (0, (BATCH, ("m1", "m2"), ("c1",)))))

    def grant(self, job_id: str, token: int) -> None:
        self.apply(notices=(self.granted(job_id, token),))

    def end(self, job_id: str, token: int, command: Any = None, *more: tuple[Any, Any]) -> None:
        """The job is granted, and ends by this command; then come others, in the same entry."""
        self.grant(job_id, token)
        replies = [(command or complete(job_id, token), DONE), *more]
        numbered = [(1_000 * token + place, encode(each)) for place, (each, _) in enumerate(replies)]
        answers = [(7, seq, reply) for (seq, _), (_, reply) in zip(numbered, replies, strict=True)]
        self.apply_group(7, numbered, Outcome(replies=answers, finished=[job_id]))

    def play(self, story: str) -> None:
        """+ succeeds, - fails, ! is tried again by hand, +! both in one entry, ? is moved by somebody else."""
        for token, (job_id, what) in enumerate(((step[:2], step[2:]) for step in story.split()), 10):
            again = (RequeueJob(job_id), (0, True))
            match what:
                case "+":
                    self.end(job_id, token)
                case "-":
                    self.end(job_id, token, FailJob(job_id, token, "E", "", ""))
                case "!":
                    self.apply(again)
                case "+!":
                    self.end(job_id, token, None, again)
                case _:
                    self.apply((SetJobState(job_id, "Succeeded", "", ()), (0, True)))


def test_a_callback_after_its_members_is_accepted() -> None:
    log = BatchLog()
    log.make()
    log.end("m1", 10)
    log.end("m2", 11)
    log.end("c1", 12)


def test_half_a_batch() -> None:
    log = BatchLog()
    short = (0, (BATCH, ("m1",), ("c1",)))
    rejects(WHOLE, lambda: log.apply((log.command, short)))


def test_a_member_of_a_batch_that_was_refused() -> None:
    log = BatchLog()
    log.apply((log.command, (1, "key_held", "")))
    grant = Notice(7, "job", JobGrant("m1", 10, "default", "task", b"m1", 1, 0, 0, 1))
    rejects(WHOLE, lambda: log.apply(notices=(grant,)))


def test_a_store_with_half_a_batch() -> None:
    log = BatchLog()
    store = JobStore()
    group = encode_group(0, 0, [(0, encode(EnqueueJobs((NewJob("task", b"m1"),))))])
    store.apply(1, encode_entry(0, 0, [group]))
    log.orders[0].ids = list(store.jobs)
    rejects(WHOLE, lambda: log.jobs.scan(store))


EARLY: list[tuple[ON, str]] = [
    ("success", "m1+"),
    ("any", "m1+"),
    ("failure", "m1-"),
    ("success", "m1+ m2-"),
    ("failure", "m1+ m2+"),
    ("success", "m1+ m2+!"),
    ("any", "m1+ m1! m2+"),
]


@pytest.mark.parametrize(("on", "story"), EARLY)
def test_a_callback_that_comes_before_its_members_have_ended(on: ON, story: str) -> None:
    log = BatchLog(on)
    log.make()
    log.play(story)
    rejects(LAST, lambda: log.grant("c1", 20))


def test_a_callback_waits_for_those_that_joined() -> None:
    log = BatchLog("any")
    log.make()
    log.jobs.orders[b"m3"] = Order()
    log.apply((EnqueueJobs((NewJob("task", b"m3", batch_id=BATCH),)), (0, ("m3",))))
    log.end("m1", 10)
    log.end("m2", 11)
    rejects(LAST, lambda: log.grant("c1", 20))


LATER: list[tuple[ON, str]] = [
    ("any", "m1+ m2-"),
    ("failure", "m1+ m2-"),
    ("success", "m1+ m2- m2! m2+"),
    ("success", "c1!"),
    ("any", "m1+ m2+ m1!"),
    ("success", "m1+ m2?"),
]


@pytest.mark.parametrize(("on", "story"), LATER)
def test_a_callback_that_may_come(on: ON, story: str) -> None:
    log = BatchLog(on)
    log.make()
    log.play(story)
    log.grant("c1", 20)


def test_a_callback_that_comes_twice() -> None:
    log = BatchLog("any")
    log.make()
    log.end("m1", 10)
    log.end("m2", 11)
    log.end("c1", 12)
    rejects(LAST, lambda: log.grant("c1", 13))


def test_a_callback_may_be_tried_again_by_hand() -> None:
    log = BatchLog("any")
    log.make()
    log.end("m1", 10)
    log.end("m2", 11)
    log.end("c1", 12)
    log.apply((RequeueJob("c1"), (0, True)))
    log.end("c1", 13, None, (RequeueJob("c1"), (0, True)))
    log.grant("c1", 14)


# --- the end ---


class LogOfStore(Log):
    """What a real store says to these commands."""

    def __init__(self) -> None:
        super().__init__()
        self.store = JobStore()

    def say(self, *commands: Any) -> Any:
        numbered = [(self._next(), encode(command)) for command in commands]
        index = self.raft.commit_index + 1
        data = encode_entry(self.lt, self.wt, [encode_group(0, 0, numbered)])
        outcome = self.store.apply(index, data)
        self.apply_group(0, numbered, outcome)
        return outcome.replies[-1][2][1]

    def _next(self) -> int:
        self._seq += 1
        return self._seq


@pytest.mark.parametrize(("on", "is_owed"), [("success", False), ("failure", True), ("any", True)])
def test_a_callback_that_is_missing(on: ON, is_owed: bool) -> None:
    """The oracle knows it by the members alone: the store is kept from seeing the end of the batch."""
    log = LogOfStore()
    log.jobs.orders |= {b"m1": Order(), b"c1": Order()}
    command = EnqueueBatch("b", (NewJob("task", b"m1"),), (NewJob("task", b"c1", on=on),))
    batch_id, (member,), (callback,) = log.say(command)
    assert log.jobs.batches.missing(log.store) is None
    del log.store.batches[batch_id]
    log.say(DeleteJob(member))
    assert log.store.jobs[callback].state == "Awaiting"
    missing = log.jobs.batches.missing(log.store)
    told = f"callbacks come [J20]: still waiting: {callback}, for {on} of {batch_id}"
    assert (str(missing) == told) if is_owed else missing is None


def test_a_callback_that_waits_for_a_success_that_never_comes_is_not_missing_and_not_unfinished() -> None:
    log = LogOfStore()
    log.jobs.orders |= {b"m1": Order(), b"c1": Order()}
    command = EnqueueBatch("b", (NewJob("task", b"m1"),), (NewJob("task", b"c1"),))
    _, (member,), (callback,) = log.say(command)
    assert log.jobs.unfinished(log.store) == [f"{member} Enqueued", f"{callback} Awaiting"]
    log.say(DeleteJob(member))
    assert log.jobs.unfinished(log.store) == []
    assert log.jobs.batches.missing(log.store) is None
