"""`python -m quorker.sim.mutants`: see `quorker.sim.mutants.matrix`."""

from __future__ import annotations

import sys

from quorker.core.errors import EXIT_OK
from quorker.sim.mutants.matrix import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader has seen enough
        sys.exit(EXIT_OK)
