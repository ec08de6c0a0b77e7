"""The other world: simulated time, network, disks and clocks around the very core that runs in production.

One seed decides everything that happens here. Nothing in this package touches a real clock, socket or file,
and nothing outside tests and tools imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorker.sim.experiments.experiment import Moment, Run, run

__all__ = ["Moment", "Run", "run"]


def __getattr__(name: str) -> Any:
    """`run` and what it returns are loaded when they are asked for: importing one module here costs no other."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from quorker.sim.experiments import experiment

    return getattr(experiment, name)
