"""Bugs of answers to queries: older than they say, than their session has seen, or than what was acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from quorker.core.freshness import Freshness
from quorker.sim.mutants.cases import asking, roaming
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in
from quorker.sim.runs.replica_node import ReplicaNode
from quorker.sim.world.line import Line, Query

TOO_NEW: Final = ("as new as it says [C4]",)


@bug(
    "The age counts from the last contact with a leader: that may be deposed, late, or have more than this member.",
    known="this node, before it asked",
    oracles=TOO_NEW,
    budget=60,
    case=asking,
)
def age_since_the_last_contact(patch: Patch) -> None:
    def age_ms(node: ReplicaNode) -> int:
        raft = node.replica.raft
        return max(0, node.clock.monotonic_ms(node.world.kernel.now) - raft.last_leader_contact)

    patch.replace(ReplicaNode, "age_ms", age_ms)


@bug(
    "Whoever believes to lead says that it knows the newest there is, also behind a partition.",
    known="this node, before it asked",
    oracles=TOO_NEW,
    budget=60,
    case=asking,
)
def leaders_are_always_new(patch: Patch) -> None:
    def age_ms(node: ReplicaNode) -> int:
        return 0 if node.replica.is_leader else honest(node)

    honest: Callable[[ReplicaNode], int] = patch.replace(ReplicaNode, "age_ms", age_ms)


@bug(
    "Whenever a read is confirmed, the age counts from the newest that was asked for.",
    oracles=TOO_NEW,
    budget=60,
    case=asking,
)
def age_since_any_question(patch: Patch) -> None:
    def on_confirmed(freshness: Freshness, context: int, index: int, reached: int) -> None:
        confirm(freshness, context, index, reached)
        freshness._proven_ms = freshness._last_asked_ms  # pyright: ignore[reportPrivateUsage]  # the bug

    confirm = patch.replace(Freshness, "on_confirmed", on_confirmed)


@bug(
    "The age stands still while no read is confirmed.",
    oracles=TOO_NEW,
    budget=60,
    case=asking,
)
def age_stands_still(patch: Patch) -> None:
    def age_ms(freshness: Freshness, reached: int, now_ms: int) -> int:
        return min(grown(freshness, reached, now_ms), freshness.refresh_ms)

    grown: Callable[[Freshness, int, int], int] = patch.replace(Freshness, "age_ms", age_ms)


@bug(
    "A confirmed read counts before the state has come to its index.",
    oracles=TOO_NEW,
    budget=100,
    case=asking,
)
def age_of_what_is_not_applied(patch: Patch) -> None:
    def age_ms(freshness: Freshness, _: int, now_ms: int) -> int:
        return grown(freshness, 1 << 62, now_ms)

    grown: Callable[[Freshness, int, int], int] = patch.replace(Freshness, "age_ms", age_ms)


@bug(
    "A member answers before it has what this session has seen elsewhere.",
    oracles=("reads never go back [C4]",),
    budget=60,
    case=roaming,
)
def sessions_may_go_back(patch: Patch) -> None:
    def on_query(node: ReplicaNode, line: Line, query: Query) -> None:
        ask(node, line, replace(query, min_index=0))

    ask = patch.replace(ReplicaNode, "on_query", on_query)


@bug(
    "A member answers a linearizable read from its memory.",
    oracles=("linearizable read [C4]",),
    budget=60,
    case=asking,
)
def linearizable_reads_are_local(patch: Patch) -> None:
    def on_query(node: ReplicaNode, line: Line, query: Query) -> None:
        ask(node, line, replace(query, linearizable=False))

    ask = patch.replace(ReplicaNode, "on_query", on_query)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
