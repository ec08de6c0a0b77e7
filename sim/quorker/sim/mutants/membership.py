"""Bugs of membership: how many changes at once, who counts meanwhile, and what a member knows about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from quorker.core.raft import core, election, membership, progress, quorum, roles
from quorker.core.raft.messages import InstallSnapshot
from quorker.core.raft.quorum import JointVoters, VoteResult
from quorker.core.raft.roles import Leader
from quorker.core.raft.state import RaftState
from quorker.sim.mutants.cases import churning, swapping
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.mutants.staged import exchanging_forgetful, exchanging_late, exchanging_unheard

ONE_CHANGE: Final = "one change at a time [R10]"
SPLIT: Final = (
    "elected by majorities [R10]",
    "election safety",
    "leader completeness",
    "state-machine safety",
    "invariant",
)


@bug(
    "Several changes may be on their way at once.",
    known="Raft 4.1",
    oracles=(ONE_CHANGE,),
    budget=30,
    case=churning,
)
def several_config_changes_at_once(patch: Patch) -> None:
    patch.replace(membership, "must_wait", always(False))


@bug(
    "A new leader does not assume that a change of its predecessor is on its way.",
    known="Ongaro in 2015, copycat 23, braft 182, openraft 2051",
    oracles=(ONE_CHANGE, *SPLIT),
    budget=60,
    case=churning,
)
def new_leaders_assume_nothing_pending(patch: Patch) -> None:
    def become_leader(raft: RaftState) -> Leader:
        leader: Leader = take_over(raft)
        leader.pending_config_index = 0
        return leader

    take_over = patch.replace(roles, "become_leader", become_leader)


@bug(
    "A member campaigns in a membership that it knows to be out of date.",
    known="etcd 7625, valkey 3926",
    oracles=SPLIT,
    budget=30,
    case=exchanging_late,
)
def campaigns_over_unapplied_changes(patch: Patch) -> None:
    patch.replace(membership, "has_unapplied_change", always(False))


@bug(
    "In a joint configuration the new voters alone commit.",
    known="Raft 4.3",
    oracles=("commit on durable majority",),
    budget=60,
    case=churning,
)
def new_voters_commit_alone(patch: Patch) -> None:
    def committed(voters: JointVoters, acked: Mapping[int, int]) -> int:
        return quorum.committed_index(voters.incoming, acked)

    patch.replace(progress, "joint_committed_index", committed)


@bug(
    "In a joint configuration the new voters alone elect.",
    known="Raft 4.3",
    oracles=SPLIT,
    budget=60,
    case=exchanging_unheard,
)
def new_voters_elect_alone(patch: Patch) -> None:
    def result(voters: JointVoters, votes: Mapping[int, bool]) -> VoteResult:
        return quorum.vote_result(voters.incoming, votes)

    patch.replace(election, "joint_vote_result", result)


@bug(
    "A member that was rejected does not learn what its voters know to be committed.",
    known="this core: an even number of voters waited for ever",
    oracles=("liveness",),
    budget=30,
    case=swapping,
)
def rejected_candidates_learn_nothing(patch: Patch) -> None:
    patch.replace(election, "_learn_commit", always(None))


@bug(
    "A snapshot that does not name its receiver is ignored, so that a new member never gets in.",
    known="this core, simulator seed 5",
    oracles=("liveness", "event budget"),
    budget=30,
    case=churning,
)
def snapshots_must_name_their_receiver(patch: Patch) -> None:
    def on_install_snapshot(raft: RaftState, message: InstallSnapshot) -> None:
        named = message.snapshot.conf_state
        if raft.node_id in (*named.voters, *named.learners, *named.voters_outgoing):
            install(raft, message)

    install = patch.replace_item(core.HANDLERS, InstallSnapshot, on_install_snapshot)


@bug(
    "A member keeps its old configuration when it takes over a snapshot.",
    known="matrixone 23281, etcd 7856",
    oracles=(
        "apply only committed",
        "commit on durable majority",
        "leader is a voter",
        "liveness",
        "event budget",
        *SPLIT,
    ),
    budget=30,
    case=churning,
)
def snapshots_leave_the_configuration_alone(patch: Patch) -> None:
    def use_members(self: RaftState, members: Any, index: int) -> None:
        if self.installing is None:
            use(self, members, index)

    use = patch.replace(RaftState, "use_members", use_members)


@bug(
    "After a restart, a member does not see that its log proves older changes to be committed.",
    known="this core, random schedules",
    oracles=SPLIT,
    budget=100,
    case=exchanging_forgetful,
)
def committed_changes_are_forgotten(patch: Patch) -> None:
    patch.replace(membership, "proven_commit", always(0))


@bug(
    "A joint configuration that should end by itself does not.",
    known="etcd 12359",
    oracles=("liveness",),
    budget=150,
    case=churning,
)
def joint_configurations_stay(patch: Patch) -> None:
    patch.replace(membership, "leave_joint_if_due", always(None))


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
