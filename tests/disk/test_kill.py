"""P1: a real process that is killed while it writes, over and over; what it had acknowledged is there each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import StorageSettings
from quorker.transport.disk import Disk

ACKNOWLEDGED_BEFORE_KILL: Final = (1, 2, 3, 40, 7, 90, 25, 11, 60, 5, 33, 18)
WRITER: Final = """
import sys
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.core.wire.identity import Identity
from quorker.core.wire.storage import StorageSettings
from quorker.transport.disk import Disk

disk = Disk.open(sys.argv[1], Identity(b"the cluster's id", 1), StorageSettings(65536, 0))
if disk.fresh:
    disk.bootstrap(SnapshotMeta(1, 1, ConfState((1,))))
term = disk.hard_state.term + 1
while True:
    index = disk.last_index + 1
    entry = Entry(term, index, index.to_bytes(8, "big") * (index * 37 % 700))
    disk.write([Persist(0, HardState(term, 1, index - 1), entries=(entry,))])
    print(term, index, disk.snapshots[-1].meta.index, flush=True)
    if index % 16 == 0:
        disk.save_snapshot(SnapshotMeta(index, term, ConfState((1,))), [b"state at %d" % index])
        disk.compact(index - 5)
    if index % 7 == 0:
        disk.seal()
    if disk.wants_prepare:
        disk.prepare()
"""


def killed_while_writing(data_dir: Path, after: int) -> list[int]:
    """[term, index, index of the snapshot] that the process acknowledged last.

    It is killed when it has acknowledged `after` entries.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(data_dir)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    return [int(number) for number in acknowledged[-1]]


def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for count in ACKNOWLEDGED_BEFORE_KILL:
        term, index, saved = killed_while_writing(data_dir, count)
        disk = Disk.open(data_dir, Identity(b"the cluster's id", 1), StorageSettings(65536, 0))
        assert disk.hard_state.term >= term
        assert index <= disk.last_index <= index + 1
        durable = disk.durable
        for entry in durable.entries:
            assert entry.data == entry.index.to_bytes(8, "big") * (entry.index * 37 % 700)
        base = durable.snapshot.index
        assert base >= saved
        expected = b"" if base == 1 else b"state at %d" % base
        assert b"".join(disk.open_snapshot(durable.snapshot)) == expected
        disk.close()
