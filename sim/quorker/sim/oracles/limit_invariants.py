"""What is true of the limits of every job store after every entry: holders, lines, what stands open, what is due.

As in `store_invariants`, everything is recomputed from the records and compared with what the store keeps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from quorker.core.jobs.lifecycle import AWAITING, ENQUEUED, SCHEDULED
from quorker.core.jobs.limiters import LIMITER_BYTES, LINE_BYTES, Limiter, Line
from quorker.core.jobs.tables import Tables


def limit_problems(store: Tables) -> Iterator[str]:
    """All that is wrong."""
    held = Counter(lease.limit_key for lease in store.leases.values())
    for limiter in store.limiters.by_key.values():
        if limiter.holders != held[limiter.key]:
            yield f"key {limiter.key} counts {limiter.holders} holders, there are {held[limiter.key]}"
        if limiter.closed and not limiter.due_lt:
            yield f"key {limiter.key} is closed, and nothing is going to open it"
        if not (limiter.holders or limiter.lines or limiter.due_lt):
            yield f"key {limiter.key} is kept for nothing"
        for line in limiter.lines.values():
            yield from _line(store, limiter, line)
    yield from _queues(store)
    yield from _late(store)
    missing = [key for key in held if key and key not in store.limiters.by_key]
    if missing:
        yield f"keys {missing} have holders and are not known"
    due = sorted((limiter.due_lt, key) for key, limiter in store.limiters.by_key.items() if limiter.due_lt)
    if due != list(store.limiters.due):
        yield "what is due of keys differs"
    if store.limiters.opened:
        yield f"dispatch does not know that {list(store.limiters.opened)} have open lines"


def _line(store: Tables, limiter: Limiter, line: Line) -> Iterator[str]:
    what = f"line of {line.key} in {line.queue.name}"
    if sorted(line.entries) != sorted(position for _, position in line.rows) or not line.entries:
        yield f"{what} has other rows than entries, or none"
        return
    for job_id, limit, rated in line.entries.values():
        rules = store.jobs[job_id].spec.start
        if rules is None or (rules.key, rules.limit, rules.rate > 0) != (line.key, limit, rated):
            yield f"{what} has {job_id}, which has {rules}"
    head = store_head(line)
    if line.offer != (head if limiter.admits(*line.entries[head[1]][1:]) else None):
        yield f"{what} offers {line.offer}, its head is {head}, and {limiter.holders} hold"


def store_head(line: Line) -> tuple[int, int, str]:
    return (*min(line.rows), line.key)


def _queues(store: Tables) -> Iterator[str]:
    lines = [line for limiter in store.limiters.by_key.values() for line in limiter.lines.values()]
    for queue in store.queues.values():
        own = [line for line in lines if line.queue.name == queue.name]
        if any(line.queue is not queue for line in own):
            yield f"queue {queue.name} is another than its lines know"
        if queue.lined != sum(len(line.entries) for line in own):
            yield f"queue {queue.name} says that {queue.lined} stand in lines"
        if sorted(line.offer for line in own if line.offer) != list(queue.open_lines):
            yield f"queue {queue.name} is offered other lines than those that are open"


def _late(store: Tables) -> Iterator[str]:
    if sorted((wt, job_id) for job_id, wt in store.start_by.items()) != list(store.late):
        yield "what may become too late differs"
    for job_id in store.start_by:
        job = store.jobs[job_id]
        if job.state not in (ENQUEUED, SCHEDULED, AWAITING) or job.deliveries:
            yield f"{job_id} can become too late, and is {job.state} after {job.deliveries} starts"


def limit_bytes(store: Tables) -> int:
    """What the keys and their lines count for."""
    by_key = store.limiters.by_key
    lines = sum(len(limiter.lines) for limiter in by_key.values())
    return sum(LIMITER_BYTES + len(key) for key in by_key) + LINE_BYTES * lines
