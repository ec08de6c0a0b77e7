"""Configuration changes beyond the vectors: their bytes, hostile ones too, and configurations that cannot be."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.raft.confchange import (
    NODE_ID_MAX,
    STEPS_MAX,
    ChangeKind,
    ChangeStep,
    ConfigChange,
    ConfigRefusedError,
    Configuration,
    Members,
    Refusal,
    Transition,
    apply_change,
    check_members,
    decode_change,
    encode_change,
    enter_joint,
    restore,
    simple,
    to_conf_state,
)
from quorker.core.raft.messages import ConfState, EntryKind
from quorker.core.raft.progress import ProgressTemplate
from quorker.core.raft.quorum import JointVoters

TEMPLATE = ProgressTemplate(last_index=9, max_inflight_messages=4)
ADD_3 = ChangeStep(ChangeKind.ADD_VOTER, 3)
steps = st.builds(ChangeStep, st.sampled_from(ChangeKind), st.integers(0, 6))
changes = st.builds(
    ConfigChange, st.lists(steps, max_size=6).map(tuple), st.sampled_from(Transition), st.binary(max_size=9)
)


def members(*voters: int) -> Members:
    return restore(ConfState(voters=voters), TEMPLATE)


@given(changes)
def test_bytes_give_the_change_again(change: ConfigChange) -> None:
    assert decode_change(encode_change(change)) == change


def test_bytes_of_a_single_change_give_it_again() -> None:
    change = ConfigChange((ADD_3,), entry_kind=EntryKind.CONFIG)
    assert decode_change(encode_change(change), EntryKind.CONFIG) == change


def test_the_empty_change_is_empty_bytes() -> None:
    assert encode_change(ConfigChange()) == b""
    assert decode_change(b"").leaves_joint


@given(st.binary(max_size=40), st.sampled_from(EntryKind))
def test_hostile_bytes_are_a_value_error_or_canonical(data: bytes, kind: EntryKind) -> None:
    try:
        change = decode_change(data, kind)
    except ValueError:
        return
    assert encode_change(change) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x93\x00\x90",  # cut off
        b"\x93\x00\x90\xc4\x01a!",  # something follows
        b"\x93\xc2\x90\xc4\x01a",  # false for a number
        b"\x93\x00\x90\xa1a",  # text for bytes
        b"\x93\x09\x90\xc4\x01a",  # no such transition
        b"\x93\x00\x91\x92\x09\x01\xc4\x00",  # no such step
        b"\x93\x00\x91\x92\x00\xff\xc4\x00",  # a negative node id
        b"\x93\x00\x91\x93\x00\x01\x01\xc4\x00",  # a step of three
        b"\x93\x00\x91\x92\x00\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xc4\x00",  # a node id too large
        b"\x94\x00\x90\xc4\x01a\x00",
        b"\x91" * 5000,  # deep
        b"\xdd\xff\xff\xff\xff",  # a list that claims to be long
        b"\x93\x00\x90\xc4\x00",  # the empty change, but not as empty bytes
    ],
)
def test_malformed_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (any wording: the type is the contract)
        decode_change(data)


@pytest.mark.parametrize("data", [b"", encode_change(ConfigChange((ADD_3, ADD_3)))])
def test_a_single_change_has_one_step(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode_change(data, EntryKind.CONFIG)


def test_impossible_changes_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="normal entry"):
        ConfigChange((ADD_3,), entry_kind=EntryKind.NORMAL)
    with pytest.raises(ValueError, match="never joint"):
        ConfigChange((ADD_3,), Transition.EXPLICIT, entry_kind=EntryKind.CONFIG)
    with pytest.raises(ValueError, match="at most"):
        ConfigChange((ADD_3,) * (STEPS_MAX + 1))
    with pytest.raises(ValueError, match="not a node id"):
        ChangeStep(ChangeKind.REMOVE, NODE_ID_MAX + 1)


@pytest.mark.parametrize(
    ("change", "joint", "by_itself"),
    [
        (ConfigChange((ADD_3,)), False, True),
        (ConfigChange((ADD_3, ADD_3)), True, True),
        (ConfigChange((ADD_3,), Transition.IMPLICIT), True, True),
        (ConfigChange((ADD_3,), Transition.EXPLICIT), True, False),
        (ConfigChange((), Transition.EXPLICIT), True, False),
    ],
)
def test_transition_decides_how_a_change_is_made(change: ConfigChange, joint: bool, by_itself: bool) -> None:
    config, _ = apply_change(members(1, 2), change, TEMPLATE)
    assert config.is_joint is joint
    assert config.auto_leave is (joint and by_itself)


def test_a_joint_configuration_is_left_by_the_empty_change() -> None:
    joint = apply_change(members(1, 2), ConfigChange((ADD_3,), Transition.EXPLICIT), TEMPLATE)
    config, progress = apply_change(joint, ConfigChange(), TEMPLATE)
    assert config == Configuration(JointVoters((1, 2, 3)))
    assert sorted(progress) == [1, 2, 3]


def test_a_refused_change_leaves_everything_as_it_was() -> None:
    config, progress = before = members(1, 2, 3)
    known = dict(progress)
    demote_and_more = (ADD_3, ChangeStep(ChangeKind.ADD_LEARNER, 1), ChangeStep(ChangeKind.REMOVE, 2))
    with pytest.raises(ConfigRefusedError) as refused:
        simple(before, demote_and_more, TEMPLATE)
    assert refused.value.reason is Refusal.NEEDS_JOINT
    assert before == (config, known)
    assert not progress[1].is_learner


def test_demotion_and_promotion_keep_the_progress() -> None:
    before = members(1, 2, 3)
    before[1][3].match_index = 8
    demoted = simple(before, (ChangeStep(ChangeKind.ADD_LEARNER, 3),), TEMPLATE)
    assert (demoted[1][3].is_learner, demoted[1][3].match_index) == (True, 8)
    promoted = simple(demoted, (ADD_3,), TEMPLATE)
    assert (promoted[1][3].is_learner, promoted[1][3].match_index) == (False, 8)


def test_removal_and_return_start_another_session() -> None:
    before = members(1, 2, 3)
    before[1][3].match_index = 8
    removed = simple(before, (ChangeStep(ChangeKind.REMOVE, 3),), TEMPLATE)
    back = simple(removed, (ADD_3,), ProgressTemplate(12, 4, session=12))
    assert (back[1][3].match_index, back[1][3].session) == (0, 12)


@given(changes, st.lists(changes, max_size=4))
def test_every_accepted_change_is_consistent_and_restorable(
    first: ConfigChange, more: list[ConfigChange]
) -> None:
    current = members(1, 2, 3)
    for change in (first, *more):
        with contextlib.suppress(ConfigRefusedError):
            current = apply_change(current, change, TEMPLATE)
        check_members(current)
        assert restore(to_conf_state(current[0]), TEMPLATE)[0] == current[0]
        assert sorted(current[1]) == list(current[0].members())


def test_restoring_sorts_and_deduplicates() -> None:
    config, _ = restore(ConfState(voters=(3, 1, 3), learners=(9, 5)), TEMPLATE)
    assert config == Configuration(JointVoters((1, 3)), learners=(5, 9))


@pytest.mark.parametrize(
    "conf_state",
    [
        ConfState(learners=(1,)),
        ConfState(voters_outgoing=(1,)),
        ConfState(voters=(0,)),
        ConfState(voters=(-1, 2)),
        ConfState(voters=(1,), learners=(1,)),
        ConfState(voters=(1,), voters_outgoing=(2,), learners=(2,)),
        ConfState(voters=(1,), learners_next=(2,)),
        ConfState(voters=(1,), auto_leave=True),
    ],
)
def test_impossible_stored_configurations_are_refused(conf_state: ConfState) -> None:
    with pytest.raises(ConfigRefusedError):
        restore(conf_state, TEMPLATE)


def test_tampered_progress_is_noticed() -> None:
    config, progress = enter_joint(members(1, 2, 3), (ChangeStep(ChangeKind.ADD_LEARNER, 3),), TEMPLATE)
    check_members((config, progress))
    with pytest.raises(ConfigRefusedError, match="has no progress"):
        check_members((config, {key: known for key, known in progress.items() if key != 2}))
    with pytest.raises(ConfigRefusedError, match="is tracked as what it is not"):
        check_members((config, progress | {2: progress[2].with_learner(True)}))
