"""One simulated member: performs the effects of the very core that the real node runs. Twin of `transport.node`.

The node obeys the four rules of `quorker.core.raft.effects` and is otherwise as unhelpful as a machine can be: it can
crash between any two effects, freeze, restart within a millisecond, apply late and write slowly. A crash drops the
core and everything in memory; what the disk keeps is the disk's decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from quorker.core.raft import invariants
from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.config import RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import (
    Accepted,
    Apply,
    ConfigChanged,
    Dropped,
    Fatal,
    InstallState,
    LeaderChanged,
    Persist,
    ReadFailed,
    ReadReady,
    Role,
    RoleChanged,
    Send,
    Truncated,
)
from quorker.core.raft.messages import InstallSnapshot, NodeId, SnapshotMeta, VoteResponse
from quorker.sim.case import Point, RaftKnobs
from quorker.sim.checks import Violation, next_state
from quorker.sim.clock import NodeClock
from quorker.sim.disk import LogDisk
from quorker.sim.kernel import MS, Call
from quorker.sim.naming import name_of
from quorker.sim.trace import What
from quorker.sim.world import World

ROLE_CODES: Final = {role: code for code, role in enumerate(Role)}
NO_TIMER: Final = 1 << 62  # later than any deadline


class Node:
    """A machine with a clock and a disk, on which a member runs or does not (`raft` is None)."""

    def __init__(self, world: World, node_id: NodeId, clock: NodeClock, disk: LogDisk) -> None:
        self.world = world
        self.id = node_id
        self.clock = clock
        self.disk = disk
        self.raft: Raft | None = None
        self.incarnation = 0
        self.paused = False
        self.apply_ns = world.case.machine.apply_ns
        self.state = 0  # of the replicated machine: a digest of all it applied
        self.applied_index = 0
        self.reads: dict[int, int] = {}  # context -> highest committed index when it was asked for
        self.on_dropped: Callable[[int], None] = _ignore
        self.on_read: Callable[[NodeId, int], None] = _ignore
        self._inbox: list[Callable[[], None]] = []  # what arrived while the process was frozen
        self._applies: deque[Apply | InstallState] = deque()
        self._applying = False
        self._received: dict[
            SnapshotMeta, int
        ] = {}  # snapshots whose bytes arrived and are not installed yet
        self._loadable: dict[SnapshotMeta, int] = {}  # snapshots that are on disk and not in the machine yet
        self._saving = False
        self._core_now_ms = 0
        self._view: invariants.MemberView | None = None
        self._timer_ms = NO_TIMER
        self._timers = 0  # set so far: only the last of them counts
        self._armed = world.traps.armed
        self._perform = self._performers()
        disk.on_durable, disk.on_flushed, disk.on_failed = self._durable, self._flushed, self._fsync_failed

    # ------------------------------------------------------------------ life and death

    def start(self) -> None:
        """Begin a process on what the disk kept."""
        now = self.world.kernel.now
        self._core_now_ms = self.clock.monotonic_ms(now)
        durable = self.disk.durable
        self.state, self.applied_index = durable.state, durable.snapshot.index
        self.raft = Raft(self.raft_config(), durable.recovered(), self._core_now_ms)
        self.world.oracles.on_started(self.id, self.raft, self.applied_index)
        self.world.trace.record(now, What.STARTED, self.id, self.raft.term, self.raft.last_index)
        if self.world.trace.sink:
            self.world.say(f"n{self.id} starts in term {self.raft.term} with a log to {self.raft.last_index}")
        self.settle()

    def crash(self, restart_after_ns: int | None) -> None:
        """The process is gone, with all its memory. A number of nanoseconds later it starts again."""
        if self.raft is None:
            return
        self.raft = self._view = None
        self.incarnation += 1
        self.paused = self._applying = self._saving = False
        self._timer_ms = NO_TIMER
        self._timers += 1
        self._inbox.clear()
        self._applies.clear()
        self._received.clear()
        self._loadable.clear()
        self.reads.clear()
        survived = self.disk.crash()
        self.world.trace.record(self.world.kernel.now, What.CRASHED, self.id, survived)
        if self.world.trace.sink:
            self.world.say(f"n{self.id} crashes; {survived} unacknowledged writes survive")
        if restart_after_ns is not None:
            self.world.kernel.after(restart_after_ns, self._restart, self.incarnation)

    def _restart(self, call: Call) -> None:
        if self.raft is None and call.payload == self.incarnation:
            self.start()

    def pause(self) -> None:
        """Freeze the process: nothing runs, while the network fills its buffers and its disk finishes."""
        self.paused = self.raft is not None

    def resume(self) -> None:
        if not self.paused:
            return
        self.paused = False
        inbox, self._inbox = self._inbox, []
        for arrived in inbox:
            if self.raft is not None:
                arrived()
        if self.raft is not None:
            self._tick(self.raft)

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

    def _performers(self) -> dict[type, Callable[[Any], None]]:
        return {
            Send: self._send,
            Persist: self._persist,
            Apply: self._apply,
            InstallState: self._apply,
            RoleChanged: self._role_changed,
            ReadReady: self._read_ready,
            ReadFailed: self._read_failed,
            Dropped: self._dropped,
            Truncated: self._truncated,
            ConfigChanged: self._config_changed,
            Fatal: self._fatal,
            Accepted: _ignore,
            LeaderChanged: _ignore,
        }

    # ------------------------------------------------------------------ inputs

    def deliver(self, item: tuple[Any, Any]) -> None:
        """A message from the network, with the snapshot's content if it names one."""
        if self.raft is None:
            return
        if self.paused:
            self._inbox.append(lambda: self.deliver(item))
            return
        message, state = item
        if type(message) is InstallSnapshot:
            self._received[message.snapshot] = state
            if self._reaches(Point.SNAPSHOT_RECEIVED):
                return
        self._observe()
        self.raft.step(message)
        self.settle()

    def ask(self, question: Callable[[Raft], None]) -> bool:
        """Do something to the core from outside: propose, read, transfer. False if nobody is there."""
        if self.raft is None or self.paused:
            return False
        self._observe()
        question(self.raft)
        self.settle()
        return True

    def propose(self, items: Sequence[bytes], context: int) -> bool:
        return self.ask(lambda raft: raft.propose(items, context))

    def propose_config(self, change: ConfigChange, context: int) -> bool:
        return self.ask(lambda raft: raft.propose_config(change, context))

    def read(self, context: int) -> bool:
        self.reads[context] = self.world.oracles.commit_index
        return self.ask(lambda raft: raft.read(context))

    def _observe(self) -> None:
        """Tell the core the time, if it has changed; its timers wait for `_timer`, so that arrivals are seen first."""
        now_ms = self.clock.monotonic_ms(self.world.kernel.now)
        if now_ms != self._core_now_ms and self.raft is not None:
            self._core_now_ms = now_ms
            self.raft.observe_time(now_ms)

    def _timer(self, call: Call) -> None:
        if call.payload != self._timers:
            return
        self._timer_ms = NO_TIMER
        if self.paused:
            return  # `resume` looks at the clock
        raft = self.raft
        assert raft is not None
        self._tick(raft)

    def _tick(self, raft: Raft) -> None:
        self._observe()
        oldest = self.disk.oldest_issued_ms
        if oldest is not None:
            raft.disk_latency(self._core_now_ms - oldest)
        raft.tick(self._core_now_ms)
        self.settle()

    def _arm(self, raft: Raft) -> None:
        """One timer at a time stands in the event queue; a later deadline waits until that one has fired."""
        deadline = raft.next_deadline()
        if deadline is None or deadline >= self._timer_ms:
            return
        self._timer_ms = deadline
        self._timers += 1
        now = self.world.kernel.now
        self.world.kernel.after(max(self.clock.true_ns(deadline) - now, 0), self._timer, self._timers)

    # ------------------------------------------------------------------ effects

    def settle(self) -> None:
        """Perform effects, and apply what can be applied now, until the core is quiet."""
        raft = self.raft
        assert raft is not None
        after_step, perform = self.world.oracles.after_step, self._perform
        again = True
        while again:
            after_step(self.id, raft, raft.role is Role.LEADER)
            if self.world.case.thorough:
                self._look_inside(raft)
            for effect in raft.drain():
                perform[type(effect)](effect)
                if self.raft is not raft:
                    return
            again = bool(self._applies) and self._apply_some()  # nothing else is an input to the core
            if self.raft is not raft:
                return
        self._arm(raft)

    def _look_inside(self, raft: Raft) -> None:
        """The core's own invariants, of this state and of this one after the last."""
        now = invariants.view(raft)
        broken = invariants.check_state(raft)
        if self._view is not None:
            broken += invariants.check_step(self._view, now)
        self._view = now
        if broken:
            raise Violation("invariant", f"n{self.id}: {'; '.join(broken)}")

    def _reaches(self, point: Point) -> bool:
        """Count a visit to a point of this driver; True if the node crashed there."""
        if point not in self._armed:
            return False
        trap = self.world.traps.reach(point)
        if trap is None:
            return False
        if self.world.trace.sink:
            self.world.say(f"n{self.id} falls into the trap at {point}")
        self.crash(trap.for_ns)
        return True

    def _send(self, effect: Send) -> None:
        self.world.oracles.on_send(self.id, effect.message)
        self._release(effect)

    def _release(self, effect: Send) -> None:
        """Send what has been judged, unless the node dies at it."""
        if not self._armed:
            self._transmit(effect)
        elif not self._reaches(Point.BEFORE_SEND):
            self._transmit(effect)
            message = effect.message
            voted = type(message) is VoteResponse and message.granted and not message.pre_vote
            self._reaches(Point.VOTED if voted else Point.AFTER_SEND)

    def _transmit(self, effect: Send) -> None:
        message, world = effect.message, self.world
        state: int | None = None
        delay_ns = 0
        if type(message) is InstallSnapshot:
            if self.disk.durable.snapshot != message.snapshot:
                self._later(MS, lambda raft: raft.snapshot_status(effect.to, False))
                return
            state, delay_ns = self.disk.durable.state, self.disk.latency_ns()
        arrives = world.network.send(self.id, effect.to, name_of(message), (message, state), delay_ns)
        if world.trace.sink:
            world.say(f"n{self.id} -> n{effect.to} {message}{'' if arrives else '  (lost)'}")
        if type(message) is InstallSnapshot:
            self._later(delay_ns + MS, lambda raft: raft.snapshot_status(effect.to, arrives))
        elif not arrives and world.network.link(self.id, effect.to).cuts:
            self._later(MS, lambda raft: raft.peer_unreachable(effect.to))

    def _later(self, delay_ns: int, question: Callable[[Raft], None]) -> None:
        """An input that this driver itself causes: never from inside an effect, and never in a later process."""
        incarnation = self.incarnation

        def ask(_: Call) -> None:
            if incarnation == self.incarnation:
                self.ask(question)

        self.world.kernel.after(delay_ns, ask)

    def _persist(self, record: Persist) -> None:
        raft = self.raft
        assert raft is not None
        if record.entries:
            before = raft.log.term_at(record.entries[0].index - 1)
            self.world.oracles.on_persist(self.id, record, before)
        state = None if record.snapshot is None else self._received.pop(record.snapshot, None)
        if record.snapshot is not None and state is None:
            raise Violation("snapshot bytes", f"n{self.id} persists {record.snapshot}, which never arrived")
        self.disk.submit(record, state, self._core_now_ms)
        self._reaches(Point.PERSIST_ISSUED)

    def _durable(self, record: Persist, problem: str) -> None:
        """Judge at this very moment what the record allows to be said; say it when the process runs."""
        oracles = self.world.oracles
        oracles.on_durable(self.id, problem)
        if record.snapshot is not None:
            self._loadable[record.snapshot] = self.disk.durable.state
        for send in record.then:
            oracles.on_send(self.id, send.message)
        if self.paused:
            self._inbox.append(lambda: self._release_all(record.then))
        elif record.then:
            self._release_all(record.then)

    def _release_all(self, sends: tuple[Send, ...]) -> None:
        raft = self.raft
        if self._reaches(Point.DURABLE):
            return
        for send in sends:
            self._release(send)
            if self.raft is not raft:
                return

    def _flushed(self, seq: int) -> None:
        self.world.trace.record(self.world.kernel.now, What.DURABLE, self.id, seq)
        if self.paused:
            self._inbox.append(lambda: self._flushed(seq))
            return
        if self._reaches(Point.RELEASED):
            return
        self._observe()
        assert self.raft is not None
        self.raft.persisted(seq)
        self.settle()

    def _fsync_failed(self, record: Persist) -> None:
        """A failed fsync ends the process, after the core had its chance to say goodbye."""
        self.world.note("fsync failed")
        self.ask(lambda raft: raft.persist_failed(record.seq, "fsync failed"))
        self.crash(20 * MS)

    def _apply(self, effect: Apply | InstallState) -> None:
        self._applies.append(effect)

    def _role_changed(self, effect: RoleChanged) -> None:
        world = self.world
        world.trace.record(world.kernel.now, What.ROLE, self.id, ROLE_CODES[effect.role], effect.term)
        if world.trace.sink:
            world.say(f"n{self.id} becomes {effect.role.value} in term {effect.term}")
        if effect.role is Role.LEADER and self.raft is not None:
            world.oracles.on_leader(self.id, effect.term, self.raft)
            self._reaches(Point.ELECTED)

    def _read_ready(self, effect: ReadReady) -> None:
        floor = self.reads.pop(effect.context, None)
        if floor is not None:
            self.world.oracles.on_read(self.id, effect.index, floor)
            self.on_read(self.id, effect.context)

    def _read_failed(self, effect: ReadFailed) -> None:
        self.reads.pop(effect.context, None)

    def _dropped(self, effect: Dropped) -> None:
        self.on_dropped(effect.context)

    def _truncated(self, effect: Truncated) -> None:
        self.world.note("truncated" if effect.first == effect.last else "truncated several")

    def _config_changed(self, effect: ConfigChanged) -> None:
        if self.world.trace.sink:
            self.world.say(f"n{self.id} has {effect.conf_state} since {effect.index}")

    def _fatal(self, effect: Fatal) -> None:
        raise Violation("fatal", f"n{self.id} {effect.invariant}: {effect.detail}")

    # ------------------------------------------------------------------ the replicated machine

    def _apply_some(self) -> bool:
        """Apply the next batch now, or start applying it slowly. False if the core has nothing new to do."""
        if not self._applies or self._applying:
            return False
        if not self.apply_ns:
            self._apply_next()
            return True
        self._applying = True
        self.world.kernel.after(self.apply_ns, self._applied_slowly, self.incarnation)
        return False

    def _applied_slowly(self, call: Call) -> None:
        if call.payload != self.incarnation:
            return
        if self.paused:
            self._inbox.append(lambda: self._applied_slowly(call))
            return
        self._applying = False
        self._observe()
        self._apply_next()
        if call.payload == self.incarnation:
            self.settle()

    def _apply_next(self) -> None:
        if self._reaches(Point.BEFORE_APPLY):
            return
        effect = self._applies.popleft()
        if isinstance(effect, Apply):
            self._apply_entries(effect)
        else:
            self._install(effect.snapshot)
        self.world.trace.record(self.world.kernel.now, What.APPLIED, self.id, self.applied_index, self.state)
        if self._reaches(Point.AFTER_APPLY):
            return
        assert self.raft is not None
        self.raft.applied(self.applied_index)
        self._snapshot_if_due(self.raft)

    def _apply_entries(self, effect: Apply) -> None:
        oracles = self.world.oracles
        oracles.on_apply(self.id, effect.entries)
        state = self.state
        for entry in effect.entries:
            state = next_state(state, entry)
        self.state = state
        self.applied_index += len(effect.entries)
        oracles.on_state(self.id, self.applied_index, state)

    def _install(self, snapshot: SnapshotMeta) -> None:
        self.world.oracles.on_install(self.id, snapshot)
        self.world.note("snapshot installed")
        self.state, self.applied_index = self._loadable.pop(snapshot), snapshot.index
        self.world.oracles.on_state(self.id, self.applied_index, self.state)

    def _snapshot_if_due(self, raft: Raft) -> None:
        every = self.world.case.machine.snapshot_every
        if every and not self._saving and self.applied_index >= self.disk.durable.snapshot.index + every:
            self.save_snapshot(raft)

    def save_snapshot(self, raft: Raft) -> None:
        """Write the machine as it is now to disk; the log is trimmed when that is durable."""
        term = raft.log.term_at(self.applied_index)
        if term is None or self._saving or self.applied_index <= self.disk.durable.snapshot.index:
            return
        self._saving = True
        saved = (SnapshotMeta(self.applied_index, term, raft.conf_state), self.state, self.incarnation)
        self.world.kernel.after(self.disk.latency_ns(), self._snapshot_saved, saved)

    def _snapshot_saved(self, call: Call) -> None:
        meta, state, incarnation = call.payload
        if incarnation != self.incarnation:
            return
        if self.paused:
            self._inbox.append(lambda: self._snapshot_saved(call))
            return
        self._saving = False
        self.disk.durable.install(meta, state)
        if self._reaches(Point.SNAPSHOT_SAVED):
            return
        self.world.note("snapshot saved")
        keep = self.world.case.machine.keep_entries
        self.ask(lambda raft: raft.snapshot_made(meta, max(raft.first_index, meta.index + 1 - keep)))


def _ignore(*_: object) -> None:
    """What nobody has asked to be told."""
