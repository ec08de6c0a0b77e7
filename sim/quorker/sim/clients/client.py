"""A process that is no member: runs the very session and worker that users run, over one line to any member.

Twin of `quorker.transport.client` and `session_driver`. It enqueues, locks and works; it can crash, freeze and be cut off,
and a part of its workers report what they were told to stop, as a frozen process would. What it believes to hold is
told to the `Beliefs` in true time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quorker.core.errors import NotApplied, QuorkerError, Rejected
from quorker.core.jobs.batch import decode_group
from quorker.core.jobs.commands import (
    AcquireLock,
    Command,
    CompleteJob,
    DeleteJob,
    EnqueueJobs,
    FailJob,
    ReleaseJob,
    ReleaseLock,
    RequeueJob,
    Subscribe,
)
from quorker.core.jobs.new_job import JobGrant, NewJob, RetryPolicy
from quorker.core.jobs.outcome import Cancelled, LockGrant, Notice
from quorker.core.raft.messages import NodeId
from quorker.core.session import ClientSession, SessionConfig, SessionState
from quorker.core.worker import Worker
from quorker.sim.cases.case import JobsKnobs, Op, OpKind
from quorker.sim.clients.asks import QUEUES, Asks
from quorker.sim.oracles.beliefs import Beliefs
from quorker.sim.oracles.job_checks import JobOracles, Order
from quorker.sim.stories.story import Kind
from quorker.sim.stories.storyteller import inbox_for
from quorker.sim.world.clock import NodeClock
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.line import Line, MemberEnd
from quorker.sim.world.randomness import Stream, key, mix
from quorker.sim.world.trace import What
from quorker.sim.world.wire import ForwardRefused
from quorker.sim.world.world import World

TICK_MS_MIN: Final = 5
TICK_MS_MAX: Final = 250
RETRY_TICK_MS: Final = 20
DIAL_AGAIN_MS: Final = 30
GOODBYE_MS: Final = 500
OUTCOME_DEADLINE_MS: Final = 24 * 3600 * 1000
PATIENCE_MS: Final = 400  # of one who waits for a lock
PATIENCES_MS: Final = (80, 400, 2_000, 10_000)  # of those who enqueue
FAIL, RELEASE = 8, 9  # ways to report a job, of ten; the others complete it
POISON: Final = "poison"  # a task that kills the process which runs it, if that is one of its own
REBORN_NS: Final = 40 * MS
RETRIES: Final = RetryPolicy(attempts=2, delays_ms=(20, 40))


@dataclass(slots=True)
class Lines:
    """How clients are connected. Lines are numbered over the whole run."""

    world: World
    members: Sequence[MemberEnd]
    made: int = 0

    def dial(self, client: SimClient, member: MemberEnd, *, near: bool) -> Line:
        self.made += 1
        return Line(self.world, self.made, client, member, near=near)


class SimClient:
    """`home`: the member in whose process it lives, if it does; else it goes from member to member."""

    def __init__(
        self,
        number: int,
        clock: NodeClock,
        lines: Lines,
        jobs: JobOracles,
        beliefs: Beliefs,
        home: MemberEnd | None = None,
    ) -> None:
        world = lines.world
        self.id = number
        self.clock = clock
        self.home = home
        self.incarnation = 0
        self.alive = self.paused = self.waking = False
        self.inbox = inbox_for(lines.world.trace.story)
        self.session: ClientSession
        self.worker: Worker
        self.line: Line | None = None
        self.known_jobs: list[str] = []
        self.seen = 0  # the newest place in the log that this process was told of
        self._asks_for = Asks(self, world.case)
        self._world = world
        self._knobs = world.case.jobs or JobsKnobs()
        self._lines = lines
        self._jobs = jobs
        self._beliefs = beliefs
        self._draw = Stream(world.case.seed, "client", number)
        self._work_key = key(world.case.seed, "work", number)
        self._member = number
        self._executing: dict[int, JobGrant] = {}
        self._locks: dict[str, int] = {}  # resource -> token
        self._wanted: dict[str, int] = {}  # resource -> ticket, of operations under way; 0 before it is known
        self._ordered = 0
        self._leaving = False
        self._heard_ms = 0
        self._ticks = 0
        self.calm = False

    # ------------------------------------------------------------------ life and death

    def start(self) -> None:
        """A new process, with a session of its own that takes the place of the last one."""
        self.alive = True
        self._leaving = False
        if self._world.trace.story is not None:
            self._world.trace.story.started(f"c{self.id}", "starts")
        self.worker = Worker()
        config = SessionConfig(f"c{self.id}", self._knobs.ttl_ms, self._knobs.retransmit_ms)
        self.session = ClientSession(config, 0, self.now_ms)
        self._open()
        self._dial()
        self._arm()

    def crash(self, restart_after_ns: int | None) -> None:
        if not self.alive:
            return
        self.alive = self.paused = False
        self.incarnation += 1
        self.inbox.clear()
        self._executing.clear()
        self._locks.clear()
        self._wanted.clear()
        self._asks_for.forget()
        self._beliefs.forget(self)
        if self._world.trace.story is not None:
            self._world.trace.story.crashed(f"c{self.id}", "crashes")
        line, self.line = self.line, None
        if line is not None:
            line.break_now()
        if restart_after_ns is not None:
            self._world.kernel.after(restart_after_ns, self._restart, self.incarnation)

    def _restart(self, call: Call) -> None:
        if not self.alive and call.payload == self.incarnation:
            self.start()

    def pause(self) -> None:
        self.paused = self.alive
        if self.paused and not self._crawls:
            self._note("is frozen", Kind.PAUSE)

    def resume(self) -> None:
        """What arrived in the meantime comes first, then a look at the clock."""
        if not self.paused:
            return
        self.paused = False
        self.waking = True
        if not self._crawls:
            self._note("goes on", Kind.RESUME)
        inbox = list(self.inbox)
        self.inbox.clear()
        incarnation = self.incarnation
        for arrived in inbox:
            if self.incarnation == incarnation:
                arrived()
        self._tick()
        self.waking = False

    @property
    def _crawls(self) -> bool:
        return self.home is not None and self.home.crawling

    @property
    def oracles(self) -> JobOracles:
        return self._jobs

    def wall_ms(self) -> int:
        return self.clock.wall_ms(self._world.kernel.now)

    @property
    def now_ms(self) -> int:
        return self.clock.monotonic_ms(self._world.kernel.now)

    @property
    def is_news_too_old(self) -> bool:
        """Whether what the session was granted may be in other hands by now."""
        return self.now_ms >= self.session.lease_deadline_ms

    # ------------------------------------------------------------------ the line

    def _dial(self) -> None:
        """Connect to the next member, or to the one whose process this is."""
        members = self._lines.members
        self._member += 1
        member = self.home or members[self._member % len(members)]
        self.line = self._lines.dial(self, member, near=self.home is not None)
        self._heard_ms = self.session.now_ms = self.now_ms
        self.session.on_route_changed()
        if self.session.state is SessionState.OPEN:
            self.line.to_member(member.on_attach, self.line, self.session.session_id)
        self._flush()

    def on_line_broken(self, line: Line) -> None:
        if line is self.line:
            self.line = None
            self._world.kernel.after(DIAL_AGAIN_MS * MS, self._dial_again, self.incarnation)

    def _dial_again(self, call: Call) -> None:
        if call.payload != self.incarnation or self.line is not None:
            return
        if self.paused:
            self.inbox.append(lambda: self._dial_again(call))
        else:
            self._dial()

    def _flush(self) -> None:
        while self.line is not None and self.line.up and (group := self.session.take_group()):
            sent = decode_group(group)
            seqs = (seq for seq, _ in sent.commands)
            self._jobs.lease_gaps.on_sent(sent.session, seqs, self._world.kernel.now)
            self.line.to_member(self.line.member.on_submit, self.line, group)

    # ------------------------------------------------------------------ from the member

    def on_opened(self, nonce: int, session_id: int) -> None:
        self._hear()
        if nonce == self.session.nonce:
            self._jobs.lease_gaps.on_opened(nonce, session_id)
            self.session.on_opened(session_id)
            self._note(f"has session {session_id}")
        self._flush()

    def on_reply(self, session_id: int, seq: int, reply: Any) -> None:
        self._hear()
        if session_id and session_id == self.session.session_id:
            self._jobs.lease_gaps.on_reply(session_id, seq, reply)
            self.session.on_reply(seq, reply)
            if self.session.state is SessionState.LOST:
                self._on_lost(self.session.lost_reason)
        self._flush()

    def on_notice(self, notice: Notice) -> None:
        self._hear()
        if notice.session != self.session.session_id:
            return
        match notice.payload:
            case JobGrant() as grant:
                self.on_grant(grant)
            case Cancelled(token, _, _):
                self._stop(token)
            case LockGrant(resource, token, ticket):
                if self._wanted.get(resource) == ticket:  # else it has left the line already
                    self._on_locked(resource, token)
            case str() as reason:
                self._on_lost(reason)
        self._flush()

    def on_refused(self, refused: ForwardRefused, leader: NodeId) -> None:
        self._hear()
        if refused.session_id == self.session.session_id or self.session.nonce in refused.seqs:
            self.session.on_refused(refused.seqs, refused.retry_after_ms, refused.reason, leader)
            self._arm()

    def on_lost(self, session_id: int, reason: str) -> None:
        self._hear()
        if session_id == self.session.session_id:
            self._on_lost(reason)
            self._flush()

    def on_route_changed(self) -> None:
        self._hear()
        self.session.on_route_changed()
        self._flush()

    def on_answer(self, number: int, index: int, value: Any) -> None:
        self._hear()
        self._asks_for.on_answer(number, index, value)

    def _hear(self) -> None:
        self._heard_ms = self.session.now_ms = self.now_ms

    # ------------------------------------------------------------------ the session

    def _open(self) -> None:
        """A session, and in it the wish to work."""
        self.session.open(
            self.now_ms, key(self._world.case.seed, "nonce", self.id, self._draw.below(1 << 32)) >> 2
        )
        self.submit(Subscribe(QUEUES, self._knobs.slots), OUTCOME_DEADLINE_MS, None)

    def _on_lost(self, reason: str) -> None:
        self._note(f"loses its session: {reason}")
        self._leaving = False
        self.session.on_lost(reason)
        self._give_up()
        self._open()
        self._arm()

    def submit(
        self,
        command: Command,
        patience_ms: int,
        resolve: Callable[[Any, QuorkerError | None], None] | None,
    ) -> None:
        """Put a command into the session; what comes of it must have its place in real time."""
        now, real_time = self.now_ms, self._jobs.real_time
        floor = real_time.newest

        def resolved(value: Any, error: QuorkerError | None) -> None:
            if error is None:
                self.seen = max(self.seen, real_time.on_answered(self.session.session_id, seq, floor))
            if resolve is not None:
                resolve(value, error)

        seq = self.session.submit(command, now, now + patience_ms, resolved)

    def _arm(self) -> None:
        """Look at the clock when the session, or a lease, needs it."""
        self._ticks += 1
        now = self.now_ms
        wait = self.session.next_deadline() - now
        if self._executing or self._locks:
            wait = min(wait, self.session.lease_deadline_ms - now)
        wait = min(max(wait, TICK_MS_MIN), RETRY_TICK_MS if self.session.has_unsent else TICK_MS_MAX)
        due_ns = self.clock.true_ns(now + wait)
        self._world.kernel.after(max(due_ns - self._world.kernel.now, 0), self._timer, self._ticks)

    def _timer(self, call: Call) -> None:
        if call.payload == self._ticks and self.alive and not self.paused:
            if self._world.trace.story is not None:
                self._world.trace.story.timer(f"c{self.id}", "looks at the clock")
            self._tick()

    def _tick(self) -> None:
        now = self.now_ms
        self.session.tick(now)
        if now >= self.session.lease_deadline_ms and (self._executing or self._locks):
            self._world.note("lease not renewed in time")
            self._give_up()
        self._flush()
        waits = self.session.unanswered > 0 or self.session.state is SessionState.OPENING
        if self.line is not None and waits and now - self._heard_ms >= self._knobs.stuck_ms:
            self._world.note("client gives up on a member")
            self._heard_ms = now
            self.line.break_now()
        self._arm()

    # ------------------------------------------------------------------ working

    def on_grant(self, grant: JobGrant) -> None:
        if self._leaving:
            return
        for started in self.worker.on_granted((grant,)):
            if self.is_news_too_old:
                self._world.note("grant learned too late")
                self.worker.on_finished(started.token)
                self.submit(ReleaseJob(started.job_id, started.token), OUTCOME_DEADLINE_MS, None)
                continue
            self._beliefs.hold(started.job_id, started.token, self)
            self._executing[started.token] = started
            self._note(f"starts {started.job_id} by {started.token}")
            word = mix(self._work_key ^ started.token)
            work_ns = MS if self.calm else self._knobs.work_ms * MS * (word & 1023) >> 8
            if grant.timeout_ms:  # it stops itself in time, whatever its clock says
                work_ns = min(work_ns, grant.timeout_ms * MS * 8 // 10)
            self._world.kernel.after(work_ns, self._worked, (self.incarnation, started, word))
        self._arm()

    def _worked(self, call: Call) -> None:
        incarnation, grant, word = call.payload
        if incarnation != self.incarnation:
            return
        if self.paused:
            self.inbox.append(lambda: self._worked(call))
            return
        if grant.task == POISON and self.home is None:
            self._world.note("killed by a job")
            self.crash(REBORN_NS)
            return
        stopped = self._executing.pop(grant.token, None) is None
        self._beliefs.let_go(grant.job_id, grant.token)
        if not self.worker.on_finished(grant.token):
            return
        if stopped and word >> 10 & 1:  # the others are told too late, and report all the same
            self._report(grant, RELEASE)
        else:
            self._report(grant, (word >> 12) % 10 if not self.calm else 0)

    def _report(self, grant: JobGrant, way: int) -> None:
        command: Command = CompleteJob(grant.job_id, grant.token, b"done")
        if way == FAIL:
            command = FailJob(grant.job_id, grant.token, "Error", "it happens", "")
        elif way == RELEASE:
            command = ReleaseJob(grant.job_id, grant.token)
        self.submit(command, OUTCOME_DEADLINE_MS, None)
        self._flush()
        self._arm()

    def _stop(self, token: int) -> None:
        """This job is no longer ours. Its process may notice late, but what it does is not protected any more."""
        grant = self._executing.pop(token, None)
        if grant is not None:
            self._beliefs.let_go(grant.job_id, token)

    def _give_up(self) -> None:
        """Stop everything that rests on the session."""
        for token in self.worker.give_up():
            self._stop(token)
        for resource, token in self._locks.items():
            self._beliefs.let_go(f"lock {resource}", token)
        self._locks.clear()

    # ------------------------------------------------------------------ asking

    def perform(self, op: Op) -> None:
        """One operation of the case, if this process is there to do it."""
        if not self.alive or self.paused:
            return
        self._world.trace.record(self._world.kernel.now, What.CLIENT, self.id, op.amount)
        if self._world.trace.story is not None:
            self._world.trace.story.enter(f"c{self.id}", Kind.OPERATION, f"is asked to {op.kind}")
        self._asks()[op.kind](op.amount)
        self._flush()
        self._arm()

    def probe(self) -> Order:
        """Ask for a plain job, patiently."""
        order = self.enqueue(3 << 12 | 1)
        self._flush()
        self._arm()
        return order

    def _asks(self) -> dict[OpKind, Callable[[int], object]]:
        return {
            OpKind.ENQUEUE: self.enqueue,
            OpKind.LOCK: self._lock,
            OpKind.DELETE: self._delete,
            OpKind.REQUEUE: self._requeue,
            OpKind.CLOSE: self._close,
            **self._asks_for.ways(),
        }

    def enqueue(self, dice: int) -> Order:
        """Ask for a job; what kind of job, the dice tell."""
        job, order = self.new_job(dice)
        patience = PATIENCES_MS[dice >> 12 & 3]
        self.submit(
            EnqueueJobs((job,)), patience, lambda value, error: self.on_enqueued((order,), value, error)
        )
        return order

    def new_job(self, dice: int) -> tuple[NewJob, Order]:
        """Its arguments name it for the oracles."""
        self._ordered += 1
        order = Order(shared=dice & 7 == 0)
        payload = b"job %d.%d.%d" % (self.id, self.incarnation, self._ordered)
        self._jobs.orders[payload] = order
        job = NewJob(
            POISON if dice >> 20 & 1 else "task",  # no seed deals so high a number
            payload,
            QUEUES[dice >> 3 & 1],
            priority=(dice >> 4 & 3) - 1,
            timeout_ms=self._knobs.work_ms * (dice >> 6 & 3),
            retry=RETRIES,
            delay_ms=(dice >> 8 & 3) * 40,
            unique_key=f"key {dice >> 10 & 1}" if order.shared else "",
        )
        return job, order

    def on_enqueued(self, orders: Sequence[Order], value: Any, error: QuorkerError | None) -> None:
        if error is None:
            self.known_jobs.extend(value)
            fate = "acknowledged"
        else:
            fate = "refused" if isinstance(error, NotApplied | Rejected) else "unknown"
        for order in orders:
            order.fate = fate

    def _lock(self, dice: int) -> None:
        resource = f"resource {dice & 1}"
        if resource in self._wanted:
            return
        self._wanted[resource] = 0
        command = AcquireLock(resource, wait=bool(dice & 2))
        hold_ns = (1 + (dice >> 2 & 255)) * MS

        def on_answer(value: Any, error: QuorkerError | None) -> None:
            if error is not None:
                del self._wanted[resource]
                return
            self._wanted[resource] = value[1]
            if value[0] == "granted":
                self._on_locked(resource, value[1])
            # By the ticket it leaves the line again, or what it was given meanwhile.
            self._world.kernel.after(hold_ns, self._unlock, (self.incarnation, resource, value[1]))

        self.submit(command, PATIENCE_MS, on_answer)

    def _on_locked(self, resource: str, token: int) -> None:
        if not self.is_news_too_old and not self._leaving:
            self._beliefs.hold(f"lock {resource}", token, self)
            self._locks[resource] = token
            self._arm()

    def _unlock(self, call: Call) -> None:
        incarnation, resource, token = call.payload
        if incarnation != self.incarnation:
            return
        if self.paused:
            self.inbox.append(lambda: self._unlock(call))
            return
        del self._wanted[resource]
        held = self._locks.pop(resource, None)
        if held is not None:
            self._beliefs.let_go(f"lock {resource}", held)
        self.submit(ReleaseLock(resource, token), OUTCOME_DEADLINE_MS, None)
        self._flush()

    def _delete(self, dice: int) -> None:
        if self.known_jobs:
            job_id = self.known_jobs[dice % len(self.known_jobs)]
            self.submit(DeleteJob(job_id), PATIENCE_MS, None)

    def _requeue(self, dice: int) -> None:
        if self.known_jobs:
            job_id = self.known_jobs[dice % len(self.known_jobs)]
            self.submit(RequeueJob(job_id), PATIENCE_MS, None)

    def later(self, wait_ms: int, act: Callable[[], None]) -> None:
        """Unless the process is gone by then; one that is frozen does it when it goes on."""
        self._world.kernel.after(wait_ms * MS, self._act, (self.incarnation, act))

    def _act(self, call: Call) -> None:
        incarnation, act = call.payload
        if incarnation != self.incarnation:
            return
        if self.paused:
            self.inbox.append(lambda: self._act(call))
            return
        act()
        self._flush()
        self._arm()

    def _close(self, _: int) -> None:
        """Say goodbye, and go without an answer after a while. Whatever is granted meanwhile is not taken up."""
        if self.session.state is SessionState.OPEN:
            self._leaving = True
            self._give_up()
            self.session.close(self.now_ms)
            self._world.kernel.after(GOODBYE_MS * MS, self._leave, self.incarnation)

    def _leave(self, call: Call) -> None:
        if call.payload == self.incarnation and self._leaving:
            self.crash(0)

    def _note(self, text: str, kind: Kind = Kind.NOTE) -> None:
        if self._world.trace.story is not None:
            self._world.trace.story.begin(f"c{self.id}", kind, text)
