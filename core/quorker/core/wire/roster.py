"""Who may connect as which member: the identities that this node knows, and the mistakes it recognises.

Wrong cluster and wrong node are judged in the handshake itself; here stands what needs memory. The last directory and
incarnation of each member are remembered, so that a second process with the same id, a replaced directory, a copied one
and one that was rolled back are told apart from a member that merely restarted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from quorker.core.raft.messages import NodeId
from quorker.core.wire.handshake import Hello, Party, Reason, Refusal
from quorker.core.wire.requests import Role


def _nothing(_: NodeId) -> Party | None:
    """There is no replicated state to ask."""
    return None


def _ignore(_: str) -> None:
    """Nobody listens for alarms."""


class Roster:
    """The members as this node sees them. `members` None: this node has not been told yet, any id may connect."""

    def __init__(
        self, local: Party, members: Iterable[NodeId] | None, on_alarm: Callable[[str], None] = _ignore
    ) -> None:
        """`on_alarm(text)` is called for each mistake that an operator has to look at."""
        self.local = local
        self._members = None if members is None else sorted(members)
        self._seen: dict[NodeId, Party] = {}
        self._replaced: dict[NodeId, Party] = {}  # in whose place another process came to rejoin
        self._on_alarm = on_alarm
        self.recall: Callable[[NodeId], Party | None] = _nothing  # what the replicated state says now

    def set_members(self, members: Iterable[NodeId]) -> None:
        """The configuration changed. What was known of members that left is forgotten."""
        self._members = sorted(members)
        self._seen = {node: party for node, party in self._seen.items() if node in self._members}

    def remember(self, party: Party) -> None:
        """What the replicated state says of a member; whoever was seen later is known better."""
        seen = self._seen.get(party.node_id)
        if seen is None or seen.incarnation < party.incarnation:
            self._seen[party.node_id] = party

    def forget(self, node: NodeId) -> None:
        """An operator vouches for a new directory of this member."""
        self._seen.pop(node, None)

    def admit(self, hello: Hello) -> Refusal | None:
        """None when this HELLO, whose proof was checked, may come in; then it is remembered."""
        if hello.role is not Role.PEER:
            return None
        return self.admit_member(hello.party)

    def admit_member(self, party: Party) -> Refusal | None:
        """The same for whoever answered where this node dialled."""
        refusal = self._judge(party)
        if refusal is None:
            self._tell_replaced(party)
            self._seen[party.node_id] = party
        elif refusal.reason is not Reason.UNKNOWN_MEMBER:
            self._on_alarm(f"node {party.node_id} was refused: {refusal.reason.value}: {refusal.detail}")
        return refusal

    def _tell_replaced(self, party: Party) -> None:
        """Whoever rejoins takes the place of its former self, which is not let in again."""
        seen = self._seen.get(party.node_id)
        if seen is None or not party.rejoins:
            return
        unlike = _compare(seen, party)
        if unlike is not None:
            self._replaced[party.node_id] = replace(seen, rejoins=False)
            self._on_alarm(f"node {party.node_id} rejoins and was let in although {unlike.detail}")

    def _judge(self, party: Party) -> Refusal | None:
        node = party.node_id
        if node == self.local.node_id:
            return Refusal(
                Reason.DUPLICATE_NODE, f"this process is node {node} itself: give each member its own id"
            )
        if self._members is not None and node not in self._members:
            return Refusal(Reason.UNKNOWN_MEMBER, f"node {node} is not among the members {self._members}")
        if replace(party, rejoins=False) == self._replaced.get(node):
            return Refusal(
                Reason.DUPLICATE_NODE, f"node {node} was replaced by another process, which rejoins"
            )
        seen = self._seen.get(node)
        if seen is None or party.rejoins:
            return None
        if not seen.instance:  # only heard of: maybe more is known by now
            seen = self.recall(node) or seen
        return _compare(seen, party)


def _compare(seen: Party, party: Party) -> Refusal | None:
    node = party.node_id
    if party.dir_uuid != seen.dir_uuid:
        return Refusal(
            Reason.DUPLICATE_NODE,
            f"node {node} was last seen with data directory {seen.dir_uuid.hex()}, this one is {party.dir_uuid.hex()}: "
            "two members share one id, or its directory was replaced",
        )
    if party.incarnation < seen.incarnation:
        return Refusal(
            Reason.ROLLED_BACK,
            f"node {node} was last seen in incarnation {seen.incarnation}, this one is {party.incarnation}: "
            "its data directory was restored from an older copy",
        )
    if party.incarnation == seen.incarnation and seen.instance and party.instance != seen.instance:
        return Refusal(
            Reason.DUPLICATE_NODE,
            f"two processes run as incarnation {party.incarnation} of node {node}: its data directory was copied",
        )
    return None
