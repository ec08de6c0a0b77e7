"""A job store fed by hand, one entry at a time, with its clocks: for tests, scenarios and notebooks.

Beside it runs a twin that is taken apart into snapshot chunks and restored after every entry. Both must answer alike and
have the same digest, and the invariants are checked each time: a test of anything is also a test of all that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from quorker.core.errors import Rejected
from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import Command, EnqueueJobs, NewJob, OpenSession, Subscribe, decode, encode
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Cancelled, LockGrant, Notice, Outcome, Reply
from quorker.core.jobs.records import Job
from quorker.core.jobs.store import JobStore
from quorker.sim.oracles.store_invariants import check_store, check_successors

FIRST_WT: Final = 1_767_225_600_000  # 2026-01-01 UTC, ms
MAINTENANCE_ROUNDS_MAX: Final = 10_000


class LoneStore:
    """`outcome` is that of the last entry, `notices` those not taken yet. Times in ms."""

    def __init__(self, limits: Limits | None = None, *, epoch: int = 0, careful: bool = True) -> None:
        self.careful = careful
        self.store = JobStore(limits or Limits(), epoch)
        self.twin = JobStore(limits or Limits(), epoch)
        self.lt = 0
        self.wt = FIRST_WT
        self.outcome = Outcome()
        self.notices: list[Notice] = []
        self._seqs: dict[int, int] = {}
        self._nonce = 0
        self.maintain()

    # --- entries ---

    def apply(self, data: bytes) -> Outcome:
        """The next entry, whatever its bytes."""
        index = self.store.applied_index + 1
        self.outcome = self.store.apply(index, data)
        self.notices.extend(self.outcome.notices)
        if self.careful:
            assert not [fault for fault in self.outcome.faults if fault.startswith("bug")], (
                self.outcome.faults
            )
            assert self.twin.apply(index, data) == self.outcome, "the twin answers otherwise"
            restored = JobStore.restore(self.twin.snapshot().chunks(1000), self.twin.wanted)
            check_successors(self.twin, restored)
            self.twin = restored
            assert self.twin.digest() == self.store.digest(), "the twin differs"
            check_store(self.store)
        return self.outcome

    def entry(self, *commands: tuple[int, Command]) -> list[Reply]:
        """(session, command) pairs in one entry; returns their replies in order."""
        groups: list[bytes] = []
        for session, command in commands:
            seq = self._next_seq(session)
            groups.append(encode_group(session, 0, [(seq, encode(command))]))
        self.apply(encode_entry(self.lt, self.wt, groups))
        return [reply for _, _, reply in self.outcome.replies]

    def group(self, session: int, acked_below: int, numbered: Sequence[tuple[int, Command]]) -> list[Reply]:
        """One group with sequences of your choice, in one entry."""
        wire = [(seq, encode(command)) for seq, command in numbered]
        self.apply(encode_entry(self.lt, self.wt, [encode_group(session, acked_below, wire)]))
        return [reply for _, _, reply in self.outcome.replies]

    def reply(self, command: Command, session: int = 0) -> Reply:
        """One command in one entry."""
        return self.entry((session, command))[0]

    def do(self, command: Command, session: int = 0) -> Any:
        """The value of one command. Raises `Rejected` when it is refused."""
        reply = self.reply(command, session)
        if reply[0] == 0:
            return reply[1]
        raise Rejected(reply[1], reply[2])

    def _next_seq(self, session: int) -> int:
        self._seqs[session] = seq = self._seqs.get(session, 0) + 1
        return seq if session else 0

    # --- time ---

    def advance(self, ms: int) -> None:
        """Both clocks go on; nothing is applied."""
        self.lt += ms
        self.wt += ms

    def maintain(self) -> int:
        """Apply what is due, as a leader would, until nothing is. Returns how many commands that took."""
        count = 0
        for _ in range(MAINTENANCE_ROUNDS_MAX):
            due = self.store.due(self.lt, self.wt)
            if not due:
                return count
            count += len(due)
            self.entry(*[(0, decode(wire)) for wire in due])
        raise AssertionError(f"never done: {self.store.due(self.lt, self.wt)}")

    def pass_time(self, ms: int) -> int:
        self.advance(ms)
        return self.maintain()

    # --- shorthand ---

    def open(self, name: str = "worker", ttl_ms: int = 60_000) -> int:
        """The id of a new session."""
        self._nonce += 1
        return int(self.group(0, 0, [(self._nonce, OpenSession(name, ttl_ms))])[0][1])

    def worker(self, *queues: str, slots: int = 1, name: str = "worker", ttl_ms: int = 60_000) -> int:
        """A session that takes jobs."""
        session = self.open(name, ttl_ms)
        self.do(Subscribe(queues or ("default",), slots), session)
        return session

    def enqueue(self, *jobs: NewJob, session: int = 0) -> tuple[str, ...]:
        return tuple(self.do(EnqueueJobs(jobs or (NewJob("task"),)), session))

    def job(self, job_id: str) -> Job:
        return self.store.jobs[job_id]

    def state(self, job_id: str) -> str:
        return self.store.jobs[job_id].state

    def take_grants(self) -> list[JobGrant]:
        """Jobs dispatched since the last call."""
        return [each for each in self._take("job") if isinstance(each, JobGrant)]

    def take_grant(self) -> JobGrant:
        """The only job dispatched since the last call."""
        (grant,) = self.take_grants()
        return grant

    def take_cancels(self) -> list[Cancelled]:
        return [each for each in self._take("cancel") if isinstance(each, Cancelled)]

    def take_locks(self) -> list[LockGrant]:
        return [each for each in self._take("lock") if isinstance(each, LockGrant)]

    def _take(self, kind: str) -> list[JobGrant | LockGrant | Cancelled | str]:
        taken = [notice.payload for notice in self.notices if notice.kind == kind]
        self.notices = [notice for notice in self.notices if notice.kind != kind]
        return taken
