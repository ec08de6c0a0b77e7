"""The commands put together, and the one place where errors become a line on stderr and an exit code.

0 ok   1 refused   2 usage   3 damaged or not found   4 no quorum   5 timeout   6 the disk failed   130 interrupted
141 whoever read our output has gone
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from cyclopts import App as Program
from cyclopts import CycloptsError

from quorker.app.cli import completion_command, sim
from quorker.app.cli.batch_commands import batch_program
from quorker.app.cli.cron_commands import cron_program
from quorker.app.cli.demo_command import demo
from quorker.app.cli.job_commands import job_program
from quorker.app.cli.limit_commands import limit_program
from quorker.app.cli.node_command import node_program
from quorker.app.cli.output import print_note
from quorker.app.cli.queue_commands import queue_program
from quorker.app.cli.server_commands import lock_program, server_program
from quorker.app.cli.status_command import status_program
from quorker.app.cli.tail_command import tail_program
from quorker.app.cli.task_commands import task_program
from quorker.app.failure import sole_member
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_TIMEOUT, EXIT_USAGE, QuorkerError

EXIT_INTERRUPTED: Final = 130
EXIT_PIPE: Final = 141  # as a shell shows a program that SIGPIPE ended

program = Program(
    name="quorker",
    help="Background jobs replicated by Raft: no Redis, no SQL, no broker.",
    help_epilogue="Exit codes: 0 ok, 1 refused, 2 usage, 3 damaged or not found, 4 no quorum, 5 timeout, 6 disk failed.",
    result_action="return_value",
)
PARTS: Final = (
    node_program,
    status_program,
    job_program,
    batch_program,
    queue_program,
    cron_program,
    task_program,
    server_program,
    lock_program,
    limit_program,
    tail_program,
)
for part in PARTS:
    program.command(part)
completion_command.add_to(program)
program.command(demo)
sim.register(program)


def run(arguments: Sequence[str]) -> int:
    """Parse and carry out one command line; returns the exit code and never raises but for bugs."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    return exit_code_of(lambda: program(list(arguments), exit_on_error=False, print_error=False))


def exit_code_of(act: Callable[[], Any]) -> int:
    """What `act` returns as an exit code; errors that are meant for people become a line on stderr."""
    try:
        code = act()
        sys.stdout.flush()
    except CycloptsError as wrong:
        return _say(_usage_text(wrong), EXIT_USAGE)
    except BaseException as raised:
        failed = _failure_code(sole_member(raised))  # nurseries wrap what is raised in them, Ctrl-C too
        if failed is None:
            raise
        return failed
    return code if isinstance(code, int) else EXIT_OK


def _failure_code(error: BaseException) -> int | None:
    """None for a bug."""
    match error:
        case KeyboardInterrupt():
            return EXIT_INTERRUPTED
        case QuorkerError():
            return _say(str(error), error.exit_code)
        case trio.TooSlowError():
            return _say("no answer in time", EXIT_TIMEOUT)
        case BrokenPipeError():
            return _end_of_pipe()
        case OSError():
            return _say(str(error), EXIT_REFUSED)
        case _:
            return None


def _end_of_pipe() -> int:
    """`| head` has read enough. What is still buffered goes nowhere, or Python would complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_PIPE


def _usage_text(wrong: CycloptsError) -> str:
    return " ".join(str(wrong).split())


def _say(message: str, exit_code: int) -> int:
    try:
        print_note(message)
    except BrokenPipeError:
        _end_of_pipe()
        print_note(message)
    return exit_code
