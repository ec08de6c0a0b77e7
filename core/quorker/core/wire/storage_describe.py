"""What a data directory holds, in lines for people: `quorker wal check` and `quorker wal dump`. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from quorker.core.wire import wal
from quorker.core.wire.filesystem import FileSystem
from quorker.core.wire.guarded_filesystem import GuardedFileSystem
from quorker.core.wire.identity import IDENT, IDENT_BYTES, decode_identity
from quorker.core.wire.recovery import RecoveredLog
from quorker.core.wire.state_slots import read_file
from quorker.core.wire.storage_open import Found, is_unused, read_directory


def describe_storage(files: FileSystem, entries: bool = False) -> Iterator[str]:
    """One line per fact, read as a start would read it; `entries` adds one line for each entry of the log.

    The node must be stopped. Raises what a start would raise: CorruptionError names file and offset.
    """
    fs = GuardedFileSystem(files)
    if is_unused(fs):
        yield "never used"
        return
    found = read_directory(fs, decode_identity(read_file(fs, IDENT, IDENT_BYTES + 1), IDENT))
    yield from _identity(found)
    yield from _log(found.log)
    for record in found.log.shape.snapshots:
        chosen = ", the one a start uses" if record is found.snapshot else ""
        yield f"snapshot {record.meta.index} of term {record.meta.term}: {record.size} bytes{chosen}"
    yield from found.notes
    if entries:
        for entry in found.log.entries:
            yield f"entry {entry.index} of term {entry.term}: {entry.kind.name.lower()}, {len(entry.data)} bytes"


def _identity(found: Found) -> Iterator[str]:
    who, promised = found.identity, found.durable.hard_state
    yield f"cluster {who.cluster_id.hex()}, node {who.node_id}, directory {who.dir_uuid.hex()}"
    yield f"opened {who.incarnation - 1} times, restore epoch {who.restore_epoch}"
    yield f"term {promised.term}, vote {promised.voted_for}, commit index at least {promised.commit_index}"
    if promised.forgotten:
        yield f"may have forgotten {promised.forgotten.name.lower()}: it rejoins without a vote"


def _log(log: RecoveredLog) -> Iterator[str]:
    for header in log.headers:
        yield f"segment {wal.segment_name(header.segment, header.next_index)}: {header.size} bytes"
    shape = log.shape
    yield f"entries {shape.first_index} to {shape.last_index}, in {log.last_batch + (log.tail is not None)} batches ever"
    if log.torn is not None:
        yield f"torn tail: {len(log.torn.data)} bytes at byte {log.torn.offset} of {log.torn.path} ({log.torn.why})"
    elif log.dirty:
        yield "stopped without a seal: the next start writes the last batch anew"
