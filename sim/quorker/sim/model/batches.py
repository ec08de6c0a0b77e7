"""Batches of jobs said in the simplest way, part of the witness: nothing is counted, all members are looked at each time.

Like `jobs`, it shares no rule with `quorker.core.jobs`. Ids are told to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from quorker.core.jobs.new_job import NewJob
from quorker.sim.model.jobs import DAY_MS, ENDED, Naive, NaiveJob

BATCH: Final = "batch#"
PENDING: Final = "Pending"


def counted(state: str) -> str:
    return state if state in ENDED else PENDING


@dataclass
class NaiveBatch:
    """`making`: not all of it is there yet. `fates`: what those members ended as that are gone. `cuts`: by what was told as the end of a piece, its last member."""

    id: str
    name: str
    members: list[NaiveJob]
    retention: int = 0
    making: bool = True
    fates: dict[str, str] = field(default_factory=dict[str, str])
    expires: int = 0
    cuts: dict[int, int] = field(default_factory=dict[int, int])

    def states(self) -> list[str]:
        return [self.fates.get(job.id, counted(job.state)) for job in self.members]

    def state(self) -> str:
        states = self.states()
        if PENDING in states or self.making:
            return PENDING
        return "Succeeded" if all(state == "Succeeded" for state in states) else "Failed"


class NaiveBatches(Naive):
    """`unresolved`: jobs and batches that ended, whose continuations are not all dealt with. `piece`: as in `timed`."""

    def __init__(self) -> None:
        super().__init__()
        self.piece = 500
        self.batches: dict[str, NaiveBatch] = {}
        self.unresolved: list[str] = []

    def state_of(self, parent_id: str) -> str | None:
        """Of what a continuation waits for."""
        if parent_id.startswith(BATCH):
            batch = self.batches.get(parent_id.removeprefix(BATCH))
            return None if batch is None else batch.state()
        job = self.jobs.get(parent_id)
        return None if job is None else job.state

    def leave_unresolved(self, parent_id: str) -> None:
        """There are continuations of it to be dealt with."""
        if parent_id not in self.unresolved:
            self.unresolved.append(parent_id)

    # ------------------------------------------------------------------ making

    def key_refusal(self, jobs: Sequence[NewJob]) -> str | None:
        """A member of a batch is made, or the batch is not."""
        keys = [job.unique_key for job in jobs if job.unique_key]
        held = [key for key in keys if key in self.unique and not 0 < self.unique[key][1] <= self.lt]
        return "key_held" if held or len(set(keys)) < len(keys) else None

    def parent_refusal(self, jobs: Sequence[NewJob]) -> str | None:
        for place, job in enumerate(jobs):
            parent = job.parent_id
            if not parent or (parent[0] == "#" and int(parent[1:]) < place):
                continue
            if self.state_of(parent) is None:
                return "not_found"
            if parent.startswith(BATCH) and job.on == "deleted":
                return "wrong_condition"
        return None

    def joining_refusal(self, jobs: Sequence[NewJob]) -> str | None:
        """May they become members of batches that are there already."""
        members = [job for job in jobs if job.batch_id]
        for job in members:
            batch = self.batches.get(job.batch_id)
            if batch is None:
                return "not_found"
            if batch.state() != PENDING:
                return "batch_ended"
            if job.parent_id == BATCH + job.batch_id:
                return "waits_for_itself"
        return self._joining_key_refusal(members)

    def _joining_key_refusal(self, members: Sequence[NewJob]) -> str | None:
        """A member of the same batch may stand for one that joins."""
        owners: dict[str, str] = {}
        for job in [job for job in members if job.unique_key]:
            holder, until = self.unique.get(job.unique_key, ("", 0))
            is_held = holder in self.jobs and not 0 < until <= self.lt
            owner = owners.setdefault(
                job.unique_key, self.jobs[holder].spec.batch_id if is_held else job.batch_id
            )
            if owner != job.batch_id:
                return "key_held"
        return None

    def join(self, job: NaiveJob) -> None:
        batch = self.batches.get(job.spec.batch_id)
        if batch is not None:
            batch.members.append(job)

    def is_made(self, batch: NaiveBatch) -> None:
        """All of it is there."""
        batch.making = False
        self._conclude(batch)

    # ------------------------------------------------------------------ following

    def follow(self, job: NaiveJob, was: str) -> None:
        """A member has changed its state."""
        batch = self.batches.get(job.spec.batch_id)
        if batch is not None and counted(was) != counted(job.state):
            self._conclude(batch)

    def bury(self, job: NaiveJob) -> None:
        """A job is gone. Its batch remembers how it ended."""
        batch = self.batches.get(job.spec.batch_id)
        if batch is None:
            return
        batch.fates[job.id] = job.state if job.state in ENDED else "Deleted"
        if job.state not in ENDED:
            self._conclude(batch)

    def _conclude(self, batch: NaiveBatch) -> None:
        reference, state = BATCH + batch.id, batch.state()
        if reference in self.unresolved:
            self.unresolved.remove(reference)
        batch.expires = 0
        if state != PENDING:
            batch.expires = self.lt + (batch.retention or (1 if state == "Succeeded" else 7) * DAY_MS)
            if self.children(reference):
                self.leave_unresolved(reference)

    # ------------------------------------------------------------------ the end

    def cancel(self, batch: NaiveBatch, after: int, told_end: int | None) -> tuple[int, int | None]:
        """The next piece: (how many were deleted, where it ended). Only the store knows numbers of places."""
        first = batch.cuts[after] + 1 if after else 0
        there = [place for place, job in enumerate(batch.members) if self.jobs.get(job.id) is job]
        piece = [place for place in there if place >= first][: self.piece]
        going_on = [job for place in piece if (job := batch.members[place]).state not in ENDED]
        for job in going_on:
            self.withdraw(job)
            self.enter(job, "Deleted")
        if len(piece) < self.piece:
            return len(going_on), None
        batch.cuts[told_end or 0] = piece[-1]
        return len(going_on), told_end or 0

    def evict_batches(self) -> int:
        rows = sorted((batch.expires, batch.id) for batch in self.batches.values() if batch.expires)
        evicted = spent = 0
        for expires, batch_id in rows[: self.piece]:
            reference = BATCH + batch_id
            if expires > self.lt or spent >= self.piece or reference in self.unresolved:
                break
            waiting = self.children(reference)
            for child in waiting[: self.piece - spent]:
                self.enter(child, "Deleted")
            spent += 1 + min(len(waiting), self.piece - spent)
            if self.children(reference):
                break
            del self.batches[batch_id]
            evicted += 1
        return evicted
