"""Plain functions for tests of worker processes, which import them from here."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any

from quorker.app import current_job


def add(a: int, b: int) -> int:
    return a + b


def whoami() -> list[Any]:
    return [
        current_job.id,
        current_job.fence,
        current_job.attempt,
        current_job.queue,
        current_job.task,
        os.getpid(),
    ]


def fail(message: str) -> None:
    raise ConnectionResetError(message)


def give_back_a_set() -> set[int]:
    return {1}


def leave() -> None:
    sys.exit("enough")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def exit_at_once(code: int) -> None:
    os._exit(code)


def print_and_read() -> str:
    print("x" * 200_000)
    os.write(1, b"straight to the descriptor\n")
    return sys.stdin.read()


def hang(alive: str) -> None:
    """In C, where no Python signal handler and no exception gets through. `alive`: a pipe that stays open meanwhile."""
    os.write(os.open(alive, os.O_WRONLY), b"started\n")
    ctypes.CDLL(None).sleep(600)


def hang_with_a_program(alive: str) -> None:
    """The program holds the pipe open as well."""
    pipe = os.open(alive, os.O_WRONLY)
    program = subprocess.Popen(["sleep", "600"], pass_fds=[pipe])
    os.write(pipe, b"started\n")
    program.wait()


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Namespace:
    @staticmethod
    def inner(x: int) -> int:
        return -x
