"""Planted bugs in the job store, the replica, the session and the worker: each must be found within a few seeds.

Bugs of leases need runs made for them: members and clients that are cut off for longer than a lease while they work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from quorker.core import session as client_session
from quorker.core.errors import NotApplied, QuorkerError
from quorker.core.jobs import enqueue
from quorker.core.jobs import store as job_store
from quorker.core.jobs.commands import CompleteJob, EnqueueJobs
from quorker.core.jobs.limits import DEFAULT_LIMITS, Limits
from quorker.core.jobs.outcome import Reply
from quorker.core.jobs.store import JobStore
from quorker.core.jobs.tables import Tables
from quorker.core.replica import LogClock
from quorker.core.session import Pending
from quorker.sim.case import Case, Fault, FaultKind, JobsKnobs, Target
from quorker.sim.client import SimClient
from quorker.sim.clock import EPOCH_MS
from quorker.sim.cluster import run_case
from quorker.sim.disk import DiskKnobs
from quorker.sim.expansion import JOBS, Profile, expand
from quorker.sim.kernel import MS
from quorker.sim.network import NetworkKnobs
from quorker.sim.randomness import Stream

Plant = Callable[[pytest.MonkeyPatch], None]
TRIO = Profile("trio jobs", (3,), (4_000, 6_000), 1, 60, 0, jobs=True)
CUTS = (FaultKind.ISOLATE, FaultKind.DEAF, FaultKind.LINE_STALL, FaultKind.LINE_STALL, FaultKind.CLIENT_PAUSE)


def busy(seed: int) -> Case:
    return expand(seed, JOBS)


def cut_off(seed: int) -> Case:
    """Whoever works is cut off for about the length of a lease, again and again."""
    draw, case = Stream(seed, "cut off"), expand(seed, TRIO)
    plan = [
        Fault(at_ns, draw.choice(CUTS), draw.between(300, 2_000) * MS, Target.ANY, draw.between(1, 3))
        for at_ns in range(300 * MS, case.chaos_ns, 350 * MS)
    ]
    return replace(
        case,
        plan=tuple(plan),
        traps=(),
        dead_in_calm=0,
        raft=replace(case.raft, election_ms=150, heartbeat_ms=30, pre_vote=True, check_quorum=True),
        network=NetworkKnobs(),
        disk=DiskKnobs(),
        jobs=JobsKnobs(clients=4, housed=2, slots=2, work_ms=600, stuck_ms=300),
    )


@dataclass(frozen=True)
class Mutant:
    plant: Plant
    oracle: str
    budget: int
    case: Callable[[int], Case] = busy


# ---------------------------------------------------------------------- the state machine


def repeats_apply_again(patch: pytest.MonkeyPatch) -> None:
    answer = JobStore._answer  # pyright: ignore[reportPrivateUsage]  # the place where this bug would be made

    def forgetful(self: JobStore, session_id: int, seq: int, wire: Any) -> Reply:
        session = self.sessions.get(session_id)
        if session is not None:
            session.replies.pop(seq, None)
        return answer(self, session_id, seq, wire)

    patch.setattr(JobStore, "_answer", forgetful)


def sessions_live_half_their_time(patch: pytest.MonkeyPatch) -> None:
    converse = JobStore._converse  # pyright: ignore[reportPrivateUsage]  # the place where this bug would be made

    def brief(self: JobStore, session_id: int, acked_below: int, numbered: list[Any]) -> None:
        converse(self, session_id, acked_below, numbered)
        session = self.sessions.get(session_id)
        if session is not None:
            session.expires_lt = self.lt + session.ttl_ms // 2

    patch.setattr(JobStore, "_converse", brief)


def stale_reports_are_accepted(patch: pytest.MonkeyPatch) -> None:
    judge = job_store.HANDLERS[CompleteJob.OP]

    def complete(tables: Tables, command: CompleteJob) -> Reply:
        job = tables.jobs.get(command.job_id)
        if job is not None and job.token:
            command = CompleteJob(command.job_id, job.token, command.result)
        return judge(tables, command)

    patch.setitem(job_store.HANDLERS, CompleteJob.OP, complete)


def replies_are_not_in_snapshots(patch: pytest.MonkeyPatch) -> None:
    restore = JobStore.restore

    def without_replies(chunks: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> JobStore:
        store = restore(chunks, limits)
        for session in store.sessions.values():
            session.replies.clear()
        return store

    patch.setattr(JobStore, "restore", without_replies)


def acknowledged_jobs_are_dropped(patch: pytest.MonkeyPatch) -> None:
    def drop(tables: Tables, command: EnqueueJobs) -> Reply:
        reply = enqueue.enqueue_jobs(tables, command)
        for job_id in reply[1] if reply[0] == 0 and tables.applied_index % 16 == 3 else ():
            if tables.jobs[job_id].state == "Enqueued":
                tables.take_from_queues(job_id)
                del tables.jobs[job_id]
        return reply

    patch.setitem(job_store.HANDLERS, EnqueueJobs.OP, drop)


# ---------------------------------------------------------------------- log time


def log_time_is_wall_time(patch: pytest.MonkeyPatch) -> None:
    def stamp(self: LogClock, now_ms: int, wall_ms: int) -> tuple[int, int]:
        del now_ms
        self.wt = max(self.wt, wall_ms)
        return max(0, self.wt - EPOCH_MS), self.wt

    patch.setattr(LogClock, "stamp", stamp)


def log_time_begins_anew(patch: pytest.MonkeyPatch) -> None:
    def take_over(self: LogClock, lt: int, wt: int, now_ms: int) -> None:
        del lt
        self.base_lt, self.since_ms, self.wt = 0, now_ms, wt

    patch.setattr(LogClock, "take_over", take_over)


def log_time_jumps_at_elections(patch: pytest.MonkeyPatch) -> None:
    def take_over(self: LogClock, lt: int, wt: int, now_ms: int) -> None:
        self.base_lt, self.since_ms, self.wt = lt + 500, now_ms, wt

    patch.setattr(LogClock, "take_over", take_over)


# ---------------------------------------------------------------------- the client


def never(_: object) -> bool:
    return False


def holders_do_not_stop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(client_session, "LEASE_SHARE", 3.0)


def old_grants_are_started(patch: pytest.MonkeyPatch) -> None:
    """What the real client once did: a member that catches up starts jobs that others hold by now."""
    patch.setattr(SimClient, "is_news_too_old", property(never))


def unknown_outcomes_are_called_failures(patch: pytest.MonkeyPatch) -> None:
    def gave_up(_: Pending) -> QuorkerError:
        return NotApplied("it was too slow, so it cannot have happened")

    patch.setattr(client_session, "_gave_up", gave_up)


MUTANTS = (
    Mutant(repeats_apply_again, "applied once [C2]", 15),
    Mutant(sessions_live_half_their_time, "no overlap [T3]", 20, cut_off),
    Mutant(stale_reports_are_accepted, "fenced [T4]", 20),
    Mutant(replies_are_not_in_snapshots, "replicas are equal [C5]", 20),
    Mutant(acknowledged_jobs_are_dropped, "acknowledged is not lost [J1]", 20),
    Mutant(log_time_is_wall_time, "log time is slow enough [T1]", 20),
    Mutant(log_time_begins_anew, "time goes on [T1]", 15),
    Mutant(log_time_jumps_at_elections, "log time is slow enough [T1]", 15),
    Mutant(holders_do_not_stop, "no overlap [T3]", 20, cut_off),
    Mutant(old_grants_are_started, "no overlap [T3]", 40, cut_off),
    Mutant(unknown_outcomes_are_called_failures, "honest refusal [C3]", 30),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.plant.__name__)
def test_planted_bug_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.plant(monkeypatch)
    for seed in range(mutant.budget):
        violation = run_case(mutant.case(seed)).violation
        if violation is not None:
            assert violation.oracle == mutant.oracle, violation
            return
    pytest.fail(f"not found within {mutant.budget} seeds")


@pytest.mark.parametrize("case", [busy, cut_off])
def test_runs_made_for_mutants_are_clean_without_them(case: Callable[[int], Case]) -> None:
    for seed in range(15):
        assert run_case(case(seed)).violation is None, seed
