"""The end of the demo: what was acknowledged against what the store says and what ran. Pure: no clock, no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from quorker.app.demo.ledger import Execution

JobRecord: TypeAlias = Mapping[str, Any]
"""A job as the store's `job_details` answers it."""


class Kill(NamedTuple):
    """A member that was killed, in seconds of the wall clock."""

    node: int
    at: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of jobs. `repeats`: why jobs ran more than once, and how many of them."""

    acknowledged: int
    succeeded: int
    retried: int
    repeated: int
    repeats: dict[str, int]
    lost: int
    stuck: int
    completed_twice: int

    @property
    def is_good(self) -> bool:
        return self.succeeded == self.acknowledged and not (self.lost or self.stuck or self.completed_twice)


def judge(
    acknowledged: Iterable[str],
    records: Mapping[str, JobRecord | None],
    executions: Sequence[Execution],
    kills: Sequence[Kill],
) -> Verdict:
    """`records`: what a linearizable read says of each acknowledged job, None where it knows none."""
    ids = list(acknowledged)
    by_job: dict[str, list[Execution]] = {job_id: [] for job_id in ids}
    for execution in executions:
        by_job.setdefault(execution.job_id, []).append(execution)
    reasons = {job_id: repeat_reasons(by_job[job_id], kills) for job_id in ids}
    repeated = [set(found) for found in reasons.values() if found]
    return Verdict(
        acknowledged=len(ids),
        succeeded=sum(_state(records.get(job_id)) == "Succeeded" for job_id in ids),
        retried=sum(any(run.attempt > 1 for run in by_job[job_id]) for job_id in ids),
        repeated=len(repeated),
        repeats=dict(Counter(reason for found in repeated for reason in sorted(found)).most_common()),
        lost=sum(is_lost(records.get(job_id), by_job[job_id]) for job_id in ids),
        stuck=sum(is_stuck(records.get(job_id)) for job_id in ids),
        completed_twice=sum(completions(records.get(job_id)) > 1 for job_id in ids),
    )


def is_lost(record: JobRecord | None, runs: Sequence[Execution]) -> bool:
    """Unknown to the store, or said to have succeeded although the run that says so never finished."""
    if record is None:
        return True
    if _state(record) != "Succeeded":
        return False
    finished = {run.fence for run in runs if run.ending == "finished"}
    return not any(_token(entry) in finished for entry in record["history"] if entry["name"] == "Succeeded")


def is_stuck(record: JobRecord | None) -> bool:
    return record is not None and _state(record) not in ("Succeeded", "Failed", "Deleted", "Quarantined")


def completions(record: JobRecord | None) -> int:
    """How often the store accepted a completion of this job."""
    return 0 if record is None else sum(entry["name"] == "Succeeded" for entry in record["history"])


def repeat_reasons(runs: Sequence[Execution], kills: Sequence[Kill]) -> list[str]:
    """Why each run after the first was needed, except for retries after a failure, which are asked for."""
    ordered = sorted(runs, key=lambda run: run.fence)
    return [
        _repeat_reason(before, after, kills)
        for before, after in pairwise(ordered)
        if before.attempt == after.attempt
    ]


def _repeat_reason(before: Execution, after: Execution, kills: Sequence[Kill]) -> str:
    killed = [
        kill for kill in kills if kill.node == before.node and before.started <= kill.at <= after.started
    ]
    if before.ending == "stopped":
        return f"given back by node {before.node}, which lost touch with the cluster"
    if not killed:
        return f"taken away from node {before.node} for no reason seen"
    if before.ending == "":
        return f"node {before.node} was killed while they ran"
    return f"node {before.node} was killed after they ran, before a majority knew"


def _state(record: JobRecord | None) -> str:
    return "" if record is None else str(record["state"])


def _token(entry: Mapping[str, Any]) -> Any:
    return entry["data"].get("token")


def table_lines(verdict: Verdict) -> list[str]:
    """The verdict for people. A job may have run again for more than one reason."""
    rows = [
        ("acknowledged", verdict.acknowledged),
        ("succeeded", verdict.succeeded),
        ("failed and retried, as asked", verdict.retried),
        ("executed more than once", verdict.repeated),
        *((f"  {reason}", count) for reason, count in verdict.repeats.items()),
        ("lost", verdict.lost),
        ("stuck", verdict.stuck),
        ("completed twice", verdict.completed_twice),
    ]
    return [f"  {name:<60}{count:>7}" for name, count in rows]
