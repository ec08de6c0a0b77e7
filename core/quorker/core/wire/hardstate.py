"""The two state slots, STATE.0 and STATE.1: a second witness beside the log, overwritten in turn.

The log decides what was promised; a slot says how far the log was known to reach when the slot was written, so that a
log which lost its end cannot pass for a shorter one, and it keeps a copy of the promises and the incarnation. That this
member may have forgotten promises stands here only, in both. One slot
may be torn or damaged at any time: the other one and the log are enough (docs/decisions/0004).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from quorker.core.errors import CorruptionError
from quorker.core.raft.messages import Forgotten, HardState
from quorker.core.wire.filesystem import SECTOR_BYTES

SLOT_BYTES: Final = SECTOR_BYTES  # one sector: a slot is never mixed from two versions
SLOT_NAMES: Final = ("STATE.0", "STATE.1")

_FORMAT: Final = 1
_MAGIC: Final = b"QKSTATE\n"
_BODY: Final = struct.Struct("<8sHHI16sQQQQQQQQQ")
_PADDING: Final = bytes(SLOT_BYTES - _BODY.size - 4)
_CRC: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Slot:
    """`sealed_*` name the last batch of the log that was durable when this was written, and where it ended."""

    seq: int
    incarnation: int
    hard_state: HardState
    sealed_batch: int
    sealed_index: int
    sealed_segment: int
    sealed_end: int


def encode_slot(slot: Slot, dir_uuid: bytes) -> bytes:
    state = slot.hard_state
    body = _BODY.pack(
        _MAGIC,
        _FORMAT,
        state.forgotten,
        0,
        dir_uuid,
        slot.seq,
        slot.incarnation,
        state.term,
        state.voted_for,
        state.commit_index,
        slot.sealed_batch,
        slot.sealed_index,
        slot.sealed_segment,
        slot.sealed_end,
    )
    return (body := body + _PADDING) + _CRC.pack(zlib.crc32(body))


def decode_slot(data: bytes, dir_uuid: bytes | None) -> Slot | None:
    """None unless these are the exact bytes of a slot of this directory (of any, when `dir_uuid` is None)."""
    if len(data) != SLOT_BYTES or _CRC.pack(zlib.crc32(data[:-4])) != data[-4:]:
        return None
    magic, written_format, forgotten, _, owner, *numbers = _BODY.unpack_from(data)
    if forgotten not in tuple(Forgotten):
        return None
    if magic != _MAGIC or written_format != _FORMAT or owner != (dir_uuid or owner):
        return None
    seq, incarnation, term, voted_for, commit_index, *sealed = numbers
    return Slot(seq, incarnation, HardState(term, voted_for, commit_index, Forgotten(forgotten)), *sealed)


def newest_slot(slots: tuple[Slot | None, Slot | None]) -> Slot:
    """The slot that was written last. Raises CorruptionError when neither can be read: only one may be torn."""
    first, second = slots
    if first is None or second is None:
        found = first or second
        if found is None:
            raise CorruptionError(SLOT_NAMES[0], 0, f"neither it nor {SLOT_NAMES[1]} can be read")
        return found
    return first if first.seq > second.seq else second
