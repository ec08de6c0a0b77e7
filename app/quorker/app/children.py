"""Worker processes as the node sees them: started on demand, reused, killed at a timeout or when their job is no longer
ours. What must not live here: what a job is worth (leases, outcomes) and what runs inside the process (`child.py`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import trio

from quorker.app.child_protocol import ChildCall, FrameReader, pack_frame
from quorker.app.failure import Failure

IDLE_SECONDS_MAX: Final = 300.0
_STARTER: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from quorker.app.child import main; main()"
)
_EXIT_SECONDS: Final = 1.0

AnswerAsk: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Carries out what a task in the worker process asks of the store; wire form in, wire form out."""


@dataclass(frozen=True, slots=True)
class Done:
    """The encoded result of a task that returned."""

    result: bytes


class ProcessPool(Protocol):
    """Where plain functions run. Cancelling `run` ends the function for certain, also in the middle of C code."""

    async def run(self, call: ChildCall, answer_ask: AnswerAsk) -> Done | Failure: ...


@asynccontextmanager
async def open_child_pool(processes_max: int) -> AsyncGenerator[ChildPool]:
    """Worker processes for as long as the block runs; none is left afterwards."""
    async with trio.open_nursery() as nursery:
        pool = ChildPool(nursery, processes_max)
        try:
            yield pool
        finally:
            with trio.CancelScope(shield=True):
                await pool.dismiss_idle()
            nursery.cancel_scope.cancel()


class ChildPool:
    """At most `processes_max` worker processes, the most recently used first.

    They are started one after the other: while one starts (a third of a second), those that run take on more jobs, so a
    burst of short jobs does not start a process for each. Made by `open_child_pool`.
    """

    def __init__(self, nursery: trio.Nursery, processes_max: int) -> None:
        self._nursery = nursery
        self._processes_max = processes_max
        self._processes = 0
        self._growing = False
        self._idle: list[tuple[Child, float]] = []
        self._waiting: deque[Waiting] = deque()

    async def run(self, call: ChildCall, answer_ask: AnswerAsk) -> Done | Failure:
        """Run one attempt. A process that dies on its own is a `Failure` of the job, never an exception."""
        try:
            child = await self._take()
        except OSError as error:
            return Failure(("WorkerProcessDied",), f"no worker process can be started: {error}", "")
        try:
            outcome = await child.run(call, answer_ask)
        except BaseException:
            self._processes -= 1
            self._grow_if_needed()
            await child.kill()
            raise
        self._give(child)
        await self._retire_old()
        return outcome

    async def dismiss_idle(self) -> None:
        """End the idle processes; those that run are ended by cancelling their `run`."""
        idle, self._idle = self._idle, []
        async with trio.open_nursery() as nursery:
            for child, _ in idle:
                nursery.start_soon(child.dismiss)

    async def _take(self) -> Child:
        while self._idle:
            child, _ = self._idle.pop()
            if child.is_alive:
                return child
            self._processes -= 1
        waiting = Waiting()
        self._waiting.append(waiting)
        self._grow_if_needed()
        try:
            await waiting.served.wait()
        except trio.Cancelled:
            if waiting.child is not None:
                self._give(waiting.child)
            else:
                self._waiting.remove(waiting)
            raise
        return waiting.taken()

    def _give(self, child: Child) -> None:
        """To whoever waits longest, or to rest."""
        if not child.is_alive:
            self._processes -= 1
            self._grow_if_needed()
        elif self._waiting:
            self._waiting.popleft().serve(child)
        else:
            self._idle.append((child, trio.current_time()))

    def _grow_if_needed(self) -> None:
        if self._waiting and not self._growing and self._processes < self._processes_max:
            self._growing = True
            self._processes += 1
            self._nursery.start_soon(self._grow)

    async def _grow(self) -> None:
        try:
            child = await Child.start()
        except OSError as error:
            self._processes -= 1
            if self._waiting:
                self._waiting.popleft().fail(error)
        else:
            self._give(child)
        finally:
            self._growing = False
        self._grow_if_needed()

    async def _retire_old(self) -> None:
        oldest_kept = trio.current_time() - IDLE_SECONDS_MAX
        while self._idle and self._idle[0][1] < oldest_kept:
            child, _ = self._idle.pop(0)
            self._processes -= 1
            await child.dismiss()


class Waiting:
    """A job that waits for a worker process."""

    def __init__(self) -> None:
        self.served = trio.Event()
        self.child: Child | None = None
        self._error: OSError | None = None

    def serve(self, child: Child) -> None:
        self.child = child
        self.served.set()

    def fail(self, error: OSError) -> None:
        self._error = error
        self.served.set()

    def taken(self) -> Child:
        """The process, or the error that kept it from starting."""
        if self._error is not None:
            raise self._error
        assert self.child is not None
        return self.child


class Child:
    """One worker process and its pipe."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._to_child = process.stdin
        self._from_child = process.stdout
        self._reader = FrameReader()
        self._frames: list[Sequence[Any]] = []

    @classmethod
    async def start(cls) -> Child:
        """A process group of its own: Ctrl-C in the terminal is for the node to handle, a kill takes grandchildren too."""
        command = [sys.executable, "-c", _STARTER, json.dumps(sys.path)]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        child = cls(process)
        try:
            if await child._receive() != ["ready"]:
                raise ChildProcessError(f"it {_manner_of_death(await child._exit_code())} while it started")
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def run(self, call: ChildCall, answer_ask: AnswerAsk) -> Done | Failure:
        """Send one call and serve what the task asks for until its outcome is here."""
        try:
            await self._to_child.send_all(pack_frame("run", *call))
            while (frame := await self._receive()) is not None:
                match frame:
                    case ["ask", ask]:
                        await self._to_child.send_all(pack_frame("answer", await answer_ask(ask)))
                    case ["done", bytes(result)]:
                        return Done(result)
                    case ["failed", types, str(message), str(trace)]:
                        return Failure(tuple(types), message, trace)
                    case _:
                        break
        except trio.BrokenResourceError:
            pass
        return await self._post_mortem(call)

    async def _receive(self) -> Sequence[Any] | None:
        while not self._frames:
            data = await self._from_child.receive_some()
            if not data:
                return None
            self._frames.extend(self._reader.feed(data))
        return self._frames.pop(0)

    async def _exit_code(self) -> int | None:
        with trio.move_on_after(_EXIT_SECONDS):
            await self._process.wait()
        return self._process.poll()

    async def _post_mortem(self, call: ChildCall) -> Failure:
        code = await self._exit_code()
        await self.kill()
        return Failure(
            ("WorkerProcessDied",),
            f"the worker process of task {call.task} {_manner_of_death(code)} before it answered",
            "",
        )

    async def dismiss(self) -> None:
        """Let an idle process end by itself; kill it when it does not."""
        await self._to_child.aclose()
        with trio.move_on_after(_EXIT_SECONDS):
            await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process and everything that it started, now. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            _kill_group(self._process)
            await self._process.wait()
            await self._to_child.aclose()
            await self._from_child.aclose()


def _kill_group(process: trio.Process) -> None:
    """The group has the number of its first process, which cannot be given away before that one is waited for."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()


def _manner_of_death(code: int | None) -> str:
    if code is None:
        return "broke its pipe"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
