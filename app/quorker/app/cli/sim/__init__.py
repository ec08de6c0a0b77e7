"""`quorker sim`: the simulator's command line. Its verbs stand in files of their own; `program` puts them together.

Here stands only what works without the `sim` extra. Everything else here may import the simulator freely, because it is
loaded when a command of this group is called for.
"""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any

from cyclopts import App as Program
from cyclopts import Parameter

from quorker.core.errors import ConfigurationError

HELP = "Run, replay and search simulated clusters."


def register(program: Program) -> None:
    """Add the group, or, without the extra, what says how to get it."""
    if importlib.util.find_spec("simpy") is None:
        program.command(missing, name="sim")
    else:
        program.command("quorker.app.cli.sim.program:sim_program", name="sim", help=HELP)


def missing(*_: Annotated[Any, Parameter(allow_leading_hyphen=True)]) -> int:
    """Run, replay and search simulated clusters (needs the extra quorker[sim])."""
    raise ConfigurationError('the simulator needs an extra: pip install "quorker[sim]"')
