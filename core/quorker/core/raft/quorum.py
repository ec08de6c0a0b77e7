"""Who has to agree: majorities, and joint majorities, over sets of node ids.

Pure arithmetic. No logs, no messages, no progress: those call this file. Id sets are sorted tuples, so that
nothing here depends on the order of a hash table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from quorker.core.raft.messages import NodeId

UNBOUNDED: Final = (1 << 63) - 1  # what an empty majority has committed: it never holds the other half back


class VoteResult(Enum):
    """How an election stands."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class JointVoters:
    """The voters of a configuration. Both halves must agree while `outgoing` is not empty (§4.3)."""

    incoming: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def is_single(self) -> bool:
        """Whether one node decides alone."""
        return len(self.incoming) == 1 and not self.outgoing

    def ids(self) -> tuple[NodeId, ...]:
        """Every voter of either half, sorted."""
        return id_set(self.incoming + self.outgoing) if self.outgoing else self.incoming

    def __contains__(self, node_id: object) -> bool:
        return node_id in self.incoming or node_id in self.outgoing


def id_set(ids: Iterable[NodeId]) -> tuple[NodeId, ...]:
    """The ids as a set: sorted, each once."""
    return tuple(sorted(dict.fromkeys(ids)))


def committed_index(voters: Sequence[NodeId], acked: Mapping[NodeId, int]) -> int:
    """The highest index that a majority of `voters` has acknowledged; absent voters count as 0."""
    if not voters:
        return UNBOUNDED
    ranked = sorted([acked.get(voter, 0) for voter in voters])
    return ranked[(len(ranked) - 1) // 2]


def joint_committed_index(voters: JointVoters, acked: Mapping[NodeId, int]) -> int:
    """The highest index that both halves have committed."""
    incoming = committed_index(voters.incoming, acked)
    if not voters.outgoing:
        return incoming
    return min(incoming, committed_index(voters.outgoing, acked))


def vote_result(voters: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    """How the election stands among `voters`. An empty set has won: it never holds the other half back."""
    needed = len(voters) // 2 + 1 if voters else 0
    granted = sum(votes.get(voter, False) for voter in voters)
    if granted >= needed:
        return VoteResult.WON
    missing = sum(voter not in votes for voter in voters)
    return VoteResult.PENDING if granted + missing >= needed else VoteResult.LOST


def joint_vote_result(voters: JointVoters, votes: Mapping[NodeId, bool]) -> VoteResult:
    """Won if both halves won, lost as soon as one lost."""
    results = (vote_result(voters.incoming, votes), vote_result(voters.outgoing, votes))
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON
