"""Values as people type them on the command line: arguments of a task, durations."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from quorker.core.errors import InvalidInput

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """Seconds out of 90, 90s, 250ms, 10m, 2h, 1d. Raises `InvalidInput`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidInput(f"{text!r} is no duration: write 90, 90s, 250ms, 10m, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2]]


def argument(text: str) -> Any:
    """What the text means as JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def keyword(text: str) -> tuple[str, Any]:
    """name=value as a keyword argument. Raises `InvalidInput`."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InvalidInput(f"{text!r} is no keyword argument: write name=value")
    return name, argument(value)
