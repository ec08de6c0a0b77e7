"""Values as people type them on the command line: arguments of a task, durations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from quorker.core.errors import InvalidInput

WAIT_SECONDS_MAX: Final = 30 * 86400.0
WAIT_SECONDS_MIN: Final = 0.01
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """Seconds out of 90, 90s, 250ms, 10m, 2h, 1d. Raises `InvalidInput`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidInput(f"{text!r} is no duration: write 90, 90s, 250ms, 10m, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2]]


def argument(text: str) -> Any:
    """What the text means as JSON, or the text itself. Raises `InvalidInput` for JSON that no program should read."""
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise InvalidInput(f"{text[:20]}... is nested too deeply to be read as JSON") from None


def waiting_time(given: float, option: str, lowest: float = 0.0) -> float:
    """Seconds that a command may wait. Raises `InvalidInput` for what is no such time."""
    if not lowest <= given <= WAIT_SECONDS_MAX:  # not a number is neither
        raise InvalidInput(f"{option} is {given}: give {lowest:g} to {WAIT_SECONDS_MAX:.0f} seconds")
    return given


def keywords(texts: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments out of name=value, each name once. Raises `InvalidInput`."""
    found: dict[str, Any] = {}
    for name, value in map(keyword, texts):
        if name in found:
            raise InvalidInput(f"keyword argument {name!r} is given twice")
        found[name] = value
    return found


def keyword(text: str) -> tuple[str, Any]:
    """name=value as a keyword argument. Raises `InvalidInput`."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InvalidInput(f"{text!r} is no keyword argument: write name=value")
    return name, argument(value)
