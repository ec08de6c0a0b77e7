"""A machine on which a member runs or does not: its life and death, its timers, its disk lane and its messages.

The host obeys the four rules of `quorker.core.raft.effects` and is otherwise as unhelpful as a machine can be: it can
crash between any two effects, freeze, restart within a millisecond and write slowly. A crash drops the core and
everything in memory; what the disk keeps is the disk's decision. What is replicated is for the subclasses: `node` runs
bare Raft members, `replica_node` members with a job store. Twin of `quorker.transport.driver`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from quorker.core.raft import invariants
from quorker.core.raft.config import RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import (
    ConfigChanged,
    DiskWentBack,
    Fatal,
    Persist,
    ReadFailed,
    ReadReady,
    RejoinChanged,
    Role,
    RoleChanged,
    Send,
)
from quorker.core.raft.messages import (
    Forgotten,
    InstallSnapshot,
    NodeId,
    SnapshotMeta,
    VoteResponse,
)
from quorker.sim.cases.case import Point, RaftKnobs
from quorker.sim.disks.disk import LogDisk
from quorker.sim.oracles.checks import Violation
from quorker.sim.stories.story import NEMESIS, Kind
from quorker.sim.stories.storyteller import inbox_for
from quorker.sim.stories.words import conf_words, persist_words
from quorker.sim.world.clock import NodeClock
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.naming import name_of
from quorker.sim.world.trace import What
from quorker.sim.world.world import World

ROLE_CODES: Final = {role: code for code, role in enumerate(Role)}
AT_ONCE_NS: Final = 5 * MS  # a restart that nobody has noticed
NO_TIMER: Final = 1 << 62  # later than any deadline

HostT = TypeVar("HostT", bound="Host")


class Host(ABC):
    """A machine with a clock and a disk. `raft` is the core of the member that runs on it, or None."""

    def __init__(self, world: World, node_id: NodeId, clock: NodeClock, disk: LogDisk) -> None:
        self.world = world
        self.id = node_id
        self.clock = clock
        self.disk = disk
        self.raft: Raft | None = None
        self.incarnation = 0
        self.paused = False
        self.crawling = False  # it was frozen and wakes for a moment: nothing worth telling
        self._catching_up = False  # it takes in what has arrived; what follows is performed afterwards
        self.apply_ns = (
            world.case.machine.apply_ns
        )  # how long the machine takes for a batch, if it can be slow
        self.reads: dict[int, int] = {}  # context -> highest committed index when it was asked for
        self.on_read: Callable[[NodeId, int], None] = ignore
        self.now_ms = 0  # what the core was told last
        self.inbox = inbox_for(world.trace.story)  # what arrived while the process was frozen
        self._received: dict[SnapshotMeta, Any] = {}  # snapshots whose bytes arrived, not written yet
        self.loadable: dict[SnapshotMeta, Any] = {}  # snapshots that are on disk and not in the machine yet
        self._view: invariants.MemberView | None = None
        self._timer_ms = NO_TIMER
        self._timers = 0  # set so far: only the last of them counts
        self._armed = world.traps.armed
        self._thorough = world.case.thorough
        self._perform: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Persist: self._persist,
            RoleChanged: self._role_changed,
            ReadReady: self._read_ready,
            ReadFailed: self._read_failed,
            ConfigChanged: self._config_changed,
            DiskWentBack: self._disk_went_back,
            RejoinChanged: self._rejoin_changed,
            Fatal: self._fatal,
            **self.performers(),
        }
        disk.on_durable, disk.on_flushed, disk.on_failed = self._durable, self._flushed, self._fsync_failed
        disk.on_broken = self._disk_broke

    # ------------------------------------------------------------------ what is replicated

    @property
    @abstractmethod
    def applied_index(self) -> int:
        """The last index whose effect is in the replicated machine."""

    @abstractmethod
    def performers(self) -> dict[type, Callable[[Any], None]]:
        """How to perform the effects that only this kind of member has."""

    @abstractmethod
    def boot(self) -> Raft:
        """Make a member of what the disk kept."""

    @abstractmethod
    def forget(self) -> None:
        """Everything in memory is gone."""

    @abstractmethod
    def drain(self) -> Sequence[object]:
        """The effects to perform now."""

    @abstractmethod
    def deadline(self) -> int | None:
        """When `tick_core` has something to do, in the node's milliseconds."""

    @abstractmethod
    def observe_core(self, now_ms: int) -> None: ...

    @abstractmethod
    def tick_core(self, now_ms: int) -> None: ...

    @abstractmethod
    def work(self) -> bool:
        """Let the replicated machine go on. True if that was an input to the core."""

    @abstractmethod
    def save_snapshot(self) -> None:
        """Write the machine as it is now to disk, if there is anything new."""

    # ------------------------------------------------------------------ life and death

    def start(self) -> None:
        """Begin a process on what the disk kept, if that can be believed."""
        now = self.world.kernel.now
        if not self.disk.open():
            self.world.kernel.after(20 * MS, self._restart, self.incarnation)
            return
        self.now_ms = self.clock.monotonic_ms(now)
        raft = self.raft = self.boot()
        self.world.oracles.on_started(self.id, raft, self.applied_index)
        self.world.trace.record(now, What.STARTED, self.id, raft.term, raft.last_index)
        if self.world.trace.story is not None:
            text = f"starts in term {raft.term} with a log to {raft.last_index}"
            self.world.trace.story.recovered(self.id, text, raft.term, raft.commit_index)
        self.settle()

    def crash(self, restart_after_ns: int | None) -> None:
        """The process is gone, with all its memory. A number of nanoseconds later it starts again."""
        if self.raft is None:
            return
        if self.raft.conf_state.voters_outgoing:
            self.world.note("crashed while joint")
        self.raft = self._view = None
        self.incarnation += 1
        self.paused = False
        self._timer_ms = NO_TIMER
        self._timers += 1
        for memory in (self.inbox, self._received, self.loadable, self.reads):
            memory.clear()
        self.forget()
        self.world.elections.on_crash(self.id)
        survived = self.disk.crash()
        self.world.trace.record(self.world.kernel.now, What.CRASHED, self.id, survived)
        if self.world.trace.story is not None:
            text = f"crashes; {survived} unacknowledged writes survive"
            self.world.trace.story.crashed(f"n{self.id}", text)
        if restart_after_ns is not None:
            if restart_after_ns < AT_ONCE_NS:
                self.world.note("restarted within 5 ms")
            self.world.kernel.after(restart_after_ns, self._restart, self.incarnation)

    def _restart(self, call: Call) -> None:
        if self.raft is None and call.payload == self.incarnation:
            self.start()

    def pause(self) -> None:
        """Freeze the process: nothing runs, while the network fills its buffers and its disk finishes."""
        self.paused = self.raft is not None
        if self.paused and not self.crawling:
            self.tell(Kind.PAUSE, "is frozen")

    def resume(self) -> None:
        """What has arrived meanwhile is one batch of inputs, as it is for the loop of a real member."""
        if not self.paused:
            return
        self.paused = False
        if not self.crawling:
            self.tell(Kind.RESUME, "goes on")
        inbox = list(self.inbox)
        self.inbox.clear()
        self._catching_up = True
        for arrived in inbox:
            if self.raft is not None:
                arrived()
        self._catching_up = False
        story = self.world.trace.story
        if story is not None:
            story.acts_on_what_it_took()
        if self.raft is not None:
            self._tick(self.raft)
        if story is not None:
            story.also = ()

    def crawl(self, events: int) -> None:
        """Handle so many of the events that wait, look at the clock, and freeze again: a process that is starved."""
        waiting = self.inbox[events:]
        del self.inbox[events:]
        self.crawling = True
        self.resume()
        if self.raft is not None:
            self.inbox[:0] = waiting
            self.pause()
        self.crawling = False

    def raft_config(self) -> RaftConfig:
        knobs: RaftKnobs = self.world.case.raft
        return RaftConfig(
            node_id=self.id,
            election_timeout=knobs.election_ms,
            heartbeat_interval=knobs.heartbeat_ms,
            seed=self.world.case.seed,
            incarnation=self.incarnation,
            pre_vote=knobs.pre_vote,
            check_quorum=knobs.check_quorum,
            max_append_bytes=knobs.max_append_bytes,
            max_inflight_messages=knobs.max_inflight_messages,
            max_uncommitted_bytes=knobs.max_uncommitted_bytes,
            disable_proposal_forwarding=not knobs.forwarding,
        )

    # ------------------------------------------------------------------ inputs

    def deliver(self, item: tuple[Any, Any]) -> None:
        """A message from the network, with the snapshot's content if it names one."""
        if self.raft is None:
            return
        if self.paused:
            self.inbox.append(lambda: self.deliver(item))
            return
        message, state = item
        if type(message) is InstallSnapshot:
            self._received[message.snapshot] = state
            if self.reaches(Point.SNAPSHOT_RECEIVED):
                return
        self.observe()
        self.raft.step(message)
        self.settle()

    def ask(self, question: Callable[[Raft], None]) -> bool:
        """Do something to the core from outside: propose, read, transfer. False if nobody is there."""
        if self.raft is None or self.paused:
            return False
        self.observe()
        question(self.raft)
        self.settle()
        return True

    def read(self, context: int) -> bool:
        self.reads[context] = self.world.oracles.commit_index
        return self.ask(lambda raft: raft.read(context))

    def later(self, delay_ns: int, question: Callable[[Raft], None]) -> None:
        """An input that this driver itself causes: never from inside an effect, and never in a later process."""
        incarnation = self.incarnation

        def ask(call: Call) -> None:
            if incarnation != self.incarnation:
                return
            if self.paused:  # a driver forgets nothing while it is frozen
                self.inbox.append(lambda: ask(call))
            else:
                self.ask(question)

        self.world.kernel.after(delay_ns, ask)

    def observe(self) -> None:
        """Tell the core the time, if it has changed; its timers wait for `_timer`, so that arrivals are seen first."""
        now_ms = self.clock.monotonic_ms(self.world.kernel.now)
        if now_ms != self.now_ms:
            self.now_ms = now_ms
            self.observe_core(now_ms)

    def _timer(self, call: Call) -> None:
        if call.payload != self._timers:
            return
        self._timer_ms = NO_TIMER
        if self.paused:
            return  # `resume` looks at the clock
        raft = self.raft
        assert raft is not None
        if self.world.trace.story is not None:
            self.world.trace.story.timer(f"n{self.id}", "its timer goes off")
        self._tick(raft)

    def _tick(self, raft: Raft) -> None:
        self.observe()
        oldest = self.disk.oldest_issued_ms
        if oldest is not None:
            raft.disk_latency(self.now_ms - oldest)
        self.tick_core(self.now_ms)
        self.settle()

    def _arm(self) -> None:
        """One timer at a time stands in the event queue; a later deadline waits until that one has fired."""
        deadline = self.deadline()
        if deadline is None or deadline >= self._timer_ms:
            return
        self._timer_ms = deadline
        self._timers += 1
        kernel = self.world.kernel
        kernel.after(max(self.clock.true_ns(deadline) - kernel.now, 0), self._timer, self._timers)

    # ------------------------------------------------------------------ effects

    def settle(self) -> None:
        """Perform effects, and apply what can be applied now, until the core is quiet."""
        raft = self.raft
        assert raft is not None
        after_step, perform = self.world.oracles.after_step, self._perform
        story = self.world.trace.story
        again = True
        while again:
            after_step(self.id, raft, raft.role is Role.LEADER)
            if self._thorough:
                self._look_inside(raft)
            if self._catching_up:
                return
            effects = self.drain()
            if story is not None:
                story.look(self.id, raft.term, raft.commit_index)
            for effect in effects:
                perform[type(effect)](effect)
                if self.raft is not raft:
                    return
            again = self.work()  # nothing else is an input to the core
            if self.raft is not raft:
                return
        self._arm()

    def tell_applied(self, index: int) -> None:
        if self.world.trace.story is not None:
            self.world.trace.story.applied(self.id, index)

    def tell(self, kind: Kind, text: str) -> None:
        """Something rare that this member does, for the story."""
        if self.world.trace.story is not None:
            self.world.trace.story.begin(f"n{self.id}", kind, text)

    def _look_inside(self, raft: Raft) -> None:
        """The core's own invariants, of this state and of this one after the last."""
        now = invariants.view(raft)
        broken = invariants.check_state(raft)
        if self._view is not None:
            broken += invariants.check_step(self._view, now)
        self._view = now
        if broken:
            raise Violation("invariant", f"n{self.id}: {'; '.join(broken)}")

    def reaches(self, point: Point) -> bool:
        """Count a visit to a point of this driver; True if the node crashed there."""
        if point not in self._armed:
            return False
        trap = self.world.traps.reach(point)
        if trap is None:
            return False
        if self.world.trace.story is not None:
            text = f"n{self.id} dies at {point}"
            self.world.trace.story.begin(NEMESIS, Kind.FAULT, text, fault="trap", node=self.id, for_ns=0)
        self.crash(trap.for_ns)
        return True

    def _send(self, effect: Send) -> None:
        self.world.oracles.on_send(self.id, effect.message)
        if self._armed:
            self._release(effect)
        else:
            self._transmit(effect)

    def _release(self, effect: Send) -> None:
        """Send what has been judged, unless the node dies at it."""
        if not self._armed:
            self._transmit(effect)
        elif not self.reaches(Point.BEFORE_SEND):
            self._transmit(effect)
            message = effect.message
            voted = type(message) is VoteResponse and message.granted and not message.pre_vote
            self.reaches(Point.VOTED if voted else Point.AFTER_SEND)

    def _transmit(self, effect: Send) -> None:
        message, world = effect.message, self.world
        state: Any = None
        delay_ns = 0
        if type(message) is InstallSnapshot:
            if self.disk.durable.snapshot != message.snapshot:
                self.later(MS, lambda raft: raft.snapshot_status(effect.to, False))
                return
            state, delay_ns = self.disk.load_snapshot(), self.disk.latency_ns()
            if self.raft is None:
                return
        arrives = world.network.send(self.id, effect.to, name_of(message), (message, state), delay_ns)
        if type(message) is InstallSnapshot:
            self.later(delay_ns + MS, lambda raft: raft.snapshot_status(effect.to, arrives))
        elif not arrives and world.network.link(self.id, effect.to).cuts:
            self.later(MS, lambda raft: raft.peer_unreachable(effect.to))

    def _role_changed(self, effect: RoleChanged) -> None:
        world = self.world
        world.trace.record(world.kernel.now, What.ROLE, self.id, ROLE_CODES[effect.role], effect.term)
        if world.trace.story is not None:
            role, term = effect.role.value, effect.term
            text = f"becomes {role} in term {term}"
            world.trace.story.add(f"n{self.id}", Kind.ROLE, text, role=role, term=term)
        if self.raft is not None:
            stalled = self.disk.stalled
            world.elections.on_role(self.id, effect.role, effect.term, self.raft, is_stalled=stalled)
        if effect.role is Role.LEADER and self.raft is not None:
            world.oracles.on_leader(self.id, effect.term, self.raft)
            self.reaches(Point.ELECTED)

    def _read_ready(self, effect: ReadReady) -> None:
        floor = self.reads.pop(effect.context, None)
        if floor is not None:
            self.tell(Kind.READ, f"may read at {effect.index}")
            self.world.oracles.on_read(self.id, effect.index, floor)
            self.on_read(self.id, effect.context)

    def _read_failed(self, effect: ReadFailed) -> None:
        self.reads.pop(effect.context, None)

    def _config_changed(self, effect: ConfigChanged) -> None:
        self.world.elections.on_config(self.id, effect.conf_state)
        self.tell(Kind.CONFIG, f"has {conf_words(effect.conf_state)} since {effect.index}")

    def _disk_went_back(self, effect: DiskWentBack) -> None:
        if effect.node == self.id and not self.disk.may_have_lost:
            raise Violation(
                "undamaged disks lose nothing",
                f"n{self.id} ends at {effect.found}, said to have held {effect.remembered}",
            )
        self.world.note("disk went back")
        went = f"went back from {effect.remembered} to {effect.found}"
        self.tell(Kind.NOTE, f"sees that the disk of n{effect.node} {went}")

    def _rejoin_changed(self, effect: RejoinChanged) -> None:
        self.world.note("has its say again" if effect.forgotten is Forgotten.NOTHING else "rejoins")
        self.tell(Kind.NOTE, f"may have forgotten: {effect.forgotten.name.lower()}")

    def _fatal(self, effect: Fatal) -> None:
        raise Violation("fatal", f"n{self.id} {effect.invariant}: {effect.detail}")

    # ------------------------------------------------------------------ the disk lane

    def _persist(self, record: Persist) -> None:
        raft = self.raft
        assert raft is not None
        if record.entries:
            before = raft.log.term_at(record.entries[0].index - 1)
            self.world.oracles.on_persist(self.id, record, before)
        state = None if record.snapshot is None else self._received.pop(record.snapshot, None)
        if record.snapshot is not None and state is None:
            raise Violation("snapshot bytes", f"n{self.id} persists {record.snapshot}, which never arrived")
        if self.world.trace.story is not None:
            self.world.trace.story.persist(self.id, record.seq, persist_words(record))
        self.disk.submit(record, state, self.now_ms)
        self.reaches(Point.PERSIST_ISSUED)

    def _durable(self, record: Persist, problem: str) -> None:
        """Judge at this very moment what the record allows to be said; say it when the process runs."""
        oracles = self.world.oracles
        if self.world.trace.story is not None:
            self.world.trace.story.durable(self.id, record.seq)
        oracles.on_durable(self.id, problem)
        if record.snapshot is not None:
            self.loadable[record.snapshot] = self.disk.durable.state
        for send in record.then:
            oracles.on_send(self.id, send.message)
        if self.paused:
            self.inbox.append(lambda: self._release_all(record.then))
        elif record.then:
            self._release_all(record.then)

    def _release_all(self, sends: tuple[Send, ...]) -> None:
        raft = self.raft
        if self.reaches(Point.DURABLE):
            return
        for send in sends:
            self._release(send)
            if self.raft is not raft:
                return

    def _flushed(self, seq: int) -> None:
        self.world.trace.record(self.world.kernel.now, What.DURABLE, self.id, seq)
        if self.paused:
            self.inbox.append(lambda: self._flushed(seq))
            return
        if self.reaches(Point.RELEASED):
            return
        if self.world.trace.story is not None:
            self.world.trace.story.told_durable(self.id)
        self.observe()
        assert self.raft is not None
        self.raft.persisted(seq)
        self.settle()

    def _fsync_failed(self, record: Persist) -> None:
        """A failed fsync ends the process, after the core had its chance to say goodbye."""
        self.world.note("fsync failed")
        if self.world.trace.story is not None:
            text = f"write {record.seq} fails"
            self.world.trace.story.begin(f"d{self.id}", Kind.DISK_FAILED, text, seq=record.seq)
        self.ask(lambda raft: raft.persist_failed(record.seq, "fsync failed"))
        self.crash(20 * MS)

    def _disk_broke(self) -> None:
        """Nothing on it can be trusted by this process any more."""
        self.world.note("disk broke")
        self.crash(20 * MS)


def leader_of(nodes: Mapping[NodeId, HostT]) -> HostT | None:
    """The running member that leads the highest term."""
    leading = [
        (raft.term, node.id)
        for node in nodes.values()
        if (raft := node.raft) is not None and raft.role is Role.LEADER
    ]
    return nodes[max(leading)[1]] if leading else None


def ignore(*_: object) -> None:
    """What nobody has asked to be told."""
