"""What each row of a snapshot holds, both ways: records to rows, rows to records and back into tables.

A row begins with the number of its kind. Kinds come in a fixed order, so that what a row refers to is there already.
Bytes, checksums and chunks must not live here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final, TypeAlias

from quorker.core.jobs.collections import Collections
from quorker.core.jobs.limiters import Limiter, Line
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob, RetryPolicy, StartRules
from quorker.core.jobs.records import (
    Job,
    JobBatch,
    Lease,
    LeaseKind,
    Lock,
    Queue,
    Recurring,
    Session,
    StateRecord,
    UniqueKey,
    Waiter,
)
from quorker.core.jobs.sessions import add_session
from quorker.core.jobs.tables import EPOCH_MAX, INDEX_MAX, Tables

Row: TypeAlias = tuple[Any, ...]
Head: TypeAlias = tuple[int, int, int, int, int, bytes, tuple[int, ...]]
"""applied_index, lt, wt, order, epoch, chain, limits."""

QUEUE: Final = 1
ENTRIES: Final = 2
JOB: Final = 3
SESSION: Final = 4
LEASE: Final = 5
LOCK: Final = 6
UNIQUE_KEY: Final = 7
COLLECTION: Final = 8
UNRESOLVED: Final = 9
END: Final = 10
RECURRING: Final = 11
BATCH: Final = 13
LIMITER: Final = 20
LINE: Final = 21
START_BY: Final = 22
SEGMENT_ITEMS: Final = 256
LAST_OF_HISTORY: Final = -1
_NEWEST: Final = NewJob._fields.index("start")
_NOTHING_NEW: Final = tuple(NewJob(""))[_NEWEST:]


# --- records to rows ---


def head_of(tables: Tables) -> Head:
    return (
        tables.applied_index,
        tables.lt,
        tables.wt,
        tables.order,
        tables.epoch,
        tables.chain,
        tables.limits.values(),
    )


def job_row(job: Job) -> Row:
    """The current state is written as its place in the history, or in full where it is not there any more."""
    current, history = job.current, job.history
    if current is None:
        where: Any = None
    elif history and history[-1] is current:
        where = LAST_OF_HISTORY
    else:
        where = next((at for at, each in enumerate(history) if each is current), current)
    return (JOB, job.id, _spec_row(job.spec), *job[2:4], where, *job[5:])


def _spec_row(spec: NewJob) -> Row:
    """Without the newest fields where nothing is in them."""
    return spec[:_NEWEST] if spec[_NEWEST:] == _NOTHING_NEW else spec


def lease_row(lease: Lease) -> Row:
    return (LEASE, *lease) if lease.limit_key else (LEASE, *lease[:-1])


def limiter_row(limiter: Limiter) -> Row:
    return (LIMITER, limiter.key, limiter.tat_us, limiter.closed, limiter.due_lt)


def line_rows(line: Line) -> Iterator[Row]:
    """(-priority, position, job id, limit, does it have a rate), the head first, in segments."""
    entries = ((*row, *line.entries[row[1]]) for row in line.rows)
    while segment := tuple(islice(entries, SEGMENT_ITEMS)):
        yield (LINE, line.queue.name, line.key, segment)


def start_by_rows(instants: list[tuple[str, int]]) -> Iterator[Row]:
    for start in range(0, len(instants), SEGMENT_ITEMS):
        yield (START_BY, instants[start : start + SEGMENT_ITEMS])


def queue_row(queue: Queue) -> Row:
    return (QUEUE, queue.name, queue.paused, queue.reason, queue.author, queue.paused_wt)


def entry_rows(name: str, priority: int, parts: list[dict[int, str]]) -> Iterator[Row]:
    """(position, job id) of one lane, in segments; those put back to the head come first, the oldest of them first."""
    entries = chain.from_iterable(part.items() for part in parts)
    while segment := list(islice(entries, SEGMENT_ITEMS)):
        yield (ENTRIES, name, priority, segment)


def session_row(session: Session) -> Row:
    return (
        SESSION,
        session.id,
        session.name,
        session.nonce,
        session.ttl_ms,
        session.expires_lt,
        session.opened_wt,
        session.acked_below,
        session.queues,
        session.slots,
        session.turn,
        tuple(session.replies.items()),
    )


def lock_row(lock: Lock) -> Row:
    return (
        LOCK,
        lock.resource,
        lock.token,
        lock.ticket,
        lock.session,
        lock.owner,
        lock.expires_lt,
        lock.granted_wt,
        tuple(lock.waiters.values()),
    )


def unresolved_rows(parent_ids: list[str]) -> Iterator[Row]:
    for start in range(0, len(parent_ids), SEGMENT_ITEMS):
        yield (UNRESOLVED, parent_ids[start : start + SEGMENT_ITEMS])


# --- rows to records ---


class Reader:
    """Puts rows into empty tables. Raises ValueError, or whatever a damaged row leads to; the tables are lost then."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._collections: list[Row] = []
        self._finished = False
        self._readers = {
            QUEUE: self._queue,
            ENTRIES: self._entries,
            JOB: self._job,
            SESSION: self._session,
            LEASE: self._lease,
            LOCK: self._lock,
            UNIQUE_KEY: self._unique_key,
            COLLECTION: self._collections.append,
            UNRESOLVED: self._unresolved,
            RECURRING: self._recurring,
            LIMITER: self._limiter,
            LINE: self._line,
            START_BY: self._start_by,
            END: self._end,
            BATCH: self._batch,
        }

    def head(self, fields: Row) -> None:
        tables = self._tables
        *numbers, chain, limits = fields
        tables.applied_index, tables.lt, tables.wt, tables.order, tables.epoch = numbers
        _require(all(type(number) is int and number >= 0 for number in numbers), "head")
        _require(tables.applied_index <= INDEX_MAX and tables.epoch <= EPOCH_MAX, "head")
        _require(type(chain) is bytes, "chain")
        tables.chain = chain
        tables.limits = Limits.from_values(limits)

    def row(self, row: Row) -> None:
        _require(not self._finished, "a row after the last")
        self._readers[row[0]](row[1:])

    def finish(self) -> None:
        """Rebuild what is not stored."""
        _require(self._finished, "the last row is missing")
        tables = self._tables
        tables.index.rebuild(tables.jobs.values())
        for lease in tables.leases.values():
            tables.index.hold(lease.job_id, tables.jobs.get(lease.job_id))
        for session in tables.sessions.values():
            session.leases = dict.fromkeys(sorted(session.leases))
            session.locks = dict(sorted(session.locks.items()))
            session.waits = dict(sorted(session.waits.items()))
        for session in sorted(tables.sessions.values(), key=lambda each: each.turn):
            for name in session.queues if session.turn else ():
                tables.queues[name].ready[session.id] = None
        tables.limiters.opened.clear()
        tables.collections = Collections.restore(self._collections)

    def _queue(self, fields: Row) -> None:
        queue = self._tables.queue(fields[0])
        _, queue.paused, queue.reason, queue.author, queue.paused_wt = fields

    def _entries(self, fields: Row) -> None:
        name, priority, entries = fields
        for position, job_id in entries:
            self._tables.place(self._tables.queues[name], priority, position, job_id)

    def _job(self, fields: Row) -> None:
        job_id, spec, created, created_wt, where, history, *rest = fields
        records = tuple([StateRecord(*record) for record in history])
        current = records[where] if type(where) is int else where and StateRecord(*where)
        job = Job(job_id, _spec(spec), created, created_wt, current, records, *rest)
        _require(job_id not in self._tables.jobs, "a job twice")
        self._tables.jobs[job_id] = job
        self._tables.bytes += job.size

    def _session(self, fields: Row) -> None:
        number, name, nonce, ttl_ms, expires_lt, opened_wt, acked_below, queues, slots, turn, replies = fields
        session = Session(number, name, nonce, ttl_ms, expires_lt, opened_wt)
        session.expires_lt = expires_lt
        session.acked_below = acked_below
        session.queues = queues
        session.slots = slots
        session.turn = turn
        session.replies = dict(replies)
        add_session(self._tables, session)

    def _lease(self, fields: Row) -> None:
        token, job_id, queue, session, kind, *times = fields
        lease = Lease(token, job_id, queue, session, LeaseKind(kind), *times)
        self._tables.enter_lease(lease)
        if lease.kind == LeaseKind.DISPATCHED:
            self._tables.sessions[session].busy += 1

    def _lock(self, fields: Row) -> None:
        tables = self._tables
        resource, token, ticket, session, owner, expires_lt, granted_wt, waiters = fields
        lock = Lock(resource)
        lock.token, lock.ticket, lock.session, lock.owner = token, ticket, session, owner
        lock.granted_wt = granted_wt
        tables.add_lock(lock)
        tables.set_lock_expiry(lock, expires_lt)
        if session and not expires_lt:
            tables.sessions[session].locks[token] = resource
        for waiter in [Waiter(*each) for each in waiters]:
            lock.waiters[waiter.ticket] = waiter
            tables.sessions[waiter.session].waits[waiter.ticket] = resource

    def _unique_key(self, fields: Row) -> None:
        self._tables.add_unique_key(UniqueKey(*fields))

    def _limiter(self, fields: Row) -> None:
        key, tat_us, closed, due_lt = fields
        limiter = self._tables.limiters.of(key)
        limiter.tat_us, limiter.closed = tat_us, closed
        self._tables.limiters.look_again(limiter, due_lt)

    def _line(self, fields: Row) -> None:
        name, key, entries = fields
        for negative, position, *entry in entries:
            self._tables.place_in_line(self._tables.queues[name], key, (negative, position), tuple(entry))

    def _start_by(self, fields: Row) -> None:
        for job_id, start_by_wt in fields[0]:
            self._tables.set_start_by(job_id, start_by_wt)

    def _unresolved(self, fields: Row) -> None:
        (parent_ids,) = fields
        self._tables.unresolved.update(dict.fromkeys(parent_ids))

    def _recurring(self, fields: Row) -> None:
        recurring_id, job, *rest = fields
        _require(recurring_id not in self._tables.recurring, "a recurring job twice")
        self._tables.put_recurring(Recurring(recurring_id, _spec(job), *rest))

    def _batch(self, fields: Row) -> None:
        batch = JobBatch(*fields)
        _require(batch.id not in self._tables.batches, "a batch twice")
        self._tables.add_batch(batch)

    def _end(self, fields: Row) -> None:
        (stirred,) = fields
        self._tables.stirred = dict.fromkeys(stirred)
        self._finished = True


def _spec(fields: Row) -> NewJob:
    """As it was written: its bounds were checked when it came in, and may have changed since."""
    spec = NewJob(*fields)
    if spec.start is not None:
        spec = spec._replace(start=StartRules(*spec.start))
    return spec if spec.retry is None else spec._replace(retry=RetryPolicy(*spec.retry))


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise ValueError(why)
