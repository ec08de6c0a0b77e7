"""Who it is that changes something, when nobody says it. What must not live here: what is changed."""

from __future__ import annotations

import getpass
import platform
from typing import Final

from quorker.app.settings import checked_option
from quorker.core.jobs import bounds

_AUTHOR: Final = bounds.text("author", 0, bounds.NAME_CHARS_MAX)


def author_or_default(author: str | None) -> str:
    """The name that was given, or USER@HOST of this process. Raises `InvalidInput`."""
    return checked_option("author", default_author() if author is None else author, _AUTHOR)


def default_author() -> str:
    """USER@HOST."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        user = "somebody"
    return f"{user}@{platform.node()}"[: bounds.NAME_CHARS_MAX]
