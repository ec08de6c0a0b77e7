"""Notes rare turns of elections, so that a campaign can tell whether it came to them. It judges nothing.

Told of every change of role and of every crash of a member; what is noted is described in `coverage`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Role
from quorker.core.raft.messages import ConfState, NodeId

CAMPAIGNING = (Role.CANDIDATE, Role.PRE_CANDIDATE)


@dataclass(slots=True)
class Elections:
    """`led` are the terms that have or had a leader; `note` is told what happened."""

    led: Container[int]
    note: Callable[[str], None]
    _candidates: dict[int, int] = field(default_factory=dict[int, int])
    _roles: dict[NodeId, tuple[Role, int]] = field(default_factory=dict[NodeId, tuple[Role, int]])

    def on_role(self, node_id: NodeId, role: Role, term: int, raft: Raft, *, is_stalled: bool) -> None:
        """`is_stalled`: its disk is, which is another reason to give up leading."""
        before, term_before = self._roles.get(node_id, (Role.FOLLOWER, 0))
        self._roles[node_id] = (role, term)
        if role is Role.CANDIDATE:
            self._candidates[term] = self._candidates.get(term, 0) + 1
        if before is Role.CANDIDATE and role in CAMPAIGNING:
            self._on_fruitless(term_before)
        elif before is Role.LEADER and role is not Role.LEADER:
            is_voter = _is_voter(node_id, raft.conf_state)
            if is_stalled:
                self.note("leader gave way with a stalled disk")
            self._on_deposed(raft, of_itself=term == term_before and is_voter and not is_stalled)

    def on_config(self, node_id: NodeId, conf_state: ConfState) -> None:
        """It has a new configuration. Whoever is removed as leader hears of that before it stops leading."""
        role, _ = self._roles.get(node_id, (Role.FOLLOWER, 0))
        if role is Role.LEADER and not _is_voter(node_id, conf_state):
            self.note("leader left the configuration")

    def on_crash(self, node_id: NodeId) -> None:
        self._roles.pop(node_id, None)

    def _on_fruitless(self, term: int) -> None:
        if self._candidates[term] > 1 and term not in self.led:
            self.note("vote split")

    def _on_deposed(self, raft: Raft, *, of_itself: bool) -> None:
        if raft.last_index > raft.commit_index:
            self.note("leader deposed with entries under way")
        if of_itself:
            self.note("leader stepped down without a quorum")


def _is_voter(node_id: NodeId, conf_state: ConfState) -> bool:
    return node_id in conf_state.voters or node_id in conf_state.voters_outgoing
