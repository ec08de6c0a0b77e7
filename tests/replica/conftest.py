"""Three replicas in memory with a perfect network, disks that are instant, and a clock that is a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from quorker.core.errors import QuorkerError
from quorker.core.jobs.commands import Command
from quorker.core.jobs.store import JobStore
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.effects import LeaderChanged, Persist, ReadFailed, ReadReady, Send
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.core.replica import Applied, Forward, LoadSnapshot, Refused, Replica, ReplicaConfig, SaveSnapshot
from quorker.core.session import ClientSession, SessionConfig

ELECTION_MS = 1000
HOUR_MS = 3_600_000


@dataclass
class Result:
    """What a command came to."""

    value: Any = None
    error: QuorkerError | None = None
    known: bool = False

    def resolve(self, value: Any, error: QuorkerError | None) -> None:
        self.value, self.error, self.known = value, error, True


@dataclass
class Cluster:
    replicas: dict[int, Replica] = field(default_factory=dict[int, Replica])
    sessions: dict[int, ClientSession] = field(default_factory=dict[int, ClientSession])
    now_ms: int = 0
    wall_ms: dict[int, int] = field(default_factory=dict[int, int])
    cut: set[int] = field(default_factory=set[int])
    log: list[Entry] = field(default_factory=list[Entry])
    snapshots: dict[SnapshotMeta, list[bytes]] = field(default_factory=dict[SnapshotMeta, list[bytes]])
    refused: list[Refused] = field(default_factory=list[Refused])
    reads: list[ReadReady | ReadFailed] = field(default_factory=list[ReadReady | ReadFailed])
    save_snapshots: bool = True
    on_applied: Callable[[int, Applied], None] = lambda node, effect: None

    def add(
        self, node: int, durable: DurableState, config: ReplicaConfig, store: JobStore | None = None
    ) -> None:
        self.wall_ms[node] = 1_700_000_000_000
        self.replicas[node] = Replica.start(
            config, durable, store or JobStore(), self.now_ms, self.wall_ms[node]
        )
        self.sessions[node] = ClientSession(SessionConfig(f"n{node}"), nonce=node * 1000 + 7)

    def settle(self) -> None:
        while [node for node in self.replicas if self._step(node)]:
            pass

    def _step(self, node: int) -> bool:
        replica, session = self.replicas[node], self.sessions[node]
        group = session.take_group()
        if group is not None:
            replica.submit(group, node)
        effects = replica.drain()
        lane = [effect for effect in effects if isinstance(effect, Persist)]
        for effect in effects:
            if not isinstance(effect, Persist):
                self._perform(node, effect)
        for persist in lane:
            for send in persist.then:
                self._send(node, send)
            replica.persisted(persist.seq)
        return group is not None or bool(effects)

    def _perform(self, node: int, effect: Any) -> None:
        match effect:
            case Send():
                self._send(node, effect)
            case Forward(to, group):
                if not self.cut & {node, to}:
                    self.replicas[to].submit(group, node)
            case Applied():
                self._on_applied(node, effect)
            case Refused():
                self.refused.append(effect)
            case LeaderChanged(leader, _) if leader:
                self.sessions[node].on_route_changed()
            case ReadReady() | ReadFailed():
                self.reads.append(effect)
            case SaveSnapshot(meta, view) if self.save_snapshots:
                self.snapshots[meta] = list(view.chunks())
                self.replicas[node].snapshot_saved(meta)
            case LoadSnapshot(meta):
                self.replicas[node].snapshot_loaded(meta, JobStore.restore(self.snapshots[meta]))
            case _:
                pass

    def _send(self, node: int, send: Send) -> None:
        if not self.cut & {node, send.to}:
            self.replicas[send.to].receive(send.message)

    def _on_applied(self, node: int, effect: Applied) -> None:
        session = self.sessions[node]
        replies: list[tuple[int, int, Any]] = list(effect.outcome.replies)
        for session_id, seq, reply in replies:
            if session_id == 0 and seq == session.nonce:
                session.on_opened(reply[1])
            elif session_id and session_id == session.session_id:
                session.on_reply(seq, reply)
        self.on_applied(node, effect)

    def advance(self, ms: int, step: int = 10) -> None:
        for _ in range(0, ms, step):
            self.now_ms += step
            for node, replica in self.replicas.items():
                self.wall_ms[node] += step
                replica.tick(self.now_ms, self.wall_ms[node])
                self.sessions[node].tick(self.now_ms)
            self.settle()

    def elect(self, node: int) -> None:
        self.replicas[node].raft.campaign()
        self.settle()

    def open_sessions(self) -> None:
        for session in self.sessions.values():
            session.open(self.now_ms)
        self.settle()

    def submit(self, node: int, command: Command, patience_ms: int = HOUR_MS) -> Result:
        result = Result()
        self.sessions[node].submit(command, self.now_ms, self.now_ms + patience_ms, result.resolve)
        self.settle()
        return result


def start_of(*voters: int) -> DurableState:
    return DurableState(HardState(1, 0, 1), SnapshotMeta(1, 1, ConfState(voters)))


def config_of(node: int, **changes: Any) -> ReplicaConfig:
    raft = RaftConfig(node, election_timeout=ELECTION_MS, heartbeat_interval=100, seed=node)
    return ReplicaConfig(raft, **changes)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three members, node 1 leads, every node has an open session."""
    made = Cluster()
    for node in (1, 2, 3):
        made.add(node, start_of(1, 2, 3), config_of(node))
    made.elect(1)
    made.open_sessions()
    yield made
    stores = [replica.store for node, replica in made.replicas.items() if node not in made.cut]
    last = max(store.applied_index for store in stores)
    assert len({store.digest() for store in stores if store.applied_index == last}) == 1


@pytest.fixture
def lone() -> Cluster:
    """One member, which leads, and would claim its digest with every second entry."""
    made = Cluster()
    made.add(1, start_of(1), config_of(1, claim_every_entries=2))
    made.elect(1)
    made.open_sessions()
    return made
