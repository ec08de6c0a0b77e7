"""Refuses wrong arguments of the storage contract before anything is sent, with the bounds that the store applies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from quorker.core.errors import InvalidInput
from quorker.core.jobs.commands import BadCommand, Command, decode, encode

CommandT = TypeVar("CommandT", bound=Command)


def checked(command: CommandT) -> CommandT:
    """The command as the store will read it. Raises `InvalidInput` where the store would refuse it."""
    try:
        return cast("CommandT", decode(encode(command)))
    except BadCommand as error:
        raise InvalidInput(error.reason) from None


def pairs(what: str, values: Mapping[str, str | None]) -> tuple[tuple[str, str | None], ...]:
    """A mapping as the pairs of a command. Raises `InvalidInput` for what is none."""
    try:
        return tuple(values.items())
    except AttributeError:
        raise InvalidInput(f"{what}: must be a mapping of names to values") from None


def require(condition: bool, problem: str) -> None:
    """Raises `InvalidInput` with the problem unless the condition holds."""
    if not condition:
        raise InvalidInput(problem)
