"""The log in memory: indexes, terms, limits, compaction."""

from __future__ import annotations

import pytest

from quorker.core.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog, are_consecutive, payload_bytes
from quorker.core.raft.messages import ConfState, Entry, SnapshotMeta

TERMS = (1, 1, 4, 4, 5, 6)  # of the entries 11..16


def log() -> RaftLog:
    return RaftLog(10, 1, [Entry(term, index, b"x" * 10) for index, term in enumerate(TERMS, 11)])


def test_bounds() -> None:
    assert (log().first_index, log().last_index, log().last_term) == (11, 16, 6)
    empty = RaftLog(10, 3)
    assert (empty.first_index, empty.last_index, empty.last_term) == (11, 10, 3)


@pytest.mark.parametrize(
    ("index", "term"), [(9, None), (10, 1), (11, 1), (13, 4), (16, 6), (17, None), (-1, None)]
)
def test_the_term_of_an_index_is_known_for_the_base_and_every_entry(index: int, term: int | None) -> None:
    assert log().term_at(index) == term


def test_an_entry_is_found_by_its_index() -> None:
    entry = log().entry(13)
    assert entry is not None
    assert (entry.index, entry.term) == (13, 4)
    assert log().entry(10) is log().entry(17) is None


def test_entries_of_a_half_open_range() -> None:
    assert [entry.index for entry in log().entries(12, 14)] == [12, 13]
    assert log().entries(14, 14) == ()
    assert [entry.index for entry in log().entries(1, 12)] == [11]  # what is compacted is not there
    assert [entry.index for entry in log().entries(16, 99)] == [16]


@pytest.mark.parametrize(("fit", "count"), [(0, 1), (1, 1), (2, 2), (5, 5), (9, 6)])
def test_a_byte_limit_takes_as_many_as_fit_and_at_least_one(fit: int, count: int) -> None:
    size = ENTRY_OVERHEAD_BYTES + 10
    assert len(log().entries(11, 17, max_bytes=fit * size)) == count
    assert len(log().entries(11, 17, max_bytes=fit * size + size - 1)) == count


@pytest.mark.parametrize(
    ("last_index", "last_term", "is_up_to_date"),
    [(16, 6, True), (17, 6, True), (15, 6, False), (11, 7, True), (99, 5, False)],
)
def test_which_of_two_logs_is_more_up_to_date(last_index: int, last_term: int, is_up_to_date: bool) -> None:
    assert log().is_up_to_date(last_index, last_term) is is_up_to_date


@pytest.mark.parametrize(
    ("first", "terms", "conflict"),
    [(11, [1, 1, 4], 0), (15, [5, 6, 6], 17), (13, [4, 5], 14), (17, [6], 17), (11, [2], 11), (11, [], 0)],
)
def test_the_first_entry_that_is_new_or_different(first: int, terms: list[int], conflict: int) -> None:
    assert log().find_conflict([Entry(term, index) for index, term in enumerate(terms, first)]) == conflict


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [
        (16, 6, (16, 6)),
        (16, 5, (15, 5)),
        (16, 4, (14, 4)),
        (16, 3, (12, 1)),
        (16, 0, (9, 0)),  # everything we know is of a later term; below the base nothing is known
        (99, 4, (99, 0)),
        (0, 3, (0, 0)),
    ],
)
def test_where_two_logs_may_agree_skips_whole_terms(index: int, term: int, found: tuple[int, int]) -> None:
    assert log().find_conflict_by_term(index, term) == found


def test_append_and_truncate() -> None:
    subject = log()
    subject.truncate_from(13)
    assert (subject.last_index, subject.last_term) == (12, 1)
    subject.append([Entry(7, 13), Entry(7, 14)])
    assert (subject.last_index, subject.last_term) == (14, 7)
    subject.truncate_from(11)
    assert (subject.first_index, subject.last_index, subject.last_term) == (11, 10, 1)


def test_gaps_are_refused() -> None:
    with pytest.raises(AssertionError):
        log().append([Entry(7, 18)])
    with pytest.raises(AssertionError):
        log().truncate_from(10)


def test_compaction_keeps_the_term_before_the_first_entry() -> None:
    subject = log()
    subject.compact(14)
    assert (subject.first_index, subject.last_index) == (14, 16)
    assert (subject.term_at(13), subject.term_at(12)) == (4, None)
    subject.compact(5)
    assert subject.first_index == 14
    subject.compact(99)
    assert (subject.first_index, subject.last_index, subject.last_term) == (17, 16, 6)


def test_a_snapshot_starts_the_log_anew() -> None:
    subject = log()
    subject.restart_after(SnapshotMeta(40, 8, ConfState((1,))))
    assert (subject.first_index, subject.last_index, subject.last_term) == (41, 40, 8)


def test_payload_counts_data_only() -> None:
    assert payload_bytes(log().entries(11, 14)) == 30
    assert payload_bytes([Entry(1, 1, b"abc")]) == 3
    assert payload_bytes([]) == payload_bytes([Entry(1, 1)]) == 0


@pytest.mark.parametrize(
    ("entries", "holds"),
    [
        ([], True),
        ([(3, 11), (3, 12), (5, 13)], True),
        ([(3, 12)], False),  # a gap
        ([(3, 11), (3, 11)], False),  # twice the same
        ([(4, 11), (3, 12)], False),  # terms fall
        ([(1, 11)], False),  # before the term of what precedes it
        ([(6, 11)], False),  # after the leader's term
    ],
)
def test_entries_that_could_not_be_a_leaders_are_noticed(entries: list[tuple[int, int]], holds: bool) -> None:
    found = [Entry(term, index) for term, index in entries]
    assert are_consecutive(found, previous_index=10, previous_term=2, term=5) is holds
