"""Keys under which only so many jobs may run, or start, and the lines of jobs that stand under them: data and indexes.

A job with a key does not stand in a lane of its queue but in a line, one for each queue and key. The head of a line whose
key has room is offered beside the heads of the lanes; a line without room is passed over and keeps its order. So nobody
polls, no job is moved, and what follows from a lease that ends is looked up. When jobs start must not live here.
"""

from __future__ import annotations

from typing import Final

from quorker.core.jobs.collections_ordered import OrderedRows
from quorker.core.jobs.new_job import StartRules
from quorker.core.jobs.records import Queue

LIMITER_BYTES: Final = 600
LINE_BYTES: Final = 700
_US: Final = 1000  # in a millisecond


class Line:
    """Jobs of one key in one queue. `rows`: (-priority, position), the head first; `entries` by position: job id, limit,
    does it have a rate. `offer`: its row among the open lines of the queue, or None."""

    __slots__ = ("entries", "key", "offer", "queue", "rows")

    def __init__(self, queue: Queue, key: str) -> None:
        self.queue = queue
        self.key = key
        self.rows: OrderedRows[tuple[int, int]] = OrderedRows()
        self.entries: dict[int, tuple[str, int, bool]] = {}
        self.offer: tuple[int, int, str] | None = None

    def copy(self) -> Line:
        """As it stands now, to be written while it goes on; its name is all that is known of its queue then."""
        other = Line(self.queue, self.key)
        other.rows, other.entries = self.rows.copy(), self.entries.copy()
        return other


class Limiter:
    """A key. `holders`: leases of its jobs. `tat_us`: by when all that has started would have, one interval after the
    other (the theoretical arrival time of the GCRA). `closed`: nothing with a rate may start now. `due_lt`: when this
    is to be looked at again, 0 for never. `lines` by queue."""

    __slots__ = ("closed", "due_lt", "holders", "key", "lines", "tat_us")

    def __init__(self, key: str) -> None:
        self.key = key
        self.holders = self.tat_us = self.due_lt = 0
        self.closed = False
        self.lines: dict[str, Line] = {}

    @property
    def waiting(self) -> int:
        return sum(len(line.entries) for line in self.lines.values())

    def admits(self, limit: int, rated: bool) -> bool:
        """May a job with such a limit start now: its own decides, whatever others of its key have."""
        return (not limit or self.holders < limit) and not (rated and self.closed)


class Limiters:
    """All keys that somebody stands or runs under, or whose rate is not used up to the past. `due`: (lt, key).

    `opened`: queues with a line that has been opened, for whoever dispatches.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, Limiter] = {}
        self.due: OrderedRows[tuple[int, str]] = OrderedRows()
        self.opened: dict[str, None] = {}
        self.bytes = 0

    def of(self, key: str) -> Limiter:
        limiter = self.by_key.get(key)
        if limiter is None:
            limiter = self.by_key[key] = Limiter(key)
            self.bytes += LIMITER_BYTES + len(key)
        return limiter

    def admits(self, rules: StartRules) -> bool:
        limiter = self.by_key.get(rules.key)
        return limiter is None or limiter.admits(rules.limit, rules.rate > 0)

    # --- lines ---

    def join(self, queue: Queue, key: str, row: tuple[int, int], entry: tuple[str, int, bool]) -> None:
        limiter = self.of(key)
        line = limiter.lines.get(queue.name)
        if line is None:
            line = limiter.lines[queue.name] = Line(queue, key)
            self.bytes += LINE_BYTES
        line.rows.add(row)
        line.entries[row[1]] = entry
        queue.lined += 1
        self._offer(limiter, line)

    def leave(self, queue: Queue, key: str, row: tuple[int, int]) -> str:
        """Returns the job id that stood there."""
        limiter = self.by_key[key]
        line = limiter.lines[queue.name]
        line.rows.remove(row)
        job_id = line.entries.pop(row[1])[0]
        queue.lined -= 1
        self._offer(limiter, line)
        if not line.entries:
            del limiter.lines[queue.name]
            self.bytes -= LINE_BYTES
            self._drop_idle(limiter)
        return job_id

    def _offer(self, limiter: Limiter, line: Line) -> None:
        """Offer the head of the line, if its key has room for it."""
        head = line.rows.first()
        offer = None
        if head is not None and limiter.admits(*line.entries[head[1]][1:]):
            offer = (*head, line.key)
        if offer == line.offer:
            return
        open_lines = line.queue.open_lines
        if line.offer is not None:
            open_lines.remove(line.offer)
        line.offer = offer
        if offer is not None:
            open_lines.add(offer)
            self.opened[line.queue.name] = None

    def _offer_all(self, limiter: Limiter) -> None:
        for line in limiter.lines.values():
            self._offer(limiter, line)

    # --- holders and starts ---

    def hold(self, key: str) -> None:
        """A job of this key is in somebody's hands."""
        limiter = self.of(key)
        limiter.holders += 1
        self._offer_all(limiter)

    def let_go(self, key: str) -> None:
        limiter = self.by_key[key]
        limiter.holders -= 1
        self._offer_all(limiter)
        self._drop_idle(limiter)

    def spend(self, rules: StartRules, lt: int) -> None:
        """A job with a rate starts: the next one with a rate may, as soon as this one's rate and burst allow it."""
        limiter = self.of(rules.key)
        now_us, interval_us = lt * _US, rules.interval_us
        limiter.tat_us = max(limiter.tat_us, now_us) + interval_us
        opens_us = limiter.tat_us - (rules.burst - 1) * interval_us
        limiter.closed = opens_us > now_us
        self.look_again(limiter, _whole_ms(opens_us if limiter.closed else limiter.tat_us))
        self._offer_all(limiter)

    def look_again(self, limiter: Limiter, lt: int) -> None:
        """0: never."""
        if limiter.due_lt:
            self.due.remove((limiter.due_lt, limiter.key))
        limiter.due_lt = lt
        if lt:
            self.due.add((lt, limiter.key))

    def open_due(self, lt: int, limit: int) -> None:
        """Open up to `limit` keys whose time has come, the earliest first; forget those that nothing is left of."""
        for due_lt, key in self.due.page(0, limit):
            if due_lt > lt:
                break
            limiter = self.by_key[key]
            limiter.closed = False
            self.look_again(limiter, _whole_ms(limiter.tat_us) if limiter.tat_us > lt * _US else 0)
            self._offer_all(limiter)
            self._drop_idle(limiter)

    def _drop_idle(self, limiter: Limiter) -> None:
        if not (limiter.holders or limiter.lines or limiter.due_lt):
            del self.by_key[limiter.key]
            self.bytes -= LIMITER_BYTES + len(limiter.key)


def _whole_ms(us: int) -> int:
    return -(-us // _US)
