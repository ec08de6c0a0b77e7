"""Job ids out of tokens: 13 characters of Crockford's base32, fixed width, so that they sort as they were made."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ID_CHARS: Final = 13
_PAIRS: Final = tuple(high + low for high in ALPHABET for low in ALPHABET)


def job_id_of(token: int) -> str:
    """The id of the job created under this token (0 <= token < 2**65)."""
    return _head(token >> 15) + ALPHABET[token >> 10 & 31] + _PAIRS[token & 1023]


@lru_cache(maxsize=16)
def _head(high: int) -> str:
    """The first ten characters, which all ids of one log entry share."""
    return "".join([_PAIRS[high >> shift & 1023] for shift in range(40, -1, -10)])
