"""Raft's messages as bytes: `kind u8 | length of head u8 | head | rest`.

The head is a flat msgpack array of the message's numbers, in the order of its fields. The rest holds what has no fixed
size: the entries as one flat array `[term, index, kind, data, term, ...]`, or a snapshot's configuration. So the
entries of a batch are encoded once for all followers. Whether a message makes sense is decided in `quorker.core.raft`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, TypeAlias

from quorker.core.errors import ProtocolError
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
    Message,
    ReadResponse,
    RejoinRequest,
    RejoinResponse,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
    VoteResponse,
)
from quorker.core.wire.records import INT_MAX, list_of, pack, unpack, unpack_flat

Data: TypeAlias = bytes | memoryview

ENTRIES_MAX: Final = 1 << 17  # in one message; its bytes are bounded by the frame
MEMBERS_MAX: Final = 1 << 10
_ENTRY_FIELDS: Final = 4
_ENTRY_KINDS: Final = tuple(EntryKind)
_NO_ENTRIES: Final = pack(())

# Kind bytes are part of the protocol: append, never renumber.
_APPEND: Final = 1
_PROPOSAL: Final = 2
_SNAPSHOT: Final = 3
_PLAIN: Final[dict[int, type[Any]]] = {
    4: AppendResponse,
    5: Heartbeat,
    6: HeartbeatResponse,
    7: RequestVote,
    8: VoteResponse,
    9: TimeoutNow,
    10: ForwardTransfer,
    11: ForwardRead,
    12: ReadResponse,
    13: RejoinRequest,
    14: RejoinResponse,
}
_PLAIN_KINDS: Final[dict[type[Any], int]] = {cls: kind for kind, cls in _PLAIN.items()}


def _getter(cls: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    return attrgetter(*(field.name for field in fields(cls)))


_PLAIN_FIELDS: Final[dict[type[Any], Callable[[Any], tuple[Any, ...]]]] = {
    cls: _getter(cls) for cls in _PLAIN.values()
}
_PLAIN_TYPES: Final[dict[int, tuple[type, ...]]] = {
    kind: tuple(bool if field.type == "bool" else int for field in fields(cls))
    for kind, cls in _PLAIN.items()
}


class RaftEncoder:
    """Encodes messages; remembers the last entries, because a leader sends the same ones to every follower."""

    __slots__ = ("_entries", "_packed")

    def __init__(self) -> None:
        self._entries: tuple[Entry, ...] = ()
        self._packed = _NO_ENTRIES

    def encode(self, message: Message) -> bytes:
        match message:
            case AppendEntries(
                sender, to, term, previous_index, previous_term, entries, commit_index, session, flight
            ):
                head = pack((sender, to, term, previous_index, previous_term, commit_index, session, flight))
                return _joined(_APPEND, head, self._pack_entries(entries))
            case ForwardProposal(sender, to, term, entries):
                return _joined(_PROPOSAL, pack((sender, to, term)), _pack_entries(entries))
            case InstallSnapshot(sender, to, term, snapshot, session):
                head = pack((sender, to, term, snapshot.index, snapshot.term, session))
                return _joined(_SNAPSHOT, head, pack_conf_state(snapshot.conf_state))
            case _:
                cls = type(message)
                return _joined(_PLAIN_KINDS[cls], pack(_PLAIN_FIELDS[cls](message)), b"")

    def _pack_entries(self, entries: tuple[Entry, ...]) -> bytes:
        if not entries:
            return _NO_ENTRIES
        if entries != self._entries:  # compares by identity first: cheap for the same records in a new tuple
            self._entries, self._packed = entries, _pack_entries(entries)
        return self._packed


def _joined(kind: int, head: bytes, rest: bytes) -> bytes:
    return b"".join((bytes((kind, len(head))), head, rest))


def _pack_entries(entries: tuple[Entry, ...]) -> bytes:
    flat: list[object] = []
    for entry in entries:
        flat += (entry.term, entry.index, entry.kind, entry.data)
    return pack(flat)


def decode(payload: Data) -> Message:
    """The message in these bytes. Raises `ProtocolError`, and nothing else, for any other bytes."""
    if len(payload) < 2 or len(payload) < 2 + payload[1]:
        raise ProtocolError(f"raft message of {len(payload)} bytes is too short")
    kind, end = payload[0], 2 + payload[1]
    head, rest = unpack_flat(payload[2:end]), payload[end:]
    if kind == _APPEND:
        return _append(head, rest)
    if kind == _PROPOSAL:
        sender, to, term = _ints(head, 3)
        return ForwardProposal(sender, to, term, _unpack_entries(rest))
    if kind == _SNAPSHOT:
        sender, to, term, index, snapshot_term, session = _ints(head, 6)
        snapshot = SnapshotMeta(index, snapshot_term, unpack_conf_state(rest))
        return InstallSnapshot(sender, to, term, snapshot, session)
    return _plain(kind, head, rest)


def _append(head: list[Any], rest: Data) -> AppendEntries:
    sender, to, term, previous_index, previous_term, commit_index, session, flight = _ints(head, 8)
    entries = _unpack_entries(rest)
    if entries and (
        entries[0].index != previous_index + 1 or entries[-1].index != previous_index + len(entries)
    ):
        raise ProtocolError("appended entries are not contiguous")
    return AppendEntries(
        sender, to, term, previous_index, previous_term, entries, commit_index, session, flight
    )


def _plain(kind: int, head: list[Any], rest: Data) -> Message:
    types = _PLAIN_TYPES.get(kind)
    if types is None:
        raise ProtocolError(f"raft message kind {kind} is unknown")
    if len(rest) or len(head) != len(types):
        raise ProtocolError(f"raft message of kind {kind} has the wrong shape")
    for place, expected in enumerate(types):
        if type(head[place]) is not expected or not 0 <= head[place] <= INT_MAX:
            raise ProtocolError(f"raft message of kind {kind} has a field of the wrong type or range")
    message: Message = _PLAIN[kind](*head)
    return message


def _ints(values: list[Any], count: int) -> list[int]:
    if len(values) != count:
        raise ProtocolError(f"raft message has {len(values)} fields, expected {count}")
    for value in values:
        if type(value) is not int or not 0 <= value <= INT_MAX:
            raise ProtocolError("raft message has a field that is not a number in range")
    return values


def _unpack_entries(data: Data) -> tuple[Entry, ...]:
    flat = unpack_flat(data, _ENTRY_FIELDS * ENTRIES_MAX)
    if len(flat) % _ENTRY_FIELDS:
        raise ProtocolError("the entries of a raft message are cut off")
    return tuple(map(_entry, flat[::4], flat[1::4], flat[2::4], flat[3::4]))


def _entry(term: Any, index: Any, kind: Any, data: Any) -> Entry:
    if type(term) is not int or type(index) is not int or type(kind) is not int or type(data) is not bytes:
        raise ProtocolError("an entry has a field of the wrong type")
    if not (0 <= term <= INT_MAX and 0 <= index <= INT_MAX and 0 <= kind < len(_ENTRY_KINDS)):
        raise ProtocolError("an entry has a field out of range")
    return Entry(term, index, data, _ENTRY_KINDS[kind])


def pack_conf_state(conf: ConfState) -> bytes:
    return pack((conf.voters, conf.learners, conf.voters_outgoing, conf.learners_next, conf.auto_leave))


def unpack_conf_state(data: Data) -> ConfState:
    """Raises `ProtocolError` unless it is four sorted lists of distinct positive ids and a flag."""
    values: list[Any] = list_of(unpack(data, depth_max=2, elements_max=MEMBERS_MAX), 5)
    if type(values[4]) is not bool:
        raise ProtocolError("a configuration's flag is not a flag")
    voters, learners, outgoing, next_learners = (_members(ids) for ids in values[:4])
    return ConfState(voters, learners, outgoing, next_learners, values[4])


def _members(ids: Any) -> tuple[int, ...]:
    members: list[Any] = list_of(ids)
    for before, member in zip([0, *members], members, strict=False):
        if type(member) is not int or not before < member <= INT_MAX:
            raise ProtocolError("the members of a configuration are not sorted positive ids")
    return tuple(members)
