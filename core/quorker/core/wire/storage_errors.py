"""Errors of the disk layer that a caller can outlive. Those that end the process are in `quorker.core.errors`."""

from __future__ import annotations

from quorker.core.errors import CorruptionError, StorageError


class NotUnderstood(CorruptionError):
    """Intact bytes that this version does not know: they are a newer version's, and nothing is to be put aside."""


class DiskFull(StorageError):
    """No space for what was asked, and nothing of it was kept: the call may be made again when there is space."""
