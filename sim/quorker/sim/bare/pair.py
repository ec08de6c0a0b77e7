"""Two or three Raft members in memory: for tests of the core that need a peer and nothing else of a world.

No time passes and nothing is lost unless the test says so. Messages wait in one queue, writes in one lane per
member; `settle` lets everything through, and a test that wants trouble handles queue and lanes itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Apply, Effect, InstallState, Persist, Role, Send
from quorker.core.raft.invariants import check_state, check_step, view
from quorker.core.raft.messages import ConfState, Entry, EntryKind, HardState, Message, NodeId, SnapshotMeta

ROUNDS_MAX: Final = 1000
ELECTION_TIMEOUT: Final = 10

EffectKind = TypeVar("EffectKind")


@dataclass
class MemoryDisk:
    """What survives a crash. A Persist reaches it whole or not at all."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    entries: list[Entry] = field(default_factory=list[Entry])

    def write(self, persist: Persist) -> None:
        if persist.truncate_from is not None:
            self.entries = [entry for entry in self.entries if entry.index < persist.truncate_from]
        if persist.snapshot is not None:
            self.snapshot = persist.snapshot
            self.entries = [entry for entry in self.entries if entry.index > persist.snapshot.index]
        self.entries.extend(persist.entries)
        self.hard_state = persist.hard_state or self.hard_state
        last = self.snapshot.index
        for entry in self.entries:
            assert entry.index == last + 1, f"the disk has a gap before {entry.index}"
            last = entry.index

    def take_snapshot(self, snapshot: SnapshotMeta) -> None:
        """A snapshot made here is durable: what it covers need not be kept."""
        self.snapshot = snapshot
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index]

    def recover(self) -> DurableState:
        return DurableState(self.hard_state, self.snapshot, tuple(self.entries))


class Member:
    """One Raft core with its disk, and everything it ever asked for."""

    def __init__(self, config: RaftConfig, disk: MemoryDisk) -> None:
        self.config = config
        self.disk = disk
        self.log: list[Effect] = []  # every effect since the (re)start
        self.writes: deque[Persist] = deque()
        self.applied: list[Entry] = []
        self.raft = Raft(config, disk.recover())
        self._before = view(self.raft)

    def restart(self) -> None:
        """Crash: everything that is not on disk is forgotten."""
        self.config = replace(self.config, incarnation=self.config.incarnation + 1)
        self.raft = Raft(self.config, self.disk.recover(), self.raft.now)
        self.log.clear()
        self.writes.clear()
        self.applied.clear()
        self._before = view(self.raft)

    def compact(self, keep: int = 0) -> None:
        """Make a snapshot of what is applied; keep the last `keep` of the entries that it covers."""
        meta = self.raft.applied_meta
        if meta is not None:
            self.disk.take_snapshot(meta)
            self.raft.snapshot_made(meta, meta.index + 1 - keep)

    def drain(self) -> tuple[Effect, ...]:
        """Take the core's effects, checking its invariants on the way."""
        effects = self.raft.drain()
        now = view(self.raft)
        violations = [*check_state(self.raft), *check_step(self._before, now)]
        assert not violations, violations
        self._before = now
        self.log.extend(effects)
        return effects

    def data(self) -> list[bytes]:
        """What was applied for the state machine's sake: no empty entries, no changes of membership."""
        return [entry.data for entry in self.applied if entry.data and entry.kind is EntryKind.NORMAL]

    def all(self, kind: type[EffectKind]) -> list[EffectKind]:
        return [effect for effect in self.log if isinstance(effect, kind)]


class Cluster:
    """Members 1..n joined by a queue of messages.

    `cut`: pairs (sender, receiver) between which everything is lost. `committed`: every entry that any member ever
    applied, by index; two members that disagree about one fail the test at once.
    """

    def __init__(self, size: int, voters: Iterable[NodeId] | None = None, **settings: Any) -> None:
        members = tuple(voters or range(1, size + 1))
        start = SnapshotMeta(1, 1, ConfState(members))
        self.members = {
            node_id: Member(self._config(node_id, settings), MemoryDisk(HardState(1, 0, 1), start))
            for node_id in range(1, size + 1)
        }
        self.queue: deque[Message] = deque()
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.dropped: list[Message] = []
        self.committed: dict[int, Entry] = {}

    @staticmethod
    def _config(node_id: NodeId, settings: dict[str, Any]) -> RaftConfig:
        return replace(RaftConfig(node_id, ELECTION_TIMEOUT), **settings)

    def __getitem__(self, node_id: NodeId) -> Raft:
        return self.members[node_id].raft

    def add(self, node_id: NodeId, **settings: Any) -> Member:
        """A new member with an empty disk: it knows of no cluster until a leader speaks to it."""
        self.members[node_id] = Member(self._config(node_id, settings), MemoryDisk())
        return self.members[node_id]

    # Performing effects

    def perform(self, node_id: NodeId) -> bool:
        """Do what the member asks for; its writes start, and do not finish. Whether there was anything."""
        member = self.members[node_id]
        effects = member.drain()
        for effect in effects:
            if isinstance(effect, Persist):
                member.writes.append(effect)
            elif isinstance(effect, Send):
                self.queue.append(effect.message)
            elif isinstance(effect, Apply):
                self._apply(member, effect.entries)
            elif isinstance(effect, InstallState):
                member.raft.applied(effect.snapshot.index)
        return bool(effects)

    def _apply(self, member: Member, entries: tuple[Entry, ...]) -> None:
        assert entries[0].index == member.raft.applied_index + 1, "entries are applied in order, each once"
        for entry in entries:
            first = self.committed.setdefault(entry.index, entry)
            assert first == entry, f"two members committed different entries: {first} and {entry}"
        member.applied.extend(entries)
        member.raft.applied(entries[-1].index)

    def sync(self, node_id: NodeId, count: int | None = None) -> int:
        """Finish the member's oldest `count` writes (all by default). How many there were."""
        member = self.members[node_id]
        done = 0
        while member.writes and done != count:
            persist = member.writes.popleft()
            member.disk.write(persist)
            self.queue.extend(send.message for send in persist.then)
            member.raft.persisted(persist.seq)
            done += 1
        return done

    def deliver(self, keep: Callable[[Message], bool] | None = None) -> int:
        """Hand over every message that waits; those that `keep` picks stay, and the cut ones are lost."""
        waiting, self.queue = self.queue, deque()
        for message in waiting:
            if keep is not None and keep(message):
                self.queue.append(message)
            elif (message.sender, message.to) in self.cut or message.to not in self.members:
                self.dropped.append(message)
            else:
                self[message.to].step(message)
        return len(waiting) - len(self.queue)

    def settle(self, only: Sequence[NodeId] = ()) -> None:
        """Perform, write and deliver until nothing is left to do (among `only`, if given)."""
        ids = tuple(only) or tuple(self.members)
        for _ in range(ROUNDS_MAX):
            busy = [self.perform(node_id) for node_id in ids]
            busy += [self.sync(node_id) > 0 for node_id in ids]
            busy.append(self.deliver(lambda message: message.to not in ids) > 0)
            if not any(busy):
                return
        raise AssertionError("the cluster does not come to rest")

    # Shorthand

    def tick(self, units: int = 1, only: Sequence[NodeId] = ()) -> None:
        """Let time pass for the members, unit by unit, settling in between."""
        for _ in range(units):
            for node_id in tuple(only) or tuple(self.members):
                self[node_id].tick(self[node_id].now + 1)
            self.settle(only)

    def elect(self, node_id: NodeId) -> Raft:
        """Make the member the leader, and let the cluster settle."""
        self[node_id].campaign()
        self.settle()
        assert self[node_id].role is Role.LEADER
        return self[node_id]

    def elect_among(self, node_id: NodeId, *others: NodeId) -> Raft:
        """Make the first of these members the leader; they alone take part, and forget whom they followed."""
        ids = (node_id, *others)
        for _ in range(len(ids)):  # the first attempt may only find out how far the others' terms are
            for member in ids:
                self[member].forget_leader()
            self[node_id].campaign()
            self.settle(ids)
            if self[node_id].role is Role.LEADER:
                return self[node_id]
        raise AssertionError(f"{node_id} does not win the votes of {others}")

    def elect_alone(self, node_id: NodeId, *voters: NodeId) -> Raft:
        """Make the member the leader with these votes, and cut it off before it can say so."""
        for member in (node_id, *voters):
            self[member].forget_leader()
        self[node_id].campaign()
        for actors in ((node_id,), voters):
            for actor in actors:
                self.perform(actor)
                self.sync(actor)
            self.deliver()
        assert self[node_id].role is Role.LEADER
        self.isolate(node_id)
        return self[node_id]

    def isolate(self, *node_ids: NodeId) -> None:
        """Cut the members off from all others, but not from each other."""
        inside = set(node_ids)
        others = [node_id for node_id in self.members if node_id not in inside]
        self.cut |= {(a, b) for a in node_ids for b in others} | {(b, a) for a in node_ids for b in others}

    def heal(self) -> None:
        self.cut.clear()

    def leaders(self) -> list[NodeId]:
        return [node_id for node_id, member in self.members.items() if member.raft.role is Role.LEADER]
