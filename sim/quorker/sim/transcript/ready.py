"""What a driver is to do, in etcd's terms: a Ready, the work of its threads, and what these answer.

Records only. `node` makes them out of our effects, and performs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from quorker.core.raft.effects import Apply, Persist, Role
from quorker.core.raft.messages import Entry, HardState, Message, NodeId, SnapshotMeta
from quorker.sim.transcript.wire import Wire, wire_of


@dataclass(frozen=True, slots=True)
class LocalResponse:
    """What the disk (`persisted`) or the state machine (`applied`) of a node tells it, on its way."""

    to: NodeId
    wire: Wire
    persisted: int = 0
    applied: int = 0


Envelope: TypeAlias = Message | LocalResponse


def envelope_wire(envelope: Envelope) -> Wire:
    return envelope.wire if isinstance(envelope, LocalResponse) else wire_of(envelope)


@dataclass(frozen=True, slots=True)
class SoftState:
    leader: NodeId
    role: Role


@dataclass(slots=True)
class Outbox:
    """What the core asked for since the last Ready. `answers` follow a write; `sends` do not."""

    persists: list[Persist] = field(default_factory=list[Persist])
    applies: list[Apply] = field(default_factory=list[Apply])
    sends: list[Message] = field(default_factory=list[Message])
    answers: list[Envelope] = field(default_factory=list[Envelope])

    def __bool__(self) -> bool:
        return bool(self.persists or self.applies or self.sends or self.answers)


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything a driver has to do now. `soft` and `hard_state` only if they changed."""

    soft: SoftState | None
    hard_state: HardState | None
    must_sync: bool
    entries: tuple[Entry, ...]
    snapshot: SnapshotMeta | None
    committed: tuple[Entry, ...]
    messages: tuple[Wire, ...]
    sent: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class AppendWork:
    """A write that waits for the append thread, with what leaves once it is done."""

    wire: Wire
    persists: tuple[Persist, ...]
    responses: tuple[Envelope, ...]


@dataclass(frozen=True, slots=True)
class ApplyWork:
    wire: Wire
    response: LocalResponse


def fold(persists: list[Persist]) -> tuple[tuple[Entry, ...], SnapshotMeta | None]:
    """Several writes as one: the entries that remain, and the last snapshot."""
    entries: list[Entry] = []
    snapshot: SnapshotMeta | None = None
    for persist in persists:
        if persist.truncate_from is not None:
            entries = [entry for entry in entries if entry.index < persist.truncate_from]
        if persist.snapshot is not None:
            snapshot, entries = persist.snapshot, []
        entries += persist.entries
    return tuple(entries), snapshot
