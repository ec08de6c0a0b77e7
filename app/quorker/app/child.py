"""The worker process: runs plain tasks, one at a time, for the node at the other end of its pipe.

It finds a task by module and name, so nothing but data crosses the pipe. When its node dies the pipe closes, and
whatever still runs here is killed at once: its lease is about to be given to another (guarantee T3). What must not
live here: leases, retries, or a loop of its own.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from quorker.app.child_protocol import ChildCall, FrameReader, pack_frame
from quorker.app.context import enter_job, job_seen
from quorker.app.failure import describe
from quorker.app.gateway import Ask, inherit_gateway
from quorker.app.location import ModuleLocation, import_located
from quorker.app.lock_line import Held, why_over
from quorker.app.payload import decode_call, encode_result
from quorker.app.remote_ask import ask_to_wire, settle_answer
from quorker.core.errors import ConfigurationError

_READ_BYTES: Final = 65536


class Pipe:
    """The child's end. A thread reads it, so that the death of the node is noticed while a task runs."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._arrived: queue.SimpleQueue[Sequence[Any] | None] = queue.SimpleQueue()
        self._write_lock = threading.Lock()
        self.is_busy = False

    def start(self) -> None:
        threading.Thread(target=self._read_until_closed, name="quorker-pipe", daemon=True).start()

    def receive(self) -> Sequence[Any] | None:
        """The next frame, or None when the node closed the pipe."""
        return self._arrived.get()

    def send(self, kind: str, *fields: object) -> None:
        """Does not return when the node is gone: nobody is left who could be told anything."""
        frame = memoryview(pack_frame(kind, *fields))
        try:
            with self._write_lock:
                while frame:
                    frame = frame[os.write(self._write_fd, frame) :]
        except BrokenPipeError:
            _die_with_descendants()

    def _read_until_closed(self) -> None:
        reader = FrameReader()
        while data := os.read(self._read_fd, _READ_BYTES):
            for frame in reader.feed(data):
                self._arrived.put(frame)
        if self.is_busy:
            _die_with_descendants()
        self._arrived.put(None)


def _die_with_descendants() -> NoReturn:
    """This process leads its own group, so programs that the task started go with it."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


class PipeGateway:
    """The way into the store for code that runs in a worker process: through the node that started it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._one_at_a_time = threading.Lock()

    async def request(self, ask: Ask) -> Any:
        return self.request_blocking(ask)

    def request_blocking(self, ask: Ask) -> Any:
        with self._one_at_a_time:
            self._pipe.send("ask", ask_to_wire(ask))
            frame = self._pipe.receive()
        if frame is None:
            raise SystemExit("the node of this worker process is gone")
        return settle_answer(frame[1])

    def why_lost(self, resource: str, held: Held) -> str:
        return why_over(held)


def run_call(call: ChildCall, pipe: Pipe) -> None:
    """Run one attempt and send its outcome. Only the end of the process itself gets out of here."""
    try:
        task = find_task(call)
        args, kwargs = decode_call(call.args)
        job = job_seen(
            call.job_id,
            call.fence,
            call.attempt,
            call.queue,
            call.task,
            call.deadline,
            call.headers,
            call.batch_id,
        )
        enter_job(job)
        result = encode_result(task(*args, **kwargs), bytes_max=call.result_bytes_max)
    except BaseException as error:  # noqa: BLE001  # whatever a task raises is an outcome
        pipe.send("failed", *describe(error))
    else:
        pipe.send("done", result)


def find_task(call: ChildCall) -> Callable[..., Any]:
    """The function itself. The node chose it from its registered tasks, never from what a payload says."""
    found: Any = import_located(ModuleLocation(call.module_name, call.module_file))
    for part in call.qualname.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(
                f"the worker process finds no {call.qualname!r} in {call.module_file or call.module_name!r}: "
                f"was the file changed after the node started?"
            )
        found = getattr(found, part)
    function: Callable[..., Any] = getattr(found, "function", found)
    return function


def _take_over_stdio() -> tuple[int, int]:
    """Keep the pipe for ourselves: what a task prints goes to stderr, what it reads from stdin is empty."""
    read_fd, write_fd = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return read_fd, write_fd


def main() -> None:
    """Serve calls until the node closes the pipe."""
    pipe = Pipe(*_take_over_stdio())
    inherit_gateway(PipeGateway(pipe))
    pipe.start()
    pipe.send("ready")
    while (frame := pipe.receive()) is not None:
        pipe.is_busy = True
        run_call(ChildCall(*frame[1:]), pipe)
        pipe.is_busy = False
