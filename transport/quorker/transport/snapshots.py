"""Snapshots on the move: from the state machine to disk, from disk to the state machine, and between members.

Everything is done in pieces, so that no heartbeat waits for it. What is sent is the file that is on disk; the receiver
verifies all of it before Raft hears that it arrived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

import trio

from quorker.core.errors import InvalidInput, ProtocolError
from quorker.core.jobs.store import JobStore
from quorker.core.raft.messages import InstallSnapshot, NodeId, SnapshotMeta
from quorker.core.replica import LoadSnapshot, Replica, SaveSnapshot
from quorker.core.wire.requests import PeerMessage, SnapshotBegin, SnapshotChunk, SnapshotEnd, SnapshotResult
from quorker.core.wire.snapshot_store import SnapshotWriter
from quorker.core.wire.storage import LogStorage
from quorker.core.wire.storage_errors import DiskFull
from quorker.transport.clock import monotonic_ms
from quorker.transport.memory_pauses import freeze_along, freeze_store, short_turns

SLICE_MS: Final = 2  # of work between two turns of the other tasks
WINDOW_BYTES: Final = 2 << 20  # sent and not yet confirmed by the receiver
TRANSFER_SECONDS: Final = 20.0  # without any progress: the transfer failed
PAUSE_SECONDS: Final = 0.5  # before a transfer that failed is repeated
CONFIRM_BYTES: Final = 512 << 10
BOOTSTRAP_INDEX: Final = 1  # every first member writes the same empty snapshot at this index and term


class Channel(Protocol):
    """The way to one member, for traffic that must not be dropped silently."""

    def send_record(self, to: NodeId, record: PeerMessage) -> bool: ...

    async def wait_room(self, to: NodeId) -> bool: ...


@dataclass(slots=True, eq=False)
class _Outgoing:
    to: NodeId
    confirmed: int = 0
    result: SnapshotResult | None = None
    progress: trio.Event | None = None


@dataclass(slots=True, eq=False)
class _Incoming:
    transfer: int
    message: InstallSnapshot
    writer: SnapshotWriter
    received: int = 0
    confirmed: int = 0


class Turns:
    """Lets other tasks run whenever a slice of work is used up."""

    def __init__(self) -> None:
        self._until = monotonic_ms() + SLICE_MS

    async def take(self) -> None:
        if monotonic_ms() >= self._until:
            await trio.lowlevel.checkpoint()
            self._until = monotonic_ms() + SLICE_MS


class SnapshotMover:
    """All snapshot traffic of one node. `start` runs a coroutine function in the node's nursery."""

    def __init__(
        self,
        replica: Replica,
        disk: LogStorage,
        channel: Channel,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        wake: Callable[[], None],
        on_state_replaced: Callable[[], None],
    ) -> None:
        self._replica = replica
        self._disk = disk
        self._channel = channel
        self._start = start
        self._wake = wake
        self._on_state_replaced = on_state_replaced
        self._numbers = count(1)
        self._outgoing: dict[int, _Outgoing] = {}
        self._sending_to: set[NodeId] = set()
        self._incoming: dict[NodeId, _Incoming] = {}

    # ------------------------------------------------------------------ own state machine

    def save(self, effect: SaveSnapshot) -> None:
        self._start(lambda: self._save(effect))

    async def _save(self, effect: SaveSnapshot) -> None:
        try:
            saved = await self._write_out(effect)
        except DiskFull:
            saved = False
        if saved:
            keep_from = self._replica.snapshot_saved(effect.meta)
            self._disk.compact(keep_from)
            freeze_store()
        else:
            self._replica.snapshot_failed()
        self._wake()

    async def _write_out(self, effect: SaveSnapshot) -> bool:
        writer, turns = self._disk.snapshot_writer(effect.meta), Turns()
        try:
            for chunk in effect.view.chunks():
                writer.add(chunk)
                await turns.take()
            return writer.finish()
        finally:
            writer.abort()

    def load(self, effect: LoadSnapshot) -> None:
        self._start(lambda: self._load(effect.meta))

    async def _load(self, meta: SnapshotMeta) -> None:
        """In a thread, because rebuilding all indexes takes a while; nothing is applied meanwhile."""
        try:
            with short_turns():
                store = await trio.to_thread.run_sync(self._rebuild, meta)
        except InvalidInput:
            if self._replica.loading == meta:
                raise
            return  # a newer snapshot took its place, which is being loaded by another call
        self._replica.snapshot_loaded(meta, store)
        freeze_store()
        self._on_state_replaced()
        self._wake()

    def _rebuild(self, meta: SnapshotMeta) -> JobStore:
        if meta.index <= BOOTSTRAP_INDEX:
            return JobStore(self._replica.store.wanted, epoch=self._replica.store.epoch)
        chunks = freeze_along(self._disk.open_snapshot(meta))
        return JobStore.restore(chunks, self._replica.store.wanted)

    # ------------------------------------------------------------------ sending

    def send(self, message: InstallSnapshot) -> None:
        """Stream the snapshot that Raft wants to send; one transfer per member at a time."""
        if message.to not in self._sending_to:
            self._sending_to.add(message.to)
            self._start(lambda: self._send(message))

    async def _send(self, message: InstallSnapshot) -> None:
        number, outgoing = next(self._numbers), _Outgoing(message.to)
        self._outgoing[number] = outgoing
        try:
            arrived = await self._stream(number, outgoing, message)
            if not arrived:
                await trio.sleep(PAUSE_SECONDS)
        finally:
            del self._outgoing[number]
            self._sending_to.discard(message.to)
        self._replica.snapshot_status(message.to, ok=arrived)
        self._wake()

    async def _stream(self, number: int, outgoing: _Outgoing, message: InstallSnapshot) -> bool:
        try:
            chunks = self._disk.open_snapshot(message.snapshot)
        except InvalidInput:
            return False  # replaced by a newer one meanwhile: Raft offers that
        if not self._channel.send_record(message.to, SnapshotBegin(number, message)):
            return False
        digest, size, turns = hashlib.sha256(), 0, Turns()
        for chunk in chunks:
            if not await self._send_piece(outgoing, SnapshotChunk(number, size, chunk)):
                return False
            digest.update(chunk)
            size += len(chunk)
            await turns.take()
        if not await self._send_piece(outgoing, SnapshotEnd(number, size, digest.digest())):
            return False
        await self._progress(outgoing, lambda: outgoing.result is not None)
        return outgoing.result is not None and outgoing.result.ok

    async def _send_piece(self, outgoing: _Outgoing, record: SnapshotChunk | SnapshotEnd) -> bool:
        """False when the other side refused, went away, or makes no progress."""
        position = record.offset if isinstance(record, SnapshotChunk) else record.size

        def has_room() -> bool:
            return outgoing.result is not None or position - outgoing.confirmed < WINDOW_BYTES

        await self._progress(outgoing, has_room)
        if outgoing.result is not None or not has_room():
            return False
        return await self._channel.wait_room(outgoing.to) and self._channel.send_record(outgoing.to, record)

    async def _progress(self, outgoing: _Outgoing, reached: Callable[[], bool]) -> None:
        while not reached():
            outgoing.progress = trio.Event()
            with trio.move_on_after(TRANSFER_SECONDS) as scope:
                await outgoing.progress.wait()
            if scope.cancelled_caught:
                return

    def on_result(self, result: SnapshotResult) -> None:
        outgoing = self._outgoing.get(result.transfer)
        if outgoing is None:
            return
        outgoing.confirmed = max(outgoing.confirmed, result.received)
        if result.done:
            outgoing.result = result
        if outgoing.progress is not None:
            outgoing.progress.set()

    def on_peer_down(self, peer: NodeId) -> None:
        """What was sent to this member last may be lost: its transfer cannot end well."""
        for number, outgoing in self._outgoing.items():
            if outgoing.to == peer:
                self.on_result(SnapshotResult(number, True, False, 0, "the connection was lost"))

    # ------------------------------------------------------------------ receiving

    def on_begin(self, sender: NodeId, begin: SnapshotBegin) -> None:
        """A new transfer takes the place of an unfinished one, of the same member or of a leader before it."""
        self.forget(sender)
        if begin.message.term < self._replica.raft.term:
            self._refuse(sender, begin.transfer, "there is a newer leader")
            return
        for former in list(self._incoming):
            self.forget(former)
        if self._replica.loading is not None:
            self._refuse(sender, begin.transfer, "another snapshot is being loaded")
            return
        try:
            writer = self._disk.receive_snapshot(begin.message.snapshot)
        except DiskFull as error:
            self._refuse(sender, begin.transfer, str(error))
            return
        self._incoming[sender] = _Incoming(begin.transfer, begin.message, writer)

    def on_chunk(self, sender: NodeId, chunk: SnapshotChunk) -> None:
        incoming = self._incoming_of(sender, chunk.transfer)
        if incoming is None:
            return
        if chunk.offset != incoming.received:
            why = f"a chunk at {chunk.offset} arrived after byte {incoming.received}"
            self._give_up(sender, chunk.transfer, why)
            return
        try:
            incoming.writer.add(chunk.data)
        except DiskFull as error:
            self._give_up(sender, chunk.transfer, str(error))
            return
        incoming.received += len(chunk.data)
        if incoming.received - incoming.confirmed >= CONFIRM_BYTES:
            incoming.confirmed = incoming.received
            self._channel.send_record(
                sender, SnapshotResult(chunk.transfer, False, True, incoming.received, "")
            )

    def on_end(self, sender: NodeId, end: SnapshotEnd) -> None:
        incoming = self._incoming_of(sender, end.transfer)
        if incoming is None:
            return
        try:
            incoming.writer.finish(end.sha256)
        except (ProtocolError, DiskFull) as error:
            self._give_up(sender, end.transfer, str(error))
            return
        del self._incoming[sender]
        self._channel.send_record(sender, SnapshotResult(end.transfer, True, True, incoming.received, ""))
        self._replica.receive(incoming.message)
        self._wake()

    def _incoming_of(self, sender: NodeId, transfer: int) -> _Incoming | None:
        incoming = self._incoming.get(sender)
        if incoming is not None and incoming.transfer == transfer:
            return incoming
        self._refuse(sender, transfer, "it did not begin here, or was given up")
        return None

    def _give_up(self, sender: NodeId, transfer: int, why: str) -> None:
        self.forget(sender)
        self._refuse(sender, transfer, why)

    def forget(self, sender: NodeId) -> None:
        """Nothing more of this transfer will come, or nothing more of it counts."""
        incoming = self._incoming.pop(sender, None)
        if incoming is not None:
            incoming.writer.abort()

    def _refuse(self, sender: NodeId, transfer: int, why: str) -> None:
        self._channel.send_record(sender, SnapshotResult(transfer, True, False, 0, why))
