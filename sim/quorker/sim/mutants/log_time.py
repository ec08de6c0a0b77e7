"""Bugs of time: log time and wall time in the log, and clocks that members and clients read for themselves."""

from __future__ import annotations

from typing import Any, Final

from quorker.core.raft.messages import Entry
from quorker.core.replica import Group, LogClock, Replica
from quorker.sim.clients.client import SimClient
from quorker.sim.mutants.cases import busy, cut_off
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in
from quorker.sim.world.clock import EPOCH_MS

TOO_FAST: Final = ("log time is slow enough [T1]",)
TOO_SLOW: Final = ("log time is fast enough [T5]",)
BACK: Final = ("time goes on [T1]",)
DIFFERENT: Final = ("replicas are equal [C5]",)


@bug(
    "Leases are measured with the leader's wall clock: when it jumps, all of them end at once.",
    known="Hangfire.Raft, yugabyte 16",
    oracles=(*TOO_FAST, *TOO_SLOW),
    budget=20,
    case=busy,
)
def log_time_is_wall_time(patch: Patch) -> None:
    def stamp(self: LogClock, now_ms: int, wall_ms: int) -> tuple[int, int]:
        del now_ms
        self.wt = max(self.wt, wall_ms)
        return max(0, self.wt - EPOCH_MS), self.wt

    patch.replace(LogClock, "stamp", stamp)


@bug("A new leader begins to count at zero.", oracles=BACK, budget=20, case=busy)
def log_time_begins_anew(patch: Patch) -> None:
    def take_over(self: LogClock, lt: int, wt: int, now_ms: int) -> None:
        del lt
        self.base_lt, self.since_ms, self.wt = 0, now_ms, wt

    patch.replace(LogClock, "take_over", take_over)


@bug(
    "A new leader adds what it guesses to have passed before.",
    known="atomix 35, copycat 70: sessions end while nobody leads",
    oracles=TOO_FAST,
    budget=20,
    case=busy,
)
def log_time_jumps_at_elections(patch: Patch) -> None:
    def take_over(self: LogClock, lt: int, wt: int, now_ms: int) -> None:
        self.base_lt, self.since_ms, self.wt = lt + 500, now_ms, wt

    patch.replace(LogClock, "take_over", take_over)


@bug(
    "A new leader adds its time since its process began, not since it leads.",
    oracles=TOO_FAST,
    budget=20,
    case=busy,
)
def log_time_counts_since_the_start(patch: Patch) -> None:
    def take_over(self: LogClock, lt: int, wt: int, _: int) -> None:
        self.base_lt, self.since_ms, self.wt = lt, 0, wt

    patch.replace(LogClock, "take_over", take_over)


@bug(
    "A new leader goes on from what it has applied, although its log holds later times.",
    oracles=BACK,
    budget=20,
    case=busy,
)
def log_time_goes_on_from_the_applied(patch: Patch) -> None:
    def latest_stamp(self: Replica) -> tuple[int, int]:
        return self.store.lt, self.store.wt

    patch.replace(Replica, "_latest_stamp", latest_stamp)


@bug(
    "A batch carries the time at which its oldest command arrived, not that of the proposal.",
    known="Hangfire.Raft, whose commands carry their submitter's time",
    oracles=(*BACK, *TOO_FAST, *TOO_SLOW),
    budget=40,
    case=busy,
)
def batches_carry_the_time_of_submission(patch: Patch) -> None:
    arrived: dict[int, int] = {}

    def queue(self: Replica, group: Group) -> None:
        arrived.setdefault(self.node_id, self.now_ms)
        enqueue(self, group)

    def propose_batch(self: Replica, batch: list[Group]) -> int:
        now_ms = self.now_ms
        self.now_ms = min(now_ms, arrived.pop(self.node_id, now_ms))
        context: int = propose(self, batch)
        self.now_ms = now_ms
        return context

    enqueue = patch.replace(Replica, "_queue", queue)
    propose = patch.replace(Replica, "_propose_batch", propose_batch)


@bug("Wall time in the log follows the leader's clock back.", oracles=BACK, budget=20, case=busy)
def wall_time_goes_back(patch: Patch) -> None:
    def stamp(self: LogClock, now_ms: int, wall_ms: int) -> tuple[int, int]:
        return self.lt(now_ms), wall_ms

    patch.replace(LogClock, "stamp", stamp)


@bug(
    "Members look at clocks of their own when they apply: what has ended for one lives on for another.",
    known="Hangfire.Raft, RabbitMQ before time was in its log",
    oracles=DIFFERENT,
    budget=20,
    case=busy,
)
def leases_end_by_local_clocks(patch: Patch) -> None:
    def apply_batch(self: Replica, entry: Entry) -> None:
        self.store.lt = max(self.store.lt, self.now_ms)
        apply(self, entry)

    apply = patch.replace(Replica, "_apply_batch", apply_batch)


@bug(
    "Records are dated with the clock of the member that applies them.",
    known="every state machine that calls now()",
    oracles=DIFFERENT,
    budget=20,
    case=busy,
)
def records_are_dated_by_local_clocks(patch: Patch) -> None:
    def apply_batch(self: Replica, entry: Entry) -> None:
        self.store.wt = max(self.store.wt, self.wall_ms)
        apply(self, entry)

    apply = patch.replace(Replica, "_apply_batch", apply_batch)


@bug(
    "A process that was frozen does not count the time in which it was.",
    known="CLOCK_MONOTONIC does not count suspension",
    oracles=("no overlap [T3]",),
    budget=40,
    case=cut_off,
)
def frozen_time_does_not_count(patch: Patch) -> None:
    since: dict[int, int] = {}

    def pause(self: SimClient) -> None:
        since[self.id] = self.now_ms
        freeze(self)

    def resume(self: SimClient) -> None:
        if self.paused:
            session: Any = self.session
            session._renewed_ms += self.now_ms - since[self.id]
        wake(self)

    freeze = patch.replace(SimClient, "pause", pause)
    wake = patch.replace(SimClient, "resume", resume)


@bug(
    "Log time passes half as fast as the leader's clock, so that what the dead held stays with them twice as long.",
    oracles=TOO_SLOW,
    budget=20,
    case=busy,
)
def log_time_is_slow(patch: Patch) -> None:
    def lt(self: LogClock, now_ms: int) -> int:
        return self.base_lt + max(0, now_ms - self.since_ms) // 2

    patch.replace(LogClock, "lt", lt)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
