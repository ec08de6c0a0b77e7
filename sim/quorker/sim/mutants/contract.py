"""Bugs of the storage contract's operations on jobs, fetched jobs, owned locks and collections."""

from __future__ import annotations

from typing import Any, Final

from quorker.core.jobs import jobs_contract, leases
from quorker.core.jobs.collections import COLLECTION_HANDLERS, Collections, Moment
from quorker.core.jobs.commands import (
    CreateJob,
    FetchNext,
    PersistHash,
    PersistList,
    RenewFetched,
    TryLock,
    Unlock,
)
from quorker.core.jobs.jobs_contract import CONTRACT_HANDLERS
from quorker.core.jobs.records import Job, Lease, LeaseKind
from quorker.core.jobs.tables import Tables
from quorker.sim.mutants.cases import by_contract
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in

MODEL: Final = ("witness [C1]",)


@bug(
    "A fetched job that has ended meanwhile is put back into its queue all the same, and never expires.",
    known="Hangfire storages that requeue by queue row alone",
    oracles=MODEL,
    budget=200,
    case=by_contract,
)
def ended_jobs_are_requeued(patch: Patch) -> None:
    def return_fetched(tables: Tables, lease: Lease, job: Job) -> None:
        tables.change_job(job, job._replace(expires_lt=0))
        tables.return_to_queue(lease.queue, job.spec.priority, job.id)

    patch.replace(leases, "_return_fetched", return_fetched)


@bug(
    "A fetched job counts from its fetch, however often it is renewed.",
    known="Hangfire storages with a fixed invisibility timeout: long jobs run twice",
    oracles=MODEL,
    budget=20,
    case=by_contract,
)
def renewals_are_forgotten(patch: Patch) -> None:
    def renew(tables: Tables, command: RenewFetched) -> bool:
        return command.token in tables.fetched

    patch.replace_item(CONTRACT_HANDLERS, RenewFetched.OP, renew)


@bug(
    "A place in a queue whose job is gone is handed out as if there were one.",
    oracles=MODEL,
    budget=20,
    case=by_contract,
)
def jobs_that_are_gone_are_fetched(patch: Patch) -> None:
    def fetch_next(tables: Tables, command: FetchNext) -> Any:
        for name in command.queues:
            queue = tables.queues.get(name)
            if queue is not None and queue.has_next and not queue.paused:
                job_id, token = tables.pop_from_queue(queue), tables.next_token()
                holder = tables.session.id if tables.session else 0
                tables.add_lease(Lease(token, job_id, name, holder, LeaseKind.FETCHED, tables.lt, tables.wt))
                return job_id, name, token
        return None

    patch.replace_item(CONTRACT_HANDLERS, FetchNext.OP, fetch_next)


@bug(
    "A job of the same id is replaced, and stays in the queues in which the old one stood.",
    oracles=MODEL,
    budget=60,
    case=by_contract,
)
def replaced_jobs_keep_their_places(patch: Patch) -> None:
    def create(tables: Tables, command: CreateJob) -> Any:
        places = tables.places.get(command.job_id, ())
        job_id = make(tables, command)
        for place in places:
            tables.append_to_queue(place.queue, place.priority, job_id)
        return job_id

    make = patch.replace_item(CONTRACT_HANDLERS, CreateJob.OP, create)


@bug(
    "A job that is moved or replaced by contract stays with its worker.",
    known="a state that is changed beside the lease",
    oracles=(*MODEL, "store invariant"),
    budget=50,
    case=by_contract,
)
def moved_jobs_stay_with_their_workers(patch: Patch) -> None:
    patch.replace(jobs_contract, "revoke", always(None))


def _give_away(tables: Tables, command: TryLock | Unlock) -> None:
    """An owned lock belongs to whoever asks."""
    lock = tables.locks.get(command.resource)
    if lock is not None and lock.owner:
        lock.owner = command.owner


@bug(
    "An owner that asks for a lock is given that of another owner.",
    oracles=MODEL,
    budget=20,
    case=by_contract,
)
def locks_have_any_owner(patch: Patch) -> None:
    def try_lock(tables: Tables, command: TryLock) -> Any:
        _give_away(tables, command)
        return take(tables, command)

    take = patch.replace_item(CONTRACT_HANDLERS, TryLock.OP, try_lock)


@bug(
    "A lock is let go by whoever asks for it.",
    known="Redis recipes: DEL without comparing the value",
    oracles=MODEL,
    budget=20,
    case=by_contract,
)
def locks_are_let_go_by_anybody(patch: Patch) -> None:
    def unlock(tables: Tables, command: Unlock) -> Any:
        _give_away(tables, command)
        return let_go(tables, command)

    let_go = patch.replace_item(CONTRACT_HANDLERS, Unlock.OP, unlock)


@bug(
    "A list or a hash that is to be kept expires all the same.",
    oracles=MODEL,
    budget=500,
    case=by_contract,
)
def kept_collections_expire(patch: Patch) -> None:
    def persist_list(tables: Collections, _: Moment, command: PersistList) -> bool:
        return command.key in tables.lists

    def persist_hash(tables: Collections, _: Moment, command: PersistHash) -> bool:
        return command.key in tables.hashes

    patch.replace_item(COLLECTION_HANDLERS, PersistList.OP, persist_list)
    patch.replace_item(COLLECTION_HANDLERS, PersistHash.OP, persist_hash)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
