"""`quorker wal check` says what a start would find, and leaves everything as it is."""

from __future__ import annotations

import pytest

from quorker.core.errors import CorruptionError
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, HardState, SnapshotMeta
from quorker.core.wire.storage_describe import describe_storage
from quorker.sim.disks.crash_states import ForgetfulFileSystem
from quorker.sim.disks.storage_ledger import Witness


def described(fs: ForgetfulFileSystem, entries: bool = False) -> str:
    before = fs.image()
    text = "\n".join(describe_storage(fs, entries))
    assert fs.image() == before
    return text


def test_a_directory_is_described(fs: ForgetfulFileSystem, witness: Witness) -> None:
    witness.write(Persist(0, HardState(3, 2, 1)))
    witness.append(3, b"two", b"three")
    witness.save(SnapshotMeta(2, 3, ConfState((1,))), [b"state"])
    witness.storage.close()
    text = described(fs, entries=True)
    assert "node 1" in text
    assert "opened 1 times" in text
    assert "term 3, vote 2" in text
    assert "snapshot 2 of term 3: 5 bytes, the one a start uses" in text
    assert "entries 2 to 3" in text
    assert "entry 3 of term 3: normal, 5 bytes" in text
    assert "stopped without a seal" not in text


def test_an_unclean_stop_and_a_torn_tail_are_told(fs: ForgetfulFileSystem, witness: Witness) -> None:
    witness.append(1, b"two")
    assert "stopped without a seal" in described(fs)
    (path,) = (path for path in fs.image() if path.endswith(".wal"))
    content = fs.image()[path]
    assert content is not None
    torn = content[:-9] + b"not a log" if content.endswith(bytes(9)) else content
    assert "torn tail: " in described(ForgetfulFileSystem({**fs.image(), path: torn}))


def test_an_unused_directory_and_a_damaged_one(fs: ForgetfulFileSystem, witness: Witness) -> None:
    assert described(ForgetfulFileSystem()) == "never used"
    witness.storage.close()
    with pytest.raises(CorruptionError, match="IDENT"):
        described(ForgetfulFileSystem({**fs.image(), "IDENT": b"?"}))
