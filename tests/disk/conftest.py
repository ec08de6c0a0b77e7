"""One member on a file system that forgets, with small segments and an oracle beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from quorker.core.raft.messages import ConfState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import LogStorage, StorageSettings
from quorker.sim.disks.crash_states import ForgetfulFileSystem
from quorker.sim.disks.storage_ledger import Witness

Opener: TypeAlias = Callable[[ForgetfulFileSystem], LogStorage]


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(b"the cluster's id", 1, b"the directory id")


@pytest.fixture(scope="session")
def settings() -> StorageSettings:
    return StorageSettings(segment_bytes=2048, reserve_bytes=0)


@pytest.fixture(scope="session")
def opener(identity: Identity, settings: StorageSettings) -> Opener:
    """Opens the storage of this member on any file system."""
    return lambda fs: LogStorage(fs, identity, settings)


@pytest.fixture
def first_snapshot() -> SnapshotMeta:
    return SnapshotMeta(1, 1, ConfState((1, 2, 3)))


@pytest.fixture
def fs() -> ForgetfulFileSystem:
    return ForgetfulFileSystem()


@pytest.fixture
def witness(fs: ForgetfulFileSystem, opener: Opener, first_snapshot: SnapshotMeta) -> Witness:
    """A member of a new cluster, and the oracle of what it holds."""
    witness = Witness(opener(fs))
    witness.bootstrap(first_snapshot)
    return witness
