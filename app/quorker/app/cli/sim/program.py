"""The verbs of `quorker sim` put together. A new one is a file beside this one, its import and its name in `VERBS`."""

from __future__ import annotations

from typing import Final

from cyclopts import App as Program

from quorker.app.cli.sim import HELP
from quorker.app.cli.sim.check_determinism import check_determinism
from quorker.app.cli.sim.explain import explain
from quorker.app.cli.sim.fuzz import fuzz
from quorker.app.cli.sim.html import html
from quorker.app.cli.sim.ls import ls
from quorker.app.cli.sim.mutants import mutants
from quorker.app.cli.sim.replay import replay
from quorker.app.cli.sim.replay_recording import replay_recording
from quorker.app.cli.sim.run import run
from quorker.app.cli.sim.shrink import shrink

VERBS: Final = (
    run,
    replay,
    shrink,
    explain,
    html,
    replay_recording,
    check_determinism,
    fuzz,
    ls,
    mutants,
)

sim_program = Program(name="sim", help=HELP, result_action="return_value")
for verb in VERBS:
    sim_program.command(verb)
