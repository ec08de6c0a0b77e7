"""One member as a process of its own: `quorker node` as a user starts it, its log, the signals it gets, and its end.

It never outlives whoever started it, however that one ends: on Linux the kernel kills it then, elsewhere its standard
input ends. What must not live here: how many members there are, and what they serve.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from quorker.core.errors import ConfigurationError

_CODE: Final = "from quorker.app.member_process import run_member; raise SystemExit(run_member())"
_PR_SET_PDEATHSIG: Final = 1
_READ_BYTES: Final = 65536
_LOG_LINES_SHOWN: Final = 20


class MemberNotStarted(ConfigurationError):
    """The process ended before it listened. `code` is its exit code; the text ends with its log."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"a member ended with exit code {code} before it listened\n{log}")
        self.code = code


class MemberProcess:
    """Made by `start`. Signals are sent at once; only `wait_ended` and `destroy` wait."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        self.ready_line = ""
        self._process = process
        self._log = log
        self._stdout = trio.lowlevel.FdStream(os.dup(process.stdout.fileno()))
        process.stdout.close()

    @classmethod
    async def start(
        cls, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> MemberProcess:
        """Run `quorker node` with these arguments; returns when it listens. What it logs is added to `log`.

        The environment is this process's own without QUORKER_ variables, and `environment` on top. Raises
        `MemberNotStarted`. The thread that calls must live as long as the member shall.
        """
        process = _popen([str(os.getpid()), "node", *arguments, "--stop-at-eof"], log, environment or {})
        member = cls(process, log)
        try:
            await member._wait_ready()
        except BaseException:
            await member.destroy()
            raise
        return member

    async def _wait_ready(self) -> None:
        """The first line that a member prints says that it listens."""
        line = b""
        while not line.endswith(b"\n"):
            data = await self._stdout.receive_some(_READ_BYTES)
            if not data:
                raise MemberNotStarted(self._process.wait(), last_lines(self._log))
            line += data
        self.ready_line = line.decode()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the process alone: no goodbye, no flush. What it started is left to notice."""
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and files, and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def wait_ended(self) -> int:
        """The exit code; minus the number of the signal that killed it. One task may wait at a time."""
        while await self._stdout.receive_some(_READ_BYTES):
            pass
        return self._process.wait()

    async def destroy(self) -> int:
        """SIGKILL to the process and its whole group, if it still runs, and free what is held for it. Returns the exit
        code. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            if self._process.poll() is None:
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            await self._stdout.aclose()
            if self._process.stdin is not None:
                self._process.stdin.close()
        return self._process.wait()


def _popen(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In this very thread, unlike trio's own way of starting a process: the kernel kills it with the thread."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUORKER_")}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", _CODE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=inherited | dict(environment),
            start_new_session=True,
        )


def last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:])


def run_member() -> int:
    """The process's own beginning: bind its life to that of its starter, then be the command line."""
    from quorker.app.cli import main

    starter, *arguments = sys.argv[1:]
    _die_with(int(starter))
    return main(arguments)


def _die_with(starter: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != starter:
        raise SystemExit("the process that started this member is gone")
