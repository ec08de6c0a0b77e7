"""Bugs of sessions and locks in the state machine: what is applied once, what lives how long, and who may let go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from quorker.core.jobs import sessions
from quorker.core.jobs import store as job_store
from quorker.core.jobs.commands import ExpireSessions, OpenSession, ReleaseLock
from quorker.core.jobs.limits import DEFAULT_LIMITS, Limits
from quorker.core.jobs.outcome import Reply, done
from quorker.core.jobs.records import Session
from quorker.core.jobs.store import JobStore
from quorker.core.jobs.tables import Tables
from quorker.sim.mutants.cases import busy, contending, cut_off
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in

ONCE: Final = ("applied once [C2]",)


@bug(
    "A command that comes again is applied again.",
    known="summitdb 5, ra 145; counters that drift in Hangfire",
    oracles=ONCE,
    budget=20,
    case=busy,
)
def repeats_apply_again(patch: Patch) -> None:
    def forgetful(self: JobStore, session_id: int, seq: int, wire: Any) -> Reply:
        session = self.sessions.get(session_id)
        if session is not None:
            session.replies.pop(seq, None)
        reply: Reply = answer(self, session_id, seq, wire)
        return reply

    answer = patch.replace(JobStore, "_answer", forgetful)


@bug(
    "Answers that were given are not in snapshots, so that what comes again is applied again.",
    known="openraft 2096, svix 1321",
    oracles=("replicas are equal [C5]",),
    budget=20,
    case=busy,
)
def replies_are_not_in_snapshots(patch: Patch) -> None:
    def without_replies(chunks: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> JobStore:
        store: JobStore = restore(chunks, limits)
        for session in store.sessions.values():
            session.replies.clear()
        return store

    restore = patch.replace(JobStore, "restore", without_replies)


@bug(
    "All answers are forgotten when the client has seen some of them.",
    known="etcd before its leases were idempotent",
    oracles=(*ONCE, "honest refusal [C3]", "witness [C1]"),
    budget=100,
    case=busy,
)
def too_many_replies_are_forgotten(patch: Patch) -> None:
    def forget_replies(session: Session, acked_below: int) -> None:
        session.replies.clear()
        session.acked_below = acked_below

    patch.replace(job_store, "_forget_replies", forget_replies)


@bug(
    "Sessions live half of the time that was promised.",
    oracles=("not before its time [T2]", "no overlap [T3]"),
    budget=20,
    case=cut_off,
)
def sessions_live_half_their_time(patch: Patch) -> None:
    def brief(self: JobStore, session_id: int, acked_below: int, numbered: list[Any]) -> None:
        converse(self, session_id, acked_below, numbered)
        session = self.sessions.get(session_id)
        if session is not None:
            session.expires_lt = self.lt + session.ttl_ms // 2

    converse = patch.replace(JobStore, "_converse", brief)


@bug(
    "A session that was renewed after its end was proposed ends all the same.",
    known="Hangfire.Raft: a reclaim that is decided before and not looked at again",
    oracles=("not before its time [T2]", "no overlap [T3]"),
    budget=40,
    case=cut_off,
)
def expiry_is_not_checked_again(patch: Patch) -> None:
    def expire_sessions(tables: Tables, command: ExpireSessions) -> Reply:
        named = [tables.sessions[name] for name in command.session_ids if name in tables.sessions]
        for session in named:
            sessions.end_session(tables, session, "expired", lost=True)
        return done(len(named))

    patch.replace_item(job_store.HANDLERS, ExpireSessions.OP, expire_sessions)


@bug(
    "Only commands that are new renew their session.",
    oracles=("not before its time [T2]", "no overlap [T3]"),
    budget=150,
    case=cut_off,
)
def repeats_do_not_renew(patch: Patch) -> None:
    def converse(self: JobStore, session_id: int, acked_below: int, numbered: list[Any]) -> None:
        session = self.sessions.get(session_id)
        expires_lt = session.expires_lt if session is not None else 0
        is_new = session is not None and any(seq not in session.replies for seq, _ in numbered)
        talk(self, session_id, acked_below, numbered)
        if session is not None and not is_new:
            session.expires_lt = expires_lt

    talk = patch.replace(JobStore, "_converse", converse)


@bug(
    "Anybody can let go of a lock.",
    known="Hangfire.Raft: locks without a fence",
    oracles=("one holder [J10]", "no overlap [T3]"),
    budget=40,
    case=cut_off,
)
def anybody_releases_locks(patch: Patch) -> None:
    def release_lock(tables: Tables, command: ReleaseLock) -> Reply:
        lock = tables.locks.get(command.resource)
        if lock is not None and command.token not in lock.waiters:
            command = replace(command, token=lock.token)
        reply: Reply = release(tables, command)
        return reply

    release = patch.replace_item(job_store.HANDLERS, ReleaseLock.OP, release_lock)


@bug(
    "A session that ends leaves its place in the line for a lock.",
    known="locks that are granted to the dead",
    oracles=("entries make sense", "store invariant"),
    budget=150,
    case=contending,
)
def the_dead_wait_for_locks(patch: Patch) -> None:
    def end_of_session(tables: Tables, session: Session) -> None:
        session.waits.clear()
        end(tables, session)

    end = patch.replace(sessions, "end_of_session", end_of_session)


@bug(
    "A session that ends keeps its locks for ever.",
    known="locks that leak when their owner dies",
    oracles=("store invariant", "witness [C1]"),
    budget=40,
    case=cut_off,
)
def locks_outlive_their_session(patch: Patch) -> None:
    def end_of_session(tables: Tables, session: Session) -> None:
        session.locks.clear()
        end(tables, session)

    end = patch.replace(sessions, "end_of_session", end_of_session)


@bug(
    "A session that ends is still given jobs.",
    oracles=("entries make sense", "store invariant"),
    budget=20,
    case=busy,
)
def the_dead_are_given_jobs(patch: Patch) -> None:
    def withdraw_slots(_: Tables, session: Session) -> None:
        session.turn = 0

    patch.replace(sessions, "withdraw_slots", withdraw_slots)


@bug(
    "A request that opens a session opens another one each time it comes.",
    known="sessions without a nonce",
    oracles=ONCE,
    budget=20,
    case=busy,
)
def sessions_open_twice(patch: Patch) -> None:
    def open_session(tables: Tables, command: Any) -> Reply:
        tables.by_nonce.pop(tables.sequence, None)
        for session in tables.sessions.values():
            session.nonce = (
                tables.sequence + session.id if session.nonce == tables.sequence else session.nonce
            )
            tables.by_nonce.setdefault(session.nonce, session.id)
        reply: Reply = answer(tables, command)
        return reply

    answer = patch.replace_item(job_store.HANDLERS, OpenSession.OP, open_session)


@bug(
    "A renewal sets the end of a session, instead of only moving it further away.",
    known="Hangfire.Raft: a delayed renewal shortens a lease",
    equivalent="Log time never goes back and a session's time to live never changes, so the later of two renewals is "
    "always the longer one.",
    case=busy,
)
def renewals_may_shorten(patch: Patch) -> None:
    def converse(self: JobStore, session_id: int, acked_below: int, numbered: list[Any]) -> None:
        session = self.sessions.get(session_id)
        if session is not None:
            session.expires_lt = self.lt + session.ttl_ms
        talk(self, session_id, acked_below, numbered)

    talk = patch.replace(JobStore, "_converse", converse)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
