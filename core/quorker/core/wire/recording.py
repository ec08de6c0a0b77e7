"""The file of a flight recorder: what one core was started with, every input it got, and what it looked like after.

`QKREC1\\n`, then frames of `length u32 | crc32 u32 | crc32 u32 | payload`: a checksum of the length and one of the
payload, each chained to the one before, so that damage never looks like the end of the file. The first payload is the
beginning, the others are inputs in order, the last one says why the recording ended if somebody could. Writing files
is the driver's, feeding a core is `quorker.sim.recordings.replay`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final
from zlib import crc32

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.errors import CorruptionError, ProtocolError
from quorker.core.raft.config import DurableState
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Role
from quorker.core.wire.plain import from_plain, to_plain
from quorker.core.wire.records import REFUSALS

MAGIC: Final = b"QKREC1\n"
FRAME: Final = struct.Struct("<III")
_LENGTH: Final = struct.Struct("<I")
_STATE: Final = struct.Struct("<QBQQQQ")
_ROLES: Final = {role: number for number, role in enumerate(Role)}
_codec: Any = msgpack


class InputKind(IntEnum):
    """What a core is told. The numbers are part of the format: append, never renumber."""

    RECEIVE = 1
    SUBMIT = 2
    READ = 3
    OBSERVE_TIME = 4
    TICK = 5
    PERSISTED = 6
    SNAPSHOT_SAVED = 7
    SNAPSHOT_FAILED = 8
    SNAPSHOT_LOADED = 9
    CAMPAIGN = 10
    TRANSFER = 11
    PEER_UNREACHABLE = 12
    SNAPSHOT_STATUS = 13
    DISK_LATENCY = 14
    DRAIN = 15
    END = 16
    REQUEST_SNAPSHOT = 17
    DISK_SPACE = 18


@dataclass(frozen=True, slots=True)
class Beginning:
    """`config`: of the replica, plain. `store`: the canonical bytes of the state machine. `limits`: its, plain."""

    node_id: int
    config: Any
    durable: DurableState
    store: bytes
    epoch: int
    limits: Any
    now_ms: int
    wall_ms: int
    monotonic_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class Input:
    """`looks`: a print of the state after it, or of the effects that a DRAIN gave. `offset`: in the file."""

    number: int
    kind: InputKind
    monotonic_ns: int
    wall_ns: int
    arguments: list[Any]
    looks: int
    offset: int


def encode_beginning(beginning: Beginning) -> bytes:
    values = (getattr(beginning, name) for name in Beginning.__slots__)
    packed: bytes = _codec.packb([to_plain(value) for value in values])
    return packed


def encode_input(
    kind: InputKind, monotonic_ns: int, wall_ns: int, arguments: Sequence[Any], looks: int
) -> bytes:
    packed: bytes = _codec.packb((kind, monotonic_ns, wall_ns, arguments, looks))
    return packed


class Framer:
    """Chains the checksums of what is written."""

    __slots__ = ("_crc",)

    def __init__(self) -> None:
        self._crc = crc32(MAGIC)

    def frame(self, payload: bytes) -> bytes:
        head = crc32(_LENGTH.pack(len(payload)), self._crc)
        self._crc = crc32(payload, head)
        return FRAME.pack(len(payload), head, self._crc) + payload


# ---------------------------------------------------------------------- prints


def print_of_state(raft: Raft, store_index: int) -> int:
    """A number that differs, almost surely, where two members have come to differ."""
    role, leader = _ROLES[raft.role], raft.leader
    state = _STATE.pack(raft.term, role, leader, raft.commit_index, raft.last_index, store_index)
    return crc32(state)


def print_of_effects(effects: Sequence[object]) -> int:
    """A number that differs, almost surely, for other effects or another order."""
    packed = _codec.packb([to_plain(effect) for effect in effects])
    return int.from_bytes(blake2b(packed, digest_size=7).digest(), "big")


# ---------------------------------------------------------------------- reading


@dataclass(slots=True)
class Recording:
    """A recording as it was found. `cut_at`: where it stops in the middle of a frame, if its process was killed."""

    name: str
    beginning: Beginning
    inputs: list[Input]
    ended: str = ""
    cut_at: int | None = None


def read_recording(data: bytes, name: str) -> Recording:
    """Raises `CorruptionError`, naming file and offset, unless all but the end of the file is whole."""
    if not data.startswith(MAGIC):
        raise CorruptionError(name, 0, "this is no recording of a member: one begins with QKREC1")
    frames = _frames(data, name)
    first = next(frames, None)
    if first is None:
        raise CorruptionError(name, len(MAGIC), "it was cut off before its first input")
    recording = Recording(name, _beginning(first[1], name), [])
    end = first[0] + FRAME.size + len(first[1])
    for offset, payload in frames:
        end = offset + FRAME.size + len(payload)
        found = _input(payload, len(recording.inputs) + 1, offset, name)
        if found.kind is InputKind.END:
            recording.ended = str(found.arguments[0])
        else:
            recording.inputs.append(found)
    recording.cut_at = end if end < len(data) else None
    return recording


def _frames(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) of every whole frame; stops at one that is cut off by the end of the file."""
    offset, crc = len(MAGIC), crc32(MAGIC)
    while offset + FRAME.size <= len(data):
        length, head_wanted, wanted = FRAME.unpack_from(data, offset)
        head = crc32(_LENGTH.pack(length), crc)
        if head != head_wanted:
            raise CorruptionError(name, offset, "this is no frame that follows the one before")
        payload = data[offset + FRAME.size : offset + FRAME.size + length]
        if len(payload) < length:
            return
        crc = crc32(payload, head)
        if crc != wanted:
            raise CorruptionError(name, offset, f"its checksum is {crc:08x}, written was {wanted:08x}")
        yield offset, payload
        offset += FRAME.size + length


def _beginning(payload: bytes, name: str) -> Beginning:
    try:
        values = _codec.unpackb(payload, strict_map_key=False)
        named = dict(zip(Beginning.__slots__, values, strict=True))
        named["durable"] = from_plain(DurableState, named["durable"])
        return Beginning(**named)
    except (*REFUSALS, ProtocolError) as error:
        why = f"its beginning was written by another version: {error}"
        raise CorruptionError(name, len(MAGIC), why) from None


def _input(payload: bytes, number: int, offset: int, name: str) -> Input:
    try:
        kind, monotonic_ns, wall_ns, arguments, looks = _codec.unpackb(payload, strict_map_key=False)
        return Input(number, InputKind(kind), monotonic_ns, wall_ns, arguments, looks, offset)
    except REFUSALS as error:
        why = f"input {number} was written by another version: {error}"
        raise CorruptionError(name, offset, why) from None
