"""What a member is told once: its settings, and what its disk held when it started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorker.core.errors import ConfigurationError
from quorker.core.raft.log import are_consecutive
from quorker.core.raft.messages import Entry, HardState, NodeId, SnapshotMeta

DURATION_MAX: Final = 1 << 40
BYTES_MAX: Final = 1 << 62
NO_PROMISES: Final = HardState()
NO_SNAPSHOT: Final = SnapshotMeta()


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Settings of one member. Durations are in the units of `now`, sizes in bytes of entry data.

    `incarnation`: different in each life of this member (the driver counts its starts durably), so that an answer to
    a former life is not taken for one to this. `lease_reads`: answer reads without asking a quorum, trusting that
    everyone's clock runs alike; a leader that was just cut off may then answer with old data for an election timeout.
    `join_appends`: appends that become due between two drains leave as one message per peer.
    `persist_commit`: write the commit index whenever it moves, not only along with something else.
    `apply_unstable`, `early_vote_requests`: offer committed entries before they are durable here; ask for votes
    before our own is. Both are off because they are unsafe with our drivers; they exist to compare ourselves with
    transcripts of an implementation that does so.
    """

    node_id: NodeId
    election_timeout: int = 10
    heartbeat_interval: int = 1
    seed: int = 0
    incarnation: int = 0
    pre_vote: bool = True
    check_quorum: bool = True
    max_append_bytes: int = 1 << 20  # 0: one entry per append
    max_inflight_messages: int = 64
    max_inflight_bytes: int = 8 << 20  # 0: no limit
    max_uncommitted_bytes: int = 32 << 20  # 0: no limit
    max_committed_bytes_per_apply: int = 4 << 20  # over all unfinished Apply effects; 0: no limit
    disk_stall_timeout: int = 0  # 0: one election timeout
    lease_reads: bool = False
    disable_proposal_forwarding: bool = False
    disable_config_validation: bool = False
    step_down_on_removal: bool = True
    join_appends: bool = True
    persist_commit: bool = False
    apply_unstable: bool = False
    early_vote_requests: bool = False

    def validate(self) -> None:
        """Raise ConfigurationError, naming the setting, if this cannot work."""
        _require(self.node_id >= 1, f"node_id {self.node_id}: node ids start at 1")
        for name in ("election_timeout", "heartbeat_interval", "disk_stall_timeout"):
            low = 0 if name == "disk_stall_timeout" else 1
            value: int = getattr(self, name)
            _require(low <= value <= DURATION_MAX, f"{name} {value}: must be {low} to {DURATION_MAX}")
        _require(
            self.election_timeout > self.heartbeat_interval,
            f"election_timeout {self.election_timeout}: must be above heartbeat_interval {self.heartbeat_interval}",
        )
        self._validate_sizes()
        _require(self.check_quorum or not self.lease_reads, "lease_reads needs check_quorum")

    def _validate_sizes(self) -> None:
        for name in (
            "max_append_bytes",
            "max_inflight_bytes",
            "max_uncommitted_bytes",
            "max_committed_bytes_per_apply",
        ):
            value: int = getattr(self, name)
            _require(0 <= value <= BYTES_MAX, f"{name} {value}: must be 0 to {BYTES_MAX}")
        _require(self.max_inflight_messages >= 1, "max_inflight_messages: must be at least 1")
        _require(
            self.max_inflight_bytes == 0 or self.max_inflight_bytes >= self.max_append_bytes,
            f"max_inflight_bytes {self.max_inflight_bytes}: must hold an append of max_append_bytes",
        )

    @property
    def stall_timeout(self) -> int:
        """How old the oldest unacknowledged write may get before this node gives up leading."""
        return self.disk_stall_timeout or self.election_timeout


@dataclass(frozen=True, slots=True)
class DurableState:
    """What recovery read from this member's disk. `entries` follow `snapshot.index` without a gap.

    `applied_index`: how far the state machine is restored already; 0 stands for `snapshot.index`.
    """

    hard_state: HardState = NO_PROMISES
    snapshot: SnapshotMeta = NO_SNAPSHOT
    entries: tuple[Entry, ...] = ()
    applied_index: int = 0

    def flaw(self) -> str:
        """Why no member can have left this behind, so that promises it made may be lost; empty if one can."""
        base, term = self.snapshot, self.hard_state.term
        if not are_consecutive(self.entries, base.index, base.term, term):
            return f"the log does not follow from snapshot {base.index} to term {term}"
        last = base.index + len(self.entries)
        if self.applied_index > last:
            return f"the state machine is at {self.applied_index}, the log ends at {last}"
        return ""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigurationError(message)
