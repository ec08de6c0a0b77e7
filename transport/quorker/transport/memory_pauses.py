"""Keeps Python's cyclic garbage collector from stopping the loop: for processes whose main business is to be a member.

A full collection walks every record of the job store: 100 ms and more with some 100,000 jobs, which delays heartbeats.
The store makes no cycles, so its records can be taken out of the collector's sight. That is a decision about the whole
process, with a price: cyclic garbage that lives long enough to be frozen is never freed. So `quorker node` does it, and
an application that embeds a node may.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_THRESHOLD: Final = 50_000
MIDDLE_THRESHOLD: Final = 50
OLD_THRESHOLD: Final = 1_000_000  # so rare that `freeze_store` always comes first


def calm_collector() -> None:
    """Collect once, freeze what is there, and from now on collect only young objects by themselves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, MIDDLE_THRESHOLD, OLD_THRESHOLD)
    _State.calm = True


def freeze_store() -> None:
    """Called after each snapshot: what survived until now is frozen too. Nothing when `calm_collector` was not called."""
    if _State.calm:
        gc.collect(1)
        gc.freeze()


class _State:
    """Whether this process asked for it."""

    calm = False
