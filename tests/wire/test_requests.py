"""The vocabulary of a connection: every record there and back, who may say what, and how honest an error is."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import Busy, NotApplied, ProtocolError, Rejected, Unknown
from quorker.core.raft.messages import ConfState, Heartbeat, InstallSnapshot, Message, SnapshotMeta
from quorker.core.wire import requests
from quorker.core.wire.records import INT_MAX, list_of, pack, unpack
from quorker.core.wire.requests import (
    ACCEPTED_FROM,
    KNOWN,
    RAFT,
    SENT_TO_CLIENTS,
    Answer,
    Attach,
    Cancel,
    ClientAnswer,
    ClientRequest,
    Encoder,
    Failed,
    Failure,
    Notice,
    PeerMessage,
    Ping,
    Pong,
    Propose,
    ProposeRefused,
    Query,
    Reply,
    Role,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotResult,
    Speech,
    StatusRequest,
    Submit,
    Unsupported,
    Wait,
    decode,
    encode,
)
from quorker.sim.bare.wire_corpus import BOMBS

SAMPLES: list[Speech] = [
    Ping(1, 2),
    Pong(1, 2, 3),
    Unsupported(99),
    Heartbeat(1, 2, 3, 4),
    Propose(Role.CLIENT, (pack([5, 0, [[1, [64]]]]), pack([6, 0, [[2, [64]]]]))),
    ProposeRefused(7, (1, 2, INT_MAX), "NOT_LEADER", 3, 50),
    SnapshotBegin(1, InstallSnapshot(1, 2, 3, SnapshotMeta(9, 3, ConfState((1, 2))), 4)),
    SnapshotChunk(1, 0, b"bytes"),
    SnapshotEnd(1, 5, b"s" * 32),
    SnapshotResult(1, True, False, 3, "why"),
    Attach(5, 3),
    Submit(1, pack([5, 0, [[1, [64]]]])),
    Query(1, "job", b"\x80", True, 7, 1000),
    StatusRequest(1),
    Wait(1, "0000000000001", 1000, 7),
    Cancel(1),
    Reply(9, b"\x90"),
    Answer(1, 9, 0, b"\xc0"),
    Failed(1, Failure.BUSY, "busy", "detail", 100, 2),
    Notice(5, "job", b"\x90"),
]


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_round_trip(record: Speech) -> None:
    kind, payload = encode(record)
    assert kind in KNOWN
    assert decode(kind, payload) == record
    assert decode(kind, memoryview(payload)) == record


def test_the_samples_are_the_whole_vocabulary() -> None:
    said = {type(record) for record in SAMPLES}
    assert said == {*get_args(Speech)} - {*get_args(Message)} | {Heartbeat}
    assert {encode(record)[0] for record in SAMPLES} == KNOWN


@pytest.mark.parametrize("role", Role)
def test_each_role_says_only_what_it_may(role: Role) -> None:
    """An observer cannot submit, a client cannot speak Raft, a member speaks for no client."""
    common = {Ping, Pong, Unsupported}
    reads = {Query, StatusRequest, Wait, Cancel}
    allowed: dict[Role, set[Any]] = {
        Role.PEER: common | {*get_args(PeerMessage)},
        Role.CLIENT: common | {*get_args(ClientRequest)},
        Role.OBSERVER: common | reads,
    }
    for record in SAMPLES:
        assert (encode(record)[0] in ACCEPTED_FROM[role]) == (type(record) in allowed[role]), record


def test_a_member_says_answers_to_a_client() -> None:
    told = {type(record) for record in SAMPLES if encode(record)[0] in SENT_TO_CLIENTS}
    assert told == {*get_args(ClientAnswer), Ping, Pong, Unsupported}


@pytest.mark.parametrize("record", [each for each in SAMPLES if type(each) is not Heartbeat])
def test_every_field_has_its_type_and_none_is_missing(record: Speech) -> None:
    kind, payload = encode(record)
    values = list_of(unpack(payload))
    wrong = [pack(values[:-1]), pack([*values, 0]), pack(None), pack({})]
    values_of_no_field: list[Any] = [None, -1, INT_MAX + 1, 1.5, [[]], {"a": 1}]
    for place, value in product(range(len(values)), values_of_no_field):
        wrong += [pack([*values[:place], value, *values[place + 1 :]])]
    for data in wrong:
        with pytest.raises(ProtocolError):
            decode(kind, data)


@pytest.mark.parametrize("length", [requests.TEXT_MAX - 1, requests.TEXT_MAX])
def test_text_up_to_the_limit(length: int) -> None:
    record = Notice(1, "x" * length, b"")
    assert decode(*encode(record)) == record


def test_text_over_the_limit() -> None:
    with pytest.raises(ProtocolError, match="at most 4096"):
        decode(*encode(Notice(1, "x" * (requests.TEXT_MAX + 1), b"")))


def test_a_snapshot_is_announced_by_its_own_message() -> None:
    heartbeat = Encoder().encode(Heartbeat(1, 2, 3, 4))[1]
    kind = encode(SAMPLES[6])[0]
    with pytest.raises(ProtocolError, match="announced by something else"):
        decode(kind, pack((1, heartbeat)))


def test_unknown_kinds_are_refused_when_decoded() -> None:
    with pytest.raises(ProtocolError, match="kind 200 is unknown"):
        decode(200, b"\x90")


@pytest.mark.parametrize("kind", sorted(KNOWN - {RAFT}))
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:6].hex())
def test_bombs_are_refused(kind: int, bomb: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(kind, bomb)


@pytest.mark.parametrize(
    "args", [b"", b"\xc1", b"\x90", b"\xc0", pack({"a": float("nan")}), pack({}) + b"\x00"]
)
def test_the_arguments_of_a_query_are_a_strict_map(args: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(*encode(Query(1, "job", args, False, 0, 1000)))


@pytest.mark.parametrize("group", [b"", b"\xc1", b"\x90", pack([5, 0, [[1]]])])
def test_a_group_looks_like_one_from_outside(group: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(*encode(Submit(1, group)))


@given(st.sampled_from(SAMPLES), st.data())
def test_any_change_gives_a_record_or_a_protocol_error(record: Speech, data: st.DataObject) -> None:
    kind, payload = encode(record)
    changed = bytearray(payload)
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        decode(data.draw(st.sampled_from(sorted({kind, *KNOWN}))), bytes(changed))


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure.NOT_APPLIED, NotApplied),
        (Failure.BUSY, Busy),
        (Failure.REJECTED, Rejected),
        (Failure.UNKNOWN, Unknown),
        (77, Unknown),  # whatever a later version says: the honest guess
    ],
)
def test_errors_stay_as_honest_as_they_were(failure: int, error: type[Exception]) -> None:
    raised = Failed(1, failure, "reason", "detail", 123, 0).to_error()
    assert type(raised) is error
    assert "reason: detail" in str(raised)
    if isinstance(raised, Busy):
        assert raised.retry_after_ms == 123


def test_replies_there_and_back() -> None:
    said: list[tuple[int, int, Any]] = [
        (0, 5, (0, 77)),
        (77, 1, (1, "no", "because")),
        (77, 2, (0, {"a": [1]})),
    ]
    assert requests.unpack_replies(requests.pack_replies(said)) == [
        (0, 5, [0, 77]),
        (77, 1, [1, "no", "because"]),
        (77, 2, [0, {"a": [1]}]),
    ]


@pytest.mark.parametrize(
    "replies",
    [
        None,
        [None],
        [[1, 2]],
        [[1, -2, [0, 1]]],
        [[1, 2, 3]],
        [[1, 2, [0]]],
        [[1, 2, [2, 3]]],
        [[1, 2, [1, 2, 3]]],
    ],
)
def test_replies_of_any_other_shape_are_refused(replies: object) -> None:
    with pytest.raises(ProtocolError):
        requests.unpack_replies(pack(replies))
