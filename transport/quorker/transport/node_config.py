"""How one member is configured, and the checks that name what is wrong before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from quorker.core.errors import ConfigurationError
from quorker.transport.tls import TlsPaths

Profile: TypeAlias = Literal["default", "fast"]
NODE_ID_MAX: Final = 2**32 - 1
RECORD_BYTES_MIN: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds. Elections start after `election_ms` to twice that without a leader."""

    election_ms: int
    heartbeat_ms: int
    session_ttl_ms: int
    retransmit_ms: int


TIMINGS: Final[Mapping[Profile, Timing]] = MappingProxyType(
    {
        "default": Timing(election_ms=1_000, heartbeat_ms=100, session_ttl_ms=10_000, retransmit_ms=2_000),
        "fast": Timing(election_ms=400, heartbeat_ms=60, session_ttl_ms=5_000, retransmit_ms=1_000),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One member of one cluster.

    `members` maps node ids to "host:port" and is used once, when the directory is new; afterwards the replicated
    configuration decides and `members` only says where the others are. Empty: this node is the whole cluster.
    `listen` is "host:port"; port 0 takes a free one. `join`: start empty and wait to be added by a leader.
    `record`: write every input of this member's core to this file, of `record_bytes_max` at most, to be replayed.
    `rejoin`: the directory is not what this node left behind, because it was wiped or put back from a copy: take part
    without a vote until all others have told their terms and a majority of them has brought this node up to date.
    `reserve_bytes`: disk space held back, so that a full disk can still be tidied up; 0 for none.
    `low_bytes`: with less disk space than that free, a leader takes no new work.
    """

    data_dir: Path
    node_id: int = 1
    listen: str = "127.0.0.1:0"
    members: Mapping[int, str] = field(default_factory=dict[int, str])
    cluster: str = "default"
    name: str = ""
    secret: bytes | None = None
    tls: TlsPaths | None = None
    insecure_no_auth: bool = False
    profile: Profile = "default"
    join: bool = False
    rejoin: bool = False
    unix_socket: bool = True
    default_timeout: float = 30.0
    segment_bytes: int = 16 << 20
    snapshot_after_bytes: int = 16 << 20
    snapshot_after_entries: int = 20_000
    keep_entries: int = 2_000
    reserve_bytes: int = 32 << 20
    low_bytes: int = 128 << 20
    record: Path | None = None
    record_bytes_max: int = 256 << 20

    @property
    def others_help(self) -> bool:
        """Whether the other members are a majority without this one, and so can bring it up to date."""
        return len(self.members) - 1 > len(self.members) // 2

    @property
    def timing(self) -> Timing:
        return TIMINGS[self.profile]

    def validate(self) -> None:
        """Raise `ConfigurationError` naming the first value that cannot work, its limit and what to do."""
        if not 1 <= self.node_id <= NODE_ID_MAX:
            raise ConfigurationError(
                f"node id {self.node_id} is outside 1..{NODE_ID_MAX}: give each member its own"
            )
        if self.profile not in TIMINGS:
            raise ConfigurationError(f"profile {self.profile!r} is unknown: use one of {', '.join(TIMINGS)}")
        if self.members and self.node_id not in self.members:
            raise ConfigurationError(
                f"node id {self.node_id} is not among the members {sorted(self.members)}: add its address there"
            )
        if len(set(self.members.values())) != len(self.members):
            raise ConfigurationError(f"two members share one address: {dict(sorted(self.members.items()))}")
        if self.rejoin and not self.others_help:
            raise ConfigurationError(
                f"rejoin with {len(self.members) or 1} members: the others must be a majority without this one, "
                "so it takes 3; restore a copy of the data directory instead"
            )
        if not self.cluster or len(self.cluster) > 64:
            raise ConfigurationError(f"cluster name {self.cluster!r} must have 1 to 64 characters")
        if self.record_bytes_max < RECORD_BYTES_MIN:
            raise ConfigurationError(
                f"a recording of {self.record_bytes_max} bytes is too small: allow at least {RECORD_BYTES_MIN}"
            )
        if self.secret is not None and len(self.secret) < 16:
            raise ConfigurationError(f"the secret has {len(self.secret)} bytes: use at least 16 random bytes")
