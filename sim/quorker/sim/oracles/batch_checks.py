"""What must hold of batches of jobs, judged by what the log said and by nothing that a store keeps about a batch.

A batch is made as a whole; a callback of it runs when its members have ended as the callback's condition says, not
before, and once; and in the end none is missing. Jobs that somebody else moves by contract prove nothing either way.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Final

from quorker.core.jobs.bounds import ON
from quorker.core.jobs.commands import EnqueueBatch, NewJob
from quorker.core.jobs.outcome import Reply
from quorker.core.jobs.store import JobStore
from quorker.sim.oracles.checks import Violation

WHOLE: Final = "batches are whole [J19]"
LAST: Final = "callbacks come last [J20]"
COME: Final = "callbacks come [J20]"
ENDED: Final = frozenset({"Succeeded", "Failed", "Deleted", "Quarantined"})


@dataclass(slots=True)
class Course:
    """One batch: its members, and the ends that it has had at the end of some entry, by the conditions that they meet."""

    members: list[str]
    met: set[ON] = field(default_factory=set[ON])


class BatchChecks:
    """`ended`, `succeeded`: members, as the log has it. `foreign`: jobs with a lifecycle of somebody else."""

    def __init__(self, foreign: Container[str], note: Callable[[str], None]) -> None:
        self._foreign = foreign
        self._note = note
        self._courses: dict[str, Course] = {}
        self._batch_of: dict[str, str] = {}
        self._callbacks: dict[str, tuple[str, ON]] = {}
        self._ended: set[str] = set()
        self._succeeded: set[str] = set()
        self._revived: set[str] = set()  # in the entry at hand, and not ended since
        self._by_hand: set[str] = set()  # callbacks that somebody has started
        self._over: set[str] = set()  # callbacks that have ended

    # ------------------------------------------------------------------ what the log says

    def on_made(self, command: EnqueueBatch, reply: Reply) -> None:
        if reply[0]:
            self._note("batch of jobs refused")
            return
        batch_id, members, callbacks = reply[1]
        if (len(members), len(callbacks)) != (len(command.jobs), len(command.callbacks)):
            raise Violation(WHOLE, f"{batch_id} of {command} became {members} and {callbacks}")
        self._courses[batch_id] = Course(list(members))
        self._batch_of.update(dict.fromkeys(members, batch_id))
        for job_id, spec in zip(callbacks, command.callbacks, strict=True):
            self._callbacks[job_id] = (batch_id, spec.on)

    def on_joined(self, job: NewJob, job_id: str) -> None:
        """Unless a member stands for it, because of a unique key."""
        course = self._courses.get(job.batch_id)
        if course is not None and job_id not in self._batch_of:
            course.members.append(job_id)
            self._batch_of[job_id] = job.batch_id

    def on_completed(self, job_id: str) -> None:
        self._succeeded.add(job_id)
        self._revived.discard(job_id)

    def on_moved(self, job_id: str, *, deleted: bool) -> None:
        """Deleted, or started again by hand."""
        self._succeeded.discard(job_id)
        if deleted:
            self._revived.discard(job_id)
            return
        self._ended.discard(job_id)
        self._revived.add(job_id)
        self._over.discard(job_id)
        self._by_hand.add(job_id)

    def on_finished(self, job_ids: Iterable[str]) -> None:
        """All commands of the entry are judged, and these jobs have ended in it. Callbacks may be due now."""
        for job_id in job_ids:
            if job_id in self._revived:
                continue  # by hand, after it had ended
            if job_id in self._callbacks:
                self._over.add(job_id)
            if job_id in self._batch_of:
                self._ended.add(job_id)
        self._revived.clear()

    def on_granted(self, job_id: str) -> None:
        callback = self._callbacks.get(job_id)
        if callback is None or job_id in self._foreign:
            return
        batch_id, on = callback
        if job_id in self._over:
            raise Violation(LAST, f"{job_id}, a callback of {batch_id}, has ended and is granted again")
        if job_id not in self._by_hand and on not in self._courses[batch_id].met:
            raise Violation(
                LAST, f"{job_id} waits for {on} of {batch_id}, is granted; {self._told(batch_id)}"
            )
        self._note("callback of a batch granted")
        if on == "success" and "failure" in self._courses[batch_id].met:
            self._note("batch succeeded after it had failed")

    def look(self) -> None:
        """Which conditions are met now, at the end of an entry."""
        for course in self._courses.values():
            if all(self._has(job_id, self._ended) for job_id in course.members):
                course.met.add("any")
                if all(self._has(job_id, self._succeeded) for job_id in course.members):
                    course.met.add("success")
                if any(self._may_have_failed(job_id) for job_id in course.members):
                    course.met.add("failure")

    def _has(self, job_id: str, such: set[str]) -> bool:
        return job_id in such or job_id in self._foreign

    def _may_have_failed(self, job_id: str) -> bool:
        return job_id not in self._succeeded or job_id in self._foreign

    def _told(self, batch_id: str) -> str:
        members = self._courses[batch_id].members
        return ", ".join(
            f"{job_id} {'succeeded' if job_id in self._succeeded else 'ended' if job_id in self._ended else 'goes on'}"
            for job_id in members
        )

    # ------------------------------------------------------------------ the end

    def missing(self, store: JobStore) -> Violation | None:
        """Are there callbacks that still wait, though their members are what they wait for."""
        owed = [
            f"{job_id}, for {on} of {batch_id}"
            for job_id, (batch_id, on) in self._callbacks.items()
            if job_id in store.jobs
            and store.jobs[job_id].state == "Awaiting"
            and job_id not in self._foreign
            and self._is_owed(store, self._courses[batch_id], on)
        ]
        return Violation(COME, f"still waiting: {'; '.join(owed)}") if owed else None

    def _is_owed(self, store: JobStore, course: Course, on: ON) -> bool:
        states = [self._end_of(store, job_id) for job_id in course.members]
        if not ENDED.issuperset(states) or any(job_id in self._foreign for job_id in course.members):
            return False
        return on == "any" or (on == "success") == all(state == "Succeeded" for state in states)

    def _end_of(self, store: JobStore, job_id: str) -> str:
        """Of one that is evicted, what the log said."""
        job = store.jobs.get(job_id)
        if job is not None:
            return job.state
        return "Succeeded" if job_id in self._succeeded else "Deleted"
