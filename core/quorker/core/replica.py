"""Joins one Raft member with one job store: batches commands, stamps log time, applies, answers, takes snapshots.

Pure like its two parts. A driver feeds messages, groups of commands, times and disk completions, and performs the
effects in order. Guarantees T1 and C1-C5 rest on this file: log time is continued here, across leaders.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.agreement import Agreement, Contradicted, Diverged
from quorker.core.jobs.commands import ClaimDigest, encode
from quorker.core.jobs.outcome import DigestClaim, Outcome
from quorker.core.jobs.snapshot import SnapshotView
from quorker.core.jobs.store import JobStore
from quorker.core.jobs.urgency import fits_full_disk, is_urgent
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import (
    Accepted,
    Apply,
    ConfigChanged,
    DiskWentBack,
    Dropped,
    DropReason,
    Effect,
    Fatal,
    InstallState,
    LeaderChanged,
    Persist,
    ReadFailed,
    ReadReady,
    RejoinChanged,
    Role,
    RoleChanged,
    Send,
    Truncated,
)
from quorker.core.raft.messages import NOBODY, Entry, EntryKind, Message, NodeId, SnapshotMeta

_codec: Any = msgpack
SNAPSHOTS_HELD_BACK: Final = 5  # as long as the log is kept for a follower that lags: as a bound of memory
FULL_DISK_SHARE: Final = 8  # so many times sooner a snapshot is due while the disk is nearly full
OWN_GROUPS: Final = 0  # the session number of commands that the leader itself proposes


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """Sizes in bytes, times in milliseconds."""

    raft: RaftConfig
    rounds_in_flight_max: int = 2
    batch_bytes_max: int = 1 << 20
    pending_bytes_max: int = 16 << 20
    pending_groups_max: int = 4096
    reserved_bytes: int = 1 << 20  # beyond these, for commands that outrank new work
    reserved_groups: int = 1024
    snapshot_after_bytes: int = 16 << 20
    snapshot_after_entries: int = 20_000
    keep_entries: int = 2_000
    maintenance_interval_ms: int = 10
    busy_retry_ms: int = 50
    claim_every_entries: int = 64
    full_disk_retry_ms: int = 500

    @property
    def leader_silent_ms(self) -> int:
        """When a voter would have campaigned."""
        return 2 * self.raft.election_timeout


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass this group of commands on to the leader."""

    to: NodeId
    group: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A group was not appended and will not be: its session sends it again after `retry_after_ms`."""

    group: bytes
    origin: NodeId
    reason: DropReason
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Applied:
    """One batch was applied; `outcome` holds the replies and notices, for whoever they concern on this node."""

    index: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SaveSnapshot:
    """Write this view to disk under `meta`, in pieces, then call `snapshot_saved(meta)`."""

    meta: SnapshotMeta
    view: SnapshotView


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """Rebuild a job store from the durable snapshot `meta`, then call `snapshot_loaded`.

    Nothing is applied meanwhile. Another one may follow before that: then only the newer matters, and the bytes of the
    older may be gone already.
    """

    meta: SnapshotMeta


ReplicaEffect: TypeAlias = (
    Send
    | Persist
    | Forward
    | Refused
    | Applied
    | SaveSnapshot
    | LoadSnapshot
    | ReadReady
    | ReadFailed
    | RoleChanged
    | LeaderChanged
    | ConfigChanged
    | DiskWentBack
    | RejoinChanged
    | Contradicted
    | Diverged
    | Fatal
)


@dataclass(slots=True)
class LogClock:
    """Replicated milliseconds: the largest log time seen at takeover plus this leader's own monotonic time since."""

    base_lt: int = 0
    since_ms: int = 0
    wt: int = 0

    def take_over(self, lt: int, wt: int, now_ms: int) -> None:
        self.base_lt, self.since_ms, self.wt = lt, now_ms, wt

    def lt(self, now_ms: int) -> int:
        return self.base_lt + max(0, now_ms - self.since_ms)

    def stamp(self, now_ms: int, wall_ms: int) -> tuple[int, int]:
        """(lt, wt) of a batch proposed now. Neither ever decreases: wall time is clamped, log time is monotonic."""
        self.wt = max(self.wt, wall_ms)
        return self.lt(now_ms), self.wt


@dataclass(slots=True, eq=False)
class Group:
    bytes: bytes
    origin: NodeId


@dataclass(slots=True)
class Replica:
    """One member. All inputs return None and only add to the effects that `drain` hands out."""

    config: ReplicaConfig
    raft: Raft
    store: JobStore
    now_ms: int = 0
    wall_ms: int = 0
    clock: LogClock = field(default_factory=LogClock)
    loading: SnapshotMeta | None = None
    saving: SnapshotMeta | None = None
    has_space: bool = True  # on the disk of this node, for new work
    _effects: list[ReplicaEffect] = field(default_factory=list[ReplicaEffect])
    _groups: deque[Group] = field(default_factory=deque[Group])
    _groups_bytes: int = 0
    _rounds: dict[int, list[Group]] = field(
        default_factory=dict[int, list[Group]]
    )  # proposal context -> its groups
    _round_index: dict[int, int] = field(default_factory=dict[int, int])  # proposal context -> log index
    _next_context: int = 1
    _postponed: deque[Entry] = field(default_factory=deque[Entry])  # committed, not applied yet
    _bytes_since_snapshot: int = 0
    _bytes_before_snapshot: int = 0  # and after the one before it
    _snapshot_index: int = 0
    _saved: deque[int] = field(default_factory=lambda: deque[int](maxlen=SNAPSHOTS_HELD_BACK))
    _maintenance_context: int = 0
    _maintenance_at_ms: int = 0
    _agreement: Agreement = field(default_factory=lambda: Agreement(NOBODY))
    _claimed_index: int = 0
    _packer: Any = field(default_factory=_codec.Packer)

    @classmethod
    def start(
        cls, config: ReplicaConfig, durable: DurableState, store: JobStore, now_ms: int, wall_ms: int
    ) -> Replica:
        """`store` is what the snapshot of `durable` held (empty when there is none)."""
        raft = Raft(config.raft, durable, now_ms)
        replica = cls(config, raft, store, now_ms, wall_ms)
        replica._snapshot_index = replica._claimed_index = durable.snapshot.index
        replica._agreement = Agreement(config.raft.node_id)
        replica._agreement.begin_anew(store.applied_index, store.chain)
        return replica

    # ------------------------------------------------------------------ inputs

    def receive(self, message: Message) -> None:
        self.raft.step(message)

    def submit(self, group: bytes, origin: NodeId) -> None:
        """A group of commands from this node's own sessions (`origin` is our id) or forwarded by a member."""
        if self.raft.role is Role.LEADER:
            self._queue(Group(group, origin))
        elif origin == self.node_id and self._hears_leader():
            self._effects.append(Forward(self.raft.leader, group))
        else:
            self._refuse(
                Group(group, origin), DropReason.NOT_LEADER if self.raft.leader else DropReason.NO_LEADER
            )

    def _hears_leader(self) -> bool:
        """A member that may not campaign never forgets its leader. If that is silent, what we forward may still reach it
        while no answer comes back here: the sessions of deaf clients would live, and what they were granted be stuck.
        """
        silent_ms = self.raft.now - self.raft.last_leader_contact
        return self.raft.leader not in (NOBODY, self.node_id) and silent_ms < self.config.leader_silent_ms

    def read(self, context: int) -> None:
        self.raft.read(context)

    def campaign(self) -> None:
        """Ask for votes now instead of after a timeout."""
        self.raft.campaign()

    def transfer(self, to: NodeId) -> None:
        """Hand leadership to this member, as soon as it lacks nothing."""
        self.raft.transfer(to)

    def peer_unreachable(self, peer: NodeId) -> None:
        self.raft.peer_unreachable(peer)

    def snapshot_status(self, peer: NodeId, *, ok: bool) -> None:
        """How the transfer of a snapshot to this member ended."""
        self.raft.snapshot_status(peer, ok=ok)

    def disk_latency(self, oldest_ms: int) -> None:
        """How long the oldest write that is not durable has been waiting."""
        self.raft.disk_latency(oldest_ms)

    def disk_space(self, *, low: bool) -> None:
        """Whether the disk of this node is nearly full. A leader then takes only what ends or keeps what is there."""
        self.has_space = not low
        if low:
            waiting, self._groups = self._groups, deque()
            self._groups_bytes = 0
            for group in waiting:
                self._queue(group)

    def observe_time(self, now_ms: int) -> None:
        """What follows is received at this time; nothing becomes due by it."""
        self.now_ms = now_ms
        self.raft.observe_time(now_ms)

    def tick(self, now_ms: int, wall_ms: int) -> None:
        self.now_ms, self.wall_ms = now_ms, wall_ms
        self.raft.tick(now_ms)

    def persisted(self, seq: int) -> None:
        self.raft.persisted(seq)

    def snapshot_saved(self, meta: SnapshotMeta) -> int:
        """The snapshot is durable: the log is trimmed, but for a tail that spares lagging members a snapshot.

        Returns the first index that the disk still has to keep.
        """
        self.saving = None
        self._saved.append(meta.index)
        keep_entries = self.config.keep_entries if self.has_space else 0
        keep_from = min(meta.index + 1 - keep_entries, self._first_needed())
        keep_from = max(self.raft.first_index, keep_from, self._saved[0] + 1 - keep_entries)
        self.raft.snapshot_made(meta, keep_from)
        return keep_from

    def _first_needed(self) -> int:
        """The first entry that a follower which is there still lacks, or will after the snapshot it is being sent.

        Without this, one that takes a snapshot under load would need the next one as soon as it is done.
        """
        needed = [
            max(known.match_index, known.pending_snapshot) + 1
            for peer, known in self.raft.progress.items()
            if self.is_leader and peer != self.node_id and (known.recent_active or known.pending_snapshot)
        ]
        return min(needed, default=self.raft.last_index + 1)

    def snapshot_failed(self) -> None:
        self.saving = None

    def snapshot_loaded(self, meta: SnapshotMeta, store: JobStore) -> None:
        """The state machine of snapshot `meta` is ready; entries that waited for it are applied now.

        Ignored when a newer snapshot was installed while this one was loading.
        """
        if meta != self.loading:
            return
        self.store, self.loading = store, None
        self._agreement.begin_anew(store.applied_index, store.chain)
        self._snapshot_index, self._bytes_since_snapshot = meta.index, 0
        self.raft.applied(meta.index)

    # ------------------------------------------------------------------ output

    @property
    def node_id(self) -> NodeId:
        return self.config.raft.node_id

    @property
    def is_leader(self) -> bool:
        return self.raft.role is Role.LEADER

    def drain(self) -> list[ReplicaEffect]:
        """Propose what waits, and hand out everything the driver must do now, in order.

        Others wait for what is to be sent and written, so committed entries are applied only when nothing of that is
        left: a driver calls again until there are no effects.
        """
        self._go_on()
        while not self._effects and self._apply_postponed():
            self._go_on()
        self._take_snapshot()
        effects, self._effects = self._effects, []
        return effects

    @property
    def waits_to_apply(self) -> bool:
        """There are committed entries that the next `drain` will apply, if it has nothing to send or to write."""
        return bool(self._postponed) and self.loading is None

    def next_deadline(self) -> int | None:
        """Absolute ms at which `tick` has something to do, or None."""
        deadline = self.raft.next_deadline()
        if not self._can_maintain():
            return deadline  # what stands in the way ends with an apply, which wakes the driver anyway
        due_lt, due_wt = self.store.next_due(has_space=self.has_space)
        waits = [
            at - now
            for at, now in ((due_lt, self.clock.lt(self.now_ms)), (due_wt, self.wall_ms))
            if at is not None
        ]
        if not waits:
            return deadline
        due = max(self._maintenance_at_ms, self.now_ms + max(0, min(waits)))
        return due if deadline is None else min(due, deadline)

    # ------------------------------------------------------------------ proposing

    def _queue(self, group: Group) -> None:
        """Over the limits, what outranks new work goes first, into the room that is kept for it; the rest is refused."""
        config = self.config
        if not self.has_space and not fits_full_disk(group.bytes):
            self._refuse(group, DropReason.DISK_FULL)
            return
        if self._has_room(group, config.pending_groups_max, config.pending_bytes_max):
            self._groups.append(group)
        elif (
            self._has_room(
                group,
                config.pending_groups_max + config.reserved_groups,
                config.pending_bytes_max + config.reserved_bytes,
            )
            and is_urgent(group.bytes)
        ):  # fmt: skip
            self._groups.appendleft(group)
        else:
            self._refuse(group, DropReason.TOO_MUCH_UNCOMMITTED)
            return
        self._groups_bytes += len(group.bytes)

    def _has_room(self, group: Group, groups_max: int, bytes_max: int) -> bool:
        return len(self._groups) < groups_max and self._groups_bytes + len(group.bytes) <= bytes_max

    def _refuse(self, group: Group, reason: DropReason) -> None:
        if group.origin != OWN_GROUPS:
            config = self.config
            retry_ms = config.full_disk_retry_ms if reason is DropReason.DISK_FULL else config.busy_retry_ms
            self._effects.append(Refused(group.bytes, group.origin, reason, retry_ms))

    def _propose(self) -> bool:
        """Group commit: everything that arrived while the last rounds were under way goes into the next one."""
        if not self._groups or not self.is_leader or len(self._rounds) >= self.config.rounds_in_flight_max:
            return False
        batch: list[Group] = []
        size = 0
        while self._groups and (
            not batch or size + len(self._groups[0].bytes) <= self.config.batch_bytes_max
        ):
            group = self._groups.popleft()
            size += len(group.bytes)
            batch.append(group)
        self._groups_bytes -= size
        self._propose_batch(batch + self._claim())
        return True

    def _propose_batch(self, batch: list[Group]) -> int:
        context = self._next_context
        self._next_context += 1
        lt, wt = self.clock.stamp(self.now_ms, self.wall_ms)
        self._rounds[context] = batch
        self.raft.propose([self._packer.pack((lt, wt, [group.bytes for group in batch]))], context)
        return context

    def _maintain(self) -> bool:
        """The leader proposes what is due. One such group at a time, and only on an applied own-term state."""
        if self.now_ms < self._maintenance_at_ms or not self._can_maintain():
            return False
        lt, wt = self.clock.stamp(self.now_ms, self.wall_ms)
        commands = self.store.due(lt, wt, has_space=self.has_space)
        self._maintenance_at_ms = self.now_ms + self.config.maintenance_interval_ms
        if not commands:
            return False
        group = self._packer.pack((OWN_GROUPS, 0, [(0, command) for command in commands]))
        self._maintenance_context = self._propose_batch([Group(group, OWN_GROUPS)])
        return True

    def _can_maintain(self) -> bool:
        has_room = not self._maintenance_context and len(self._rounds) < self.config.rounds_in_flight_max
        return self.is_leader and has_room and self._has_applied_own_term()

    def _has_applied_own_term(self) -> bool:
        return self.raft.log.term_at(self.store_index) == self.raft.term

    # ------------------------------------------------------------------ Raft's effects

    def _go_on(self) -> None:
        self._settle()
        while self._maintain() or self._propose():
            self._settle()

    def _settle(self) -> None:
        """Take over what Raft decided. That gives it nothing new to decide, so once is enough."""
        for effect in self.raft.drain():
            self._take(effect)

    def _take(self, effect: Effect) -> None:
        match effect:
            case Send() | Persist() | ReadReady() | ReadFailed() | ConfigChanged() | Fatal():
                self._effects.append(effect)
            case DiskWentBack() | RejoinChanged():
                self._effects.append(effect)
            case Apply(entries):
                self._postponed.extend(entries)
            case Accepted(context, index, _):
                self._round_index[context] = index
            case Dropped(context, reason, _):
                self._on_dropped(context, reason)
            case InstallState(meta):
                self.loading = meta
                self._postponed.clear()
                self._effects.append(LoadSnapshot(meta))
            case RoleChanged():
                self._on_role(effect)
            case LeaderChanged():
                self._effects.append(effect)
            case Truncated():
                pass  # sessions repeat what got no reply; LeaderChanged has told them

    def _on_dropped(self, context: int, reason: DropReason) -> None:
        for group in self._rounds.pop(context, []):
            self._refuse(group, reason)
        if context == self._maintenance_context:
            self._maintenance_context = 0

    def _on_role(self, effect: RoleChanged) -> None:
        self._effects.append(effect)
        waiting = list(self._groups)
        self._groups.clear()
        self._rounds.clear()
        self._round_index.clear()
        self._groups_bytes = self._maintenance_context = 0
        for group in waiting:
            self._refuse(group, DropReason.LEADER_CHANGED)
        if effect.role is Role.LEADER:
            self.clock.take_over(*self._latest_stamp(), self.now_ms)

    def _latest_stamp(self) -> tuple[int, int]:
        """(lt, wt) of the newest batch in the log, committed or not, or of the state machine when there is none."""
        log = self.raft.log
        for index in range(self.raft.last_index, max(self.store_index, self.raft.first_index - 1), -1):
            (entry,) = log.entries(index, index + 1)
            stamp = _stamp_of(entry)
            if stamp is not None:
                return max(stamp[0], self.store.lt), max(stamp[1], self.store.wt)
        return self.store.lt, self.store.wt

    # ------------------------------------------------------------------ applying

    @property
    def store_index(self) -> int:
        """The last index whose effect is in the job store."""
        return max(self.store.applied_index, self.raft.applied_index)

    def _apply_postponed(self) -> bool:
        """False if there was nothing to apply."""
        if not self.waits_to_apply:
            return False
        entries, self._postponed = self._postponed, deque()
        for entry in entries:
            if entry.kind is EntryKind.NORMAL and entry.data:
                self._apply_batch(entry)
        last = entries[-1].index
        finished = [context for context, index in self._round_index.items() if index <= last]
        for context in finished:
            self._rounds.pop(context, None)
            del self._round_index[context]
            if context == self._maintenance_context:
                self._maintenance_context = 0
        self.raft.applied(last)
        return True

    def _apply_batch(self, entry: Entry) -> None:
        self._bytes_since_snapshot += len(entry.data)
        outcome = self.store.apply(entry.index, entry.data)
        self._agreement.remember(entry.index, self.store.chain)
        self._effects.append(Applied(entry.index, outcome))
        for claim in outcome.claims:
            self._hear(claim)

    # ------------------------------------------------------------------ agreeing

    def _claim(self) -> list[Group]:
        """What the leader says of itself with some of its batches, and never when there is nothing else to propose."""
        index = self.store.applied_index
        alone = self.raft.configuration.voters.is_single
        if alone or index - self._claimed_index < self.config.claim_every_entries:
            return []
        self._claimed_index = index
        return [self._group_of(DigestClaim(index, self.node_id, self.store.chain))]

    def _group_of(self, claim: DigestClaim) -> Group:
        return Group(self._packer.pack((OWN_GROUPS, 0, [(0, encode(ClaimDigest(*claim)))])), OWN_GROUPS)

    def _hear(self, claim: DigestClaim) -> None:
        """Every member hears the same claims in the same order; what it does about them is not in the log."""
        hearing = self._agreement.hear(claim, self.raft.configuration.voters)
        if hearing.report is not None:
            self._report(self._group_of(hearing.report))
        self._effects.extend(each for each in (hearing.alarm, hearing.verdict) if each is not None)

    def _report(self, group: Group) -> None:
        """May be lost: the next claim of the leader differs as well."""
        if self.is_leader:
            self._queue(group)
        elif self.raft.leader != NOBODY:
            self._effects.append(Forward(self.raft.leader, group.bytes))

    def _take_snapshot(self) -> None:
        if self.saving is not None or self.loading is not None:
            return
        index = self.raft.applied_index
        size, share = self._bytes_since_snapshot, 1
        if not self.has_space:  # the log behind the older of two snapshots goes only with the next one
            size, share = size + self._bytes_before_snapshot, FULL_DISK_SHARE
        due = (
            size * share >= self.config.snapshot_after_bytes
            or (index - self._snapshot_index) * share >= self.config.snapshot_after_entries
        )
        if due:
            self.request_snapshot()

    def request_snapshot(self) -> None:
        """Start a snapshot of what is applied now, unless one is under way or nothing is new.

        Nor where that is behind the log already: a newer one from the leader has taken its place, and is on its way.
        """
        index = self.raft.applied_index
        if self.saving is not None or self.loading is not None or index <= self._snapshot_index:
            return
        term = self.raft.log.term_at(index)
        if term is None:
            return
        meta = SnapshotMeta(index, term, self.raft.conf_state)
        self.saving, self._snapshot_index = meta, index
        self._bytes_before_snapshot, self._bytes_since_snapshot = self._bytes_since_snapshot, 0
        self._effects.append(SaveSnapshot(meta, self.store.snapshot()))


def _stamp_of(entry: Entry) -> tuple[int, int] | None:
    if entry.kind is not EntryKind.NORMAL or not entry.data:
        return None
    batch: Any = _codec.unpackb(entry.data)
    return int(batch[0]), int(batch[1])
