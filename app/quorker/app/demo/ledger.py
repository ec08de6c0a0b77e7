"""What really ran, written down outside the cluster: one file per process, one line per start and per end.

Lines are appended with one write each, so a process that is killed loses none that it has written. What must not live
here: any judgement.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

Ending: TypeAlias = Literal["finished", "failed", "stopped", ""]

_STARTED: Final = "started"
_LEDGER_VARIABLE: Final = "QUORKER_DEMO_LEDGER"
_NODE_VARIABLE: Final = "QUORKER_DEMO_NODE"


class WhoRuns(Protocol):
    """What the ledger wants to know of the running job."""

    @property
    def id(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def attempt(self) -> int: ...


class Execution(NamedTuple):
    """One run of one job. `ending` is "" when its process never wrote one. Times are seconds of the wall clock."""

    job_id: str
    fence: int
    attempt: int
    node: int
    started: float
    ended: float
    ending: Ending


class Ledger:
    """This process's page of the ledger."""

    def __init__(self, directory: str, node: int) -> None:
        self._path = Path(directory) / f"{node}-{os.getpid()}.jsonl"
        self._node = node

    @contextmanager
    def execution(self, job: WhoRuns) -> Generator[None]:
        """Write that the job starts, and how the block ended."""
        job_id, fence, attempt = job.id, job.fence, job.attempt
        self._write(job_id, fence, attempt, _STARTED)
        try:
            yield
        except Exception:
            self._write(job_id, fence, attempt, "failed")
            raise
        except BaseException:
            self._write(job_id, fence, attempt, "stopped")
            raise
        self._write(job_id, fence, attempt, "finished")

    def _write(self, job_id: str, fence: int, attempt: int, what: str) -> None:
        line = json.dumps([job_id, fence, attempt, self._node, what, time.time()]) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def ledger_environment(directory: Path, node: int) -> dict[str, str]:
    """What tells the process of this member where its page is."""
    return {_LEDGER_VARIABLE: str(directory), _NODE_VARIABLE: str(node)}


def own_ledger() -> Ledger:
    """The page of this process, as its environment says."""
    return Ledger(os.environ[_LEDGER_VARIABLE], int(os.environ[_NODE_VARIABLE]))


def read_ledger(directory: Path) -> list[Execution]:
    """Every execution of every process, in the order in which they started."""
    found: dict[tuple[str, int], Execution] = {}
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            _add(found, line)
    return sorted(found.values(), key=lambda execution: (execution.started, execution.fence))


def _add(found: dict[tuple[str, int], Execution], line: str) -> None:
    job_id, fence, attempt, node, what, at = json.loads(line)
    if what == _STARTED:
        found[job_id, fence] = Execution(job_id, fence, attempt, node, at, 0.0, "")
    else:
        found[job_id, fence] = found[job_id, fence]._replace(ended=at, ending=what)
