"""What a leader knows of a follower: probing, pipelining, snapshots, and the in-flight window."""

from __future__ import annotations

import pytest

from quorker.core.raft.progress import (
    InflightWindow,
    Progress,
    ProgressState,
    ProgressTemplate,
    committed,
    quorum_active,
)
from quorker.core.raft.quorum import JointVoters


def progress(match: int = 0, next_index: int = 1, *, max_messages: int = 256, max_bytes: int = 0) -> Progress:
    return Progress(next_index, InflightWindow(max_messages, max_bytes), match_index=match)


def replicating(match: int, *, max_messages: int = 256, max_bytes: int = 0) -> Progress:
    known = progress(match, match + 1, max_messages=max_messages, max_bytes=max_bytes)
    known.become_replicate()
    return known


def test_window_is_full_at_its_number_of_messages() -> None:
    window = InflightWindow(2)
    window.add(5, 10)
    assert not window.is_full
    window.add(6, 10)
    assert window.is_full
    window.free_to(5)
    assert not window.is_full
    assert (len(window), window.bytes) == (1, 10)


def test_window_is_full_once_its_bytes_are_reached_and_lets_one_append_cross() -> None:
    window = InflightWindow(100, 20)
    window.add(1, 19)
    assert not window.is_full
    window.add(2, 1000)
    assert window.is_full
    window.free_to(2)
    assert (len(window), window.bytes, window.is_full) == (0, 0, False)


def test_window_frees_only_what_is_acknowledged() -> None:
    window = InflightWindow(10)
    for index in (3, 6, 9):
        window.add(index, 1)
    window.free_to(2)
    assert len(window) == 3
    window.free_to(8)
    assert len(window) == 1


def test_window_refuses_what_its_user_must_not_do() -> None:
    window = InflightWindow(1)
    window.add(1, 1)
    with pytest.raises(AssertionError, match="past the in-flight limit"):
        window.add(2, 1)
    other = InflightWindow(5)
    other.add(7, 1)
    with pytest.raises(AssertionError, match="must rise"):
        other.add(7, 1)


def test_probe_starts_after_what_matches() -> None:
    known = replicating(4)
    known.sent_entries(3, 30)
    known.sent_commit = 6
    known.become_probe()
    assert (known.state, known.next_index, len(known.inflight)) == (ProgressState.PROBE, 5, 0)
    assert known.sent_commit == 4


def test_probe_after_a_snapshot_starts_behind_it() -> None:
    known = progress(1, 5)
    known.become_snapshot(10)
    assert (known.next_index, known.is_paused, known.sent_commit) == (11, True, 10)
    known.become_probe()
    assert (known.next_index, known.pending_snapshot, known.is_paused) == (11, 0, False)


def test_probe_after_a_failed_snapshot_starts_where_it_was() -> None:
    known = progress(1, 5)
    known.become_snapshot(10)
    known.pending_snapshot = 0
    known.become_probe()
    assert known.next_index == 2


def test_a_probe_waits_for_its_answer() -> None:
    known = progress(2, 3)
    known.sent_entries(0, 0)
    assert not known.is_paused
    known.sent_entries(2, 10)
    assert known.is_paused
    assert known.next_index == 3
    assert known.maybe_update(4)
    assert not known.is_paused


def test_replication_runs_ahead_until_the_window_is_full() -> None:
    known = replicating(2, max_messages=2)
    known.sent_entries(3, 10)
    assert (known.next_index, known.is_paused) == (6, False)
    known.sent_entries(1, 10)
    assert (known.next_index, known.is_paused) == (7, True)


def test_nothing_may_be_sent_while_a_snapshot_is_on_its_way() -> None:
    known = progress()
    known.become_snapshot(10)
    with pytest.raises(AssertionError, match="waits for a snapshot"):
        known.sent_entries(1, 1)


@pytest.mark.parametrize(
    ("acknowledged", "changed", "match", "next_index"),
    [(2, False, 3, 5), (3, False, 3, 5), (4, True, 4, 5), (5, True, 5, 6)],
)
def test_acknowledgements_only_move_forward(
    acknowledged: int, changed: bool, match: int, next_index: int
) -> None:
    known = progress(3, 5)
    assert known.maybe_update(acknowledged) is changed
    assert (known.match_index, known.next_index) == (match, next_index)


def test_rejection_of_what_was_acknowledged_is_stale() -> None:
    known = replicating(5)
    known.sent_entries(4, 1)
    assert not known.maybe_decrease(5, 2)
    assert known.next_index == 10
    assert known.maybe_decrease(9, 2)
    assert known.next_index == 6


@pytest.mark.parametrize(
    ("match", "next_index", "rejected", "hint", "changed", "expected"),
    [
        (0, 10, 8, 5, False, 10),  # not the last probe
        (0, 10, 9, 9, True, 9),
        (0, 10, 9, 2, True, 3),  # the hint skips
        (0, 10, 9, 50, True, 9),  # but never forward
        (4, 10, 9, 2, True, 5),  # nor behind what matches
    ],
)
def test_rejected_probe_steps_back(
    match: int, next_index: int, rejected: int, hint: int, changed: bool, expected: int
) -> None:
    known = progress(match, next_index)
    known.paused, known.sent_commit = True, 9
    assert known.maybe_decrease(rejected, hint) is changed
    assert known.next_index == expected
    assert known.paused is not changed
    assert known.sent_commit == (min(9, expected - 1) if changed else 9)


def test_a_commit_index_is_sent_once() -> None:
    known = replicating(5)
    known.sent_entries(2, 1)
    assert known.can_bump_commit(6)
    known.sent_commit = 7
    assert not known.can_bump_commit(8)  # it cannot have more than the entries up to 7


def test_promotion_keeps_what_is_known_and_leaves_the_original() -> None:
    known = replicating(5)
    known.session, known.sent_commit = 9, 4
    known.sent_entries(2, 8)
    twin = known.with_learner(True)
    assert (known.is_learner, twin.is_learner) == (False, True)
    for name in ("match_index", "next_index", "sent_commit", "state", "paused", "session", "inflight"):
        assert getattr(twin, name) == getattr(known, name)


def test_newcomers_start_at_the_end_of_the_log_and_count_as_active() -> None:
    template = ProgressTemplate(last_index=7, max_inflight_messages=3, max_inflight_bytes=100, session=4)
    known = template.new(is_learner=True)
    assert (known.match_index, known.next_index, known.is_learner) == (0, 7, True)
    assert (known.recent_active, known.session) == (True, 4)
    assert (known.inflight.max_messages, known.inflight.max_bytes) == (3, 100)
    assert ProgressTemplate(0, 1).new().next_index == 1


def test_both_halves_of_a_joint_configuration_commit_and_keep_the_leader() -> None:
    members = {node_id: progress(node_id * 10, 100) for node_id in (1, 2, 3, 4)}
    voters = JointVoters((2, 3, 4), (1, 2))
    assert committed(voters, members) == 10
    for node_id in (3, 4):
        members[node_id].recent_active = True
    assert not quorum_active(voters, members)
    for node_id in (1, 2):
        members[node_id].recent_active = True
    assert quorum_active(voters, members)
