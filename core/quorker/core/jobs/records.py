"""What the store holds: jobs, leases, locks, sessions, queues. Data only; who may change what is decided elsewhere.

`Job`, `StateRecord` and `Lease` are immutable and replaced on change, so a copy of a table is a consistent snapshot. A
job's derived rows (index, schedule, retention, sizes) are a function of its record and kept by `Tables.replace`.
Numbers: `order` and `created` come from the store's running order, one per change, never used twice; tokens are
made by `Tables.next_token`. `*_lt` is log time, `*_wt` wall time, both in milliseconds; 0 means "none".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from quorker.core.jobs.bounds import MISFIRE, Pairs
from quorker.core.jobs.collections_ordered import OrderedRows
from quorker.core.jobs.lifecycle import FAILED, SUCCEEDED
from quorker.core.jobs.new_job import NewJob
from quorker.core.jobs.outcome import Reply
from quorker.core.jobs.timeline import Timeline

StateData: TypeAlias = tuple[tuple[str, str | int | None], ...]

JOB_BYTES: Final = 900  # a job with its records and index rows, without what its submitter chose the size of
STATE_BYTES: Final = 200
RECURRING_BYTES: Final = 2000


class StateRecord(NamedTuple):
    """One step in the life of a job. `data` by state, for the states this store enters itself:

    Enqueued: none. Scheduled: `due_wt`. Processing: `worker` (session name), `token`. Succeeded: `latency_ms`
    (created to started), `duration_ms`. Failed: `error_type`, `message`, `trace`, `attempt`. Awaiting: `parent_id`, `on`.
    """

    name: str
    reason: str
    at_wt: int
    data: StateData


class Job(NamedTuple):
    """One job. `current` is None until a state is set; it need not be the last of `history` (oldest first).

    `order`: running number of the last change of the current state. Listing a state by `order` is listing it by
    time with ties in the order of the log. `failures`: attempts spent; `deliveries`: grants; `lost`: deliveries whose
    worker vanished. `token`: the lease of a dispatched job.
    """

    id: str
    spec: NewJob
    created: int
    created_wt: int
    current: StateRecord | None
    history: tuple[StateRecord, ...]
    order: int
    failures: int = 0
    deliveries: int = 0
    lost: int = 0
    token: int = 0
    due_wt: int = 0
    expires_lt: int = 0
    result: bytes | None = None
    parameters: Pairs = ()
    size: int = JOB_BYTES

    @property
    def state(self) -> str:
        """The name of the current state, "" when there is none."""
        return self.current.name if self.current else ""


class LeaseKind(IntEnum):
    """How a job came into someone's hands."""

    DISPATCHED = 0  # to a free slot of a subscribed session
    PULLED = 1  # by FetchJobs; takes no slot
    FETCHED = 2  # by the contract's FetchNext; the job's state is left alone, and it must be renewed


class Lease(NamedTuple):
    """A session's hold on a job. `session` is 0 for a fetch outside any session; `since_lt` moves with a renewal.
    `deadline_lt`: when a dispatched job that is still not reported has failed by timeout; 0 without one. `limit_key`:
    the key that it counts under; "" for none."""

    token: int
    job_id: str
    queue: str
    session: int
    kind: LeaseKind
    since_lt: int
    since_wt: int
    deadline_lt: int = 0
    limit_key: str = ""


class Place(NamedTuple):
    """Where a job id stands in a queue. Positions ascend from the head: negative ones were put back there. `key`: the one
    whose line it stands in; "" in a lane."""

    queue: str
    priority: int
    position: int
    key: str = ""


class Lane:
    """The entries of one queue with one priority: those put back to the head, then those appended."""

    __slots__ = ("back", "front")

    def __init__(self) -> None:
        self.front: dict[int, str] = {}  # negative positions, the newest is the head
        self.back = Timeline()

    def __len__(self) -> int:
        return len(self.front) + len(self.back)


class Queue:
    """A queue. `lanes` by priority, `priorities` those that have entries, most urgent first; `fetched`: what was
    taken from it and is still held, by token; `ready`: sessions with a free slot for it, in their turn. `length` counts
    `lined` as well, those who stand in lines of keys; `open_lines`: (-priority, position, key) of the heads of lines
    whose key has room."""

    __slots__ = (
        "author",
        "fetched",
        "lanes",
        "length",
        "lined",
        "name",
        "open_lines",
        "paused",
        "paused_wt",
        "priorities",
        "ready",
        "reason",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.lanes: dict[int, Lane] = {}
        self.priorities: list[int] = []
        self.length = self.lined = 0
        self.open_lines: OrderedRows[tuple[int, int, str]] = OrderedRows()
        self.fetched: dict[int, str] = {}
        self.ready: dict[int, None] = {}
        self.paused = False
        self.reason = self.author = ""
        self.paused_wt = 0

    @property
    def has_next(self) -> bool:
        """Is there anything to take out of it now."""
        return self.length > self.lined or bool(self.open_lines)


class Waiter(NamedTuple):
    """A place in the line for a lock."""

    ticket: int
    session: int
    ttl_ms: int


class Lock:
    """A held lock. `owner` is "" unless it was taken by a contract operation; `expires_lt` is 0 when it is bound to
    the session; `ticket` is the place in the line that it was granted to, or 0."""

    __slots__ = ("expires_lt", "granted_wt", "owner", "resource", "session", "ticket", "token", "waiters")

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.token = self.ticket = self.session = self.expires_lt = self.granted_wt = 0
        self.owner = ""
        self.waiters: dict[int, Waiter] = {}


class Session:
    """A client's numbered conversation. `replies` of the sequences in the window; `busy` counts dispatched jobs;
    `turn` is its place in the rotation of dispatch; `leases`, `locks` (token to resource, without those with a ttl) and
    `waits` (ticket to resource) are what ends with it."""

    __slots__ = (
        "acked_below", "busy", "expires_lt", "id", "leases", "locks", "name", "nonce", "opened_wt", "queues", "replies",
        "slots", "ttl_ms", "turn", "waits",
    )  # fmt: skip

    def __init__(self, session_id: int, name: str, nonce: int, ttl_ms: int, lt: int, wt: int) -> None:
        self.id = session_id
        self.name = name
        self.nonce = nonce
        self.ttl_ms = ttl_ms
        self.expires_lt = lt + ttl_ms
        self.opened_wt = wt
        self.acked_below = 0
        self.replies: dict[int, Reply] = {}
        self.queues: tuple[str, ...] = ()
        self.slots = self.busy = self.turn = 0
        self.leases: dict[int, None] = {}
        self.locks: dict[int, str] = {}
        self.waits: dict[int, str] = {}


class JobBatch(NamedTuple):
    """Jobs that were made together, and how many of them are in which state now; one that has expired counts as what it was.

    A member without an end is `pending`. `completed_wt`: since when none is, 0 while some are. `callbacks`: ids of the
    jobs that were made with the batch to wait for its end. `retention_ms`: how long it is kept then, 0 as long as jobs.
    """

    id: str
    name: str
    created: int
    created_wt: int
    pending: int
    succeeded: int = 0
    failed: int = 0
    deleted: int = 0
    quarantined: int = 0
    completed_wt: int = 0
    expires_lt: int = 0
    callbacks: tuple[str, ...] = ()
    retention_ms: int = 0

    @property
    def total(self) -> int:
        return self.pending + self.succeeded + self.failed + self.deleted + self.quarantined

    @property
    def reference(self) -> str:
        """How a job that waits for its end names it as its parent; no job has such an id."""
        return BATCH_REFERENCE + self.id

    @property
    def state(self) -> str:
        """Succeeded when all members have, Failed when none is pending and one has not: it may be tried again by hand."""
        if self.pending:
            return PENDING
        return SUCCEEDED if self.succeeded == self.total else FAILED


PENDING: Final = "Pending"
BATCH_REFERENCE: Final = "batch#"


class UniqueKey(NamedTuple):
    """Who holds an idempotency key; until `expires_lt`, or with 0 until the job ends."""

    key: str
    job_id: str
    expires_lt: int


class Recurring(NamedTuple):
    """A template of a job and when it is made. `revision`: the index of the log entry that declared it so; `anchor_wt`:
    when that was, and where a fixed interval is counted from.

    `plan_wt`: no slot up to then fires any more; `next_wt`: the slot it is planned for, 0 when it is not planned (yet).
    With an `error` it rests until it is declared again. `last_slot_wt`: the last slot that passed by firing;
    `last_fired_wt`, `last_job_id`, `fired`: of the jobs made, those triggered by hand included.
    """

    id: str
    job: NewJob
    cron: str = ""
    zone: str = "UTC"
    every_ms: int = 0
    misfire: MISFIRE = "once"
    grace_ms: int = 0
    revision: int = 0
    created_wt: int = 0
    anchor_wt: int = 0
    plan_wt: int = 0
    next_wt: int = 0
    last_slot_wt: int = 0
    last_fired_wt: int = 0
    last_job_id: str = ""
    fired: int = 0
    paused: bool = False
    paused_wt: int = 0
    reason: str = ""
    author: str = ""
    error: str = ""

    def is_live(self) -> bool:
        """Neither paused nor resting: its plan goes on."""
        return not self.paused and not self.error

    @property
    def size(self) -> int:
        """Bytes that count against the limits."""
        job = self.job
        texts = (self.id, job.args, self.cron, self.reason, self.error, job.unique_key)
        own = sum(len(name) + len(value) + 100 for name, value in job.headers)
        return RECURRING_BYTES + sum(map(len, texts)) + own + sum(len(tag) + 100 for tag in job.tags)


def weigh(record: StateRecord) -> int:
    """Bytes that count against the limits."""
    size = STATE_BYTES + len(record.reason)
    for _, value in record.data:
        if type(value) is str:
            size += len(value)
    return size
