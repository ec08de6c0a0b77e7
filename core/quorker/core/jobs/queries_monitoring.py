"""Reads about the store as a whole: statistics, history of counts, queues, servers, sessions, locks, health.

Statistics hold the numbers that the store counts itself and those of the keys that the storage contract names.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeAlias

from quorker.core.jobs import bounds
from quorker.core.jobs.bounds import refuse
from quorker.core.jobs.lifecycle import (
    AWAITING,
    ENQUEUED,
    FAILED,
    PROCESSING,
    QUARANTINED,
)
from quorker.core.jobs.limiters import Limiter
from quorker.core.jobs.queries_form import COUNT, KEY, START, TOKEN, Query, maybe, need, page_end
from quorker.core.jobs.queries_jobs import enqueued_jobs, scheduled_count
from quorker.core.jobs.records import Lock, Queue, Session
from quorker.core.jobs.tables import Tables

Fields: TypeAlias = dict[str, Any]

STATS: Final = ("succeeded", "failed", "deleted")
RETRIES_SET: Final = "retries"
RECURRING_SET: Final = "recurring-jobs"
WAITERS_SHOWN: Final = 20
LAST_INSTANT_MS: Final = 253_402_300_799_999  # the end of the year 9999, where the calendar ends


def statistics(tables: Tables) -> Fields:
    """How many of everything. `succeeded` and `deleted` are totals since the beginning, the rest is what is there.
    `limits`: keys that are in use; `limited`: jobs enqueued under one."""
    count = tables.index.count
    sets, counters = tables.collections.sets, tables.collections.counters
    return {
        "servers": len(tables.collections.servers),
        "recurring": len(tables.recurring) + sets.size(RECURRING_SET),
        "enqueued": count(ENQUEUED),
        "queued": sum(queue.length for queue in tables.queues.values()),
        "fetched": len(tables.leases),
        "queues": len(tables.queues),
        "scheduled": scheduled_count(tables),
        "processing": count(PROCESSING),
        "succeeded": counters.value("stats:succeeded"),
        "failed": count(FAILED),
        "deleted": counters.value("stats:deleted"),
        "retries": len(tables.index.retries) + sets.size(RETRIES_SET),
        "awaiting": count(AWAITING),
        "quarantined": count(QUARANTINED),
        "jobs": len(tables.jobs),
        "limits": len(tables.limiters.by_key),
        "limited": sum(queue.lined for queue in tables.queues.values()),
    }


def state_counts(tables: Tables) -> dict[str, int]:
    """Jobs by state, also by states that only the contract's users know. Names in order, empty states left out."""
    counts = ((name, tables.index.count(name)) for name in sorted(tables.index.states))
    return {name: count for name, count in counts if count}


def history(tables: Tables, what: str, unit: str, count: int) -> list[tuple[str, int]]:
    """(label, how many) for the last `count` UTC days or hours, newest first, the current one included, none left out.

    Labels: `2026-11-24` and `2026-11-24-07`, as in the keys of the counters.
    """
    now = datetime.fromtimestamp(min(tables.wt, LAST_INSTANT_MS) // 1000, UTC)
    step, form = _UNITS[unit]
    labels = [(now - step * back).strftime(form) for back in range(count)]
    value = tables.collections.counters.value
    return [(label, value(f"stats:{what}:{label}")) for label in labels]


_UNITS: Final = {"day": (timedelta(days=1), "%Y-%m-%d"), "hour": (timedelta(hours=1), "%Y-%m-%d-%H")}


def queues(tables: Tables, start: int, count: int, first: int) -> list[Fields]:
    """Queues by name, each with its first `first` entries."""
    names = sorted(tables.queues)[start : page_end(start, count)]
    return [
        _queue_fields(tables.queues[name]) | {"first": enqueued_jobs(tables, name, 0, first)}
        for name in names
    ]


def _queue_fields(queue: Queue) -> Fields:
    return {
        "name": queue.name,
        "length": queue.length,
        "fetched": len(queue.fetched),
        "paused": queue.paused,
        "paused_wt": queue.paused_wt,
        "reason": queue.reason,
        "author": queue.author,
    }


def servers(tables: Tables) -> list[Fields]:
    """Announced servers by id."""
    return [row._asdict() for row in tables.collections.servers]


def sessions(tables: Tables, start: int, count: int) -> list[Fields]:
    """Client sessions, the oldest first."""
    page = islice(tables.sessions.values(), start, page_end(start, count))
    return [_session_fields(tables, session) for session in page]


def session(tables: Tables, session_id: int) -> Fields | None:
    found = tables.sessions.get(session_id)
    return _session_fields(tables, found) if found else None


def _session_fields(tables: Tables, of: Session) -> Fields:
    return {
        "id": of.id,
        "name": of.name,
        "ttl_ms": of.ttl_ms,
        "expires_in_ms": of.expires_lt - tables.lt,
        "opened_wt": of.opened_wt,
        "queues": of.queues,
        "slots": of.slots,
        "busy": of.busy,
        "leases": len(of.leases),
        "locks": len(of.locks),
        "waits": len(of.waits),
    }


def locks(tables: Tables, start: int, count: int) -> list[Fields]:
    """Held locks. `expires_in_ms`: None when it ends with its session."""
    page = islice(tables.locks.values(), start, page_end(start, count))
    return [_lock_fields(tables, lock) for lock in page]


def lock(tables: Tables, resource: str) -> Fields | None:
    """Who holds a lock; None when it is free."""
    found = tables.locks.get(resource)
    return _lock_fields(tables, found) if found else None


def lock_ticket(tables: Tables, resource: str, ticket: int) -> Fields:
    """What became of a place in the line: {token: of the lock it was granted, or 0; waiting: is it still in line}."""
    found = tables.locks.get(resource)
    if found is None:
        return {"token": 0, "waiting": False}
    return {"token": found.token if found.ticket == ticket else 0, "waiting": ticket in found.waiters}


def _lock_fields(tables: Tables, of: Lock) -> Fields:
    holder = tables.sessions.get(of.session)
    return {
        "resource": of.resource,
        "token": of.token,
        "owner": of.owner,
        "session": of.session,
        "worker": holder.name if holder else "",
        "granted_wt": of.granted_wt,
        "expires_in_ms": of.expires_lt - tables.lt if of.expires_lt else None,
        "waiting": len(of.waiters),
        "waiters": [waiter.session for waiter in islice(of.waiters.values(), WAITERS_SHOWN)],
    }


def limits(tables: Tables, start: int, count: int) -> list[Fields]:
    """Keys by name. `holders`: jobs of it in workers' hands; `waiting`: enqueued under it; `next_lt`: the log time at which
    its rate allows another start, 0 for now."""
    known = tables.limiters.by_key
    return [_limit_fields(known[key]) for key in sorted(known)[start : page_end(start, count)]]


def limit(tables: Tables, key: str) -> Fields | None:
    """One key; None when nobody stands or runs under it."""
    found = tables.limiters.by_key.get(key)
    return _limit_fields(found) if found else None


def _limit_fields(of: Limiter) -> Fields:
    return {
        "key": of.key,
        "holders": of.holders,
        "waiting": of.waiting,
        "next_lt": of.due_lt if of.closed else 0,
    }


def clock(tables: Tables) -> Fields:
    """Log time and wall time of the last applied entry, in ms."""
    return {"lt": tables.lt, "wt": tables.wt}


def health(tables: Tables) -> Fields:
    """Sizes against their limits, and where the store is."""
    limits = tables.limits
    return {
        "applied_index": tables.applied_index,
        "lt": tables.lt,
        "wt": tables.wt,
        "epoch": tables.epoch,
        "jobs": len(tables.jobs),
        "jobs_max": limits.max_jobs,
        "state_bytes": tables.state_bytes,
        "state_bytes_max": limits.max_state_bytes,
        "sessions": len(tables.sessions),
        "sessions_max": limits.max_sessions,
        "queues": len(tables.queues),
        "queues_max": limits.max_queues,
        "locks": len(tables.locks),
        "locks_max": limits.max_locks,
        "leases": len(tables.leases),
        "unique_keys": len(tables.unique_keys),
        "recurring": len(tables.recurring),
        "recurring_max": limits.max_recurring,
        "batches": len(tables.batches),
        "batches_max": limits.max_batches,
    }


def one_of(what: str, known: tuple[str, ...]) -> bounds.Check[str]:
    """A word out of a few."""

    def check(value: Any) -> str:
        if type(value) is not str or value not in known:
            refuse(what, f"must be one of {', '.join(known)}")
        return value

    return check


_HISTORY: Final = {
    "what": need(one_of("what", STATS)),
    "unit": need(one_of("unit", tuple(_UNITS))),
    "count": need(bounds.whole("count", 0, 1000)),
}

QUERIES: Final[dict[str, Query]] = {
    "statistics": Query(statistics),
    "state_counts": Query(state_counts),
    "history": Query(history, _HISTORY),
    "queues": Query(
        queues, {"start": START, "count": COUNT, "first": maybe(bounds.whole("first", 0, 100), 5)}
    ),
    "servers": Query(servers),
    "sessions": Query(sessions, {"start": START, "count": COUNT}),
    "session": Query(session, {"session": TOKEN}),
    "locks": Query(locks, {"start": START, "count": COUNT}),
    "lock": Query(lock, {"resource": KEY}),
    "lock_ticket": Query(lock_ticket, {"resource": KEY, "ticket": TOKEN}),
    "limits": Query(limits, {"start": START, "count": COUNT}),
    "limit": Query(limit, {"key": KEY}),
    "clock": Query(clock),
    "health": Query(health),
}
