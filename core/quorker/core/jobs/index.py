"""The indexes over jobs: by state, task, tag and batch, what is scheduled, what expires, who waits for whom.

Everything here is a function of the job and lease records alone: it is rebuilt after a restore and never stored.
`Tables` calls `add`, `change`, `remove`, `hold` and `let_go` for every record; nothing else may.
"""

from __future__ import annotations

from collections.abc import Iterable

from quorker.core.jobs.collections_ordered import OrderedRows
from quorker.core.jobs.lifecycle import AWAITING, STATES
from quorker.core.jobs.records import Job
from quorker.core.jobs.timeline import Timeline


class JobIndex:
    """`states`: job ids by name of the current state, in the order they entered it. `tasks`, `tags`, `batches`: in order
    of creation. `schedule`: (due_wt, order, job id); `retries`: those of them that have failed before. `retention`:
    (expires_lt, created, job id) of jobs that nobody holds. `held`: number of leases by job id. `children`: awaiting
    continuations by parent id, in order."""

    __slots__ = ("batches", "children", "held", "retention", "retries", "schedule", "states", "tags", "tasks")

    def __init__(self) -> None:
        self.states: dict[str, Timeline] = {name: Timeline() for name in STATES}
        self.tasks: dict[str, Timeline] = {}
        self.tags: dict[str, Timeline] = {}
        self.batches: dict[str, Timeline] = {}
        self.schedule: OrderedRows[tuple[int, int, str]] = OrderedRows()
        self.retries: OrderedRows[tuple[int, int, str]] = OrderedRows()
        self.retention: OrderedRows[tuple[int, int, str]] = OrderedRows()
        self.held: dict[str, int] = {}
        self.children: dict[str, dict[str, None]] = {}

    def count(self, state: str) -> int:
        timeline = self.states.get(state)
        return len(timeline) if timeline else 0

    def rebuild(self, jobs: Iterable[Job]) -> None:
        """Fill an empty index from all jobs, which come in order of creation."""
        retention: list[tuple[int, int, str]] = []
        ordered: list[Job] = []
        for job in jobs:
            self._list(job)
            ordered.append(job)
            if job.expires_lt:
                retention.append((job.expires_lt, job.created, job.id))
        self.retention = OrderedRows(sorted(retention))
        for job in sorted(ordered, key=lambda each: each.order):
            if job.current is not None:
                self._enter(job.current.name, job)

    def _list(self, job: Job) -> None:
        _append(self.tasks, job.spec.task, job.created, job.id)
        if job.spec.tags:
            for tag in dict.fromkeys(job.spec.tags):
                _append(self.tags, tag, job.created, job.id)
        if job.spec.batch_id:
            _append(self.batches, job.spec.batch_id, job.created, job.id)

    # --- kept by Tables ---

    def add(self, job: Job) -> None:
        """A job with the highest `created` and `order` so far."""
        self._list(job)
        if job.current is not None:
            self._enter(job.current.name, job)
        if job.expires_lt and job.id not in self.held:
            self.retention.add((job.expires_lt, job.created, job.id))

    def change(self, old: Job, new: Job) -> None:
        if new.order != old.order:
            was, now = old.current, new.current
            if was is not None:
                self._leave(was.name, old)
            if now is not None:
                self._enter(now.name, new)
        if new.expires_lt != old.expires_lt and new.id not in self.held:
            if old.expires_lt:
                self.retention.remove((old.expires_lt, old.created, old.id))
            if new.expires_lt:
                self.retention.add((new.expires_lt, new.created, new.id))

    def remove(self, job: Job) -> None:
        _remove(self.tasks, job.spec.task, job.created)
        for tag in dict.fromkeys(job.spec.tags):
            _remove(self.tags, tag, job.created)
        if job.spec.batch_id:
            _remove(self.batches, job.spec.batch_id, job.created)
        if job.current is not None:
            self._leave(job.current.name, job)
        if job.expires_lt and job.id not in self.held:
            self.retention.remove((job.expires_lt, job.created, job.id))

    def hold(self, job_id: str, job: Job | None) -> None:
        """A lease began: the job is not evicted meanwhile."""
        count = self.held.get(job_id, 0)
        self.held[job_id] = count + 1
        if not count and job is not None and job.expires_lt:
            self.retention.remove((job.expires_lt, job.created, job_id))

    def let_go(self, job_id: str, job: Job | None) -> None:
        """A lease ended."""
        count = self.held.pop(job_id)
        if count > 1:
            self.held[job_id] = count - 1
        elif job is not None and job.expires_lt:
            self.retention.add((job.expires_lt, job.created, job_id))

    def _enter(self, name: str, job: Job) -> None:
        timeline = self.states.get(name)
        if timeline is None:
            timeline = self.states[name] = Timeline()
        timeline.append(job.order, job.id)
        if job.due_wt:
            row = (job.due_wt, job.order, job.id)
            self.schedule.add(row)
            if job.failures:
                self.retries.add(row)
        elif name == AWAITING and job.spec.parent_id:
            self.children.setdefault(job.spec.parent_id, {})[job.id] = None

    def _leave(self, name: str, job: Job) -> None:
        timeline = self.states[name]
        timeline.remove(job.order)
        if not timeline.size and name not in STATES:
            del self.states[name]
        if job.due_wt:
            row = (job.due_wt, job.order, job.id)
            self.schedule.remove(row)
            if job.failures:
                self.retries.remove(row)
        elif name == AWAITING and job.spec.parent_id:
            siblings = self.children[job.spec.parent_id]
            del siblings[job.id]
            if not siblings:
                del self.children[job.spec.parent_id]


def _append(timelines: dict[str, Timeline], key: str, number: int, job_id: str) -> None:
    timeline = timelines.get(key)
    if timeline is None:
        timeline = timelines[key] = Timeline()
    timeline.append(number, job_id)


def _remove(timelines: dict[str, Timeline], key: str, number: int) -> None:
    timeline = timelines[key]
    timeline.remove(number)
    if not timeline:
        del timelines[key]
