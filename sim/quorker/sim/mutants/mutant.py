"""What a planted bug is, and how it is planted and taken away again.

A bug is planted where a programmer would have made it: one attribute of the core, or of the twin of a driver, is
replaced by one that is wrong. Nothing in the core knows of it, so a bug that is not planted costs nothing. How runs
are made and judged is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from quorker.sim.cases.case import Case
from quorker.sim.mutants.cases import short

DEFAULT_BUDGET: Final = 1_000


class PlantError(Exception):
    """The place where a bug is to be planted is not there: the code has moved, and the bug has to move with it."""


class Patch:
    """Replaces attributes and items, and remembers how to put back what was there."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def replace(self, owner: Any, name: str, value: object) -> Any:
        """Put `value` in the place of the attribute that `owner`, a class or a module, itself has. Returns the old one."""
        if name not in vars(owner):
            raise PlantError(f"{owner} has no {name} of its own")
        raw = cast("dict[str, Any]", vars(owner))[name]
        old = getattr(owner, name)
        self._undo.append(lambda: setattr(owner, name, raw))
        setattr(owner, name, value)
        return old

    def replace_item(self, table: Mapping[Any, Any], key: object, value: object) -> Any:
        """The same for one row of a table, such as the handlers of messages or commands."""
        if key not in table or not isinstance(table, MutableMapping):
            raise PlantError(f"there is no row {key} to replace")
        old = table[key]
        self._undo.append(lambda: table.__setitem__(key, old))
        table[key] = value
        return old

    def undo(self) -> None:
        """Put everything back, the last change first."""
        while self._undo:
            self._undo.pop()()


Plant: TypeAlias = Callable[[Patch], None]


@dataclass(frozen=True)
class Mutant:
    """One bug. `wrong`: what it does, in a sentence. `known`: who had it. `oracles`: which of them may report it.

    `budget`: runs within which it must be found, about three times what it took when it was planted. `case`: makes
    those runs from seeds. `equivalent`: why no run can ever show it, for a bug behind a second defence.
    """

    name: str
    area: str
    wrong: str
    plant: Plant
    known: str = ""
    oracles: tuple[str, ...] = ()
    budget: int = DEFAULT_BUDGET
    case: Callable[[int], Case] = short
    equivalent: str = ""


def bug(
    wrong: str,
    *,
    known: str = "",
    oracles: tuple[str, ...] = (),
    budget: int = DEFAULT_BUDGET,
    case: Callable[[int], Case] = short,
    equivalent: str = "",
) -> Callable[[Plant], Mutant]:
    """Make a mutant of the function that plants it: it has the function's name, and the area of its module."""

    def make(plant: Plant) -> Mutant:
        area = plant.__module__.rpartition(".")[2].replace("_", " ")
        name = plant.__name__.replace("_", "-")
        return Mutant(name, area, wrong, plant, known, oracles, budget, case, equivalent)

    return make


def defined_in(names: Mapping[str, object]) -> tuple[Mutant, ...]:
    """All mutants among the names of a module, in their order."""
    return tuple(each for each in names.values() if isinstance(each, Mutant))


@contextmanager
def planted(mutant: Mutant) -> Generator[None]:
    """The bug is there inside this block, in every run of this process, and nowhere else."""
    patch = Patch()
    try:
        mutant.plant(patch)
        yield
    except PlantError as error:
        raise PlantError(f"{mutant.name} cannot be planted: {error}") from error
    finally:
        patch.undo()


def always(answer: object) -> Callable[..., Any]:
    """A function that has one answer to everything."""

    def answer_all(*_: object, **__: object) -> object:
        return answer

    return answer_all
