"""The exception tree of quorker: what a caller can catch, and nothing else.

    QuorkerError
    ├── OperationError            a call on the job store did not succeed
    │   ├── NotApplied            definite: it has no effect and never will
    │   │   └── Busy              the store is over a limit; try again after `retry_after_ms`
    │   │       └── OutOfSpace    the leader's disk is nearly full; it takes no new work until there is space
    │   ├── Unknown               it may or may not have taken effect
    │   └── Rejected              the state machine refused it, with a typed reason
    ├── InvalidInput              the caller's value is wrong; names the value, the limit and what to do
    ├── ConfigurationError        this node cannot start as configured
    │   └── IdentityMismatch      wrong cluster, duplicate member, moved or wiped directory
    ├── StorageError              the disk under this node
    │   ├── CorruptionError       bytes that were once durable are damaged
    │   └── StorageFailed         a write or fsync failed; the process must end
    └── ProtocolError             a peer or client sent bytes that break the protocol

Errors of other libraries are translated at the seam where the I/O happens; they never pass through.
"""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_CORRUPT: Final = 3
EXIT_NO_QUORUM: Final = 4
EXIT_TIMEOUT: Final = 5
EXIT_STORAGE_FAILED: Final = 6


class QuorkerError(Exception):
    """Base of every error that quorker raises on purpose."""

    exit_code: int = EXIT_REFUSED


class OperationError(QuorkerError):
    """A call on the job store did not succeed."""


class NotApplied(OperationError):
    """The operation has no effect and never will: it is safe to try again."""

    exit_code = EXIT_NO_QUORUM


class Busy(NotApplied):
    """The store is over a limit; nothing was appended. Try again after `retry_after_ms`."""

    def __init__(self, message: str, retry_after_ms: int = 100) -> None:
        super().__init__(message, retry_after_ms)
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return str(self.args[0])


class OutOfSpace(Busy):
    """The leader's disk is nearly full: free space there. What ends or removes jobs is still taken."""


class Unknown(OperationError):
    """The operation may or may not have taken effect."""

    exit_code = EXIT_TIMEOUT


class Rejected(OperationError):
    """The state machine refused the operation. `reason` is a stable word, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class InvalidInput(QuorkerError, ValueError):
    """The caller's value is wrong. The message names the value, the limit and what to do."""

    exit_code = EXIT_USAGE


class ConfigurationError(QuorkerError):
    """This node cannot start as configured."""

    exit_code = EXIT_USAGE


class IdentityMismatch(ConfigurationError):
    """The other side, or the directory, belongs to someone else: cluster, node or incarnation."""

    exit_code = EXIT_REFUSED


class StorageError(QuorkerError):
    """The disk under this node failed us."""

    exit_code = EXIT_STORAGE_FAILED


class CorruptionError(StorageError):
    """Bytes that were once durable are damaged. Names the file and the offset (bytes)."""

    exit_code = EXIT_CORRUPT

    def __init__(self, path: str, offset: int, why: str) -> None:
        super().__init__(path, offset, why)
        self.path = path
        self.offset = offset
        self.why = why

    def __str__(self) -> str:
        return f"{self.path} is damaged at byte {self.offset}: {self.why}"


class StorageFailed(StorageError):
    """A write, rename or fsync failed. It is never retried: the process must end."""


class ProtocolError(QuorkerError):
    """A peer or client sent bytes that break the protocol; its connection is closed."""
