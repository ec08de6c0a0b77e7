"""What the `amount` of a fault or of a client's operation means to people: options with names, packed into one number.

A seed deals the number; a scenario may give it, or a table of the options. That the names mean what the code does with
the number is for tests to say. How plain numbers are written is for `units`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from quorker.sim.cases.case import FaultKind, OpKind
from quorker.sim.cases.units import (
    FRACTION,
    MICROSECONDS,
    MILLISECONDS,
    NANOSECONDS,
    NODES,
    WHOLE,
    BadValue,
    Unit,
    duration_text,
)
from quorker.sim.world.kernel import MS
from quorker.sim.world.naming import BETWEEN_MEMBERS, KINDS, NAMES


@dataclass(frozen=True, slots=True)
class Option:
    """`values[i]` is meant by i in the `bits` bits from `shift` on; `default` is what is not said."""

    name: str
    shift: int
    values: tuple[Any, ...]
    default: int = 0

    @property
    def mask(self) -> int:
        return (1 << (len(self.values) - 1).bit_length()) - 1 << self.shift

    @property
    def hint(self) -> str:
        if len(self.values) > SHOWN_MAX:
            shown = f"{_shown(self.values[0])} to {_shown(self.values[-1])}"
        else:
            shown = ", ".join(_shown(value) for value in self.values)
        return f"`{self.name}` ({shown}; {_shown(self.values[self.default])} if left out)"

    def read(self, value: Any) -> int:
        for place, known in enumerate(self.values):
            if type(value) is type(known) and value == known:
                return place << self.shift
        raise BadValue(f"is not allowed: {self.hint}")

    def write(self, number: int) -> int:
        return (number & self.mask) >> self.shift


SHOWN_MAX: Final = 8


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'


def options_unit(*options: Option) -> Unit:
    """A table of these options, or the number that they make up."""
    names = {option.name: option for option in options}

    def read(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if not isinstance(value, Mapping):
            raise BadValue(f"is no table of {', '.join(names)}, and no number")
        given = cast("Mapping[str, Any]", value)
        for name in given:
            if name not in names:
                raise BadValue(f"has an unknown key {name!r}; allowed: {', '.join(names)}")
        return sum(
            option.read(given[option.name]) if option.name in given else option.default << option.shift
            for option in options
        )

    def write(number: int) -> Any:
        codes = {option: option.write(number) for option in options}
        is_said = all(code < len(option.values) for option, code in codes.items())
        if not is_said or number != sum(code << option.shift for option, code in codes.items()):
            return number
        return {option.name: option.values[code] for option, code in codes.items() if code != option.default}

    return Unit(f"a table of {'; '.join(option.hint for option in options)}; or a whole number", read, write)


MESSAGES: Final = (*NAMES.values(), "between members")
"""What a filter may swallow, by the place of its kind."""


def _read_message(value: object) -> int:
    if isinstance(value, str):
        if value not in MESSAGES:
            raise BadValue(f"is no kind of message; one of: {', '.join(MESSAGES)}")
        return MESSAGES.index(value)
    return WHOLE.read(value)


MESSAGE_KINDS: Final = (*KINDS, BETWEEN_MEMBERS)
MESSAGE: Final = Unit(
    f"a kind of message: {', '.join(MESSAGES)}",
    _read_message,
    lambda number: MESSAGES[number] if 0 <= number < len(MESSAGES) else number,
)

AMOUNTS: Final = {
    FaultKind.WALL_JUMP: MILLISECONDS,
    FaultKind.WALL_STEP: MILLISECONDS,
    FaultKind.WALL_STROBE: MILLISECONDS,
    FaultKind.WALL_SLEW: FRACTION,
    FaultKind.CLIENT_WALL_JUMP: MILLISECONDS,
    FaultKind.CLIENT_CLOCK_RATE: FRACTION,
    FaultKind.SLOW_NODE: MICROSECONDS,
    FaultKind.SLOW_APPLIER: NANOSECONDS,
    FaultKind.CLOCK_RATE: FRACTION,
    FaultKind.FLAPPING: MILLISECONDS,
    FaultKind.SLOW_PAIR: MICROSECONDS,
    FaultKind.FILTER: MESSAGE,
    FaultKind.SPLIT: NODES,
    FaultKind.BRIDGE: NODES,
}
"""What the amount of a fault means, where it is more than a number."""

_WAIT: Final = Option("wait", 1, (False, True))
_FURTHER: Final = ("0ms", "40ms", "80ms", "120ms")

OPTIONS: Final = {
    OpKind.ENQUEUE: (
        Option("unique", 0, (True, False), 1),
        Option("queue", 3, ("default", "other")),
        Option("priority", 4, (-1, 0, 1, 2), 1),
        Option("timeout", 6, (0, 1, 2, 3)),
        Option("delay", 8, _FURTHER),
        Option("key", 10, (0, 1)),
        Option("poison", 20, (False, True)),
        Option("patience", 12, ("80ms", "400ms", "2s", "10s"), 3),
    ),
    OpKind.LOCK: (
        Option("resource", 0, (0, 1)),
        _WAIT,
        Option("hold", 2, tuple(duration_text(ms * MS) for ms in range(1, 257)), 49),
    ),
    OpKind.LEASED_LOCK: (
        Option("resource", 0, (0, 1)),
        _WAIT,
        Option("release", 2, (False, True)),
        Option("ttl", 3, tuple(duration_text(ms * MS) for ms in range(20, 276)), 80),
    ),
    OpKind.PAUSE_QUEUE: (Option("queue", 0, ("default", "other")), Option("paused", 1, (False, True), 1)),
    OpKind.RECUR: (
        Option("name", 0, ("tick", "tock")),
        Option("act", 1, ("every", "cron", "pause", "resume", "trigger", "remove")),
        Option("misfire", 4, ("once", "all", "skip")),
        Option("every", 6, tuple(duration_text(ms * MS) for ms in range(20, 340, 20)), 4),
        Option("grace", 10, ("0ms", "50ms", "200ms", "1s"), 3),
        Option("queue", 12, ("default", "other")),
    ),
    OpKind.PULL: (Option("both_queues", 0, (False, True)), Option("jobs", 1, (1, 2, 3, 4))),
}
"""What the amount of a client's operation is made of, where it is more than a number."""
ASKED: Final = {kind: options_unit(*options) for kind, options in OPTIONS.items()}


def options_of(kind: OpKind) -> tuple[Option, ...]:
    """What the amount of an operation of this kind is made of; nothing where it is a plain number."""
    return OPTIONS.get(kind, ())


def unit_of_amount(kind: object) -> Unit | None:
    """How people write the amount of a fault or an operation of this kind; None where it is a plain number."""
    if isinstance(kind, FaultKind):
        return AMOUNTS.get(kind)
    return ASKED.get(kind) if isinstance(kind, OpKind) else None
