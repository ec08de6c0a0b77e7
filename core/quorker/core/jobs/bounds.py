"""The bounds of everything that may stand in a command, as checks that take one wire value and return it checked.

A check raises `BadCommand` and nothing else, whatever it is given. Only shapes and limits live here; which field
has which check stands in `commands.py`, and whether a command makes sense now is decided by the state machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from math import isnan
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar

T = TypeVar("T")
Check: TypeAlias = Callable[[Any], T]
Pairs: TypeAlias = tuple[tuple[str, str | None], ...]

INT64_MAX: Final = 2**63 - 1
DURATION_MAX: Final = 2**40  # ms: 34 years
INSTANT_MAX: Final = 2**52  # ms: what lt and wt may reach; with a duration added it still fits 64 bits
SEQUENCE_MAX: Final = 2**62
TASK_CHARS_MAX: Final = 200
QUEUE_CHARS_MAX: Final = 64
ARGS_BYTES_MAX: Final = 256 * 1024
RESULT_BYTES_MAX: Final = 64 * 1024
ERROR_TYPE_CHARS_MAX: Final = 200
MESSAGE_CHARS_MAX: Final = 4096
TRACE_CHARS_MAX: Final = 16 * 1024
KEY_CHARS_MAX: Final = 512
VALUE_CHARS_MAX: Final = 256 * 1024
REASON_CHARS_MAX: Final = 1024
NAME_CHARS_MAX: Final = 200
PRIORITY_MAX: Final = 100
JOBS_PER_COMMAND_MAX: Final = 1000
CALLBACKS_MAX: Final = 16
FETCH_MAX: Final = 1000
QUEUES_PER_COMMAND_MAX: Final = 64
VALUES_PER_COMMAND_MAX: Final = 10_000
PAIRS_MAX: Final = 256
HEADERS_MAX: Final = 32
TAGS_MAX: Final = 16
RETRIES_MAX: Final = 1000
SESSION_SLOTS_MAX: Final = 1024
START_LIMIT_MAX: Final = 1_000_000
RATE_MS_MAX: Final = 31 * 24 * 3600 * 1000  # so long is a key remembered that nobody stands under
BURST_MAX: Final = 10_000


class BadCommand(ValueError):
    """The wire form is not a command, or a value in it is out of bounds. `reason` says which and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def refuse(what: str, why: str) -> NoReturn:
    raise BadCommand(f"{what}: {why}")


def whole(what: str, low: int, high: int) -> Check[int]:
    """An int (never a bool) within low..high, both included."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            refuse(what, f"must be a whole number from {low} to {high}")
        return value

    return check


def flag(what: str) -> Check[bool]:
    def check(value: Any) -> bool:
        if type(value) is not bool:
            refuse(what, "must be true or false")
        return value

    return check


def real(what: str) -> Check[float]:
    """A finite or infinite double; NaN has no place in an order and is refused. -0.0 becomes 0.0."""

    def check(value: Any) -> float:
        if type(value) is int and -(2**53) <= value <= 2**53:
            return float(value)
        if type(value) is not float or isnan(value):
            refuse(what, "must be a number, and not NaN")
        return value + 0.0

    return check


def text(what: str, low: int, high: int) -> Check[str]:
    """A string of low..high characters that can be encoded (no lone surrogates)."""

    def check(value: Any) -> str:
        if type(value) is not str or not low <= len(value) <= high:
            refuse(what, f"must be text of {low} to {high} characters")
        if not value.isascii():
            encodable(what, value)
        return value

    return check


def encodable(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(what, "has a lone surrogate")


def matching(what: str, pattern: str, high: int, low: int = 1) -> Check[str]:
    """Text of low..high characters out of one character class, for instance `[a-z0-9_-]`. Few names are used often,
    so what was found is remembered for a while."""
    matches = _remembering(pattern, low, high)

    def check(value: Any) -> str:
        if type(value) is not str or not matches(value):
            refuse(what, f"must be {low} to {high} characters of {pattern}")
        return value

    return check


@cache
def _remembering(pattern: str, low: int, high: int) -> Callable[[str], bool]:
    fullmatch = re.compile(f"{pattern}{{{low},{high}}}").fullmatch

    @lru_cache(maxsize=1024)
    def matches(value: str) -> bool:
        return fullmatch(value) is not None

    return matches


def binary(what: str, high: int) -> Check[bytes]:
    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > high:
            refuse(what, f"must be at most {high} bytes")
        return value

    return check


def maybe(check_value: Check[T]) -> Check[T | None]:
    """None, or what `check_value` accepts."""

    def check(value: Any) -> T | None:
        return None if value is None else check_value(value)

    return check


def array(what: str, value: Any) -> Any:
    """A list or tuple of anything."""
    if type(value) is not list and type(value) is not tuple:
        refuse(what, "must be an array")
    return value  # pyright: ignore[reportUnknownVariableType]  # of anything


def many(what: str, check_item: Check[T], low: int, high: int) -> Check[tuple[T, ...]]:
    """An array of low..high items, each of which passes `check_item`."""

    def check(value: Any) -> tuple[T, ...]:
        items = array(what, value)
        if not low <= len(items) <= high:
            refuse(what, f"must have {low} to {high} items")
        return tuple(map(check_item, items))

    return check


def pair(what: str, check_name: Check[str], check_value: Check[T]) -> Check[tuple[str, T]]:
    def check(value: Any) -> tuple[str, T]:
        items = array(what, value)
        if len(items) != 2:
            refuse(what, "must be pairs of name and value")
        return check_name(items[0]), check_value(items[1])

    return check


ON: TypeAlias = Literal["success", "failure", "any", "deleted"]
ON_EXCEED: TypeAlias = Literal["fail", "delete"]
MISFIRE: TypeAlias = Literal["once", "all", "skip"]


def condition(value: Any) -> ON:
    if value in ("success", "failure", "any", "deleted") and type(value) is str:
        return value  # type: ignore[return-value]  # narrowed by the line above, which mypy cannot see
    refuse("on", "must be success, failure, any or deleted")


def on_exceed(value: Any) -> ON_EXCEED:
    if value in ("fail", "delete") and type(value) is str:
        return value  # type: ignore[return-value]  # as above
    refuse("on_exceed", "must be fail or delete")


def misfire(value: Any) -> MISFIRE:
    if value in ("once", "all", "skip") and type(value) is str:
        return value  # type: ignore[return-value]  # as above
    refuse("misfire", "must be once, all or skip")


DURATION: Final = whole("duration", 0, DURATION_MAX)
INSTANT: Final = whole("instant", 0, INSTANT_MAX)
TOKEN: Final = whole("token", 0, INT64_MAX)
_TASK_CHARS: Final = "[A-Za-z0-9_.:-]"
_QUEUE_CHARS: Final = "[a-z0-9_-]"
TASK: Final = matching("task name", _TASK_CHARS, TASK_CHARS_MAX)
QUEUE: Final = matching("queue name", _QUEUE_CHARS, QUEUE_CHARS_MAX)
is_task: Final = _remembering(_TASK_CHARS, 1, TASK_CHARS_MAX)
is_queue: Final = _remembering(_QUEUE_CHARS, 1, QUEUE_CHARS_MAX)
_ANY_ID: Final = matching("job id", "[A-Za-z0-9_-]", 64)
MAYBE_JOB_ID: Final = matching("job id", "[A-Za-z0-9_-]", 64, low=0)


def job_id(value: Any) -> str:
    """An id: one of the store's own (13 letters and digits), or a caller's."""
    if type(value) is str and len(value) == 13 and value.isalnum() and value.isascii():
        return value
    return _ANY_ID(value)


JOB_ID: Final[Check[str]] = job_id
PARENT_ID: Final = matching("parent id", "[A-Za-z0-9_#-]", 64, low=0)
BATCH_ID: Final = matching("batch id", "[A-Z0-9]", 13, low=13)
MAYBE_BATCH_ID: Final = matching("batch id", "[A-Z0-9]", 13, low=0)
ARGS: Final = binary("args", ARGS_BYTES_MAX)
RESULT: Final = binary("result", RESULT_BYTES_MAX)
KEY: Final = text("key", 1, KEY_CHARS_MAX)
MEMBER: Final = text("value", 0, VALUE_CHARS_MAX)
MAYBE_MEMBER: Final = maybe(MEMBER)
NAME: Final = text("name", 1, NAME_CHARS_MAX)
REASON: Final = text("reason", 0, REASON_CHARS_MAX)
STATE: Final = text("state name", 1, 64)
QUEUES: Final = many("queues", QUEUE, 0, QUEUES_PER_COMMAND_MAX)
SOME_QUEUES: Final = many("queues", QUEUE, 1, QUEUES_PER_COMMAND_MAX)
STATES: Final = many("states", text("state name", 0, 64), 0, 16)
PAIRS: Final = many("pairs", pair("pairs", NAME, MAYBE_MEMBER), 0, PAIRS_MAX)
FIELDS: Final = many(
    "fields", pair("fields", text("field", 0, KEY_CHARS_MAX), MAYBE_MEMBER), 0, VALUES_PER_COMMAND_MAX
)
MEMBERS: Final = many("values", MEMBER, 0, VALUES_PER_COMMAND_MAX)
HEADER: Final = pair("headers", text("header", 1, 100), text("header", 0, 1000))
HEADERS: Final = many("headers", HEADER, 0, HEADERS_MAX)
TAGS: Final = many("tags", text("tag", 1, 64), 0, TAGS_MAX)


def checked(check: Check[Any]) -> Mapping[str, Any]:
    """The metadata of a dataclass field that comes from the wire: `wire_form.from_wire` runs the check."""
    return {"check": check}
