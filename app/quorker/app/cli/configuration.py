"""Where an option gets its value from: the line, else the environment, else quorker.toml, else its default.

From the environment and the file come only the options that say who we are or which cluster is meant; what a command does
stands on its line, so that no forgotten variable turns "delete these" into "delete those". What must not live here: the
options themselves.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

from cyclopts import App as Program
from cyclopts import ArgumentCollection, Parameter
from cyclopts.config import Dict

from quorker.core.errors import ConfigurationError

FILE_NAME: Final = "quorker.toml"
VARIABLE_PREFIX: Final = "QUORKER_"
TABLES: Final = ("client", "node")

ConfigFile: TypeAlias = Annotated[
    Path | None,
    Parameter(name="--config", help="A file to read in place of the quorker.toml found here or above."),
]


def from_environment(name: str) -> str:
    """The variable of an option: QUORKER_ADDRESS for `address`."""
    return VARIABLE_PREFIX + name.upper()


def keys_of(options: type[Any], *more: str) -> tuple[str, ...]:
    """The keys that a table of the file may have: the options as they are written on the line, with underscores."""
    hints = get_type_hints(options, include_extras=True)
    names = (_written(field.name, hints[field.name]) for field in fields(options))
    return (*more, *(name for name in names if name != "config"))


def _written(name: str, hint: Any) -> str:
    for each in getattr(hint, "__metadata__", ()):
        if isinstance(each, Parameter) and each.name:
            return next(iter(each.name)).removeprefix("--").replace("-", "_")
    return name


class Table:
    """Gives the options of a command what `[name]` of the file says of them, where nothing else said it before."""

    def __init__(self, name: str, keys: Iterable[str], paths: Iterable[str]) -> None:
        self.name = name
        self.keys = tuple(keys)
        self.paths = frozenset(paths)

    def __call__(self, app: Program, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        path = _chosen(arguments) or _found_above(Path.cwd())
        if path is None:
            return
        values = self._placed(path, self._checked(path, _read(path)))
        source = Dict(data=values, source=str(path), use_commands_as_keys=False, allow_unknown=True)
        source(app, commands, arguments)

    def _checked(self, path: Path, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Our table. A misspelt name must not pass for one that was never written."""
        _refuse_unknown(path, "table", document, TABLES)
        table = document.get(self.name, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: {self.name} must be a table: write [{self.name}]")
        values: dict[str, Any] = {str(key).replace("-", "_"): value for key, value in _items(table)}
        _refuse_unknown(path, f"key in [{self.name}]", values, self.keys)
        return values

    def _placed(self, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        """Paths in the file are meant from where the file is, not from where the command is run."""
        return {
            key: str(path.parent / value) if key in self.paths and isinstance(value, str) else value
            for key, value in values.items()
        }


def _items(table: Any) -> list[tuple[Any, Any]]:
    return list(table.items())


def _refuse_unknown(path: Path, what: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    names = sorted(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise ConfigurationError(f"{path}: there is no {what} called {name!r}: {hint}")


def _chosen(arguments: ArgumentCollection) -> Path | None:
    tokens = arguments["--config"].tokens
    return Path(tokens[-1].value) if tokens else None


def _found_above(directory: Path) -> Path | None:
    candidates = (each / FILE_NAME for each in (directory, *directory.parents))
    return next((path for path in candidates if path.exists()), None)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path.name} cannot be read: {path}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the configuration file {path} cannot be read: {error}") from None
