"""A bare Raft member: what is replicated is a digest of everything applied, which it applies as slowly as it is told.

Twin of `quorker.transport.node` as far as Raft goes. With a job store on top it is `replica_node`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Accepted, Apply, Dropped, InstallState, LeaderChanged, Truncated
from quorker.core.raft.messages import NodeId, SnapshotMeta
from quorker.sim.cases.case import Point
from quorker.sim.disks.disk import LogDisk
from quorker.sim.oracles.checks import next_state
from quorker.sim.stories.story import Kind
from quorker.sim.world.clock import NodeClock
from quorker.sim.world.host import Host, ignore
from quorker.sim.world.kernel import Call
from quorker.sim.world.trace import What
from quorker.sim.world.world import World

FEW_BYTES: Final = 200  # an append of so many carries one or two entries


class Node(Host):
    """`state`: of the replicated machine, a digest of all it applied up to `applied_index`."""

    def __init__(self, world: World, node_id: NodeId, clock: NodeClock, disk: LogDisk) -> None:
        super().__init__(world, node_id, clock, disk)
        self.state = 0
        self.on_dropped: Callable[[int], None] = ignore
        self._core: Raft
        self._applied_index = 0
        self._applies: deque[Apply | InstallState] = deque()
        self._applying = self._saving = False

    # ------------------------------------------------------------------ Host

    @property
    def applied_index(self) -> int:
        return self._applied_index

    def performers(self) -> dict[type, Callable[[Any], None]]:
        return {
            Apply: self._apply,
            InstallState: self._apply,
            Dropped: self._dropped,
            Truncated: self._truncated,
            Accepted: ignore,
            LeaderChanged: ignore,
        }

    def boot(self) -> Raft:
        durable = self.disk.durable
        self.state, self._applied_index = durable.state, durable.snapshot.index
        self._core = Raft(self.raft_config(), durable.recovered(), self.now_ms)
        return self._core

    def forget(self) -> None:
        if self._saving:
            self.world.note("crashed while saving a snapshot")
        self._applying = self._saving = False
        self._applies.clear()

    def drain(self) -> Sequence[object]:
        return self._core.drain()

    def deadline(self) -> int | None:
        return self._core.next_deadline()

    def observe_core(self, now_ms: int) -> None:
        self._core.observe_time(now_ms)

    def tick_core(self, now_ms: int) -> None:
        self._core.tick(now_ms)

    # ------------------------------------------------------------------ inputs

    def propose(self, items: Sequence[bytes], context: int) -> bool:
        return self.ask(lambda raft: raft.propose(items, context))

    def propose_config(self, change: ConfigChange, context: int) -> bool:
        return self.ask(lambda raft: raft.propose_config(change, context))

    # ------------------------------------------------------------------ effects

    def _apply(self, effect: Apply | InstallState) -> None:
        self._applies.append(effect)

    def _dropped(self, effect: Dropped) -> None:
        self.on_dropped(effect.context)

    def _truncated(self, effect: Truncated) -> None:
        self.world.note("truncated" if effect.first == effect.last else "truncated several")
        if effect.first != effect.last and self.world.case.raft.max_append_bytes <= FEW_BYTES:
            self.world.note("truncated more than one append")

    # ------------------------------------------------------------------ the replicated machine

    def work(self) -> bool:
        """Apply the next batch now, or start applying it slowly."""
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
            self.inbox.append(lambda: self._applied_slowly(call))
            return
        self._applying = False
        self.observe()
        self._apply_next()
        if call.payload == self.incarnation:
            self.settle()

    def _apply_next(self) -> None:
        if self.reaches(Point.BEFORE_APPLY):
            return
        effect = self._applies.popleft()
        if isinstance(effect, Apply):
            self._apply_entries(effect)
        else:
            self._install(effect.snapshot)
        self.world.trace.record(self.world.kernel.now, What.APPLIED, self.id, self._applied_index, self.state)
        self.tell_applied(self._applied_index)
        if self.reaches(Point.AFTER_APPLY):
            return
        self._core.applied(self._applied_index)
        every = self.world.case.machine.snapshot_every
        if every and self._applied_index >= self.disk.durable.snapshot.index + every:
            self.save_snapshot()

    def _apply_entries(self, effect: Apply) -> None:
        oracles = self.world.oracles
        oracles.on_apply(self.id, effect.entries)
        state = self.state
        for entry in effect.entries:
            state = next_state(state, entry)
        self.state = state
        self._applied_index += len(effect.entries)
        oracles.on_state(self.id, self._applied_index, state)

    def _install(self, snapshot: SnapshotMeta) -> None:
        self.world.oracles.on_install(self.id, snapshot)
        self.tell(Kind.SNAPSHOT, f"installs the snapshot to {snapshot.index}")
        self.world.note_installed()
        self.state, self._applied_index = self.loadable.pop(snapshot), snapshot.index
        self.world.oracles.on_state(self.id, self._applied_index, self.state)

    def save_snapshot(self) -> None:
        """The log is trimmed when the snapshot is durable."""
        if self.raft is None or self._saving or self._applied_index <= self.disk.durable.snapshot.index:
            return
        term = self._core.log.term_at(self._applied_index)
        if term is None:
            return  # a received snapshot has already taken the place of the log
        self._saving = True
        meta = SnapshotMeta(self._applied_index, term, self._core.conf_state)
        saved = (meta, self.state, self.incarnation)
        self.world.kernel.after(self.disk.latency_ns(), self._snapshot_saved, saved)

    def _snapshot_saved(self, call: Call) -> None:
        meta, state, incarnation = call.payload
        if incarnation != self.incarnation:
            return
        if self.paused:
            self.inbox.append(lambda: self._snapshot_saved(call))
            return
        self._saving = False
        if not self.disk.save_snapshot(meta, state) or self.reaches(Point.SNAPSHOT_SAVED):
            return
        self.world.note("snapshot saved")
        self.tell(Kind.SNAPSHOT, f"has saved the snapshot to {meta.index}")
        keep = self.world.case.machine.keep_entries
        keep_from = max(self._core.first_index, meta.index + 1 - keep)
        self.ask(lambda raft: raft.snapshot_made(meta, keep_from))
        self.disk.compact(keep_from)
