"""Raft's messages as bytes: every message there and back, any other bytes refused, entries packed once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import ProtocolError
from quorker.core.raft.messages import (
    AppendEntries,
    ConfState,
    Entry,
    EntryKind,
    ForwardProposal,
    Heartbeat,
    InstallSnapshot,
    Message,
    SnapshotMeta,
)
from quorker.core.wire import raft_codec
from quorker.core.wire.raft_codec import RaftEncoder, decode
from quorker.core.wire.records import INT_MAX, pack
from quorker.sim.bare.wire_corpus import BOMBS

NUMBERS = st.integers(0, INT_MAX)
FIELDS: dict[str, st.SearchStrategy[Any]] = {"int": NUMBERS, "NodeId": NUMBERS, "bool": st.booleans()}
ENTRY = st.builds(Entry, NUMBERS, NUMBERS, st.binary(max_size=40), st.sampled_from(EntryKind))
IDS = st.sets(st.integers(1, INT_MAX), max_size=4).map(lambda ids: tuple(sorted(ids)))
CONF = st.builds(ConfState, IDS, IDS, IDS, IDS, st.booleans())
SPECIAL = (AppendEntries, ForwardProposal, InstallSnapshot)
PLAIN: list[Any] = [cls for cls in get_args(Message) if cls not in SPECIAL]


@st.composite
def append_entries(draw: st.DrawFn) -> AppendEntries:
    previous = draw(st.integers(0, INT_MAX - 10))
    count = draw(st.integers(0, 4))
    entries = tuple(
        Entry(
            draw(NUMBERS),
            previous + 1 + place,
            draw(st.binary(max_size=40)),
            draw(st.sampled_from(EntryKind)),
        )
        for place in range(count)
    )
    sender, to, term, previous_term, commit_index, session = (draw(NUMBERS) for _ in range(6))
    return AppendEntries(sender, to, term, previous, previous_term, entries, commit_index, session)


MESSAGES = st.one_of(
    append_entries(),
    st.builds(ForwardProposal, NUMBERS, NUMBERS, NUMBERS, st.lists(ENTRY, max_size=4).map(tuple)),
    st.builds(
        InstallSnapshot, NUMBERS, NUMBERS, NUMBERS, st.builds(SnapshotMeta, NUMBERS, NUMBERS, CONF), NUMBERS
    ),
    *(
        st.builds(cls, **{name: FIELDS[str(field.type)] for name, field in cls.__dataclass_fields__.items()})
        for cls in PLAIN
    ),
)
ENTRIES = tuple(Entry(3, 11 + place, b"data%d" % place) for place in range(4))
APPEND = AppendEntries(1, 2, 3, 10, 3, ENTRIES, 9, 5)


@given(MESSAGES)
def test_round_trip(message: Message) -> None:
    data = RaftEncoder().encode(message)
    assert decode(data) == message
    assert decode(memoryview(data)) == message


def test_every_message_of_raft_has_a_kind_of_its_own() -> None:
    samples: list[Message] = [
        APPEND,
        ForwardProposal(1, 2, 3, ENTRIES),
        InstallSnapshot(1, 2, 3, SnapshotMeta()),
        *(
            cls(*[False if field.type == "bool" else 1 for field in cls.__dataclass_fields__.values()])
            for cls in PLAIN
        ),
    ]
    encoded = {RaftEncoder().encode(sample)[0] for sample in samples}
    assert len(encoded) == len(samples) == len(get_args(Message))


def test_entries_are_packed_once_for_all_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[tuple[Entry, ...]] = []
    original = raft_codec._pack_entries  # pyright: ignore[reportPrivateUsage]  # how often is the point

    def counting(entries: tuple[Entry, ...]) -> bytes:
        packed.append(entries)
        return original(entries)

    monkeypatch.setattr(raft_codec, "_pack_entries", counting)
    encoder = RaftEncoder()
    for to in (2, 3, 4):
        copy = AppendEntries(1, to, 3, 10, 3, (*ENTRIES,), 9, to)
        assert decode(encoder.encode(copy)) == copy
    assert len(packed) == 1
    other = AppendEntries(1, 2, 3, 10, 3, (*ENTRIES[:3], Entry(3, 14, b"other")), 9, 5)
    assert decode(encoder.encode(other)) == other


def test_entries_that_do_not_follow_each_other_are_refused() -> None:
    for entries in (ENTRIES[1:], ENTRIES[:1] + ENTRIES[2:]):
        data = RaftEncoder().encode(AppendEntries(1, 2, 3, 10, 3, entries, 9))
        with pytest.raises(ProtocolError, match="not contiguous"):
            decode(data)


@pytest.mark.parametrize("value", [-1, INT_MAX + 1, True, 1.0, None, "1", b"1"])
def test_a_number_is_a_number_in_range(value: object) -> None:
    head = pack((1, 2, value, 4, 0, 0))
    with pytest.raises(ProtocolError, match=r"wrong type or range|not a valid"):
        decode(bytes((5, len(head))) + head)


@pytest.mark.parametrize("count", [5, 7])
def test_a_message_has_exactly_its_fields(count: int) -> None:
    head = pack((1,) * count)
    with pytest.raises(ProtocolError, match="wrong shape"):
        decode(bytes((5, len(head))) + head)


def test_a_plain_message_has_no_rest() -> None:
    data = RaftEncoder().encode(Heartbeat(1, 2, 3, 4))
    with pytest.raises(ProtocolError):
        decode(data + b"\x90")


NO_ENTRIES: list[list[Any]] = [
    [1, 11, 0],
    [1, 11, 0, b"", 1],
    [1, 11, 0, "text"],
    [1, 11, 3, b""],
    [1, 11, -1, b""],
    [True, 11, 0, b""],
    [1, INT_MAX + 1, 0, b""],
    [-1, 11, 0, b""],
    [1, 11, None, b""],
]


@pytest.mark.parametrize("flat", NO_ENTRIES, ids=repr)
def test_an_entry_is_three_numbers_and_bytes(flat: list[Any]) -> None:
    head = pack((1, 2, 3, 10, 3, 9, 5, 6))
    with pytest.raises(ProtocolError):
        decode(bytes((1, len(head))) + head + pack(flat))
    good = decode(bytes((1, len(head))) + head + pack([1, 11, 0, b""]))
    assert good == AppendEntries(1, 2, 3, 10, 3, (Entry(1, 11),), 9, 5, 6)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_the_head_of_a_message_with_a_rest_has_its_fields(kind: int) -> None:
    for head in (pack((1,)), pack((1,) * 20), pack((1, 2, "3", 4, 5, 6, 7))):
        with pytest.raises(ProtocolError):
            decode(bytes((kind, len(head))) + head + b"\x90")


@pytest.mark.parametrize("ids", [(2, 1), (1, 1), (0,), (-1,), (True,), ("1",), (INT_MAX + 1,)])
def test_members_are_sorted_distinct_and_positive(ids: tuple[object, ...]) -> None:
    with pytest.raises(ProtocolError, match="not sorted positive ids"):
        raft_codec.unpack_conf_state(pack((ids, (), (), (), False)))


NO_CONFIGURATIONS: list[Any] = [None, [[]] * 4, [[], [], [], [], 0], [1, [], [], [], True]]


@pytest.mark.parametrize("value", NO_CONFIGURATIONS, ids=repr)
def test_a_configuration_has_its_shape(value: object) -> None:
    data = pack(value)
    with pytest.raises(ProtocolError):
        raft_codec.unpack_conf_state(data)


@pytest.mark.parametrize("kind", [0, 15, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(ProtocolError, match="unknown"):
        decode(bytes((kind, 1)) + pack(()))


@given(MESSAGES, st.data())
def test_any_change_gives_a_message_or_a_protocol_error(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(RaftEncoder().encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        decode(bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        decode(data)


@pytest.mark.parametrize("kind", range(1, 13))
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:6].hex())
def test_bombs_are_refused(kind: int, bomb: bytes) -> None:
    for data in (bytes((kind, min(255, len(bomb)))) + bomb, bytes((kind, 1, 0x90)) + bomb):
        with pytest.raises(ProtocolError):
            decode(data)
