"""What the Raft core asks its driver to do: a closed union of frozen records.

A driver drains them in order and obeys four rules, and nothing else is asked of it:

1. `Persist` effects form one FIFO lane. A driver may join several into one write and one fsync. After `seq` is
   durable it performs `then`, in order, and calls `persisted(seq)`, which is cumulative.
2. `Send` may be performed at once, and may be lost, duplicated, delayed or reordered.
3. `Apply` and `InstallState` are performed in order; afterwards the driver calls `applied(index)`.
4. The core is never called from inside the performance of an effect.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from quorker.core.frozen import record
from quorker.core.raft.messages import ConfState, Entry, Forgotten, HardState, Message, NodeId, SnapshotMeta


class Role(Enum):
    """What a member is, right now, in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class DropReason(Enum):
    """Why a proposal or read was refused. It is definite: it was not appended."""

    NO_LEADER = "no leader"
    NOT_LEADER = "not leader"
    TRANSFERRING = "leadership is being transferred"
    TOO_MUCH_UNCOMMITTED = "too many uncommitted bytes"
    NOT_A_MEMBER = "not a member"
    DISK_FAILED = "the disk of this node failed"
    DISK_FULL = "the disk of this node is nearly full"
    CONFIG_PENDING = "a configuration change is under way"
    LEADER_CHANGED = "the leader changed"


@record
class Send:
    to: NodeId
    message: Message


@record
class Persist:
    """Make durable, in this order: truncation, snapshot, entries, hard state. Then release `then`.

    `truncate_from`: every stored entry with index >= it is gone. `snapshot`: the snapshot of that name, whose
    bytes the driver already holds, becomes the base of the log; everything before it, and every entry it
    conflicts with, is gone. `must_sync` is False only when nothing but `commit_index` changed.
    """

    seq: int
    hard_state: HardState | None = None
    truncate_from: int | None = None
    entries: tuple[Entry, ...] = ()
    snapshot: SnapshotMeta | None = None
    must_sync: bool = True
    then: tuple[Send, ...] = ()


@record
class Apply:
    """These entries are committed and durable on this node: give them to the state machine, in order."""

    entries: tuple[Entry, ...]


@record
class InstallState:
    """Replace the state machine by this snapshot, which is durable on this node."""

    snapshot: SnapshotMeta


@record
class ReadReady:
    """The read may be served once `index` is applied."""

    context: int
    index: int


@record
class ReadFailed:
    context: int
    reason: DropReason


@record
class Accepted:
    """The proposal with this context stands at `index` in `term`. It may still be truncated."""

    context: int
    index: int
    term: int


@record
class Dropped:
    """The proposal with this context was not appended, and will not be."""

    context: int
    reason: DropReason
    leader: NodeId


@record
class Truncated:
    """The entries first..last (inclusive) were cut off here. What becomes of their proposals is unknown.

    Another member may still hold them, and a later leader may commit them (figure 8 of the paper).
    """

    first: int
    last: int


@record
class RoleChanged:
    role: Role
    term: int


@record
class LeaderChanged:
    leader: NodeId
    term: int


@record
class ConfigChanged:
    conf_state: ConfState
    index: int


@record
class DiskWentBack:
    """`node`, maybe ourselves, once held a log up to `remembered`, and now one that ends at `found`. For people."""

    node: NodeId
    remembered: int
    found: int


@record
class RejoinChanged:
    """This member has no say because of what it may have forgotten; NOTHING: it has its say again, durably."""

    forgotten: Forgotten


@record
class Fatal:
    """An invariant of our own is broken. The driver stops this node and keeps the evidence."""

    invariant: str
    detail: str


Effect: TypeAlias = (
    Send
    | Persist
    | Apply
    | InstallState
    | ReadReady
    | ReadFailed
    | Accepted
    | Dropped
    | Truncated
    | RoleChanged
    | LeaderChanged
    | ConfigChanged
    | DiskWentBack
    | RejoinChanged
    | Fatal
)
