"""What a run of a scenario on real processes came to: every promise, held against what was asked, stored, run and heard.

Pure: no clock, no files, no processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quorker.app.demo.ledger import Execution
from quorker.app.demo.verdict import JobRecord, completions, is_lost, is_stuck
from quorker.jepsen_like import linearizability
from quorker.jepsen_like.history import Line, Operation, operations
from quorker.jepsen_like.kill_single import judge_calls
from quorker.jepsen_like.linearizability import Judgement
from quorker.jepsen_like.linearizability import Verdict as Order
from quorker.jepsen_like.models import FencedLock, TextMap
from quorker.jepsen_like.real_clients import Record

OF_LOCKS: Final = frozenset({"acquire", "release"})
OF_REGISTERS: Final = frozenset({"put", "get"})
NOT_JUDGED: Final = "not judged: an acquisition has no known outcome"


@dataclass(frozen=True, slots=True)
class RealVerdict:
    """Counts of jobs and calls, and the judgements over locks and registers (None: nothing could be judged)."""

    acknowledged: int
    unknown: int
    refused: int
    lost: int
    stuck: int
    completed_twice: int
    doubled: int
    ghosts: int
    locks: Judgement | None
    registers: Judgement | None
    calls: int

    @property
    def broken(self) -> list[str]:
        """The promises that do not hold, in words; nothing when all is well."""
        counted = {
            "acknowledged jobs are lost": self.lost,
            "jobs have not ended": self.stuck,
            "jobs were completed twice": self.completed_twice,
            "calls made more than one job": self.doubled,
            "jobs exist that were refused, or that nobody asked for": self.ghosts,
        }
        found = [f"{count} {what}" for what, count in counted.items() if count]
        judged = {"locks": self.locks, "registers": self.registers}
        return found + [
            f"{what}: {judgement}"
            for what, judgement in judged.items()
            if judgement is not None and judgement.verdict is not Order.LINEARIZABLE
        ]

    def lines(self) -> list[str]:
        rows = {
            "acknowledged": self.acknowledged,
            "outcome unknown to the client": self.unknown,
            "refused": self.refused,
            "calls to locks and registers": self.calls,
            "locks": NOT_JUDGED if self.locks is None else self.locks,
            "registers": self.registers,
        }
        return [f"  {name:<32}{value!s}" for name, value in rows.items()]


def judge(
    record: Record,
    records: Mapping[str, JobRecord],
    executions: Sequence[Execution],
) -> RealVerdict:
    """`records`: everything that the store knows of every job it knows."""
    by_job: dict[str, list[Execution]] = {}
    for execution in executions:
        by_job.setdefault(execution.job_id, []).append(execution)
    asked = record.asked
    doubled, ghosts = judge_calls(asked, records)
    return RealVerdict(
        acknowledged=len(asked.acknowledged),
        unknown=len(asked.unknown),
        refused=len(asked.refused),
        lost=sum(is_lost(records.get(job), by_job.get(job, [])) for job in asked.acknowledged),
        stuck=sum(is_stuck(records.get(job)) for job in records),
        completed_twice=sum(
            completions(details) > 1 + record.requeued[job] for job, details in records.items()
        ),
        doubled=doubled,
        ghosts=ghosts,
        locks=_judge_locks(_of(record.lines, OF_LOCKS)),
        registers=linearizability.judge(_of(record.lines, OF_REGISTERS), TextMap()),
        calls=len(operations(record.lines)),
    )


def _of(lines: Iterable[Line], functions: frozenset[str]) -> list[Operation]:
    return operations(line for line in lines if line.function in functions)


def _judge_locks(history: Sequence[Operation]) -> Judgement | None:
    """A lock in unknown hands looks free in the history, and is not."""
    unknown: list[Any] = [each for each in history if each.function == "acquire" and each.returned is None]
    return None if unknown else linearizability.judge(history, FencedLock())
