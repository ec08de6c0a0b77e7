"""Ids: fixed width, sorted as they were made, and out of an alphabet without look-alikes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quorker.core.jobs.bounds import job_id
from quorker.core.jobs.ids import ALPHABET, ID_CHARS, job_id_of

tokens = st.integers(0, 2**63 - 1)


def test_known_ids() -> None:
    assert job_id_of(0) == "0" * ID_CHARS
    assert job_id_of(31) == "000000000000Z"
    assert job_id_of(2**63 - 1) == "7ZZZZZZZZZZZZ"


@given(tokens)
def test_an_id_is_the_number_in_base_32(token: int) -> None:
    number = 0
    for character in job_id_of(token):
        number = number * 32 + ALPHABET.index(character)
    assert number == token


@given(tokens, tokens)
def test_ids_sort_as_tokens_do(one: int, other: int) -> None:
    assert (job_id_of(one) < job_id_of(other)) == (one < other)
    assert len(job_id_of(one)) == ID_CHARS
    assert job_id(job_id_of(one)) == job_id_of(one)
