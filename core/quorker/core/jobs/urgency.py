"""Which commands are taken when new work is not: those that end or keep what exists already.

Refusing a completion or a renewal would make jobs run twice; refusing a new job only makes its caller wait. Used at
admission, before anything is in the log; the state machine itself knows no ranks. A store over its limits takes what
is urgent; one whose disk is nearly full also takes what removes jobs or lets them be worked off.
"""

from __future__ import annotations

from typing import Any, Final

from quorker.core.jobs.batch import BadEntry, decode_group
from quorker.core.jobs.commands import (
    AckFetched,
    CloseSession,
    Command,
    CompleteJob,
    DeleteJob,
    ExpireHash,
    ExpireJob,
    ExpireList,
    ExpireSet,
    FailJob,
    FetchJobs,
    FetchNext,
    Heartbeat,
    KeepAlive,
    OpenSession,
    PauseRecurring,
    ReleaseJob,
    ReleaseLock,
    RemoveFromList,
    RemoveFromSet,
    RemoveHash,
    RemoveRecurring,
    RemoveServer,
    RemoveSet,
    RemoveTimedOutServers,
    RenewFetched,
    ReplaceSessions,
    RequeueFetched,
    Subscribe,
    TrimList,
    Unlock,
)

OVERTAKING: Final = (KeepAlive, CompleteJob, FailJob, ReleaseJob, ReleaseLock)
"""They rest on an answer that has arrived already, so they may be sent before older commands of their session."""

NEEDING_NO_SPACE: Final = (
    *OVERTAKING,
    *(DeleteJob, Subscribe, FetchJobs),
    *(FetchNext, RenewFetched, AckFetched, RequeueFetched, Unlock, Heartbeat, RemoveServer, RemoveTimedOutServers),
    *(ExpireJob, ExpireHash, ExpireList, ExpireSet),
    *(RemoveRecurring, PauseRecurring),
    *(RemoveHash, RemoveSet, RemoveFromSet, RemoveFromList, TrimList),
)  # fmt: skip
"""Small, and nothing is there to stay: a nearly full disk has room for them, and some of them make room."""

_SESSIONS: Final = (OpenSession, ReplaceSessions, CloseSession)
_OVERTAKING_OPS: Final = frozenset(each.OP for each in OVERTAKING)
_SMALL_OPS: Final = frozenset(each.OP for each in NEEDING_NO_SPACE)
_URGENT_OPS: Final = frozenset(each.OP for each in (*OVERTAKING, *_SESSIONS))
_NEEDING_NO_SPACE_OPS: Final = frozenset(each.OP for each in (*NEEDING_NO_SPACE, *_SESSIONS))


def may_overtake(command: Command) -> bool:
    return command.OP in _OVERTAKING_OPS


def needs_no_space(command: Command) -> bool:
    return command.OP in _SMALL_OPS


def is_urgent(group: bytes) -> bool:
    """Whether every command of the group outranks new work."""
    return _has_only(_URGENT_OPS, group)


def fits_full_disk(group: bytes) -> bool:
    """Whether every command of the group is taken by a member whose disk is nearly full."""
    return _has_only(_NEEDING_NO_SPACE_OPS, group)


def _has_only(ops: frozenset[int], group: bytes) -> bool:
    try:
        decoded = decode_group(group)
    except BadEntry:
        return False
    return all(_is_one_of(ops, numbered) for numbered in decoded.commands)


def _is_one_of(ops: frozenset[int], numbered: Any) -> bool:
    match numbered:
        case [_, [int(op), *_]]:
            return op in ops
        case _:
            return False
