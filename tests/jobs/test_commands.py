"""Commands: numbers that never change, a wire form that comes back as it went, and bounds at every door."""

from __future__ import annotations

import math
from typing import Any

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.jobs import bounds, commands
from quorker.core.jobs.commands import (
    AcquireLock,
    AddToSet,
    AdvanceRecurring,
    BadCommand,
    Batch,
    CancelBatch,
    ClaimDigest,
    Command,
    CompleteJob,
    CreateJob,
    EnqueueBatch,
    EnqueueJobs,
    FailJob,
    JobGrant,
    JobInState,
    NewJob,
    OpenSession,
    PauseRecurring,
    RemoveRecurring,
    ReplaceSessions,
    RetryPolicy,
    SetHolds,
    SetRangeInHash,
    SetRecurring,
    Step,
    TriggerRecurring,
    decode,
    encode,
    grant_from_wire,
    grant_to_wire,
)
from quorker.core.jobs.new_job import new_job_from_wire, plain_job, plain_to_wire
from quorker.core.jobs.wire_form import to_wire

_codec: Any = msgpack

CONTRACT = [
    "CreateJob",
    "SetJobParameter",
    "SetJobState",
    "AddJobState",
    "ExpireJob",
    "PersistJob",
    "AddToQueue",
    "FetchNext",
    "AckFetched",
    "RequeueFetched",
    "RenewFetched",
    "IncrementCounter",
    "AddToSet",
    "AddRangeToSet",
    "RemoveFromSet",
    "RemoveSet",
    "ExpireSet",
    "PersistSet",
    "InsertToList",
    "RemoveFromList",
    "TrimList",
    "ExpireList",
    "PersistList",
    "SetRangeInHash",
    "RemoveHash",
    "ExpireHash",
    "PersistHash",
    "AnnounceServer",
    "RemoveServer",
    "Heartbeat",
    "RemoveTimedOutServers",
    "TryLock",
    "Unlock",
    "Maintain",
]
COMPOUND = [
    "OpenSession",
    "CloseSession",
    "KeepAlive",
    "ExpireSessions",
    "Subscribe",
    "FetchJobs",
    "EnqueueJobs",
    "CompleteJob",
    "FailJob",
    "ReleaseJob",
    "DeleteJob",
    "RequeueJob",
    "RescheduleJob",
    "AcquireLock",
    "ReleaseLock",
    "ReleaseDue",
    "ExpireRecords",
    "Batch",
    "SetQueuePaused",
    "SetLimits",
]
RECURRING = ["SetRecurring", "RemoveRecurring", "TriggerRecurring", "PauseRecurring", "AdvanceRecurring"]

SAMPLES: tuple[Command, ...] = (
    EnqueueJobs((NewJob("a"),)),
    EnqueueJobs(
        (
            NewJob("a.b:c-d_E", b"\x00", "low", -5, 10, RetryPolicy(3, (1, 2)), 5, 7, "k", 9, "#0", "any"),
            NewJob("a", headers=(("x", "y"),), tags=("t", "u"), retention_ms=1),
        )
    ),
    CompleteJob("0000000000001", 5, b"r"),
    FailJob("job", 5, "ValueError", "m", "t", True),
    AcquireLock("r"),
    AcquireLock("r", 5, True),
    Batch((JobInState("j", ("", "Enqueued")), SetHolds("k", "v", False)), (AddToSet("k", "v", 1.5),)),
    SetRangeInHash("k", (("f", None), ("", "v"))),
    OpenSession("n", 1000),
    SetRecurring("r", NewJob("a"), "0 3 * * *", "Europe/Berlin", 0, "skip", 5),
    SetRecurring("r", NewJob("a"), every_ms=10),
    RemoveRecurring("r"),
    TriggerRecurring("r"),
    PauseRecurring("r", True, "why", "who"),
    AdvanceRecurring((Step("r", 5, 7, (7, 8), 9), Step("s", 6, 0, (), 0, "why"))),
    ReplaceSessions(),
    ClaimDigest(7, 1, b"x" * 16),
    EnqueueBatch("n", (NewJob("a"), NewJob("b", parent_id="#0")), (NewJob("c", on="any"),)),
    EnqueueBatch("n", ()),
    CancelBatch("0000000000001", 5),
)


def test_numbers_are_those_of_the_contract_and_compound_ones_from_64() -> None:
    assert [getattr(commands, name).OP for name in CONTRACT] == list(range(1, 35))
    assert [getattr(commands, name).OP for name in COMPOUND] == list(range(64, 84))
    assert [getattr(commands, name).OP for name in RECURRING] == list(range(84, 89))
    assert commands.ReplaceSessions.OP == 96  # after those that are kept for later
    assert commands.ClaimDigest.OP == 97
    assert (commands.EnqueueBatch.OP, commands.CancelBatch.OP) == (89, 90)
    assert {each.__name__ for each in commands.COMMAND_TYPES} == {
        *CONTRACT,
        *COMPOUND,
        *RECURRING,
        "ReplaceSessions",
        "ClaimDigest",
        "EnqueueBatch",
        "CancelBatch",
    }


@pytest.mark.parametrize("command", SAMPLES, ids=lambda command: type(command).__name__)
def test_a_command_comes_back_as_it_went(command: Command) -> None:
    packed = _codec.packb(encode(command))
    assert decode(_codec.unpackb(packed)) == command
    assert decode(_codec.unpackb(packed, use_list=False)) == command
    assert _codec.packb(encode(decode(_codec.unpackb(packed)))) == packed


def test_trailing_defaults_are_left_out_and_may_be_given() -> None:
    assert encode(EnqueueJobs((NewJob("a"),))) == [70, [["a"]]]
    assert decode([70, [["a", b"", "default", 0]]]) == EnqueueJobs((NewJob("a"),))
    assert encode(AcquireLock("r", 0, True)) == [77, "r", 0, True]


MALFORMED: list[Any] = [
    None, 5, "x", b"", [], {}, [None], ["1"], [True], [1.0], [0], [35], [63], [89], [95], [2**70], [[1]],
    [66, 1], [70], [70, []], [70, [["a"]] * 1001], [70, ["a"]], [70, [[]]], [70, [["a"] * 16]],
    [71, "j"], [71, "j", -1], [71, "j", 2**63], [71, "j", True], [71, "j", 1.0], [71, "j", 1, "text"],
    [71, "", 1], [71, "j" * 65, 1], [71, "a b", 1], [71, "é" * 13, 1],
    [81, [], [[34, 5]]], [81, [], [[70, [["a"]]]]], [81, [], [[81, [], []]]], [81, [[7, "k"]], []],
    [84, "r"], [84, "", ["a"]], [84, "r" * 201, ["a"]], [84, "a b", ["a"]], [84, "r", ["a"], "x" * 201],
    [84, "r", ["a"], "", "UTC", 9], [84, "r", ["a"], "", "UTC", 2**40 + 1], [84, "r", ["a"], "", "UTC", False],
    [84, "r", ["a"], "", "UTC", -10], [84, "r", ["a"], "", "", 10], [84, "r", ["a"], "", "../x", 10],
    [84, "r", ["a"], "", "Z" * 65, 10], [84, "r", ["a"], "", "UTC", 10, "twice"],
    [84, "r", ["a"], "", "UTC", 10, 1], [84, "r", ["a"], "", "UTC", 10, "all", -1],
    [84, "r", ["a", b"", "q", 0, 0, None, 5], "", "UTC", 10],
    [84, "r", ["a", b"", "q", 0, 0, None, 0, 0], "", "UTC", 10],
    [84, "r", ["a", b"", "q", 0, 0, None, 0, None, "", 0, "j"], "", "UTC", 10],
    [84, "r", ["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "any", [["h", "v"]] * 31], "", "UTC", 10],
    [84, "r", ["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "any", [["quorker-slot", "1"]]], "", "UTC", 10],
    [84, "r", ["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "any", [["quorker-recurring", ""]]], "", "UTC", 10],
    [85], [85, 5], [86, None], [87, "r"], [87, "r", 1], [87, "r", True, "x" * 1025], [87, "r", True, "", "x" * 201],
    [88], [88, []], [88, [[]]], [88, [["r", 1, 0, [], 5]] * 501], [88, [["r", 1, 0, [1.5], 5]]],
    [88, [["r", 1, 0, [0] * 1001, 5]]], [88, [["r", 1, -1, [], 5]]], [88, [["r", 1, 0, [], 2**52 + 1]]],
    [88, [["r", 1, 0, [], 0, "x" * 1025]]], [88, [["r", 1, 0, [], None]]], [88, [["r", True, 0, [], 5]]],
    [64, "n", 999], [64, "n", 24 * 3600 * 1000 + 1], [64, "", 1000], [64, "n", 1000, 1],
    [68, ["Q"], 1], [68, ["q"], 1025], [68, ["q"] * 65, 1], [69, [], 1], [69, ["q"], 0], [69, ["q"], 1001],
    [13, "k", "v", math.nan], [13, "k", "v", "1"], [13, "", "v"], [13, "k", None], [13, "k", "\ud800"],
    [13, "k" * 513, "v"], [12, "k", 2**63], [12, "k", 1, -1], [12, "k", 1, 2**40 + 1],
    [24, "k", [["f"]]], [24, "k", [["f", 1]]], [24, "k", {"f": "v"}], [3, "j", "", "", []],
]  # fmt: skip


@pytest.mark.parametrize("wire", MALFORMED)
def test_what_is_malformed_or_out_of_bounds_is_refused(wire: object) -> None:
    with pytest.raises(BadCommand) as caught:
        decode(wire)
    assert caught.value.reason


JOBS: list[Any] = [
    (["a" * 200], True),
    (["a" * 201], False),
    (["tasks.send-mail:v2_X"], True),
    (["a b"], False),
    (["a\n"], False),
    (["<script>"], False),
    (["a", b"x" * 262144], True),
    (["a", b"x" * 262145], False),
    (["a", b"", "q" * 64], True),
    (["a", b"", "q" * 65], False),
    (["a", b"", "Q"], False),
    (["a", b"", "q", 100], True),
    (["a", b"", "q", 101], False),
    (["a", b"", "q", 0, 2**40], True),
    (["a", b"", "q", 0, 2**40 + 1], False),
    (["a", b"", "q", 0, 0, [1001]], False),
    (["a", b"", "q", 0, 0, [1, [1] * 257]], False),
    (["a", b"", "q", 0, 0, [1, [], 0, 0, "explode"]], False),
    (["a", b"", "q", 0, 0, None, 0, 2**52 + 1], False),
    (["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "never"], False),
    (["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "any", [["h", "v"]] * 33], False),
    (["a", b"", "q", 0, 0, None, 0, None, "", 0, "", "any", [], ["t"] * 17], False),
]


@pytest.mark.parametrize(("job", "fits"), JOBS)
def test_bounds_of_a_job(job: list[Any], fits: bool) -> None:
    wire = [70, [job]]
    if fits:
        assert encode(decode(wire)) == wire
        return
    with pytest.raises(BadCommand):
        decode(wire)


def test_bounds_of_reports() -> None:
    decode([71, "j", 1, b"x" * bounds.RESULT_BYTES_MAX])
    decode([72, "j", 1, "t" * 200, "m" * 4096, "s" * 16384])
    for wire in (
        [71, "j", 1, b"x" * (bounds.RESULT_BYTES_MAX + 1)],
        [72, "j", 1, "t" * 201, "", ""],
        [72, "j", 1, "", "m" * 4097, ""],
        [72, "j", 1, "", "", "s" * 16385],
    ):
        with pytest.raises(BadCommand):
            decode(wire)


def test_a_score_of_minus_zero_is_zero() -> None:
    command = decode([13, "k", "v", -0.0])
    assert isinstance(command, AddToSet)
    assert math.copysign(1, command.score) == 1


def test_a_score_may_be_whole_or_infinite() -> None:
    for score in (5, -(2**53), math.inf, -math.inf):
        command = decode([13, "k", "v", score])
        assert isinstance(command, AddToSet)
        assert command.score == score
        assert type(command.score) is float


def test_a_created_job_may_bring_its_id() -> None:
    assert decode([1, "my-job_1", "t", b"", "q", [], 5]) == CreateJob("my-job_1", "t", b"", "q", (), 5)
    assert decode([1, "", "t", b"", "q", [], 5]) == CreateJob("", "t", b"", "q", (), 5)


def test_a_grant_travels() -> None:
    grant = JobGrant("0000000000001", 65537, "q", "t", b"a", 1, 5, 7, 2, (("h", "v"),))
    assert grant_from_wire(_codec.unpackb(_codec.packb(grant_to_wire(grant)))) == grant


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(st.integers(0, 100), st.lists(values, max_size=8))
def test_decode_raises_bad_command_and_nothing_else(op: int, fields: list[Any]) -> None:
    try:
        command = decode([op, *fields])
    except BadCommand:
        return
    assert decode(encode(command)) == command


JUST_LONG_ENOUGH = ["a" * bounds.TASK_CHARS_MAX, b"x" * bounds.ARGS_BYTES_MAX, "q" * bounds.QUEUE_CHARS_MAX]
TOO_LONG = ["a" * 201, b"x" * (bounds.ARGS_BYTES_MAX + 1), "q" * 65]
SHORT_FIELDS = st.sampled_from(
    [
        *JUST_LONG_ENOUGH,
        *TOO_LONG,
        "t",
        b"",
        "",
        "A b",
        "\ud800",
        "DEFAULT",
        1,
        None,
        [],
    ]
)


@given(st.lists(SHORT_FIELDS, max_size=4))
def test_the_short_way_to_a_plain_job_leads_where_the_long_one_does(fields: list[Any]) -> None:
    short = plain_job(fields)
    try:
        long = new_job_from_wire(fields)
    except BadCommand:
        long = None
    assert short == (long if 2 <= len(fields) <= 3 else None)
    assert short is None or type(short) is NewJob


@pytest.mark.parametrize("job", [job for job, fits in JOBS if fits])
def test_a_plain_job_is_written_as_any_other(job: list[Any]) -> None:
    made = NewJob(*job)
    assert plain_to_wire(made) in (to_wire(made), None)


@pytest.mark.parametrize("result", [b"", b"\xc0", b"x" * 100])
def test_a_completion_is_written_as_any_other_command(result: bytes) -> None:
    completed = CompleteJob("J1", 7, result)
    assert encode(completed) == to_wire(completed)


def test_a_job_with_nothing_special_is_written_the_short_way() -> None:
    assert plain_to_wire(NewJob("t", b"a")) == ["t", b"a"]
    assert plain_to_wire(NewJob("t", b"a", "q")) == ["t", b"a", "q"]


@given(SHORT_FIELDS | st.tuples(SHORT_FIELDS, SHORT_FIELDS))
def test_the_short_way_is_for_lists(value: Any) -> None:
    assert plain_job(value) is None


@pytest.mark.parametrize("number", [70.0, True, "70", None, 71])
def test_only_the_number_of_an_enqueue_leads_to_jobs(number: object) -> None:
    with pytest.raises(BadCommand):
        commands.decode([number, [["t", b""]]])
