"""Messages, records and commands in plain words, for stories: what a person needs to follow a run, without the bytes.

Nothing here decides or records anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.jobs.commands import COMMAND_TYPES
from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Cancelled, LockGrant, Notice
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    EntryKind,
    ForwardProposal,
    ForwardRead,
    ForwardTransfer,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from quorker.core.wire.records import REFUSALS

_codec: Any = msgpack
COMMANDS_SHOWN: Final = 4
ENTRIES_SHOWN: Final = 3
_LANE: Final = re.compile(r"\b[nc]\d+\b")
_COMMANDS: Final[dict[int, str]] = {each.OP: each.__name__ for each in COMMAND_TYPES}


def lanes_named(text: str) -> list[str]:
    """The members and clients that a text speaks of, each once."""
    return list(dict.fromkeys(_LANE.findall(text)))


def span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}..{last}"


def conf_words(conf_state: ConfState) -> str:
    parts = (
        ("voters", conf_state.voters),
        ("learners", conf_state.learners),
        ("leaving voters", conf_state.voters_outgoing),
        ("learners to be", conf_state.learners_next),
    )
    return ", ".join(f"{name} {' '.join(map(str, members))}" for name, members in parts if members)


def entries_words(entries: Sequence[Entry]) -> str:
    if not entries:
        return "no entries"
    held = [words for entry in entries if (words := entry_words(entry))]
    named = f"entries {span(entries[0].index, entries[-1].index)}"
    return f"{named} ({shortened(held, ENTRIES_SHOWN)})" if held else named


def entry_words(entry: Entry) -> str:
    """What an entry holds, if that can be told: a batch of commands, or a change of members."""
    if entry.kind is not EntryKind.NORMAL:
        return f"{entry.index}: members"
    try:
        _, _, groups = _codec.unpackb(entry.data)
        return f"{entry.index}: {'; '.join(group_words(group) for group in groups)}"
    except REFUSALS:
        return ""  # the first of a term, or whatever else is replicated


def _append(message: AppendEntries) -> str:
    after = f"after {message.previous_index} of term {message.previous_term}"
    return f"{entries_words(message.entries)} {after}, commit {message.commit_index}"


def _append_response(message: AppendResponse) -> str:
    if message.rejected:
        return f"has no match at {message.index}, try {message.hint_index} of term {message.hint_term}"
    return f"has it to {message.index}"


def _round(message: Heartbeat | HeartbeatResponse) -> str:
    return f", read round {message.read_round}" if message.read_round else ""


def _request_vote(message: RequestVote) -> str:
    asks = "would you vote for me" if message.pre_vote else "vote for me"
    return f"{asks}, my log ends at {message.last_index} of term {message.last_term}"


def _vote_response(message: VoteResponse) -> str:
    if message.pre_vote:
        return "would vote for you" if message.granted else "would not vote for you"
    return "votes for you" if message.granted else "does not vote for you"


_SAID: Final[dict[str, Callable[[Any], str]]] = {
    AppendEntries.__name__: _append,
    AppendResponse.__name__: _append_response,
    Heartbeat.__name__: lambda message: f"commit {message.commit_index}{_round(message)}",
    HeartbeatResponse.__name__: lambda message: f"alive{_round(message)}",
    RequestVote.__name__: _request_vote,
    VoteResponse.__name__: _vote_response,
    InstallSnapshot.__name__: lambda message: f"to {message.snapshot.index} of term {message.snapshot.term}",
    TimeoutNow.__name__: lambda _: "campaign at once",
    ForwardTransfer.__name__: lambda message: f"leadership to n{message.target}",
    ForwardProposal.__name__: lambda message: f"{len(message.entries)} entries",
    ForwardRead.__name__: lambda message: f"read {message.context}",
    ReadResponse.__name__: lambda message: f"read {message.context} at {message.index}",
}


def message_words(message: Any) -> str:
    """What one member says to another."""
    said = _SAID.get(type(message).__name__)
    if said is not None:
        return f"{type(message).__name__} of term {message.term}: {said(message)}"
    group = getattr(message, "group", None)
    return type(message).__name__ + (f": {group_words(group)}" if isinstance(group, bytes) else "")


def message_details(message: Any) -> dict[str, Any]:
    """What filters and colours go by."""
    name = type(message).__name__
    if isinstance(message, AppendEntries) and not message.entries:
        name = "AppendEntries (empty)"
    term: int | None = getattr(message, "term", None)
    return {"message": name} if term is None else {"message": name, "term": term}


def group_words(group: bytes) -> str:
    """A group of commands: whose, and what is asked."""
    try:
        session, _, commands = _codec.unpackb(group, strict_map_key=False)
        named = [f"{_COMMANDS.get(wire[0], 'command')} {seq}" for seq, wire in commands]
    except (*REFUSALS, IndexError):
        return f"{len(group)} bytes"  # of a hostile client: whoever reads it will say so
    whose = f"session {session}" if session else _of_no_session(commands)
    return f"{whose}: {shortened(named)}"


def _of_no_session(commands: Sequence[tuple[int, Any]]) -> str:
    """The leader proposes what is due under no session and no number; a client opens its session under a nonce."""
    return "a new session" if any(seq for seq, _ in commands) else "the leader"


def asks(act: str, arguments: tuple[Any, ...]) -> list[tuple[int, int]]:
    """(session, sequence) of what a client asks for on a line; session 0 for the opening of one."""
    if act != "on_submit":
        return []
    try:
        session, _, commands = _codec.unpackb(arguments[1], strict_map_key=False)
        return [(session, seq) for seq, _ in commands]
    except REFUSALS:
        return []


def answered(act: str, arguments: tuple[Any, ...]) -> list[tuple[int, int]]:
    """(session, sequence) of what a member answers on a line."""
    if act == "on_opened":
        return [(0, arguments[0])]
    return [(arguments[0], arguments[1])] if act == "on_reply" else []


def shortened(names: Sequence[str], shown: int = COMMANDS_SHOWN) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def persist_words(record: Persist) -> str:
    """What a write makes durable."""
    parts: list[str] = []
    if record.truncate_from is not None:
        parts.append(f"cut from {record.truncate_from}")
    if record.snapshot is not None:
        parts.append(f"snapshot to {record.snapshot.index}")
    if record.entries:
        parts.append(entries_words(record.entries))
    if record.hard_state is not None:
        state = record.hard_state
        vote = f", vote for n{state.voted_for}" if state.voted_for else ""
        parts.append(f"term {state.term}{vote}, commit {state.commit_index}")
    waiting = f"; {len(record.then)} messages wait for it" if record.then else ""
    return f"write {record.seq}: {', '.join(parts) or 'nothing'}{waiting}"


def reply_words(reply: Any) -> str:
    return "done" if not reply[0] else f"refused, {reply[1]}"


def notice_words(notice: Notice) -> str:
    """What a member tells a client without being asked."""
    match notice.payload:
        case JobGrant() as grant:
            return f"job {grant.job_id} is yours by {grant.token}"
        case LockGrant(resource, token, _):
            return f"lock {resource} is yours by {token}"
        case Cancelled(token, job_id, reason):
            return f"job {job_id} by {token} is cancelled: {reason}"
        case str() as reason:
            return f"the session ends: {reason}"


_ON_A_LINE: Final[Mapping[str, tuple[str, Callable[[tuple[Any, ...]], str]]]] = {
    "on_submit": ("request", lambda given: group_words(given[1])),
    "on_attach": ("attach", lambda given: f"session {given[1]}"),
    "on_opened": ("opened", lambda given: f"session {given[1]}"),
    "on_reply": ("reply", lambda given: f"{reply_words(given[2])} to {given[1]} of session {given[0]}"),
    "on_notice": ("notice", lambda given: notice_words(given[0])),
    "on_refused": ("refused", lambda given: f"{shortened([str(seq) for seq in given[0].seqs])}, try again"),
    "on_lost": ("session lost", lambda given: f"session {given[0]}: {given[1]}"),
    "on_route_changed": ("route changed", lambda _: "there is another leader"),
}


def no_words(_: tuple[Any, ...]) -> str:
    """Of something that nobody has put into words yet."""
    return ""


def line_words(act: str, arguments: tuple[Any, ...]) -> tuple[str, dict[str, Any]]:
    """What one end of a client's line asks of the other: its words and its details."""
    name, words = _ON_A_LINE.get(act, (act, no_words))
    return f"{name}: {words(arguments)}", {"message": name}
