"""What Raft members say to each other, and the records those messages are made of.

Plain frozen data, no behaviour: bytes on the wire are `quorker.core.wire`, decisions are in the other files
of this package. Every message carries `sender`, `to` and `term`; a `term` of 0 marks a message that is not
bound to a term (a forwarded proposal, a forwarded read). Node ids are positive integers; 0 means "nobody".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

from quorker.core.frozen import record

NodeId: TypeAlias = int
NOBODY: Final[NodeId] = 0


class EntryKind(IntEnum):
    """What the bytes of an entry mean to Raft."""

    NORMAL = 0
    CONFIG = 1  # one change, applied without joint consensus (etcd's ConfChange v1)
    CONFIG_V2 = 2  # a list of changes, joint where needed (etcd's ConfChangeV2)


@record
class Entry:
    """One log record. `data` is opaque to Raft, except for configuration entries."""

    term: int
    index: int
    data: bytes = b""
    kind: EntryKind = EntryKind.NORMAL


class Forgotten(IntEnum):
    """What the disk of a member may have lost of what the member promised. Anything but NOTHING: it rejoins."""

    NOTHING = 0
    ENTRIES = 1  # acknowledged entries; term and vote are intact
    PROMISES = 2  # term and vote as well


@record
class HardState:
    """What must be durable before a promise that rests on it leaves the node."""

    term: int = 0
    voted_for: NodeId = NOBODY
    commit_index: int = 0  # a hint: may lag behind the truth after a restart, never ahead
    forgotten: Forgotten = Forgotten.NOTHING


@record
class ConfState:
    """A cluster configuration. Joint while `voters_outgoing` is not empty. All tuples are sorted."""

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()
    auto_leave: bool = False


@record
class SnapshotMeta:
    """Names a snapshot. Its bytes are moved and kept by the driver; Raft sees only this."""

    index: int = 0
    term: int = 0
    conf_state: ConfState = ConfState()


@record
class AppendEntries:
    sender: NodeId
    to: NodeId
    term: int
    previous_index: int
    previous_term: int
    entries: tuple[Entry, ...]
    commit_index: int
    session: int = 0  # replication session: echoed, so that an ack from an earlier membership never counts
    flight: int = 0  # echoed as well: a rejection is of no use once its flight is over


@record
class AppendResponse:
    """`index` is the last matching index, or the rejected `previous_index` when `rejected`."""

    sender: NodeId
    to: NodeId
    term: int
    index: int
    rejected: bool = False
    hint_index: int = 0  # where the leader should probe next, with the term found there
    hint_term: int = 0
    commit_index: int = 0  # the sender's commit index
    session: int = 0
    rejoin: int = 0  # names the life of a sender that rejoins: then this is not to be counted
    flight: int = 0


@record
class Heartbeat:
    sender: NodeId
    to: NodeId
    term: int
    commit_index: int
    read_round: int = 0  # leader-made, term-scoped counter of ReadIndex rounds; 0 means none
    session: int = 0


@record
class HeartbeatResponse:
    sender: NodeId
    to: NodeId
    term: int
    read_round: int = 0
    session: int = 0
    rejoin: int = 0  # as in AppendResponse


@record
class RequestVote:
    """Asks for a vote, or only whether a vote would be given (`pre_vote`: nothing changes, §9.6)."""

    sender: NodeId
    to: NodeId
    term: int
    last_index: int
    last_term: int
    pre_vote: bool = False
    transfer: bool = False  # the current leader asked for this campaign: leases do not stand against it


@record
class VoteResponse:
    """A rejection for the candidate's log says what is committed: the candidate may hold that without knowing."""

    sender: NodeId
    to: NodeId
    term: int
    granted: bool
    pre_vote: bool = False
    commit_index: int = 0  # 0 means nothing is said
    commit_term: int = 0


@record
class InstallSnapshot:
    """The driver delivers it to Raft at the receiver only when the snapshot's bytes have arrived and verified."""

    sender: NodeId
    to: NodeId
    term: int
    snapshot: SnapshotMeta
    session: int = 0


@record
class TimeoutNow:
    """The leader asks a caught-up follower to campaign at once (§3.10 of the dissertation)."""

    sender: NodeId
    to: NodeId
    term: int


@record
class ForwardTransfer:
    """A follower passes a wish for leadership transfer to `target` on to the leader."""

    sender: NodeId
    to: NodeId
    term: int
    target: NodeId


@record
class ForwardProposal:
    """A follower passes proposals on to the leader (index and term of the entries are not yet set)."""

    sender: NodeId
    to: NodeId
    term: int
    entries: tuple[Entry, ...]


@record
class ForwardRead:
    """A follower asks the leader for a read index; `context` is the asking node's own counter."""

    sender: NodeId
    to: NodeId
    term: int
    context: int


@record
class ReadResponse:
    """The leader's answer to `ForwardRead`."""

    sender: NodeId
    to: NodeId
    term: int
    context: int
    index: int


@record
class RejoinRequest:
    """A member that may have forgotten something asks the others for their terms, and the leader for an index.

    `rejoin` names its life, `last_index` is where its log ends.
    """

    sender: NodeId
    to: NodeId
    term: int
    rejoin: int
    last_index: int


@record
class RejoinResponse:
    """The term of whoever was asked. `index` is not 0: as a leader that a majority of others has confirmed since."""

    sender: NodeId
    to: NodeId
    term: int
    rejoin: int
    index: int = 0


Message: TypeAlias = (
    AppendEntries
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | RequestVote
    | VoteResponse
    | InstallSnapshot
    | TimeoutNow
    | ForwardTransfer
    | ForwardProposal
    | ForwardRead
    | ReadResponse
    | RejoinRequest
    | RejoinResponse
)
