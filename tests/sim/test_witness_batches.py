"""The witness knows batches of jobs: what is made, joined, called off and forgotten, and when callbacks come."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sim.test_witness import RETRY, Pair, rejects, says

from quorker.core.jobs import commands as c
from quorker.core.jobs.bounds import ON

MEMBER = c.NewJob("m", queue="default", retry=RETRY)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def make(
    pair: Pair, *members: c.NewJob, on: tuple[ON, ...] = ("success", "failure", "any"), keep_ms: int = 0
) -> Any:
    callbacks = tuple([c.NewJob("c", queue="after", on=each) for each in on])
    return pair.do(c.EnqueueBatch("b", members, callbacks, keep_ms))


def test_a_batch_in_every_way_is_accepted(pair: Pair) -> None:
    empty = make(pair)
    members = (MEMBER, MEMBER._replace(parent_id="#0", on="any"))
    _, (first, second), _ = made = make(pair, *members, keep_ms=100)
    pair.do(c.EnqueueJobs((MEMBER._replace(batch_id=made[0], parent_id=f"batch#{empty[0]}"),)))
    pair.do(c.EnqueueJobs((c.NewJob("w", queue="after", parent_id=f"batch#{made[0]}", on="any"),)))
    pair.do(c.DeleteJob(first))
    pair.do(c.CancelBatch(made[0]))
    pair.witness.compare(pair.store)
    pair.do(c.RequeueJob(second), c.DeleteJob(second), c.ExpireJob(second, 10))
    pair.lt = 10
    pair.do(c.ExpireRecords())
    pair.witness.compare(pair.store)
    pair.lt = 110
    pair.do(c.ExpireRecords())
    pair.witness.compare(pair.store)
    assert list(pair.store.batches) == [empty[0]]


def test_what_is_refused_is_foreseen(pair: Pair) -> None:
    batch_id, _, _ = make(pair, MEMBER._replace(unique_key="k"))
    done, _, _ = make(pair)
    joins = MEMBER._replace(batch_id=batch_id)
    for jobs in (
        (joins._replace(unique_key="k"), joins._replace(unique_key="k")),
        (MEMBER._replace(unique_key="o"),),
        (joins._replace(unique_key="o"),),
        (joins._replace(parent_id=f"batch#{batch_id}"),),
        (MEMBER._replace(batch_id=done),),
        (MEMBER._replace(batch_id="0000000000009"),),
        (MEMBER._replace(parent_id="batch#0000000000009"),),
        (MEMBER._replace(parent_id=f"batch#{batch_id}", on="deleted"),),
    ):
        pair.do(c.EnqueueJobs(jobs))
    make(pair, MEMBER._replace(unique_key="k"))
    make(pair, MEMBER._replace(parent_id="nobody"))
    pair.do(c.CancelBatch("0000000000009"))
    pair.witness.compare(pair.store)
    assert len(pair.store.batches) == 2


def test_a_batch_that_is_not_made_and_one_that_is_not_refused(pair: Pair) -> None:
    command = c.EnqueueBatch("b", (MEMBER,))
    rejects(lambda: pair.do(command, tamper=says((1, "store_full", ""))), "a batch at")
    other = Pair()
    lawless = c.EnqueueBatch("b", (MEMBER._replace(parent_id="nobody"),))
    rejects(lambda: other.do(lawless, tamper=says((0, ("0000000000009", ("x",), ())))), "reply to")


def test_another_piece_than_was_called_off(pair: Pair) -> None:
    batch_id, _, _ = make(pair, MEMBER)
    rejects(lambda: pair.do(c.CancelBatch(batch_id), tamper=says((0, (2, None)))), "reply to")


def test_a_store_with_other_counts(pair: Pair) -> None:
    batch_id, _, _ = make(pair, MEMBER)
    batch = pair.store.batches[batch_id]
    pair.store.batches[batch_id] = batch._replace(pending=2)
    rejects(lambda: pair.witness.compare(pair.store), "counts of batch")
    pair.store.batches[batch_id] = batch._replace(expires_lt=5)
    rejects(lambda: pair.witness.compare(pair.store), "end of batch")
    del pair.store.batches[batch_id]
    rejects(lambda: pair.witness.compare(pair.store), "batches")


def test_a_batch_is_kept_as_long_as_it_asks_for(pair: Pair) -> None:
    batch_id, _, _ = make(pair, keep_ms=50)
    pair.lt = 49
    assert pair.do(c.ExpireRecords()) == 0
    pair.lt = 50
    assert pair.do(c.ExpireRecords()) == 1
    assert batch_id not in pair.store.batches
    pair.witness.compare(pair.store)
