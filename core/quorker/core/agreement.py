"""Whether members that applied the same entries have come to the same: each claims a digest, and all compare.

A claim is a command in the log, so all members hear the same claims in the same order; what one makes of them is its
own affair and no part of the replicated state. Who stops, and with what message, is decided here; nothing is sent here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from quorker.core.jobs.outcome import DigestClaim
from quorker.core.raft.messages import NodeId
from quorker.core.raft.quorum import JointVoters

REMEMBERED: Final = 512  # digests of the newest entries; a claim about an older one is not judged
DISPUTES_MAX: Final = 16  # indices whose claims are kept


@dataclass(frozen=True, slots=True)
class Contradicted:
    """An alarm: members differ in what they have come to at `index`. `claims`: (node, digest) of all heard so far."""

    index: int
    claims: tuple[tuple[NodeId, bytes], ...]

    def __str__(self) -> str:
        told = ", ".join(f"node {node} has {digest.hex()}" for node, digest in self.claims)
        return f"members differ in their state at index {self.index}: {told}"


@dataclass(frozen=True, slots=True)
class Diverged:
    """This member must stop: a majority of the voters came to another digest than `own`, or none can agree (`theirs`
    is empty then)."""

    index: int
    own: bytes
    theirs: bytes

    def __str__(self) -> str:
        came = f"the state of this member at index {self.index} has the digest {self.own.hex()}, "
        if not self.theirs:
            return came + "and no majority of the members has the same"
        return came + f"that of a majority of the members is {self.theirs.hex()}"


@dataclass(slots=True)
class Hearing:
    """What follows from one claim for this member. `report`: it has to say its own digest too."""

    alarm: Contradicted | None = None
    verdict: Diverged | None = None
    report: DigestClaim | None = None


@dataclass(slots=True)
class Agreement:
    """What one member remembers: its own digests by index, and who claimed what."""

    node_id: NodeId
    _own: dict[int, bytes] = field(default_factory=dict[int, bytes])
    _claims: dict[int, dict[NodeId, bytes]] = field(default_factory=dict[int, dict[NodeId, bytes]])
    _alarmed_index: int = 0

    def remember(self, index: int, digest: bytes) -> None:
        """This member has applied `index`, which is above all before it."""
        own = self._own
        own[index] = digest
        if len(own) > REMEMBERED:
            del own[next(iter(own))]

    def begin_anew(self, index: int, digest: bytes) -> None:
        """The state was replaced by that of a snapshot."""
        self._own, self._claims = {index: digest}, {}

    def hear(self, claim: DigestClaim, voters: JointVoters) -> Hearing:
        claims = self._claims_about(claim.at)
        claims[claim.node] = claim.digest
        own = self._own.get(claim.at)
        hearing = Hearing()
        if len({*claims.values(), own or claim.digest}) == 1:
            return hearing
        hearing.alarm = self._alarm(claim.at, own)
        if own is None:
            return hearing
        if self.node_id not in claims:
            hearing.report = DigestClaim(claim.at, self.node_id, own)
        hearing.verdict = _judge(claim.at, own, claims, voters)
        return hearing

    def _alarm(self, index: int, own: bytes | None) -> Contradicted | None:
        """Once for each index."""
        if index <= self._alarmed_index:
            return None
        self._alarmed_index = index
        known = self._claims[index] if own is None else {**self._claims[index], self.node_id: own}
        return Contradicted(index, tuple(sorted(known.items())))

    def _claims_about(self, index: int) -> dict[NodeId, bytes]:
        claims = self._claims.setdefault(index, {})
        if len(self._claims) > DISPUTES_MAX:
            del self._claims[next(iter(self._claims))]
        return claims


def _judge(index: int, own: bytes, claims: dict[NodeId, bytes], voters: JointVoters) -> Diverged | None:
    """Who differs from a majority stops; when there cannot be one any more, everybody does."""
    for digest in dict.fromkeys(claims.values()):
        if _has_majority([node for node, claimed in claims.items() if claimed == digest], voters):
            return None if digest == own else Diverged(index, own, digest)
    undecided = [node for node in voters.ids() if node not in claims]
    return None if undecided else Diverged(index, own, b"")


def _has_majority(nodes: list[NodeId], voters: JointVoters) -> bool:
    halves = [half for half in (voters.incoming, voters.outgoing) if half]
    return all(2 * sum(node in nodes for node in half) > len(half) for half in halves)
