"""The name of a snapshot as bytes: shared by the log, which remembers snapshots, and the snapshot files themselves."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from quorker.core.raft.messages import ConfState, SnapshotMeta

SHA256_BYTES: Final = 32
_FIXED: Final = struct.Struct("<QQQ32sHHHHI")  # index, term, size, digest, four counts, auto_leave


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A snapshot that is durable here. `size` and `sha256` are of its chunks, joined.

    `installed`: it came from a leader and took the place of the log. Otherwise this only remembers that it exists.
    """

    meta: SnapshotMeta
    size: int
    sha256: bytes
    installed: bool = False


def encode_snapshot_record(record: SnapshotRecord) -> bytes:
    members = record.meta.conf_state
    groups = (members.voters, members.learners, members.voters_outgoing, members.learners_next)
    counts = [len(group) for group in groups]
    ids = [node_id for group in groups for node_id in group]
    fixed = _FIXED.pack(
        record.meta.index, record.meta.term, record.size, record.sha256, *counts, members.auto_leave
    )
    return fixed + struct.pack(f"<{len(ids)}Q", *ids)


def decode_snapshot_record(data: bytes, installed: bool = False) -> SnapshotRecord | None:
    """None when these bytes are not a snapshot's name."""
    if len(data) < _FIXED.size:
        return None
    index, term, size, sha256, *counts, auto_leave = _FIXED.unpack_from(data)
    if len(data) != _FIXED.size + 8 * sum(counts) or auto_leave > 1:
        return None
    ids = struct.unpack_from(f"<{sum(counts)}Q", data, _FIXED.size)
    groups: list[tuple[int, ...]] = []
    for count in counts:
        groups.append(ids[:count])
        ids = ids[count:]
    members = ConfState(groups[0], groups[1], groups[2], groups[3], bool(auto_leave))
    return SnapshotRecord(SnapshotMeta(index, term, members), size, sha256, installed)
