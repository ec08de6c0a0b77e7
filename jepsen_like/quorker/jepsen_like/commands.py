"""How tests run `quorker`: as a process of this interpreter, or in their own, with what one command came to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

COMMAND_SCRIPT: Final = "from quorker.app.cli import main; raise SystemExit(main())"
COMMAND: Final = (sys.executable, "-c", COMMAND_SCRIPT)


class Ran(NamedTuple):
    """One command: its exit code and what it printed."""

    code: int
    out: str
    err: str


Quorker: TypeAlias = Callable[..., Ran]
"""Runs `quorker` with these arguments."""
