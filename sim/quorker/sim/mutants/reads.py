"""Bugs of linearizable reads: answers without proof that the leader still leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from quorker.core.raft import reads
from quorker.core.raft.config import RaftConfig
from quorker.core.raft.effects import ReadReady
from quorker.core.raft.messages import NOBODY
from quorker.core.raft.roles import Leader
from quorker.core.raft.state import RaftState
from quorker.sim.mutants.cases import forwarded_reads, reading
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.world.host import Host

STALE: Final = ("linearizable read",)


@bug(
    "A leader answers without asking whether it still leads.",
    known="MicroRaft before 0.6, d-engine 381",
    oracles=STALE,
    budget=60,
    case=reading,
)
def read_without_a_round(patch: Patch) -> None:
    patch.replace(RaftState, "decides_alone", property(always(True)))


@bug(
    "A new leader answers before it knows what its predecessor had committed.",
    known="etcd 7331",
    oracles=STALE,
    budget=60,
    case=reading,
)
def read_before_own_term_commit(patch: Patch) -> None:
    patch.replace(RaftState, "has_own_term_commit", property(always(True)))


@bug(
    "A follower answers by itself.",
    known="Hangfire.Raft",
    oracles=STALE,
    budget=150,
)
def followers_answer_reads(patch: Patch) -> None:
    def request(raft: RaftState, context: int) -> None:
        if raft.leader not in (NOBODY, raft.node_id):
            raft.effects.append(ReadReady(context, raft.commit_index))
        else:
            ask(raft, context)

    ask = patch.replace(reads, "request", request)


@bug(
    "Any sign of life confirms all reads that wait, also one that was sent before they came.",
    known="etcd 20418",
    oracles=STALE,
    budget=300,
    case=reading,
)
def old_answers_confirm_new_reads(patch: Patch) -> None:
    def on_acknowledged(raft: RaftState, leader: Leader, peer: int, _: int) -> None:
        confirm(raft, leader, peer, leader.reads.newest)

    confirm = patch.replace(reads, "on_acknowledged", on_acknowledged)


@bug(
    "A leader trusts that nobody else can lead yet, by clocks that stop and run differently.",
    known="yugabyte 16, TiKV 964, hashicorp/raft 108",
    oracles=STALE,
    budget=30,
    case=reading,
)
def reads_rest_on_clocks(patch: Patch) -> None:
    def trusting(self: Host) -> RaftConfig:
        return replace(configure(self), lease_reads=True, check_quorum=True)

    configure: Callable[[Host], RaftConfig] = patch.replace(Host, "raft_config", trusting)


@bug(
    "A member that restarts numbers its reads anew, and takes answers to its former life for its own.",
    known="this core, directed runs",
    oracles=STALE,
    budget=60,
    case=forwarded_reads,
)
def reads_are_numbered_anew(patch: Patch) -> None:
    def forgetful(self: Host) -> RaftConfig:
        return replace(configure(self), incarnation=0)

    configure: Callable[[Host], RaftConfig] = patch.replace(Host, "raft_config", forgetful)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
