"""Messages as a transcript shows them: one flat form for what peers, and a node's own disk and state machine, say.

Only the notation is here. Peers exchange `quorker.core.raft.messages`; the flat form is never sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    Entry,
    ForwardProposal,
    ForwardRead,
    ForwardTransfer,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    NodeId,
    ReadResponse,
    RejoinRequest,
    RejoinResponse,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
    VoteResponse,
)
from quorker.sim.transcript.format import format_entry, format_snapshot

APPEND_THREAD: Final = "AppendThread"
APPLY_THREAD: Final = "ApplyThread"


@dataclass(frozen=True, slots=True)
class Wire:
    """A message in etcd's flat form; `sender` and `to` are node ids in hexadecimal, or a local thread."""

    sender: str
    to: str
    kind: str
    term: int = 0
    log_term: int = 0
    index: int = 0
    rejected: bool = False
    hint: int = 0
    commit: int = 0
    vote: int = 0
    entries: tuple[Entry, ...] = ()
    snapshot: SnapshotMeta | None = None
    responses: tuple[Wire, ...] = ()


def format_wire(wire: Wire, indent: str = "") -> str:
    """`1->2 MsgApp Term:1 Log:1/10 Commit:10 Entries:[...]`, without a final line break."""
    parts = [
        f"{indent}{wire.sender}->{wire.to} {wire.kind} Term:{wire.term} Log:{wire.log_term}/{wire.index}"
    ]
    if wire.rejected:
        parts.append(f" Rejected (Hint: {wire.hint})")
    if wire.commit:
        parts.append(f" Commit:{wire.commit}")
    if wire.vote:
        parts.append(f" Vote:{wire.vote}")
    parts.append(_format_entries(wire.entries, indent))
    if wire.snapshot is not None:
        parts.append(f"\n{indent}  Snapshot: {format_snapshot(wire.snapshot)}")
    if wire.responses:
        nested = "".join("\n" + format_wire(response, indent + "  ") for response in wire.responses)
        parts.append(f" Responses:[{nested}\n{indent}]")
    return "".join(parts)


def _format_entries(entries: tuple[Entry, ...], indent: str) -> str:
    if len(entries) <= 1:
        return "".join(f" Entries:[{format_entry(entry)}]" for entry in entries)
    listed = "".join(f"\n{indent}  {format_entry(entry)}" for entry in entries)
    return f" Entries:[{listed}\n{indent}]"


def format_message(message: Message) -> str:
    return format_wire(wire_of(message))


def wire_of(message: Message) -> Wire:
    """The flat form. What etcd does not have (sessions, the sender's commit index in an answer) is not shown."""
    sender, to, term = f"{message.sender:x}", f"{message.to:x}", message.term
    match message:
        case AppendEntries(
            previous_index=index, previous_term=log_term, entries=entries, commit_index=commit
        ):
            return Wire(sender, to, "MsgApp", term, log_term, index, commit=commit, entries=entries)
        case AppendResponse(index=index, rejected=rejected, hint_index=hint, hint_term=log_term):
            return Wire(sender, to, "MsgAppResp", term, log_term, index, rejected, hint)
        case Heartbeat(commit_index=commit):
            return Wire(sender, to, "MsgHeartbeat", term, commit=commit)
        case HeartbeatResponse():
            return Wire(sender, to, "MsgHeartbeatResp", term)
        case RequestVote(last_index=index, last_term=log_term, pre_vote=pre_vote):
            return Wire(sender, to, "MsgPreVote" if pre_vote else "MsgVote", term, log_term, index)
        case VoteResponse(granted=granted, pre_vote=pre_vote):
            kind = "MsgPreVoteResp" if pre_vote else "MsgVoteResp"
            return Wire(sender, to, kind, term, rejected=not granted)
        case InstallSnapshot(snapshot=snapshot):
            return Wire(sender, to, "MsgSnap", term, snapshot=snapshot)
        case TimeoutNow():
            return Wire(sender, to, "MsgTimeoutNow", term)
        case ForwardTransfer() | ForwardProposal() | ForwardRead() | ReadResponse():
            return _wire_of_forwarded(message)
        case RejoinRequest() | RejoinResponse():
            raise AssertionError(f"no transcript has a member that rejoins: {message}")
        case _ as never:
            assert_never(never)


def _wire_of_forwarded(message: ForwardTransfer | ForwardProposal | ForwardRead | ReadResponse) -> Wire:
    sender, to, term = f"{message.sender:x}", f"{message.to:x}", message.term
    match message:
        case ForwardTransfer(target=target):  # etcd passes it on in the name of the target
            return Wire(f"{target:x}", to, "MsgTransferLeader", term)
        case ForwardProposal(entries=entries):
            return Wire(sender, to, "MsgProp", term, entries=entries)
        case ForwardRead(context=context):
            return Wire(sender, to, "MsgReadIndex", term, entries=(_context_entry(context),))
        case ReadResponse(context=context, index=index):
            entries = (_context_entry(context),)
            return Wire(sender, to, "MsgReadIndexResp", term, 0, index, entries=entries)


def _context_entry(context: int) -> Entry:
    return Entry(0, 0, str(context).encode())


def append_wire(
    node_id: NodeId, hard_state: HardState | None, entries: tuple[Entry, ...], snapshot: SnapshotMeta | None
) -> Wire:
    """What a node asks of its disk; `hard_state` only if it changed."""
    written = hard_state or HardState()
    return Wire(
        f"{node_id:x}",
        APPEND_THREAD,
        "MsgStorageAppend",
        written.term,
        commit=written.commit_index,
        vote=written.voted_for,
        entries=entries,
        snapshot=snapshot,
    )


def apply_wire(node_id: NodeId, entries: tuple[Entry, ...], *responses: Wire) -> Wire:
    """What a node asks of its state machine."""
    return Wire(f"{node_id:x}", APPLY_THREAD, "MsgStorageApply", entries=entries, responses=responses)
