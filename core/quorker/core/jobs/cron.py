"""When a cron expression is due: instants in ms since the epoch, evaluated in a time zone. A thin layer over cronsim.

Only the leader asks, when it proposes, and the edges, to check what a user wrote. The time zone data of the machine are
part of the answer, so nothing that is applied may depend on this module.

Five fields, six (seconds first), or one of the macros. Where clocks change:

* Fixed times (neither minute nor hour begins with `*`) happen once a day each. One that the clock skips happens right
  after the gap; those that fall together are one. One that the clock shows twice happens the first time.
* All others follow the clock as it goes: what it skips does not happen, what it shows twice happens twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from quorker.core.errors import InvalidInput

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)

MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class BadSchedule(InvalidInput):
    """The expression or the zone means nothing here, or the schedule has no next instant. Says which and why."""


def check(cron: str, zone: str) -> None:
    """Raises `BadSchedule` for what cannot be evaluated here, or never happens."""
    next_slot(cron, zone, 0)


def next_slot(cron: str, zone: str, after_wt: int) -> int:
    """The first slot after that instant. Raises `BadSchedule`."""
    found = next(_slots(cron, zone, after_wt), None)
    if found is None:
        raise BadSchedule(f"cron {cron!r}: it never happens after {_shown(after_wt)}")
    return found


def slots(cron: str, zone: str, after_wt: int, until_wt: int, limit: int) -> list[int]:
    """Up to `limit` slots after the one instant and not after the other, ascending. Raises `BadSchedule`."""
    found: list[int] = []
    for slot in islice(_slots(cron, zone, after_wt), limit):
        if slot > until_wt:
            break
        found.append(slot)
    return found


def _slots(cron: str, zone: str, after_wt: int) -> Iterator[int]:
    """Strictly ascending, whatever the clocks do; the same ones from wherever they are counted."""
    last = after_wt
    try:
        for instant in _instants(cron, zone_of(zone), after_wt):
            slot = (instant - EPOCH) // timedelta(milliseconds=1)
            if slot > last:
                last = slot
                yield slot
    except BadSchedule:
        raise
    except (OverflowError, OSError) as error:
        raise BadSchedule(f"cron {cron!r}: {_shown(last)} is outside the calendar") from error
    except (CronSimError, ValueError, AssertionError, TypeError) as error:
        why = f"{error}" or "it cannot be read"
        raise BadSchedule(
            f"cron {cron!r}: {why}; write minute, hour, day of month, month and day of week "
            f"(or six fields, seconds first), or one of {', '.join(MACROS)}"
        ) from error


def _instants(cron: str, zone: tzinfo, after_wt: int) -> Iterator[datetime]:
    """In UTC, from that second on; may repeat, or begin a little before it."""
    expression = _plain(cron)
    start = EPOCH + timedelta(seconds=after_wt // 1000)
    if zone is UTC:
        yield from CronSim(expression, start)
    elif _is_fixed(expression):
        for shown in CronSim(expression, _shown_by(zone, start)):
            yield _first_showing(shown, zone)
    else:
        yield from _every_showing(expression, zone, start)


def _every_showing(expression: str, zone: tzinfo, start: datetime) -> Iterator[datetime]:
    """As long as a clock does not change, it is a clock without changes; where it does, another one goes on.

    (cronsim can follow a clock by itself, but it misses some times where one changes by half an hour.)
    """
    moment, offset = start, _offset(zone, start)
    while True:
        change: datetime | None = None
        for shown in CronSim(expression, (moment + offset).replace(tzinfo=None)):
            instant = shown.replace(tzinfo=UTC) - offset
            change = _first_change(zone, moment, instant, offset)
            if change is not None:
                break
            yield instant
            moment = instant
        if change is None:
            return
        moment, offset = change - _SECOND, _offset(zone, change)


def _first_change(zone: tzinfo, after: datetime, until: datetime, offset: timedelta) -> datetime | None:
    """The first second after the one instant, and not after the other, at which the clock has another offset."""
    low, high = after, min(after + _DAY, until)
    while low < until and _offset(zone, high) == offset:
        low, high = high, min(high + _DAY, until)
    if low >= until:
        return None
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    return high


def _offset(zone: tzinfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def _shown_by(zone: tzinfo, instant: datetime) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


def _plain(cron: str) -> str:
    if not cron.startswith("@"):
        return cron
    expression = MACROS.get(cron.lower())
    if expression is None:
        raise BadSchedule(f"cron {cron!r}: the macros are {', '.join(MACROS)}")
    return expression


def _is_fixed(expression: str) -> bool:
    """Neither minute nor hour is a star."""
    return not any(part.startswith("*") for part in expression.split()[-5:-3])


def _first_showing(shown: datetime, zone: tzinfo) -> datetime:
    """The first instant at which the clock shows that time or, when it skips it, the next."""
    instant = _as_shown(shown, zone)
    if _shown_by(zone, instant) == shown:
        return instant
    shown = shown.replace(second=0)
    while _shown_by(zone, instant := _as_shown(shown, zone)) != shown:
        shown += _MINUTE
    return instant


def _as_shown(shown: datetime, zone: tzinfo) -> datetime:
    return shown.replace(tzinfo=zone, fold=0).astimezone(UTC)


@lru_cache(maxsize=64)
def zone_of(zone: str) -> tzinfo:
    """The zone of a name. Raises `BadSchedule` for one that this machine does not know."""
    if zone == "UTC":
        return UTC
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise BadSchedule(
            f"zone {zone!r}: not known on this machine; use a name as Europe/Berlin, or UTC "
            "(the package tzdata brings them where the system has none)"
        ) from None


def _shown(at_wt: int) -> str:
    try:
        return (EPOCH + timedelta(milliseconds=at_wt)).isoformat()
    except OverflowError:
        return f"{at_wt} ms after 1970"
