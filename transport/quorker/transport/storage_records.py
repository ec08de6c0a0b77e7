"""What the storage contract hands out: jobs, states, servers, and the errors that callers match on.

    Rejected
    └── ServerGone               a heartbeat of a server that nobody knows (any more): announce it again
    NotApplied
    └── DistributedLockTimeout   the lock was not obtained in time; `resource` is its plain name
    InvalidInput
    └── TransactionClosed        a write transaction is used after its commit

Records are read only. Times: `*_wt` in ms since the epoch, `*_ms` a duration in ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from quorker.core.errors import InvalidInput, NotApplied, Rejected

NO_EXPIRY_MS: Final = -1
"""The time to live of a key that is missing or does not expire."""


class DistributedLockTimeout(NotApplied):
    """Another owner kept the lock until the time was up."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.resource = resource

    def __str__(self) -> str:
        return f"the lock on {self.resource!r} was not obtained in time"


class ServerGone(Rejected):
    """The server is not known: it was removed, or never announced."""

    def __init__(self, server_id: str) -> None:
        super().__init__("server_gone", server_id)
        self.server_id = server_id


class TransactionClosed(InvalidInput):
    """A write transaction is committed at most once."""


class StateFields(Mapping[str, str | None]):
    """The data of a state. Names are compared without regard to case; the last of several equal ones wins."""

    __slots__ = ("_by_fold",)

    def __init__(self, pairs: Mapping[str, str | None]) -> None:
        self._by_fold = {name.casefold(): (name, value) for name, value in pairs.items()}

    def __getitem__(self, name: str) -> str | None:
        return self._by_fold[name.casefold()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._by_fold.values())

    def __len__(self) -> int:
        return len(self._by_fold)

    def __repr__(self) -> str:
        return f"StateFields({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a job calls. `args` are opaque bytes: no read ever fails because they cannot be understood."""

    task: str
    args: bytes = b""
    queue: str = "default"


@dataclass(frozen=True, slots=True)
class JobData:
    """A job as the contract reads it. `state` is None until the first one was set."""

    job_id: str
    invocation: Invocation
    state: str | None
    created_wt: int
    parameters: dict[str, str | None] = field(default_factory=dict[str, "str | None"])


@dataclass(frozen=True, slots=True)
class State:
    """A state to set, or one that was read."""

    name: str
    reason: str = ""
    data: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What a server says of itself."""

    worker_count: int
    queues: tuple[str, ...]
