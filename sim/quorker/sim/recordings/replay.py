"""Feeds what a flight recorder wrote down to a core of our own, and compares it with the recorded one, input by input.

The core is pure if this never finds a difference: same beginning, same inputs, same looks. Nothing here reads files or
clocks, and what is shown to people is made elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from quorker.core.errors import CorruptionError, ProtocolError
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.snapshot import BadSnapshot
from quorker.core.jobs.store import JobStore
from quorker.core.raft.messages import SnapshotMeta
from quorker.core.replica import Replica, ReplicaConfig, ReplicaEffect
from quorker.core.wire import raft_codec
from quorker.core.wire.plain import from_plain
from quorker.core.wire.recording import (
    Beginning,
    Input,
    InputKind,
    Recording,
    print_of_effects,
    print_of_state,
)

NOTHING_DONE: Final[tuple[ReplicaEffect, ...]] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the core of today took another course than the recorded one."""

    input: Input
    what: str

    def __str__(self) -> str:
        name = self.input.kind.name.lower()
        return f"input {self.input.number} ({name}, at byte {self.input.offset}): {self.what}"


@dataclass(slots=True)
class Listener:
    """Told what happens while a recording is replayed."""

    on_begin: Callable[[Replica, Beginning], None] = field(default=lambda _, __: None)
    on_input: Callable[[Input, Sequence[ReplicaEffect]], None] = field(default=lambda _, __: None)


def replay(recording: Recording, listener: Listener | None = None) -> Difference | None:
    """Repeat a recording; the first difference, None if it is the same to its end. Raises `CorruptionError`."""
    listener = listener or Listener()
    replica = start(recording)
    listener.on_begin(replica, recording.beginning)
    for each in recording.inputs:
        try:
            effects = perform(replica, each)
        except (ProtocolError, BadSnapshot) as error:
            raise CorruptionError(recording.name, each.offset, f"input {each.number}: {error}") from None
        except Exception as error:  # noqa: BLE001  # the core never raises: whatever it is, this one is another
            return Difference(each, f"it raises {type(error).__name__}: {error}")
        wrong = _compare(replica, each, effects)
        if wrong:
            return Difference(each, wrong)
        listener.on_input(each, effects)
    return None


def start(recording: Recording) -> Replica:
    """The core as the recording began. Raises `CorruptionError`."""
    beginning = recording.beginning
    try:
        config = from_plain(ReplicaConfig, beginning.config)
        limits = from_plain(Limits, beginning.limits)
        store = restored(beginning.store, beginning.epoch, limits)
    except (ProtocolError, BadSnapshot) as error:
        raise CorruptionError(recording.name, 0, f"its beginning makes no sense here: {error}") from None
    return Replica.start(config, beginning.durable, store, beginning.now_ms, beginning.wall_ms)


def restored(content: bytes, epoch: int, limits: Limits) -> JobStore:
    store = JobStore.restore([content], limits)
    store.epoch = epoch
    return store


def perform(replica: Replica, each: Input) -> Sequence[ReplicaEffect]:
    """Give one input to the core. What it does is only known after a DRAIN."""
    if each.kind is InputKind.DRAIN:
        return replica.drain()
    _INPUTS[each.kind](replica, *each.arguments)
    return NOTHING_DONE


def _compare(replica: Replica, each: Input, effects: Sequence[ReplicaEffect]) -> str:
    if each.kind is InputKind.DRAIN:
        if print_of_effects(effects) != each.looks:
            return f"it gave other effects than these {len(effects)}: {shown(effects)}"
    elif print_of_state(replica.raft, replica.store_index) != each.looks:
        raft = replica.raft
        return (
            f"it left another state than {raft.role.value} in term {raft.term}, log to {raft.last_index}, "
            f"committed to {raft.commit_index}, applied to {replica.store_index}"
        )
    return ""


def shown(effects: Sequence[object], most: int = 8) -> str:
    names = [type(effect).__name__ for effect in effects[:most]]
    return ", ".join(names) + (f" and {len(effects) - most} more" if len(effects) > most else "")


def _receive(replica: Replica, message: bytes) -> None:
    replica.receive(raft_codec.decode(message))


def _snapshot_saved(replica: Replica, meta: Any) -> None:
    replica.snapshot_saved(from_plain(SnapshotMeta, meta))


def _snapshot_loaded(replica: Replica, meta: Any, content: bytes, epoch: int) -> None:
    store = restored(content, epoch, replica.store.wanted)
    replica.snapshot_loaded(from_plain(SnapshotMeta, meta), store)


def _snapshot_status(replica: Replica, peer: int, ok: bool) -> None:
    replica.snapshot_status(peer, ok=ok)


def _disk_space(replica: Replica, low: bool) -> None:
    replica.disk_space(low=low)


_INPUTS: Final[dict[InputKind, Callable[..., object]]] = {
    InputKind.RECEIVE: _receive,
    InputKind.SUBMIT: Replica.submit,
    InputKind.READ: Replica.read,
    InputKind.OBSERVE_TIME: Replica.observe_time,
    InputKind.TICK: Replica.tick,
    InputKind.PERSISTED: Replica.persisted,
    InputKind.SNAPSHOT_SAVED: _snapshot_saved,
    InputKind.SNAPSHOT_FAILED: Replica.snapshot_failed,
    InputKind.SNAPSHOT_LOADED: _snapshot_loaded,
    InputKind.CAMPAIGN: Replica.campaign,
    InputKind.TRANSFER: Replica.transfer,
    InputKind.PEER_UNREACHABLE: Replica.peer_unreachable,
    InputKind.SNAPSHOT_STATUS: _snapshot_status,
    InputKind.DISK_LATENCY: Replica.disk_latency,
    InputKind.REQUEST_SNAPSHOT: Replica.request_snapshot,
    InputKind.DISK_SPACE: _disk_space,
}
