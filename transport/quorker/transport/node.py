"""One member: a replica, its disk, its links and its own session, as one `Connection`.

`node_start.py` puts the parts together and takes them apart again; the drive loop is `driver.py`; clients are served
by `gateway.py`; snapshots move in `snapshots.py`. Here stands what user code asks of a member, and what the loop reports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Protocol

import trio

from quorker.core.agreement import Contradicted
from quorker.core.errors import NotApplied
from quorker.core.freshness import Freshness
from quorker.core.jobs.commands import Command
from quorker.core.jobs.dispatch import held_grants
from quorker.core.jobs.outcome import Notice
from quorker.core.raft.effects import (
    ConfigChanged,
    DiskWentBack,
    LeaderChanged,
    ReadFailed,
    ReadReady,
    RejoinChanged,
    Role,
    RoleChanged,
)
from quorker.core.raft.messages import NOBODY, Forgotten, NodeId
from quorker.core.replica import Applied, LoadSnapshot, Refused, Replica, SaveSnapshot
from quorker.core.session import Resolve
from quorker.transport.clock import monotonic_ms
from quorker.transport.connection import Answer, Consistency, Status
from quorker.transport.driver import Driver
from quorker.transport.hosting import Host, SessionHosts, group_names
from quorker.transport.node_config import NodeConfig
from quorker.transport.own_session import OwnSession
from quorker.transport.session_driver import JobReceiver

log = logging.getLogger("quorker.transport.node")

VERSION: Final = version("quorker")
FINAL_STATES: Final = ("Succeeded", "Failed", "Deleted", "Quarantined")
READ_AGAIN_SECONDS: Final = 0.1


class Flushable(Protocol):
    """A host that collects replies until the end of a pump."""

    def flush(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Waiter:
    """One task that waits for an index or an answer of Raft."""

    event: trio.Event = field(default_factory=trio.Event)
    index: int = -1
    reason: str = ""


class Node:
    """A running member. Made by `open_node`; satisfies `Connection`."""

    def __init__(self, config: NodeConfig, cluster_id: str, replica: Replica, address: str) -> None:
        self.config = config
        self.node_id = config.node_id
        self.cluster_id = cluster_id
        self.address = address
        self.replica = replica
        self.hosts = SessionHosts()
        self.faulted = ""
        self.contradiction = ""
        self.driver: Driver
        self.own: OwnSession
        self.refuse_forwarded: Callable[[NodeId, int, tuple[int, ...], str, int], None]
        self.save_snapshot: Callable[[SaveSnapshot], None]
        self.load_snapshot: Callable[[LoadSnapshot], None]
        self.on_members_changed: Callable[[ConfigChanged], None]
        self.on_has_its_say: Callable[[], None]
        self.is_connected: Callable[[NodeId], bool]  # whether this node can send to a member now
        self.changed = trio.Event()  # replaced at each change of role, leader or configuration
        self.dirty_hosts: dict[int, Flushable] = {}
        self._reads: dict[int, _Waiter] = {}
        self._next_read = 1
        self._freshness = Freshness(replica.config.raft.heartbeat_interval)
        self._applied_waiters: list[_Waiter] = []
        self._finish_waiters: dict[str, set[trio.Event]] = {}

    # ------------------------------------------------------------------ Connection

    @property
    def session_id(self) -> int:
        return self.own.driver.session.session_id

    @property
    def is_leader(self) -> bool:
        return self.replica.is_leader

    def submit(self, command: Command, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        return self.own.driver.submit(command, timeout)

    def submit_nowait(self, command: Command, resolve: Resolve) -> None:
        self.own.driver.submit_nowait(command, resolve)

    @property
    def lease_seconds(self) -> float:
        return self.own.driver.lease_seconds

    async def query(self, name: str, args: dict[str, Any], *, consistency: Consistency = "local") -> Answer:
        if consistency == "linearizable":
            await self.wait_linearizable()
        return self.query_now(name, args)

    def query_now(self, name: str, args: dict[str, Any]) -> Answer:
        """An answer from memory. Its age rests on an earlier confirmed read; if that is long ago, another is asked for."""
        value, now_ms = self.replica.store.query(name, args), monotonic_ms()
        if self._freshness.is_stale(now_ms):
            self._ask_for_read()
        index = self.replica.store_index
        return Answer(value, index, self._freshness.age_ms(index, now_ms))

    async def wait_linearizable(self) -> None:
        """Return once this replica has applied everything that was acknowledged anywhere before this call.

        Like a write, it waits for a leader; raises `NotApplied` after `default_timeout`.
        """
        why = "no answer"
        with trio.move_on_after(self.config.default_timeout):
            while True:
                changed = self.changed
                waiter = await self._read_index()
                if waiter.index >= 0:
                    await self.wait_applied(waiter.index)
                    return
                why = waiter.reason
                with trio.move_on_after(READ_AGAIN_SECONDS):
                    await changed.wait()
        raise NotApplied(
            f"a linearizable read needs a leader with a majority behind it, and found none within "
            f"{self.config.default_timeout} s: {why}"
        )

    async def _read_index(self) -> _Waiter:
        """Ask Raft once. The answer has an index, or a reason why there is none."""
        waiter = _Waiter()
        context = self._ask_for_read()
        self._reads[context] = waiter  # nothing is answered before the driver wakes
        try:
            await waiter.event.wait()
        finally:
            del self._reads[context]
        return waiter

    def _ask_for_read(self) -> int:
        context = self._next_read
        self._next_read += 1
        self._freshness.on_asked(context, monotonic_ms())
        self.replica.read(context)
        self.driver.wake()
        return context

    async def wait_applied(self, index: int) -> None:
        if self.replica.store_index >= index:
            return
        waiter = _Waiter(index=index)
        self._applied_waiters.append(waiter)
        try:
            await waiter.event.wait()
        finally:
            if waiter in self._applied_waiters:
                self._applied_waiters.remove(waiter)

    async def wait_finished(self, job_id: str, timeout: float) -> None:
        with trio.fail_after(timeout):
            await self.wait_ended(job_id)

    async def wait_ended(self, job_id: str) -> None:
        """Return when the job is in a final state, or not known here."""
        job = self.replica.store.jobs.get(job_id)
        if job is None or job.state in FINAL_STATES:
            return
        event = trio.Event()
        self._finish_waiters.setdefault(job_id, set()).add(event)
        try:
            await event.wait()
        finally:
            self._forget_finish_waiter(job_id, event)

    def _forget_finish_waiter(self, job_id: str, event: trio.Event) -> None:
        waiting = self._finish_waiters.get(job_id)
        if waiting is not None:
            waiting.discard(event)
            if not waiting:
                del self._finish_waiters[job_id]

    def worker(
        self, queues: Sequence[str], slots: int, on_cancel: Callable[[int, str], None]
    ) -> AbstractAsyncContextManager[JobReceiver]:
        return self.own.driver.work(queues, slots, on_cancel)

    async def status(self) -> Status:
        return self.status_now()

    def status_now(self) -> Status:
        raft = self.replica.raft
        contact = None if raft.role is Role.LEADER else self._contact_age_ms()
        behind = max(raft.commit_index, raft.last_index) - self.replica.store_index
        return Status(
            node_id=self.node_id,
            cluster_id=self.cluster_id,
            role=raft.role.value,
            term=raft.term,
            leader=raft.leader,
            members=raft.conf_state.voters,
            commit_index=raft.commit_index,
            applied_index=self.replica.store_index,
            last_index=raft.last_index,
            lag=None if raft.leader == NOBODY else behind,
            leader_contact_age_ms=contact,
            faulted=self.faulted,
            version=VERSION,
            contradiction=self.contradiction,
            rejoining="" if raft.rejoining is None else raft.rejoining.forgotten.name.lower(),
            learners=raft.conf_state.learners,
            followers=self._followers(),
        )

    def _followers(self) -> tuple[tuple[NodeId, int], ...]:
        raft = self.replica.raft
        if not self.replica.is_leader:
            return ()
        peers = sorted(
            (node, peer.match_index) for node, peer in raft.progress.items() if node != self.node_id
        )
        return tuple((node, raft.last_index - held) for node, held in peers)

    def _contact_age_ms(self) -> int | None:
        raft = self.replica.raft
        return None if raft.leader == NOBODY else max(0, monotonic_ms() - raft.last_leader_contact)

    def sees_majority(self) -> bool:
        """Whether connections stand to enough members to agree on anything."""
        conf = self.replica.raft.conf_state
        return all(self._sees_most_of(voters) for voters in (conf.voters, conf.voters_outgoing) if voters)

    def _sees_most_of(self, voters: Sequence[NodeId]) -> bool:
        seen = sum(voter == self.node_id or self.is_connected(voter) for voter in voters)
        return seen > len(voters) // 2

    async def transfer_leadership(self) -> bool:
        """Hand leadership to the follower that lacks least; True when somebody else leads afterwards."""
        if not self.replica.is_leader:
            return True
        raft = self.replica.raft
        heirs = [
            (peer.match_index, node)
            for node, peer in raft.progress.items()
            if node in raft.conf_state.voters and node != self.node_id and self.is_connected(node)
        ]
        if not heirs:
            return False
        self.replica.transfer(max(heirs)[1])
        self.driver.wake()
        with trio.move_on_after(self.config.timing.election_ms / 1000):
            while self.replica.is_leader:
                await self.changed.wait()
        return not self.replica.is_leader

    # ------------------------------------------------------------------ Owner of the drive loop

    def flush_sessions(self) -> None:
        self.own.flush()

    def take_answered(self) -> bool:
        answered, self.own.answered = self.own.answered, False
        return answered

    def tick_sessions(self, now_ms: int) -> None:
        self.own.driver.tick(now_ms)

    def submit_group(self, group: bytes) -> None:
        """A group of a session hosted here, on its way to the leader."""
        self.replica.submit(group, self.node_id)
        self.driver.wake()

    def on_applied(self, effect: Applied) -> None:
        self.hosts.on_outcome(effect.outcome)
        if self._finish_waiters:
            for job_id in effect.outcome.finished:
                for event in self._finish_waiters.pop(job_id, ()):
                    event.set()
        if self._applied_waiters:
            self._release_applied()

    def _release_applied(self) -> None:
        index = self.replica.store_index
        for waiter in self._applied_waiters:
            if waiter.index <= index:
                waiter.event.set()
        self._applied_waiters = [waiter for waiter in self._applied_waiters if waiter.index > index]

    def on_refused(self, effect: Refused) -> None:
        session_id, seqs = group_names(effect.group)
        if effect.origin == self.node_id:
            self.hosts.on_refused(session_id, seqs, effect.reason.name, effect.retry_after_ms)
        else:
            self.refuse_forwarded(effect.origin, session_id, seqs, effect.reason.name, effect.retry_after_ms)

    def on_read(self, effect: ReadReady | ReadFailed) -> None:
        if isinstance(effect, ReadReady):
            self._freshness.on_confirmed(effect.context, effect.index, self.replica.store_index)
        else:
            self._freshness.on_failed(effect.context)
        waiter = self._reads.get(effect.context)
        if waiter is None:
            return
        if isinstance(effect, ReadReady):
            waiter.index = effect.index
        else:
            waiter.reason = effect.reason.value
        waiter.event.set()

    def on_snapshot_due(self, effect: SaveSnapshot) -> None:
        self.save_snapshot(effect)

    def on_snapshot_installed(self, effect: LoadSnapshot) -> None:
        self.load_snapshot(effect)

    def on_change(self, effect: RoleChanged | LeaderChanged | ConfigChanged) -> None:
        changed, self.changed = self.changed, trio.Event()
        changed.set()
        if isinstance(effect, ConfigChanged):
            self.on_members_changed(effect)
        elif isinstance(effect, LeaderChanged) and effect.leader != NOBODY:
            self.hosts.on_route_changed()
            self.driver.wake()

    def on_memory_changed(self, effect: DiskWentBack | RejoinChanged) -> None:
        if isinstance(effect, DiskWentBack):
            log.error(
                "disk of node %s went back from %s to %s: it rejoins, and has no vote until then",
                effect.node,
                effect.remembered,
                effect.found,
            )
        elif effect.forgotten is Forgotten.NOTHING:
            log.warning("node %s has caught up after the damage to its disk: it votes again", self.node_id)
            self.on_has_its_say()
            changed, self.changed = self.changed, trio.Event()
            changed.set()

    def on_contradicted(self, effect: Contradicted) -> None:
        """It stays in the status until this process ends: somebody has to look."""
        self.contradiction = str(effect)
        log.error("%s", effect)

    def on_state_replaced(self) -> None:
        """The state machine jumped to a snapshot: tell every hosted session what it missed."""
        for session_id, host in self.hosts.hosted().items():
            self.repeat_missed(session_id, host)
        for job_id in list(self._finish_waiters):
            job = self.replica.store.jobs.get(job_id)
            if job is None or job.state in FINAL_STATES:
                for event in self._finish_waiters.pop(job_id):
                    event.set()
        self._release_applied()

    def repeat_missed(self, session_id: int, host: Host) -> None:
        """Replies and grants of this session that may not have reached it; it knows which ones it has seen."""
        store = self.replica.store
        session = store.sessions.get(session_id)
        if session is None:
            host.on_lost(session_id, "the session has ended")
            return
        for seq, reply in list(session.replies.items()):
            host.on_reply(session_id, seq, reply)
        for grant in held_grants(store, session):
            host.on_notice(Notice(session_id, "job", grant))
