"""Cron: what an expression means, what is refused, and what happens where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeAlias
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.errors import InvalidInput
from quorker.core.jobs import cron
from quorker.core.jobs.bounds import INSTANT_MAX
from quorker.core.jobs.cron import MACROS, BadSchedule

HOUR = 3600 * 1000
DAY = 24 * HOUR


def at(*when: int, zone: str = "UTC") -> int:
    return int(datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()) * 1000  # type: ignore[arg-type, misc]  # y, m, d, ...


def shown(instants: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(each / 1000, ZoneInfo(zone)).strftime("%H:%M:%S%z") for each in instants]


def test_the_next_slot_comes_after_the_instant_and_never_at_it() -> None:
    nine = at(2026, 1, 1, 9)
    assert cron.next_slot("0 9 * * *", "UTC", nine - 1) == nine
    assert cron.next_slot("0 9 * * *", "UTC", nine) == nine + DAY
    assert cron.next_slot("0 9 * * *", "UTC", nine + 1) == nine + DAY


def test_six_fields_begin_with_seconds() -> None:
    start = at(2026, 1, 1)
    assert cron.slots("*/20 0 * * * *", "UTC", start, start + 60_000, 10) == [start + 20_000, start + 40_000]
    assert cron.slots("* * * * *", "UTC", start, start + 120_000, 10) == [start + 60_000, start + 120_000]


def test_slots_end_at_the_instant_or_at_the_limit() -> None:
    start = at(2026, 1, 1)
    assert cron.slots("0 * * * *", "UTC", start, start + 3 * HOUR, 2) == [start + HOUR, start + 2 * HOUR]
    assert cron.slots("0 * * * *", "UTC", start, start + HOUR - 1, 2) == []
    assert cron.slots("0 * * * *", "UTC", start, start + HOUR, 0) == []


@pytest.mark.parametrize("macro", MACROS)
def test_a_macro_stands_for_an_expression(macro: str) -> None:
    start = at(2026, 1, 1, 0, 0, 30)
    assert cron.next_slot(macro.upper(), "UTC", start) == cron.next_slot(MACROS[macro], "UTC", start)


@pytest.mark.parametrize(
    ("expression", "zone", "named"),
    [
        ("", "UTC", "fields"),
        ("* * * *", "UTC", "fields"),
        ("* * * * * * *", "UTC", "fields"),
        ("61 * * * *", "UTC", "minute"),
        ("0-99999999999 * * * *", "UTC", "minute"),
        ("* 24 * * *", "UTC", "hour"),
        ("* * * * MOO", "UTC", "day-of-week"),
        ("* * * * ²", "UTC", "day-of-week"),
        ("*/0 * * * *", "UTC", "minute"),
        ("* * * * 1,2#1/2", "UTC", "cron"),
        ("1" * 190 + " * * * *", "UTC", "minute"),
        ("@fortnightly", "UTC", "@weekly"),
        ("0 0 30 2 *", "UTC", "day-of-month"),
        ("0 0 31 4,6 *", "UTC", "day-of-month"),
        ("0 0 * * *", "Mars/Phobos", "Europe/Berlin"),
        ("0 0 * * *", "America", "not known"),
        ("0 0 * * *", "/etc/localtime", "not known"),
    ],
)
def test_what_means_nothing_is_refused_by_name(expression: str, zone: str, named: str) -> None:
    with pytest.raises(BadSchedule, match=named) as caught:
        cron.check(expression, zone)
    assert isinstance(caught.value, InvalidInput)
    assert repr(expression) in str(caught.value) or repr(zone) in str(caught.value)


def test_beyond_the_calendar_there_is_no_slot() -> None:
    for instant in (at(9999, 12, 31, 23, 59), INSTANT_MAX):
        with pytest.raises(BadSchedule):
            cron.next_slot("* * * * *", "Europe/Berlin", instant)
        with pytest.raises(BadSchedule):
            cron.next_slot("0 0 * * *", "America/New_York", instant)


# Where clocks change -----------------------------------------------------------------------------------------------

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

Change: TypeAlias = tuple[str, tuple[int, int, int], str, list[str]]
GAPS: list[Change] = [
    (BERLIN, (2026, 3, 29), "30 2 * * *", ["03:00:00+0200"]),
    (BERLIN, (2026, 3, 29), "15 30 2 * * *", ["03:00:00+0200"]),
    (BERLIN, (2026, 3, 29), "0,30 2,3 * * *", ["03:00:00+0200", "03:30:00+0200"]),
    (BERLIN, (2026, 3, 29), "*/30 2 * * *", []),
    (BERLIN, (2026, 3, 29), "0 */2 * * *", ["00:00:00+0100", "04:00:00+0200"]),
    (NEW_YORK, (2026, 3, 8), "30 2 * * *", ["03:00:00-0400"]),
    (NEW_YORK, (2026, 3, 8), "0 2 * * *", ["03:00:00-0400"]),
    (NEW_YORK, (2026, 3, 8), "0 * * * *", [
        "00:00:00-0500", "01:00:00-0500", "03:00:00-0400", "04:00:00-0400", "05:00:00-0400",
    ]),
    (LORD_HOWE, (2026, 10, 4), "10 2 * * *", ["02:30:00+1100"]),
    (LORD_HOWE, (2026, 10, 4), "40 2 * * *", ["02:40:00+1100"]),
]  # fmt: skip
OVERLAPS: list[Change] = [
    (BERLIN, (2026, 10, 25), "30 2 * * *", ["02:30:00+0200"]),
    (BERLIN, (2026, 10, 25), "15 30 2 * * *", ["02:30:15+0200"]),
    (BERLIN, (2026, 10, 25), "0,30 2,3 * * *", [
        "02:00:00+0200", "02:30:00+0200", "03:00:00+0100", "03:30:00+0100",
    ]),
    (BERLIN, (2026, 10, 25), "30 */2 * * *", ["00:30:00+0200", "02:30:00+0200", "02:30:00+0100"]),
    (BERLIN, (2026, 10, 25), "*/30 2 * * *", [
        "02:00:00+0200", "02:30:00+0200", "02:00:00+0100", "02:30:00+0100",
    ]),
    (NEW_YORK, (2026, 11, 1), "30 1 * * *", ["01:30:00-0400"]),
    (NEW_YORK, (2026, 11, 1), "0 2 * * *", ["02:00:00-0500"]),
    (NEW_YORK, (2026, 11, 1), "0 1-2 * * *", ["01:00:00-0400", "02:00:00-0500"]),
    (LORD_HOWE, (2026, 4, 5), "45 1 * * *", ["01:45:00+1100"]),
    (LORD_HOWE, (2026, 4, 5), "45 * * * *", [
        "00:45:00+1100", "01:45:00+1100", "01:45:00+1030", "02:45:00+1030", "03:45:00+1030",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "day", "expression", "expected"), GAPS + OVERLAPS)
def test_where_a_clock_changes(
    zone: str, day: tuple[int, int, int], expression: str, expected: list[str]
) -> None:
    midnight = at(*day, zone=zone)
    found = cron.slots(expression, zone, midnight - 1, midnight + 5 * HOUR - 1, 100)
    assert shown(found, zone) == expected


FIXED = ["30 2 * * *", "0 3 * * *", "45 1 * * *", "5 10 2 * * *", "0,30 1,2,3 * * *"]
FOLLOWING = ["*/15 * * * *", "30 * * * *", "*/20 2 * * *", "0 */3 * * *", "30 0 * * * *"]
CHANGES = [
    (zone, day)
    for zone, days in (
        (BERLIN, [(2026, 3, 29), (2026, 10, 25)]),
        (NEW_YORK, [(2026, 3, 8), (2026, 11, 1)]),
        (LORD_HOWE, [(2026, 4, 5), (2026, 10, 4)]),
    )
    for day in days
]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize("expression", FIXED + FOLLOWING)
def test_the_slots_are_the_same_from_wherever_they_are_counted(
    zone: str, day: tuple[int, int, int], expression: str
) -> None:
    start = at(*day, zone=zone) - DAY
    found = cron.slots(expression, zone, start, start + 3 * DAY, 1000)
    assert all(earlier < later for earlier, later in pairwise(found))
    following = iter([*found, None])
    upcoming = next(following)
    for instant in range(start, start + 3 * DAY, 5 * 60_000):
        while upcoming is not None and upcoming <= instant:
            upcoming = next(following)
        if upcoming is None:
            break
        assert cron.next_slot(expression, zone, instant) == upcoming


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize("expression", FOLLOWING)
def test_what_follows_the_clock_happens_whenever_it_shows_the_time(
    zone: str, day: tuple[int, int, int], expression: str
) -> None:
    """Judged by looking at the clock at every half minute of three days."""
    start = at(*day, zone=zone) - DAY
    matching = [
        instant
        for instant in range(start + 30_000, start + 3 * DAY, 30_000)
        if matches(expression, datetime.fromtimestamp(instant / 1000, ZoneInfo(zone)))
    ]
    assert cron.slots(expression, zone, start, start + 3 * DAY - 1, 2000) == matching


def matches(expression: str, when: datetime) -> bool:
    """For expressions whose days and months are stars."""
    fields = expression.split()
    second, minute, hour = fields[:3] if len(fields) == 6 else ("0", *fields[:2])
    return all(
        field_matches(field, value)
        for field, value in ((second, when.second), (minute, when.minute), (hour, when.hour))
    )


def field_matches(field: str, value: int) -> bool:
    if field.startswith("*/"):
        return value % int(field[2:]) == 0
    return field == "*" or value in map(int, field.split(","))


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize("expression", FIXED[:4])
def test_a_fixed_time_happens_once_on_every_day(
    zone: str, day: tuple[int, int, int], expression: str
) -> None:
    start = at(*day, zone=zone) - 3 * DAY
    found = cron.slots(expression, zone, start, start + 8 * DAY, 100)
    days = [datetime.fromtimestamp(each / 1000, ZoneInfo(zone)).date() for each in found]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))
    assert len(days) >= 7


ANY_FIELD = st.text("0123456789*,-/L#WMONJAN@ ", max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ANY_FIELD, min_size=1, max_size=7).map(" ".join),
    st.sampled_from(["UTC", BERLIN, "Nowhere"]),
    st.integers(0, INSTANT_MAX),
)
def test_any_text_has_slots_or_is_refused(expression: str, zone: str, after_wt: int) -> None:
    try:
        slot = cron.next_slot(expression, zone, after_wt)
    except BadSchedule:
        return
    assert after_wt < slot <= INSTANT_MAX
    assert datetime.fromtimestamp(slot / 1000, UTC).tzinfo is UTC
