"""Asking whether many things are really to be changed. What must not live here: which they are."""

from __future__ import annotations

import sys

from quorker.core.errors import InvalidInput


def is_agreed(what: str) -> bool:
    """Ask on a terminal, as in "requeue 3 jobs? [y/N]". Raises `InvalidInput` where there is none to ask on."""
    if not sys.stdin.isatty():
        raise InvalidInput(f"this would {what}: repeat with --yes, or with --dry-run to see them")
    print(f"{what}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
