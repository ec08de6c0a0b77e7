"""Contract operations, one by one or as an atomic batch with preconditions: checked first, then carried out.

Once a batch has passed its preconditions and there is room, no operation in it can fail, so nothing is ever undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

from quorker.core.jobs import commands
from quorker.core.jobs.collections import COLLECTION_HANDLERS
from quorker.core.jobs.commands import Batch, Precondition
from quorker.core.jobs.enqueue import no_queue_room, no_room
from quorker.core.jobs.jobs_contract import CONTRACT_HANDLERS
from quorker.core.jobs.outcome import Reply, Value, done, rejected
from quorker.core.jobs.tables import Tables

GROWING: Final = frozenset(
    {
        commands.SetJobParameter.OP,
        commands.AddToQueue.OP,
        commands.AddToSet.OP,
        commands.AddRangeToSet.OP,
        commands.InsertToList.OP,
        commands.SetRangeInHash.OP,
        commands.AnnounceServer.OP,
    }
)
"""Operations that may use the reserve of the store, but not more."""


def contract_op(tables: Tables, command: Any) -> Reply:
    """One contract operation."""
    return _no_room(tables, (command,)) or done(perform(tables, command))


def batch(tables: Tables, command: Batch) -> Reply:
    """Value: the value of each operation. Refused as a whole, with no effect, or carried out as a whole."""
    for position, precondition in enumerate(command.preconditions):
        if not holds(tables, precondition):
            return rejected("precondition_failed", f"{position}: {precondition}"[:1000])
    refusal = _no_room(tables, command.ops)
    if refusal is not None:
        return refusal
    return done(tuple([perform(tables, op) for op in command.ops]))


def perform(tables: Tables, command: Any) -> Value:
    handler = CONTRACT_HANDLERS.get(command.OP)
    if handler is not None:
        return handler(tables, command)
    return COLLECTION_HANDLERS[command.OP](tables.collections, tables, command)


def _no_room(tables: Tables, ops: Sequence[Any]) -> Reply | None:
    created = sum(type(op) is commands.CreateJob for op in ops)
    if created and (refusal := no_room(tables, created)):
        return refusal
    limits = tables.limits
    if any(op.OP in GROWING for op in ops):
        used = tables.state_bytes
        if used * 100 >= limits.max_state_bytes * limits.reserve_percent:
            return rejected("store_full", f"the store holds {used} bytes, more than its reserve")
    queues = dict.fromkeys(op.queue for op in ops if type(op) is commands.AddToQueue)
    return no_queue_room(tables, queues) if queues else None


def holds(tables: Tables, precondition: Precondition) -> bool:
    match precondition:
        case commands.JobInState(job_id, states):
            job = tables.jobs.get(job_id)
            return job is not None and job.state in states
        case commands.JobMissing(job_id):
            return job_id not in tables.jobs
        case commands.LockHeld(resource, token):
            lock = tables.locks.get(resource)
            return lock is not None and lock.token == token and not 0 < lock.expires_lt <= tables.lt
        case commands.LeaseHeld(token):
            return token in tables.leases
        case commands.HashFieldIs(key, name, value):
            return tables.collections.hashes.field(key, name) == value
        case commands.SetHolds(key, value, present):
            return tables.collections.sets.contains(key, value) == present
        case _:
            assert_never(precondition)
