"""All tables of the store and the few ways to change them that keep every index right. No rule of the game is here.

Modules with rules (dispatch, leases, lifecycle steps, locks, sessions) work on a `Tables`; `queries` reads one; `JobStore`
is one. Besides the tables it carries what one apply is about: the entry's times, its outcome, and who is calling.
"""

from __future__ import annotations

from typing import Final

from quorker.core.frozen import new_tuple
from quorker.core.jobs.collections import Collections
from quorker.core.jobs.collections_ordered import OrderedRows
from quorker.core.jobs.ids import job_id_of
from quorker.core.jobs.index import JobIndex
from quorker.core.jobs.limiters import Limiters
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.outcome import Outcome
from quorker.core.jobs.records import (
    BATCH_REFERENCE,
    Job,
    JobBatch,
    Lane,
    Lease,
    LeaseKind,
    Lock,
    Place,
    Queue,
    Recurring,
    Session,
    StateRecord,
    UniqueKey,
)
from quorker.core.jobs.timeline import Timeline

ORDINALS_MAX: Final = 2**16 - 1
ORDINALS_FOR_COMMANDS: Final = (
    60_000  # beyond them commands that need tokens are refused; the rest is for grants
)
INDEX_MAX: Final = 2**39 - 1
EPOCH_MAX: Final = 255
LOCK_BYTES: Final = 500
UNIQUE_KEY_BYTES: Final = 300
QUEUE_BYTES: Final = 1500
PLACE_BYTES: Final = 300
BATCH_BYTES: Final = 1500
START_BY_BYTES: Final = 250


class Tables:
    """`jobs` in order of creation, `queues`, `leases` (by token, in order of their last renewal), `locks` by resource,
    `sessions` by id, `unique_keys` by key, `collections`, and `index` over the jobs.

    `places`: where a job id stands in queues. `fetched`: the leases that must be renewed, the one longest without first.
    `deadlines`: (deadline_lt, token) of dispatched jobs with a timeout. `lock_expiry`: (expires_lt, resource).
    `unique_expiry`: (expires_lt, key). `recurring` by id, `recurring_ids` in order; `recurring_plan`: (next_wt, id) of
    those that are neither paused nor resting, the ones that are not planned yet first. `limiters`: keys under which
    jobs are limited. `start_by`: the wall time at which it is too late for the first start of a job, `late`: (that, job
    id). `unresolved`: ended parents whose continuations are not all dealt with.
    `chain`: the chained digest of all that was applied. `batches` by id, in order of creation, as in `batch_line`;
    `batch_expiry`: (expires_lt, batch id) of those that have ended.
    """

    def __init__(self, limits: Limits, epoch: int) -> None:
        self.limits = limits
        self.epoch = epoch
        self.applied_index = 0
        self.chain = b""
        self.lt = 0
        self.wt = 0
        self.order = 0
        self.jobs: dict[str, Job] = {}
        self.queues: dict[str, Queue] = {}
        self.leases: dict[int, Lease] = {}
        self.locks: dict[str, Lock] = {}
        self.sessions: dict[int, Session] = {}
        self.unique_keys: dict[str, UniqueKey] = {}
        self.recurring: dict[str, Recurring] = {}
        self.recurring_ids: OrderedRows[tuple[str]] = OrderedRows()
        self.recurring_plan: OrderedRows[tuple[int, str]] = OrderedRows()
        self.collections = Collections()
        self.index = JobIndex()
        self.places: dict[str, tuple[Place, ...]] = {}
        self.fetched: dict[int, None] = {}
        self.deadlines: OrderedRows[tuple[int, int]] = OrderedRows()
        self.lock_expiry: OrderedRows[tuple[int, str]] = OrderedRows()
        self.unique_expiry: OrderedRows[tuple[int, str]] = OrderedRows()
        self.session_expiry: list[tuple[int, int]] = []  # a heap of (expires_lt or earlier, session id)
        self.by_nonce: dict[int, int] = {}
        self.by_name: dict[str, dict[int, None]] = {}
        self.limiters = Limiters()
        self.start_by: dict[str, int] = {}
        self.late: OrderedRows[tuple[int, str]] = OrderedRows()
        self.unresolved: dict[str, None] = {}
        self.stirred: dict[str, None] = {}  # queues that dispatch must look at before this apply ends
        self.ended_counts: dict[str, int] = {}  # what this apply adds to the statistics, by state
        self.left_counts: dict[str, int] = {}
        self.bytes = 0
        self.outcome = Outcome()
        self.session: Session | None = None  # who sent the command being applied
        self.sequence = 0
        self.first_history: tuple[StateRecord, ...] = ()  # of the last plain job: those of one entry share it
        self.batches: dict[str, JobBatch] = {}
        self.batch_line = Timeline()
        self.batch_expiry: OrderedRows[tuple[int, str]] = OrderedRows()
        self._token = 0
        self._token_end = 0

    # --- one apply ---

    def begin(self, index: int, outcome: Outcome) -> None:
        """Tokens made from now on belong to the log entry at `index`."""
        self.outcome = outcome
        self._token = self.epoch << 55 | index << 16
        self._token_end = self._token | ORDINALS_MAX

    @property
    def tokens_left(self) -> int:
        return self._token_end - self._token

    def next_token(self) -> int:
        """Strictly larger than every token before; 0 when this entry can make no more."""
        if self._token == self._token_end:
            return 0
        self._token += 1
        return self._token

    def next_order(self) -> int:
        self.order += 1
        return self.order

    def new_job_id(self) -> str:
        """An id that no job has (contract operations bring their own ids, which may look like ours)."""
        while True:
            job_id = job_id_of(self.next_token())
            if job_id not in self.jobs:
                return job_id

    @property
    def state_bytes(self) -> int:
        """An estimate of the memory in use; the same on every member."""
        return self.bytes + self.collections.state_bytes + self.limiters.bytes

    # --- jobs ---

    def add_job(self, job: Job) -> None:
        self.jobs[job.id] = job
        self.bytes += job.size
        self.index.add(job)

    def change_job(self, old: Job, new: Job) -> None:
        self.jobs[new.id] = new
        self.bytes += new.size - old.size
        self.index.change(old, new)

    def remove_job(self, job: Job) -> None:
        del self.jobs[job.id]
        self.bytes -= job.size
        self.index.remove(job)
        if self.start_by:
            self.set_start_by(job.id, 0)

    def set_start_by(self, job_id: str, start_by_wt: int) -> None:
        """0: it may start at any time."""
        old = self.start_by.pop(job_id, 0)
        if old:
            self.late.remove((old, job_id))
            self.bytes -= START_BY_BYTES
        if start_by_wt:
            self.start_by[job_id] = start_by_wt
            self.late.add((start_by_wt, job_id))
            self.bytes += START_BY_BYTES

    # --- queues ---

    def queue(self, name: str) -> Queue:
        """The queue of that name, made when it does not exist."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name)
            self.bytes += QUEUE_BYTES
        return queue

    def drop_queue(self, name: str) -> None:
        del self.queues[name]
        self.bytes -= QUEUE_BYTES

    def append_to_queue(self, name: str, priority: int, job_id: str) -> None:
        self._put(name, priority, self.next_order(), job_id)

    def return_to_queue(self, name: str, priority: int, job_id: str) -> None:
        """Put at the head of its priority."""
        self._put(name, priority, -self.next_order(), job_id)

    def _put(self, name: str, priority: int, position: int, job_id: str) -> None:
        job = self.jobs.get(job_id)
        rules = job.spec.start if job is not None else None
        if rules is not None and rules.key:
            entry = (job_id, rules.limit, rules.rate > 0)
            self.place_in_line(self.queue(name), rules.key, (-priority, position), entry)
            self.stir_opened()
        else:
            self.place(self.queue(name), priority, position, job_id)
            self.stirred[name] = None

    def place_in_line(
        self, queue: Queue, key: str, row: tuple[int, int], entry: tuple[str, int, bool]
    ) -> None:
        """Put an entry (job id, limit, does it have a rate) where it belongs in the line of a key."""
        self.limiters.join(queue, key, row, entry)
        self._remember(queue, entry[0], new_tuple(Place, (queue.name, -row[0], row[1], key)))

    def place(self, queue: Queue, priority: int, position: int, job_id: str) -> None:
        """Put an entry where it belongs: positions ascend, but for negative ones, each of which is a new head."""
        lane = queue.lanes.get(priority)
        if lane is None:
            lane = queue.lanes[priority] = Lane()
            queue.priorities = sorted(queue.lanes, reverse=True)
        if position > 0:
            lane.back.append(position, job_id)
        else:
            lane.front[position] = job_id
        self._remember(queue, job_id, new_tuple(Place, (queue.name, priority, position, "")))

    def _remember(self, queue: Queue, job_id: str, place: Place) -> None:
        queue.length += 1
        self.bytes += PLACE_BYTES
        others = self.places.get(job_id)
        self.places[job_id] = (*others, place) if others else (place,)

    def pop_from_queue(self, queue: Queue) -> str:
        """Take out the head of the most urgent lane or open line; there is one (the caller knows)."""
        offer = queue.open_lines.first() if queue.lined else None
        if offer is not None and (queue.length == queue.lined or offer[:2] < self._head(queue)):
            priority, position, job_id = 0, offer[1], self.limiters.leave(queue, offer[2], offer[:2])
            self.stir_opened()
        else:
            priority, position, job_id = self._pop_from_lane(queue)
        queue.length -= 1
        self.bytes -= PLACE_BYTES
        if priority:
            self._drop_empty_lane(queue, priority)
        places = self.places.pop(job_id)
        if len(places) > 1:
            self.places[job_id] = tuple([place for place in places if place.position != position])
        return job_id

    @staticmethod
    def _head(queue: Queue) -> tuple[int, int]:
        """(-priority, position) of the head of the most urgent lane; there is one."""
        for priority in queue.priorities:
            lane = queue.lanes[priority]
            if lane.front:
                return -priority, next(reversed(lane.front))
            first = lane.back.first()
            if first is not None:
                return -priority, first[0]
        raise AssertionError("no lane of the queue has an entry")

    @staticmethod
    def _pop_from_lane(queue: Queue) -> tuple[int, int, str]:
        """(priority, position, job id)."""
        for priority in queue.priorities:
            lane = queue.lanes[priority]
            if lane.front:
                return priority, *lane.front.popitem()
            if lane.back.size:
                return priority, *lane.back.pop_first()
        return 0, 0, ""

    def take_from_queues(self, job_id: str) -> int:
        """Take out every entry of a job id; returns how many there were."""
        places = self.places.pop(job_id, ())
        for place in places:
            queue = self.queues[place.queue]
            if place.key:
                self.limiters.leave(queue, place.key, (-place.priority, place.position))
            else:
                self._take_from_lane(queue, place)
            queue.length -= 1
            self.bytes -= PLACE_BYTES
        if places:
            self.stir_opened()
        return len(places)

    def _take_from_lane(self, queue: Queue, place: Place) -> None:
        lane = queue.lanes[place.priority]
        if place.position > 0:
            lane.back.remove(place.position)
        else:
            del lane.front[place.position]
        self._drop_empty_lane(queue, place.priority)

    def stir_opened(self) -> None:
        """Dispatch looks at the queues in which a line has been opened."""
        if self.limiters.opened:
            self.stirred.update(self.limiters.opened)
            self.limiters.opened.clear()

    @staticmethod
    def _drop_empty_lane(queue: Queue, priority: int) -> None:
        """The lane of priority 0 stays: it comes and goes with every job."""
        if priority and not queue.lanes[priority]:
            del queue.lanes[priority]
            queue.priorities = sorted(queue.lanes, reverse=True)

    # --- leases ---

    def add_lease(self, lease: Lease) -> None:
        self.enter_lease(lease)
        self.index.hold(lease.job_id, self.jobs.get(lease.job_id))

    def enter_lease(self, lease: Lease) -> None:
        """All of `add_lease` but the index over jobs."""
        self.leases[lease.token] = lease
        self.queue(lease.queue).fetched[lease.token] = lease.job_id
        if lease.kind == LeaseKind.FETCHED:
            self.fetched[lease.token] = None
        if lease.deadline_lt:
            self.deadlines.add((lease.deadline_lt, lease.token))
        if lease.session:
            self.sessions[lease.session].leases[lease.token] = None
        if lease.limit_key:
            self.limiters.hold(lease.limit_key)

    def renew_lease(self, lease: Lease, lt: int) -> None:
        """Moves it behind all others; its time never goes back."""
        token, fetched = lease.token, self.queues[lease.queue].fetched
        del self.leases[token], self.fetched[token], fetched[token]
        self.leases[token] = lease._replace(since_lt=max(lease.since_lt, lt))
        self.fetched[token] = None
        fetched[token] = lease.job_id

    def remove_lease(self, lease: Lease) -> None:
        del self.leases[lease.token]
        del self.queues[lease.queue].fetched[lease.token]
        self.index.let_go(lease.job_id, self.jobs.get(lease.job_id))
        if lease.kind == LeaseKind.FETCHED:
            del self.fetched[lease.token]
        if lease.deadline_lt:
            self.deadlines.remove((lease.deadline_lt, lease.token))
        if lease.session:
            del self.sessions[lease.session].leases[lease.token]
        if lease.limit_key:
            self.limiters.let_go(lease.limit_key)
            self.stir_opened()

    # --- locks and unique keys ---

    def add_lock(self, lock: Lock) -> None:
        self.locks[lock.resource] = lock
        self.bytes += LOCK_BYTES + len(lock.resource)

    def drop_lock(self, lock: Lock) -> None:
        del self.locks[lock.resource]
        self.bytes -= LOCK_BYTES + len(lock.resource)

    def set_lock_expiry(self, lock: Lock, expires_lt: int) -> None:
        """0: none."""
        if lock.expires_lt:
            self.lock_expiry.remove((lock.expires_lt, lock.resource))
        lock.expires_lt = expires_lt
        if expires_lt:
            self.lock_expiry.add((expires_lt, lock.resource))

    def add_unique_key(self, unique: UniqueKey) -> None:
        self.unique_keys[unique.key] = unique
        self.bytes += UNIQUE_KEY_BYTES + len(unique.key)
        if unique.expires_lt:
            self.unique_expiry.add((unique.expires_lt, unique.key))

    def remove_unique_key(self, unique: UniqueKey) -> None:
        del self.unique_keys[unique.key]
        self.bytes -= UNIQUE_KEY_BYTES + len(unique.key)
        if unique.expires_lt:
            self.unique_expiry.remove((unique.expires_lt, unique.key))

    # --- recurring jobs ---

    def put_recurring(self, entry: Recurring) -> None:
        """Add an entry or replace the one of that id."""
        old = self.recurring.get(entry.id)
        if old is None:
            self.recurring_ids.add((entry.id,))
        else:
            self._forget_plan(old)
        self.recurring[entry.id] = entry
        self.bytes += entry.size
        if entry.is_live():
            self.recurring_plan.add((entry.next_wt, entry.id))

    def remove_recurring(self, entry: Recurring) -> None:
        del self.recurring[entry.id]
        self.recurring_ids.remove((entry.id,))
        self._forget_plan(entry)

    def _forget_plan(self, entry: Recurring) -> None:
        self.bytes -= entry.size
        if entry.is_live():
            self.recurring_plan.remove((entry.next_wt, entry.id))

    # --- batches of jobs ---

    def add_batch(self, batch: JobBatch) -> None:
        self.batches[batch.id] = batch
        self.batch_line.append(batch.created, batch.id)
        self.bytes += BATCH_BYTES + len(batch.name)
        if batch.expires_lt:
            self.batch_expiry.add((batch.expires_lt, batch.id))

    def change_batch(self, old: JobBatch, new: JobBatch) -> None:
        self.batches[new.id] = new
        if old.expires_lt:
            self.batch_expiry.remove((old.expires_lt, old.id))
        if new.expires_lt:
            self.batch_expiry.add((new.expires_lt, new.id))

    def remove_batch(self, batch: JobBatch) -> None:
        del self.batches[batch.id]
        self.batch_line.remove(batch.created)
        self.bytes -= BATCH_BYTES + len(batch.name)
        if batch.expires_lt:
            self.batch_expiry.remove((batch.expires_lt, batch.id))

    def state_of_parent(self, parent_id: str) -> str | None:
        """The state of the job, or of the batch, that a continuation waits for; None when it is not there."""
        parent: Job | JobBatch | None
        if parent_id.startswith(BATCH_REFERENCE):
            parent = self.batches.get(parent_id[len(BATCH_REFERENCE) :])
        else:
            parent = self.jobs.get(parent_id)
        return None if parent is None else parent.state
