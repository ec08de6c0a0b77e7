"""Writes down every input of a member's core, so that what it did can be repeated elsewhere, input by input.

Off unless `NodeConfig.record` names a file. The core is recorded from outside: `RecordedReplica` is the replica, and
only remembers what it was told and what it looked like afterwards. A recorder that cannot write any more says so once
and lets the member go on; the format is `quorker.core.wire.recording`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from quorker.core.errors import ConfigurationError
from quorker.core.jobs.store import JobStore
from quorker.core.raft.config import DurableState
from quorker.core.raft.messages import Message, NodeId, SnapshotMeta
from quorker.core.replica import Replica, ReplicaConfig, ReplicaEffect
from quorker.core.wire.plain import to_plain
from quorker.core.wire.raft_codec import RaftEncoder
from quorker.core.wire.recording import (
    FRAME,
    MAGIC,
    Beginning,
    Framer,
    InputKind,
    encode_beginning,
    encode_input,
    print_of_effects,
    print_of_state,
)

log = logging.getLogger("quorker.transport.recorder")

LIVES_MAX: Final = 10_000


def store_bytes(store: JobStore) -> bytes:
    return b"".join(store.snapshot().chunks())


class Recorder:
    """One file, of `bytes_max` at most. `full`, a write error and `close` end it, each with a reason in the file."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        """A new file beside any that former lives of this member have written. Raises `ConfigurationError`."""
        self.path, self._file = _create(path)
        self._bytes_left = bytes_max
        self._framer = Framer()
        self._write(MAGIC)

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def begin(self, beginning: Beginning) -> None:
        self._append(encode_beginning(beginning))

    def add(self, kind: InputKind, arguments: Sequence[Any], looks: int) -> None:
        if self._file is None:
            return
        self._append(encode_input(kind, time.monotonic_ns(), time.time_ns(), arguments, looks))

    def flush(self) -> None:
        """What was recorded so far outlives this process."""
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                self._give_up(f"it cannot be written: {error.strerror}")

    def close(self, why: str = "the member stopped") -> None:
        if self._file is not None:
            payload = encode_input(InputKind.END, time.monotonic_ns(), time.time_ns(), (why,), 0)
            self._write(self._framer.frame(payload))
            self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, payload: bytes) -> None:
        frame_bytes = len(payload) + FRAME.size
        if frame_bytes > self._bytes_left:
            log.warning("recording %s has reached its size and ends here; the member goes on", self.path)
            self.close("it has reached its size")
            return
        self._bytes_left -= frame_bytes
        self._write(self._framer.frame(payload))

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as error:
                self._give_up(f"it cannot be written: {error.strerror}")

    def _give_up(self, why: str) -> None:
        log.warning("recording %s ends here: %s; the member goes on", self.path, why)
        self._file = None


def _create(path: Path) -> tuple[Path, BinaryIO | None]:
    for life in range(1, LIVES_MAX):
        free = path if life == 1 else path.with_name(f"{path.name}.{life}")
        try:
            return free, free.open("xb", buffering=1 << 16)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigurationError(
                f"recording {free} cannot be written: {error.strerror}: name another file"
            ) from None
    raise ConfigurationError(f"there are {LIVES_MAX} recordings named {path}: move some of them away")


class RecordedReplica(Replica):
    """A replica whose every input is written down, with a print of its state, or of the effects it gave, after it."""

    recorder: Recorder
    encoder: RaftEncoder
    draining = False

    def _remember(self, kind: InputKind, *arguments: Any) -> None:
        self.recorder.add(kind, arguments, print_of_state(self.raft, self.store_index))

    def receive(self, message: Message) -> None:
        super().receive(message)
        self._remember(InputKind.RECEIVE, self.encoder.encode(message))

    def submit(self, group: bytes, origin: NodeId) -> None:
        super().submit(group, origin)
        self._remember(InputKind.SUBMIT, bytes(group), origin)

    def read(self, context: int) -> None:
        super().read(context)
        self._remember(InputKind.READ, context)

    def observe_time(self, now_ms: int) -> None:
        super().observe_time(now_ms)
        self._remember(InputKind.OBSERVE_TIME, now_ms)

    def tick(self, now_ms: int, wall_ms: int) -> None:
        super().tick(now_ms, wall_ms)
        self._remember(InputKind.TICK, now_ms, wall_ms)

    def persisted(self, seq: int) -> None:
        super().persisted(seq)
        self._remember(InputKind.PERSISTED, seq)

    def request_snapshot(self) -> None:
        """An input only when the driver asks; a drain takes the snapshots that are due by itself."""
        super().request_snapshot()
        if not self.draining:
            self._remember(InputKind.REQUEST_SNAPSHOT)

    def snapshot_saved(self, meta: SnapshotMeta) -> int:
        keep_from = super().snapshot_saved(meta)
        self._remember(InputKind.SNAPSHOT_SAVED, to_plain(meta))
        return keep_from

    def snapshot_failed(self) -> None:
        super().snapshot_failed()
        self._remember(InputKind.SNAPSHOT_FAILED)

    def snapshot_loaded(self, meta: SnapshotMeta, store: JobStore) -> None:
        loaded = (store_bytes(store), store.epoch)  # before anything more is applied to it
        super().snapshot_loaded(meta, store)
        self._remember(InputKind.SNAPSHOT_LOADED, to_plain(meta), *loaded)

    def campaign(self) -> None:
        super().campaign()
        self._remember(InputKind.CAMPAIGN)

    def transfer(self, to: NodeId) -> None:
        super().transfer(to)
        self._remember(InputKind.TRANSFER, to)

    def peer_unreachable(self, peer: NodeId) -> None:
        super().peer_unreachable(peer)
        self._remember(InputKind.PEER_UNREACHABLE, peer)

    def snapshot_status(self, peer: NodeId, *, ok: bool) -> None:
        super().snapshot_status(peer, ok=ok)
        self._remember(InputKind.SNAPSHOT_STATUS, peer, ok)

    def disk_latency(self, oldest_ms: int) -> None:
        super().disk_latency(oldest_ms)
        self._remember(InputKind.DISK_LATENCY, oldest_ms)

    def disk_space(self, *, low: bool) -> None:
        super().disk_space(low=low)
        self._remember(InputKind.DISK_SPACE, low)

    def drain(self) -> list[ReplicaEffect]:
        """Only then is a file worth flushing: the driver is about to act on it."""
        self.draining = True
        effects = super().drain()
        self.draining = False
        self.recorder.add(InputKind.DRAIN, (), print_of_effects(effects))
        if effects:
            self.recorder.flush()
        return effects


def start_recorded(
    recorder: Recorder,
    config: ReplicaConfig,
    durable: DurableState,
    store: JobStore,
    now_ms: int,
    wall_ms: int,
) -> RecordedReplica:
    """Like `Replica.start`; the recording begins with what is given here."""
    recorder.begin(
        Beginning(
            config.raft.node_id,
            to_plain(config),
            durable,
            store_bytes(store),
            store.epoch,
            to_plain(store.wanted),
            now_ms,
            wall_ms,
            time.monotonic_ns(),
            time.time_ns(),
        )
    )
    replica = RecordedReplica.start(config, durable, store, now_ms, wall_ms)
    assert isinstance(replica, RecordedReplica)
    replica.recorder = recorder
    replica.encoder = RaftEncoder()
    return replica
