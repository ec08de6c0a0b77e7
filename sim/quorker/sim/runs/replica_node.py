"""A member with a job store: runs the very replica that the real node runs, and serves clients over lines.

Twin of `quorker.transport.node` and `quorker.transport.gateway`: which session is heard of by which client is kept here,
what anything means is the core's. A snapshot is its canonical bytes, written and read after a while like any other data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.agreement import Contradicted, Diverged
from quorker.core.freshness import UNKNOWN, Freshness
from quorker.core.jobs.dispatch import held_grants
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.outcome import Notice, Outcome
from quorker.core.jobs.store import JobStore
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import LeaderChanged, Persist, ReadFailed, ReadReady, Role, RoleChanged
from quorker.core.raft.messages import NOBODY, NodeId
from quorker.core.raft.roles import Leader
from quorker.core.replica import (
    Applied,
    Forward,
    LoadSnapshot,
    Refused,
    Replica,
    ReplicaConfig,
    SaveSnapshot,
)
from quorker.sim.cases.case import JobsKnobs, Point
from quorker.sim.disks.disk import LogDisk
from quorker.sim.oracles.checks import FIRST, Violation
from quorker.sim.oracles.job_checks import JobOracles
from quorker.sim.oracles.late_ends import Reign
from quorker.sim.oracles.memory import LogShare, weigh
from quorker.sim.stories.story import Kind
from quorker.sim.world.clock import NodeClock
from quorker.sim.world.host import Host
from quorker.sim.world.kernel import Call
from quorker.sim.world.line import Line, Query
from quorker.sim.world.naming import BETWEEN_MEMBERS
from quorker.sim.world.network import KIND_SHIFT
from quorker.sim.world.randomness import key
from quorker.sim.world.trace import What
from quorker.sim.world.wire import Forwarded, ForwardRefused
from quorker.sim.world.world import World

NEVER: Final = 1 << 40
READS: Final = 1 << 42  # contexts of clients' reads, apart from those of the cluster's own
WEIGH_EVERY: Final = 16  # times that a member is quiet again
DIGEST_EVERY: Final = 8  # replicas are compared at indexes that this divides

_codec: Any = msgpack


class Lodger(Protocol):
    """A client in the process of a member: it lives, freezes and dies with it."""

    def start(self) -> None: ...

    def crash(self, restart_after_ns: int | None) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


CLAIM_EVERY: Final = 8  # entries; runs are short
MAINTENANCE_MS: Final = 10  # as real members look for what is due


class ReplicaNode(Host):
    """`replica` exists while `raft` does."""

    def __init__(
        self, world: World, node_id: NodeId, clock: NodeClock, disk: LogDisk, jobs: JobOracles
    ) -> None:
        super().__init__(world, node_id, clock, disk)
        self.jobs = jobs
        self.replica: Replica
        self.knobs = world.case.jobs or JobsKnobs()
        self.housed: list[Lodger] = []  # clients that live in this process
        self._by_session: dict[int, Line] = {}
        self._by_nonce: dict[int, Line] = {}
        self._asked: dict[int, tuple[Line, Query]] = {}  # read context -> linearizable reads
        self._freshness = self._no_proof()
        self._waiting: list[tuple[int, Line, Query]] = []  # reads, and the index that they need
        self._told = self._queries = self._settled = 0
        self._saving = False
        self._reign: Reign | None = None  # while it leads
        self._log_share = LogShare(world.case.machine.keep_entries)

    # ------------------------------------------------------------------ Host

    @property
    def applied_index(self) -> int:
        return self.replica.store_index

    def performers(self) -> dict[type, Callable[[Any], None]]:
        return {
            Forward: self._forward,
            Refused: self._refused,
            Applied: self._applied,
            SaveSnapshot: self._save,
            LoadSnapshot: self._load,
            LeaderChanged: self._leader_changed,
            Contradicted: self._contradicted,
            Diverged: self._contradicted,
            ReadReady: self._read_may_be_answered,
            ReadFailed: self._read_was_refused,
        }

    def _made(self, record: Persist) -> None:
        now_ns = self.world.kernel.now
        self.jobs.on_made(record, now_ns)
        if self._reign is not None and self.jobs.late_ends is not None:
            self.jobs.late_ends.on_made(self._reign, record.entries, now_ns)

    def _role_changed(self, effect: RoleChanged) -> None:
        self._reign = None
        if effect.role is Role.LEADER and self.jobs.late_ends is not None:
            self._reign = self.jobs.late_ends.on_takeover(effect.term, self.world.kernel.now)
        super()._role_changed(effect)

    def boot(self) -> Raft:
        durable = self.disk.durable
        store = self._store_of(durable.state)
        self.jobs.on_restored(self.id, durable.snapshot.index, store)
        wall_ms = self.clock.wall_ms(self.world.kernel.now)
        self.replica = Replica.start(self._config(), durable.recovered(), store, self.now_ms, wall_ms)
        return self.replica.raft

    def _store_of(self, content: bytes) -> JobStore:
        """The founders' first snapshot is of a store in which nothing has happened yet: it has no bytes."""
        return JobStore.restore([content], self.limits()) if content else JobStore(self.limits())

    def limits(self) -> Limits:
        return Limits(
            timeout_grace_ms=self.knobs.ttl_ms,
            piece=self.knobs.piece,
            history_max=self.knobs.history_max,
            invisibility_ms=self.knobs.invisibility_ms,
            max_lost_deliveries=self.knobs.max_lost_deliveries,
        )

    def _config(self) -> ReplicaConfig:
        machine = self.world.case.machine
        return ReplicaConfig(
            self.raft_config(),
            rounds_in_flight_max=self.knobs.rounds,
            snapshot_after_entries=machine.snapshot_every or NEVER,
            keep_entries=machine.keep_entries,
            maintenance_interval_ms=MAINTENANCE_MS,
            claim_every_entries=CLAIM_EVERY,
            **self._room(),
        )

    def _room(self) -> dict[str, int]:
        """Limits of the queue of a leader; most runs have the core's own, which are never reached."""
        groups = self.knobs.pending_groups
        return {"pending_groups_max": groups, "reserved_groups": groups} if groups else {}

    def start(self) -> None:
        super().start()
        if self.raft is not None:
            for client in self.housed:
                client.start()

    def pause(self) -> None:
        super().pause()
        for client in self.housed:
            client.pause()

    def resume(self) -> None:
        if self._reign is not None:
            self._reign.free_ns = self.world.kernel.now
        super().resume()
        for client in self.housed:
            client.resume()

    def forget(self) -> None:
        self._reign = None
        self._log_share = LogShare(self.world.case.machine.keep_entries)
        if self._saving:
            self._saving = False
            self.world.note("crashed while saving a snapshot")
        for client in self.housed:
            client.crash(None)
        for line in self._lines():
            line.break_now()
        self._by_session.clear()
        self._by_nonce.clear()
        self._asked.clear()
        self._waiting.clear()
        self._freshness = self._no_proof()

    def drain(self) -> Sequence[object]:
        led = self.replica.is_leader
        effects = self.replica.drain()
        raft = self.replica.raft  # it may have committed by applying what it was told to commit
        self.world.oracles.after_step(self.id, raft, led or raft.role is Role.LEADER)
        for effect in effects:
            if type(effect) is Persist and effect.entries:
                self._made(effect)
        return effects

    def deadline(self) -> int | None:
        deadline = self.replica.next_deadline()
        return (
            None if deadline is None else max(deadline, self.now_ms + 1)
        )  # the real loop never spins either

    def observe_core(self, now_ms: int) -> None:
        self.replica.observe_time(now_ms)

    def tick_core(self, now_ms: int) -> None:
        if self._reign is not None:
            self._look_for_lateness(self._reign)
        if self.disk.is_low is self.replica.has_space:
            self.replica.disk_space(low=self.replica.has_space)
            self.world.note("disk nearly full" if self.disk.is_low else "disk has space again")
        self.replica.tick(now_ms, self.clock.wall_ms(self.world.kernel.now))

    def _look_for_lateness(self, reign: Reign) -> None:
        late_ends, raft = self.jobs.late_ends, self.replica.raft
        leader = raft.acting_as
        if late_ends is not None and isinstance(leader, Leader):
            bound = leader.transfer_to != NOBODY or self.id not in raft.progress
            hindered = bound or raft.log.term_at(self.replica.store_index) != reign.term
            late_ends.look(reign, self.world.kernel.now, hindered=hindered)

    def work(self) -> bool:
        self._settled += 1
        if self._settled % WEIGH_EVERY == 0:
            weigh(self.id, self.replica)
        index = self.replica.store.applied_index
        if index % DIGEST_EVERY == 0:
            self.jobs.on_state(self.id, index, self.replica.store)
            if self.world.case.thorough:
                self.jobs.look_inside(self.id, self.replica.store)
        if self._waiting:
            self._answer_reads()
        return self.replica.waits_to_apply

    def deliver(self, item: tuple[Any, Any]) -> None:
        message, _ = item
        if type(message) is Forwarded:
            self._submit(message.group, message.origin)
        elif type(message) is ForwardRefused:
            self._when_running(lambda: self._tell_refused(message))
        else:
            super().deliver(item)

    def _when_running(self, act: Callable[[], None]) -> None:
        if self.paused:
            self.inbox.append(act)
        elif self.raft is not None:
            act()

    def _submit(self, group: bytes, origin: NodeId) -> None:
        def submit() -> None:
            self.observe()
            self.replica.submit(group, origin)
            self.settle()

        self._when_running(submit)

    # ------------------------------------------------------------------ clients

    def on_submit(self, line: Line, group: bytes) -> None:
        session_id, seqs = names_in(group)
        if session_id:
            self._by_session[session_id] = line
        else:
            self._by_nonce.update(dict.fromkeys(seqs, line))
        self._submit(group, self.id)

    def on_attach(self, line: Line, session_id: int) -> None:
        if self.raft is None:
            line.break_now()  # nobody is there, and whoever comes up knows nothing of this line
            return
        self._by_session[session_id] = line
        self._repeat_missed(session_id, line)

    def on_query(self, line: Line, query: Query) -> None:
        """A linearizable read first asks who leads; a local one waits until this session's own writes are here."""
        if self.raft is None:
            return
        if query.linearizable:
            context = self._next_read()
            self._asked[context] = (line, query)
            self._when_running(lambda: self._ask_for_read(context))
        else:
            self._waiting.append((query.min_index, line, query))
            self._when_running(self._answer_at_once)

    def _answer_at_once(self) -> None:
        """Answers from memory; their ages rest on earlier reads, so now and then another is asked for."""
        if self._freshness.is_stale(self.clock.monotonic_ms(self.world.kernel.now)):
            self._ask_for_read(self._next_read())
        if self.raft is not None:
            self._answer_reads()

    def _next_read(self) -> int:
        self._queries += 1
        return READS | self.incarnation << 20 | self._queries

    def _ask_for_read(self, context: int) -> None:
        self._freshness.on_asked(context, self.clock.monotonic_ms(self.world.kernel.now))
        self.read(context)

    def _no_proof(self) -> Freshness:
        return Freshness(self.world.case.raft.heartbeat_ms)

    def age_ms(self) -> int:
        """How old what this member knows may be, as it says itself."""
        now_ms = self.clock.monotonic_ms(self.world.kernel.now)
        return self._freshness.age_ms(self.replica.store_index, now_ms)

    def _read_was_refused(self, effect: ReadFailed) -> None:
        self._read_failed(effect)
        self._freshness.on_failed(effect.context)
        self._asked.pop(effect.context, None)

    def _read_may_be_answered(self, effect: ReadReady) -> None:
        self._read_ready(effect)
        self._freshness.on_confirmed(effect.context, effect.index, self.replica.store_index)
        asked = self._asked.pop(effect.context, None)
        if asked is not None:
            self._waiting.append((max(effect.index, asked[1].min_index), *asked))

    def _answer_reads(self) -> None:
        index, waiting = self.replica.store_index, self._waiting
        if self.replica.loading is not None:
            return
        self._waiting = [read for read in waiting if read[0] > index]
        for needed, line, query in waiting:
            if needed <= index:
                value = self.replica.store.query(query.name, query.arguments)
                self.jobs.on_read(query, index, value)
                age_ms = self.age_ms()
                self.jobs.ages.on_answer(self.id, index, age_ms, self.world.kernel.now)
                if age_ms != UNKNOWN:
                    self.world.note("answer told its age")
                line.to_client(line.client.on_answer, query.number, index, value)

    def on_line_lost(self, line: Line) -> None:
        self._by_session = {key: value for key, value in self._by_session.items() if value is not line}
        self._by_nonce = {key: value for key, value in self._by_nonce.items() if value is not line}

    def break_lines(self) -> None:
        for line in self._lines():
            line.break_now()

    def stall_lines(self) -> Callable[[], None]:
        """Returns how it ends."""
        lines = self._lines()
        for line in lines:
            line.stall()

        def resume() -> None:
            for line in lines:
                line.resume()

        return resume

    def _lines(self) -> list[Line]:
        return list(dict.fromkeys((*self._by_session.values(), *self._by_nonce.values())))

    def _repeat_missed(self, session_id: int, line: Line) -> None:
        """Replies and grants that may not have reached the client; it knows which ones it has seen."""
        session = self.replica.store.sessions.get(session_id)
        client = line.client
        if session is None:
            line.to_client(client.on_lost, session_id, "the session has ended")
            return
        for seq, reply in list(session.replies.items()):
            line.to_client(client.on_reply, session_id, seq, reply)
        for grant in held_grants(self.replica.store, session):
            line.to_client(client.on_notice, Notice(session_id, "job", grant))

    def _route(self, outcome: Outcome) -> None:
        for session_id, seq, reply in outcome.replies:
            line = self._by_session.get(session_id) if session_id else self._by_nonce.pop(seq, None)
            if line is None:
                continue
            if not session_id and reply[0] == 0:
                self._by_session[reply[1]] = line
                line.to_client(line.client.on_opened, seq, reply[1])
            else:
                line.to_client(line.client.on_reply, session_id, seq, reply)
        for notice in outcome.notices:
            line = self._by_session.get(notice.session)
            if line is not None:
                line.to_client(line.client.on_notice, notice)

    def _tell_refused(self, refused: ForwardRefused) -> None:
        if refused.session_id:
            line = self._by_session.get(refused.session_id)
            lines = [line] if line is not None else []
        else:
            lines = [self._by_nonce[nonce] for nonce in refused.seqs if nonce in self._by_nonce]
        for line in lines:
            line.to_client(line.client.on_refused, refused, self.replica.raft.leader)

    # ------------------------------------------------------------------ effects

    def _forward(self, effect: Forward) -> None:
        self._tell(effect.to, Forwarded(self.id, effect.group))

    def _refused(self, effect: Refused) -> None:
        refused = ForwardRefused(*names_in(effect.group), effect.reason.name, effect.retry_after_ms)
        if effect.origin == self.id:
            self._tell_refused(refused)
        else:
            self._tell(effect.origin, refused)

    def _tell(self, to: NodeId, message: Forwarded | ForwardRefused) -> None:
        self._told += 1
        name = BETWEEN_MEMBERS << KIND_SHIFT | key(self.world.case.seed, self.incarnation, self._told) >> 30
        # How often a command was refused is counted, so a refusal that was heard twice would be believed wrongly. The
        # connections between real members repeat nothing.
        self.world.network.send(self.id, to, name, (message, None), once=True)

    def _applied(self, effect: Applied) -> None:
        if self.reaches(Point.BEFORE_APPLY):
            return
        self._judge_to(effect.index)
        self.jobs.on_applied(self.id, effect.index, effect.outcome)
        self.jobs.ages.on_applied(effect.index, self.world.kernel.now)
        if self._reign is not None and self.jobs.late_ends is not None:
            self.jobs.late_ends.on_applied(self._reign, effect.index, self.world.kernel.now)
        self.world.trace.record(self.world.kernel.now, What.APPLIED, self.id, effect.index)
        self.tell_applied(effect.index)
        self._route(effect.outcome)
        self.reaches(Point.AFTER_APPLY)

    def _contradicted(self, effect: Contradicted | Diverged) -> None:
        raise Violation("members agree on their state [C5]", f"n{self.id}: {effect}")

    def _judge_to(self, index: int) -> None:
        oracles = self.world.oracles
        seen = oracles.seen[self.id].applied_index
        oracles.on_apply(self.id, oracles.committed[seen - FIRST : index - FIRST])

    def _leader_changed(self, effect: LeaderChanged) -> None:
        if effect.leader != NOBODY:
            for line in self._lines():
                line.to_client(line.client.on_route_changed)

    # ------------------------------------------------------------------ snapshots

    def save_snapshot(self) -> None:
        if self.raft is not None:
            self.replica.request_snapshot()

    def _save(self, effect: SaveSnapshot) -> None:
        self._saving = True
        self.world.kernel.after(4 * self.disk.latency_ns(), self._saved, (effect, self.incarnation))

    def _saved(self, call: Call) -> None:
        effect, incarnation = call.payload
        if incarnation != self.incarnation:
            return
        if self.paused:
            self.inbox.append(lambda: self._saved(call))
            return
        self._saving = False
        content = b"".join(effect.view.chunks())  # encoded only now: the view must not have changed meanwhile
        self.jobs.on_snapshot(self.id, effect.meta.index, content)
        saved = self.disk.save_snapshot(effect.meta, content)
        if self.raft is None or self.reaches(Point.SNAPSHOT_SAVED):
            return
        self.observe()
        if saved:
            self.world.note("snapshot saved")
            self.tell(Kind.SNAPSHOT, f"has saved the snapshot to {effect.meta.index}")
            keep_from, log = self.replica.snapshot_saved(effect.meta), self.replica.raft.log
            self._log_share.on_saved(self.id, effect.meta.index, log.first_index, log.last_index)
            self.disk.compact(keep_from)
        else:
            self.replica.snapshot_failed()
        if incarnation == self.incarnation:
            self.settle()

    def _load(self, effect: LoadSnapshot) -> None:
        self.world.kernel.after(4 * self.disk.latency_ns(), self._loaded, (effect.meta, self.incarnation))

    def _loaded(self, call: Call) -> None:
        meta, incarnation = call.payload
        if incarnation != self.incarnation:
            return
        if self.paused:
            self.inbox.append(lambda: self._loaded(call))
            return
        store = self._store_of(self.loadable.pop(meta))
        self.jobs.on_restored(self.id, meta.index, store)
        if self.replica.loading == meta:
            self.world.oracles.on_install(self.id, meta)
            self.world.note_installed()
            self.tell(Kind.SNAPSHOT, f"installs the snapshot to {meta.index}")
        self.ask(lambda _: self.replica.snapshot_loaded(meta, store))
        for session_id, line in list(self._by_session.items()):
            self._repeat_missed(session_id, line)


def names_in(group: bytes) -> tuple[int, tuple[int, ...]]:
    """(session, sequences) of a group of commands."""
    session_id, _, commands = _codec.unpackb(group)
    return int(session_id), tuple(int(command[0]) for command in commands)
