"""What applying one log entry leads to: replies and notices. Nothing here survives the apply.

Every member computes the same outcome and uses of it what concerns the sessions it hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from quorker.core.jobs.new_job import JobGrant

Value: TypeAlias = Any
"""What msgpack can pack, with tuples for arrays."""

Reply: TypeAlias = tuple[Literal[0], Value] | tuple[Literal[1], str, str]
"""(0, value): done. (1, reason, detail): refused without any effect; `reason` is a stable word."""

OK: Final[Reply] = (0, None)
YES: Final[Reply] = (0, True)
NO: Final[Reply] = (0, False)

NoticeKind: TypeAlias = Literal["job", "lock", "cancel", "session_closed"]


class LockGrant(NamedTuple):
    """`ticket` is the place in the line that this grant belongs to."""

    resource: str
    token: int
    ticket: int


class Cancelled(NamedTuple):
    """A job of this session must stop: what it reports under this token will be refused."""

    token: int
    job_id: str
    reason: str


class Notice(NamedTuple):
    """To the member that hosts `session`. Payload: job: JobGrant, lock: LockGrant, cancel: Cancelled,
    session_closed: the reason."""

    session: int
    kind: NoticeKind
    payload: JobGrant | LockGrant | Cancelled | str


class DigestClaim(NamedTuple):
    """`node` says: this is what the chain was when I had applied the entry `at`."""

    at: int
    node: int
    digest: bytes


@dataclass(slots=True)
class Outcome:
    """`finished`: jobs that reached Succeeded, Failed, Deleted or Quarantined. `faults`: what was not understood and
    therefore had no effect; a reason for an alarm. `claims`: what members say about their digests."""

    replies: list[tuple[int, int, Reply]] = field(default_factory=list[tuple[int, int, Reply]])
    notices: list[Notice] = field(default_factory=list[Notice])
    finished: list[str] = field(default_factory=list[str])
    faults: list[str] = field(default_factory=list[str])
    claims: list[DigestClaim] = field(default_factory=list[DigestClaim])


def rejected(reason: str, detail: str = "") -> Reply:
    return (1, reason, detail)


def done(value: Value) -> Reply:
    return (0, value)
