"""Who a data directory belongs to: the bytes of its IDENT file, and the questions asked of them at every start.

Written once, when the directory is made. What changes (the incarnation) stands in the state slots.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from quorker.core.errors import ConfigurationError, CorruptionError, IdentityMismatch

IDENT: Final = "IDENT"
FORMAT: Final = 1
CLUSTER_ID_BYTES: Final = 16
DIR_UUID_BYTES: Final = 16
IDENT_BYTES: Final = 64

_MAGIC: Final = b"QKIDENT\n"
_BODY: Final = struct.Struct("<8sHHI16sQ16sI")
_CRC: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Identity:
    """`cluster_id` and `dir_uuid` are 16 bytes. `incarnation` counts the times the directory was opened.

    `restore_epoch` (0..255) counts restores from a backup and makes tokens of a restored cluster larger than any before.
    """

    cluster_id: bytes
    node_id: int
    dir_uuid: bytes = bytes(DIR_UUID_BYTES)
    incarnation: int = 0
    restore_epoch: int = 0

    def __post_init__(self) -> None:
        if len(self.cluster_id) != CLUSTER_ID_BYTES or len(self.dir_uuid) != DIR_UUID_BYTES:
            raise ConfigurationError("cluster_id and dir_uuid must have 16 bytes each")
        if not 1 <= self.node_id < 1 << 63:
            raise ConfigurationError(f"node id {self.node_id} must be a positive 63-bit number")
        if not 0 <= self.restore_epoch <= 255:
            raise ConfigurationError(f"restore epoch {self.restore_epoch} must be 0 to 255")


def encode_identity(identity: Identity) -> bytes:
    """The IDENT file. The incarnation is not in it."""
    body = _BODY.pack(
        _MAGIC,
        FORMAT,
        0,
        identity.restore_epoch,
        identity.cluster_id,
        identity.node_id,
        identity.dir_uuid,
        0,
    )
    return body + _CRC.pack(zlib.crc32(body))


def decode_identity(data: bytes, path: str) -> Identity:
    """Raises CorruptionError, or ConfigurationError when a newer version wrote it. Incarnation is 0."""
    if len(data) != IDENT_BYTES:
        raise CorruptionError(path, len(data), f"has {len(data)} bytes instead of {IDENT_BYTES}")
    body, crc = data[: _BODY.size], data[_BODY.size :]
    if _CRC.pack(zlib.crc32(body)) != crc:
        raise CorruptionError(path, 0, "its checksum does not match")
    magic, written_format, _, epoch, cluster_id, node_id, dir_uuid, _ = _BODY.unpack(body)
    if magic != _MAGIC:
        raise CorruptionError(path, 0, "is not an identity file")
    if written_format != FORMAT:
        raise ConfigurationError(f"{path} has format {written_format}; this version reads format {FORMAT}")
    return Identity(cluster_id, node_id, dir_uuid, 0, epoch)


def require_same_owner(found: Identity, expected: Identity, directory: str) -> None:
    """Raise IdentityMismatch unless the directory belongs to the cluster and node that were configured."""
    if found.cluster_id != expected.cluster_id:
        raise IdentityMismatch(
            f"{directory} belongs to cluster {found.cluster_id.hex()}, not to {expected.cluster_id.hex()}: "
            "point the node to its own directory, or correct the cluster"
        )
    if found.node_id != expected.node_id:
        raise IdentityMismatch(
            f"{directory} belongs to node {found.node_id}, but this is node {expected.node_id}: "
            "a directory is never moved to another node id"
        )
