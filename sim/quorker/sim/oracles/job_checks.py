"""What must hold of jobs, leases, locks and time, watched at every entry that is applied: the job store's oracles.

They see each entry once, as the first member applies it, and hold every other member to the same outcome. What clients
believe is watched in true time by `quorker.sim.oracles.beliefs`. Names in brackets are those of the guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from quorker.core.jobs.batch import decode_entry, decode_group
from quorker.core.jobs.commands import (
    AcquireLock,
    AddToQueue,
    Batch,
    Command,
    CompleteJob,
    CreateJob,
    DeleteJob,
    EnqueueBatch,
    EnqueueJobs,
    ExpireJob,
    FailJob,
    FetchJobs,
    FetchNext,
    NewJob,
    OpenSession,
    RecurringCommand,
    ReleaseJob,
    ReleaseLock,
    RequeueJob,
    RescheduleJob,
    SetJobState,
    TryLock,
    decode,
    grant_from_wire,
)
from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Cancelled, LockGrant, Outcome, Reply
from quorker.core.jobs.records import BATCH_REFERENCE, Job
from quorker.core.jobs.store import JobStore
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import Entry, NodeId
from quorker.sim.model.witness import Witness
from quorker.sim.oracles.ages import Ages
from quorker.sim.oracles.batch_checks import WHOLE, BatchChecks
from quorker.sim.oracles.checks import FIRST, Oracles, Violation
from quorker.sim.oracles.late_ends import UPKEEP, LateEnds, Pace
from quorker.sim.oracles.lease_gaps import NOT_APPLIED, LeaseGaps
from quorker.sim.oracles.real_time import RealTime
from quorker.sim.oracles.schedules import Schedules
from quorker.sim.oracles.starts import Starts
from quorker.sim.oracles.store_invariants import check_store
from quorker.sim.world.host import ignore
from quorker.sim.world.kernel import MS
from quorker.sim.world.line import Query

TIMED_OUT: Final = (
    "timeout"  # why a job is taken away that was not reported in time: its worker has stopped before
)
ROUNDING_MS: Final = 2
WAITING: Final = frozenset({"Enqueued", "Scheduled", "Processing", "Awaiting"})
ENDED: Final = frozenset({"Succeeded", "Failed", "Deleted", "Quarantined"})


@dataclass(slots=True)
class Holding:
    """A job or a lock in somebody's hands, as the log has it. `ticket`: of the waiter that was granted the lock."""

    session: int
    token: int
    ticket: int = 0


@dataclass(slots=True)
class Life:
    """A session: `renewed_lt` is the log time of the last entry with a command of it."""

    ttl_ms: int
    renewed_lt: int


@dataclass(slots=True)
class Order:
    """A job that a client asked for: `fate` is "asked", then "acknowledged", "refused" or "unknown"."""

    fate: str = "asked"
    shared: bool = False  # another job may stand for it, because of a unique key
    brief: bool = False  # it is evicted soon after it ended
    ids: list[str] = field(default_factory=list[str])
    batch: list[Order] = field(
        default_factory=list["Order"]
    )  # all that must be made with it, itself included


class JobOracles:
    """One run's judge of everything that the log did to jobs. `rate_ppm_max`: of all members' clocks.

    `pace`: what they are configured to; without it nobody is late.
    """

    def __init__(self, raft: Oracles, rate_ppm_max: int, pace: Pace | None = None) -> None:
        self._raft = raft
        self._rate_ppm = rate_ppm_max
        self.judges_time = True  # not in experiments that measure what other rules of time would do
        self._outcomes: dict[int, Outcome] = {}
        self._digests: dict[int, bytes] = {}
        self._snapshots: dict[int, bytes] = {}
        self._made_ns: dict[tuple[int, int], int] = {}
        self._replies: dict[tuple[int, int], Reply] = {}
        self._term = 0  # of the entry at hand
        self._last = (0, 0, 0, 0)  # index, lt, wt, true time of the newest batch
        self.holders: dict[str, Holding] = {}
        self._job_token = self._fetch_token = 0
        self._lock_tokens: dict[str, int] = {}
        self._locks: dict[str, Holding] = {}  # those that are bound to a session
        self._sessions: dict[int, Life] = {}  # those that live
        self._opened: dict[int, int] = {}  # nonce -> session
        self._ending: set[int] = set()  # sessions that end in the entry at hand
        self._finishing: set[str] = set()  # jobs that end in it
        self._released: set[int] = set()  # tokens and tickets of locks let go in the entry at hand
        self._taken: set[int] = set()  # tokens of jobs that are taken away in the entry at hand
        self._freed: set[int] = set()  # of these, the ones whose job was pulled by somebody else since
        self._bound: dict[int, set[str]] = {}  # session -> resources
        self._completed: dict[str, int] = {}
        self._due_wt: dict[str, int] = {}  # of every job, 0 when nothing is to be waited for
        self._keys: dict[str, str] = {}  # unique key -> the job that was made for it last
        self.orders: dict[bytes, Order] = {}
        self.ended: dict[str, None] = {}
        self.foreign: dict[
            str, None
        ] = {}  # jobs with a lifecycle of somebody else: what comes of them is theirs
        self.grants = self.completions = 0
        self.real_time = RealTime()
        self.schedules = Schedules(raft.note)
        self.ages = Ages(pace.slow_ppm if pace is not None else 0)
        self.lease_gaps = LeaseGaps(rate_ppm_max)
        self.starts = Starts(raft.note)
        self.late_ends = None if pace is None else LateEnds(pace, self._sessions)
        self.witness: Witness | None = None  # judges every reply; hand-made logs go without
        self.batches = BatchChecks(self.foreign, raft.note)
        self.on_event: Callable[[str], None] = ignore
        self.on_revoked: Callable[[str, int], None] = ignore  # somebody took a job away on purpose
        self._judges = self._judges_by_command()

    def _judges_by_command(self) -> dict[type[Any], Callable[[int, Any, Reply], None]]:
        return {
            OpenSession: self._on_opened,
            EnqueueJobs: self._on_enqueued,
            EnqueueBatch: self._on_batch_made,
            CompleteJob: self._on_completed,
            FailJob: self._on_given_up,
            ReleaseJob: self._on_given_up,
            RequeueJob: self._on_moved,
            RescheduleJob: self._on_moved,
            DeleteJob: self._on_moved,
            FetchJobs: self._on_fetched,
            AcquireLock: self._on_lock_asked,
            ReleaseLock: self._on_unlocked,
            Batch: self._on_batch,
            CreateJob: self._on_taken_over,
            SetJobState: self._on_taken_over,
            ExpireJob: self._on_taken_over,
            AddToQueue: self._on_queued,
            FetchNext: self._on_fetched_by_contract,
            TryLock: self._on_tried,
            **dict.fromkeys(get_args(RecurringCommand), self._on_recurring),
        }

    @property
    def wt(self) -> int:
        """The newest wall time in the log, ms."""
        return self._last[2]

    # ------------------------------------------------------------------ members

    def on_made(self, record: Persist, now_ns: int) -> None:
        """A member is about to send entries and to write them. The first is their leader, which makes them now; it may die
        when it has sent them, before it writes."""
        for entry in record.entries:
            self._made_ns.setdefault((entry.index, entry.term), now_ns)

    def on_applied(self, node_id: NodeId, index: int, outcome: Outcome) -> None:
        known = self._outcomes.get(index)
        if known is None:
            self._outcomes[index] = outcome
            self._judge(self._raft.committed[index - FIRST - 1], outcome)
        elif known != outcome:
            raise Violation(
                "replicas are equal [C5]", f"n{node_id} answers {index} with {outcome}, not {known}"
            )

    def on_state(self, node_id: NodeId, index: int, store: JobStore) -> None:
        digest = store.digest()
        if self._digests.setdefault(index, digest) != digest:
            raise Violation("replicas are equal [C5]", f"the store of n{node_id} differs at {index}")

    def on_snapshot(self, node_id: NodeId, index: int, content: bytes) -> None:
        if self._snapshots.setdefault(index, content) != content:
            raise Violation("replicas are equal [C5]", f"the snapshot of n{node_id} differs at {index}")

    def look_inside(self, node_id: NodeId, store: JobStore) -> None:
        """What is kept beside the records, in indexes and lines, is what the records say."""
        try:
            check_store(store)
        except (AssertionError, LookupError) as error:
            raise Violation("store invariant", f"n{node_id} at {store.applied_index}: {error!r}") from error

    def on_restored(self, node_id: NodeId, index: int, store: JobStore) -> None:
        """A store rebuilt from a snapshot, at a start or from a leader, is the store that was saved."""
        if index > FIRST:
            self.on_state(node_id, store.applied_index, store)

    def on_read(self, query: Query, index: int, value: Any) -> None:
        """What a member answers is what the store was at that place in the log [C4]."""
        if self.witness is not None:
            self.witness.on_read(query.name, query.about, index, value)

    # ------------------------------------------------------------------ the log, once

    def _judge(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.faults:
            raise Violation("entries make sense", f"index {entry.index}: {outcome.faults}")
        batch = decode_entry(entry.data)
        self._judge_time(entry, batch.lt, batch.wt)
        self._term = entry.term
        self._ending = {notice.session for notice in outcome.notices if notice.kind == "session_closed"}
        self._finishing = set(outcome.finished)
        self._taken = {each.payload.token for each in outcome.notices if isinstance(each.payload, Cancelled)}
        self._freed.clear()
        self._released.clear()
        replies = iter(outcome.replies)
        for session, seq, wire in _commands(batch.groups):
            answer = next(replies)
            if not session and wire[0] in UPKEEP and self.late_ends is not None:
                self.late_ends.on_upkeep(self._last[3])
            self._judge_reply((session, seq), wire, answer)
            life = self._sessions.get(session)
            if life is not None and answer[2][1] != "session_expired":
                life.renewed_lt = batch.lt
        self.batches.on_finished(outcome.finished)
        self.batches.look()
        for notice in outcome.notices:
            self._judge_notice(notice.session, notice.payload, batch.wt)
        self.ended.update(dict.fromkeys(outcome.finished))
        if self.witness is not None:
            self.witness.on_entry(entry.index, batch, outcome)

    def _judge_time(self, entry: Entry, lt: int, wt: int) -> None:
        """Log time runs at most as fast as the fastest clock, and nothing ever goes back [T1]."""
        now_ns = self._made_ns[entry.index, entry.term]
        index, last_lt, last_wt, last_ns = self._last
        if lt < last_lt or wt < last_wt:
            raise Violation("time goes on [T1]", f"from {last_lt}, {last_wt} at {index} to {lt}, {wt}")
        most_ms = (now_ns - last_ns) * (1_000_000 + self._rate_ppm) // 1_000_000 // MS + ROUNDING_MS
        if self.judges_time and index and lt - last_lt > most_ms:
            raise Violation(
                "log time is slow enough [T1]",
                f"{lt - last_lt} ms from index {index} to {entry.index}, at most {most_ms} can have passed",
            )
        self._last = (entry.index, lt, wt, now_ns)
        if self.late_ends is not None:
            self.late_ends.on_batch(entry.term, lt, now_ns)

    def _judge_reply(self, name: tuple[int, int], wire: Any, answer: tuple[int, int, Reply]) -> None:
        """A command applies once, however often it is in the log, and is answered alike each time [C2]."""
        session, seq, reply = answer
        if (session, seq) != name:
            raise Violation("answers in order", f"{name} is answered as {session, seq}")
        if reply[0] and reply[1] in NOT_APPLIED:
            return
        known = self._replies.get(name)
        if known is not None and session:
            if known != reply:
                raise Violation("applied once [C2]", f"{name} is answered {known}, then {reply}")
            self._raft.note("retry applied once")
            return
        self._replies[name] = reply
        self.real_time.on_effect(session, seq, self._last[0])
        command: Command = decode(wire)
        judge = self._judges.get(type(command))
        if judge is not None:
            judge(session or seq, command, reply)  # what opens a session is named by a nonce

    # ------------------------------------------------------------------ sessions

    def _on_opened(self, nonce: int, command: OpenSession, reply: Reply) -> None:
        """However often a session is opened with one nonce, it is one session as long as that lives [C2]."""
        if reply[0]:
            return
        session = int(reply[1])
        known = self._opened.get(nonce, session)
        if known != session and known in self._sessions and known not in self._ending:
            raise Violation("applied once [C2]", f"nonce {nonce} opened {known}, then {session}")
        self._opened[nonce] = session
        self._sessions.setdefault(session, Life(command.ttl_ms, self._last[1]))

    def _on_session_closed(self, session: int, reason: str) -> None:
        """One that expires was silent for its whole time to live [T2]."""
        self.on_event(f"session {session} ends: {reason}")
        life = self._sessions.pop(session, None)
        early = life is not None and reason == "expired" and self._last[1] < life.renewed_lt + life.ttl_ms
        if early and self.judges_time:
            raise Violation(
                "not before its time [T2]", f"session {session} ends at {self._last[1]}, had {life}"
            )
        if life is not None and reason == "expired" and self.judges_time:
            self.lease_gaps.on_expired(session, life.ttl_ms, self._last[3])
        left = [job_id for job_id, held in self.holders.items() if held.session == session]
        if left and reason != "closed":
            self._raft.note("job lost with its worker")
        for job_id in left:
            del self.holders[job_id]
        for resource in self._bound.pop(session, set()):
            if resource in self._locks and self._locks[resource].session == session:
                del self._locks[resource]

    # ------------------------------------------------------------------ jobs

    def _on_enqueued(self, _: int, command: EnqueueJobs, reply: Reply) -> None:
        if reply[0]:
            return
        for job, job_id in zip(command.jobs, reply[1], strict=True):
            self._on_made(job, job_id)
            if job.batch_id:
                self.batches.on_joined(job, job_id)

    def _on_batch_made(self, _: int, command: EnqueueBatch, reply: Reply) -> None:
        self.batches.on_made(command, reply)
        if not reply[0]:
            ids: Any = reply[1]
            for job, job_id in zip((*command.jobs, *command.callbacks), (*ids[1], *ids[2]), strict=True):
                self._on_made(job, job_id)

    def _on_made(self, job: NewJob, job_id: str) -> None:
        self._order(job).ids.append(job_id)
        self.starts.on_made(job_id, job, self.wt, self.holders)
        if job_id not in self._due_wt:
            delayed = self.wt + job.delay_ms if job.delay_ms else 0
            self._due_wt[job_id] = delayed if job.at_wt is None else job.at_wt
        if job.unique_key and not job.unique_ms:
            self._judge_key(job.unique_key, job_id)

    def _judge_key(self, key: str, job_id: str) -> None:
        """As long as the job that was made for a key has not ended, the key stands for it."""
        holder = self._keys.get(key, job_id)
        over = holder in self.ended or holder in self._finishing or holder in self.foreign
        if holder != job_id and not over:
            raise Violation("one job per key", f"{key} stands for {holder}, and became {job_id}")
        self._keys[key] = job_id

    def _order(self, job: NewJob) -> Order:
        order = self.orders.get(job.args)
        if order is None:
            raise Violation("no job from nowhere [J2]", f"{job}")
        return order

    def _on_completed(self, session: int, command: CompleteJob, reply: Reply) -> None:
        if reply[0]:
            self._raft.note("stale report refused")
            return
        self._let_go(session, command.job_id, command.token)
        self.batches.on_completed(command.job_id)
        self.completions += 1
        count = self._completed[command.job_id] = self._completed.get(command.job_id, 0) + 1
        if count > 1:
            raise Violation("completed once [J7]", f"{command.job_id} is completed again, by {command.token}")

    def _on_given_up(self, session: int, command: FailJob | ReleaseJob, reply: Reply) -> None:
        if not reply[0]:
            self._let_go(session, command.job_id, command.token)

    def _let_go(self, session: int, job_id: str, token: int) -> None:
        held = self.holders.pop(job_id, None)
        if held is None or held.token != token:
            raise Violation("fenced [T4]", f"session {session} reports {job_id} by {token}, held as {held}")

    def _on_moved(self, _: int, command: RequeueJob | RescheduleJob | DeleteJob, reply: Reply) -> None:
        """On purpose it may run and end again."""
        if not reply[0] and reply[1]:
            self._completed.pop(command.job_id, None)
            if command.job_id in self.ended or command.job_id in self._finishing:
                # Revived, it has its key again only if nobody else has it by then: the witness knows.
                self._keys = {key: job_id for key, job_id in self._keys.items() if job_id != command.job_id}
            self.ended.pop(command.job_id, None)
            self._due_wt[command.job_id] = 0
            self.batches.on_moved(command.job_id, deleted=isinstance(command, DeleteJob))
            self.starts.lift(command.job_id)

    def _judge_notice(self, session: int, payload: object, wt: int) -> None:
        match payload:
            case JobGrant():
                self._on_granted(session, payload, wt)
            case Cancelled(token, job_id, reason):
                held = None if token in self._freed else self.holders.pop(job_id, None)
                if token not in self._freed and (held is None or held.token != token):
                    raise Violation("one holder [J3]", f"{job_id} is taken from {token}, held as {held}")
                self.on_event(f"{job_id} is taken from {token}: {reason}")
                if reason != TIMED_OUT:
                    self.on_revoked(job_id, token)
            case LockGrant():
                self._on_locked(session, payload, bound=payload.resource in self._bound.get(session, ()))
            case _:
                self._on_session_closed(session, str(payload))

    def _on_granted(self, session: int, grant: JobGrant, wt: int) -> None:
        """One live token per job, and tokens only grow [J3]; nothing runs before it is due [T6]."""
        held = self.holders.get(grant.job_id)
        if held is not None:
            raise Violation("one holder [J3]", f"{grant.job_id} is granted as {grant.token}, held as {held}")
        if grant.token <= self._job_token:
            raise Violation("tokens grow [C6]", f"{grant.token} after {self._job_token}")
        if self._due_wt.get(grant.job_id, 0) > wt:
            raise Violation("not before it is due [T6]", f"{grant.job_id} at {wt}")
        self.schedules.on_granted(grant)
        order = self.orders.get(grant.args)
        if order is not None and order.batch and grant.job_id not in order.ids:
            raise Violation(WHOLE, f"{grant.job_id} is granted, and no batch was made with it")
        self.batches.on_granted(grant.job_id)
        self._job_token = grant.token
        self.grants += 1
        self._on_started(grant.job_id, wt)
        self.on_event(f"{grant.job_id} is granted to session {session} as {grant.token}")
        self.holders[grant.job_id] = Holding(session, grant.token)

    def _on_started(self, job_id: str, wt: int) -> None:
        """Beside those that others hold; not those that let go in this entry, as its notices will say."""
        if self.starts.is_limited(job_id):
            held = self.holders.items()
            others = [
                each for each, by in held if by.token not in self._taken and by.session not in self._ending
            ]
            self.starts.on_start(job_id, others, self._last[1], wt)

    def _on_fetched(self, session: int, _: FetchJobs, reply: Reply) -> None:
        """Pulled jobs are granted by the reply."""
        for wire in reply[1] if not reply[0] else ():
            grant = grant_from_wire(wire)
            held = self.holders.get(grant.job_id)
            if held is not None and (held.token in self._taken or held.session in self._ending):
                self._freed.add(self.holders.pop(grant.job_id).token)
            self._on_granted(session, grant, self.wt)

    def _on_recurring(self, _: int, command: RecurringCommand, reply: Reply) -> None:
        self.schedules.on_command(command, reply, self.wt, self._term)

    # ------------------------------------------------------------------ by contract

    def _on_batch(self, session: int, command: Batch, reply: Reply) -> None:
        """Contract operations never refuse by themselves, so each is judged as if it had come alone."""
        for op, value in zip(command.ops, reply[1], strict=True) if not reply[0] else ():
            judge = self._judges.get(type(op))
            if judge is not None:
                judge(session, op, (0, value))

    def _on_taken_over(self, _: int, command: CreateJob | SetJobState | ExpireJob, reply: Reply) -> None:
        """From now on its states are somebody else's business: it may run and end again, or never."""
        self._take_over(str(reply[1]) if isinstance(command, CreateJob) else command.job_id)

    def _take_over(self, job_id: str) -> None:
        self.foreign[job_id] = None
        self._completed.pop(job_id, None)
        self._due_wt[job_id] = 0
        self.starts.lift(job_id)

    def _on_queued(self, _: int, command: AddToQueue, reply: Reply) -> None:
        """Whoever puts it there does not wait until it is due."""
        self._due_wt[command.job_id] = 0

    def _on_fetched_by_contract(self, _: int, command: FetchNext, reply: Reply) -> None:
        """Tokens grow [C6]. The same job may be in other hands as well: a queue may have it twice."""
        if reply[0] or reply[1] is None:
            return
        answer: Any = reply[1]
        job_id, token = str(answer[0]), int(answer[2])
        self._on_started(job_id, self.wt)
        self._take_over(job_id)
        if token <= self._fetch_token:
            raise Violation("tokens grow [C6]", f"{job_id} is fetched by {token} after {self._fetch_token}")
        self._fetch_token = token

    def _on_tried(self, session: int, command: TryLock, reply: Reply) -> None:
        """The same token again is a renewal."""
        answer: Any = reply[1]
        token = 0 if reply[0] else int(answer)
        if token and token != self._lock_tokens.get(command.resource):
            self._on_locked(session, LockGrant(command.resource, token, 0), bound=False)

    # ------------------------------------------------------------------ locks

    def _on_lock_asked(self, session: int, command: AcquireLock, reply: Reply) -> None:
        if reply[0]:
            return
        if not command.ttl_ms:
            self._bound.setdefault(session, set()).add(command.resource)
        state, token = reply[1]
        if state == "granted":
            self._on_locked(session, LockGrant(command.resource, int(token), 0), bound=not command.ttl_ms)

    def _on_locked(self, session: int, granted: LockGrant, *, bound: bool) -> None:
        """Grants of a lock have growing tokens [C6], and one that is bound to a session is free before [J10]."""
        resource, token, ticket = granted
        self.on_event(f"{resource} is granted to session {session} as {token}")
        if token <= self._lock_tokens.get(resource, 0):
            raise Violation("tokens grow [C6]", f"{resource}: {token} after {self._lock_tokens[resource]}")
        held = self._locks.pop(resource, None)
        if held is not None and held.session not in self._ending:
            raise Violation("one holder [J10]", f"{resource} is granted as {token}, held as {held}")
        self._lock_tokens[resource] = token
        if bound and ticket not in self._released:
            self._locks[resource] = Holding(session, token, ticket)
            self._bound.setdefault(session, set()).add(resource)

    def _on_unlocked(self, _: int, command: ReleaseLock, reply: Reply) -> None:
        """By token, or by the ticket of a waiter; whoever waits still does not hold it."""
        self.on_event(f"{command.resource} is let go by {command.token}: {reply}")
        if not reply[0]:
            self._released.add(command.token)
        held = self._locks.get(command.resource)
        if not reply[0] and held is not None and command.token in (held.token, held.ticket):
            del self._locks[command.resource]

    # ------------------------------------------------------------------ the end

    def scan(self, store: JobStore) -> None:
        """Every acknowledged job is there [D2], once [C2]; none that was refused is [C3]."""
        found: dict[bytes, list[str]] = {}
        for job in store.jobs.values():
            found.setdefault(job.spec.args, []).append(job.id)
        for payload, order in self.orders.items():
            ids = found.get(payload, [])
            if len(ids) > 1:
                raise Violation("applied once [C2]", f"{payload!r} became {ids}")
            evicted = order.brief and all(job_id in self.ended for job_id in order.ids)
            evicted = evicted or any(job_id in self.foreign for job_id in order.ids)
            if order.fate == "acknowledged" and not ids and not order.shared and not evicted:
                raise Violation("acknowledged is not lost [J1]", f"{payload!r} is not in the store")
            if order.fate == "refused" and ids:
                raise Violation("honest refusal [C3]", f"{payload!r} became {ids}")
            if ids and not all(other.ids for other in order.batch):
                raise Violation(WHOLE, f"{payload!r} became {ids}, without all that was asked for with it")

    def compare(self, store: JobStore) -> None:
        """The store is what an independent model makes of the same log."""
        if self.witness is not None:
            self.witness.compare(store)

    def unfinished(self, store: JobStore) -> list[str]:
        """Jobs that still have to run."""
        return [
            f"{job.id} {job.state}"
            for job in store.jobs.values()
            if job.state in WAITING and job.id not in self.foreign and not self._waits_for_good(store, job)
            if not waits_for_a_fetch(store, job)
        ]

    def _waits_for_good(self, store: JobStore, job: Job) -> bool:
        """For an end that nobody owes it: of one that failed, of somebody else's, or of one that waits for good itself."""
        if job.state == "Awaiting" and job.spec.parent_id.startswith(BATCH_REFERENCE):
            return self._waits_for_batch(store, job)
        parent = store.jobs.get(job.spec.parent_id)
        if job.state != "Awaiting" or parent is None:
            return False
        if parent.state in ("Failed", "Quarantined"):
            return job.spec.on in ("success", "deleted")  # until somebody revives or deletes it
        return parent.id in self.foreign or self._waits_for_good(store, parent)

    def _waits_for_batch(self, store: JobStore, job: Job) -> bool:
        """For good, if it has failed, or if a member of it does not end either."""
        batch = store.batches.get(job.spec.parent_id.removeprefix(BATCH_REFERENCE))
        if batch is None or not batch.pending:
            return batch is not None and batch.state == "Failed" and job.spec.on == "success"
        members = [each for each in store.jobs.values() if each.spec.batch_id == batch.id]
        return any(
            each.state in WAITING and (each.id in self.foreign or self._waits_for_good(store, each))
            for each in members
        )

    @property
    def latest_due_wt(self) -> int:
        """The latest instant that any job was asked to wait for."""
        return max(self._due_wt.values(), default=0)


def waits_for_a_fetch(store: JobStore, job: Job) -> bool:
    """Its key is held by contract: whoever fetched may have forgotten it, and keeps it for as long as they need not renew."""
    key = job.spec.start.key if job.spec.start is not None else ""
    return bool(key) and any(
        store.leases[token].limit_key == key for token in store.fetched if job.state == "Enqueued"
    )


def _commands(groups: list[bytes]) -> Iterator[tuple[int, int, Any]]:
    for data in groups:
        group = decode_group(data)
        for seq, wire in group.commands:
            yield group.session, seq, wire
