"""A number for each message: what it is, in which term, about which index. Keys the network's draws and the digest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ForwardProposal,
    ForwardRead,
    ForwardTransfer,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadResponse,
    RejoinRequest,
    RejoinResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)

_ABOUT: Final[dict[type, tuple[int, Callable[[Any], int]]]] = {
    AppendEntries: (1, lambda message: message.previous_index + len(message.entries)),
    AppendResponse: (2, lambda message: message.index << 1 | message.rejected),
    Heartbeat: (3, lambda message: message.read_round),
    HeartbeatResponse: (4, lambda message: message.read_round),
    RequestVote: (5, lambda message: message.last_index << 1 | message.pre_vote),
    VoteResponse: (6, lambda message: message.granted << 1 | message.pre_vote),
    InstallSnapshot: (7, lambda message: message.snapshot.index),
    TimeoutNow: (8, lambda _: 0),
    ForwardTransfer: (9, lambda message: message.target),
    ForwardProposal: (10, lambda message: len(message.entries)),
    ForwardRead: (11, lambda message: message.context),
    ReadResponse: (12, lambda message: message.context),
    RejoinRequest: (13, lambda message: message.rejoin),
    RejoinResponse: (14, lambda message: message.rejoin ^ message.index),
}

NAMES: Final = {kind: of.__name__ for of, (kind, _) in _ABOUT.items()}
KINDS: Final = tuple(kind for kind, _ in _ABOUT.values())
BETWEEN_MEMBERS: Final = 20  # what members say to each other beside Raft


def name_of(message: Any) -> int:
    """Below 2**56: kind, term, and what tells this message from others of its kind and term."""
    kind, about = _ABOUT[type(message)]
    term: int = message.term
    return kind << 50 | (term & 0xFFFF) << 34 | about(message) & 0x3FFFFFFFF


def kind_of(name: int) -> str:
    """What kind of message has this name."""
    return NAMES.get(name >> 50, "a message between members")
