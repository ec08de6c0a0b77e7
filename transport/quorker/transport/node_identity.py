"""Which directory belongs to which member, in the replicated state: so that a wiped, copied or rolled-back one is told.

A member writes its directory's id and incarnation when its session opens; every member seeds its roster from there.
"""

from __future__ import annotations

import re
from typing import Final

from quorker.core.jobs.commands import SetRangeInHash
from quorker.core.jobs.store import JobStore
from quorker.core.raft.messages import NodeId
from quorker.core.wire.handshake import Party, Reason, Refusal
from quorker.core.wire.identity import Identity
from quorker.core.wire.roster import Roster

MEMBERS_KEY: Final = "quorker:members"


def announcement(identity: Identity) -> SetRangeInHash:
    """The command by which a member says which directory it runs from."""
    value = f"{identity.dir_uuid.hex()}:{identity.incarnation}"
    return SetRangeInHash(MEMBERS_KEY, ((str(identity.node_id), value),))


def announced(cluster_id: bytes, store: JobStore) -> dict[NodeId, Party]:
    """Everything that the replicated state knows about members."""
    found: dict[NodeId, Party] = {}
    for name, value in (store.collections.hashes.entries(MEMBERS_KEY) or {}).items():
        directory, _, incarnation = (value or "").partition(":")
        if name.isdecimal() and incarnation.isdecimal():
            found[int(name)] = Party(cluster_id, int(name), bytes.fromhex(directory), int(incarnation))
    return found


def seed_roster(roster: Roster, store: JobStore) -> None:
    """Let the roster know what was announced, but by this member itself."""
    for party in announced(roster.local.cluster_id, store).values():
        if party.node_id != roster.local.node_id:
            roster.remember(party)


class Refusals:
    """Decides when the refusals of others mean that this node must not run."""

    def __init__(self, node_id: NodeId, others: int) -> None:
        self._node_id = node_id
        self._others = others
        self._by_peer: dict[NodeId, Refusal] = {}

    def on_refused(self, peer: NodeId, refusal: Refusal, has_leader: bool) -> Refusal | None:
        """The refusal to end with, or None to keep trying.

        A duplicate or rolled-back directory ends this node at the first word; anything else only when those that
        refuse leave no majority, and this node has never heard of a leader.
        """
        if has_leader:
            return None
        about_us = re.search(rf"\bnode {self._node_id}\b", refusal.detail)
        if refusal.reason in (Reason.DUPLICATE_NODE, Reason.ROLLED_BACK):
            return refusal if about_us else None
        self._by_peer[peer] = refusal
        left = 1 + self._others - len(self._by_peer)
        return refusal if left <= (1 + self._others) // 2 else None

    def on_up(self, peer: NodeId) -> None:
        self._by_peer.pop(peer, None)
