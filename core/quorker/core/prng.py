"""Seeded draws for the pure core: a hash of (seed, counter), so that no draw depends on how many came before it.

Not for secrets. Must not hold any state: whoever draws keeps the counter.
"""

from __future__ import annotations

from typing import Final

WORD: Final = (1 << 64) - 1
GOLDEN_GAMMA: Final = 0x9E3779B97F4A7C15


def mix(word: int) -> int:
    """Scramble the low 64 bits of `word` (the output function of splitmix64)."""
    word = (word + GOLDEN_GAMMA) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def derive(seed: int, purpose: int) -> int:
    """The seed of one purpose: two purposes of one seed share no draws."""
    return mix(mix(seed) ^ (mix(~purpose) >> 1))


def uniform(seed: int, counter: int, low: int, high: int) -> int:
    """The draw number `counter` of `seed`, evenly from low..high (both included)."""
    return low + ((mix(mix(seed) + counter) * (high - low + 1)) >> 64)
