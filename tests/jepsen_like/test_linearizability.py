"""The judge of histories against small truths: by hand, by trying every order, and by histories with known verdicts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.jepsen_like.history import Kind, Line, MalformedHistory, Operation, operations
from quorker.jepsen_like.linearizability import Verdict, judge
from quorker.jepsen_like.models import FencedLock, JobQueue, Model, Register, TextMap
from quorker.jepsen_like.recorded import register_history, text_map_history
from quorker.sim.transcript.vectors import vectors_root

GOOD, BAD = Verdict.LINEARIZABLE, Verdict.NOT_LINEARIZABLE


def op(function: str, argument: object, result: object, called: int, returned: int | None) -> Operation:
    return Operation(called, function, argument, result, called, returned)


def verdict(model: Model, *history: Operation) -> Verdict:
    return judge(history, model).verdict


# ---------------------------------------------------------------------- by hand


def test_an_empty_history_is_linearizable() -> None:
    assert verdict(Register()) is GOOD


def test_a_read_sees_what_was_written_before_it() -> None:
    write = op("write", 1, None, 0, 1)
    assert verdict(Register(), write, op("read", None, 1, 2, 3)) is GOOD
    assert verdict(Register(), write, op("read", None, None, 2, 3)) is BAD


def test_a_read_at_the_same_time_sees_either() -> None:
    write = op("write", 1, None, 0, 5)
    for seen in (1, None):
        assert verdict(Register(), write, op("read", None, seen, 2, 3)) is GOOD
    assert verdict(Register(), write, op("read", None, 1, 2, 3), op("read", None, None, 4, 6)) is BAD


def test_a_write_nobody_heard_of_may_have_happened_at_any_later_time_or_never() -> None:
    lost = op("write", 1, None, 0, None)
    assert verdict(Register(), lost, op("read", None, None, 8, 9)) is GOOD
    assert verdict(Register(), lost, op("read", None, 1, 8, 9)) is GOOD
    assert verdict(Register(), op("read", None, 1, 0, 1), op("write", 1, None, 2, None)) is BAD


def test_a_cas_that_failed_found_another_value() -> None:
    write = op("write", 1, None, 0, 1)
    assert verdict(Register(), write, op("cas", (1, 2), Kind.FAIL, 2, 3)) is BAD
    assert verdict(Register(), write, op("cas", (3, 2), Kind.FAIL, 2, 3)) is GOOD
    assert verdict(Register(), write, op("cas", (1, 2), Kind.OK, 2, 3), op("read", None, 1, 4, 5)) is BAD


def test_locks_are_held_by_one_and_their_tokens_grow() -> None:
    first, second = op("acquire", None, 5, 0, 1), op("acquire", None, 6, 2, 3)
    assert verdict(FencedLock(), first, second) is BAD
    assert verdict(FencedLock(), first, op("acquire", None, None, 2, 3)) is GOOD
    assert verdict(FencedLock(), first, op("release", 5, True, 1, 4), second) is GOOD
    stale = op("acquire", None, 4, 4, 5)
    assert verdict(FencedLock(), first, op("release", 5, True, 2, 3), stale) is BAD
    assert verdict(FencedLock(), first, op("release", 5, None, 1, None), second) is GOOD


def test_a_job_is_fetched_by_one_and_only_when_it_was_enqueued() -> None:
    put, taken = op("enqueue", "a", None, 0, 1), op("fetch", None, "a", 2, 3)
    assert verdict(JobQueue(), put, taken) is GOOD
    assert verdict(JobQueue(), put, taken, op("fetch", None, "a", 4, 5)) is BAD
    assert verdict(JobQueue(), taken, op("enqueue", "a", None, 4, 5)) is BAD
    assert verdict(JobQueue(), put, op("fetch", None, None, 2, 3)) is BAD
    back = op("requeue", "a", True, 4, 5)
    assert verdict(JobQueue(), put, taken, back, op("fetch", None, "a", 6, 7)) is GOOD
    assert verdict(JobQueue(), put, op("acknowledge", "a", True, 4, 5)) is BAD


def test_keys_are_judged_one_by_one_and_the_bad_one_is_named() -> None:
    history = [
        Operation(1, "append", "x", None, 0, 1, "a"),
        Operation(2, "get", None, "", 2, 3, "b"),
        Operation(1, "get", None, "", 4, 5, "a"),
    ]
    found = judge(history, TextMap())
    assert (found.verdict, found.key) == (BAD, "a")
    assert found.stuck == (history[2],)
    assert "after process 1: append('a', 'x') -> None, none of these fits: process 1: get" in str(found)


def test_a_search_that_is_given_up_has_no_good_verdict() -> None:
    history = [op("write", number, None, number, 100 + number) for number in range(20)]
    history.append(op("read", None, "never written", 200, 201))
    assert judge(history, Register(), steps_max=1_000).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "model", [Register(), TextMap(), FencedLock(), JobQueue()], ids=lambda m: type(m).__name__
)
def test_a_function_that_a_model_does_not_have_is_a_mistake(model: Model) -> None:
    with pytest.raises(ValueError, match="not 'shout'"):
        verdict(model, op("shout", None, None, 0, 1))


# ---------------------------------------------------------------------- against every order


def by_trying(history: Sequence[Operation], model: Model) -> bool:
    """Whether any order of the returned and of any of the others respects time and the model."""
    unknown = [each for each in history if each.returned is None]
    known = [each for each in history if each.returned is not None]
    for kept in range(1 << len(unknown)):
        chosen = known + [each for place, each in enumerate(unknown) if kept >> place & 1]
        if any(_fits(order, model) for order in permutations(chosen)):
            return True
    return False


def _fits(order: Sequence[Operation], model: Model) -> bool:
    state = model.start()
    for place, each in enumerate(order):
        if any(later.returned is not None and later.returned < each.called for later in order[place:]):
            return False
        after = model.step(state, each)
        if after is None:
            return False
        state = after
    return True


@st.composite
def register_histories(draw: st.DrawFn) -> list[Operation]:
    times = draw(st.permutations(range(10)))
    history: list[Operation] = []
    for number in range(draw(st.integers(1, 5))):
        called, returned = sorted(times[2 * number : 2 * number + 2])
        function = draw(st.sampled_from(("read", "write", "cas")))
        value = draw(st.integers(0, 2))
        argument = {"read": None, "write": value, "cas": (value, draw(st.integers(0, 2)))}[function]
        result = {"read": value, "write": None, "cas": draw(st.sampled_from((Kind.OK, Kind.FAIL)))}[function]
        unknown = draw(st.booleans()) and draw(st.booleans())
        history.append(
            op(function, argument, None if unknown else result, called, None if unknown else returned)
        )
    return history


@settings(max_examples=300)
@given(register_histories())
def test_it_agrees_with_trying_every_order(history: list[Operation]) -> None:
    assert (verdict(Register(), *history) is GOOD) == by_trying(history, Register())


# ---------------------------------------------------------------------- reading histories


def test_calls_and_answers_are_paired() -> None:
    lines = [
        Line(1, Kind.INVOKE, "write", 3),
        Line(2, Kind.INVOKE, "read"),
        Line(2, Kind.FAIL, "read"),
        Line(1, Kind.INFO, "write"),
        Line(3, Kind.INVOKE, "read"),
        Line(3, Kind.OK, "read", 3),
        Line(4, Kind.INVOKE, "write", 4),
    ]
    assert operations(lines) == [
        Operation(1, "write", 3, None, 0, None),
        Operation(3, "read", None, 3, 4, 5),
        Operation(4, "write", 4, None, 6, None),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([Line(1, Kind.INVOKE, "read"), Line(1, Kind.INVOKE, "read")], "calls while it waits"),
        ([Line(1, Kind.OK, "read")], "hears what it never asked"),
    ],
)
def test_what_cannot_have_been_recorded_is_refused(lines: list[Line], said: str) -> None:
    with pytest.raises(MalformedHistory, match=said):
        operations(lines)


def test_a_damaged_log_is_refused() -> None:
    with pytest.raises(MalformedHistory, match="no line of a register's history"):
        register_history(["INFO  jepsen.util - 0 broken"])
    with pytest.raises(MalformedHistory, match="no line of a map's history"):
        text_map_history(["{:process 0}"])


# ---------------------------------------------------------------------- the exam


@dataclass(frozen=True)
class Exam:
    """One recorded history with its known verdict."""

    path: Path
    linearizable: bool


def exams() -> Iterator[object]:
    root = vectors_root(Path(__file__).resolve().parents[2], os.environ) / "histories"
    verdicts = root / "verdicts.json"
    if not verdicts.exists():
        reason = f"no recorded histories in {root} (set QUORKER_VECTORS to the folder of vectors)"
        yield pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))
        return
    for name, linearizable in json.loads(verdicts.read_text()).items():
        folder, _, number = name.partition("-") if name.startswith("kv-") else ("etcd", "", name)
        path = root / folder / (number + (".txt" if folder == "kv" else ".log"))
        yield pytest.param(Exam(path, linearizable), id=name)


@pytest.mark.parametrize("exam", list(exams()))
def test_recorded_history(exam: Exam) -> None:
    lines = exam.path.read_text().splitlines()
    is_map = exam.path.parent.name == "kv"
    history = text_map_history(lines) if is_map else register_history(lines)
    found = judge(history, TextMap() if is_map else Register())
    assert found.verdict is (GOOD if exam.linearizable else BAD)
