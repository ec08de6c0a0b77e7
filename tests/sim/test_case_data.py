"""Cases as tables and tokens: any case goes there and back unchanged, whatever knobs are added later."""

from __future__ import annotations

import base64
import types
import zlib
from dataclasses import is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case, FaultKind
from quorker.sim.cases.data import CHOICES, RAW, READABLE, Form, Slot, from_table, slots_of, to_table
from quorker.sim.cases.expansion import PROFILES, expand
from quorker.sim.cases.limits import check_case
from quorker.sim.cases.replay import CASE_BYTES_MAX, PREFIX, case_of, code_hash, token_of
from quorker.sim.cases.units import CHANCE, FRACTION, WHOLE


def made_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Any object of a dataclass of the schema; the amount of a fault is one that every kind can have."""
    return st.builds(cls, **{slot.attribute: values_of(slot) for slot in slots_of(cls)})


def values_of(slot: Slot) -> st.SearchStrategy[Any]:
    if slot.attribute == "amount":
        return st.integers(0, (1 << 20) - 1)
    if slot.unit in (CHANCE, FRACTION):
        return st.integers(0, 1_000_000)
    return values_of_kind(slot.kind, slot.key)


def values_of_kind(kind: Any, key: str) -> st.SearchStrategy[Any]:
    if get_origin(kind) is tuple:
        return st.lists(values_of_kind(get_args(kind)[0], key), max_size=4).map(tuple)
    if get_origin(kind) is types.UnionType:
        return st.one_of(
            *(st.none() if each is types.NoneType else values_of_kind(each, key) for each in get_args(kind))
        )
    if is_dataclass(kind) and isinstance(kind, type):
        return made_of(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    if kind is bool:
        return st.booleans()
    return st.sampled_from(CHOICES[key]) if kind is str else st.integers(-(1 << 62), 1 << 62)


@pytest.mark.parametrize("form", [READABLE, RAW], ids=["readable", "raw"])
@settings(max_examples=60, deadline=None)
@given(case=made_of(Case))
def test_any_case_comes_back_from_a_table(form: Form, case: Case) -> None:
    assert from_table(Case, to_table(case, form), "case", form) == case


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_seed_comes_back_from_a_token_and_keeps_the_limits(profile: Any) -> None:
    for seed in range(25):
        case = expand(seed, profile)
        check_case(case, "case")
        assert case_of(token_of(case)) == (case, "")


def test_keys_are_distinct_without_their_units() -> None:
    """`late_ppm` and a `late_ns` would both be `late`."""
    waiting: list[type[Any]] = [Case]
    while waiting:
        slots = slots_of(waiting.pop())
        assert len({slot.key for slot in slots}) == len(slots)
        kinds = [each for slot in slots for each in (slot.kind, *get_args(slot.kind))]
        waiting.extend(kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind))


def test_a_new_kind_of_fault_needs_no_entry_anywhere() -> None:
    for kind in FaultKind:
        table = {"at": "1ms", "kind": kind.value, "for": "1ms"}
        case = from_table(Case, {"seed": 1, "plan": [table]}, "case")
        assert case.plan[0].kind is kind


def test_defaults_are_left_out() -> None:
    assert to_table(Case(seed=4)) == {"seed": 4}


def test_a_token_of_other_sources_is_run_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    here, case = code_hash(), expand(3)
    monkeypatch.setattr("quorker.sim.cases.replay.code_hash", lambda: "000000000000")
    token = token_of(case)
    monkeypatch.undo()
    found, warning = case_of(token)
    assert found == case
    assert warning.startswith(f"this token was made by other sources (000000000000, here {here})")


def test_the_sources_have_a_name_that_any_change_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "sim").mkdir()
    monkeypatch.setattr("quorker.core.__path__", [str(tmp_path / "core")])
    monkeypatch.setattr("quorker.sim.cases.replay.__file__", str(tmp_path / "sim/cases/replay.py"))
    names = [code_hash()]
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "core/rules.py").write_text(text)
        names.append(code_hash())
    assert len(set(names)) == 3
    (tmp_path / "core/rules.py").write_bytes(b"a = 2\r\n")
    assert code_hash() == names[-1]


def bomb() -> str:
    """Small, but larger than memory when it is unpacked."""
    return PREFIX + base64.b85encode(zlib.compress(bytes(CASE_BYTES_MAX + 1))).decode()


@pytest.mark.parametrize(
    "token", ["", "rs2:abc", PREFIX, f"{PREFIX}abc", f"{PREFIX}\u00e9", token_of(expand(1))[:-3], "rs1:" + "0" * 50, bomb()]
)  # fmt: skip
def test_a_damaged_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match=r"token"):
        case_of(token)


def test_a_token_whose_case_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"token.voters: 99 must be from 1 to 16"):
        case_of(token_of(replace(expand(1), voters=99)))


def test_whole_numbers_need_no_unit() -> None:
    assert {slot.key: slot.unit for slot in slots_of(Case)}["voters"] is WHOLE
