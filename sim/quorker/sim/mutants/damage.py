"""Bugs of members whose disks lost what was synced: until they have it again, nobody may count what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from quorker.core.raft import core, rejoin
from quorker.core.raft.messages import RequestVote
from quorker.core.raft.state import RaftState
from quorker.sim.mutants.cases import damaged
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.oracles import checks

TWICE: Final = ("one vote", "leader completeness", "election safety")


@bug(
    "A member that rejoins votes.",
    known="seventeen implementations in a survey of rejoining members; Viewstamped Replication 4.3",
    oracles=("no say",),
    budget=10,
    case=damaged,
)
def votes_while_it_rejoins(patch: Patch) -> None:
    def on_request_vote(raft: RaftState, message: RequestVote) -> None:
        waits, raft.rejoining = raft.rejoining, None
        judge(raft, message)
        raft.rejoining = waits

    judge: Callable[[RaftState, Any], None] = patch.replace_item(core.HANDLERS, RequestVote, on_request_vote)


@bug(
    "The same, while nobody listens to members that rejoin: what comes of it has to show.",
    oracles=TWICE,
    budget=200,
    case=damaged,
)
def votes_while_it_rejoins_unwatched(patch: Patch) -> None:
    votes_while_it_rejoins.plant(patch)
    patch.replace(checks, "_has_a_say", always(False))


@bug(
    "A member has its say again as soon as it has started, whatever it still lacks.",
    known="wiped disks that come back under their old identity",
    oracles=(*TWICE, "durability"),
    budget=200,
    case=damaged,
)
def has_its_say_at_once(patch: Patch) -> None:
    patch.replace(rejoin, "_is_complete", always(True))


@bug(
    "A member that rejoins does not mark its answers: they are counted like those of its former life.",
    oracles=("no say",),
    budget=10,
    case=damaged,
)
def marks_no_answer(patch: Patch) -> None:
    patch.replace(RaftState, "rejoin_name", 0)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
