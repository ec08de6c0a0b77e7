"""The command line: `quorker node`, `status`, `job`, `cron`, `demo`, `sim`. Errors are one line and an exit code.

Here stands only the entry point, which works without the `cli` extra far enough to say that it is missing.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from quorker.core.errors import EXIT_USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    if importlib.util.find_spec("cyclopts") is None:
        print('quorker: the command line needs an extra: pip install "quorker[cli]"', file=sys.stderr)
        return EXIT_USAGE
    from quorker.app.cli.program import run  # late: it needs the extra

    return run(sys.argv[1:] if arguments is None else arguments)
