"""Counters of ended jobs, in total and by UTC day and hour, under the keys that dashboards of the contract read.

They are derived by the state machine from the transitions themselves, so no retry can count a job twice. One apply adds
to each counter once, however many jobs ended in it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from quorker.core.jobs.lifecycle import DELETED, FAILED, SUCCEEDED
from quorker.core.jobs.tables import Tables

HOUR_MS: Final = 3600 * 1000
DAY_TTL_MS: Final = 31 * 24 * HOUR_MS
HOUR_TTL_MS: Final = 24 * HOUR_MS
LAST_HOUR: Final = 253402300799999 // HOUR_MS  # the year 9999 ends
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
COUNTED: Final = {SUCCEEDED: "stats:succeeded", FAILED: "stats:failed", DELETED: "stats:deleted"}


@lru_cache(maxsize=4)
def bucket_names(hour: int) -> tuple[str, str]:
    """(`yyyy-MM-dd`, `yyyy-MM-dd-HH`) of an hour since the epoch, UTC."""
    day = EPOCH + timedelta(hours=min(hour, LAST_HOUR))
    return day.strftime("%Y-%m-%d"), day.strftime("%Y-%m-%d-%H")


def count_ended(tables: Tables) -> None:
    """Bring what this apply has ended into the counters. Leaving Succeeded or Deleted takes back from the total."""
    counters, ended, left = tables.collections.counters, tables.ended_counts, tables.left_counts
    day, hour = bucket_names(tables.wt // HOUR_MS)
    for state, key in COUNTED.items():
        entered = ended.get(state, 0)
        change = entered - left.get(state, 0)
        if change:
            counters.add(key, change)
        if entered:
            counters.add(f"{key}:{day}", entered, _whole_hours(tables.lt + DAY_TTL_MS))
            counters.add(f"{key}:{hour}", entered, _whole_hours(tables.lt + HOUR_TTL_MS))
    ended.clear()
    left.clear()


def _whole_hours(lt: int) -> int:
    """Rounded up, so that a counter's expiry moves once an hour and not with every job."""
    return -(-lt // HOUR_MS) * HOUR_MS
