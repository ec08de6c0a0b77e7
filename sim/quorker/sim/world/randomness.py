"""Every draw of a simulated run: streams and single draws, each keyed by the run's seed and by its purpose.

A draw added for one purpose never moves another's, and removing a fault does not re-deal everybody's latencies. Only
the generator's raw bits and integer arithmetic are used, so a seed means the same on every Python and platform.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from hashlib import blake2b
from random import Random
from typing import Final, TypeVar

MILLION: Final = 1_000_000
WORD: Final = (1 << 64) - 1

T = TypeVar("T")


def key(seed: int, *purpose: int | str) -> int:
    """The 64-bit key of one purpose within one run."""
    material = "/".join(map(str, (seed, *purpose))).encode()
    return int.from_bytes(blake2b(material, digest_size=8).digest(), "little")


def mix(word: int) -> int:
    """Scramble a 64-bit word: neighbouring inputs give unrelated outputs (the finalizer of splitmix64)."""
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


class Stream:
    """A sequence of draws for one purpose."""

    __slots__ = ("_bits",)

    def __init__(self, seed: int, *purpose: int | str) -> None:
        self._bits = Random(key(seed, *purpose)).getrandbits

    def below(self, limit: int) -> int:
        """An integer in 0..limit-1, `limit` at most 2**32."""
        return self._bits(32) * limit >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in low..high, both included."""
        return low + self._bits(64) * (high - low + 1) // (WORD + 1)

    def chance(self, per_million: int) -> bool:
        return self._bits(32) * MILLION >> 32 < per_million

    def choice(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def log_uniform(self, low: int, high: int) -> int:
        """An integer in low..high whose magnitude is uniform: short times are drawn as often as long ones."""
        doublings = max(1, (high // low).bit_length())
        floor = low << self.below(doublings)
        return min(high, floor + self._bits(64) % floor)

    def shuffle(self, items: MutableSequence[T]) -> None:
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items, in random order."""
        pool = list(items)
        self.shuffle(pool)
        return pool[:count]
