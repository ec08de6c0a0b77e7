"""What may be said on a connection after its handshake, as records and as bytes.

Fixed shapes: each record is a msgpack array of its fields. Whatever belongs to users or to the job store (groups of
commands, arguments, results, notices) stays an opaque `bytes` field here and is decoded where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from typing import Any, Final, TypeAlias

from quorker.core.errors import Busy, NotApplied, OperationError, ProtocolError, Rejected, Unknown
from quorker.core.raft.messages import InstallSnapshot, Message, NodeId
from quorker.core.wire import raft_codec
from quorker.core.wire.frames import Outgoing
from quorker.core.wire.groups import group_names
from quorker.core.wire.records import INT_MAX, list_of, pack, unpack

TEXT_MAX: Final = 4096  # characters of any text field
REPLY_ELEMENTS_MAX: Final = 1 << 20  # what a node answers is bounded by the frame; the node is trusted


Group: TypeAlias = bytes
"""A group of commands, of which only the outside was looked at (see `groups`)."""

PackedMap: TypeAlias = bytes
"""A map from text to strictly decodable values."""


class Role(IntEnum):
    """As what the dialling side speaks. An observer reads and watches, and cannot submit."""

    PEER = 1
    CLIENT = 2
    OBSERVER = 3


# ---------------------------------------------------------------------- both


@dataclass(frozen=True, slots=True)
class Ping:
    """Sent by the dialling side when it is quiet; `clock_ms` is its monotonic clock."""

    number: int
    clock_ms: int


@dataclass(frozen=True, slots=True)
class Pong:
    number: int
    echoed_clock_ms: int
    clock_ms: int


@dataclass(frozen=True, slots=True)
class Unsupported:
    """The answer to a frame of a kind that this side does not know; the connection stays open."""

    kind: int


# ---------------------------------------------------------------------- between members


@dataclass(frozen=True, slots=True)
class Propose:
    """Groups of commands on their way to the leader, with the role of the caller they came from."""

    role: int
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class ProposeRefused:
    """These commands were not appended by the member they were handed to, and will not be. Members tell each other,
    and a member its client.

    `session` and `seqs` name them (session 0: the nonce of an opening). `reason` is the name of a `DropReason`.
    """

    session: int
    seqs: tuple[int, ...]
    reason: str
    leader: NodeId
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class SnapshotBegin:
    """A snapshot follows in chunks. `message` reaches Raft at the receiver once all bytes arrived and verified."""

    transfer: int
    message: InstallSnapshot


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    transfer: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    transfer: int
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class SnapshotResult:
    """The receiver's word. While `done` is False it only says how many bytes it has taken (for pacing)."""

    transfer: int
    done: bool
    ok: bool
    received: int
    detail: str


# ---------------------------------------------------------------------- from clients


@dataclass(frozen=True, slots=True)
class Attach:
    """Replies and notices of this session go to this connection from now on.

    Once `min_index` is applied (before that the member may not even know the session), it repeats the replies it keeps
    and every grant that the session holds, because earlier ones may be lost.
    """

    session: int
    min_index: int


@dataclass(frozen=True, slots=True)
class Submit:
    """A group of commands for the log; answered by `Reply` for each command, or by `Failed` for the group.

    The numbers of requests (of all kinds but `Cancel`) grow on a connection.
    """

    request: int
    group: Group


@dataclass(frozen=True, slots=True)
class Query:
    """Served once `min_index` is applied, so that a session sees its own writes anywhere."""

    request: int
    name: str
    args: PackedMap
    linearizable: bool
    min_index: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class StatusRequest:
    request: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Answered once `min_index` is applied and the job has reached a final state or is unknown."""

    request: int
    job_id: str
    timeout_ms: int
    min_index: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this query or wait any more."""

    request: int


# ---------------------------------------------------------------------- to clients


@dataclass(frozen=True, slots=True)
class Reply:
    """What the state machine said: `replies` is packed `[[session, seq, reply], ...]`."""

    applied_index: int
    replies: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a query, status or wait. `value` is packed; `age_ms` may be AGE_UNKNOWN."""

    request: int
    applied_index: int
    age_ms: int
    value: bytes


class Failure(IntEnum):
    """How honest an error can be."""

    NOT_APPLIED = 1
    BUSY = 2
    UNKNOWN = 3
    REJECTED = 4


@dataclass(frozen=True, slots=True)
class Failed:
    """A request did not succeed; `reason` is a stable word, `detail` is for people."""

    request: int
    failure: int
    reason: str
    detail: str
    retry_after_ms: int
    leader: NodeId

    def to_error(self) -> OperationError:
        text = f"{self.reason}: {self.detail}" if self.detail else self.reason
        match self.failure:
            case Failure.NOT_APPLIED:
                return NotApplied(text)
            case Failure.BUSY:
                return Busy(text, self.retry_after_ms)
            case Failure.REJECTED:
                return Rejected(self.reason, self.detail)
            case _:
                return Unknown(text)


@dataclass(frozen=True, slots=True)
class Notice:
    session: int
    kind: str
    payload: bytes


PeerMessage: TypeAlias = (
    Message | Propose | ProposeRefused | SnapshotBegin | SnapshotChunk | SnapshotEnd | SnapshotResult
)
ClientRequest: TypeAlias = Attach | Submit | Query | StatusRequest | Wait | Cancel
ClientAnswer: TypeAlias = Reply | Answer | Failed | Notice | ProposeRefused
Speech: TypeAlias = PeerMessage | ClientRequest | ClientAnswer | Ping | Pong | Unsupported

# Kind bytes are part of the protocol: append, never renumber. 1..15 belong to the handshake and to every connection.
PING: Final = 6
RAFT: Final = 16
_PEER_KINDS: Final[dict[int, type[Any]]] = {
    17: Propose,
    18: ProposeRefused,
    19: SnapshotBegin,
    20: SnapshotChunk,
    21: SnapshotEnd,
    22: SnapshotResult,
}
_READ_KINDS: Final[dict[int, type[Any]]] = {34: Query, 35: StatusRequest, 36: Wait, 37: Cancel}
_WRITE_KINDS: Final[dict[int, type[Any]]] = {32: Attach, 33: Submit}
_ANSWER_KINDS: Final[dict[int, type[Any]]] = {48: Reply, 49: Answer, 50: Failed, 51: Notice}
_COMMON_KINDS: Final[dict[int, type[Any]]] = {PING: Ping, 7: Pong, 8: Unsupported}
_CLASSES: Final[dict[int, type[Any]]] = {
    **_COMMON_KINDS,
    **_PEER_KINDS,
    **_READ_KINDS,
    **_WRITE_KINDS,
    **_ANSWER_KINDS,
}
_KINDS: Final[dict[type[Any], int]] = {cls: kind for kind, cls in _CLASSES.items()}

ACCEPTED_FROM: Final[dict[Role, frozenset[int]]] = {
    Role.PEER: frozenset({RAFT, *_COMMON_KINDS, *_PEER_KINDS}),
    Role.CLIENT: frozenset({*_COMMON_KINDS, *_READ_KINDS, *_WRITE_KINDS}),
    Role.OBSERVER: frozenset({*_COMMON_KINDS, *_READ_KINDS}),
}
SENT_TO_CLIENTS: Final = frozenset({*_COMMON_KINDS, *_ANSWER_KINDS, _KINDS[ProposeRefused]})
KNOWN: Final = frozenset({RAFT, *_CLASSES})
AGE_UNKNOWN: Final = INT_MAX


def _check_int(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT_MAX:
        raise ProtocolError("a field is not a number in range")
    return value


def _check_text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise ProtocolError(f"a field is not text of at most {TEXT_MAX} characters")
    return value


def _check_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ProtocolError("a field is not bytes")
    return value


def _check_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError("a field is not a flag")
    return value


def _check_ints(value: Any) -> tuple[int, ...]:
    return tuple(map(_check_int, list_of(value)))


def _check_groups(value: Any) -> tuple[bytes, ...]:
    return tuple(map(_check_group, list_of(value)))


def _check_group(value: Any) -> bytes:
    group_names(_check_bytes(value))
    return bytes(value)


def _check_map(value: Any) -> bytes:
    if not isinstance(unpack(_check_bytes(value)), dict):
        raise ProtocolError("arguments are not a map")
    return bytes(value)


def _check_install(value: Any) -> InstallSnapshot:
    message = raft_codec.decode(_check_bytes(value))
    if not isinstance(message, InstallSnapshot):
        raise ProtocolError("a snapshot is announced by something else")
    return message


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": _check_int,
    "NodeId": _check_int,
    "str": _check_text,
    "bytes": _check_bytes,
    "bool": _check_bool,
    "tuple[int, ...]": _check_ints,
    "tuple[Group, ...]": _check_groups,
    "InstallSnapshot": _check_install,
    "Group": _check_group,
    "PackedMap": _check_map,
}
_FIELDS: Final[dict[type[Any], Callable[[Any], object]]] = {
    cls: attrgetter(*(field.name for field in fields(cls))) for cls in _KINDS
}
_SINGLE_FIELD: Final = frozenset(cls for cls in _KINDS if len(fields(cls)) == 1)
_SHAPES: Final[dict[int, tuple[Callable[[Any], Any], ...]]] = {
    kind: tuple(_CHECKS[str(field.type)] for field in fields(cls)) for kind, cls in _CLASSES.items()
}


class Encoder:
    """Turns records into frames for one or many connections; shares the work on entries sent to several members."""

    __slots__ = ("_raft",)

    def __init__(self) -> None:
        self._raft = raft_codec.RaftEncoder()

    def encode(self, record: Speech) -> Outgoing:
        cls = type(record)
        kind = _KINDS.get(cls)
        if kind is None:
            return RAFT, self._raft.encode(record)  # type: ignore[arg-type]  # all that is left are Raft's messages
        if isinstance(record, SnapshotBegin):
            return kind, pack((record.transfer, self._raft.encode(record.message)))
        values = _FIELDS[cls](record)
        return kind, pack((values,) if cls in _SINGLE_FIELD else values)


def encode(record: Speech) -> Outgoing:
    """One record as (kind, payload)."""
    return Encoder().encode(record)


def decode(kind: int, payload: bytes | memoryview) -> Speech:
    """The record in this frame. Raises `ProtocolError`, and nothing else; ask `KNOWN` first to answer unknown kinds."""
    if kind == RAFT:
        return raft_codec.decode(payload)
    checks = _SHAPES.get(kind)
    if checks is None:
        raise ProtocolError(f"frame kind {kind} is unknown")
    values = list_of(unpack(payload, depth_max=2), len(checks))
    record: Speech = _CLASSES[kind](*[check(value) for check, value in zip(checks, values, strict=True)])
    return record


def pack_replies(replies: list[tuple[int, int, Any]]) -> bytes:
    """(session, seq, reply) each, as the state machine gave them."""
    return pack(replies)


def unpack_replies(data: bytes) -> list[tuple[int, int, list[Any]]]:
    """(session, seq, reply) each; a reply is `[0, value]` or `[1, reason, detail]`."""
    found: list[tuple[int, int, list[Any]]] = []
    for item in list_of(unpack(data, elements_max=REPLY_ELEMENTS_MAX, finite=False)):
        session, seq, reply = list_of(item, 3)
        found.append((_check_int(session), _check_int(seq), _check_reply(reply)))
    return found


def _check_reply(reply: Any) -> list[Any]:
    values = list_of(reply)
    if len(values) == 2 and values[0] == 0:
        return values
    if len(values) == 3 and values[0] == 1:
        return [1, _check_text(values[1]), _check_text(values[2])]
    raise ProtocolError("a reply has the wrong shape")
