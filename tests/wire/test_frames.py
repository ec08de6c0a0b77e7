"""Frames: limits at the limit and beside it, split anywhere, damaged anywhere, replayed, left out, sent back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import InvalidInput, ProtocolError
from quorker.core.wire.frames import HEADER_BYTES, TAG_BYTES, FrameReader, FrameWriter, Outgoing
from quorker.sim.bare.wire_corpus import WireCorpus, raw_frame

LIMIT = 1000
KEY = b"k" * 32
OTHER_KEY = b"o" * 32
BOTH = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "tagged"])
FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


def plain(frames: list[tuple[int, memoryview]]) -> list[Outgoing]:
    return [(kind, bytes(payload)) for kind, payload in frames]


@BOTH
@given(frames=FRAMES, cuts=st.lists(st.integers(0, 3000), max_size=12))
def test_what_was_written_is_read_however_the_stream_is_cut(
    key: bytes | None, frames: list[Outgoing], cuts: list[int]
) -> None:
    data = FrameWriter(LIMIT, key).join(frames)
    found: list[Outgoing] = []
    reader, start = FrameReader(LIMIT, key), 0
    for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += plain(reader.feed(data[start:end]))
        start = end
    assert found == frames


@BOTH
def test_byte_by_byte(key: bytes | None) -> None:
    frames = [(1, b"one"), (2, b""), (3, b"three" * 20)]
    found: list[Outgoing] = []
    reader = FrameReader(LIMIT, key)
    for byte in FrameWriter(LIMIT, key).join(frames):
        found += plain(reader.feed(bytes([byte])))
    assert found == frames


@BOTH
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_a_payload_up_to_the_limit_passes(key: bytes | None, size: int) -> None:
    data = FrameWriter(LIMIT, key).frame(7, b"x" * size)
    assert plain(FrameReader(LIMIT, key).feed(data)) == [(7, b"x" * size)]


@BOTH
def test_a_payload_over_the_limit_is_refused_at_its_header(key: bytes | None) -> None:
    data = FrameWriter(LIMIT + 1, key).frame(7, b"x" * (LIMIT + 1))
    with pytest.raises(ProtocolError, match="at most 1000"):
        FrameReader(LIMIT, key).feed(data[:HEADER_BYTES])


@BOTH
def test_nothing_is_sent_or_counted_when_one_payload_is_too_large(key: bytes | None) -> None:
    writer = FrameWriter(LIMIT, key)
    with pytest.raises(InvalidInput, match="1001 bytes, at most 1000"):
        writer.join([(1, b"fine"), (2, b"x" * (LIMIT + 1))])
    assert plain(FrameReader(LIMIT, key).feed(writer.frame(1, b"first"))) == [(1, b"first")]


def test_a_length_that_lies_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(ProtocolError, match="4294967295 bytes"):
        FrameReader(LIMIT).feed(raw_frame(1, b"", length=2**32 - 1))


@pytest.mark.parametrize("length", [0, TAG_BYTES - 1])
def test_a_tagged_frame_has_room_for_its_tag(length: int) -> None:
    with pytest.raises(ProtocolError, match="its tag alone has 16"):
        FrameReader(LIMIT, KEY).feed(raw_frame(1, b"x" * length))


@BOTH
def test_every_single_bit_flip_is_found(key: bytes | None) -> None:
    data = FrameWriter(LIMIT, key).frame(5, b"payload")
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        reader = FrameReader(LIMIT, key)
        try:
            assert reader.feed(bytes(damaged)) == [], (
                f"bit {position}"
            )  # a larger length: the rest is awaited
        except ProtocolError:
            pass
        else:
            assert position < 32, f"bit {position} is not part of the length"


@pytest.mark.parametrize(
    ("order", "why"),
    [([0, 0], "replay"), ([1], "left out"), ([1, 0], "reordered"), ([0, 2], "gap"), ([2, 1, 0], "reversed")],
)
def test_tagged_frames_come_once_and_in_order(order: list[int], why: str) -> None:
    writer = FrameWriter(LIMIT, KEY)
    sent = [writer.frame(1, b"same") for _ in range(3)]
    with pytest.raises(ProtocolError, match="tag is wrong"):
        FrameReader(LIMIT, KEY).feed(b"".join(sent[number] for number in order))


def test_a_frame_is_not_accepted_by_its_own_sender() -> None:
    """Reflection: each direction has a key of its own."""
    data = FrameWriter(LIMIT, KEY).frame(1, b"mine")
    with pytest.raises(ProtocolError, match="tag is wrong"):
        FrameReader(LIMIT, OTHER_KEY).feed(data)


@pytest.mark.parametrize("keys", [(None, KEY), (KEY, None)], ids=["tag missing", "tag not expected"])
def test_both_sides_agree_on_tags(keys: tuple[bytes | None, bytes | None]) -> None:
    data = FrameWriter(LIMIT, keys[0]).frame(1, b"x" * 32)
    reader = FrameReader(LIMIT, keys[1])
    if keys[1] is None:
        assert len(plain(reader.feed(data))[0][1]) == 32 + TAG_BYTES  # the record in it will not parse
    else:
        with pytest.raises(ProtocolError):
            reader.feed(data)


def test_a_broken_stream_stays_broken() -> None:
    writer, reader = FrameWriter(LIMIT, KEY), FrameReader(LIMIT, KEY)
    first, second = writer.frame(1, b"first"), writer.frame(1, b"second")
    for data in (second, first, second):
        with pytest.raises(ProtocolError):
            reader.feed(data)


def test_what_follows_the_handshake_is_read_with_its_key_and_limit() -> None:
    reader = FrameReader(8)
    reader.push(FrameWriter(8).frame(4, b"welcome") + FrameWriter(LIMIT, KEY).frame(9, b"x" * 100))
    frame = reader.pull()
    assert frame is not None
    assert plain([frame]) == [(4, b"welcome")]
    reader.secure(LIMIT, KEY)
    assert plain(reader.feed(b"")) == [(9, b"x" * 100)]


def test_an_incomplete_frame_is_all_that_is_kept() -> None:
    reader = FrameReader(LIMIT)
    data = FrameWriter(LIMIT).join([(1, b"x" * LIMIT)] * 50)
    assert len(reader.feed(data[:-1])) == 49
    assert len(reader._partial) == LIMIT + HEADER_BYTES - 1  # pyright: ignore[reportPrivateUsage]  # memory is the point


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "tagged"])
@given(data=st.binary(max_size=400))
def test_any_bytes_give_frames_or_a_protocol_error(key: bytes | None, data: bytes) -> None:
    reader = FrameReader(64, key)
    try:
        for start in range(0, len(data), 17):
            reader.feed(data[start : start + 17])
    except ProtocolError:
        pass


def test_the_corpus_gives_frames_or_a_protocol_error() -> None:
    valid = [(1, b"hello"), (3, b"proof" * 30), (33, b"\x93\x01\x02\x03")]
    refused = 0
    for stream in WireCorpus(1, valid).streams(500):
        try:
            FrameReader(LIMIT).feed(stream)
        except ProtocolError:
            refused += 1
    assert refused > 100
