"""Named locks with fencing tokens and a fair line of waiters; those of sessions and those of contract owners alike.

A lock is bound to its session, or held for a time to live of log time. Whoever takes it first gets a token; on release
or expiry the next waiter whose session still lives gets the next token, in the same apply. A lock is never re-entrant.
"""

from __future__ import annotations

from typing import Final

from quorker.core.jobs.commands import AcquireLock, ReleaseLock, TryLock, Unlock
from quorker.core.jobs.outcome import YES, LockGrant, Notice, Reply, done, rejected
from quorker.core.jobs.records import Lock, Session, Waiter
from quorker.core.jobs.tables import Tables

WAITERS_MAX: Final = 10_000


def acquire_lock(tables: Tables, command: AcquireLock) -> Reply:
    """Value: ("granted", token) or ("waiting", ticket). Refused with `lock_held` when it does not want to wait."""
    session = tables.session
    if session is None and (command.wait or not command.ttl_ms):
        return rejected(
            "no_session", "only a lock with a ttl can be taken without a session, and without waiting"
        )
    if session is not None and len(session.locks) + len(session.waits) >= tables.limits.max_session_locks:
        return rejected("too_many_locks", f"the session has {tables.limits.max_session_locks} locks or waits")
    lock = current_lock(tables, command.resource)
    if lock is None:
        return _take(tables, command, session)
    if session is None or not command.wait:
        return rejected("lock_held", f"{command.resource} is held under token {lock.token}")
    if len(lock.waiters) >= WAITERS_MAX:
        return rejected("too_many_locks", f"{WAITERS_MAX} wait for {command.resource}")
    ticket = tables.next_token()
    lock.waiters[ticket] = Waiter(ticket, session.id, command.ttl_ms)
    session.waits[ticket] = command.resource
    return done(("waiting", ticket))


def _take(tables: Tables, command: AcquireLock, session: Session | None) -> Reply:
    if len(tables.locks) >= tables.limits.max_locks:
        return rejected("store_full", f"there are {len(tables.locks)} locks")
    lock = Lock(command.resource)
    tables.add_lock(lock)
    _hold(tables, lock, session, command.ttl_ms, 0)
    return done(("granted", lock.token))


def _hold(tables: Tables, lock: Lock, session: Session | None, ttl_ms: int, ticket: int) -> None:
    lock.token = tables.next_token()
    lock.ticket = ticket
    lock.owner = ""
    lock.granted_wt = tables.wt
    lock.session = session.id if session else 0
    tables.set_lock_expiry(lock, tables.lt + ttl_ms if ttl_ms else 0)
    if session is not None and not ttl_ms:
        session.locks[lock.token] = lock.resource


def current_lock(tables: Tables, resource: str) -> Lock | None:
    """The lock as it is now: one past its time goes to its next waiter first."""
    lock = tables.locks.get(resource)
    if lock is not None and lock.expires_lt and lock.expires_lt <= tables.lt:
        pass_on(tables, lock)
        return tables.locks.get(resource)
    return lock


def release_lock(tables: Tables, command: ReleaseLock) -> Reply:
    """Value: True. By a ticket that still waits: it leaves the line. A stale token is refused with `lease_lost`."""
    lock = tables.locks.get(command.resource)
    if lock is None:
        return rejected("lease_lost", f"nobody holds {command.resource}")
    waiter = lock.waiters.pop(command.token, None)
    if waiter is not None:
        del tables.sessions[waiter.session].waits[waiter.ticket]
        return YES
    if not command.token or command.token not in (lock.token, lock.ticket):
        return rejected("lease_lost", f"{command.resource} is held under token {lock.token}")
    pass_on(tables, lock)
    return YES


def pass_on(tables: Tables, lock: Lock) -> None:
    """The lock is let go: to the first waiter, or it is gone."""
    _unbind(tables, lock)
    if not lock.waiters:
        tables.set_lock_expiry(lock, 0)
        tables.drop_lock(lock)
        return
    if not tables.tokens_left:  # held by nobody and expired: the next command that looks at it passes it on
        lock.session, lock.owner = 0, ""
        tables.set_lock_expiry(lock, max(1, tables.lt))
        return
    waiter = lock.waiters.pop(next(iter(lock.waiters)))
    session = tables.sessions[waiter.session]
    del session.waits[waiter.ticket]
    _hold(tables, lock, session, waiter.ttl_ms, waiter.ticket)
    granted = LockGrant(lock.resource, lock.token, waiter.ticket)
    tables.outcome.notices.append(Notice(session.id, "lock", granted))


def _unbind(tables: Tables, lock: Lock) -> None:
    session = tables.sessions.get(lock.session)
    if session is not None:
        session.locks.pop(lock.token, None)


def end_of_session(tables: Tables, session: Session) -> None:
    """Its places in lines are given up first, so that it is not granted what it is about to lose."""
    for ticket, resource in session.waits.items():
        del tables.locks[resource].waiters[ticket]
    session.waits.clear()
    for resource in list(session.locks.values()):
        pass_on(tables, tables.locks[resource])


# --- the contract's locks: by owner name, always with a time to live ---


def try_lock(tables: Tables, command: TryLock) -> int:
    """The token under which the owner now holds the lock, or 0. The same owner renews; its time never goes back."""
    lock = current_lock(tables, command.resource)
    if lock is None:
        if len(tables.locks) >= tables.limits.max_locks:
            return 0
        lock = Lock(command.resource)
        tables.add_lock(lock)
        _hold(tables, lock, None, max(1, command.lease_ms), 0)
        lock.owner = command.owner
        return lock.token
    if lock.owner != command.owner:
        return 0
    tables.set_lock_expiry(lock, max(lock.expires_lt, tables.lt + command.lease_ms))
    return lock.token


def unlock(tables: Tables, command: Unlock) -> bool:
    """Was it this owner's."""
    lock = tables.locks.get(command.resource)
    if lock is None or lock.owner != command.owner:
        return False
    pass_on(tables, lock)
    return True


def expire_locks(tables: Tables, limit: int) -> int:
    """Pass on or drop up to `limit` locks past their time. Returns how many."""
    due = [resource for expires_lt, resource in tables.lock_expiry.page(0, limit) if expires_lt <= tables.lt]
    for resource in due:
        pass_on(tables, tables.locks[resource])
    return len(due)
