"""Messages as real bytes: what is said is heard in pieces, and a connection that ends within a frame says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.jobs.batch import encode_group
from quorker.core.raft.messages import (
    AppendEntries,
    ConfState,
    Entry,
    Heartbeat,
    InstallSnapshot,
    SnapshotMeta,
)
from quorker.core.wire.frames import FrameReader
from quorker.sim.cases.case import Case, Fault, FaultKind, Op, OpKind
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.cluster import Cluster, run_case
from quorker.sim.world.kernel import MS, Call, Kernel
from quorker.sim.world.network import Network, NetworkKnobs
from quorker.sim.world.trace import Trace
from quorker.sim.world.wire import LIMITS, Forwarded, ForwardRefused, Wire, pieces, size_of

ENTRIES = tuple(Entry(3, index, b"x" * index) for index in range(7, 40))
SAID: tuple[tuple[Any, Any], ...] = (
    (AppendEntries(1, 2, 3, 6, 3, ENTRIES, 5, 1), None),
    (Heartbeat(1, 2, 3, 5, 1, 1), None),
    (InstallSnapshot(1, 2, 3, SnapshotMeta(9, 3, ConfState(voters=(1, 2))), 1), b"s" * 600_000),
    (InstallSnapshot(1, 2, 3, SnapshotMeta(9, 3, ConfState(voters=(1, 2))), 1), 1 << 60),
    (Forwarded(1, encode_group(7, 1, [(2, [66])])), None),
    (ForwardRefused(7, (2, 3), "DISK_FULL", 50), None),
)


@pytest.mark.parametrize("item", SAID, ids=lambda item: type(item[0]).__name__)
@pytest.mark.parametrize("word", [0, 1, 0x123456789ABCDEF0, (1 << 64) - 1])
def test_what_is_said_is_heard(item: tuple[Any, Any], word: int) -> None:
    wire = Wire()
    for _ in range(2):
        wire.read(wire.write(item), item, word)


def test_anything_else_is_noticed() -> None:
    wire, (item, other) = Wire(), SAID[:2]
    with pytest.raises(Violation, match=r"^wire: "):
        wire.read(wire.write(item), other, 0)


@pytest.mark.parametrize("item", SAID, ids=lambda item: type(item[0]).__name__)
@pytest.mark.parametrize("word", [0, 1, 5, 8, 9, 0x123456789ABCDEF0])
def test_a_torn_message_says_nothing(item: tuple[Any, Any], word: int) -> None:
    wire = Wire()
    wire.tear(wire.write(item), word)


def test_a_reader_that_takes_part_of_a_frame_for_a_message_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def careless(_: FrameReader, data: bytes) -> list[Any]:
        return [(16, memoryview(data))]

    monkeypatch.setattr(FrameReader, "feed", careless)
    wire = Wire()
    with pytest.raises(Violation, match=r"^wire: "):
        wire.tear(wire.write(SAID[0]), 20)


def test_pieces_are_all_of_it() -> None:
    for word in range(0, 1 << 62, (1 << 62) // 97):
        assert b"".join(pieces(b"0123456789", word)) == b"0123456789"


def test_sizes_grow_with_what_is_carried() -> None:
    for item in SAID:
        real = len(Wire().write(item))
        assert real // 3 <= size_of(item) <= 2 * real + 64
    assert size_of(SAID[2]) > LIMITS.snapshot_chunk_bytes


def test_a_reset_tears_the_first_message_that_was_under_way() -> None:
    heard: list[Any] = []

    def deliver(call: Call) -> None:
        heard.append(call.payload[2])

    kernel = Kernel()
    network = Network(kernel, 1, NetworkKnobs(wire_bytes=True), deliver, size_of, Wire)
    for name, item in enumerate(SAID[:3]):
        network.send(1, 2, name, item)
    network.reset([(1, 2)])
    network.send(1, 2, 9, SAID[4])
    kernel.run(until=1_000 * MS)
    assert heard == [SAID[4]]
    assert (network.torn, network.lost) == (1, 3)


def test_a_run_over_real_bytes_is_the_same_run() -> None:
    """The bytes only confirm what was said: nothing else depends on them."""
    ops = tuple(Op(at * MS, OpKind.PROPOSE, 0) for at in range(150, 600, 5))
    plan = (Fault(300 * MS, FaultKind.CRASH, 20 * MS),)
    case = Case(seed=5, chaos_ns=600 * MS, ops=ops, plan=plan)
    plain, real = (
        run_case(
            Case(
                seed=case.seed,
                chaos_ns=case.chaos_ns,
                ops=ops,
                plan=plan,
                network=NetworkKnobs(wire_bytes=wire_bytes),
            )
        )
        for wire_bytes in (False, True)
    )
    assert plain.digest == real.digest
    assert real.violation is None


def test_a_run_with_resets_recovers() -> None:
    ops = tuple(Op(at * MS, OpKind.PROPOSE, 0) for at in range(150, 600, 2))
    plan = tuple(
        Fault(at * MS, FaultKind.CONNECTION_RESET, MS, node=1 + at % 3) for at in range(200, 600, 20)
    )
    case = Case(seed=5, chaos_ns=600 * MS, ops=ops, plan=plan, network=NetworkKnobs(wire_bytes=True))
    cluster = Cluster(case, Trace())
    cluster.run()
    assert cluster.world.network.torn > 3
