"""What a leader knows about one follower's log, and how fast it may send to it.

A `Progress` is a small state machine (probe, replicate, snapshot) with an in-flight window. It decides neither
what is sent nor when: replication does, and reports here. It holds no term, no role and no configuration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from quorker.core.raft.messages import NodeId
from quorker.core.raft.quorum import JointVoters, VoteResult, joint_committed_index, joint_vote_result


class ProgressState(Enum):
    """How a leader talks to a follower."""

    PROBE = "probe"  # where the logs meet is unknown: one append at a time
    REPLICATE = "replicate"  # pipelined: next_index runs ahead of the acknowledgements
    SNAPSHOT = "snapshot"  # a snapshot is on its way: no appends


class InflightWindow:
    """The appends sent and not yet acknowledged, limited by number and by bytes.

    `max_bytes` 0 means no limit. The byte limit is soft: one append may cross it, or a large one could never go.
    """

    __slots__ = ("_sent", "bytes", "max_bytes", "max_messages")

    def __init__(self, max_messages: int, max_bytes: int = 0) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.bytes = 0
        self._sent: deque[tuple[int, int]] = deque()  # (index of the last entry, bytes)

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def is_full(self) -> bool:
        return len(self._sent) >= self.max_messages or 0 < self.max_bytes <= self.bytes

    def add(self, last_index: int, size: int) -> None:
        """Record an append that ends at `last_index`. Call only when not full, with rising indexes."""
        assert not self.is_full, "an append was sent past the in-flight limit"
        assert not self._sent or self._sent[-1][0] < last_index, "in-flight indexes must rise"
        self._sent.append((last_index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Forget every append that ends at or below `index`."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self.bytes -= sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self.bytes = 0


class Progress:
    """One follower as its leader sees it. Invariant: 0 <= match_index < next_index.

    `match_index`: the log is known to agree up to here. `next_index`: the next entry to send; in SNAPSHOT it
    follows `pending_snapshot`, or match_index if that is more. `sent_commit`: the highest commit index on its
    way. `paused`: wait for an answer before the next append (cleared by a heartbeat response, so that a lost
    append cannot stop the flow).
    `session`: names this stretch of membership; answers that carry another one never count. `flight`: numbers the appends
    from one fall into probing to the next; an answer to an earlier flight may confirm, but not reject. `rejoin`: names the life
    of a follower that rejoins, whose answers never count; 0 for one that has its say. `remembered`: where its log matched
    before it began to rejoin, until it has said where it ends now.
    """

    __slots__ = (
        "flight",
        "inflight",
        "is_learner",
        "match_index",
        "next_index",
        "paused",
        "pending_snapshot",
        "recent_active",
        "rejoin",
        "remembered",
        "sent_commit",
        "session",
        "state",
    )

    def __init__(
        self,
        next_index: int,
        inflight: InflightWindow,
        *,
        match_index: int = 0,
        is_learner: bool = False,
        recent_active: bool = False,
        session: int = 0,
        rejoin: int = 0,
    ) -> None:
        self.match_index = match_index
        self.next_index = next_index
        self.sent_commit = 0
        self.state = ProgressState.PROBE
        self.paused = False
        self.pending_snapshot = 0
        self.recent_active = recent_active
        self.is_learner = is_learner
        self.session = session
        self.rejoin = rejoin
        self.remembered = 0
        self.flight = 0
        self.inflight = inflight

    @property
    def is_paused(self) -> bool:
        """Whether no append may be sent now."""
        return self.paused or self.state is ProgressState.SNAPSHOT

    def with_learner(self, is_learner: bool) -> Progress:
        """The same follower after a promotion or demotion; this object is left as it is."""
        twin = Progress(
            self.next_index,
            self.inflight,
            match_index=self.match_index,
            is_learner=is_learner,
            recent_active=self.recent_active,
            session=self.session,
            rejoin=self.rejoin,
        )
        twin.state, twin.paused = self.state, self.paused
        twin.sent_commit, twin.pending_snapshot = self.sent_commit, self.pending_snapshot
        twin.flight = self.flight
        return twin

    def become_probe(self) -> None:
        """Look for the meeting point from match_index on; after a snapshot, from its end on."""
        base = max(self.match_index, self.pending_snapshot)  # pending_snapshot is 0 outside SNAPSHOT
        self._enter(ProgressState.PROBE, base + 1)
        self.flight += 1
        self.sent_commit = min(self.sent_commit, base)

    def become_replicate(self) -> None:
        """The meeting point is known: pipeline from match_index on."""
        self._enter(ProgressState.REPLICATE, self.match_index + 1)

    def become_snapshot(self, snapshot_index: int) -> None:
        """A snapshot that ends at `snapshot_index` is on its way."""
        self._enter(ProgressState.SNAPSHOT, snapshot_index + 1)
        self.pending_snapshot = self.sent_commit = snapshot_index

    def _enter(self, state: ProgressState, next_index: int) -> None:
        self.state = state
        self.next_index = next_index
        self.paused = False
        self.pending_snapshot = 0
        self.inflight.clear()

    def sent_entries(self, count: int, size: int) -> None:
        """An append with `count` entries of `size` bytes, starting at next_index, was sent."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next_index += count
                self.inflight.add(self.next_index - 1, size)
            self.paused = self.inflight.is_full
        elif self.state is ProgressState.PROBE:
            self.paused = self.paused or count > 0
        else:
            raise AssertionError("an append was sent to a follower that waits for a snapshot")

    def can_bump_commit(self, index: int) -> bool:
        """Whether telling the follower this commit index may move its own."""
        return self.sent_commit < index and self.sent_commit < self.next_index - 1

    def maybe_update(self, index: int) -> bool:
        """The follower acknowledged up to `index`. False if that is old news."""
        if index <= self.match_index:
            return False
        self.match_index = index
        self.next_index = max(self.next_index, index + 1)
        self.paused = False
        return True

    def maybe_decrease(self, rejected: int, hint: int) -> bool:
        """The follower rejected an append after index `rejected`; its log may agree up to `hint`.

        False if the rejection is stale: about an index that was acknowledged since, or not the last probe.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match_index:
                return False
            self.next_index = self.match_index + 1
        elif rejected != self.next_index - 1:
            return False
        else:
            self.next_index = max(min(rejected, hint + 1), self.match_index + 1)
            self.paused = False
        self.sent_commit = min(self.sent_commit, self.next_index - 1)
        return True


ProgressMap: TypeAlias = dict[NodeId, Progress]


@dataclass(frozen=True, slots=True)
class ProgressTemplate:
    """What every follower that enters the configuration at this moment has in common."""

    last_index: int
    max_inflight_messages: int
    max_inflight_bytes: int = 0
    session: int = 0

    def new(self, *, is_learner: bool = False) -> Progress:
        """A follower never heard of. It counts as active, or the next quorum check would go against us."""
        return Progress(
            max(self.last_index, 1),
            InflightWindow(self.max_inflight_messages, self.max_inflight_bytes),
            is_learner=is_learner,
            recent_active=True,
            session=self.session,
        )


def committed(voters: JointVoters, progress: Mapping[NodeId, Progress]) -> int:
    """The highest index that the voters' acknowledgements commit."""
    counted = {node_id: 0 if known.rejoin else known.match_index for node_id, known in progress.items()}
    return joint_committed_index(voters, counted)


def quorum_active(voters: JointVoters, progress: Mapping[NodeId, Progress]) -> bool:
    """Whether a quorum of voters was heard from since `recent_active` was last cleared."""
    active = {
        node_id: known.recent_active and not known.rejoin
        for node_id, known in progress.items()
        if not known.is_learner
    }
    return joint_vote_result(voters, active) is VoteResult.WON
