"""Plain functions for tests of worker processes, which import them from here."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any

from quorker.app import App, JobNotFound, LockTimeout, current_job
from quorker.app.gateway import Submit
from quorker.core.errors import Rejected
from quorker.core.jobs.commands import DeleteJob

app = App("plain")


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


@app.task
async def leaf(x: int) -> int:
    return x


@app.task
def from_process(x: int) -> int:
    """A worker process reaches the store through its node."""
    return leaf.enqueue(x).result()


@app.task
def lost_in_process() -> str:
    try:
        app.job("0" * 13).result()
    except JobNotFound as error:
        return f"{type(error).__name__}: {'0' * 13 if '0' * 13 in str(error) else error}"
    return "found"


@app.task
def refused_in_process() -> list[str]:
    try:
        app.gateway().request_blocking(Submit(DeleteJob("0" * 13)))
    except Rejected as error:
        return [error.reason, error.detail]
    return []


def use_lock(ttl: float | None) -> list[Any]:
    with app.lock("a", ttl=ttl) as first:
        try:
            with app.lock("a", ttl=ttl, timeout=0.1):
                raise AssertionError("it was free")
        except LockTimeout:
            pass
        was_lost = first.is_lost
    with app.lock("a", ttl=ttl, timeout=0) as second:
        return [first.fence, second.fence, was_lost]


def which_slot() -> list[Any]:
    slot = current_job.slot
    return [current_job.recurring_id, slot and slot.isoformat(), dict(current_job.headers)]
