"""The two maintenance commands, and which of all of them the leader should propose now.

Whatever `due` names is checked again when it is applied: members never act on a clock of their own. An idle store has
nothing due, so an idle cluster writes nothing.
"""

from __future__ import annotations

from quorker.core.jobs.commands import (
    AdvanceRecurring,
    ExpireRecords,
    ExpireSessions,
    Maintain,
    ReleaseDue,
    SetLimits,
    Wire,
    encode,
)
from quorker.core.jobs.leases import lose
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.locks import expire_locks
from quorker.core.jobs.outcome import Reply, done
from quorker.core.jobs.recurring_plan import due_steps, next_slot_due
from quorker.core.jobs.reports import time_out
from quorker.core.jobs.retention import evict_batches, evict_jobs, expire_unique_keys, next_retention
from quorker.core.jobs.schedule import next_start
from quorker.core.jobs.sessions import due_sessions, next_session_expiry
from quorker.core.jobs.tables import Tables


def expire_records(tables: Tables, command: ExpireRecords) -> Reply:
    """Value: how many records ended."""
    limit = tables.limits.piece
    evicted, orphans = evict_jobs(tables, limit)
    unique = expire_unique_keys(tables, limit)
    locks = expire_locks(tables, limit)
    batches = evict_batches(tables, limit)
    collections = tables.collections.expire_due(tables.lt, limit)
    return done(evicted + orphans + unique + locks + batches + collections)


def maintain(tables: Tables, command: Maintain) -> tuple[int, int, int, int, int, int]:
    """Value: (jobs evicted, orphans, leases reclaimed, locks, collections, queues dropped)."""
    limit = tables.limits.piece
    evicted, orphans = evict_jobs(tables, limit)
    expire_unique_keys(tables, limit)
    collections = tables.collections.expire_due(tables.lt, limit)
    locks = expire_locks(tables, limit)
    reclaimed = _reclaim_fetched(tables, command.invisibility_ms, limit) + _time_out(tables, limit)
    return evicted, orphans, reclaimed, locks, collections, _drop_empty_queues(tables)


def _reclaim_fetched(tables: Tables, invisibility_ms: int, limit: int) -> int:
    """Leases not renewed for so long; newest first, so that the oldest ends at the very head of its queue."""
    stale: list[int] = []
    for token in tables.fetched:
        if tables.leases[token].since_lt + invisibility_ms > tables.lt or len(stale) >= limit:
            break
        stale.append(token)
    for token in reversed(stale):
        if token in tables.leases:  # a quarantine may have taken it along
            lose(tables, tables.leases[token], "its fetch was not renewed")
    return len(stale)


def _time_out(tables: Tables, limit: int) -> int:
    due = [token for deadline_lt, token in tables.deadlines.page(0, limit) if deadline_lt <= tables.lt]
    for token in due:
        time_out(tables, token)
    return len(due)


def _drop_empty_queues(tables: Tables) -> int:
    """Queues without entries, holders, takers and pause. Their number is limited, so this walk is."""
    empty = [
        name
        for name, queue in tables.queues.items()
        if not (queue.length or queue.fetched or queue.ready or queue.paused)
    ]
    for name in empty:
        tables.drop_queue(name)
    return len(empty)


def due_commands(tables: Tables, wanted: Limits, lt: int, wt: int, *, has_space: bool = True) -> list[Wire]:
    """Commands that the leader should propose now, in wire form; each does a bounded piece."""
    lt, wt = max(lt, tables.lt), max(wt, tables.wt)
    found: list[Wire] = []
    if wanted != tables.limits:
        found.append(encode(SetLimits(wanted.values())))
    sessions = due_sessions(tables, lt, tables.limits.piece)
    if sessions:
        found.append(encode(ExpireSessions(tuple(sessions))))
    start = next_start(tables)
    opening = _next_opening(tables)
    is_due = (start is not None and start <= wt) or (opening is not None and opening <= lt)
    if tables.unresolved or tables.stirred or is_due:
        found.append(encode(ReleaseDue()))
    retention = next_retention(tables)
    if retention is not None and retention <= lt:
        found.append(encode(ExpireRecords()))
    lease = _next_lease(tables)
    if lease is not None and lease <= lt:
        found.append(encode(Maintain(tables.limits.invisibility_ms)))
    steps = due_steps(tables, wt) if has_space else ()
    if steps:
        found.append(encode(AdvanceRecurring(steps)))
    return found


def next_due(tables: Tables, wanted: Limits, *, has_space: bool = True) -> tuple[int | None, int | None]:
    """(log time, wall time) at which something is due at the earliest; None where nothing waits."""
    due_wt = _earliest(next_start(tables), next_slot_due(tables) if has_space else None)
    if tables.unresolved or wanted != tables.limits or tables.stirred:
        return tables.lt, due_wt
    due_lt = _earliest(
        next_session_expiry(tables), next_retention(tables), _next_lease(tables), _next_opening(tables)
    )
    return due_lt, due_wt


def _earliest(*instants: int | None) -> int | None:
    return min((each for each in instants if each is not None), default=None)


def _next_opening(tables: Tables) -> int | None:
    """When a rate allows another start; whatever entry comes then opens its key."""
    first = tables.limiters.due.first()
    return first[0] if first else None


def _next_lease(tables: Tables) -> int | None:
    """When a lease that must be renewed or reported is overdue."""
    instants: list[int] = []
    if tables.fetched:
        instants.append(tables.leases[next(iter(tables.fetched))].since_lt + tables.limits.invisibility_ms)
    first = tables.deadlines.first()
    if first is not None:
        instants.append(first[0])
    return min(instants, default=None)
