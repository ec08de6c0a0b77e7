"""Options with names: each means what the code does with the number that they make up."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.jobs.commands import AcquireLock, EnqueueJobs, FetchJobs, SetQueuePaused
from quorker.sim.cases.case import Case, Fault, FaultKind, JobsKnobs, Op, OpKind, Target
from quorker.sim.cases.options import MESSAGE_KINDS, MESSAGES, unit_of_amount
from quorker.sim.clients.client import POISON
from quorker.sim.runs.cluster import run_case
from quorker.sim.runs.jobs_cluster import JobsCluster
from quorker.sim.world.kernel import MS
from quorker.sim.world.naming import NAMES, kind_of
from quorker.sim.world.trace import Trace


def number(kind: OpKind, **options: Any) -> int:
    unit = unit_of_amount(kind)
    assert unit is not None
    found = unit.read(options)
    assert unit.write(found) == options, "what is left out is the default"
    return found


def asked(kind: OpKind, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, int]:
    """The command that a client makes of an operation with these options, and how long it waits for the answer, ms."""
    cluster = JobsCluster(Case(1, jobs=JobsKnobs(work_ms=100)), Trace())
    for node in cluster.nodes.values():
        node.start()
    cluster.begin()
    client, made = cluster.clients[2], list[tuple[Any, int]]()

    def submit(command: Any, patience_ms: int, _: Any) -> None:
        made.append((command, patience_ms))

    monkeypatch.setattr(client, "submit", submit)
    client.perform(Op(0, kind, 2, number(kind, **options)))
    (found,) = made
    return found


def test_what_is_enqueued_is_as_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, patience = asked(OpKind.ENQUEUE, monkeypatch)
    assert isinstance(plain, EnqueueJobs)
    job = plain.jobs[0]
    assert (job.task, job.queue, job.priority, job.timeout_ms, job.delay_ms) == ("task", "default", 0, 0, 0)
    assert (job.unique_key, patience) == ("", 10_000)
    options: dict[str, Any] = {
        "unique": True, "key": 1, "queue": "other", "priority": 2, "timeout": 3, "delay": "80ms", "poison": True,
        "patience": "400ms",
    }  # fmt: skip
    other, patience = asked(OpKind.ENQUEUE, monkeypatch, **options)
    job = other.jobs[0]
    assert (job.task, job.queue, job.priority, job.timeout_ms, job.delay_ms) == (POISON, "other", 2, 300, 80)
    assert (job.unique_key, patience) == ("key 1", 400)


def test_locks_queues_and_pulls_are_as_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, _ = asked(OpKind.LOCK, monkeypatch, resource=1, wait=True, hold="256ms")
    assert lock == AcquireLock("resource 1", wait=True)
    leased, _ = asked(OpKind.LEASED_LOCK, monkeypatch, resource=1, wait=True, ttl="275ms")
    assert leased == AcquireLock("leased 1", ttl_ms=275, wait=True)
    paused, _ = asked(OpKind.PAUSE_QUEUE, monkeypatch, queue="other")
    assert (type(paused), paused.queue, paused.paused) == (SetQueuePaused, "other", True)
    pulled, _ = asked(OpKind.PULL, monkeypatch, both_queues=True, jobs=4)
    assert pulled == FetchJobs(("default", "other"), 4)


def test_a_number_that_no_options_make_up_stays_a_number() -> None:
    unit = unit_of_amount(OpKind.ENQUEUE)
    assert unit is not None
    assert [unit.write(1 << 15), unit.write(-1), unit.write(1 << 4 | 3 << 12)] == [
        1 << 15,
        -1,
        {"unique": True},
    ]
    assert all(unit.read(unit.write(dealt)) == dealt for dealt in range(0, 1 << 16, 37))


def test_kinds_of_messages_have_the_names_that_others_give_them() -> None:
    assert len(MESSAGES) == len(MESSAGE_KINDS)
    assert {name: kind_of(kind << 50) for kind, name in zip(MESSAGE_KINDS, MESSAGES, strict=True)} == {
        **{name: name for name in NAMES.values()},
        "between members": "a message between members",
    }


def test_a_link_to_itself_is_no_fault() -> None:
    def struck(peer: int, amount: int = 0) -> bool:
        fault = Fault(500 * MS, FaultKind.LINK, MS, Target.ANY, 2, amount, peer)
        return "fault link" in run_case(Case(1, chaos_ns=600 * MS, plan=(fault,))).sometimes

    assert struck(peer=3)
    assert struck(peer=0, amount=2)
    assert not struck(peer=0, amount=1)
