"""Bugs of the marks of a member: a term that goes back, a commit index that runs ahead of what a leader committed."""

from __future__ import annotations

from typing import Final

from quorker.core.raft import roles
from quorker.core.raft.messages import NodeId
from quorker.core.raft.roles import Candidate, Follower
from quorker.core.raft.state import RaftState
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in


@bug(
    "A follower that hears of a commit commits all it has.",
    known="Raft 5.3: the minimum of the leader's commit index and the last new entry",
    oracles=("only leaders commit",),
    budget=60,
)
def followers_commit_all_they_have(patch: Patch) -> None:
    def commit_to(raft: RaftState, index: int) -> None:
        commit(raft, raft.last_index if isinstance(raft.acting_as, Follower) else index)

    commit = patch.replace(RaftState, "commit_to", commit_to)


@bug(
    "A member commits one entry more than it may.",
    oracles=("commit within log", "only leaders commit"),
    budget=60,
)
def one_too_many_is_committed(patch: Patch) -> None:
    def commit_to(raft: RaftState, index: int) -> None:
        commit(raft, index + 1)

    commit = patch.replace(RaftState, "commit_to", commit_to)


@bug(
    "A candidate that is not elected takes its term back.",
    oracles=("monotonic term",),
    budget=60,
)
def lost_elections_do_not_count(patch: Patch) -> None:
    def become_follower(raft: RaftState, term: int, leader: NodeId) -> None:
        lost = isinstance(raft.acting_as, Candidate) and term == raft.term
        become(raft, term, leader)
        if lost:
            raft.term -= 1

    become = patch.replace(roles, "become_follower", become_follower)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
