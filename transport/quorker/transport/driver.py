"""The drive loop: performs what one replica decides, against a disk, links to the other members and the clocks.

It decides nothing. Inputs arrive from other tasks between two pumps; a pump hands out all effects, writes everything
that must be durable with one fsync, and releases what waited for it. Its twin is `quorker.sim.runs.node`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from quorker.core.agreement import Contradicted, Diverged
from quorker.core.errors import EXIT_CORRUPT, QuorkerError
from quorker.core.raft.effects import (
    ConfigChanged,
    DiskWentBack,
    Fatal,
    LeaderChanged,
    Persist,
    ReadFailed,
    ReadReady,
    RejoinChanged,
    RoleChanged,
    Send,
)
from quorker.core.raft.messages import Message, NodeId
from quorker.core.replica import Applied, Forward, LoadSnapshot, Refused, Replica, ReplicaEffect, SaveSnapshot
from quorker.core.wire.storage_errors import DiskFull
from quorker.transport.clock import monotonic_ms, wall_ms

log = logging.getLogger("quorker.transport.driver")

SEAL_AFTER_MS: Final = 50
FULL_DISK_PAUSE_MS: Final = 1_000
SPACE_LOOK_MS: Final = 500
TICK_MS_MAX: Final = 25
PUMP_ROUNDS_MAX: Final = 8  # then other tasks get their turn


class InvariantBroken(QuorkerError):
    """The core found its own state impossible: this node stops and keeps the evidence."""


class StateDiverged(QuorkerError):
    """This member came to another state than the majority: it stops, and keeps its files."""

    exit_code = EXIT_CORRUPT


class Links(Protocol):
    """The way to the other members. Every call is non-blocking and may lose what it is given."""

    def send(self, to: NodeId, message: Message) -> None: ...

    def forward(self, to: NodeId, group: bytes) -> None: ...

    def flush(self) -> None:
        """Everything sent since the last flush leaves now, one packet per member, but for `flush_late`."""
        ...

    def flush_late(self) -> None:
        """What only says how far the log is committed, and may wait for entries to travel with, leaves too."""
        ...


class LogDisk(Protocol):
    """The part of the disk that the drive loop uses."""

    def write(self, batch: Sequence[Persist]) -> None: ...

    def seal(self) -> None: ...

    @property
    def wants_prepare(self) -> bool: ...

    def prepare(self) -> None: ...

    @property
    def is_low(self) -> bool: ...

    @property
    def segment(self) -> int: ...


class Owner(Protocol):
    """Who owns the loop (the node): everything that concerns sessions, snapshots and people goes there."""

    def flush_sessions(self) -> None: ...

    def take_answered(self) -> bool:
        """Whether callers in this process were answered since the last call: they may be about to submit more."""
        ...

    def tick_sessions(self, now_ms: int) -> None: ...

    def on_applied(self, effect: Applied) -> None: ...

    def on_refused(self, effect: Refused) -> None: ...

    def on_read(self, effect: ReadReady | ReadFailed) -> None: ...

    def on_snapshot_due(self, effect: SaveSnapshot) -> None: ...

    def on_snapshot_installed(self, effect: LoadSnapshot) -> None: ...

    def on_change(self, effect: RoleChanged | LeaderChanged | ConfigChanged) -> None: ...

    def on_memory_changed(self, effect: DiskWentBack | RejoinChanged) -> None:
        """What a member may have forgotten, or has caught up with."""
        ...

    def on_contradicted(self, effect: Contradicted) -> None:
        """Members differ in what they have come to."""
        ...


class Driver:
    """Runs one replica. `wake` asks for a pump; `run` and `run_timer` are two tasks of the node's nursery."""

    def __init__(self, replica: Replica, disk: LogDisk, links: Links, owner: Owner) -> None:
        self.replica = replica
        self.disk = disk
        self.links = links
        self.owner = owner
        self.loop_late_ms_max = 0
        self._woken = False
        self._parked: trio.lowlevel.Task | None = None
        self._lane: list[Persist] = []
        self._written_ms = 0
        self._full_since_ms = 0
        self._prepare_at_ms = 0
        self._space_looked_ms = 0
        self._segment = 0
        self._is_low = False
        self._sealed = True
        self._perform: dict[type[ReplicaEffect], Callable[..., None]] = {
            Send: self._send,
            Persist: self._lane.append,
            Forward: self._forward,
            Applied: owner.on_applied,
            Refused: owner.on_refused,
            ReadReady: owner.on_read,
            ReadFailed: owner.on_read,
            SaveSnapshot: owner.on_snapshot_due,
            LoadSnapshot: owner.on_snapshot_installed,
            RoleChanged: owner.on_change,
            LeaderChanged: owner.on_change,
            ConfigChanged: owner.on_change,
            DiskWentBack: owner.on_memory_changed,
            RejoinChanged: owner.on_memory_changed,
            Contradicted: owner.on_contradicted,
            Diverged: _raise_diverged,
            Fatal: _raise_fatal,
        }

    def wake(self) -> None:
        self._woken = True
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)

    async def run(self) -> None:
        """Pump whenever woken. Ends only by cancellation, or with the error that ends this node."""
        while True:
            if not self._woken:
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._unpark)
            self._woken = False
            if self.pump():
                await self._wait_for_callers()
            elif self._woken:
                await trio.lowlevel.checkpoint()

    async def _wait_for_callers(self) -> None:
        """Callers were answered: their next commands take the commit index along, if they submit any.

        trio runs who is ready forwards or backwards: only after a second turn has every one of them had its own.
        """
        await trio.lowlevel.checkpoint()
        if not self._woken:
            await trio.lowlevel.checkpoint()
        if not self._woken:
            self.links.flush_late()

    def _unpark(self, _: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def run_timer(self) -> None:
        """Wake the loop when the replica or a session has something to do by the clock; seal the log when idle."""
        while True:
            deadline = self.replica.next_deadline()
            now = monotonic_ms()
            wait = TICK_MS_MAX if deadline is None else max(1, min(TICK_MS_MAX, deadline - now))
            await trio.sleep(wait / 1000)
            after = monotonic_ms()
            self.loop_late_ms_max = max(self.loop_late_ms_max, after - now - wait)
            self.owner.tick_sessions(after)
            if not self._sealed and after - self._written_ms >= SEAL_AFTER_MS:
                self._sealed = True
                self.disk.seal()
            if self.disk.wants_prepare and after >= self._prepare_at_ms:
                await self._prepare_segment()
                self._look_at_space(after)
            elif after - self._space_looked_ms >= SPACE_LOOK_MS:
                self._look_at_space(after)
            self.wake()

    async def _prepare_segment(self) -> None:
        """The next file of the log, before it is needed: zeroing it takes too long for the loop."""
        try:
            await trio.to_thread.run_sync(self.disk.prepare)
        except DiskFull:  # no reason to keep timers waiting
            self._prepare_at_ms = monotonic_ms() + FULL_DISK_PAUSE_MS

    def _look_at_space(self, now_ms: int) -> None:
        self._space_looked_ms = now_ms
        low = self.disk.is_low
        if low == self._is_low:
            return
        self._is_low = low
        self.replica.disk_space(low=low)
        if low:
            log.warning("disk of node %s is nearly full: new work is refused", self.replica.node_id)
        else:
            log.warning("disk of node %s has space again", self.replica.node_id)

    def pump(self) -> bool:
        """Perform effects until there are none, or until it is fair to let other tasks run.

        True if callers of this process were answered: what they submit next may take along what `flush_late` sends.
        """
        self.replica.tick(monotonic_ms(), wall_ms())
        for _ in range(PUMP_ROUNDS_MAX):
            self.owner.flush_sessions()
            effects = self.replica.drain()
            if not effects:
                answered = self.owner.take_answered()
                if not answered:
                    self.links.flush_late()
                return answered
            for effect in effects:
                self._perform[type(effect)](effect)
            self.links.flush()
            if self._lane:
                self._write_lane()
        self.wake()
        return False

    def _write_lane(self) -> None:
        """One write and one fsync for everything, then what waited for it, in order (rule 1 of effects.py)."""
        lane = self._lane[:]
        try:
            self.disk.write(lane)
        except DiskFull:
            self._on_disk_full()
            return
        self._lane.clear()
        self._full_since_ms = 0
        if self.disk.segment != self._segment:  # a fast writer fills a disk between two looks at the clock
            self._segment = self.disk.segment
            self._look_at_space(self.replica.now_ms)
        self._sealed, self._written_ms = False, self.replica.now_ms
        for persist in lane:
            for send in persist.then:
                self._send(send)
        self.links.flush()
        self.replica.persisted(lane[-1].seq)

    def _on_disk_full(self) -> None:
        """Nothing was written and nothing is lost: the lane waits, and a leader whose disk lags gives way."""
        now = self.replica.now_ms
        self._full_since_ms = self._full_since_ms or now
        self.replica.disk_latency(now - self._full_since_ms)
        self._look_at_space(now)

    def _send(self, effect: Send) -> None:
        self.links.send(effect.to, effect.message)

    def _forward(self, effect: Forward) -> None:
        self.links.forward(effect.to, effect.group)


def _raise_fatal(effect: Fatal) -> None:
    raise InvariantBroken(f"{effect.invariant}: {effect.detail}")


def _raise_diverged(effect: Diverged) -> None:
    raise StateDiverged(
        f"{effect}. Its files are kept; it can come back with an empty directory and --rejoin"
    )
