"""Where an App can be imported from: `pkg.mod:app` as users write it, and the file of a script that was run directly.
Worker processes find tasks by it. What must not live here: anything that runs a task."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from quorker.core.errors import ConfigurationError

MAIN: Final = "__main__"
# The name under which a worker process loads the script that started it, so that its `__main__` guard stays shut.
MAIN_IN_CHILD: Final = "__mp_main__"


@dataclass(frozen=True, slots=True)
class ModuleLocation:
    """A module to import: by `name`, or from `file` when it was run as a script."""

    name: str
    file: str = ""


def locate_module(name: str) -> ModuleLocation:
    """How another process can import the module that is called `name` here. Raises `ConfigurationError`."""
    if name not in (MAIN, MAIN_IN_CHILD):
        return ModuleLocation(name)
    main = sys.modules[name]
    spec = getattr(main, "__spec__", None)
    if name == MAIN and spec is not None and not spec.name.endswith("." + MAIN):
        return ModuleLocation(spec.name)
    file = getattr(main, "__file__", None)
    if not file:
        raise ConfigurationError(
            "plain tasks run in worker processes, which import their module; tasks typed into a prompt have none: "
            'put them in a file, or use @app.task(runs_in="thread")'
        )
    return ModuleLocation(MAIN_IN_CHILD, str(Path(file).resolve()))


def locate_function(function: Callable[..., Any], task_name: str) -> ModuleLocation:
    """The module in which a worker process finds this function. Raises `ConfigurationError`."""
    if "<locals>" in function.__qualname__ or "<lambda>" in function.__qualname__:
        raise ConfigurationError(
            f"task {task_name} is defined inside {function.__qualname__.partition('.<')[0]!r}: worker processes find tasks "
            f'by import, so move it to the top of its module, or use @app.task(runs_in="thread")'
        )
    return locate_module(function.__module__)


def import_located(where: ModuleLocation) -> ModuleType:
    """Import the module in this process, once."""
    if where.name in sys.modules:
        return sys.modules[where.name]
    if not where.file:
        return importlib.import_module(where.name)
    spec = importlib.util.spec_from_file_location(where.name, where.file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{where.file} cannot be imported: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[where.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[where.name]
        raise
    return module


def import_attribute(target: str) -> object:
    """The object at `pkg.mod:attribute`. Raises `ConfigurationError` saying which half is wrong."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"{target!r} is not MODULE:ATTRIBUTE, for example tasks:app")
    module = _import_or_explain(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigurationError(f"module {module_name!r} ({module.__file__}) has no {attribute!r}") from None


def _import_or_explain(module_name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"importing {module_name!r} failed: it needs {error.name!r}, not installed"
            ) from error
        raise ConfigurationError(
            f"no module {error.name!r} here (in {Path.cwd()} or on the Python path)"
        ) from None
