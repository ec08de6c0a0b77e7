"""What a member that rejoins remembers: why it has no say, and what it still waits for. Decisions are in `rejoin`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from quorker.core import prng
from quorker.core.raft.config import RaftConfig
from quorker.core.raft.messages import Forgotten, NodeId

_REJOIN: Final = 1  # a purpose of draws
_NAMES: Final = 1 << 62


@dataclass(slots=True)
class Rejoining:
    """`name`: of this life of the member, in all its answers.

    `heard`: who has told its term in this life. `target_term`, `target_index`: what the leader of that term has named
    once it was confirmed; 0 before. `verified_term`, `verified`: up to here the log is known, in this life, to be that of
    the leader of that term. `is_over`: nothing is missing, but the disk does not say so yet.
    """

    forgotten: Forgotten
    name: int
    heard: dict[NodeId, int] = field(default_factory=dict[NodeId, int])
    target_term: int = 0
    target_index: int = 0
    verified_term: int = 0
    verified: int = 0
    is_over: bool = False


def name_of_life(config: RaftConfig) -> int:
    """Never 0, and different in each life of a member, so that an answer to a former life is told from one to this."""
    life = prng.derive(prng.derive(config.seed, config.node_id), config.incarnation)
    return prng.derive(life, _REJOIN) % (_NAMES - 1) + 1
