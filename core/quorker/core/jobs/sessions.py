"""Sessions: opening, renewing, subscribing, and what their end does to everything they hold.

A session is a client's numbered conversation and its sign of life. It ends when it is closed (nothing is held against
its jobs), replaced by a restarted process, or expired (its deliveries were lost). Deduplication is in `store`.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import Final

from quorker.core.jobs.commands import (
    CloseSession,
    ExpireSessions,
    FetchJobs,
    KeepAlive,
    OpenSession,
    ReplaceSessions,
    Subscribe,
)
from quorker.core.jobs.dispatch import grant, offer_slots, take_next, withdraw_slots
from quorker.core.jobs.enqueue import no_queue_room
from quorker.core.jobs.leases import give_back, lose
from quorker.core.jobs.locks import end_of_session
from quorker.core.jobs.new_job import grant_to_wire
from quorker.core.jobs.outcome import OK, Notice, Reply, Value, done, rejected
from quorker.core.jobs.records import LeaseKind, Session
from quorker.core.jobs.tables import Tables

NEEDS_SESSION: Final = rejected("no_session", "this command belongs to a session")


def open_session(tables: Tables, command: OpenSession) -> Reply:
    """Value: the id. The same nonce finds the session that it has opened, as long as that lives."""
    nonce = tables.sequence
    opened = tables.by_nonce.get(nonce)
    if opened is not None:
        return done(opened)
    if len(tables.sessions) >= tables.limits.max_sessions:
        return rejected("too_many_sessions", f"there are {len(tables.sessions)}")
    session = Session(tables.next_token(), command.name, nonce, command.ttl_ms, tables.lt, tables.wt)
    add_session(tables, session)
    return done(session.id)


def add_session(tables: Tables, session: Session) -> None:
    tables.sessions[session.id] = session
    tables.by_nonce[session.nonce] = session.id
    tables.by_name.setdefault(session.name, {})[session.id] = None
    heappush(tables.session_expiry, (session.expires_lt, session.id))


def replace_sessions(tables: Tables, command: ReplaceSessions) -> Reply:
    """Value: how many ended. Ids grow with the log, so an older session is one with a smaller id."""
    own = tables.session
    if own is None:
        return NEEDS_SESSION
    older = [session_id for session_id in tables.by_name[own.name] if session_id < own.id]
    for session_id in older:
        end_session(tables, tables.sessions[session_id], "replaced by a newer session", lost=True)
    return done(len(older))


def close_session(tables: Tables, command: CloseSession) -> Reply:
    if tables.session is None:
        return NEEDS_SESSION
    end_session(tables, tables.session, "closed", lost=False)
    return OK


def keep_alive(tables: Tables, command: KeepAlive) -> Reply:
    """Every command renews its session; this one does nothing else."""
    return OK if tables.session else NEEDS_SESSION


def expire_sessions(tables: Tables, command: ExpireSessions) -> Reply:
    """Value: how many ended. Checked again here: a session renewed meanwhile lives on."""
    ended = 0
    for session_id in command.session_ids:
        session = tables.sessions.get(session_id)
        if session is not None and session.expires_lt <= tables.lt:
            end_session(tables, session, "expired", lost=True)
            ended += 1
    return done(ended)


def end_session(tables: Tables, session: Session, reason: str, *, lost: bool) -> None:
    """Its jobs return to their queues, newest first, so that the oldest ends at the very head; then it is gone."""
    session.slots = 0
    withdraw_slots(tables, session)
    why = f"its session {session.name} {reason}" if lost else f"session {session.name} closed"
    for token in reversed(list(session.leases)):
        if token in session.leases:  # a quarantine may have taken it along
            (lose if lost else give_back)(tables, tables.leases[token], why)
    end_of_session(tables, session)
    del tables.sessions[session.id]
    del tables.by_nonce[session.nonce]
    siblings = tables.by_name[session.name]
    del siblings[session.id]
    if not siblings:
        del tables.by_name[session.name]
    tables.outcome.notices.append(Notice(session.id, "session_closed", reason))


def due_sessions(tables: Tables, lt: int, limit: int) -> list[int]:
    """Ids of sessions past their time at `lt`, as many as hold about `limit` leases. Changes only the order of looking."""
    heap = tables.session_expiry
    due: list[int] = []
    leases = 0
    while heap and heap[0][0] <= lt and leases <= limit and len(due) < limit:
        session_id = heap[0][1]
        session = tables.sessions.get(session_id)
        if session is None:
            heappop(heap)
        elif session.expires_lt > heap[0][0]:
            heapreplace(heap, (session.expires_lt, session_id))
        else:
            heappop(heap)
            due.append(session_id)
            leases += len(session.leases)
    for session_id in due:
        heappush(heap, (tables.sessions[session_id].expires_lt, session_id))
    return due


def next_session_expiry(tables: Tables) -> int | None:
    """When the first session ends unless it is renewed, or None."""
    heap = tables.session_expiry
    while heap:
        session = tables.sessions.get(heap[0][1])
        if session is None:
            heappop(heap)
        elif session.expires_lt > heap[0][0]:
            heapreplace(heap, (session.expires_lt, session.id))
        else:
            return session.expires_lt
    return None


def subscribe(tables: Tables, command: Subscribe) -> Reply:
    """Replaces what was declared before. With no slots, nothing more is granted; what is running goes on."""
    session = tables.session
    if session is None:
        return NEEDS_SESSION
    if command.slots > tables.limits.max_session_leases:
        return rejected("too_many_slots", f"at most {tables.limits.max_session_leases}")
    queues = dict.fromkeys(command.queues)
    refusal = no_queue_room(tables, queues)
    if refusal is not None:
        return refusal
    withdraw_slots(tables, session)
    session.queues = tuple(queues)
    session.slots = command.slots if queues else 0
    offer_slots(tables, session)
    return OK


def fetch_jobs(tables: Tables, command: FetchJobs) -> Reply:
    """Value: grants in wire form, at most `limit`, from the first queues first. They take no slot."""
    session = tables.session
    if session is None:
        return NEEDS_SESSION
    room = min(command.limit, tables.limits.max_session_leases - len(session.leases))
    granted: list[Value] = []
    for name in command.queues:
        queue = tables.queues.get(name)
        while queue is not None and len(granted) < room and not queue.paused:
            job = take_next(tables, queue)
            if job is None:
                break
            granted.append(grant_to_wire(grant(tables, session, name, job, LeaseKind.PULLED)))
    return done(tuple(granted))
