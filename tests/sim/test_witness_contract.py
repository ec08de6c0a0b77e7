"""The witness knows the storage contract: what is created, moved, fetched, renewed and locked by it, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sim.test_witness import Pair, rejects, says

from quorker.core.jobs import commands as c


@pytest.fixture
def pair() -> Pair:
    return Pair()


def create(job_id: str, queue: str = "contract", expire_in_ms: int = 10_000) -> c.CreateJob:
    return c.CreateJob(job_id, "task", b"", queue, (("p", "1"),), expire_in_ms)


def fetched(pair: Pair, *job_ids: str, session: int = 0) -> list[int]:
    """Jobs that were created, enqueued and fetched; their tokens."""
    steps = [step for job_id in job_ids for step in (create(job_id), c.AddToQueue("contract", job_id))]
    pair.do(*steps)
    return [pair.do(c.FetchNext(("contract",)), session=session)[2] for _ in job_ids]


def test_a_life_by_contract_is_accepted(pair: Pair) -> None:
    job_id = pair.do(create(""))
    steps = (
        c.SetJobState(job_id, "Enqueued", "", ()),
        c.PersistJob(job_id),
        c.AddToQueue("contract", job_id),
    )
    pair.do(c.Batch((c.JobInState(job_id, ("",)),), steps))
    token = pair.do(c.FetchNext(("other", "contract")))[2]
    pair.do(c.SetJobParameter(job_id, "p", None), c.AddJobState(job_id, "Odd", "", ()), c.RenewFetched(token))
    done = (c.SetJobState(job_id, "Succeeded", "", ()), c.ExpireJob(job_id, 50), c.AckFetched(token))
    pair.do(c.Batch((c.LeaseHeld(token),), done))
    pair.do(c.TryLock("r", "me", 50), c.TryLock("r", "you", 50), c.Unlock("r", "you"), c.Unlock("r", "me"))
    pair.witness.compare(pair.store)
    pair.lt = 50
    assert pair.do(c.ExpireRecords()) == 1
    pair.witness.compare(pair.store)


def test_a_job_that_is_dispatched_out_of_a_queue_of_the_contract(pair: Pair) -> None:
    """It is in the hands of a worker then; moved by contract, it is taken from it."""
    session = pair.worker(1)
    pair.do(create("j", "default"), c.SetJobState("j", "Enqueued", "", ()), c.AddToQueue("default", "j"))
    pair.do(c.SetJobState("j", "Odd", "", ()))
    assert not pair.store.sessions[session].leases
    pair.do(c.AddToQueue("default", "j"), c.RequeueJob("j"))
    pair.do(c.CompleteJob("j", 0), session=session)  # refused: no token is none
    pair.do(c.FailJob("j", pair.store.jobs["j"].token, "E", "m", ""), session=session)
    pair.witness.compare(pair.store)


def test_what_was_fetched_in_a_session_that_ends_goes_back_newest_first(pair: Pair) -> None:
    session = pair.worker(0)
    fetched(pair, "one", "two", session=session)
    pair.do(c.CloseSession(), session=session)
    pair.witness.compare(pair.store)
    assert pair.do(c.FetchNext(("contract",)))[0] == "one"


def test_what_is_not_renewed_is_reclaimed_until_it_is_quarantined(pair: Pair) -> None:
    (token,) = fetched(pair, "j")
    for _ in range(9):
        pair.lt += 100
        assert pair.do(c.Maintain(100))[2] == 1
        token = pair.do(c.FetchNext(("contract",)))[2]
    pair.lt += 100
    pair.do(c.Maintain(100))
    assert pair.store.jobs["j"].state == "Quarantined"
    assert not pair.do(c.AckFetched(token))
    pair.witness.compare(pair.store)


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (create("j"), "k"),
        (c.SetJobState("j", "Odd", "", ()), False),
        (c.ExpireJob("nobody", 5), True),
        (c.FetchNext(("contract",)), ["j", "contract", 5]),
        (c.RenewFetched(5), True),
        (c.AckFetched(5), True),
        (c.TryLock("free", "me", 50), 0),
        (c.TryLock("held", "me", 50), 7),
        (c.Unlock("held", "me"), True),
    ],
)
def test_a_wrong_value(pair: Pair, command: c.Command, value: Any) -> None:
    fetched(pair, "j")
    pair.do(c.TryLock("held", "you", 500))
    rejects(lambda: pair.do(command, tamper=says((0, value))), "reply to ")


def test_a_job_that_was_fetched_out_of_order(pair: Pair) -> None:
    pair.do(create("one"), create("two"), c.AddToQueue("contract", "one"), c.AddToQueue("contract", "two"))
    fetch = c.FetchNext(("contract",))
    rejects(lambda: pair.do(fetch, tamper=says((0, ["two", "contract", 5]))), "reply to ")


@pytest.mark.parametrize("what", ["parameter", "history", "expiry", "lease", "owner"])
def test_a_store_that_ends_up_different(pair: Pair, what: str) -> None:
    (token,) = fetched(pair, "j")
    pair.do(c.SetJobState("j", "Odd", "", ()), c.TryLock("r", "me", 500))
    pair.witness.compare(pair.store)
    store, job = pair.store, pair.store.jobs["j"]
    if what == "parameter":
        store.jobs["j"] = job._replace(parameters=(("p", "2"),))
    elif what == "history":
        store.jobs["j"] = job._replace(history=())
    elif what == "expiry":
        store.jobs["j"] = job._replace(expires_lt=0)
    elif what == "lease":
        store.remove_lease(store.leases[token])
    else:
        store.locks["r"].owner = "you"
    rejects(lambda: pair.witness.compare(store))


def test_job_data_are_read_as_they_were(pair: Pair) -> None:
    pair.do(create("j"))
    first = pair.store.applied_index
    pair.do(c.SetJobParameter("j", "p", "2"), c.SetJobState("j", "Odd", "", ()))
    witness, last = pair.witness, pair.store.applied_index
    witness.on_read("job", "j", first - 1, None)
    witness.on_read("job", "j", first, {"state": None, "parameters": {"p": "1"}})
    witness.on_read("job", "j", last, pair.store.query("job", {"job_id": "j"}))
    rejects(lambda: witness.on_read("job", "j", last, {"state": "Odd", "parameters": {"p": "1"}}), "job of j")
