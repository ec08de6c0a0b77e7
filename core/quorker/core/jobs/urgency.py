"""Which commands outrank new work when the store is over its limits: those that end or keep what exists already.

Refusing a completion or a renewal would make jobs run twice; refusing a new job only makes its caller wait. Used at
admission, before anything is in the log; the state machine itself knows no ranks.
"""

from __future__ import annotations

from typing import Any, Final

from quorker.core.jobs.batch import BadEntry, decode_group
from quorker.core.jobs.commands import (
    CloseSession,
    Command,
    CompleteJob,
    FailJob,
    KeepAlive,
    OpenSession,
    ReleaseJob,
    ReleaseLock,
    ReplaceSessions,
)

OVERTAKING: Final = (KeepAlive, CompleteJob, FailJob, ReleaseJob, ReleaseLock)
"""They rest on an answer that has arrived already, so they may be sent before older commands of their session."""

_URGENT_OPS: Final = frozenset(each.OP for each in (*OVERTAKING, OpenSession, ReplaceSessions, CloseSession))


def may_overtake(command: Command) -> bool:
    return isinstance(command, OVERTAKING)


def is_urgent(group: bytes) -> bool:
    """Whether every command of the group outranks new work."""
    try:
        decoded = decode_group(group)
    except BadEntry:
        return False
    return all(_is_urgent(numbered) for numbered in decoded.commands)


def _is_urgent(numbered: Any) -> bool:
    match numbered:
        case [_, [int(op), *_]]:
            return op in _URGENT_OPS
        case _:
            return False
