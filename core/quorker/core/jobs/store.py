"""The state machine: how the bytes of a log entry become effects, replies and notices, the same on every member.

`apply` is total: bytes without a meaning have no effect, a bad command gets a refusal, and neither touches its
neighbours. Each command is refused before it changes anything, or carried out as a whole. Which command does what
stands in the table `HANDLERS`; the rules are in the modules named there. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from quorker.core.jobs import commands, queries
from quorker.core.jobs.batch import BadEntry, Entry, decode_entry, decode_group, decode_numbered
from quorker.core.jobs.chain import claim_digest, link
from quorker.core.jobs.commands import BadCommand, Wire
from quorker.core.jobs.continuations import resolve
from quorker.core.jobs.control import delete_job, requeue_job, reschedule_job, set_limits, set_queue_paused
from quorker.core.jobs.dispatch import settle
from quorker.core.jobs.enqueue import enqueue_jobs
from quorker.core.jobs.job_batches import cancel_batch, enqueue_batch
from quorker.core.jobs.limits import DEFAULT_LIMITS, Limits
from quorker.core.jobs.locks import acquire_lock, release_lock
from quorker.core.jobs.maintenance import due_commands, expire_records, next_due
from quorker.core.jobs.outcome import Notice, Outcome, Reply, rejected
from quorker.core.jobs.records import Session
from quorker.core.jobs.recurring import (
    advance_recurring,
    pause_recurring,
    remove_recurring,
    set_recurring,
    trigger_recurring,
)
from quorker.core.jobs.reports import complete_job, fail_job, release_job
from quorker.core.jobs.schedule import release_due
from quorker.core.jobs.sessions import (
    close_session,
    end_session,
    expire_sessions,
    fetch_jobs,
    keep_alive,
    open_session,
    replace_sessions,
    subscribe,
)
from quorker.core.jobs.snapshot import SnapshotView, load, take
from quorker.core.jobs.start_rules import open_due
from quorker.core.jobs.stats import count_ended
from quorker.core.jobs.tables import EPOCH_MAX, INDEX_MAX, ORDINALS_FOR_COMMANDS, ORDINALS_MAX, Tables
from quorker.core.jobs.transaction import batch, contract_op

__all__ = ["JobStore", "Notice", "Outcome", "Reply", "SnapshotView"]

Handler: TypeAlias = Callable[[Tables, Any], Reply]

WINDOW: Final = 4096  # sequences from the oldest unacknowledged one whose replies are kept

HANDLERS: Final[dict[int, Handler]] = {
    **{each.OP: contract_op for each in commands.COMMAND_TYPES if each.OP <= commands.Maintain.OP},
    commands.OpenSession.OP: open_session,
    commands.CloseSession.OP: close_session,
    commands.KeepAlive.OP: keep_alive,
    commands.ExpireSessions.OP: expire_sessions,
    commands.Subscribe.OP: subscribe,
    commands.FetchJobs.OP: fetch_jobs,
    commands.EnqueueJobs.OP: enqueue_jobs,
    commands.CompleteJob.OP: complete_job,
    commands.FailJob.OP: fail_job,
    commands.ReleaseJob.OP: release_job,
    commands.DeleteJob.OP: delete_job,
    commands.RequeueJob.OP: requeue_job,
    commands.RescheduleJob.OP: reschedule_job,
    commands.AcquireLock.OP: acquire_lock,
    commands.ReleaseLock.OP: release_lock,
    commands.ReleaseDue.OP: release_due,
    commands.ExpireRecords.OP: expire_records,
    commands.Batch.OP: batch,
    commands.SetQueuePaused.OP: set_queue_paused,
    commands.SetLimits.OP: set_limits,
    commands.SetRecurring.OP: set_recurring,
    commands.RemoveRecurring.OP: remove_recurring,
    commands.TriggerRecurring.OP: trigger_recurring,
    commands.PauseRecurring.OP: pause_recurring,
    commands.AdvanceRecurring.OP: advance_recurring,
    commands.ReplaceSessions.OP: replace_sessions,
    commands.ClaimDigest.OP: claim_digest,
    commands.EnqueueBatch.OP: enqueue_batch,
    commands.CancelBatch.OP: cancel_batch,
}
"""By operation number."""

TOKEN_MAKERS: Final = frozenset(
    {
        commands.CreateJob.OP,
        commands.FetchNext.OP,
        commands.TryLock.OP,
        commands.OpenSession.OP,
        commands.FetchJobs.OP,
        commands.EnqueueJobs.OP,
        commands.AcquireLock.OP,
        commands.Batch.OP,
        commands.TriggerRecurring.OP,
        commands.AdvanceRecurring.OP,
        commands.EnqueueBatch.OP,
    }
)
"""Refused with `entry_full` once their log entry has made nearly as many tokens as it can."""


class JobStore(Tables):
    """One replica of the job store. `limits` are what this member wants; the leader's take effect through the log."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, epoch: int = 0) -> None:
        assert 0 <= epoch <= EPOCH_MAX
        super().__init__(DEFAULT_LIMITS, epoch)
        self.wanted = limits

    # --- writing ---

    def apply(self, index: int, data: bytes) -> Outcome:
        """Apply the log entry at `index`, which must be above all before it. Total for any `data`."""
        assert self.applied_index < index <= INDEX_MAX
        outcome = Outcome()
        self.begin(index, outcome)
        self.applied_index = index
        try:
            entry = decode_entry(data) if data else None
        except BadEntry as error:
            outcome.faults.append(f"entry {index}: {error}")
        else:
            self._apply_entry(entry)
        self.chain = link(self, data)
        return outcome

    def _apply_entry(self, entry: Entry | None) -> None:
        if entry is not None:
            self.lt = max(self.lt, entry.lt)
            self.wt = max(self.wt, entry.wt)
            if self.limiters.due:
                open_due(self)
            for group in entry.groups:
                self._apply_group(group)
        try:
            self._round_off()
        except Exception as error:  # noqa: BLE001  any bug at all
            self._report_bug("what follows from it", error)

    def _round_off(self) -> None:
        """What all commands of an entry have led to together."""
        resolve(self, self.limits.piece)
        settle(self)
        if self.ended_counts or self.left_counts:
            count_ended(self)

    def _apply_group(self, data: bytes) -> None:
        try:
            group = decode_group(data)
            numbered = decode_numbered(group.commands)
        except BadEntry as error:
            self.outcome.faults.append(f"group in entry {self.applied_index}: {error}")
            return
        if group.session:
            self._converse(group.session, group.acked_below, numbered)
            return
        self.session = None
        replies = self.outcome.replies
        for seq, wire in numbered:
            replies.append((0, seq, self._perform(seq, wire)))

    def _converse(self, session_id: int, acked_below: int, numbered: list[Any]) -> None:
        """Commands of a session: it is renewed, each sequence applies once, and is answered as often as it is asked."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.expires_lt = max(session.expires_lt, self.lt + session.ttl_ms)
            if acked_below > session.acked_below:
                _forget_replies(session, acked_below)
        replies = self.outcome.replies
        for seq, wire in numbered:
            replies.append((session_id, seq, self._answer(session_id, seq, wire)))

    def _answer(self, session_id: int, seq: int, wire: Any) -> Reply:
        session = self.sessions.get(session_id)
        if session is None:
            return rejected("session_expired", "")
        reply = session.replies.get(seq)
        if reply is not None:
            return reply
        if seq < session.acked_below:
            return rejected("stale_sequence", f"replies below {session.acked_below} were acknowledged")
        if seq >= session.acked_below + WINDOW:
            end_session(self, session, "broke the rules: a sequence is beyond its window", lost=True)
            return rejected("session_expired", f"sequence {seq} is beyond the window of {WINDOW}")
        self.session = session
        reply = session.replies[seq] = self._perform(seq, wire)
        return reply

    def _perform(self, seq: int, wire: Any) -> Reply:
        try:
            command = commands.decode(wire)
        except BadCommand as error:
            return rejected("bad_command", error.reason)
        if ORDINALS_MAX - self.tokens_left > ORDINALS_FOR_COMMANDS and command.OP in TOKEN_MAKERS:
            return rejected("entry_full", "too much was granted in one log entry: try again")
        self.sequence = seq
        try:
            return HANDLERS[command.OP](self, command)
        except Exception as error:  # noqa: BLE001  any bug at all
            self._report_bug(type(command).__name__, error)
            return rejected("internal_error", type(error).__name__)

    def _report_bug(self, what: str, error: Exception) -> None:
        """A bug of ours must not stop every member at the same entry for ever. It is the same bug on each of them, so
        they stay equal; what depends on the machine instead (memory, stack) has to stop this member alone."""
        if isinstance(error, MemoryError | RecursionError):
            raise error
        self.outcome.faults.append(
            f"bug in entry {self.applied_index}: {what}: {type(error).__name__}: {error}"[:500]
        )

    # --- time ---

    def due(self, lt_now: int, wt_now: int, *, has_space: bool = True) -> list[Wire]:
        """Maintenance commands, in wire form, that the leader should propose now. Each does a bounded piece.

        `has_space`: without it, on a disk that is nearly full, no new jobs are made.
        """
        return due_commands(self, self.wanted, lt_now, wt_now, has_space=has_space)

    def next_due(self, *, has_space: bool = True) -> tuple[int | None, int | None]:
        """(log time, wall time) at which `due` may have something at the earliest; None where nothing waits."""
        return next_due(self, self.wanted, has_space=has_space)

    # --- reading ---

    def query(self, name: str, args: dict[str, Any]) -> object:
        """Answer a read by name with plain values that msgpack can pack; see `queries`."""
        return queries.run(self, name, args)

    # --- snapshots ---

    def snapshot(self) -> SnapshotView:
        """An instant copy, to be encoded in pieces while this store goes on."""
        return take(self)

    def digest(self) -> bytes:
        """sha256 of the canonical snapshot: equal on every member that has applied the same entries."""
        return take(self).digest()

    @classmethod
    def restore(
        cls,
        chunks: Iterable[bytes],
        limits: Limits = DEFAULT_LIMITS,
        epoch: int | None = None,
    ) -> JobStore:
        """The store that a snapshot was taken from. Raises `BadSnapshot` with nothing half-built.

        `epoch`: after a restore from a backup, one above the snapshot's own, so that tokens go on increasing.
        """
        store = cls(limits)
        load(store, chunks)
        if epoch is not None:
            assert store.epoch < epoch <= EPOCH_MAX
            store.epoch = epoch
        return store


def _forget_replies(session: Session, acked_below: int) -> None:
    """They will not be asked for again."""
    if acked_below - session.acked_below > len(session.replies):
        session.replies = {seq: reply for seq, reply in session.replies.items() if seq >= acked_below}
    else:
        for seq in range(session.acked_below, acked_below):
            session.replies.pop(seq, None)
    session.acked_below = acked_below
