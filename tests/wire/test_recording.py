"""The file of a flight recorder: what was written is read again, a cut is told, damage is named with its place."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.errors import CorruptionError, ProtocolError
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.effects import DropReason, Persist, Send
from quorker.core.raft.messages import ConfState, Entry, EntryKind, HardState, Heartbeat, SnapshotMeta
from quorker.core.replica import ReplicaConfig
from quorker.core.wire.plain import from_plain, to_plain
from quorker.core.wire.recording import (
    MAGIC,
    Beginning,
    Framer,
    InputKind,
    encode_beginning,
    encode_input,
    print_of_effects,
    read_recording,
)

META = SnapshotMeta(3, 2, ConfState((1, 2, 3), (4,)))
DURABLE = DurableState(HardState(5, 1, 3), META, (Entry(5, 4, b"x", EntryKind.CONFIG), Entry(5, 5)))
BEGINNING = Beginning(1, to_plain(ReplicaConfig(RaftConfig(1))), DURABLE, b"store", 7, [], 10, 20, 30, 40)


def recording(*kinds: InputKind, ended: str = "") -> bytes:
    framer = Framer()
    data = MAGIC + framer.frame(encode_beginning(BEGINNING))
    for number, kind in enumerate(kinds):
        data += framer.frame(encode_input(kind, number, 100 + number, [number, b"bytes"], 7 * number))
    return data + (framer.frame(encode_input(InputKind.END, 9, 9, [ended], 0)) if ended else b"")


def test_what_was_recorded_is_read_again() -> None:
    found = read_recording(recording(InputKind.TICK, InputKind.DRAIN, ended="as asked"), "n1.rec")
    assert found.beginning == BEGINNING
    assert from_plain(ReplicaConfig, found.beginning.config) == ReplicaConfig(RaftConfig(1))
    assert [
        (each.number, each.kind, each.monotonic_ns, each.wall_ns, each.looks) for each in found.inputs
    ] == [
        (1, InputKind.TICK, 0, 100, 0),
        (2, InputKind.DRAIN, 1, 101, 7),
    ]
    assert found.inputs[1].arguments == [1, b"bytes"]
    assert (found.ended, found.cut_at) == ("as asked", None)


def test_every_cut_loses_only_what_is_behind_it() -> None:
    data = recording(InputKind.TICK, InputKind.DRAIN, InputKind.TICK)
    whole = read_recording(data, "n1.rec")
    ends = [each.offset for each in whole.inputs] + [len(data)]
    for size in range(ends[0], len(data)):
        found = read_recording(data[:size], "n1.rec")
        assert len(found.inputs) == sum(end <= size for end in ends[1:])
        assert found.cut_at == (None if size in ends else max(end for end in ends if end <= size))


def test_a_file_that_ends_before_its_first_input_is_no_recording() -> None:
    data = recording(InputKind.TICK)
    first = read_recording(data, "n1.rec").inputs[0].offset
    for size in range(first):
        with pytest.raises(CorruptionError, match=r"n1\.rec is damaged at byte"):
            read_recording(data[:size], "n1.rec")


def test_every_changed_byte_is_noticed() -> None:
    """Also one in a length: it must not look like the end of a file that was cut off."""
    data = recording(InputKind.TICK, InputKind.DRAIN, InputKind.PERSISTED)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]
        with pytest.raises(CorruptionError) as found:
            read_recording(changed, "n1.rec")
        assert found.value.offset <= place


def test_frames_of_another_recording_do_not_fit() -> None:
    data = recording(InputKind.TICK, InputKind.DRAIN, InputKind.TICK)
    inputs = read_recording(data, "n1.rec").inputs
    spliced = data[: inputs[0].offset] + data[inputs[1].offset :]
    with pytest.raises(CorruptionError, match=f"at byte {inputs[0].offset}: this is no frame that follows"):
        read_recording(spliced, "n1.rec")


@pytest.mark.parametrize("data", [b"", b"QKREC", b"something else entirely"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError, match="this is no recording of a member"):
        read_recording(data, "notes.txt")


def test_what_another_version_wrote_is_named() -> None:
    framer = Framer()
    data = MAGIC + framer.frame(encode_beginning(BEGINNING)) + framer.frame(b"\x93\x01\x02\x03")
    with pytest.raises(CorruptionError, match="input 1 was written by another version"):
        read_recording(data, "n1.rec")
    data = MAGIC + Framer().frame(b"\x91\x01")
    with pytest.raises(CorruptionError, match="its beginning was written by another version"):
        read_recording(data, "n1.rec")


# ---------------------------------------------------------------------- plain values


@pytest.mark.parametrize(
    ("wanted", "record"),
    [
        (SnapshotMeta, META),
        (DurableState, DURABLE),
        (ReplicaConfig, ReplicaConfig(RaftConfig(2, seed=9))),
        (Entry, Entry(1, 1, b"x", EntryKind.CONFIG_V2)),
    ],
)
def test_records_survive_being_plain(wanted: type[Any], record: Any) -> None:
    assert from_plain(wanted, to_plain(record)) == record


def test_what_is_no_such_record_is_refused() -> None:
    for plain in (None, 3, ["HardState", 1], ["Entry", 1, 2, b"", 0], ["HardState", "1", 0, 0]):
        with pytest.raises(ProtocolError, match="this is no HardState"):
            from_plain(HardState, plain)


def test_prints_tell_effects_apart() -> None:
    beat = Send(2, Heartbeat(1, 2, 3, 4))
    prints = {
        print_of_effects(effects)
        for effects in (
            [],
            [beat],
            [beat, beat],
            [Send(3, Heartbeat(1, 2, 3, 4))],
            [Send(2, Heartbeat(1, 2, 3, 5))],
            [Persist(1)],
            [DropReason.NO_LEADER],
        )
    }
    assert len(prints) == 7
    assert print_of_effects([beat]) == print_of_effects([Send(2, Heartbeat(1, 2, 3, 4))])
